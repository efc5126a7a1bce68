"""Hashes the files of a run while they are decoded."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from scanonce.indexer.hashing import WHOLE_FILE_BYTES, full_hash, is_unchanged
from scanonce.media.answers import Event, Opened
from scanonce.storage.catalog.entries import FileStamp


class FullHashes:
    """Hashes large files in a thread while they are decoded, so that most of their blocks are in memory already.

    A file that is small enough for its fast hash to cover every byte needs no other.
    """

    def __init__(self, files: Sequence[FileStamp]) -> None:
        """Hash these files, by the number of their job."""
        self._files = files
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, "hash")
        self._hashes: dict[int, Future[str | None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all hashing."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def follow(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass events on, and begin to hash each file that was opened."""
        for event in events:
            if isinstance(event, Opened) and self._files[event.job].size_bytes > WHOLE_FILE_BYTES:
                self._hashes[event.job] = self._pool.submit(self._hash, self._files[event.job])
            yield event

    def take(self, job: int) -> str | None:
        """Wait for the full hash of a file; None if it is small, was never opened, or has changed since the scan."""
        future = self._hashes.pop(job, None)
        return None if future is None else future.result()

    def _hash(self, file: FileStamp) -> str | None:
        try:
            digest = full_hash(file.path, self._stop)
        except OSError:
            return None
        return digest if is_unchanged(file) else None
