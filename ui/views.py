"""What people and programs read: times, sizes, tables and the JSON schema. Pure functions."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from search.engine import SearchResult
from storage.records import Moment, Span


def clock(seconds: float, *, tenths: bool = False) -> str:
    """Seconds as h:mm:ss, or h:mm:ss.t.

    >>> clock(3725.44), clock(59.97, tenths=True)
    ('1:02:05', '0:01:00.0')
    """
    units = round(seconds * 10) if tenths else int(seconds + 1e-6) * 10
    minutes, rest = divmod(units, 600)
    text = f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{text}.{rest % 10}" if tenths else text


def span_text(span: Span) -> str:
    """A span as people read it, to the tenth of a second."""
    return f"{clock(span.start_seconds, tenths=True)} - {clock(span.end_seconds, tenths=True)}"


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


def result_json(result: SearchResult) -> dict[str, Any]:
    """A search result in the documented schema (docs/cli.md)."""
    return {
        "query": result.query,
        "no_good_match": result.no_good_match,
        "moments": [moment_json(moment) for moment in result.moments],
        "timings_ms": {stage: round(value, 3) for stage, value in result.timings_ms.items()},
    }


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


def timings_text(result: SearchResult) -> str:
    """One line: where the time went."""
    stages = ", ".join(
        f"{name} {value:.0f}" for name, value in result.timings_ms.items() if name != "total"
    )
    return f"{result.timings_ms['total']:.0f} ms: {stages}"
