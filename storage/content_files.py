"""One safetensors file for each content, in a folder of an index: what the stores of features, anchors and thumbnails
share.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save

from storage.layout import sync_directory, write_whole


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
        """Removes a content's file; nothing happens where there is none."""
        path = self.path(uid)
        if path.exists():
            path.unlink()
            sync_directory(path.parent)

    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._root.glob("??/*.safetensors"))

    def strays(self, known: Collection[str]) -> list[Path]:
        """What belongs to no content in ``known``, and what an interrupted write left behind."""
        unfinished = list(self._root.glob("??/.tmp-*"))
        files = self._root.glob("??/*.safetensors")
        return unfinished + [path for path in files if path.stem not in known]

    def _write(self, uid: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        content = save(dict(tensors))
        write_whole(self.path(uid), lambda file: file.write(content))
