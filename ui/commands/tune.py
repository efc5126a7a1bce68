"""`scanonce tune`: how many lists and candidates a search of this library needs, measured on it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.vectors.generation import TunedSettings, newest_generation
from scanonce.storage.vectors.recall import RECALL_AT, Point
from scanonce.storage.vectors.tuning import tune

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


def everyday_sentences() -> list[str]:
    """512 sentences such as people ask: every subject in every place, places mixed so that any few are varied."""
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
        raise IndexDirectoryError(f"{path} has no sentences: write one on each line, 100 or more")
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
        target_recall: share of the ten best clips to be found, `storage.vectors.tuning.LOWEST_TARGET` to
        `HIGHEST_TARGET`. console: where the table goes. sentences: what to ask, 100 or more, best such as were really
        asked; `everyday_sentences` where None. models: device and number format of the text encoder.

    Returns:
        What was chosen for the index of clips; None where its search is exact.

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
    encoder = load_encoder(manifest.encoder, models, towers="text")
    queries = unit(encoder.encode_texts(list(sentences or everyday_sentences())))
    points: list[Point] = []
    with (
        Index.open(layout, writing="scanonce tune") as index,
        console.status("measuring") as status,
    ):

        def observe(point: Point) -> None:
            points.append(point)
            status.update(f"measuring: nprobe {point.nprobe}, recall {point.recall:.3f}")

        tuned = tune(
            layout.vectors,
            manifest.dim,
            index.catalog.live_video_ids(),
            target_recall=target_recall,
            queries=queries,
            on_progress=observe,
        )
        if tuned is not None:
            _show(points, tuned, console)
        layout.manifest.touch()  # readers look at its time of change: they take the settings up
    return tuned


def _show(points: Sequence[Point], tuned: TunedSettings, console: Console) -> None:
    """The measured points, and in words which was taken."""
    table = Table(box=None, pad_edge=False, title=f"clips, {tuned.clips:,}")
    columns = ("nprobe", "rescore depth", f"recall@{RECALL_AT}", "surely", "CPU ms a query", "")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
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
        f"Measured with {tuned.num_queries} sentences on {tuned.clips:,} clips; other sentences find what is "
        "sure or more, nineteen times in twenty. Measured again by itself when the lists are trained anew.",
        soft_wrap=True,
    )
    if max(point.recall_lower_bound for point in points) < tuned.target_recall:
        console.print(
            f"[yellow]No setting surely finds {tuned.target_recall:.3f} of the best clips; the one that finds "
            'most is taken.[/] More sentences make surer; more is found by exact search: storage.kind = "flat".',
            soft_wrap=True,
        )
