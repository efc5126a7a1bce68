"""Time of a query, stage by stage, and size of an index.

    python -m benchmarks.search

There are two kinds of libraries: rendered films that are indexed by the pipeline and searched with the bundled encoder,
and simulated ones of many hours whose features are drawn, to see how the cost grows. Queries are asked one at a time of
a warm engine; the first query after opening, with the files out of the system's cache, is listed separately.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from benchmarks.drawn import Drawn, SeededEncoder, open_engine, write_drawn_index
from benchmarks.material import (
    BENCH,
    SAMPLE_FPS,
    console,
    drop_from_cache,
    percentile,
    processor,
    vit_b_32,
)
from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.runtime import num_cores
from scanonce.search.result import SearchResult
from scanonce.search.settings import SearchSettings
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.vectors.generation import newest_generation
from scanonce.training.world.films import render_library

AIM_MOMENTS_MS = 15.0
AIM_JUDGING_SHARE = 0.15
STAGES = ("text", "library", "moments", "judging", "total")

_NUM_FILMS = 12
_NUM_QUERIES = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one library."""

    name: str
    hours: float
    clips: int
    dim: int
    kind: str
    open_ms: float
    first_ms: float
    stages_ms: dict[str, list[float]]
    """Milliseconds of every warm query by stage."""
    feature_bytes: int
    vector_bytes: int


# ------------------------------------------------ rendered films


def rendered_library() -> tuple[IndexLayout, list[str]]:
    """Index a dozen rendered films with the bundled encoder; return the queries of their ground truth."""
    films = BENCH / "rendered" / "films"
    truth = films / "ground_truth.jsonl"
    if not truth.exists():
        render_library(films, seed=11, num_films=_NUM_FILMS, workers=num_cores())
    encoder = load_encoder(BUNDLED_NAME, towers="vision")
    # the weights are part of the name: another bundled checkpoint gets another index
    layout = IndexLayout(BENCH / "rendered" / f"index-{encoder.fingerprint[:12]}")
    with console.status("indexing the rendered films"):
        index_library(
            [films],
            layout=layout,
            encoder=encoder,
            settings=IndexerSettings(),
            storage=StorageSettings(),
        )
    lines = truth.read_text(encoding="utf-8").splitlines()
    return layout, [json.loads(line)["query"] for line in lines]


# ------------------------------------------------ simulated library


def video_lengths(hours: float, rng: np.random.Generator) -> Iterator[float]:
    """Draw lengths from 1 minute to 2 hours, uniform on a logarithmic scale, with the sum ``hours``."""
    left = hours * 3600
    while left > 0:
        seconds = min(left, 60 * 120 ** float(rng.random()))
        left -= seconds
        yield seconds


def simulated_library(hours: float) -> IndexLayout:
    """Return an index of drawn features; make it if missing."""
    encoder, rng = SeededEncoder(), np.random.default_rng(6)
    lengths = list(video_lengths(hours, rng))

    def draw() -> Iterator[Drawn]:
        for number, seconds in enumerate(lengths):
            frames = encoder.frames(max(1, round(seconds * SAMPLE_FPS)), rng)
            info = VideoInfo(seconds, 1280, 720, 30.0, "h264")
            yield Drawn(Path(f"/simulated/{number:05d}.mp4"), frames, number + 1, info)

    return write_drawn_index(BENCH / f"simulated-{hours:g}h", draw(), len(lengths), encoder)


# ------------------------------------------------ measuring


def measure(name: str, layout: IndexLayout, encoder: ClipEncoder, texts: Sequence[str]) -> Figures:
    """Open an index from disk; ask one query cold, the rest warm."""
    drop_from_cache(layout.root)
    begin = time.perf_counter()
    with open_engine(layout, encoder) as engine:
        open_ms = (time.perf_counter() - begin) * 1e3
        first = engine.search(texts[0]).timings_ms["total"]
        for text in texts[1:]:  # once without measuring: then files, caches and code are warm
            engine.search(text)
        results = [engine.search(text) for text in texts]
    generation = newest_generation(layout.vectors, dim=encoder.dim)
    assert generation is not None
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        hours = catalog.totals().searchable_seconds / 3600
    return Figures(
        name=name,
        hours=hours,
        clips=len(generation.base) + len(generation.delta),
        dim=encoder.dim,
        kind=generation.info.kind,
        open_ms=open_ms,
        first_ms=first,
        stages_ms=_by_stage(results),
        feature_bytes=FeatureStore(layout.features).size_bytes(),
        vector_bytes=sum(path.stat().st_size for path in generation.path.iterdir()),
    )


