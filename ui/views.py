"""Times, sizes, tables and JSON for people and programs. Pure functions."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.table import Table

from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.console import verbatim
from scanonce.ui.reasons import reason_json, reasons_text

if (
    TYPE_CHECKING
):  # these import numpy, torch or SQLAlchemy, which `scanonce --help` must not wait for
    from scanonce.search.engine import SearchEngine
    from scanonce.search.filters import Filter, SearchScope
    from scanonce.search.localise import Curve
    from scanonce.search.result import Coverage, SearchResult
    from scanonce.storage.catalog.entries import RunCounts
    from scanonce.storage.index import IndexStatus

Item = TypeVar("Item")


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Return seconds as h:mm:ss, or h:mm:ss.t.

    >>> clock(3725.44), clock(59.97, tenths=True)
    ('1:02:05', '0:01:00.0')
    """
    units = round(seconds * 10) if tenths else int(seconds + 1e-6) * 10
    minutes, rest = divmod(units, 600)
    text = f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{text}.{rest % 10}" if tenths else text


def timecode(seconds: float, fps: float) -> str:
    """Return a time as h:mm:ss:ff, with the number of the frame in its second, counted in whole frames a second.

    >>> timecode(61.52, 25.0), timecode(0.0, 0.0)
    ('0:01:01:13', '0:00:00:00')

    Args:
        seconds: the time; between two frames it is the frame that is shown.
        fps: frames a second; 0 (unknown) counts as 25.
    """
    rate = fps or 25.0
    frame = int(seconds * rate + 0.01)
    base = max(1, round(rate))
    whole, rest = divmod(frame, base)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}:{rest:02d}"


def span_text(span: Span, *, tenths: bool = True) -> str:
    """Return a span for people, to the tenth of a second or to the second."""
    return f"{clock(span.start_seconds, tenths=tenths)} - {clock(span.end_seconds, tenths=tenths)}"


