"""`scanonce tune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.options import ConfigOption, IndexOption
from scanonce.ui.commands.search import read_queries
from scanonce.ui.console import new_console

if TYPE_CHECKING:
    from scanonce.storage.vectors.generation import TunedSettings
    from scanonce.storage.vectors.recall import Point


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
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Fit the probabilities of answers to this index instead."),
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="With --calibrate: file of sentences with their moments, as for `scanonce eval`.",
            show_default="none: by texts that no image can show",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure the recall of a large index on its own clips, and choose its cheapest sufficient settings."""
    if labels is not None and not calibrate:
        raise typer.BadParameter("--labels needs --calibrate")
    if calibrate:
        calibrate_index(index_dir, labels, config)
        return
    from scanonce.models.encoders.load import load_encoder
    from scanonce.models.vectors import unit
    from scanonce.storage.index import Index
    from scanonce.storage.manifest import read_manifest
    from scanonce.storage.vectors.generation import newest_generation
    from scanonce.storage.vectors.tuning import tune
    from scanonce.ui.config import read_config

    settings = read_config(config)
    console = new_console()
    layout = settings.layout(index_dir)
    manifest = read_manifest(layout)
    texts = typical_queries(sentences)
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


def typical_queries(path: Path | None) -> list[str]:
    """Return the queries in a file, or everyday ones.

    Raises:
        QueryError: the file cannot be read, or has no query.
    """
    if path is None:
        return everyday_queries()
    lines = [line for line in read_queries(path) if line.text.strip()]
    for line in lines:
        if line.error is not None:
            raise QueryError(f"{path}: {line.error}")
    if not lines:
        raise QueryError(f"{path} has no queries: write one on each line, 100 or more")
    return [line.text for line in lines]


def everyday_queries() -> list[str]:
    """Return 512 texts of the bank of everyday texts: words, phrases and sentences."""
    from scanonce.search.bank import bank

    return list(bank()[::4])


def calibrate_index(index_dir: Path | None, labels: Path | None, config: Path | None) -> None:
    """Fit the probabilities of an index, and print the line of a good match before and after."""
    from scanonce.search.calibration import BY_FRAMES, write_calibration
    from scanonce.storage.writer import writing
    from scanonce.training.evaluation.annotations import as_queries, read_annotations
    from scanonce.training.evaluation.calibrate import fit_index
    from scanonce.ui.config import read_config

    console = new_console()
    settings = read_config(config)
    queries = [] if labels is None else as_queries(read_annotations(labels, "scanonce"))
    with settings.library(index_dir) as library, console.status("asking the index"):
        calibration = fit_index(library.engine, queries)
        with writing(library.layout, "scanonce tune"):
            write_calibration(library.layout.calibration, calibration)
            library.layout.manifest.touch()  # a new time of change makes open searches read it
    if calibration.num_labelled:
        console.print(
            f"Fitted to {calibration.num_labelled:,} labelled sentences. Searches that are open follow."
        )
    else:
        weights = calibration.by_key[BY_FRAMES]
        console.print(
            f"A moment is a good match from {-weights.bias / weights.evidence:.2f} standard deviations above the bank "
            "of everyday texts: 95 % of the texts that no image can show stay below. Labelled sentences (--labels) "
            "make the numbers probabilities.",
            soft_wrap=True,
        )


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
