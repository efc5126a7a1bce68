"""Cost of a localiser with candidates in a hundred long films.

    python -m benchmarks.library

Features and anchors are drawn at the sizes of the published SOONet (5 frames/s, 512 dimensions, 4 scales), and its
weights are random: this measures speed, not quality (`python -m scanonce.training.bundled.gate`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from benchmarks.material import BENCH, SAMPLE_FPS, console, percentile, processor
from scanonce.models.runtime import num_cores
from scanonce.models.soonet.network import Soonet, SoonetConfig
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.models.vectors import unit
from scanonce.search.localise import Candidate, Localiser, Query
from scanonce.search.settings import SearchSettings
from scanonce.search.soonet import SoonetLocaliser
from scanonce.search.training_free import TrainingFree
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures

_DIM = 512
_FILM_SECONDS = 7200.0
_NUM_QUERIES = 40
_STRETCH_SECONDS = 68.0  # a clip of 8 s with 30 s on either side
AIM_MS, AIM_MB = 40.0, 50.0


@dataclass
class CountedVideo:
    """A `StoredVideo` on disk that counts the bytes a localiser reads of it."""

    uid: str
    features: FeatureStore
    store: AnchorStore
    num_bytes: int = field(default=0)
    duration_seconds: float = _FILM_SECONDS

    def frames(self, spans: Sequence[tuple[float, float]]) -> list[FrameFeatures]:
        """See `search.localise.StoredVideo.frames`."""
        found = self.features.read_between(self.uid, spans)
        self.num_bytes += sum(each.frames.nbytes + each.pts_seconds.nbytes for each in found)
        return found

    def anchors(self, rows: NDArray[np.int64] | None) -> AnchorArrays | None:
        """See `search.localise.StoredVideo.anchors`."""
        found = self.store.read_rows(self.uid, rows)
        self.num_bytes += found.vectors.nbytes + found.norms.nbytes
        return found


def random_soonet() -> TrainedLocaliser:
    """Return a localiser of the published sizes with drawn weights, both stages one product."""
    torch.manual_seed(0)
    model = Soonet(SoonetConfig()).eval()
    return TrainedLocaliser("random", model, "0" * 64)


# ------------------------------------------------ a hundred films


def draw_films(num_films: int, grid_rows: int, fps: float) -> list[CountedVideo]:
    """Make films with drawn frames and anchors, if missing."""
    root = BENCH / f"long-films-{fps:g}"
    features, store = FeatureStore(root / "features"), AnchorStore(root / "anchors")
    num_frames = int(_FILM_SECONDS * fps)
    films = []
    for number in track(range(num_films), "drawing films", console=console):
        uid = f"{number:02x}{number:038x}"
        films.append(CountedVideo(uid, features, store))
        if store.has(uid):
            continue
        rng = np.random.default_rng((7, number))
        frames = rng.standard_normal((num_frames, _DIM), np.float32).astype(np.float16)
        features.write(uid, FrameFeatures(frames, np.arange(num_frames) / fps, fps))
        vectors = unit(rng.standard_normal((grid_rows, 2 * _DIM), np.float32))
        norms = rng.uniform(5, 20, grid_rows).astype(np.float32)
        store.write(uid, AnchorArrays(vectors.astype(np.float16), norms))
    return films


def ask_films(localiser: Localiser, films: Sequence[CountedVideo]) -> tuple[list[float], float]:
    """Return the milliseconds of each query with candidates in all films, and the megabytes read by one."""
    rng = np.random.default_rng(8)
    times = []
    for number in range(_NUM_QUERIES + 3):
        text = rng.standard_normal(_DIM).astype(np.float32)
        query = Query(unit(text), text, text, mean=0.0, std=_DIM**-0.5)
        starts = rng.uniform(0, _FILM_SECONDS - _STRETCH_SECONDS, len(films))
        candidates = [
            Candidate(film, ((start, start + _STRETCH_SECONDS),))
            for film, start in zip(films, starts.tolist(), strict=True)
        ]
        for film in films:
            film.num_bytes = 0
        if (
            number < 3
        ):  # after these, code and caches are warm; the next query is asked twice, so its files are warm too
            localiser.locate(query, candidates, top=10)
            continue
        localiser.locate(query, candidates, top=10)
        touched = sum(film.num_bytes for film in films) / 1e6
        begin = time.perf_counter()
        localiser.locate(query, candidates, top=10)
        times.append((time.perf_counter() - begin) * 1e3)
    return times, touched


def main(
    films: Annotated[int, typer.Option(min=1, help="Two-hour films with candidates.")] = 100,
) -> None:
    """Print the cost of localising at the scale of a library."""
    BENCH.mkdir(exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores")
    trained, settings = random_soonet(), SearchSettings()
    longest, overlap = settings.longest_moment_seconds, settings.nms_overlap
    soonet = SoonetLocaliser(trained, longest_seconds=longest, overlap=overlap)
    training_free = TrainingFree(longest_seconds=longest, overlap=overlap)
    localisers: list[tuple[Localiser, float]] = [
        (soonet, trained.grid.fps),
        (training_free, SAMPLE_FPS),
    ]
    table = Table(title=f"candidates in {films} films of two hours, a query, warm", box=None)
    for column in ("localiser", "frames/s", "p50, ms", "p95, ms", "MB touched", "aim"):
        table.add_column(column, justify="left" if column == "localiser" else "right")
    for localiser, fps in localisers:
        videos = draw_films(films, sum(trained.grid.counts(_FILM_SECONDS)), fps)
        times, touched = ask_films(localiser, videos)
        met = percentile(times, 50) <= AIM_MS and touched <= AIM_MB
        table.add_row(
            localiser.name,
            f"{fps:g}",
            f"{percentile(times, 50):.1f}",
            f"{percentile(times, 95):.1f}",
            f"{touched:.1f}",
            f"<= {AIM_MS:.0f} ms and {AIM_MB:.0f} MB: {'met' if met else 'missed'}",
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