def hours_text(seconds: float) -> str:
    """Return a length, rounded, in the unit that people would use.

    >>> hours_text(219_600), hours_text(5_000), hours_text(1_500), hours_text(12)
    ('61 h', '1.4 h', '25 min', '12 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def size_text(num_bytes: float) -> str:
    """Return bytes in a decimal unit.

    >>> size_text(7_400_000)
    '7.4 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def count_text(count: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural.

    >>> count_text(1, "video"), count_text(1200, "video")
    ('1 video', '1,200 videos')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def date_text(when: datetime | None) -> str:
    """Return a date and time in the zone of this machine; empty for None."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else ""


def moment_json(moment: Moment) -> dict[str, Any]:
    """Return a moment in the documented schema (docs/cli.md)."""
    return {
        "video_id": moment.video_id,
        "path": str(moment.path),
        "start_seconds": round(moment.span.start_seconds, 3),
        "end_seconds": round(moment.span.end_seconds, 3),
        "probability": round(moment.probability, 4),
        "match": match_word(moment.probability),
        "score": round(moment.score, 6),
        "reasons": [reason_json(reason) for reason in moment.reasons],
    }


def result_json(
    result: "SearchResult", only: "Filter | None" = None, covered: "Coverage | None" = None
) -> dict[str, Any]:
    """Return a search result in the documented schema (docs/cli.md).

    Args:
        result: the answer.
        only: the filter, if one was given.
        covered: how much of the library matches, if that was computed.
    """
    from scanonce.search.filters import filter_json  # pydantic is slow to import

    filtered = {} if only is None else {"filter": filter_json(only), "videos": result.num_videos}
    return {
        "query": result.query,
        **filtered,
        "no_good_match": result.no_good_match,
        "num_good": result.num_good,
        "notes": list(result.notes),
        **({} if covered is None else {"coverage": asdict(covered)}),
        "moments": [moment_json(moment) for moment in result.moments],
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
    }


def status_json(root: Path, status: "IndexStatus") -> dict[str, Any]:
    """Return the state of the index at ``root`` in the documented schema (docs/cli.md).

    Raises:
        IndexDirectoryError: its calibration is damaged.
    """
    from scanonce.models.soonet.trained import NO_LOCALISER

    manifest, totals, vectors = status.manifest, status.totals, status.vectors
    return {
        "index": str(root),
        "encoder": manifest.encoder,
        "fingerprint": manifest.fingerprint,
        "dim": manifest.dim,
        "sampling": manifest.sampling,
        "sample_fps": manifest.sample_fps,
        "exact_times": manifest.exact_times,
        "localiser": manifest.localiser or NO_LOCALISER,
        "calibration": calibration_json(IndexLayout.of(root), manifest.fingerprint),
        "libraries": [str(root) for root in status.libraries],
        "videos": {"indexed": totals.indexed, "partial": totals.partial, "failed": totals.failed},
        "files": totals.num_files,
        "searchable_seconds": totals.searchable_seconds,
        "video_bytes": totals.size_bytes,
        "feature_bytes": status.feature_bytes,
        "anchor_bytes": status.anchor_bytes,
        "thumbnail_bytes": status.thumbnail_bytes,
        "vector_index": {
            "kind": vectors.kind if vectors else "none",
            "generation": status.generation,
            "factory": vectors.factory if vectors else None,
            "clips": status.num_clips,
        },
        "partial": [{"path": str(video.path), "reason": video.reason} for video in status.partial],
        "failures": [
            {"path": str(each.path), "reason": each.reason, "detail": each.detail}
            for each in status.failures
        ],
        "tracks": [{"track": name, **asdict(each)} for name, each in status.tracks.items()],
        "track_notes": [
            {"path": str(path), "reason": f"{name}: {problem}"}
            for path, name, problem in status.track_notes
        ],
        "writer": asdict(status.writer) if status.writer else None,
    }


INEXACT_TIMES = (
    "this index was made by a version before 0.3: where a picture is held, such as in slides and screen recordings, "
    "times may be wrong by as long as it is held; scanonce reindex makes them exact"
)
"""What people are told about an index whose manifest says that its times are not exact."""


def outcome_text(counts: "RunCounts", num_offline: int = 0, took: str | None = None) -> str:
    """Return the result of a run in a line. ``took`` takes the place of the length of the video.

    >>> from scanonce.storage.catalog.entries import RunCounts
    >>> outcome_text(RunCounts(seen=4, indexed=2, failed=1, skipped=1, video_seconds=125))
    '2 videos indexed (0:02:05), 1 already indexed, 1 failed'
    """
    done = counts.indexed + counts.partial
    indexed = f"{count_text(done, 'video')} indexed ({took or clock(counts.video_seconds)})"
    parts = [indexed if done else "nothing new indexed"]
    if counts.partial:
        parts.append(f"{counts.partial:,} of them in part")
    if counts.skipped:
        parts.append(f"{counts.skipped:,} already indexed")
    if counts.forgotten:
        parts.append(f"{counts.forgotten:,} no longer there")
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if num_offline:
        parts.append(f"{num_offline:,} offline and kept")
    return ", ".join(parts)


def moments_table(moments: Sequence[Moment]) -> Table:
    """Return moments as a table for a terminal, with a divider below the good matches if others follow them."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("moment")
    table.add_column("match")
    table.add_column("video", overflow="fold")
    divider = divider_at(moments)
    for position, moment in enumerate(moments):
        if position == divider:
            table.add_row("", f"[dim]{LESS_CERTAIN}[/]", "", "")
        name = verbatim(moment.path.name)
        table.add_row(
            str(position + 1),
            span_text(moment.span),
            match_text(moment.probability),
            f"{name}  [dim]{verbatim(moment.path.parent)}[/]",
        )
        if any(reason.text for reason in moment.reasons):
            table.add_row("", f"[dim]{verbatim(reasons_text(moment.reasons))}[/]", "", "")
    return table


def timings_text(result: "SearchResult") -> str:
    """Return the times of a search in a line, see :func:`stages_text`."""
    return stages_text(result.timings_ms)


def stages_text(timings_ms: Mapping[str, float]) -> str:
    """Return milliseconds by stage, with their total first.

    >>> stages_text({"text": 11, "library": 3, "total": 14})
    '14 ms: text 11, library 3'
    """
    stages = ", ".join(f"{name} {ms:.0f}" for name, ms in timings_ms.items() if name != "total")
    return f"{timings_ms['total']:.0f} ms: {stages}"


def search_line(
    num_videos: int, seconds: float, timings_ms: Mapping[str, float], page_ms: float
) -> str:
    """Return the line under a search: the size of the library, and the time of each stage.

    >>> search_line(128, 219_600, {"text": 11, "library": 3, "moments": 9, "total": 23}, 15)
    '128 videos, 61 h | 38 ms: text 11, library 3, moments 9, page 15'
    """
    stages = {name: ms for name, ms in timings_ms.items() if name != "total"}
    total = timings_ms["total"] + page_ms
    timings = stages_text({**stages, "page": page_ms, "total": total})
    return f"{count_text(num_videos, 'video')}, {hours_text(seconds)} | {timings}"


