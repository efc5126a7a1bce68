"""Compares the files on disk with the catalogue: which are new, changed, moved or gone. Nothing is decoded or written.

    >>> found = scan([Path("/films")])                                    # doctest: +SKIP
    >>> todo = plan(catalog, found)                                       # doctest: +SKIP
    >>> [each.files[0].path for each in todo.to_index]                    # doctest: +SKIP

Carry out a plan in this order: index, attach, and forget last. A video that moved then gets its new file before it
loses its old one.

**Identity of contents.** A file is identified by its *fast hash*: BLAKE2b over its size and 18 blocks of 64 KiB (the
first, the last and 16 evenly between), or over all of a smaller file. If a fast hash is known already, two contents are
the same if their *full hashes* are equal; only then are these computed. An earlier content that has no file and no full
hash any more is taken to have moved. The uid of a content is its fast hash. A content that differs from every earlier
content with the same fast hash gets its full hash as uid. A uid names one scan of a content and never changes: if the
content is scanned again (because the video was partial, or its features are damaged), its uid gets a number.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from scanonce.indexer.scan import Scan, ScanProblem
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileRecord, FileStamp, KnownContent

BLOCK_BYTES = 64 * 1024
NUM_BLOCKS = 18
WHOLE_FILE_BYTES = BLOCK_BYTES * NUM_BLOCKS
"""Size up to which the fast hash covers every byte."""

HashProgress = Callable[[int, int, Path], None]
"""Called before each file is hashed, with the number of files done, the number of all, and the next file."""


@dataclass(frozen=True, slots=True)
class NewContent:
    """A content to decode."""

    content: Content
    files: tuple[FileStamp, ...]
    """Every file with this content, sorted by path; decode the first."""
    replaces: int | None = None
    """Id of the searchable video of the same content that this scan replaces; ``content`` then has a new uid."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file with a content that the catalogue knows: the arguments of ``Catalog.attach_file``."""

    video_id: int
    file: FileStamp
    full_hash: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps that bring the catalogue in line with the disk. All lists are sorted by path."""

    to_index: tuple[NewContent, ...]
    to_attach: tuple[Attachment, ...]
    to_forget: tuple[Path, ...]
    unchanged: int
    """Number of files that were not opened, including ``failed_before``."""
    failed_before: tuple[FileRecord, ...]
    """Unchanged files that failed in an earlier run and would fail again: skipped."""
    offline: tuple[Path, ...]
    """Known files in a folder that cannot be read now: kept, and still searchable."""
    unreadable: tuple[tuple[FileStamp, str], ...]
    """Files that could not be hashed, with the reason: the arguments of ``Catalog.record_failed``."""
    problems: tuple[ScanProblem, ...]
    """The problems of the scan."""


def plan(
    catalog: Catalog,
    found: Scan,
    *,
    retry_failed: bool = False,
    again: Collection[int] = (),
    attempts: int = 1,
    progress: HashProgress | None = None,
) -> Plan:
    """Decide for every file what has to be done with it.

    A file whose path, size and modification time are on record is not opened. Others are hashed: 1.1 MiB of each are
    read, or all of it to distinguish a copy from another content (see the docstring of this module).

    Args:
        catalog: is only read.
        found: a scan of the roots; files outside them are ignored.
        retry_failed: decode files again that failed before or could be decoded in part only.
        again: ids of videos to decode again in any case.
        attempts: number of runs that decode a file which failed by a crash, a hang or a limit.
        progress: called before each file is hashed.

    Raises:
        IndexDirectoryError: the catalogue cannot be read.
    """
    known = {file.stamp.path: file for root in found.roots for file in catalog.files_under(root)}
    is_due = _RetryRule(retry_failed, frozenset(again), attempts)
    to_hash, unchanged = _split_unchanged(found.files, known, is_due)
    contents = _Contents(catalog, is_due)
    unreadable = []
    for done, file in enumerate(to_hash):
        if progress is not None:
            progress(done, len(to_hash), file.path)
        try:
            contents.add(file)
        except OSError as error:
            unreadable.append((file, f"cannot be read: {error.strerror or error}"))
    to_index, to_attach = contents.split()
    to_forget, offline = _split_missing(found, known)
    return Plan(
        to_index=tuple(to_index),
        to_attach=tuple(to_attach),
        to_forget=tuple(to_forget),
        unchanged=len(unchanged),
        failed_before=tuple(record for record in unchanged if record.state == "failed"),
        offline=tuple(offline),
        unreadable=tuple(unreadable),
        problems=found.problems,
    )


def differing(catalog: Catalog, found: Scan, *, attempts: int = 1) -> list[Path]:
    """Return the paths that differ from the catalogue by size and time; no file is opened.

    Args:
        catalog: is only read.
        found: a scan of the roots.
        attempts: as in :func:`plan`.

    Raises:
        IndexDirectoryError: the catalogue cannot be read.
    """
    known = {file.stamp.path: file for root in found.roots for file in catalog.files_under(root)}
    changed, _ = _split_unchanged(found.files, known, _RetryRule(False, frozenset(), attempts))
    gone, _ = _split_missing(found, known)
    return sorted([*(file.path for file in changed), *gone])


def fast_hash(path: Path) -> str:
    """Return the digest of a file's size and 18 blocks of it, 40 hex digits; reads at most 1.1 MiB.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=20, person=b"scanonce-fast")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        if size <= WHOLE_FILE_BYTES:
            digest.update(file.read())
        else:
            for number in range(NUM_BLOCKS):
                file.seek(number * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def full_hash(path: Path) -> str:
    """Return the digest of every byte of a file, 40 hex digits; takes about 1 s per gigabyte from memory.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=20, person=b"scanonce-full")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_unchanged(file: FileStamp) -> bool:
    """Whether a file exists with the recorded size and modification time."""
    try:
        return FileStamp.of(file.path, file.path.stat()) == file
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _RetryRule:
    """Decides whether a known content is decoded again."""

    retry_failed: bool
    again: frozenset[int]
    attempts: int

    def __call__(self, video: FileRecord | KnownContent) -> bool:
        if video.video_id in self.again:
            return True
        if self.retry_failed:
            return video.state in ("failed", "partial")
        failures = video.transient_failures
        return failures is not None and failures < self.attempts


def _split_unchanged(
    files: Iterable[FileStamp], known: dict[Path, FileRecord], is_due: _RetryRule
) -> tuple[list[FileStamp], list[FileRecord]]:
    """Return the files to hash, and the records that are still true."""
    to_hash, unchanged = [], []
    for file in files:
        record = known.get(file.path)
        if (
            record is None
            or record.stamp != file
            or record.problem is not None  # a file without a video has one
            or is_due(record)
        ):
            to_hash.append(file)
        else:
            unchanged.append(record)
    return to_hash, unchanged


def _split_missing(found: Scan, known: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the known files that the scan did not find: those that are gone, and those that are offline."""
    seen = {file.path for file in found.files}
    unseen = set(found.offline)
    gone: list[Path] = []
    offline: list[Path] = []
    for path in sorted(path for path in known if path not in seen):
        is_offline = path in unseen or any(folder in unseen for folder in path.parents)
        (offline if is_offline else gone).append(path)
    return gone, offline


@dataclass
class _Candidate:
    """A content with a certain fast hash, from the catalogue or found by this plan."""

    content: Content
    known: KnownContent | None
    files: list[FileStamp]
    """Its files: first the recorded ones, which may have changed since, then those found by this plan."""
    new_files: list[FileStamp] = field(default_factory=list)
    """The files found by this plan."""

    def full_hash(self) -> str | None:
        """Return the full hash, which is computed if necessary; None if no file has this content any more."""
        for file in self.files:
            if self.content.full_hash is None and is_unchanged(file):
                # An unreadable file proves as little as a missing one.
                with suppress(OSError):
                    self.content = replace(self.content, full_hash=full_hash(file.path))
        return self.content.full_hash


class _Contents:
    """Groups files by content. The docstring of this module states the rule."""

    def __init__(self, catalog: Catalog, is_due: _RetryRule) -> None:
        self._catalog = catalog
        self._is_due = is_due
        self._candidates: dict[str, list[_Candidate]] = {}  # by fast hash

    def add(self, file: FileStamp) -> None:
        """Add a file to its content.

        Raises:
            OSError: it cannot be read.
        """
        fast = fast_hash(file.path)
        if fast not in self._candidates:
            self._candidates[fast] = [
                _Candidate(known.content, known, list(known.files))
                for known in self._catalog.videos_by_fast_hash(fast)
            ]
        candidate = self._identify(file, fast)
        candidate.new_files.append(file)
        candidate.files.append(file)

    def split(self) -> tuple[list[NewContent], list[Attachment]]:
        """Return the contents to decode, and the files of known contents that only have to be recorded."""
        to_index, to_attach = [], []
        for candidate in chain.from_iterable(self._candidates.values()):
            known, content = candidate.known, candidate.content
            files = tuple(candidate.new_files)
            if not files:
                continue
            if known is None or (known.state == "failed" and self._is_due(known)):
                to_index.append(NewContent(content, files))
            elif self._is_due(known):
                fresh = replace(content, uid=_next_uid(content.uid))
                to_index.append(NewContent(fresh, files, replaces=known.video_id))
            else:
                to_attach += [Attachment(known.video_id, file, content.full_hash) for file in files]
        to_index.sort(key=lambda new: new.files[0].path)
        to_attach.sort(key=lambda attachment: attachment.file.path)
        return to_index, to_attach

    def _identify(self, file: FileStamp, fast: str) -> _Candidate:
        """Return the candidate with the content of the file; a new candidate if there is none."""
        candidates = self._candidates[fast]
        mine = None
        if candidates:
            for candidate in candidates:
                if file.size_bytes <= WHOLE_FILE_BYTES or file in candidate.files:
                    return candidate
            theirs = [candidate.full_hash() for candidate in candidates]
            if all(digest is None for digest in theirs):
                return candidates[0]
            mine = full_hash(file.path)
            for wanted in (
                mine,
                None,
            ):  # the same content, or else one without a file, which has moved
                if wanted in theirs:
                    return candidates[theirs.index(wanted)]
        content = Content(mine or fast, fast, file.size_bytes, mine)
        candidates.append(_Candidate(content, None, []))
        return candidates[-1]


def _next_uid(uid: str) -> str:
    """Return the uid of the next scan of the same content: ``3f9c``, ``3f9c-2``, ``3f9c-3``."""
    digest, _, number = uid.partition("-")
    return f"{digest}-{int(number or 1) + 1}"