def _by_stage(results: Sequence[SearchResult]) -> dict[str, list[float]]:
    return {stage: [result.timings_ms[stage] for result in results] for stage in STAGES}


def text_tower_ms() -> list[float]:
    """Return the times of the text tower of a ViT-B/32, on ten tokens, warm."""
    encoder = load_encoder(str(vit_b_32()), towers="text")
    times = []
    for number in range(60):
        begin = time.perf_counter()
        encoder.encode_texts(["abcdefghij"])  # one token for each letter
        if number >= 10:
            times.append((time.perf_counter() - begin) * 1e3)
    return times


def stages_table(figures: Sequence[Figures]) -> Table:
    """Print the milliseconds of a query."""
    table = Table(title="one query, warm, ms: p50 / p95", box=None)
    table.add_column("library")
    for column in ("hours", "clips", "index", *STAGES, "open", "first, cold"):
        table.add_column(column, justify="right")
    for each in figures:
        stages = [
            f"{percentile(each.stages_ms[stage], 50):.1f} / {percentile(each.stages_ms[stage], 95):.1f}"
            for stage in STAGES
        ]
        table.add_row(
            each.name,
            f"{each.hours:.2g}" if each.hours < 1 else f"{each.hours:.0f}",
            f"{each.clips:,}",
            each.kind,
            *stages,
            f"{each.open_ms:.0f}",
            f"{each.first_ms:.0f}",
        )
    return table


def weights_table(figures: Sequence[Figures]) -> Table:
    """Print the megabytes on disk for an hour of video."""
    table = Table(title="on disk, MB for an hour of video", box=None)
    table.add_column("library")
    for column in ("dim", "features", "vectors", "total"):
        table.add_column(column, justify="right")
    for each in figures:
        features, vectors = (
            size / each.hours / 1e6 for size in (each.feature_bytes, each.vector_bytes)
        )
        table.add_row(
            each.name,
            str(each.dim),
            f"{features:.1f}",
            f"{vectors:.1f}",
            f"{features + vectors:.1f}",
        )
    return table


def aim_line(figures: Sequence[Figures]) -> str:
    """Print whether the stage ``moments`` meets its aim in all libraries."""
    worst = max(percentile(each.stages_ms["moments"], 50) for each in figures)
    verdict = "met" if worst <= AIM_MOMENTS_MS else "missed"
    return f"moments, p50 of the slowest library: {worst:.1f} ms; aim <= {AIM_MOMENTS_MS:.0f} ms: {verdict}"


def judging_line(figures: Sequence[Figures]) -> str:
    """Print what the probabilities add to a query, as a share of the rest of it, and whether that meets its aim."""
    shares = [
        percentile(each.stages_ms["judging"], 50)
        / (percentile(each.stages_ms["total"], 50) - percentile(each.stages_ms["judging"], 50))
        for each in figures
    ]
    verdict = "met" if max(shares) <= AIM_JUDGING_SHARE else "missed"
    return (
        f"judging adds, p50: {', '.join(f'{share:.1%}' for share in shares)} of the rest of a query; "
        f"aim <= {AIM_JUDGING_SHARE:.0%}: {verdict}"
    )


def main(
    hours: Annotated[
        list[float] | None, typer.Option(help="Hours of each simulated library; may be repeated.")
    ] = None,
) -> None:
    """Print query times by stage, opening times and sizes on disk."""
    BENCH.mkdir(exist_ok=True)
    console.print(
        f"{processor()}, {num_cores()} cores; {SearchSettings().candidate_clips} candidates"
    )
    layout, queries = rendered_library()
    encoder = load_encoder(BUNDLED_NAME, towers="text")
    with console.status("asking"):
        figures = [measure("rendered films", layout, encoder, queries[:_NUM_QUERIES])]
    texts = [f"query {number}" for number in range(_NUM_QUERIES)]
    for size in hours or [15.0, 60.0]:  # below and above the 50,000 clips of ivf_threshold
        layout = simulated_library(size)
        with console.status("asking"):
            figures.append(measure("simulated", layout, SeededEncoder(), texts))
    console.print(stages_table(figures))
    console.print("(text is not measured in simulated libraries: their queries are drawn)")
    with console.status("asking a text tower"):
        times = text_tower_ms()
    console.print(
        f"text tower of the size of ViT-B/32, 10 tokens: {percentile(times, 50):.1f} / "
        f"{percentile(times, 95):.1f} ms"
    )
    console.print(weights_table(figures))
    console.print(aim_line(figures))
    console.print(judging_line(figures))


if __name__ == "__main__":
    typer.run(main)
