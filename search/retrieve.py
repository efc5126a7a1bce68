"""From the clips that the vector index found to the stretches of video around them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from scanonce.storage.records import Span, Video


def stretches_around(
    found: Iterable[tuple[int, Span]], videos: Mapping[int, Video], context_seconds: float
) -> dict[int, tuple[tuple[float, float], ...]]:
    """Return the stretches around the spans that were found, by video; those that meet are merged.

    Moments are searched for in these only, so a query costs the same in a library of short videos as in one of long
    films.

    Args:
        found: (video id, span), best first; the result has the videos in the order of their best span.
        videos: the videos by id, with all those found.
        context_seconds: seconds added before and after each span, within the video.
    """
    stretches: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for video_id, span in found:
        start = max(0.0, span.start_seconds - context_seconds)
        end = min(span.end_seconds + context_seconds, videos[video_id].duration_seconds)
        stretches[video_id].append((start, end))
    return {video_id: tuple(merge(pieces)) for video_id, pieces in stretches.items()}


def merge(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Sort stretches by time and join those that touch or overlap.

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
