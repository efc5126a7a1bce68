"""Whether indexing slows down as a library grows.

    python -m benchmarks.growth

First: one more video, through the whole pipeline, in libraries of 1,000, 100,000 and a million clips, in turn. The
encoder is a random projection that takes almost no time, so any cost that grows with the library shows. Second: a
library of 24 hours from its first video to its last. Its features are drawn instead of decoded and encoded, and arrive
at 500 times real time, about five times as fast as two cores decode and encode. Everything else is the real pipeline,
and every video is published separately, which is the most expensive way. CPU time is printed next to the rate.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import av
import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.drawn import Drawn, SeededEncoder, open_engine, write_drawn_index
from benchmarks.material import BENCH, SAMPLE_FPS, Meter, console, median, processor
from scanonce.indexer.encode import EncodedVideo
from scanonce.indexer.models import make_manifest
from scanonce.indexer.pipeline import _Run, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.runtime import num_cores
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FrameFeatures
from scanonce.storage.stores.thumbnails import Thumbnails

AIM_GROWTH, AIM_RATE = 1.3, 0.95

_SECONDS = 120.0  # length of each video of a drawn library
_FILM_SECONDS = 20
_WINDOWS = 12  # parts in which the day is reported


class ProjectingEncoder(SeededEncoder):
    """Embeds an image by a random projection of 64 of its pixels."""

    def __init__(self) -> None:
        """Draw the projection."""
        super().__init__()
        self._projection = np.random.default_rng(3).standard_normal((64, self.dim), np.float32)

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Project ``[N, 224, 224, 3]`` to ``[N, dim]``."""
        pixels = frames[:, 14::28, 14::28, 0].reshape(len(frames), -1)
        projected = (pixels.astype(np.float32) - 127.5) @ self._projection
        return np.asarray(projected, np.float32)


# ------------------------------------------------ one more video


@dataclass(frozen=True, slots=True)
class Additions:
    """Times of adding one video to a library."""

    clips: int
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """CPU time of this process and its decoder."""
    query_ms: list[float] = field(default_factory=list)
    """Time of the next query of an open engine, which reads the changes first."""