# ---------------------------------------------------------------- how certain an answer is

MatchWord = Literal["strong", "fair", "weak"]

LESS_CERTAIN = "less certain"
"""The divider between the good matches and the others."""


def match_word(probability: float) -> MatchWord:
    """Return the word for `Moment.probability`: ``strong``, ``fair`` (both are good matches) or ``weak``.

    >>> match_word(0.8), match_word(0.33), match_word(0.32)
    ('strong', 'fair', 'weak')
    """
    from scanonce.search.grades import GOOD, STRONG

    if probability >= STRONG:
        return "strong"
    return "fair" if probability >= GOOD else "weak"


def percent_text(share: float) -> str:
    """Return a probability, 0 to 1, in percent: rounded down, so that it agrees with its word, and never 0 or 100.

    >>> percent_text(0.874), percent_text(0.9999), percent_text(0.0001)
    ('87 %', '99 %', '1 %')
    """
    return f"{min(99, max(1, int(100 * share + 1e-6)))} %"


def match_text(probability: float) -> str:
    """Return the word and the percentage for `Moment.probability`.

    >>> match_text(0.874)
    'strong 87 %'
    """
    return f"{match_word(probability)} {percent_text(probability)}"


def count_good(moments: Sequence[Moment]) -> int:
    """Return the number of good matches, which are the first moments of an answer."""
    return sum(match_word(moment.probability) != "weak" for moment in moments)


def divider_at(moments: Sequence[Moment]) -> int | None:
    """Return the position of the first moment below the divider; None if no divider is needed."""
    good = count_good(moments)
    return good if 0 < good < len(moments) else None


def divider_on(moments: Sequence[Moment], page: int, size: int) -> int | None:
    """Return the position of the divider on a page of ``size`` moments; None if it is on another page, or nowhere."""
    position = divider_at(moments)
    if position is None or position // size != page - 1:
        return None
    return position % size


def good_text(moments: Sequence[Moment], *, is_full: bool = False) -> str:
    """Return the heading of some moments: how many of them are good matches.

    >>> good_text([])
    'No good match.'

    Args:
        moments: those of an answer.
        is_full: whether there may be more good matches, see `is_full`.
    """
    good = count_good(moments)
    if good == 0:
        return "No good match. The nearest:" if moments else "No good match."
    count = f"{good:,} good match" if good == 1 else f"{good:,} good matches"
    return f"At least {count}" if is_full else count


def is_full(result: "SearchResult", top: int) -> bool:
    """Whether all of the ``top`` moments that were asked for are good matches, so that there may be more.

    Not for a query of several parts: what is counted in videos is one sentence (`search.coverage`).
    """
    from scanonce.search.query import is_compound

    return result.num_good == len(result.moments) == top and not is_compound(result.query)


def covered_by(
    engine: "SearchEngine", result: "SearchResult", within: "SearchScope" = None
) -> "Coverage":
    """Return how many videos match a query: those with a good match in the answer, at the least.

    The engine judges one clip of each video, and moments fit better than clips.

    Raises:
        ScanonceError: see `SearchEngine.coverage`.
    """
    found = engine.coverage(result.query, within=within)
    shown = len({moment.video_id for moment in result.moments[: result.num_good]})
    return (
        found if found.is_estimate else replace(found, num_matching=max(found.num_matching, shown))
    )


def coverage_text(covered: "Coverage") -> str:
    """Return how many videos match.

    >>> from scanonce.search.result import Coverage
    >>> coverage_text(Coverage(38, 40, 40))
    '38 of 40 videos match'
    >>> coverage_text(Coverage(61, 64, 1200))
    'about 95 % of 1,200 videos match (64 were looked at)'
    """
    videos = count_text(covered.num_videos, "video")
    if covered.is_estimate:
        looked_at = f"{covered.num_judged:,} were looked at"
        return f"about {percent_text(covered.share)} of {videos} match ({looked_at})"
    verb = "matches" if covered.num_videos == 1 else "match"
    return f"{covered.num_matching:,} of {videos} {verb}"


def calibration_json(layout: IndexLayout, fingerprint: str) -> dict[str, Any]:
    """Return what the probabilities of an index are fitted to, in the documented schema (docs/cli.md).

    Args:
        layout: the index.
        fingerprint: of its encoder.

    Raises:
        IndexDirectoryError: its calibration is damaged.
    """
    from scanonce.search.calibration import find_calibration

    found = find_calibration(layout, fingerprint)
    kind = "bundled" if not layout.calibration.exists() else "index"
    return {"kind": kind if found.is_fitted else "none", "labelled_queries": found.num_labelled}


