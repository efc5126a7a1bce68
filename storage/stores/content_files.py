"""One safetensors file for each content, in a folder of an index: the base of all stores."""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import sync_directory, write_whole
from scanonce.storage.stores.mapped import map_tensors
from scanonce.storage.untrusted import DamagedFile, check_uid, folders_in, inside, open_regular

_FOLDER = re.compile(r"[0-9a-f]{1,2}")


class ContentFiles:
    """Files by the uid of a content, in folders named by its first two letters; each is there whole or not at all."""

    what: ClassVar[str]
    """The stored things, for messages."""
    tensors: ClassVar[Mapping[str, tuple[type[np.generic], int]]]
    """Number format and number of dimensions of each tensor in a file, by its name."""
    optional: ClassVar[Mapping[str, tuple[type[np.generic], int]]] = MappingProxyType({})
    """Further tensors, which files of earlier versions do not have; they follow the others."""
    next_step: ClassVar[str] = (
        "Run `scanonce repair`, or `scanonce forget` the video and index it again."
    )

    def __init__(self, root: Path) -> None:
        """Use the folder ``root``, which need not exist yet."""
        self._root = root

    def path(self, uid: str) -> Path:
        """Return the path of a content's file.

        Raises:
            IndexDirectoryError: the uid is none, or there are links: the path would lead out of the folder.
        """
        return inside(self._root, check_uid(uid)[:2], f"{uid}.safetensors")

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
            if path.is_dir():  # damage
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
                sync_directory(path.parent)

    def files(self) -> Iterator[Path]:
        """Yield the files of all contents, in any order; raises IndexDirectoryError if a folder is a link."""
        for folder in folders_in(self._root, _FOLDER):
            yield from folder.glob("*.safetensors")

    def size_bytes(self) -> int:
        """Return the size of all files."""
        return sum(path.lstat().st_size for path in self.files())

    def orphans(self, known: Collection[str]) -> list[Path]:
        """Return the files of contents that are not in ``known``, and the leftovers of interrupted writes."""
        folders = folders_in(self._root, _FOLDER)
        unfinished = [path for folder in folders for path in folder.glob(".tmp-*")]
        return unfinished + [path for path in self.files() if path.stem not in known]

    def _tensors(self, uid: str) -> list[NDArray[Any]]:
        """Map the tensors of a content, in the order of ``tensors`` and ``optional``.

        Raises:
            IndexDirectoryError: the file is missing or damaged.
        """
        try:
            return self._checked(map_tensors(self.path(uid)))
        except (OSError, DamagedFile) as error:
            raise self._damaged(uid, str(error)) from error

    def _checked(self, tensors: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the tensors of this store, in their order; raises DamagedFile if they are of another kind."""
        known = {**self.tensors, **self.optional}
        for name, (dtype, ndim) in known.items():
            if name not in tensors and name in self.optional:
                continue
            if name not in tensors:
                raise DamagedFile(f"it has no tensor {name!r}")
            found = tensors[name]
            if found.dtype != np.dtype(dtype) or found.ndim != ndim:
                raise DamagedFile(
                    f"{name} should be {np.dtype(dtype)} in {ndim} dimensions; it is {found.dtype} in {found.ndim}"
                )
        return [tensors[name] for name in known if name in tensors]

    def _damaged(self, uid: str, reason: str) -> IndexDirectoryError:
        stored = f"the stored {self.what} {self.path(uid)} are missing or damaged ({reason})"
        return IndexDirectoryError(f"{stored}. {self.next_step}")

    def _examine(self, uid: str, *, values: bool) -> list[NDArray[Any]]:
        """Return the tensors of a content, to be checked.

        Args:
            uid: names the content.
            values: read every byte by ordinary reads: a read error of the disk is an exception then, while with a
                mapping it would kill the process. Default: map the file.

        Raises:
            DamagedFile: the file is missing, cannot be read, or is not a whole file of these tensors.
        """
        path = self.path(uid)
        try:
            if not values:
                return self._checked(map_tensors(path))
            with open_regular(path) as file:
                return self._checked(load(file.read()))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DamagedFile(str(error)) from error

    def _write(self, uid: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        content = save(dict(tensors))
        if self.path(uid).is_dir():  # damage: no file can be renamed to the name of a folder
            self.delete(uid)
        write_whole(self.path(uid), lambda file: file.write(content))
