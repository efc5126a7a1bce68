"""One safetensors file for each content, in a folder of an index: the base of all stores."""

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
    """Files by the uid of a content, in folders named by its first two letters; each is there whole or not at all."""

    def __init__(self, root: Path) -> None:
        """Use the folder ``root``, which need not exist yet."""
        self._root = root

    def path(self, uid: str) -> Path:
        """Return the path of a content's file."""
        return self._root / uid[:2] / f"{uid}.safetensors"

    def has(self, uid: str) -> bool:
        """Return whether a content's file exists."""
        return self.path(uid).exists()

    def delete(self, uid: str) -> None:
        """Remove a content's file, if there is one.

        Raises:
            IndexDirectoryError: it cannot be removed.
        """
        path = self.path(uid)
        with reported(path, "removed"):
            if path.exists():
                path.unlink()
                sync_directory(path.parent)

    def files(self) -> Iterator[Path]:
        """Yield the files of all contents, in any order."""
        return self._root.glob("??/*.safetensors")

    def size_bytes(self) -> int:
        """Return the size of all files."""
        return sum(path.stat().st_size for path in self.files())

    def strays(self, known: Collection[str]) -> list[Path]:
        """Return the files of contents that are not in ``known``, and the leftovers of interrupted writes."""
        unfinished = list(self._root.glob("??/.tmp-*"))
        return unfinished + [path for path in self.files() if path.stem not in known]

    def _examine(self, uid: str, *, values: bool) -> Mapping[str, NDArray[Any]]:
        """Return the tensors of a content, to be checked.

        Args:
            uid: names the content.
            values: read every byte by ordinary reads: a read error of the disk is an exception then, while with a
                mapping it would kill the process. Default: map the file.

        Raises:
            OSError: the file is missing or cannot be read.
            DamagedFile: it is not a whole file of tensors.
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
