"""`scanonce tune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanonce.storage.errors import IndexDirectoryError
from scanonce.ui.commands.options import ConfigOption, IndexOption

if TYPE_CHECKING:
    from scanonce.storage.vectors.generation import TunedSettings
    from scanonce.storage.vectors.recall import Point

_SUBJECTS = (
    "a dog", "two people talking", "a red car", "a child laughing", "a crowd", "a bird in flight", "a woman in a hat",
    "an old man", "a boat", "somebody cooking", "a football match", "a cat", "a person running", "a horse", "flowers",
    "a musician playing", "a bicycle", "a baby", "people dancing", "a truck", "smoke", "a man with a beard",
    "a dragonfly", "a policeman", "somebody reading", "an empty chair", "a flag", "two men fighting", "a cake",
    "an aeroplane", "a screen with text", "hands working",
)  # fmt: skip
_PLACES = (
    "on a beach", "in a kitchen", "at night", "in the snow", "on a city street", "in a forest", "seen from above",
    "on a stage", "in the rain", "in a living room", "by a river", "in an office", "close up", "in the desert",
    "at a railway station", "in bright sunlight",
)  # fmt: skip


def tune(
    index_dir: IndexOption = None,
    target_recall: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Share of the ten best clips to be found.")
    ] = 0.95,
    sentences: Annotated[
        Path | None,
        typer.Option(
            help="File with typical queries, one a line, 100 or more.",
            show_default="512 everyday queries",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure the recall of a large index on its own clips, and choose its cheapest sufficient settings."""
    from scanonce.models.encoders.load import load_encoder
    from scanonce.models.vectors import unit
    from scanonce.storage.index import Index
    from scanonce.storage.manifest import read_manifest
    from scanonce.storage.vectors.generation import newest_generation
    from scanonce.storage.vectors.tuning import tune
    from scanonce.ui.config import read_config

    settings = read_config(config)
    console = Console()
    layout = settings.layout(index_dir)
    manifest = read_manifest(layout)
    texts = read_queries(sentences) if sentences else everyday_queries()
    generation = newest_generation(layout.vectors, dim=manifest.dim, with_codes=False)
    if generation is None or generation.info.kind == "flat":
        console.print("The index is flat: its search is exact, nothing needs tuning.")
        return
    encoder = load_encoder(manifest.encoder, settings.models, towers="text")
    points: list[Point] = []
    with (
        Index.open(layout, writing="scanonce tune") as index,
        console.status("measuring") as status,
    ):

        def on_point(point: "Point") -> None:
            points.append(point)
            status.update(f"measuring: nprobe {point.nprobe}, recall {point.recall:.3f}")

        tuned = tune(
            layout.vectors,
            manifest.dim,
            index.catalog.live_video_ids(),
            target_recall=target_recall,
            queries=unit(encoder.encode_texts(texts)),
            on_progress=on_point,
        )
        if tuned is not None:
            _show(points, tuned, console)
        layout.manifest.touch()  # a new time of change makes open searches read the settings


def everyday_queries() -> list[str]:
    """512 typical queries: every subject in every place, in an order in which any few are varied."""
    count = len(_SUBJECTS) * len(_PLACES)
    pairs = [(n % len(_SUBJECTS), (n + n // len(_SUBJECTS)) % len(_PLACES)) for n in range(count)]
    return [f"{_SUBJECTS[subject]} {_PLACES[place]}" for subject, place in pairs]


def read_queries(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty.

    Raises:
        IndexDirectoryError: it cannot be read, or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise IndexDirectoryError(f"the queries in {path} cannot be read: {error}") from error
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise IndexDirectoryError(f"{path} has no queries: write one on each line, 100 or more")
    return queries


def _show(points: "Sequence[Point]", tuned: "TunedSettings", console: Console) -> None:
    """Print the measured points and which of them is used from now on."""
    from scanonce.storage.vectors.recall import RECALL_AT

    table = Table(box=None, pad_edge=False, title=f"clips, {tuned.clips:,}")
    for column in (
        "nprobe",
        "rescore depth",
        f"recall@{RECALL_AT}",
        "lower bound",
        "CPU ms a query",
    ):
        table.add_column(column, justify="right")
    table.add_column()
    for point in points:
        taken = (point.nprobe, point.rescore_depth) == (tuned.nprobe, tuned.rescore_depth)
        table.add_row(
            str(point.nprobe),
            str(point.rescore_depth),
            f"{point.recall:.3f}",
            f"{point.recall_lower_bound:.3f}",
            f"{point.cpu_ms:.2f}",
            "[green]taken[/]" if taken else "",
        )
    console.print(table)
    console.print(
        f"Measured with {tuned.num_queries} queries on {tuned.clips:,} clips. With 95 % confidence, the recall of "
        "other queries is the lower bound or more. The measurement is repeated when the cells are trained again.",
        soft_wrap=True,
    )
    if max(point.recall_lower_bound for point in points) < tuned.target_recall:
        console.print(
            f"[yellow]No setting surely finds {tuned.target_recall:.3f} of the best clips; the one with the highest "
            'recall is used.[/] More queries raise the lower bound; exact search finds all: storage.kind = "flat".',
            soft_wrap=True,
        )
