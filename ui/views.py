"""What people and programs read: times, sizes, tables and the JSON schema. Pure functions."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import date, timedelta
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.markup import escape
from rich.table import Table

from scanonce.storage.records import Moment, Span, Video

if TYPE_CHECKING:  # torch and numpy, which `scanonce --help` must not wait for
    from scanonce.search.engine import SearchResult
    from scanonce.search.filters import Filter
    from scanonce.search.localise import Curve

Item = TypeVar("Item")


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Seconds as h:mm:ss, or h:mm:ss.t.

    >>> clock(3725.44), clock(59.97, tenths=True)
    ('1:02:05', '0:01:00.0')
    """
    units = round(seconds * 10) if tenths else int(seconds + 1e-6) * 10
    minutes, rest = divmod(units, 600)
    text = f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{text}.{rest % 10}" if tenths else text


def span_text(span: Span, *, tenths: bool = True) -> str:
    """A span as people read it, to the tenth of a second or to the second."""
    return f"{clock(span.start_seconds, tenths=tenths)} - {clock(span.end_seconds, tenths=tenths)}"


def hours_text(seconds: float) -> str:
    """A length in the unit people would use, roughly.

    >>> hours_text(219_600), hours_text(5_000), hours_text(1_500), hours_text(12)
    ('61 h', '1.4 h', '25 min', '12 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def size_text(num_bytes: float) -> str:
    """Bytes with a unit people know.

    >>> size_text(7_400_000)
    '7.4 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def count_text(count: int, noun: str) -> str:
    """A number with its noun in the right form.

    >>> count_text(1, "video"), count_text(1200, "video")
    ('1 video', '1,200 videos')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def moment_json(moment: Moment) -> dict[str, Any]:
    """A moment in the documented schema (docs/cli.md)."""
    return {
        "video_id": moment.video_id,
        "path": str(moment.path),
        "start_seconds": round(moment.span.start_seconds, 3),
        "end_seconds": round(moment.span.end_seconds, 3),
        "score": round(moment.score, 6),
        "strength": round(moment.strength, 3),
    }


def result_json(result: "SearchResult", only: "Filter | None" = None) -> dict[str, Any]:
    """A search result in the documented schema (docs/cli.md), with the filter where there was one."""
    filtered = {} if only is None else {"filter": filter_json(only), "videos": result.num_videos}
    return {
        "query": result.query,
        **filtered,
        "no_good_match": result.no_good_match,
        "moments": [moment_json(moment) for moment in result.moments],
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
    }


def filter_json(only: "Filter") -> dict[str, Any]:
    """What a filter asks for, by the names of its fields; what it leaves open is left out.

    >>> from scanonce.search.filters import Filter
    >>> filter_json(Filter(labels=frozenset({"b", "a"}), min_seconds=30.0))
    {'labels': ['a', 'b'], 'min_seconds': 30.0}
    """
    values = {each.name: getattr(only, each.name) for each in fields(only)}
    given = {name: value for name, value in values.items() if value not in (None, (), frozenset())}
    return {name: _plain_value(value) for name, value in given.items()}


def _plain_value(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple | frozenset):
        return sorted(_plain_value(each) for each in value)
    return str(value) if isinstance(value, date | Path) else value


def moments_table(moments: Sequence[Moment]) -> Table:
    """Moments as rows for a terminal."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("moment")
    table.add_column("score", justify="right")
    table.add_column("video", overflow="fold")
    for rank, moment in enumerate(moments, start=1):
        name = escape(moment.path.name)
        table.add_row(
            str(rank),
            span_text(moment.span),
            f"{moment.score:.3f}",
            f"{name}  [dim]{escape(str(moment.path.parent))}[/]",
        )
    return table


def timings_text(result: "SearchResult") -> str:
    """One line: where the time went."""
    return stages_text(result.timings_ms)


def stages_text(timings_ms: Mapping[str, float]) -> str:
    """Milliseconds by stage, with their total first.

    >>> stages_text({"text": 11, "library": 3, "total": 14})
    '14 ms: text 11, library 3'
    """
    stages = ", ".join(f"{name} {ms:.0f}" for name, ms in timings_ms.items() if name != "total")
    return f"{timings_ms['total']:.0f} ms: {stages}"


def search_line(
    num_videos: int, seconds: float, timings_ms: Mapping[str, float], page_ms: float
) -> str:
    """One line under a search: how much was looked through, and where the time went.

    >>> search_line(128, 219_600, {"text": 11, "library": 3, "moments": 9, "total": 23}, 15)
    '128 videos, 61 h | 38 ms: text 11, library 3, moments 9, page 15'
    """
    stages = {name: ms for name, ms in timings_ms.items() if name != "total"}
    total = timings_ms["total"] + page_ms
    timings = stages_text({**stages, "page": page_ms, "total": total})
    return f"{count_text(num_videos, 'video')}, {hours_text(seconds)} | {timings}"


# ---------------------------------------------------------------- the pages: words

StrengthWord = Literal["strong", "fair", "weak"]

STRONG, FAIR = 1.3, 1.1
"""Measured with the bundled encoder on 80 films: of the right moments (tIoU above 0.3) 92-95 % are strong and 98 % fair
or strong; of what is called strong two thirds to four fifths are right."""


