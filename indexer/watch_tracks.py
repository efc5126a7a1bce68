"""Reads the tracks of videos that `scanonce watch` has indexed, in a thread beside it.

    with TracksInBackground(read, show, report, again_seconds=3600) as tracks:
        tracks.wake()                        # after each run of the indexer

New videos are indexed meanwhile: the index is locked for each commit only, not while speech or text is read.
"""

import threading
from collections.abc import Callable
from typing import Self

from scanonce.indexer.tracks import OnTrackProgress, TrackProgress, TracksReport


class TracksInBackground:
    """A thread that reads missing tracks when it is woken, and from time to time; a context manager."""

    def __init__(
        self,
        read: Callable[[OnTrackProgress], TracksReport],
        show: Callable[[TracksReport], object],
        report: Callable[[str], object],
        *,
        again_seconds: float,
    ) -> None:
        """Start nothing yet.

        Args:
            read: reads the missing lines, as `indexer.tracks.make_tracks`.
            show: takes the result of each run.
            report: takes messages for people, each error once as long as it lasts.
            again_seconds: time after which it looks again by itself: a subtitle file may have come, an error be over.
        """
        self._read, self._show, self._report = read, show, report
        self._again_seconds = again_seconds
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracks", daemon=True)
        self._error: str | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the run in progress; the lines it has read are kept."""
        self._stopping.set()
        self._woken.set()
        self._thread.join()

    @property
    def is_stopping(self) -> bool:
        """Whether it is to end."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Have it read the missing lines, now or after the run in progress."""
        self._woken.set()

    def _run(self) -> None:
        self._woken.wait()
        while not self.is_stopping:
            self._woken.clear()
            try:
                self._show(self._read(self._go_on))
                self._error = None
            except Exception as error:  # any: later videos have tracks all the same
                if str(error) != self._error:
                    self._error = str(error)
                    self._report(f"tracks: {error}\nThey are tried again later.")
            self._woken.wait(self._again_seconds)

    def _go_on(self, _: TrackProgress) -> None:
        if self.is_stopping:
            raise KeyboardInterrupt
