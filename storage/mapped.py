"""Tensors of a safetensors file as arrays that read from disk only what is looked at.

safetensors' own slices copy whole runs and must be told which; a query wants to bisect times and pick rows. The
format is a page: eight bytes with the length of a JSON header, the header, the numbers.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


class DamagedFile(Exception):
    """The file is not a whole safetensors file of ours; the text says why."""


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read-only arrays over a mapped file, by name; the mapping lives as long as one of them.

    Raises:
        OSError: the file cannot be opened.
        DamagedFile: it is not what it should be.
    """
    with path.open("rb") as file:
        if path.stat().st_size < 8:
            raise DamagedFile("it is empty or cut off")
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
