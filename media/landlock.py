"""Landlock: which files a process may open from now on (Linux 5.13 or newer, landlock(7))."""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from scanonce.media.seccomp import Unavailable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, on every machine
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_RIGHTS: Final = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
"""Bits of rights to files that came with each version of the kernel's interface."""
_TCP, _SCOPES = (
    0b11,
    0b11,
)  # bind and connect; abstract UNIX sockets and signals to processes outside


def restrict(read: Iterable[Path], write: Iterable[Path], code: Iterable[Path]) -> None:
    """Allow this thread, and those it will start, to open only the files that are given; no TCP, no signals outside.

    Args:
        read: files.
        write: files that exist; they may be read as well.
        code: folders whose files may be read.

    Raises:
        Unavailable: the kernel lacks Landlock, or cannot use it for one of the files. Nothing is restricted then.
    """
    version = _call(_CREATE, None, 0, _VERSION_FLAG)
    files = sum(bits for since, bits in _RIGHTS.items() if version >= since)
    attributes = struct.pack("=Q", files)
    attributes += struct.pack("=Q", _TCP) if version >= 4 else b""
    attributes += struct.pack("=Q", _SCOPES) if version >= 6 else b""
    rules = _call(_CREATE, attributes, len(attributes), 0)
    try:
        for path in read:
            _allow(rules, path, _READ_FILE)
        for path in write:
            _allow(rules, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & files)
        for path in code:
            _allow(rules, path, _READ_FILE | _READ_DIR, folder=True)
        _call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int, *, folder: bool = False) -> None:
    """Add a rule; what is missing, or of another kind, gets none."""
    with _handle(path) as descriptor:
        if descriptor is None:
            return
        mode = os.fstat(descriptor).st_mode
        if folder and not stat.S_ISDIR(mode):
            rights = _READ_FILE  # a library, or an archive of modules
        if not folder and stat.S_ISDIR(mode):
            return
        rule = struct.pack("=Qi", rights, descriptor)
        _call(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)


@contextlib.contextmanager
def _handle(path: Path) -> Iterator[int | None]:
    """A descriptor that names a file without opening it: pipes do not block."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    values = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *values)
    if result < 0:
        raise Unavailable(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