def drawn_library(clips: int) -> IndexLayout:
    """Return a library of at least this number of clips; make it if missing."""
    encoder, rng = SeededEncoder(), np.random.default_rng(clips)
    per_video = len(make_manifest(encoder, IndexerSettings()).grid.spans(_SECONDS))
    count = -(-clips // per_video)
    info = VideoInfo(_SECONDS, 1280, 720, 30.0, "h264")

    def draw() -> Iterator[Drawn]:
        for number in range(count):
            frames = encoder.frames(round(_SECONDS * SAMPLE_FPS), rng)
            yield Drawn(Path(f"/drawn/{number:06d}.mp4"), frames, number + 1, info)

    return write_drawn_index(BENCH / "growth" / str(clips), draw(), count, encoder)


def working_copy(layout: IndexLayout, folder: Path) -> IndexLayout:
    """Copy an index for writing: immutable files are linked, the catalogue is copied."""
    shutil.copytree(layout.root, folder, copy_function=os.link)
    for path in folder.glob("catalog.sqlite*"):
        path.unlink()
        shutil.copyfile(layout.root / path.name, path)
    return IndexLayout(folder)


def films(folder: Path, count: int) -> list[Path]:
    """Write short films of moving noise, all different."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        with av.open(str(path), "w") as output:
            stream: Any = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
            for _ in range(_FILM_SECONDS):
                picture = np.kron(
                    rng.integers(0, 256, (9, 16, 3), np.uint8), np.ones((20, 20, 1), np.uint8)
                )
                for _ in range(10):
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
    return paths


def measure_additions(sizes: Sequence[int], count: int, scratch: Path) -> list[Additions]:
    """Add ``count`` films, one by one, to a library of each size in turn."""
    encoder = ProjectingEncoder()
    settings = IndexerSettings(decode_workers=1)
    new = films(scratch / "films", count + 1)
    layouts = [working_copy(drawn_library(size), scratch / str(size)) for size in sizes]
    engines = [open_engine(layout, encoder) for layout in layouts]
    results = [Additions(size) for size in sizes]
    for layout in layouts:
        with Catalog.open(layout.catalog) as catalog:
            catalog.add_library(scratch / "films")
    for number, film in enumerate(new):
        for layout, engine, result in zip(layouts, engines, results, strict=True):
            with Meter() as meter:
                index_library(
                    [film],
                    layout=layout,
                    encoder=encoder,
                    settings=settings,
                    storage=StorageSettings(),
                )
            begin = time.perf_counter()
            engine.search(f"film {number}")
            query_ms = (time.perf_counter() - begin) * 1e3
            if number:  # the first one warms up
                result.wall_ms.append(meter.wall_seconds * 1e3)
                result.cpu_ms.append(1e3 * (meter.own_cpu_seconds + meter.children_cpu_seconds))
                result.query_ms.append(query_ms)
    for engine in engines:
        engine.close()
    return results


def additions_table(results: Sequence[Additions]) -> Table:
    """Print medians, and their ratio to those of the smallest library."""
    table = Table(title="one more 20 s video, medians", box=None)
    columns = ("clips", "wall ms", "times", "CPU ms", "times", "next query, wall ms")
    for column in columns:
        table.add_column(column, justify="right")
    first = results[0]
    for each in results:
        table.add_row(
            f"{each.clips:,}",
            f"{median(each.wall_ms):.0f}",
            f"{median(each.wall_ms) / median(first.wall_ms):.2f}",
            f"{median(each.cpu_ms):.0f}",
            f"{median(each.cpu_ms) / median(first.cpu_ms):.2f}",
            f"{median(each.query_ms):.0f}",
        )
    return table


# ------------------------------------------------ a day of video


class _NoDecoders:
    """Replaces the decoding processes."""

    def __init__(self) -> None:
        self.num_files = 0

    def __enter__(self) -> "_NoDecoders":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Sequence[Path]) -> Iterator[Any]:
        self.num_files = len(paths)
        return iter(())


def measure_day(hours: float, pace: float, scratch: Path) -> tuple[list[float], list[float]]:
    """Return wall and CPU seconds at the end of each video of a library that is drawn while it is indexed.

    Args:
        hours: length of the library.
        pace: greatest speed at which videos arrive, as a multiple of real time.
        scratch: an existing folder to work in.
    """
    encoder, rng = SeededEncoder(), np.random.default_rng(24)
    folder = scratch / "day"
    folder.mkdir()
    count = round(hours * 3600 / _SECONDS)
    for number in range(count):
        (folder / f"{number:05d}.mp4").write_bytes(rng.bytes(2000))
    info = VideoInfo(_SECONDS, 1280, 720, 30.0, "h264")
    pts = np.arange(round(_SECONDS * SAMPLE_FPS)) / SAMPLE_FPS
    drawn = [encoder.frames(len(pts), rng) for _ in range(count)]
    nothing = Thumbnails(np.empty(0), ())
    pool = _NoDecoders()
    wall: list[float] = []
    cpu: list[float] = []

    def encoded(*_: object, **__: object) -> Iterator[EncodedVideo]:
        begin = time.perf_counter()
        for job in range(pool.num_files):
            time.sleep(max(0.0, begin + job * _SECONDS / pace - time.perf_counter()))
            wall.append(time.perf_counter())
            cpu.append(time.process_time())
            features = FrameFeatures(drawn[job], pts, SAMPLE_FPS)
            yield EncodedVideo(job, info, features, nothing, _SECONDS, None)

    decoders: Callable[[object], _NoDecoders] = lambda _: pool  # noqa: E731
    with (
        patch("scanonce.indexer.pipeline.encode_videos", encoded),
        patch.object(_Run, "decoders", decoders),
        console.status(f"indexing {hours:g} h"),
    ):
        index_library(
            [folder],
            layout=IndexLayout(scratch / "day-index"),
            encoder=encoder,
            settings=IndexerSettings(publish_seconds=1e-9),
            storage=StorageSettings(),
        )
    wall.append(time.perf_counter())
    cpu.append(time.process_time())
    return wall, cpu


def parts(seconds: Sequence[float]) -> list[float]:
    """Return the seconds for an hour of video, in each part of the day."""
    edges = np.linspace(0, len(seconds) - 1, _WINDOWS + 1).round().astype(int)
    took = np.diff(np.asarray(seconds)[edges])
    return [float(each) for each in took / (np.diff(edges) * _SECONDS / 3600)]


def day_table(hours: float, wall: Sequence[float], cpu: Sequence[float]) -> Table:
    """Print the rates over the day."""
    table = Table(title=f"{hours:g} h of video, drawn, stored and published", box=None)
    for column in ("hours", "times real time", "of the first", "CPU s for an hour of video"):
        table.add_column(column, justify="right")
    by_wall, by_cpu = parts(wall), parts(cpu)
    for number in range(_WINDOWS):
        begin, end = number * hours / _WINDOWS, (number + 1) * hours / _WINDOWS
        table.add_row(
            f"{begin:g}-{end:g}",
            f"{3600 / by_wall[number]:.0f}",
            f"{by_wall[0] / by_wall[number]:.2f}",
            f"{by_cpu[number]:.2f}",
        )
    return table


# ------------------------------------------------ printing


def verdict(label: str, value: float, aim: float, *, is_met: bool) -> str:
    """Print one line."""
    return f"{label}: {value:.2f}; aim {aim}: {'met' if is_met else 'missed'}"


def main(
    clips: Annotated[
        list[int] | None, typer.Option(help="Clips of each library; may be repeated.")
    ] = None,
    films: Annotated[int, typer.Option(min=3, help="Videos added to each.")] = 15,
    hours: Annotated[float, typer.Option(min=1, help="Length of the library that grows.")] = 24.0,
    pace: Annotated[
        float,
        typer.Option(
            min=1, help="Greatest speed at which its videos arrive, as a multiple of real time."
        ),
    ] = 500.0,
) -> None:
    """Print the cost of one more video, and the rate over a day of video."""
    (BENCH / "growth").mkdir(parents=True, exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores")
    with tempfile.TemporaryDirectory(dir=BENCH) as folder:
        results = measure_additions(clips or [1_000, 100_000, 1_000_000], films, Path(folder))
        console.print(additions_table(results))
        for what in ("wall_ms", "cpu_ms"):
            medians = [median(getattr(each, what)) for each in results]
            worst = max(medians) / min(medians)
            console.print(
                verdict(
                    f"largest over smallest, {what}", worst, AIM_GROWTH, is_met=worst <= AIM_GROWTH
                )
            )
        wall, cpu = measure_day(hours, pace, Path(folder))
    console.print(day_table(hours, wall, cpu))
    last = parts(wall)[0] / parts(wall)[-1]
    console.print(verdict("rate, last over first", last, AIM_RATE, is_met=last >= AIM_RATE))


if __name__ == "__main__":
    typer.run(main)
