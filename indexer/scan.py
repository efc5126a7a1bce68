"""Which video files there are below some roots: a walk over folders and links that opens no file."""

import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.catalog.entries import FileStamp
from scanonce.storage.errors import ConfigError

VIDEO_EXTENSIONS = IndexerSettings().endings
"""Extensions scanned by default, lower case with the dot."""


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
        elif library == root or is_away(library):
            walk.report_away(root)
    for library in libraries:
        if not set(absolute).isdisjoint(library.parents) and walk.is_folder_away(library):
            walk.report_away(library)
    walk.run()
    files = sorted(walk.files.values(), key=lambda file: file.path)
    problems = sorted(walk.problems, key=lambda problem: problem.path)
    return Scan(absolute, tuple(files), tuple(problems), tuple(sorted(set(walk.offline))))


def is_away(folder: Path) -> bool:
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
        return os.path.isdir(library) and os.access(library, os.R_OK) and is_away(library)

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
