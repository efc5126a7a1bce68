"""Tensors of a safetensors file as arrays that read only the accessed parts from the disk.

The slices of the safetensors package copy whole ranges that must be known in advance; a query needs to bisect times and
pick rows. The format is short: eight bytes with the length of a JSON header, the header, the numbers.
"""

import json
import mmap
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, type[np.generic]] = {
    "U8": np.uint8,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}

_KEPT_FILES = 256
"""A query reads the features and anchors of a hundred videos at most; each file takes one descriptor."""


class DamagedFile(Exception):
    """The file is not a whole safetensors file of ours; the text says why."""


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map a file; return read-only arrays by name.

    The last files stay mapped, which costs addresses, not memory; a file that was replaced since is mapped again.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it is not a whole file of tensors.
    """
    stat = path.stat()
    return _map(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=_KEPT_FILES)
def _map(path: Path, version: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    if version[-1] < 8:
        raise DamagedFile("it is empty or cut off")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(mapped[:8], "little")
    try:
        header = json.loads(mapped[8:start])
        return {
            name: _view(mapped, start, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(str(error)) from error


def _view(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    shape = [int(size) for size in entry["shape"]]
    first, last = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if prod(shape) * dtype.itemsize != last - first or first < 0 or start + last > len(mapped):
        raise DamagedFile("it is cut off, or its header does not fit its length")
    view: NDArray[Any] = np.frombuffer(mapped, dtype, prod(shape), start + first).reshape(shape)
    return view
