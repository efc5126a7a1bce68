"""Lists the video files below some roots: a walk over folders and links that opens no file."""

import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanonce.indexer.selection import NO_MEDIA, LeftOut, Selection
from scanonce.storage.catalog.entries import FileStamp
from scanonce.storage.errors import ConfigError

NOT_ADDED = "It is not added to the folders of the index"


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """A file or folder that could not be scanned or indexed."""

    path: Path
    """Printable: bytes that are not UTF-8 are written as ``\\xff``."""
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """The video files on the disk below some roots."""

    roots: tuple[Path, ...]
    files: tuple[FileStamp, ...]
    """Sorted by path; one path per real file."""
    problems: tuple[ScanProblem, ...]
    offline: tuple[Path, ...]
    """Roots, folders and links that cannot be read now; the index keeps the files below them."""
    refused: frozenset[Path] = frozenset()
    """Roots in no library that must not become one: nothing at or below them can be indexed."""


def scan(
    roots: Sequence[Path],
    selection: Selection | None = None,
    *,
    libraries: Collection[Path] = (),
) -> Scan:
    """List the video files at or below the roots.

    A file that is reached in several ways is listed once: under its own path if that is below a root, else under the
    first link.

    Args:
        roots: folders or single files; relative paths start at the working directory.
        selection: which files are listed; by default those of the default settings.
        libraries: the known roots. A known root that does not exist is offline (a disk that is not plugged in). So is
            a known folder inside another root, even if it exists and is empty. Other missing files and folders below a
            root that exists and is not empty are gone. A root inside a library is listed as that library is.

    Raises:
        ConfigError: a root does not exist and is not in a library, or its name is not valid UTF-8.
    """
    walk = _Walk(selection or Selection())
    absolute = tuple(sorted({Path(os.path.abspath(root)) for root in roots}))
    for root in absolute:
        if not _is_utf8(str(root)):
            raise ConfigError(f"{_printable(str(root))}: the name is not valid UTF-8; rename it")
        library = walk.library_of(root, libraries)
        if os.path.lexists(root):
            walk.enter_root(root, libraries if library else (root,), is_new=library is None)
        elif library is None:
            raise ConfigError(f"{root} does not exist: check the path, or plug its disk in")
        elif library == root or is_away(library):
            walk.report_away(root)
    for library in libraries:
        above = [root for root in absolute if root in library.parents]
        if above and walk.is_folder_away(library):
            walk.report_away(library)
        elif above and walk.selection.why_left_out(library, above):
            # a root of its own, although the folder around it leaves it out
            walk.enter_root(library, (library,), is_new=False)
    walk.run()
    return walk.result(absolute)


