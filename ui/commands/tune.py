"""`scanonce tune`: how many lists and candidates a search of this library needs, measured on it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from scanonce.indexer.vectors import Vectors, library_vectors
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.trained import load_localiser
from scanonce.models.vectors import unit
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest
from scanonce.storage.vectors.generation import TunedSettings, newest_generation
from scanonce.storage.vectors.recall import RECALL_AT, Point
from scanonce.storage.vectors.tuning import tune
from scanonce.storage.writer import writing

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
        LocaliserError: it has a library of anchors, and their localiser cannot be loaded.
    """
    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    coded = [vectors for vectors in library_vectors(layout, manifest) if _has_codes(vectors)]
    if not any(vectors.of == "clips" for vectors in coded):
        console.print("The index is flat: its search is exact, nothing needs tuning.")
    if not coded:
        return None
    asked = _embed(list(sentences or everyday_sentences()), manifest, models, coded)
    chosen = {}
    with writing(layout, "scanonce tune"), console.status("measuring") as status:
        with Catalog.open(layout.catalog, read_only=True) as catalog:
            live = catalog.live_video_ids()
        for vectors in coded:
            points: list[Point] = []

            def observe(point: Point, points: list[Point] = points) -> None:
                points.append(point)
                status.update(f"measuring: nprobe {point.nprobe}, recall {point.recall:.3f}")

            tuned = tune(
                vectors.folder,
                vectors.dim,
                live,
                target_recall=target_recall,
                queries=asked[vectors.of],
                on_progress=observe,
            )
            if tuned is not None:
                chosen[vectors.of] = tuned
                _show(vectors, points, tuned, console)
        layout.manifest.touch()  # readers look at its time of change: they take the settings up
    return chosen.get("clips")


def _has_codes(vectors: Vectors) -> bool:
    generation = newest_generation(vectors.folder, dim=vectors.dim, with_codes=False)
    return generation is not None and generation.info.kind != "flat"


def _embed(
    sentences: list[str],
    manifest: Manifest,
    models: ModelSettings | None,
    indexes: Sequence[Vectors],
) -> dict[str, NDArray[np.float32]]:
    """What the sentences ask each index, ``[num_sentences, dim]`` unit vectors."""
    encoder = load_encoder(manifest.encoder, models, towers="text")
    asked = {"clips": unit(encoder.encode_texts(sentences))}
    if any(vectors.of == "anchors" for vectors in indexes):
        localiser = load_localiser(str(manifest.localiser))
        # as long as one another: that changes no order of what each of them finds
        asked["anchors"] = unit(localiser.query_vectors(encoder.encode_text_features(sentences)))
    return asked


def _show(
    vectors: Vectors, points: Sequence[Point], tuned: TunedSettings, console: Console
) -> None:
    """The measured points, and in words which was taken."""
    table = Table(box=None, pad_edge=False, title=f"{vectors.of}, {tuned.clips:,}")
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
        f"Measured with {tuned.num_queries} sentences on {tuned.clips:,} {vectors.of}; other sentences find what is "
        "sure or more, nineteen times in twenty. Measured again by itself when the lists are trained anew.",
        soft_wrap=True,
    )
    if max(point.recall_lower_bound for point in points) < tuned.target_recall:
        console.print(
            f"[yellow]No setting surely finds {tuned.target_recall:.3f} of the best {vectors.of}; the one that finds "
            'most is taken.[/] More sentences make surer; more is found by exact search: storage.kind = "flat".',
            soft_wrap=True,
        )
