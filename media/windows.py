"""Windows of frames for encoders that read runs of frames instead of single ones.

    events = windowed(pool.decode(jobs), (16, 8), fps=2.0)

Such an encoder declares ``(frames, hop)``. Every ``hop`` targets it gets the ``frames`` targets around them, so a
vector stands for its hop at the centre of its window and is stored like the vector of a frame: it is on screen from the
start of its hop to that of the next. Pooling, curves, localisers and clips need not know.

Windows count targets (`storage.targets`), not stored frames, so a picture that is held fills as many places as it is
long. At both ends of a video the first and the last frame fill the gaps.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scanonce.media.answers import Event, Failed, Finished, Frames
from scanonce.storage.targets import answering_rows, first_targets


def windowed(events: Iterable[Event], window: tuple[int, int], fps: float) -> Iterator[Event]:
    """Yield the events of decoding with the frames of each file replaced by windows of them.

    Args:
        events: events of `DecodePool.decode`; those of one file in order.
        window: frames of a window and hop between two windows, both in targets.
        fps: targets per second of the sampling.

    Yields:
        The same events; ``images`` of `Frames` are ``[num_windows, frames, height, width, 3]`` and ``pts_seconds`` the
        times from which their vectors count.
    """
    runs: dict[int, _Run] = {}
    for event in events:
        match event:
            case Frames(job, pts, images):
                run = runs.setdefault(job, _Run(*window, fps))
                run.add(pts, images)
                yield from run.windows(job, is_over=False)
                continue
            case Finished(job):
                if job in runs:
                    yield from runs.pop(job).windows(job, is_over=True)
            case Failed(job):
                runs.pop(job, None)
        yield event


@dataclass(slots=True)
class _Run:
    """The frames of one video that a window still needs."""

    length: int
    """Frames of a window."""
    hop: int
    fps: float
    pts: list[float] = field(default_factory=list)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    next_hop: int | None = None
    """Number of the hop whose window comes next; None before the first frame."""

    def add(self, pts: NDArray[np.float64], images: NDArray[np.uint8]) -> None:
        """Add frames ``[N, height, width, 3]`` with their times."""
        self.pts.extend(pts.tolist())
        self.images.extend(images)

    def windows(self, job: int, *, is_over: bool) -> Iterator[Frames]:
        """Yield the windows that are complete, one by one; all that are left if the video is over."""
        if not self.pts:
            return
        starts = first_targets(np.array(self.pts), self.fps)
        if self.next_hop is None:
            self.next_hop = int(starts[0]) // self.hop
        before = (self.length - self.hop) // 2
        # the last frame may be held: how long is known when the next one comes
        while self.next_hop * self.hop <= starts[-1]:
            first = self.next_hop * self.hop - before
            if not is_over and first + self.length - 1 > starts[-1]:
                break
            rows = answering_rows(starts, np.arange(first, first + self.length))
            pts = max(self.pts[0], self.next_hop * self.hop / self.fps)
            window = np.stack([self.images[row] for row in rows.tolist()])
            yield Frames(job, np.array([pts]), window[None])
            self.next_hop += 1
        self._drop(starts, self.next_hop * self.hop - before)

    def _drop(self, starts: NDArray[np.int64], first: int) -> None:
        """Forget the frames that end before a target. At least one frame stays."""
        row = int(answering_rows(starts, np.array([first]))[0])
        del self.pts[:row], self.images[:row]