def is_away(folder: Path) -> bool:
    """Whether a folder is missing, unreadable or empty, like the mount point of a disk that is not plugged in."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that are not below another of them, sorted. A root may be inside another root."""
    known = set(paths)
    return sorted(path for path in known if known.isdisjoint(path.parents))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A folder, a link or a root to visit."""

    path: str
    """Path as it is shown."""
    real: str
    """Path with every link resolved."""
    above: tuple[str, ...] = ()
    """Real paths of the folders on the way here; () for a root."""


@dataclass
class _Walk:
    """Visits folders before links, so that a file keeps its own path if that is below a root."""

    selection: Selection
    files: dict[str, FileStamp] = field(default_factory=dict)
    """The files by real path."""
    problems: list[ScanProblem] = field(default_factory=list)
    offline: list[Path] = field(default_factory=list)
    refused: set[Path] = field(default_factory=set)
    _left_out: set[LeftOut] = field(default_factory=set)
    _new_roots: set[str] = field(default_factory=set)
    _folders: deque[_Entry] = field(default_factory=deque)
    _links: deque[_Entry] = field(default_factory=deque)
    _entered: set[str] = field(default_factory=set)

    def enter_root(self, path: Path, libraries: Collection[Path], *, is_new: bool) -> None:
        """Add a root to the entries to visit, unless it is left out of its libraries."""
        if is_new:
            self._new_roots.add(str(path))
        if left_out := self.selection.why_left_out(path, libraries):
            if is_new:
                self.refused.add(path)
            self._left_out.add(left_out)
            return
        root = _Entry(str(path), os.path.realpath(path))
        (self._folders if root.path == root.real else self._links).append(root)

    def result(self, roots: tuple[Path, ...]) -> Scan:
        """Return the files and problems found."""
        for each in self._left_out:
            self._problem(str(each.path), each.reason)
        return Scan(
            roots,
            tuple(sorted(self.files.values(), key=lambda file: file.path)),
            tuple(sorted(self.problems, key=lambda problem: problem.path)),
            tuple(sorted(set(self.offline))),
            frozenset(self.refused),
        )

    def library_of(self, path: Path, libraries: Collection[Path]) -> Path | None:
        """Return the innermost library that contains a path; for a video that is itself a library, its folder's."""
        holding = [each for each in (path, *path.parents) if each in libraries]
        if len(holding) > 1 and holding[0] == path and self.selection.is_video(str(path)):
            return holding[1]
        return holding[0] if holding else None

    def is_folder_away(self, library: Path) -> bool:
        """Whether a library below another is a missing or empty folder, so that its disk is not plugged in."""
        if self.selection.is_video(str(library)):  # indexed alone, it is gone like any other file
            return False
        if not os.path.lexists(library):
            return True
        return os.path.isdir(library) and os.access(library, os.R_OK) and is_away(library)

    def report_away(self, root: Path) -> None:
        """Note that a root is offline."""
        self._problem(str(root), "it is not there now; its videos are kept")
        self.offline.append(root)

    def run(self) -> None:
        """Visit all entries, and those found on the way."""
        while self._folders or self._links:
            entry = self._folders.popleft() if self._folders else self._links.popleft()
            try:
                self._visit(entry)
            except OSError as error:
                self._cannot_read(entry.path, error)

    def _visit(self, entry: _Entry) -> None:
        status = os.stat(entry.path)
        if not stat.S_ISDIR(status.st_mode):
            if self.selection.is_video(entry.path):
                self._add_file(entry.path, entry.real, status)
            elif not entry.above:
                known = " ".join(sorted(self.selection.extensions))
                reason = f"not a video by its extension; scanned are {known}"
                self._root_problem(entry.path, reason, "name a video or a folder of videos")
        elif entry.real in entry.above:
            self._problem(entry.path, "the link leads back to a folder above it")
        elif entry.real not in self._entered:
            # once: two links per level would double the work with every level
            self._entered.add(entry.real)
            self._list_folder(entry)

    def _list_folder(self, folder: _Entry) -> None:
        with os.scandir(folder.path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        names = {entry.name for entry in entries}
        if NO_MEDIA in names or self.selection.is_index(folder.real, names):
            return
        if not entries and not folder.above:
            # An empty root is most often a mount point without its disk.
            self.offline.append(Path(folder.path))
        for entry in entries:
            if not self.selection.excludes(entry.path):
                try:
                    self._sort_entry(entry, folder)
                except OSError as error:
                    self._cannot_read(entry.path, error)

    def _sort_entry(self, entry: os.DirEntry[str], folder: _Entry) -> None:
        above = (*folder.above, folder.real)
        is_folder = entry.is_dir(follow_symlinks=False)
        if not _is_utf8(entry.name):
            if is_folder or self.selection.is_video(entry.name):
                self._problem(entry.path, "the name is not valid UTF-8: rename it")
        elif entry.is_symlink():
            real = os.path.realpath(entry.path)
            is_in_index = self.selection.index_around(os.path.dirname(real)) is not None
            if self.selection.follow_symlinks and not is_in_index:
                self._links.append(_Entry(entry.path, real, above))
        elif is_folder:
            real = os.path.join(folder.real, entry.name)
            self._folders.append(_Entry(entry.path, real, above))
        elif self.selection.is_video(entry.name):
            real = os.path.join(folder.real, entry.name)
            self._add_file(entry.path, real, entry.stat(follow_symlinks=False))

    def _add_file(self, path: str, real: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            self.files.setdefault(real, FileStamp.of(Path(path), status))
        else:
            self._root_problem(path, "not a regular file", "name a video or a folder of videos")

    def _cannot_read(self, path: str, error: OSError) -> None:
        """Note that a path is offline: a missing disk does not delete its videos from the index."""
        is_broken = os.path.islink(path) and not os.path.exists(path)
        what = f"broken link to {_printable(os.path.realpath(path))}" if is_broken else "unreadable"
        reason = f"{what}: {error.strerror or error}"
        self._root_problem(path, reason, "check the path and its permissions")
        self.offline.append(Path(path))

    def _root_problem(self, path: str, reason: str, next_step: str) -> None:
        """Note a problem of any path; if it is a new root, it does not become a library."""
        if path in self._new_roots:
            self.refused.add(Path(path))
            reason = f"{reason}. {NOT_ADDED}: {next_step}"
        self._problem(path, reason)

    def _problem(self, path: str, reason: str) -> None:
        self.problems.append(ScanProblem(Path(_printable(path)), reason))


def _is_utf8(name: str) -> bool:
    """Whether a name is UTF-8 on the disk; Python represents other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