def calibration_text(calibration: Mapping[str, Any]) -> str:
    """Return the result of `calibration_json` in a line.

    >>> calibration_text({"kind": "index", "labelled_queries": 120})
    'fitted to 120 labelled queries'
    """
    if calibration["kind"] == "none":
        return "uncalibrated: scanonce tune --calibrate fits it"
    if calibration["kind"] == "bundled":
        return "bundled with the encoder"
    count = calibration["labelled_queries"]
    if not count:
        return "fitted to texts that no image can show"
    return f"fitted to {count:,} labelled {'query' if count == 1 else 'queries'}"


# ---------------------------------------------------------------- the pages: words

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&])")


def plain(text: str) -> str:
    """Return a text that Markdown shows unchanged, for names of files and for messages that contain them.

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
"""Minimum length, and the length from which on a video is too long, in seconds."""
ADDED: dict[str, int | None] = {
    "Added any time": None,
    "Added today": 0,
    "Last 7 days": 7,
    "Last 30 days": 30,
}
"""Number of days before today."""


def added_since(choice: str, today: date) -> date | None:
    """Return the first day that a choice of `ADDED` includes."""
    days = ADDED[choice]
    return None if days is None else today - timedelta(days=days)


def filter_text(only: "Filter") -> str:
    """Return the part of a filter that the row above the moments does not show; empty if there is none.

    >>> from scanonce.search.filters import Filter
    >>> filter_text(Filter(labels=frozenset({"work"}), recorded_after=date(2024, 5, 1)))
    'labelled work, recorded from 2024-05-01'
    """
    parts = {
        "labelled ": " and ".join(sorted(only.labels)),
        "not labelled ": " or ".join(sorted(only.without_labels)),
        "recorded from ": only.recorded_after,
        "recorded until ": only.recorded_before,
        "of the camera ": only.camera,
        "near ": only.near and "{:g}, {:g} ({:g} km)".format(*only.near),
    }
    return ", ".join(f"{words}{value}" for words, value in parts.items() if value)


def _is_below(path: Path, folder: str) -> bool:
    text = str(path)
    return text == folder or text.startswith(folder.removesuffix(os.sep) + os.sep)


def folder_names(roots: Iterable[Path], videos: Iterable[Video]) -> dict[str, str]:
    """Return the folders to choose from: the libraries, and the folders directly in them that contain videos.

    Returns:
        Names by path: ``films``, ``films/2020``; the whole path if two names are equal.
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
    """Return the best moment of each video, in their order."""
    best: dict[int, Moment] = {}
    for moment in moments:
        best.setdefault(moment.video_id, moment)
    return list(best.values())


def page_of(items: Sequence[Item], page: int, size: int) -> Sequence[Item]:
    """Return the items of a page. Pages count from 1; a page beyond the last is the last."""
    page = max(1, min(page, num_pages(len(items), size)))
    return items[(page - 1) * size : page * size]


def num_pages(num_items: int, size: int) -> int:
    """Return the number of pages of ``size`` items, 1 at least."""
    return max(1, -(-num_items // size))


# ---------------------------------------------------------------- the pages: times and curves


def times_across(span: Span, count: int = 3) -> tuple[float, ...]:
    """Return times spread evenly over a span; if ``count`` is odd, the middle one is the middle of the span.

    >>> times_across(Span(0.0, 6.0))
    (1.0, 3.0, 5.0)
    """
    step = span.duration_seconds / count
    return tuple(span.start_seconds + (k + 0.5) * step for k in range(count))


def parse_span(start: str, end: str, duration_seconds: float) -> Span | None:
    """Return the span of an address, cut to the length of its video; None if it is invalid."""
    try:
        first, last = float(start), float(end)
    except ValueError:
        return None
    if not 0.0 <= first < last < inf or first >= duration_seconds:
        return None
    return Span(first, min(last, duration_seconds))


def curve_levels(curve: "Curve", duration_seconds: float, most: int = 20_000) -> list[int]:
    """Return probabilities as levels 0 to 255 for intervals of equal length over the video: the mean of each.

    Args:
        curve: see `search.engine.probability_curve`.
        duration_seconds: length of the video.
        most: maximum number of levels; a curve with fewer scores has one level for each score.
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
    return [int(level) for level in np.rint(255 * np.clip(means, 0.0, 1.0))]
