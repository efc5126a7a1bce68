"""One safetensors file for each content, in a folder of an index: what the stores of features, anchors and thumbnails
share.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from scanonce.storage.errors import reported
from scanonce.storage.files import sync_directory, write_whole
from scanonce.storage.stores.mapped import DamagedFile, map_tensors


class ContentFiles:
    """Files by the uid of a content, two letters of it as a folder, each there whole or not at all."""

    def __init__(self, root: Path) -> None:
        """``root`` need not exist yet."""
        self._root = root

    def path(self, uid: str) -> Path:
        """Where the file of a content lies."""
        return self._root / uid[:2] / f"{uid}.safetensors"

    def has(self, uid: str) -> bool:
        """Whether a content's file is there."""
        return self.path(uid).exists()

    def delete(self, uid: str) -> None:
        """Removes a content's file; nothing happens where there is none.

        Raises:
            IndexDirectoryError: it cannot be removed.
        """
        path = self.path(uid)
        with reported(path, "removed"):
            if path.exists():
                path.unlink()
                sync_directory(path.parent)

    def files(self) -> Iterator[Path]:
        """The files of all contents, in no order."""
        return self._root.glob("??/*.safetensors")

    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files())

    def strays(self, known: Collection[str]) -> list[Path]:
        """What belongs to no content in ``known``, and what an interrupted write left behind."""
        unfinished = list(self._root.glob("??/.tmp-*"))
        return unfinished + [path for path in self.files() if path.stem not in known]

    def _examine(self, uid: str, *, values: bool) -> Mapping[str, NDArray[Any]]:
        """The tensors of a content, to be checked.

        Args:
            uid: names the content.
            values: read every byte, by ordinary reads: what a dying disk cannot give is an error then, where a mapping
                would end the process. Else mapped.

        Raises:
            OSError: the file is missing or cannot be read.
            DamagedFile: it is not what it should be.
        """
        if not values:
            return map_tensors(self.path(uid))
        try:
            tensors: dict[str, NDArray[Any]] = load(self.path(uid).read_bytes())
        except (SafetensorError, KeyError) as error:
            raise DamagedFile(str(error)) from error
        return tensors

    def _write(self, uid: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        content = save(dict(tensors))
        write_whole(self.path(uid), lambda file: file.write(content))
