"""`scanonce tune`: how many lists and candidates a search of this library needs, measured on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.clip4clip import unit
from models.encoder import load_encoder
from models.settings import ModelSettings
from storage.catalog import Catalog
from storage.errors import IndexDirectoryError
from storage.generation_info import TunedSettings
from storage.generations import newest_generation
from storage.layout import IndexLayout, read_manifest
from storage.recall import RECALL_AT, Point
from storage.tuning import tune
from storage.writer import writing

_SUBJECTS = (
    "a dog", "two people talking", "a red car", "a child laughing", "a crowd", "a bird in flight", "a woman in a hat",
    "an old man", "a boat", "somebody cooking", "a football match", "a cat", "a person running", "a horse", "flowers",
    "a musician playing",
)  # fmt: skip
_PLACES = (
    "on a beach", "in a kitchen", "at night", "in the snow", "on a city street", "in a forest", "seen from above",
    "on a stage",
)  # fmt: skip


def everyday_sentences() -> list[str]:
    """128 sentences such as people ask: every subject in every place, places mixed so that any few are varied."""
    count = len(_SUBJECTS) * len(_PLACES)
    pairs = [(n % len(_SUBJECTS), (n + n // len(_SUBJECTS)) % len(_PLACES)) for n in range(count)]
    return [f"{_SUBJECTS[subject]} {_PLACES[place]}" for subject, place in pairs]


def read_sentences(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        IndexDirectoryError: it cannot be read, or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise IndexDirectoryError(f"the sentences in {path} cannot be read: {error}") from error
    sentences = [line.strip() for line in lines if line.strip()]
    if not sentences:
        raise IndexDirectoryError(f"{path} has no sentences: write one on each line, 30 or more")
    return sentences


def run_tune(
    index_dir: Path,
    target_recall: float,
    console: Console,
    *,
    sentences: Sequence[str] | None = None,
    models: ModelSettings | None = None,
) -> TunedSettings | None:
    """Tune the search of an index and print what was measured.

    Args:
        index_dir: the index directory.
        target_recall: share of the ten best clips to be found, `storage.tuning.LOWEST_TARGET` to `HIGHEST_TARGET`.
        console: where the table goes.
        sentences: what to ask, 30 or more, best such as were really asked; `everyday_sentences` where None.
        models: device and number format of the text encoder.

    Returns:
        What was chosen; None where search is exact.

    Raises:
        IndexDirectoryError: there is no usable index, or somebody else writes it.
        EncoderError: its encoder cannot be loaded.
    """
    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    generation = newest_generation(layout.vectors, dim=manifest.dim, with_codes=False)
    if generation is None or generation.info.kind == "flat":
        console.print("The index is flat: its search is exact, nothing needs tuning.")
        return None
    asked = _embed(list(sentences or everyday_sentences()), manifest.encoder, models)
    points: list[Point] = []
    with writing(layout, "scanonce tune"), console.status("measuring") as status:

        def observe(point: Point) -> None:
            points.append(point)
            status.update(f"measuring: nprobe {point.nprobe}, recall {point.recall:.3f}")

        with Catalog.open(layout.catalog, read_only=True) as catalog:
            live = catalog.live_video_ids()
        tuned = tune(
            layout.vectors,
            manifest.dim,
            live,
            target_recall=target_recall,
            queries=asked,
            observe=observe,
        )
        layout.manifest.touch()  # readers look at its time of change: they take the settings up
    if tuned is not None:
        _show(points, tuned, console)
    return tuned


def _embed(
    sentences: list[str], encoder_name: str, models: ModelSettings | None
) -> NDArray[np.float32]:
    encoder = load_encoder(encoder_name, models, towers="text")
    return unit(encoder.encode_texts(sentences))


def _show(points: Sequence[Point], tuned: TunedSettings, console: Console) -> None:
    """The measured points, and in words which was taken."""
    table = Table(box=None, pad_edge=False)
    for column in ("nprobe", "rescore depth", f"recall@{RECALL_AT}", "CPU ms a query", ""):
        table.add_column(column, justify="right" if column else "left")
    for point in points:
        taken = (point.nprobe, point.rescore_depth) == (tuned.nprobe, tuned.rescore_depth)
        table.add_row(
            str(point.nprobe),
            str(point.rescore_depth),
            f"{point.recall:.3f}",
            f"{point.cpu_ms:.2f}",
            "[green]taken[/]" if taken else "",
        )
    console.print(table)
    console.print(
        f"Measured with {tuned.num_queries} sentences on {tuned.clips:,} clips; measured again by itself when its "
        "lists are trained anew.",
        soft_wrap=True,
    )
    if tuned.recall < tuned.target_recall:
        console.print(
            f"[yellow]No setting finds {tuned.target_recall:.3f} of the best clips; the one that finds most is "
            'taken.[/] More is found by exact search: storage.kind = "flat".',
            soft_wrap=True,
        )
