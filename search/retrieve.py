"""From candidate clips to the stretches of video worth a closer look."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from storage.clips import ClipGrid
from storage.records import Video, split_clip_id


def neighbourhoods(
    clip_ids: Iterable[int], videos: Mapping[int, Video], grid: ClipGrid, context_seconds: float
) -> dict[int, list[tuple[float, float]]]:
    """The stretches around the candidate clips, by video, merged where they meet.

    A moment is looked for there only, so a query costs the same in a library of shorts and in one of long films.
    Clips of videos that are not in ``videos`` (forgotten meanwhile) are left out.
    """
    stretches: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for identifier in clip_ids:
        video_id, ordinal = split_clip_id(identifier)
        if (video := videos.get(video_id)) is not None:
            span = grid.span(ordinal, video.duration_seconds)
            start = max(0.0, span.start_seconds - context_seconds)
            stretches[video_id].append(
                (start, min(span.end_seconds + context_seconds, video.duration_seconds))
            )
    return {video_id: merge(found) for video_id, found in stretches.items()}


def merge(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
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