def strength_word(strength: float) -> StrengthWord:
    """`Moment.strength` as people take it: 1 is what chance reaches.

    >>> strength_word(1.35), strength_word(1.2), strength_word(0.9)
    ('strong', 'fair', 'weak')
    """
    if strength >= STRONG:
        return "strong"
    return "fair" if strength >= FAIR else "weak"


_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])")


def plain(text: str) -> str:
    """A text that Markdown shows as it is: names of files and messages that hold them.

    >>> plain("a_b [c].mp4")
    'a\\\\_b \\\\[c\\\\]\\\\.mp4'
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


# ---------------------------------------------------------------- the pages: which moments


LENGTHS: dict[str, tuple[float | None, float | None]] = {
    "Any length": (None, None),
    "< 1 min": (None, 60.0),
    "1-10 min": (60.0, 600.0),
    "10-60 min": (600.0, 3600.0),
    "> 1 h": (3600.0, None),
}
"""The shortest seconds, and those that are too long."""
ADDED: dict[str, int | None] = {
    "Added any time": None,
    "Added today": 0,
    "Last 7 days": 7,
    "Last 30 days": 30,
}
"""Whole days before today."""


def added_since(choice: str, today: date) -> date | None:
    """The day from which on a choice of `ADDED` counts."""
    days = ADDED[choice]
    return None if days is None else today - timedelta(days=days)


def filter_text(only: "Filter") -> str:
    """What of a filter is out of sight in the row above the moments; empty where nothing is.

    >>> from scanonce.search.filters import Filter
    >>> filter_text(Filter(labels=frozenset({"work"}), recorded_after=date(2024, 5, 1)))
    'labelled work, recorded from 2024-05-01'
    """
    parts = {
        "labelled ": " and ".join(sorted(only.labels)),
        "not labelled ": " or ".join(sorted(only.without_labels)),
        "recorded from ": only.recorded_after,
        "recorded until ": only.recorded_before,
    }
    return ", ".join(f"{words}{value}" for words, value in parts.items() if value)


def _is_below(path: Path, folder: str) -> bool:
    text = str(path)
    return text == folder or text.startswith(folder.removesuffix(os.sep) + os.sep)


def folder_names(roots: Iterable[Path], videos: Iterable[Video]) -> dict[str, str]:
    """Folders to choose from: the libraries and the folders directly in them that hold videos.

    Returns:
        Names by path: ``films``, ``films/2020``; the whole path where two names are alike.
    """
    tops = sorted(set(roots))
    folders: dict[str, str] = {str(root): root.name or str(root) for root in tops}
    for video in videos:
        for path in video.paths:
            for root in tops:
                if _is_below(path, str(root)):
                    inner = str(path)[len(str(root).removesuffix(os.sep)) + 1 :].split(os.sep)
                    if len(inner) > 1:
                        name = f"{root.name or root}/{inner[0]}"
                        folders.setdefault(str(root / inner[0]), name)
    names = list(folders.values())
    return {
        folder: name if names.count(name) == 1 else folder
        for folder, name in sorted(folders.items())
    }


def one_per_video(moments: Iterable[Moment]) -> list[Moment]:
    """The best moment of each video, in their order."""
    best: dict[int, Moment] = {}
    for moment in moments:
        best.setdefault(moment.video_id, moment)
    return list(best.values())


def page_of(items: Sequence[Item], page: int, size: int) -> Sequence[Item]:
    """The items of a page; pages count from 1, one beyond the last is the last."""
    page = max(1, min(page, num_pages(len(items), size)))
    return items[(page - 1) * size : page * size]


def num_pages(num_items: int, size: int) -> int:
    """Pages of ``size``, 1 at least."""
    return max(1, -(-num_items // size))


# ---------------------------------------------------------------- the pages: times and curves


def picture_times(span: Span, count: int = 3) -> tuple[float, ...]:
    """Times evenly inside a span; of an odd number the middle one is its middle.

    >>> picture_times(Span(0.0, 6.0))
    (1.0, 3.0, 5.0)
    """
    step = span.duration_seconds / count
    return tuple(span.start_seconds + (k + 0.5) * step for k in range(count))


def parse_span(start: str, end: str, duration_seconds: float) -> Span | None:
    """A span of an address, kept inside its video; None where it makes no sense."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        return None
    if not 0.0 <= first < last < inf or first >= duration_seconds:
        return None
    return Span(first, min(last, duration_seconds))


def curve_levels(curve: "Curve", duration_seconds: float, most: int = 20_000) -> list[int]:
    """A curve as levels 0 to 255, evenly over the video: the mean of what each piece of time holds.

    255 is the best piece; 0 is the median and below, so that what stands out is seen.

    Args:
        curve: see `Localiser.curve`.
        duration_seconds: of the video.
        most: levels at most; a curve with fewer pieces gives about as many.
    """
    import numpy as np

    count = min(most, len(curve.scores))
    if count == 0 or duration_seconds <= 0:
        return []
    scores = np.nan_to_num(curve.scores)
    edges = np.clip(curve.edges_seconds, 0.0, duration_seconds)
    integral = np.append(0.0, np.cumsum(scores * np.diff(edges)))
    even = np.linspace(0.0, duration_seconds, count + 1)
    means = np.diff(np.interp(even, edges, integral)) / (duration_seconds / count)
    floor, top = float(np.median(means)), float(means.max())
    levels = np.clip((means - floor) / max(top - floor, 1e-9), 0.0, 1.0)
    return [int(level) for level in np.rint(255 * levels)]
