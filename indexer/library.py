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
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileRecord, FileStamp, KnownContent
from scanonce.storage.errors import ConfigError

VIDEO_EXTENSIONS = IndexerSettings().endings
"""Extensions scanned by default, lower case with the dot."""

BLOCK_BYTES = 64 * 1024
NUM_BLOCKS = 18
WHOLE_FILE_BYTES = BLOCK_BYTES * NUM_BLOCKS
"""Up to this size the fast hash covers every byte."""

HashProgress = Callable[[int, int, Path], None]
"""Called before each file is hashed: how many are done, how many there are, which one is next."""


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """Something in the library that could not be looked at."""

    path: Path
    """Printable: bytes that are no UTF-8 are written as ``\\xff``."""
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What lies on the disk below some roots."""

    roots: tuple[Path, ...]
    files: tuple[FileStamp, ...]
    """Sorted by path; one path per real file."""
    problems: tuple[ScanProblem, ...]
    offline: tuple[Path, ...]
    """Roots, folders and links that cannot be read now; what is known below them is kept."""


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


def scan(
    roots: Sequence[Path],
    *,
    extensions: frozenset[str] = VIDEO_EXTENSIONS,
    follow_symlinks: bool = True,
    libraries: Collection[Path] = (),
) -> Scan:
    """List the video files at or below the roots.

    Names that start with a dot are passed over, files and folders. A real file that is reached by
    several ways is listed once: under its own path where a root holds that, else under the first
    link.

    Args:
        roots: folders or single files; relative ones count from the working directory.
        extensions: lower case with the dot; matched in any case.
        follow_symlinks: False passes links over, below the roots.
        libraries: roots that are known. One that does not exist is offline (a disk not plugged in),
            and so is a folder among them that lies below another, also where it is empty; what does
            not exist below one that does, and is not empty, is gone.

    Raises:
        ConfigError: a root that is neither does not exist, or its name is not valid UTF-8.
    """
    walk = _Walk(extensions, follow_symlinks)
    absolute = tuple(sorted({Path(os.path.abspath(root)) for root in roots}))
    for root in absolute:
        if not _is_utf8(str(root)):
            raise ConfigError(f"{_printable(str(root))}: the name is not valid UTF-8; rename it")
        if os.path.lexists(root):
            walk.enter_root(str(root))
        elif (library := walk.library_of(root, libraries)) is None:
            raise ConfigError(f"{root} does not exist: check the path, or plug its disk in")
        elif library == root or _is_away(library):
            walk.report_away(root)
    for library in libraries:
        if not set(absolute).isdisjoint(library.parents) and walk.is_folder_away(library):
            walk.report_away(library)
    walk.run()
    files = sorted(walk.files.values(), key=lambda file: file.path)
    problems = sorted(walk.problems, key=lambda problem: problem.path)
    return Scan(absolute, tuple(files), tuple(problems), tuple(sorted(set(walk.offline))))


def _is_away(folder: Path) -> bool:
    """Whether a folder is missing, unreadable or empty, as that of a disk that is not plugged in is."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Those that lie below no other of them, sorted: a video that was indexed alone is a root inside its folder."""
    known = set(paths)
    return sorted(path for path in known if known.isdisjoint(path.parents))


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


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder, a link or a root to look at."""

    path: str
    """As it will be shown."""
    real: str
    """With every link resolved."""
    above: tuple[str, ...] = ()
    """Real paths of the folders walked through to come here; none for a root."""


@dataclass
class _Walk:
    """Walks plain folders before links, so that a file keeps its own path where it has one."""

    extensions: frozenset[str]
    follow_symlinks: bool
    files: dict[str, FileStamp] = field(default_factory=dict)
    """By real path."""
    problems: list[ScanProblem] = field(default_factory=list)
    offline: list[Path] = field(default_factory=list)
    _folders: deque[_Place] = field(default_factory=deque)
    _links: deque[_Place] = field(default_factory=deque)
    _entered: set[str] = field(default_factory=set)

    def enter_root(self, path: str) -> None:
        """Put a root on the list."""
        root = _Place(path, os.path.realpath(path))
        (self._folders if root.path == root.real else self._links).append(root)

    def library_of(self, path: Path, libraries: Collection[Path]) -> Path | None:
        """The innermost library that holds a path; for a video that is one itself, the folder around it."""
        holding = [each for each in (path, *path.parents) if each in libraries]
        if len(holding) > 1 and holding[0] == path and self._is_video(str(path)):
            return holding[1]
        return holding[0] if holding else None

    def is_folder_away(self, library: Path) -> bool:
        """Whether a library below another is a folder that is missing or empty: its disk is not plugged in."""
        if self._is_video(str(library)):  # indexed by itself once; gone like any other file
            return False
        if not os.path.lexists(library):
            return True
        return os.path.isdir(library) and os.access(library, os.R_OK) and _is_away(library)

    def report_away(self, root: Path) -> None:
        """Keep what is known at and below a root that is not there."""
        self._problem(str(root), "it is not there now; what is known of it is kept")
        self.offline.append(root)

    def run(self) -> None:
        """Walk until nothing is left."""
        while self._folders or self._links:
            place = self._folders.popleft() if self._folders else self._links.popleft()
            try:
                self._look_at(place)
            except OSError as error:
                self._cannot_read(place.path, error)

    def _look_at(self, place: _Place) -> None:
        status = os.stat(place.path)
        if not stat.S_ISDIR(status.st_mode):
            if self._is_video(place.path):
                self._add_file(place.path, place.real, status)
            elif not place.above:
                known = " ".join(sorted(self.extensions))
                self._problem(place.path, f"not a video by its extension; scanned are {known}")
        elif place.real in place.above:
            self._problem(place.path, "the link leads back to a folder above it")
        elif place.real not in self._entered:  # two links a level would double the work each time
            self._entered.add(place.real)
            self._list_folder(place)

    def _list_folder(self, folder: _Place) -> None:
        with os.scandir(folder.path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        if not entries and not folder.above:
            # An empty root is most often a mount point whose disk is not there.
            self.offline.append(Path(folder.path))
        for entry in entries:
            if not entry.name.startswith("."):
                try:
                    self._sort_entry(entry, folder)
                except OSError as error:
                    self._cannot_read(entry.path, error)

    def _sort_entry(self, entry: os.DirEntry[str], folder: _Place) -> None:
        above = (*folder.above, folder.real)
        is_folder = entry.is_dir(follow_symlinks=False)
        if not _is_utf8(entry.name):
            if is_folder or self._is_video(entry.name):
                self._problem(entry.path, "the name is not valid UTF-8: rename it")
        elif entry.is_symlink():
            if self.follow_symlinks:
                self._links.append(_Place(entry.path, os.path.realpath(entry.path), above))
        elif is_folder:
            real = os.path.join(folder.real, entry.name)
            self._folders.append(_Place(entry.path, real, above))
        elif self._is_video(entry.name):
            real = os.path.join(folder.real, entry.name)
            self._add_file(entry.path, real, entry.stat(follow_symlinks=False))

    def _is_video(self, path: str) -> bool:
        return os.path.splitext(path)[1].lower() in self.extensions

    def _add_file(self, path: str, real: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            stamp = FileStamp(Path(path), status.st_size, status.st_mtime_ns)
            self.files.setdefault(real, stamp)
        else:
            self._problem(path, "not a regular file")

    def _cannot_read(self, path: str, error: OSError) -> None:
        """Report it and keep what is known below it: a disk that is away is no deleted library."""
        is_broken = os.path.islink(path) and not os.path.exists(path)
        what = f"broken link to {_printable(os.path.realpath(path))}" if is_broken else "unreadable"
        self._problem(path, f"{what}: {error.strerror or error}")
        self.offline.append(Path(path))

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append(ScanProblem(Path(_printable(path)), reason))


def _is_utf8(name: str) -> bool:
    """False where the file system's bytes are no UTF-8: Python holds those as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
            if self.content.full_hash is None and _is_still(file):
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


def _is_still(file: FileStamp) -> bool:
    """True where the file has not changed since it was recorded."""
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)
