"""The paths of one index directory.

manifest.json                    the settings it was made with; others are refused
catalog.sqlite                   the truth
features/ab/<uid>.safetensors    frame features of one video
thumbnails/ab/<uid>.safetensors  thumbnails of one video
anchors/<localiser>/             anchors of the trained localiser by video, derived from the features
vectors/<generation>/            the vector index, derived from the features
calibration.json                 how scores become probabilities, if `scanonce tune --calibrate` fitted it
selects.json                     the moments that people have picked in the pages
head/                            a copy of the encoder's head, if it has one: it pools clips, or re-ranks moments
writer.lock  writer.json         the process that writes it now (storage/writer.py)

After `scanonce reindex` or `restore` everything but the last line is in a folder data-<n>. The file ``current`` holds
the name of that folder: writing it is the switch from one whole index to the next.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import write_whole
from scanonce.storage.untrusted import (
    DamagedFile,
    check_name,
    folders_in,
    inside,
    read_bytes,
    refuse_links,
)

DEFAULT_INDEX = "~/.scanonce"
"""The index directory if none is given."""

_CURRENT, _DATA = "current", "data-"
_DATA_FOLDER = re.compile(rf"{_DATA}[0-9]{{1,9}}")
_ANCHOR_FOLDER = re.compile(r"[0-9a-f]{1,64}-[0-9]{1,9}")
_MAX_CURRENT_BYTES = 1_000

_NAMES = (
    *("manifest.json", "catalog.sqlite", "calibration.json", "selects.json", "copying.json"),
    "current",
    *("features", "thumbnails", "anchors", "vectors", "head", "cache", "data"),
    *("writer.lock", "writer.json", "backup.json", "backup.lock"),
    *("run.json", "run.pause", "run.log", "run.lock"),
    *("tokens.json", "tokens.lock", "serve.sock"),
)
"""Files and folders of an index directory that must not be links; ``data`` stands for ``data-<n>``."""


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """The paths of one index."""

    root: Path
    """The index directory, as people name it."""
    data: str = ""
    """The folder in it that holds the index; empty: the directory itself."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """Return the layout in use now at an index directory, which need not exist yet.

        Raises:
            IndexDirectoryError: the file ``current`` is damaged, or a part of the index is a link.
        """
        refuse_links(root, _NAMES)
        with reported(root / _CURRENT, "read", DamagedFile):
            try:
                content = read_bytes(root / _CURRENT, _MAX_CURRENT_BYTES)
            except FileNotFoundError:
                return cls(root)
            except NotADirectoryError as error:
                raise IndexDirectoryError(
                    f"{root} is a file, or inside one: an index is a folder; name another with --index"
                ) from error
        data = content.decode("utf-8", "replace").strip()
        if not _DATA_FOLDER.fullmatch(data):
            raise IndexDirectoryError(
                f"{root / _CURRENT} should name a folder such as {_DATA}1, but contains {data[:50]!r}. "
                "Write the name of the newest such folder into it, or restore a backup."
            )
        refuse_links(root / data, _NAMES)
        return cls(root, data)

    @property
    def folder(self) -> Path:
        """The folder of everything below."""
        return self.root / self.data

    @property
    def number(self) -> int:
        """The number of indexes that this directory has had before."""
        return int(self.data.removeprefix(_DATA) or 0)

    @property
    def staging(self) -> "IndexLayout":
        """The layout of the index that is being made to replace this one."""
        return IndexLayout(self.root, f"{_DATA}{self.number + 1}")

    def refuse_links(self) -> None:
        """Raise IndexDirectoryError if a part of the index is a link, which would lead out of it. `of` does so too."""
        refuse_links(self.root, _NAMES)
        refuse_links(self.folder, _NAMES)

    @property
    def manifest(self) -> Path:
        """The manifest file."""
        return self.folder / "manifest.json"

    @property
    def catalog(self) -> Path:
        """The SQLite catalogue."""
        return self.folder / "catalog.sqlite"

    @property
    def features(self) -> Path:
        """The folder of the feature store."""
        return self.folder / "features"

    @property
    def thumbnails(self) -> Path:
        """The folder of the thumbnail store."""
        return self.folder / "thumbnails"

    @property
    def anchors(self) -> Path:
        """The folder with a folder for each localiser; the manifest names the one in use."""
        return self.folder / "anchors"

    def anchors_of(self, name: str) -> Path:
        """Return the folder of one localiser.

        Raises:
            IndexDirectoryError: the name does not have the pattern of such a folder, or it is a link.
        """
        return inside(self.anchors, check_anchors(name))

    def anchor_folders(self) -> list[Path]:
        """Return the folders of all localisers; raises as `anchors_of`."""
        return list(folders_in(self.anchors, _ANCHOR_FOLDER))

    @property
    def vectors(self) -> Path:
        """The folder of the generations of the vector index."""
        return self.folder / "vectors"

    @property
    def calibration(self) -> Path:
        """The file that turns scores into probabilities (`search.calibration`); most indexes have none of their own."""
        return self.folder / "calibration.json"

    @property
    def selects(self) -> Path:
        """The file of the picked moments (`storage.selects`); an index may have none."""
        return self.folder / "selects.json"

    @property
    def head(self) -> Path:
        """The folder with a copy of the encoder's head, so that only indexing needs the encoder's own folder.

        The manifest has its digest.
        """
        return self.folder / "head"


def is_index(folder: Path) -> bool:
    """Whether a folder is an index directory, or the folder in it that holds the index. Other files are no sign."""
    layout = IndexLayout(folder)
    if os.path.isfile(layout.manifest) and os.path.isfile(layout.catalog):
        return True
    try:
        return bool(IndexLayout.of(folder).data)
    except IndexDirectoryError:
        return False


def check_anchors(value: object) -> str:
    """Return the name of a folder with the anchors of a localiser; raises IndexDirectoryError if it is none."""
    return check_name(value, "the manifest names the anchors", _ANCHOR_FOLDER)


def data_folders(root: Path) -> list[Path]:
    """Return the folders of an index directory that hold, or held, a whole index, the oldest first.

    Raises:
        IndexDirectoryError: one of them is a link.
    """
    return sorted(folders_in(root, _DATA_FOLDER), key=data_number)


def data_number(folder: Path) -> int:
    """Return the number of a folder of `data_folders`."""
    return int(folder.name.removeprefix(_DATA))


def index_root(folder: Path) -> Path:
    """Return the index directory whose contents are in a folder: the folder itself, or its parent after a switch."""
    is_data = folder.name.startswith(_DATA) and (folder.parent / _CURRENT).exists()
    return folder.parent if is_data else folder


def switch(layout: IndexLayout) -> None:
    """Make this the index of its directory, and remove the one it replaces. Readers follow with their next query.

    Raises:
        IndexDirectoryError: it cannot be written; the old index is still in use.
    """
    write_whole(layout.root / _CURRENT, lambda file: file.write(layout.data.encode()))
    remove_superseded(layout)


def remove_superseded(layout: IndexLayout) -> None:
    """Remove the indexes that ``layout`` has replaced, if it is in use. A reader keeps the files it has mapped."""
    if not layout.data or IndexLayout.of(layout.root) != layout:
        return
    remove_contents(IndexLayout(layout.root))
    for folder in data_folders(layout.root):
        if data_number(folder) < layout.number:
            shutil.rmtree(folder, ignore_errors=True)


def remove_contents(layout: IndexLayout) -> None:
    """Remove a whole index, but no other file of its folder."""
    for path in (
        layout.manifest,
        layout.calibration,
        *layout.folder.glob(f"{layout.catalog.name}*"),
    ):
        path.unlink(missing_ok=True)
    for folder in (
        layout.features,
        layout.thumbnails,
        layout.anchors,
        layout.vectors,
        layout.head,
    ):
        shutil.rmtree(folder, ignore_errors=True)
