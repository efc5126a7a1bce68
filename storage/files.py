"""Files that exist whole or not at all, even after a power cut; and paths as people type them."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from scanonce.storage.errors import ConfigError, reported


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path as a person means it: ``~`` is the home folder.

    Raises:
        ConfigError: there is no such home folder, or no file can have such a name.
    """
    if "\0" in os.fspath(path):
        raise ConfigError(f"{os.fspath(path)!r} is no path: it has a NUL character; leave it out")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: the home folder is not known; name a folder that does not begin with ~ (--index DIR, or "
            "index_dir in a configuration file), or set HOME"
        ) from error


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it exists whole or not at all, even after a power cut.

    Raises:
        IndexDirectoryError: it cannot be written; an earlier file of that name is untouched.
    """
    temporary = None
    with reported(path, "written"):
        try:
            make_folder(path.parent)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
                temporary = Path(file.name)
                write(file.file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        except OSError:
            if temporary is not None:
                with suppress(OSError):  # the disk has become read-only: the next writer removes it
                    temporary.unlink(missing_ok=True)
            raise


def is_private(found: os.stat_result) -> bool:
    """Whether a file belongs to this user and is closed to all others; on Windows its folder protects it."""
    if os.name == "nt":
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077


def make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a power cut; with its name, a folder loses its content."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)


def sync_directory(folder: Path) -> None:
    """Sync a folder, so that a rename in it survives a power cut, if the system can."""
    if os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
