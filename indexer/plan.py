"""Compares the files on disk with the catalogue: which are new, changed, moved or gone. Nothing is decoded or written.

    >>> found = scan([Path("/films")])                                    # doctest: +SKIP
    >>> todo = plan(catalog, found)                                       # doctest: +SKIP
    >>> [each.files[0].path for each in todo.to_index]                    # doctest: +SKIP

Carry out a plan in this order: index, attach, and forget last. A video that moved then gets its new file before it
loses its old one.

**Identity of contents.** A file is identified by its *fast hash*: BLAKE2b over its size and 18 blocks of 64 KiB (the
first, the last and 16 evenly between), or over all of a smaller file. If a fast hash is known already, two contents are
the same if their *full hashes* are equal. That of a large file is computed while it is decoded and kept in the
catalogue. Without them: a file whose size and time are those of a recorded file that is gone was moved. A content
without a full hash has moved if its file is gone; if its file is there with another time, it may have been written in
place, so it is scanned again. The uid of a content is its fast hash. A content that differs from every earlier content
with the same fast hash gets its full hash as uid. A uid names one scan of a content and never changes: if the content
is scanned again (because the video was partial, or its features are damaged), its uid gets a number.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from scanonce.indexer.content import is_other_content
from scanonce.indexer.hashing import WHOLE_FILE_BYTES, fast_hash, full_hash, is_unchanged
from scanonce.indexer.scan import Scan, ScanProblem
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileRecord, FileStamp, KnownContent

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
    """Number of files that are as on record, including ``failed_before``."""
    failed_before: tuple[FileRecord, ...]
    """Unchanged files that failed in an earlier run and would fail again: skipped."""
    offline: tuple[Path, ...]
    """Known files in a folder that cannot be read now: kept, and still searchable."""
    unreadable: tuple[tuple[FileStamp, str], ...]
    """Files that could not be hashed, with the reason: the arguments of ``Catalog.record_failed``."""
    problems: tuple[ScanProblem, ...]
    """The problems of the scan."""
    other_contents: tuple[Path, ...] = ()
    """Files with the extension of a video that are none, such as source code; they count as not there."""


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

    A searchable file whose path, size and modification time are on record is not opened. Others are hashed: 1.1 MiB of
    each are read, or all of it if that looks like a known content (see the docstring of this module).

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
    found, other_contents = _leave_out_other_contents(found, known)
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
        other_contents=other_contents,
    )


def differing(catalog: Catalog, found: Scan, *, attempts: int = 1) -> list[Path]:
    """Return the paths that differ from the catalogue by size and time; only the first bytes of new files are read.

    Args:
        catalog: is only read.
        found: a scan of the roots.
        attempts: as in :func:`plan`.

    Raises:
        IndexDirectoryError: the catalogue cannot be read.
    """
    known = {file.stamp.path: file for root in found.roots for file in catalog.files_under(root)}
    found, _ = _leave_out_other_contents(found, known)
    changed, _ = _split_unchanged(found.files, known, _RetryRule(False, frozenset(), attempts))
    gone, _ = _split_missing(found, known)
    return sorted([*(file.path for file in changed), *gone])


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


def _leave_out_other_contents(
    found: Scan, known: Mapping[Path, FileRecord]
) -> tuple[Scan, tuple[Path, ...]]:
    """Return the scan without the files that cannot be videos, and those. Searchable ones as on record are not read."""

    def is_other(file: FileStamp) -> bool:
        record = known.get(file.path)
        if (
            record is not None
            and record.stamp == file
            and record.problem is None
            and record.state != "failed"
        ):
            return False
        try:
            return is_other_content(file.path)
        except OSError:  # hashing it fails too, and says why
            return False

    others = frozenset(file.path for file in found.files if is_other(file))
    files = tuple(file for file in found.files if file.path not in others)
    return replace(found, files=files), tuple(sorted(others))


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
    may_be_rewritten: bool = False
    """Nothing tells its earlier content from the one that its file has now."""

    def full_hash(self) -> str | None:
        """Return the full hash, which is computed if necessary; None if no file has this content any more."""
        for file in self.files:
            if self.content.full_hash is None and is_unchanged(file):
                # An unreadable file proves as little as a missing one.
                with suppress(OSError):
                    self.content = replace(self.content, full_hash=full_hash(file.path))
        return self.content.full_hash

    def has_lost(self, file: FileStamp) -> bool:
        """Whether a recorded file of the same size and time is not there any more: it was moved or renamed."""
        return any(
            replace(file, path=each.path) == each and not is_unchanged(each)
            for each in self._recorded
        )

    def take_over(self) -> None:
        """Take a file as this content although no full hash confirms it: the content has moved, unless it is there."""
        self.may_be_rewritten |= any(os.path.lexists(each.path) for each in self._recorded)

    @property
    def _recorded(self) -> tuple[FileStamp, ...]:
        return self.known.files if self.known is not None else ()


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
            is_due = candidate.may_be_rewritten or (known is not None and self._is_due(known))
            if known is None or (known.state == "failed" and is_due):
                to_index.append(NewContent(content, files))
            elif is_due:
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
        for candidate in candidates:
            if file.size_bytes <= WHOLE_FILE_BYTES or file in candidate.files:
                return candidate
        moved = [candidate for candidate in candidates if candidate.has_lost(file)]
        if len(moved) == 1:
            return moved[0]
        theirs = [candidate.full_hash() for candidate in candidates]
        mine = None
        if any(theirs):
            mine = full_hash(file.path)
            if mine in theirs:
                return candidates[theirs.index(mine)]
        if None in theirs:
            chosen = candidates[theirs.index(None)]
            chosen.take_over()
            return chosen
        content = Content(mine or fast, fast, file.size_bytes, mine)
        candidates.append(_Candidate(content, None, []))
        return candidates[-1]


def _next_uid(uid: str) -> str:
    """Return the uid of the next scan of the same content: ``3f9c``, ``3f9c-2``, ``3f9c-3``."""
    digest, _, number = uid.partition("-")
    return f"{digest}-{int(number or 1) + 1}"
