"""What a decoder process may do, once it has been taken over by the file it decodes: on Linux, next to nothing.

`confine` gives up new privileges, limits the files that can be opened (`media.landlock`) and the system calls
(`media.seccomp`). `forget_environment` drops tokens and passwords that the parent was given. Other systems, and kernels
that lack a part, keep the limits of `media.guard`; `scanonce doctor` shows what holds (`media.trial`).
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Final

from scanonce.media import landlock, seccomp
from scanonce.media.seccomp import Unavailable

KEPT_VARIABLES: Final = (
    "PATH",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
)
"""The variables that decoders see."""

_NO_NEW_PRIVILEGES = 38
_SYSTEM_CODE = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/random")


def confine(read: Iterable[Path], write: Iterable[Path] = ()) -> list[str]:
    """Give up, for good, what decoding does not need.

    Call it before other threads start: Landlock holds for the calling thread and those that it starts.

    Args:
        read: files that may still be read, next to Python, its packages and the system's libraries.
        write: files that exist and may still be written.

    Returns:
        The protections that are missing here, each with a reason.
    """
    if sys.platform != "linux":
        return [f"{sys.platform} has no sandbox that Scanonce uses"]
    sys.dont_write_bytecode = True
    missing = []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        missing.append(f"no new privileges: {os.strerror(ctypes.get_errno())}")
    if (num_threads := _count_threads()) > 1:
        missing.append(f"Landlock holds for one of {num_threads} threads")
    files = [*read, *map(Path, _SYSTEM_FILES)]
    protections: list[Callable[[], None]] = [
        lambda: landlock.restrict(files, write, code_folders()),
        seccomp.install,
    ]
    for protect in protections:
        try:
            protect()
        except Unavailable as error:
            missing.append(str(error))
    return missing


def _count_threads() -> int:
    """The threads of this process; 1 if /proc is not mounted."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


@cache
def code_folders() -> tuple[Path, ...]:
    """The folders from which Python modules and shared libraries are loaded, and modules outside of these."""
    folders = [*_SYSTEM_CODE, *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}:
        folders += [os.path.join(prefix, "lib"), os.path.join(prefix, "lib64")]
    installed = [
        path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")
    ]
    folders += installed
    # some installers make links to packages that several environments share
    folders += [each.path for folder in installed for each in _entries(folder) if each.is_symlink()]
    # in a checkout each package is a link to a folder outside this one
    package = Path(__file__).parents[1]
    folders += [str(each) for each in package.iterdir() if each.is_dir()]
    return tuple({Path(os.path.realpath(each)) for each in folders if each})


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def forget_environment() -> None:
    """Drop all variables but `KEPT_VARIABLES`, and overwrite them in memory."""
    for name in set(os.environ) - set(KEPT_VARIABLES):
        del os.environ[name]
    if sys.platform == "linux":
        # the block that the kernel wrote when the program started; what the C library keeps of it moves first
        kept = dict(os.environ)
        os.environ.clear()
        _overwrite_first_environment()
        os.environ.update(kept)


def _overwrite_first_environment() -> None:
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return  # /proc is not mounted
    fields = stat.rpartition(") ")[2].split()
    start, end = (
        int(fields[47]),
        int(fields[48]),
    )  # env_start and env_end, fields 50 and 51 of proc(5)
    if start:
        ctypes.memset(start, 0, end - start)
