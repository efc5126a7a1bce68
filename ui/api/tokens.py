"""Tokens by which programs use the HTTP API: made, listed, revoked, and checked.

    tokens = Tokens(index_dir)
    secret = tokens.add("editor", ("read", "export"))       # shown once, never stored
    tokens.find(secret).scopes

The file ``tokens.json`` of the index directory has the SHA-256 of each token, which says nothing about it: a token is
256 random bits. The file belongs to its owner alone and is read again after each change, so a revoked token is refused
at once.
"""

import hashlib
import hmac
import json
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

from filelock import FileLock

from scanonce.storage.catalog.label_names import normal_label
from scanonce.storage.errors import ConfigError, reported
from scanonce.storage.files import is_private, write_whole
from scanonce.storage.untrusted import DamagedFile, read_json

Scope = Literal["read", "export", "write"]
"""``read``: search and look; ``export``: clips and edit lists; ``write``: label, save searches, index."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_TOKENS = 100

_FILE, _LOCK = "tokens.json", "tokens.lock"
_PREFIX = "scanonce_"
_BYTES = 32
_MAX_SECRET = 200


@dataclass(frozen=True, slots=True)
class Token:
    """A token, without its secret."""

    name: str
    scopes: tuple[Scope, ...]
    digest: str
    """SHA-256 of the secret, in hex."""
    created: str
    """UTC, ISO 8601."""


class Tokens:
    """The tokens of an index directory. Threads and processes may share them."""

    def __init__(self, root: Path) -> None:
        """Read nothing yet; the directory need not exist."""
        self._root = root
        self._lock = Lock()
        self._read: tuple[tuple[int, ...], tuple[Token, ...]] | None = None

    def add(self, name: str, scopes: Iterable[str]) -> str:
        """Make a token and return its secret, which is stored nowhere.

        Raises:
            QueryError: the name is not allowed.
            ConfigError: the name is in use, a scope is unknown, there are `MAX_TOKENS`, or the file cannot be used.
            IndexDirectoryError: it cannot be written.
        """
        name, asked = normal_label(name), set(scopes)
        if unknown := asked - set(SCOPES):
            raise ConfigError(f"a scope is one of {', '.join(SCOPES)}; got {min(unknown)!r}")
        if not asked:
            raise ConfigError(f"a token needs a scope: {', '.join(SCOPES)}")
        secret = _PREFIX + secrets.token_urlsafe(_BYTES)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        granted = tuple(each for each in SCOPES if each in asked)
        with self._changing() as tokens:
            if any(each.name.casefold() == name.casefold() for each in tokens):
                raise ConfigError(
                    f"there is a token {name!r}: take another name, or run `scanonce token revoke {name!r}` first"
                )
            if len(tokens) >= MAX_TOKENS:
                raise ConfigError(f"there are {MAX_TOKENS} tokens: revoke one first")
            tokens.append(Token(name, granted, _digest(secret), made))
        return secret

    def revoke(self, name: str) -> None:
        """Forget a token: it is refused from now on.

        Raises:
            ConfigError: there is none of this name.
        """
        with self._changing() as tokens:
            kept = [each for each in tokens if each.name.casefold() != name.casefold()]
            if len(kept) == len(tokens):
                names = ", ".join(repr(each.name) for each in tokens) or "none"
                raise ConfigError(f"there is no token {name!r}; there are: {names}")
            tokens[:] = kept

    def all(self) -> tuple[Token, ...]:
        """Return all tokens, oldest first.

        Raises:
            ConfigError: the file is damaged, or others could have written or read it.
        """
        with self._lock:
            mark = self._mark()
            if self._read is None or self._read[0] != mark:
                self._read = mark, self._load() if mark else ()
            return self._read[1]

    def find(self, secret: str) -> Token | None:
        """Return the token with a secret, in a time that says nothing about the secrets there are."""
        digest = _digest(secret[:_MAX_SECRET])
        found = None
        for each in self.all():  # all of them, whether or not one was found
            if hmac.compare_digest(each.digest, digest):
                found = each
        return found

    @contextmanager
    def _changing(self) -> Any:
        """Give the tokens as a list to change, and write it."""
        with reported(self._root, "written"):
            self._root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._root / _LOCK)
            with lock:
                tokens = list(self.all())
                yield tokens
                content = json.dumps([asdict(each) for each in tokens], indent=1).encode()
                write_whole(
                    self._path, lambda file: file.write(content)
                )  # readable by its owner only

    @property
    def _path(self) -> Path:
        return self._root / _FILE

    def _mark(self) -> tuple[int, ...]:
        """Return what changes with the file; empty if there is none."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return ()
        if not (stat.S_ISREG(found.st_mode) and is_private(found)):
            raise ConfigError(
                f"{self._path} is not yours alone, so anyone could have put a token there: remove it, and make tokens "
                "with `scanonce token add`"
            )
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> tuple[Token, ...]:
        try:
            return _tokens(read_json(self._path))
        except (OSError, DamagedFile, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{self._path} cannot be read: remove it, and make tokens with `scanonce token add`"
            ) from error


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _tokens(values: Sequence[dict[str, Any]]) -> tuple[Token, ...]:
    tokens = []
    for each in values[:MAX_TOKENS]:
        scopes = tuple(scope for scope in SCOPES if scope in each["scopes"])
        texts = [each[key] for key in ("name", "digest", "created")]
        if not all(isinstance(text, str) and text.isascii() | (text == texts[0]) for text in texts):
            raise ValueError("not a token")
        tokens.append(Token(texts[0], scopes, texts[1], texts[2]))
    return tuple(tokens)
