"""From what the library index found to the stretches of video worth a closer look."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from scanonce.storage.records import Span, Video


def neighbourhoods(
    found: Iterable[tuple[int, Span]], videos: Mapping[int, Video], context_seconds: float
) -> dict[int, tuple[tuple[float, float], ...]]:
    """The stretches around the spans that were found, by video, merged where they meet.

    A moment is looked for there only, so a query costs the same in a library of shorts and in one of long films.

    Args:
        found: (video id, span), best first; the videos come in the order of their best one.
        videos: by id; each found one is there.
        context_seconds: what is added on either side, as far as the video goes.
    """
    stretches: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for video_id, span in found:
        start = max(0.0, span.start_seconds - context_seconds)
        end = min(span.end_seconds + context_seconds, videos[video_id].duration_seconds)
        stretches[video_id].append((start, end))
    return {video_id: tuple(merge(pieces)) for video_id, pieces in stretches.items()}


def merge(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Stretches in order of time, those that touch or overlap made one.

    >>> merge([(5.0, 9.0), (0.0, 2.0), (8.0, 12.0)])
    [(0.0, 2.0), (5.0, 12.0)]
    """
    merged: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
