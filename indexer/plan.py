"""Which files are new, changed, moved, gone: a folder against the catalogue, nothing decoded yet.

:func:`scan` looks at the disk, :func:`plan` compares it with the catalogue. Neither writes
anything.

    >>> found = scan([Path("/films")], extensions=VIDEO_EXTENSIONS)       # doctest: +SKIP
    >>> work = plan(catalog, found)                                       # doctest: +SKIP
    >>> [each.files[0].path for each in work.to_index]                    # doctest: +SKIP

Carry a plan out in this order: index, attach, and forget last, so that a video that moved finds its
new file before its old one goes.

**Content identity.** A file is known by its *fast hash*: BLAKE2b over its size and 18 blocks of 64
KiB (first, last and 16 evenly between; all of it where it is smaller). Where a fast hash is known
already, two contents are the same if their *full hashes* agree, which are only then computed; where
the earlier content lies nowhere any more and has no full hash on record, it is taken to have moved.
The uid of a content is its fast hash; one that turns out to differ from every earlier content with
that fast hash gets its full hash. A uid names what one scan made of a content and never changes:
scanned again (a video that was partial, or whose stored features are damaged) it gets a number.
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
"""Up to this size the fast hash covers every byte."""

HashProgress = Callable[[int, int, Path], None]
"""Called before each file is hashed: how many are done, how many there are, which one is next."""


@dataclass(frozen=True, slots=True)
class NewContent:
    """A content to decode."""

    content: Content
    files: tuple[FileStamp, ...]
    """Every file that holds it, sorted by path; decode the first."""
    replaces: int | None = None
    """The searchable video of the same content whose place it takes when it was decoded; ``content`` has a uid of its
    own then."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that holds a content the catalogue knows: arguments of ``Catalog.attach_file``."""

    video_id: int
    file: FileStamp
    full_hash: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do so that the catalogue agrees with the disk. All sorted by path."""

    to_index: tuple[NewContent, ...]
    to_attach: tuple[Attachment, ...]
    to_forget: tuple[Path, ...]
    unchanged: int
    """Files that were not even opened, the next field's among them."""
    failed_before: tuple[FileRecord, ...]
    """Files that failed in an earlier run, have not changed and are sure to fail again: skipped."""
    offline: tuple[Path, ...]
    """Known files that cannot be seen now, below something unreadable: kept, still searchable."""
    unreadable: tuple[tuple[FileStamp, str], ...]
    """Files that could not be hashed, with the reason: arguments of ``Catalog.record_failed``."""
    problems: tuple[ScanProblem, ...]
    """The scan's problems."""


def plan(
    catalog: Catalog,
    found: Scan,
    *,
    retry_failed: bool = False,
    again: Collection[int] = (),
    attempts: int = 1,
    progress: HashProgress | None = None,
) -> Plan:
    """Sort every file into what has to be done with it.

    A file whose path, size and time of change are on record is not opened. Others are hashed: 1.1
    MiB are read of each, or all of it where a copy has to be told from another content (see the
    module's text).

    Args:
        catalog: read, never written.
        found: a scan of the roots; what the catalogue knows outside them is left alone.
        retry_failed: decode again what failed before, and what could be decoded in part only.
        again: ids of videos to decode again, whatever became of them before.
        attempts: runs in which what failed by a crash, a hang or a limit is decoded.
        progress: called before each file is hashed.

    Raises:
        IndexDirectoryError: the catalogue cannot be read.
    """
    known = {file.stamp.path: file for root in found.roots for file in catalog.files_under(root)}
    is_due = _Due(retry_failed, frozenset(again), attempts)
    to_hash, unchanged = _split_unchanged(found.files, known, is_due)
    contents = _Contents(catalog, is_due)
    unreadable = []
    for done, file in enumerate(to_hash):
        if progress is not None:
            progress(done, len(to_hash), file.path)
        try:
            contents.place(file)
        except OSError as error:
            unreadable.append((file, f"cannot be read: {error.strerror or error}"))
    to_index, to_attach = contents.sort_out()
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
    """Paths that a plan would do something about, told by size and time alone: no file is opened.

    Args:
        catalog: read, never written.
        found: a scan of the roots.
        attempts: as in :func:`plan`.

    Raises:
        IndexDirectoryError: the catalogue cannot be read.
    """
    known = {file.stamp.path: file for root in found.roots for file in catalog.files_under(root)}
    changed, _ = _split_unchanged(found.files, known, _Due(False, frozenset(), attempts))
    gone, _ = _split_missing(found, known)
    return sorted([*(file.path for file in changed), *gone])


def fast_hash(path: Path) -> str:
    """Digest of a file's size and 18 blocks of it, 40 hex digits; reads 1.1 MiB at most.

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
    """Digest of every byte of a file, 40 hex digits; about 1 s a gigabyte from memory.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=20, person=b"scanonce-full")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------- walking


# ---------------------------------------------------------------- sorting


@dataclass(frozen=True, slots=True)
class _Due:
    """Whether a known content is to be decoded again."""

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
    files: Iterable[FileStamp], known: dict[Path, FileRecord], is_due: _Due
) -> tuple[list[FileStamp], list[FileRecord]]:
    """Files to hash, and records that still hold."""
    to_hash, unchanged = [], []
    for file in files:
        record = known.get(file.path)
        if (
            record is None
            or record.stamp != file
            or record.problem is not None  # so it is wherever there is no video
            or is_due(record)
        ):
            to_hash.append(file)
        else:
            unchanged.append(record)
    return to_hash, unchanged


def _split_missing(found: Scan, known: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Known files the scan did not see: those gone, and those that cannot be seen now."""
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
    """A content that files with its fast hash may hold: in the catalogue, or met in this plan."""

    content: Content
    known: KnownContent | None
    files: list[FileStamp]
    """Where it lies: as recorded (any of these may have changed or gone by now), then as found."""
    new_files: list[FileStamp] = field(default_factory=list)
    """Found in this plan."""

    def full_hash(self) -> str | None:
        """Digest of all of it, read where it must be; None where it lies nowhere any more."""
        for file in self.files:
            if self.content.full_hash is None and is_unchanged(file):
                # Unreadable is as good as gone: it can prove nothing.
                with suppress(OSError):
                    self.content = replace(self.content, full_hash=full_hash(file.path))
        return self.content.full_hash


class _Contents:
    """Finds out which files hold the same content. The module's text states the rule."""

    def __init__(self, catalog: Catalog, is_due: _Due) -> None:
        self._catalog = catalog
        self._is_due = is_due
        self._candidates: dict[str, list[_Candidate]] = {}  # by fast hash

    def place(self, file: FileStamp) -> None:
        """Put a file to the content it holds.

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

    def sort_out(self) -> tuple[list[NewContent], list[Attachment]]:
        """What has to be decoded, and what only has to be recorded."""
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
        """The candidate whose content the file holds; a new one where there is none."""
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
            for wanted in (mine, None):  # the same; or else one that, for all we know, has moved
                if wanted in theirs:
                    return candidates[theirs.index(wanted)]
        content = Content(mine or fast, fast, file.size_bytes, mine)
        candidates.append(_Candidate(content, None, []))
        return candidates[-1]


def _next_uid(uid: str) -> str:
    """Names the same content scanned once more: ``3f9c``, ``3f9c-2``, ``3f9c-3``."""
    digest, _, number = uid.partition("-")
    return f"{digest}-{int(number or 1) + 1}"


def is_unchanged(file: FileStamp) -> bool:
    """Whether a file is there as it was recorded, by size and time of change."""
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)
