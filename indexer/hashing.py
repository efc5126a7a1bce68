"""Digests of files: a fast one by samples, and a full one of every byte."""

import hashlib
import os
import threading
from pathlib import Path

from scanonce.storage.catalog.entries import FileStamp

BLOCK_BYTES = 64 * 1024
NUM_BLOCKS = 18
WHOLE_FILE_BYTES = BLOCK_BYTES * NUM_BLOCKS
"""Size up to which the fast hash covers every byte."""


def fast_hash(path: Path) -> str:
    """Return the digest of a file's size and 18 blocks of it, 40 hex digits; reads at most 1.1 MiB.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=20, person=b"scanonce-fast")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        if size <= WHOLE_FILE_BYTES:
            digest.update(file.read())
        else:
            for number in range(NUM_BLOCKS):
                file.seek(number * (size - BLOCK_BYTES) // (NUM_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()


def full_hash(path: Path, stop: threading.Event | None = None) -> str:
    """Return the digest of every byte of a file, 40 hex digits; takes about 1 s per gigabyte from memory.

    Args:
        path: the file.
        stop: ends the reading early when it is set.

    Raises:
        OSError: it cannot be read, or the reading was ended.
    """
    digest = hashlib.blake2b(digest_size=20, person=b"scanonce-full")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if stop is not None and stop.is_set():
                raise InterruptedError(f"{path} was not read to its end")
            digest.update(block)
    return digest.hexdigest()


def is_unchanged(file: FileStamp) -> bool:
    """Whether a file exists with the recorded size and modification time."""
    try:
        return FileStamp.of(file.path, file.path.stat()) == file
    except OSError:
        return False
