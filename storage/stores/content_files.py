"""One safetensors file for each content, in a folder of an index: the base of all stores."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.files import sync_directory, write_whole
from scanonce.storage.stores.mapped import DamagedFile, map_tensors


class ContentFiles:
    """Files by the uid of a content, in folders named by its first two letters; each is there whole or not at all."""

    what: ClassVar[str]
    """The stored things, for messages."""
    names: ClassVar[tuple[str, ...]]
    """Names of the tensors in a file."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Names of further tensors, which files of earlier versions do not have; they follow the others."""
    next_step: ClassVar[str] = (
        "Run `scanonce repair`, or `scanonce forget` the video and index it again."
    )

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

    def orphans(self, known: Collection[str]) -> list[Path]:
        """Return the files of contents that are not in ``known``, and the leftovers of interrupted writes."""
        unfinished = list(self._root.glob("??/.tmp-*"))
        return unfinished + [path for path in self.files() if path.stem not in known]

    def _tensors(self, uid: str) -> list[NDArray[Any]]:
        """Map the tensors of a content, in the order of ``names`` and ``optional``.

        Raises:
            IndexDirectoryError: the file is missing or damaged.
        """
        try:
            tensors = map_tensors(self.path(uid))
            return self._named(tensors)
        except (OSError, DamagedFile, KeyError) as error:
            raise self._damaged(uid, str(error)) from error

    def _named(self, tensors: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        more = [tensors[name] for name in self.optional if name in tensors]
        return [tensors[name] for name in self.names] + more

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
            tensors = load(path.read_bytes()) if values else map_tensors(path)
            return self._named(tensors)
        except (OSError, SafetensorError, KeyError) as error:
            raise DamagedFile(str(error)) from error

    def _write(self, uid: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        content = save(dict(tensors))
        write_whole(self.path(uid), lambda file: file.write(content))
