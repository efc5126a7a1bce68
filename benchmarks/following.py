"""Cost of a commit of one process for the next query of another, by the size of the library.

    python -m benchmarks.following                   10,000 and 100,000 videos
    python -m benchmarks.following --videos 1000000

Videos are rows of a catalogue with one drawn clip each; only those added during the measurement have frames. Time is
that of `SearchEngine` reading the changes, without the query that follows.
"""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.drawn import SeededEncoder, open_engine
from benchmarks.material import BENCH, console, percentile, processor
from scanonce.indexer.models import make_manifest
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.runtime import num_cores
from scanonce.models.vectors import unit
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import create_or_check
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.vectors.publish import publish

_TIMES = 15
_SECONDS = 8.0
_INFO = VideoInfo(_SECONDS, 640, 360, 25.0, "h264")


def fill(layout: IndexLayout, encoder: SeededEncoder, num_videos: int) -> None:
    """Make a catalogue with a number of videos, and their clips."""
    create_or_check(layout, make_manifest(encoder, IndexerSettings()))
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(Path("/drawn"))
        # not through the catalogue, whose commits would wait for the disk for an hour
        with closing(sqlite3.connect(layout.catalog)) as connection:
            numbers = range(1, num_videos + 1)
            connection.executemany(
                "INSERT INTO videos (uid, fast_hash, state, duration_seconds, num_frames, width, height, fps, codec, "
                "size_bytes, indexed_at) "
                "VALUES (?, ?, 'indexed', ?, 16, 640, 360, 25, 'h264', ?, '2026-01-01 00:00:00')",
                ((f"{number:032x}", f"{number:032x}", _SECONDS, number) for number in numbers),
            )
            connection.executemany(
                "INSERT INTO files (library_id, path, size_bytes, mtime_ns, video_id) VALUES (1, ?, ?, ?, ?)",
                (
                    (f"/drawn/{number % 100:02d}/{number:07d}.mp4", number, number, number)
                    for number in numbers
                ),
            )
            connection.commit()
        rng = np.random.default_rng(1)

        def load(video_id: int) -> NDArray[np.float32]:
            noise = unit(rng.standard_normal((1, encoder.dim), np.float32))
            return unit(encoder.topics[video_id % len(encoder.topics)] + 0.7 * noise)

        live = catalog.live_video_ids()
        publish(layout.vectors, live, load, dim=encoder.dim, settings=StorageSettings())


def changes(
    layout: IndexLayout, catalog: Catalog, encoder: SeededEncoder
) -> dict[str, Callable[[int], object]]:
    """Return commits by the things they change; each takes the number of its turn."""
    store, rng = FeatureStore(layout.features), np.random.default_rng(2)

    def add(turn: int) -> None:
        uid = f"added {turn}"
        store.write(uid, FrameFeatures(encoder.frames(16, rng), np.arange(16) / 2, 2.0))
        catalog.record_indexed(
            Content(uid, uid, 1),
            [FileStamp(Path(f"/drawn/added/{turn}.mp4"), 1, 1)],
            state="indexed",
            duration_seconds=_SECONDS,
            num_frames=16,
            info=_INFO,
        )

    return {
        "a label": lambda turn: catalog.labels.add([turn + 1], ["seen"]),
        "a file's name": lambda turn: catalog.attach_file(
            turn + 1, FileStamp(Path(f"/drawn/moved/{turn}.mp4"), 1, 1)
        ),
        "a video more": add,
        "a video less": lambda turn: catalog.forget_files([Path(f"/drawn/added/{turn}.mp4")]),
    }


def main(
    videos: Annotated[
        list[int] | None, typer.Option(help="Videos of a library; may be repeated.")
    ] = None,
) -> None:
    """Print the cost of following changes."""
    BENCH.mkdir(exist_ok=True)
    console.print(f"{processor()}, {num_cores()} cores")
    table = Table(title="reading a commit of another process, CPU ms: p50 / max", box=None)
    encoder = SeededEncoder()
    for column in ("videos", "opening", "a label", "a file's name", "a video more", "a video less"):
        table.add_column(column, justify="right")
    for num_videos in videos or [10_000, 100_000]:
        folder = Path(tempfile.mkdtemp(dir=BENCH))
        try:
            layout = IndexLayout(folder / "index")
            with console.status(f"writing {num_videos:,} videos"):
                fill(layout, encoder, num_videos)
            table.add_row(f"{num_videos:,}", *measure(layout, encoder))
        finally:
            shutil.rmtree(folder)
    console.print(table)


def measure(layout: IndexLayout, encoder: SeededEncoder) -> list[str]:
    """Return the figures of one library: of opening it, then of each change."""
    begin = time.thread_time()
    engine = open_engine(layout, encoder)
    figures = [f"{1e3 * (time.thread_time() - begin):.0f}"]
    with engine, Catalog.open(layout.catalog) as catalog:
        for change in changes(layout, catalog, encoder).values():
            times = []
            for turn in range(_TIMES):
                change(turn)
                begin = time.thread_time()
                with engine.reading():
                    pass
                times.append(1e3 * (time.thread_time() - begin))
            figures.append(f"{percentile(times, 50):.1f} / {max(times):.1f}")
    return figures


if __name__ == "__main__":
    typer.run(main)
