"""What of a library is indexed: files by their extension, and which files and folders are left out.

>>> selection = Selection(IndexerSettings(exclude=("@eaDir", "raw/*.mov")))
>>> selection.why_left_out(Path("/films/@eaDir/a.mp4"), [Path("/films")])
LeftOut(path=PosixPath('/films/@eaDir'), reason='left out by indexer.exclude')
>>> selection.excludes("/films/2024/RAW/a.mov"), selection.excludes("/films/2024/a.mov")
(True, False)
"""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.backup.backup import is_backup
from scanonce.storage.layout import is_index

NO_MEDIA = ".nomedia"
"""A folder with a file of this name is left out, with everything in it; so do the media players of phones."""

_SIGNS = frozenset(
    ("manifest.json", "current", "backup.json")
)  # one of them is in each index and backup


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is left out, with everything in it."""

    path: Path
    reason: str


class Selection:
    """Decides what of a library is indexed. No file is opened, but for those of an index inside a library.

    It remembers what it saw of each folder, so make a new one for each scan.
    """

    def __init__(
        self, files: IndexerSettings | None = None, ignored: Collection[Path] = ()
    ) -> None:
        """Take the settings.

        Args:
            files: extensions of videos, patterns of files that are left out, and whether links are followed.
            ignored: folders that are never entered, such as the index directory; other indexes are recognised.
        """
        files = files or IndexerSettings()
        self.extensions = files.endings
        self.follow_symlinks = files.follow_symlinks
        self._index_around: dict[str, Path | None] = {}
        self._has_no_media: dict[Path, bool] = {}
        self._ignored = frozenset(os.path.realpath(folder) for folder in ignored)
        self._name = _pattern(each for each in files.exclude if "/" not in each)
        self._path = _pattern(
            each if each.startswith(("/", "*")) else f"*/{each}"
            for each in files.exclude
            if "/" in each
        )

    def is_video(self, path: str) -> bool:
        """Whether a file is a video by its extension."""
        return os.path.splitext(path)[1].lower() in self.extensions

    def excludes(self, path: str) -> bool:
        """Whether a file or folder below a root is left out by its name or path, whatever the folders above it."""
        name = os.path.basename(path)
        if name.startswith("."):
            return True
        return _matches(self._name, name) or _matches(self._path, path)

    def is_index(self, folder: str, names: Collection[str] = _SIGNS) -> bool:
        """Whether a folder is an index or a backup of one, or is never to be entered.

        Args:
            folder: path with every link resolved.
            names: the names in it, if they are known.
        """
        if folder in self._ignored:
            return True
        return not _SIGNS.isdisjoint(names) and (is_index(Path(folder)) or is_backup(Path(folder)))

    def index_around(self, real: str) -> Path | None:
        """Return the index or backup that a path, with every link resolved, is or is inside; None if there is none."""
        if real not in self._index_around:
            above = os.path.dirname(real)
            found = None if above == real else self.index_around(above)
            self._index_around[real] = found or (Path(real) if self.is_index(real) else None)
        return self._index_around[real]

    def why_left_out(self, path: Path, roots: Collection[Path]) -> LeftOut | None:
        """Return what leaves a path out; None if it is indexed, should it be a video.

        Args:
            path: absolute; it need not exist.
            roots: it is left out if it is from each of these that is above it. Their own names do not matter.
        """
        real = os.path.realpath(
            path
        )  # os.path, since pathlib fails at folders that may not be entered
        index = self.index_around(real if os.path.isdir(path) else os.path.dirname(real))
        if index is not None:
            return LeftOut(path, f"{index} is an index of Scanonce, in which nothing is indexed")
        found = None
        for root in roots:
            if root == path or root in path.parents:
                found = self._left_out_below(root, path)
                if found is None:
                    return None
        return found

    def _left_out_below(self, root: Path, path: Path) -> LeftOut | None:
        for folder in _down(root, path):
            if folder != root and self.excludes(str(folder)):
                is_hidden = folder.name.startswith(".")
                by = "because its name starts with a dot" if is_hidden else "by indexer.exclude"
                return LeftOut(folder, f"left out {by}")
            if folder not in self._has_no_media:
                self._has_no_media[folder] = os.path.exists(folder / NO_MEDIA)
            if self._has_no_media[folder]:
                return LeftOut(folder, f"left out by the file {NO_MEDIA} in it")
        return None


def _down(root: Path, path: Path) -> Iterator[Path]:
    """Yield the paths from a root down to a path below it, with both."""
    yield root
    for part in path.relative_to(root).parts:
        root /= part
        yield root


def _pattern(globs: Iterable[str]) -> re.Pattern[str] | None:
    translated = [translate(_folded(each.rstrip("/"))) for each in globs]
    return re.compile("|".join(translated)) if translated else None


def _matches(pattern: re.Pattern[str] | None, text: str) -> bool:
    return pattern is not None and pattern.match(_folded(text)) is not None


def _folded(text: str) -> str:
    """Return the form in which names are compared: in any case, and with accents composed or not."""
    return unicodedata.normalize("NFC", text).casefold()
