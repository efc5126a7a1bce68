"""Tensors of a safetensors file as arrays that read only the accessed parts from the disk.

The slices of the safetensors package copy whole ranges that must be known in advance; a query needs to bisect times and
pick rows. The format is short: eight bytes with the length of a JSON header, the header, the numbers.
"""

import mmap
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.untrusted import DamagedFile, check_regular, open_regular, parse_json

_DTYPES: dict[str, type[np.generic]] = {
    "U8": np.uint8,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
}

_MAX_HEADER_BYTES = 1 << 20
_KEPT_FILES = 256
"""A query reads the features and anchors of a hundred videos at most; each file takes one descriptor."""


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map a file; return read-only arrays by name.

    The last files stay mapped, which costs addresses, not memory; a file that was replaced since is mapped again.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it is not a whole file of tensors.
    """
    stat = check_regular(path)
    return _map(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=_KEPT_FILES)
def _map(path: Path, version: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    if version[-1] < 8:
        raise DamagedFile("it is empty or cut off")
    with open_regular(path) as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:8], "little")
    if length > _MAX_HEADER_BYTES:
        raise DamagedFile(f"it begins with a header of {length} bytes")
    header = parse_json(mapped[8 : 8 + length])
    try:
        return {
            name: _view(mapped, 8 + length, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DamagedFile(f"its header is not that of tensors: {error}") from error


def _view(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
        raise DamagedFile("its header has a size that is no whole number")
    if prod(shape) * dtype.itemsize != last - first or start + last > len(mapped):
        raise DamagedFile("it is cut off, or its header does not fit its length")
    view: NDArray[Any] = np.frombuffer(mapped, dtype, prod(shape), start + first).reshape(shape)
    return view
