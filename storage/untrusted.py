"""What others may have written: an index or a backup is shared between people, so its names and files are untrusted.

    check_uid("3f9c0a-2")                                  # a uid becomes the name of a file only after this
    inside(layout.anchors, "3f9c0a51d2e7-0")               # a path that does not leave its folder
    read_json(layout.manifest)                             # whatever is there: a value, or one of two errors

A name becomes a path in `inside` only, and a link in an index is never followed: it could lead anywhere, for reading as
for deleting. Files are opened by `open_regular` only, so a folder, a pipe or a link in place of a file is damage.
"""

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from scanonce.storage.errors import IndexDirectoryError

MAX_JSON_BYTES = 16 << 20
"""More than any JSON file of an index has: the largest one names the segments of the vector index."""

_UID = re.compile(r"[0-9a-f]{1,128}(-[0-9]{1,9})?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class DamagedFile(Exception):
    """A file is not a whole file of ours; the text says why."""


# ---------------------------------------------------------------- names


def check_uid(value: object) -> str:
    """Return the uid of a content: a hex digest, and the number of the scan if there were several.

    Raises:
        IndexDirectoryError: it is something else, which as the name of a file could lead anywhere.
    """
    if not isinstance(value, str) or not _UID.fullmatch(value):
        raise _forged(
            "the catalogue names a content", value, "a hex digest with at most one -number"
        )
    return value


def check_name(value: object, what: str, pattern: re.Pattern[str] = _NAME) -> str:
    """Return the name of a file or folder of an index.

    Args:
        value: the name as it was read.
        what: what names it, for the message: "the manifest names the folder".
        pattern: pattern of the whole name.

    Raises:
        IndexDirectoryError: it does not match.
    """
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _forged(what, value, f"a name such as {pattern.pattern}")
    return value


def inside(folder: Path, *names: str) -> Path:
    """Return the path of names below a folder, none of which may lead out of it. It need not exist.

    Raises:
        IndexDirectoryError: a name is no plain name, or there is a link of that name.
    """
    path = folder
    for name in names:
        if not _is_plain(name):
            raise _forged(f"a name in {folder} is", name, "a name without a separator")
        path /= name
        refuse_link(path)
    return path


def refuse_link(path: Path) -> None:
    """Raise IndexDirectoryError if a path is a link."""
    if path.is_symlink():
        raise IndexDirectoryError(
            f"{path} is a link. Links in an index are not followed, because they lead out of it: put the folder or "
            "file itself there, or restore a backup. (The index directory itself may be a link.)"
        )


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Raise IndexDirectoryError if one of these names, or of files that belong to them (``name-...``), is a link."""
    wanted = tuple(names)
    try:
        with os.scandir(folder) as entries:
            links = [each.name for each in entries if each.is_symlink()]
    except OSError:  # it does not exist, or cannot be read: whoever opens its files says so
        return
    for name in sorted(links):
        if name in wanted or name.startswith(tuple(f"{each}-" for each in wanted)):
            refuse_link(folder / name)


def folders_in(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """Yield the folders of a folder whose names match, by name.

    Raises:
        IndexDirectoryError: one of them is a link.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(each.name for each in entries if pattern.fullmatch(each.name))
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in found:
        refuse_link(folder / name)
        if (folder / name).is_dir():
            yield folder / name


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & {"/", "\\", "\0", os.sep}


def _forged(what: str, value: object, allowed: str) -> IndexDirectoryError:
    return IndexDirectoryError(
        f"{what} {str(value)[:80]!r}; allowed is {allowed}. The index is damaged, or was made to mislead: nothing was "
        "changed. Restore a backup of your own, or index into another folder."
    )


# ---------------------------------------------------------------- files


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading that is neither a link nor a folder, pipe or device.

    Raises:
        OSError: it is missing, or cannot be opened.
        DamagedFile: there is something else of that name.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedFile("it is a link, and links in an index are not followed") from error
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise DamagedFile("it is no file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DamagedFile("it is no file")
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path) -> os.stat_result:
    """Return the status of a file that another library opens by its path; raises as `open_regular`."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise DamagedFile("it is a link, and links in an index are not followed")
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFile("it is no file")
    return status


def read_bytes(path: Path, most: int) -> bytes:
    """Read a whole file.

    Raises:
        OSError: it is missing, or cannot be read.
        DamagedFile: it is no file, or has more bytes than ``most``.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DamagedFile(f"it has more than {most} bytes")
    return content


def parse_json(content: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        DamagedFile: it is no JSON, nested too deeply, or has a number that is not finite.
    """
    try:
        return json.loads(content, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"it is no JSON: {error}") from error


def parse_object(content: bytes | str) -> dict[str, Any]:
    """Return the object of a JSON text; raises DamagedFile as `parse_json`, and if it is something else."""
    value = parse_json(content)
    if not isinstance(value, dict):
        raise DamagedFile(f"it is no JSON object but a {type(value).__name__}")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def read_json(path: Path) -> Any:
    """Read a JSON file; raises as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, MAX_JSON_BYTES))
