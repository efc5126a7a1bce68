"""Clips of videos: how long they may be, their names in the cache, and the cutting."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from scanonce.media.cut import Progress, write_clip
from scanonce.storage.records import Span, Video
from scanonce.ui.server.cache import Make, ProxyCache
from scanonce.ui.server.playback import find_file

MAX_CLIP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Clip:
    """An exact cut of a video, in whole milliseconds."""

    video: Video
    start_millis: int
    end_millis: int

    @property
    def span(self) -> Span:
        """The span in seconds."""
        return Span(self.start_millis / 1000, self.end_millis / 1000)

    @property
    def key(self) -> str:
        """Its name in the cache, the same for every door."""
        return f"clip-{self.video.uid}-{self.start_millis}-{self.end_millis}"

    def maker(self, cache: ProxyCache) -> Make:
        """Return what cuts it for a cache, which it may not outgrow."""
        return partial(self._make, cache.max_bytes)

    def _make(self, max_bytes: int, out: Path, progress: Progress, cancel: Event) -> None:
        length = self.span.duration_seconds
        write_clip(
            find_file(self.video),
            self.span,
            out,
            progress=lambda seconds: progress(seconds / length),
            cancel=cancel,
            max_bytes=max_bytes,
        )
