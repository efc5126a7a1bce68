"""Tables of figures for a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scanonce.training.evaluation.answering import Speed
from scanonce.training.evaluation.evaluate import ALL, Evaluation, Percentages
from scanonce.training.evaluation.intervals import Figure
from scanonce.training.evaluation.metrics import BothDirections

VIDEO_FIGURES = ("VR R@1", "VR R@5", "VR R@10", "VR R@100", "VR MRR")
GIVEN_FIGURES = (
    "SVMR R@1 tIoU 0.3",
    "SVMR R@1 tIoU 0.5",
    "SVMR R@1 tIoU 0.7",
    "SVMR R@5 tIoU 0.5",
    "SVMR mIoU",
)
MOMENT_FIGURES = (
    "VCMR R@1 tIoU 0.3",
    "VCMR R@1 tIoU 0.5",
    "VCMR R@1 tIoU 0.7",
    "VCMR mIoU",
)
FURTHER_FIGURES = ("VCMR R@5 tIoU 0.5", "VCMR R@10 tIoU 0.5", "VCMR R@100 tIoU 0.5")
ORDER_FIGURES = (
    "NDCG@10 tIoU 0.3",
    "NDCG@10 tIoU 0.5",
    "NDCG@10 tIoU 0.7",
    "NDCG@20 tIoU 0.5",
    "MRR tIoU 0.5",
)
LIBRARY_TABLES = {
    "the right video of the library (VR)": VIDEO_FIGURES,
    "the span, in the right video (SVMR)": GIVEN_FIGURES,
    "video and span of the library (VCMR)": MOMENT_FIGURES,
    "the same, further down": FURTHER_FIGURES,
    "order of the first answers (VCMR)": ORDER_FIGURES,
}
"""Figures of the library task in tables that fit a terminal of 80 columns; the JSON has all figures."""


def library_tables(evaluation: Evaluation) -> list[RenderableType]:
    """Return tables of the library task: a row for each kind of query, each figure with its 95 % interval."""
    shown = evaluation.figures[ALL]
    return [
        _figures_table(f"{title}, 95 % interval", names, evaluation)
        for title, names in LIBRARY_TABLES.items()
        if any(name in shown for name in names)
    ]


def own_tables(evaluation: Evaluation) -> list[RenderableType]:
    """Return tables of the benchmark's own figures in percent, one for each task."""
    return [
        _percent_table(f"{evaluation.benchmark}, its own figures: {task}, %", by_kind)
        for task, by_kind in evaluation.own.items()
    ]


def retrieval_table(title: str, figures: BothDirections) -> RenderableType:
    """Return a table of text-video retrieval in both directions."""
    table = _table(("direction",), ("n", "R@1", "R@5", "R@10", "MdR", "MnR"))
    directions = {"text to video": figures.text_to_video, "video to text": figures.video_to_text}
    for name, each in directions.items():
        recalls = [figure_text(figure) for figure in each.recall.values()]
        ranks = (f"{each.median_rank:g}", f"{each.mean_rank:.2f}")
        table.add_row(name, f"{each.num_queries:,}", *recalls, *ranks)
    return _titled(title, table)


def speed_text(speed: Speed) -> str:
    """Return a line about latency and a line about size."""
    parts = ", ".join(
        f"{part} {size / 1e6:.1f}" for part, size in speed.bytes_per_hour.items() if part != "total"
    )
    return (
        f"a query asked alone: {speed.p50_ms:.0f} ms p50, {speed.p95_ms:.0f} ms p95 ({speed.num_timed} queries)\n"
        f"the index: {speed.bytes_per_hour['total'] / 1e6:.1f} MB per hour of video ({parts}; "
        f"{speed.hours:.2f} hours)"
    )


def figure_text(figure: Figure) -> str:
    """Return a figure with its interval: `.412 (.38-.45)`."""
    text = f"{figure.value:.3f} ({figure.low:.2f}-{figure.high:.2f})"
    return text.replace("0.", ".")


def _figures_table(title: str, names: Sequence[str], evaluation: Evaluation) -> RenderableType:
    shown = [name for name in names if name in evaluation.figures[ALL]]
    prefix = shown[0].split()[0] if all(n.split()[0] == shown[0].split()[0] for n in shown) else ""
    columns = [name.removeprefix(prefix).replace("tIoU 0.", ".").strip() for name in shown]
    table = _table(("queries",), ("n", *columns))
    for kind, figures in evaluation.figures.items():
        cells = [figure_text(figures[name]) if name in figures else "" for name in shown]
        table.add_row(kind, f"{evaluation.num_queries[kind]:,}", *cells)
    return _titled(title, table)


def _percent_table(title: str, by_kind: Mapping[str, Percentages]) -> RenderableType:
    """Return a table with a row for each figure: benchmarks have more figures than kinds."""
    table = _table(("figure",), tuple(by_kind))
    for name in by_kind[ALL]:
        values = [figures.get(name) for figures in by_kind.values()]
        table.add_row(name, *("-" if value is None else f"{value:.2f}" for value in values))
    return _titled(title, table)


def _titled(title: str, table: Table) -> RenderableType:
    """Add a title in one line, whatever the width of the table, and an empty line before it."""
    return Group("", Text(title, style="bold"), table)


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None)
    for column in texts:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    return table
