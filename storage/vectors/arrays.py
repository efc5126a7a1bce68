"""Tables of numbers that `numpy.save` has written, read as untrusted files.

read_array(folder / "0000000007_videos.npy", np.int64)      # [num_rows, num_columns]
"""

import os
import re
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scanonce.storage.untrusted import DamagedFile, open_regular

_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[<>|][a-z][0-9])', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[0-9]{1,18}(, [0-9]{1,18})*,?)\), \} *\n"
)
_MAX_NPY_HEADER = 1 << 10


def read_array(path: Path, dtype: DTypeLike) -> NDArray[Any]:
    """Read a table that `numpy.save` has written.

    NumPy's own reader evaluates the header as an expression, with every error of the tokenizer.

    Args:
        path: path of the file.
        dtype: type of the numbers.

    Returns:
        ``[num_rows, num_columns]``

    Raises:
        OSError: it is missing, or cannot be read.
        DamagedFile: it is no table of such numbers, or not whole.
    """
    with open_regular(path) as file:
        shape, fortran = _read_npy_header(file, np.dtype(dtype))
        size = os.fstat(file.fileno()).st_size - file.tell()
        if prod(shape) * np.dtype(dtype).itemsize != size:
            raise DamagedFile(f"its header says {shape}, which does not fit its length")
        content = file.read(size)
    if len(content) != size:
        raise DamagedFile("it was cut off while it was read")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _read_npy_header(file: IO[bytes], dtype: np.dtype[Any]) -> tuple[tuple[int, int], bool]:
    """Return shape and order of the table whose numbers follow."""
    start = file.read(10)
    if start[:7] != _NPY_MAGIC + b"\x01" or len(start) < 10:
        raise DamagedFile("it is no array")
    length = int.from_bytes(start[8:], "little")
    header = _NPY_HEADER.fullmatch(file.read(min(length, _MAX_NPY_HEADER)).decode("latin-1"))
    if header is None or header["dtype"] != dtype.str:
        raise DamagedFile(f"it is no array of {dtype}")
    rows, *columns = [int(size) for size in header["shape"].split(",") if size.strip()]
    if len(columns) != 1:
        raise DamagedFile("it is no table")
    return (rows, columns[0]), header["fortran"] == "True"
