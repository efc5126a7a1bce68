"""The paths of one index directory, and the manifest that says what it was made with.

manifest.json                    what made it; any mismatch with what is asked for is an error
catalog.sqlite                   the truth
features/ab/<uid>.safetensors    frame features of one video
thumbnails/ab/<uid>.safetensors  small pictures of one video
anchors/<localiser>/             what the trained localiser computed of each video, derived from the features
vectors/<generation>/            the vector index, derived from the features
head/                            a copy of its encoder's head, if that has one: it pools clips, or re-ranks moments
writer.lock  writer.json         who writes it now (storage/writer.py)

After `scanonce reindex` or `restore` all but the last line lies in a folder data-<n>, which the file ``current`` names:
writing that name is the switch from one whole index to another.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.files import write_whole

_CURRENT, _DATA = "current", "data-"


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """Where things lie under one index directory."""

    root: Path
    """The index directory, as people name it."""
    data: str = ""
    """Folder in it that holds the index; empty: it lies in the directory itself."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """The layout in use now at an index directory, which need not exist yet.

        Raises:
            IndexDirectoryError: the file that names it is damaged.
        """
        try:
            data = (root / _CURRENT).read_text("utf-8").strip()
        except FileNotFoundError:
            return cls(root)
        except (OSError, ValueError) as error:
            raise IndexDirectoryError(f"{root / _CURRENT} cannot be read: {error}") from error
        if not data.startswith(_DATA) or not data.removeprefix(_DATA).isdecimal():
            raise IndexDirectoryError(
                f"{root / _CURRENT} should name a folder such as {_DATA}1; it says {data[:50]!r}. "
                "Write the name of the newest such folder into it, or restore a backup."
            )
        return cls(root, data)

    @property
    def folder(self) -> Path:
        """What holds everything below."""
        return self.root / self.data

    @property
    def number(self) -> int:
        """How many indexes have been in its place before."""
        return int(self.data.removeprefix(_DATA) or 0)

    @property
    def beside(self) -> "IndexLayout":
        """Where the index that will take this one's place grows."""
        return IndexLayout(self.root, f"{_DATA}{self.number + 1}")

    @property
    def manifest(self) -> Path:
        """What the index was made with."""
        return self.folder / "manifest.json"

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue."""
        return self.folder / "catalog.sqlite"

    @property
    def features(self) -> Path:
        """The feature store."""
        return self.folder / "features"

    @property
    def thumbnails(self) -> Path:
        """The thumbnail store."""
        return self.folder / "thumbnails"

    @property
    def anchors(self) -> Path:
        """A folder for each localiser; the manifest names the one in use."""
        return self.folder / "anchors"

    @property
    def vectors(self) -> Path:
        """The generations of the vector index."""
        return self.folder / "vectors"

    @property
    def head(self) -> Path:
        """A copy of the files of the encoder's head, so that nothing else needs its folder; the manifest has its
        digest.
        """
        return self.folder / "head"


def index_root(folder: Path) -> Path:
    """The index directory whose contents lie in a folder: itself, or after a switch its parent."""
    is_data = folder.name.startswith(_DATA) and (folder.parent / _CURRENT).exists()
    return folder.parent if is_data else folder


def switch(layout: IndexLayout) -> None:
    """From here on the index directory is this one; readers follow with their next query. Removes what it replaces.

    Raises:
        IndexDirectoryError: it cannot be written; the old one is still in use.
    """
    write_whole(layout.root / _CURRENT, lambda file: file.write(layout.data.encode()))
    remove_superseded(layout)


def remove_superseded(layout: IndexLayout) -> None:
    """Removes what ``layout`` has taken the place of; nothing where it is not the one in use. A reader keeps what it
    has mapped.
    """
    if not layout.data or IndexLayout.of(layout.root) != layout:
        return
    remove_contents(IndexLayout(layout.root))
    number = int(layout.data.removeprefix(_DATA))
    for folder in layout.root.glob(f"{_DATA}*"):
        older = folder.name.removeprefix(_DATA)
        if older.isdecimal() and int(older) < number:
            shutil.rmtree(folder, ignore_errors=True)


def remove_contents(layout: IndexLayout) -> None:
    """Removes a whole index, but not what else lies in its folder."""
    for path in (layout.manifest, *layout.folder.glob(f"{layout.catalog.name}*")):
        path.unlink(missing_ok=True)
    stored = (layout.features, layout.thumbnails, layout.anchors, layout.vectors, layout.head)
    for folder in stored:
        shutil.rmtree(folder, ignore_errors=True)
