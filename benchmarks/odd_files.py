"""A zoo of odd video files, each tried on its own: what comes of it, and what should.

    python -m benchmarks.odd_files
    python -m benchmarks.odd_files --only HDR --only crop

The files are made in a temporary folder, small and in seconds. A wrong value is printed as such, and an error in its
place; the exit code is 1 if there is one.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from av.stream import Disposition
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

import scanonce
from benchmarks.material import console
from scanonce.indexer.hashing import BLOCK_BYTES, NUM_BLOCKS
from scanonce.media.cut import frame_jpeg, probe, write_clip
from scanonce.media.open import open_video
from scanonce.media.sampling import Sampling
from scanonce.models.settings import ModelSettings
from scanonce.storage.records import Span
from scanonce.training.world.scene import draw_image, random_scene
from scanonce.training.world.words import scene_captions
from scanonce.ui.export import Pick, to_edl
from tests.odd_videos import (
    as_hdr,
    combs,
    crop_matroska,
    crop_mov,
    image_in,
    stripes,
    weave,
    write_hdr,
    write_interlaced,
    write_numbers,
    write_with_still,
)
from tests.videos import draw_number, read_number, write_images, write_video

_ODD_NAME = "esc\x1b[31mred\x1b[2J.mp4"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of file."""

    what: str
    right: str
    get: Callable[[Path], str]
    """Makes the file in an empty folder and returns what comes of it; may raise anything."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A row and what came of it."""

    row: Row
    got: str

    @property
    def is_right(self) -> bool:
        """Whether it is what should come of it."""
        return self.got == self.row.right


def attempt(row: Row) -> Tried:
    """Try one row in a folder of its own; an error is what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="odd-"))
    try:
        return Tried(row, row.get(folder))
    except Exception as error:  # a row that fails must not hide the others
        return Tried(row, f"{type(error).__name__}: {error}".splitlines()[0])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- times


def _end(path: Path) -> str:
    with open_video(path, sampling=Sampling("uniform", 2.0)) as source:
        for _ in source.frames():
            pass
        return f"{source.end_seconds:.1f} s"


def _joined(*starts: float, ending: str = "ts") -> Callable[[Path], str]:
    """Length of a stream of parts of 6 s whose clocks start so."""

    def get(folder: Path) -> str:
        parts = [
            write_numbers(folder / f"{index}.part.{ending}", range(60), clock_seconds=start)
            for index, start in enumerate(starts)
        ]
        path = folder / f"joined.{ending}"
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
        return _end(path)

    return get


def _late(folder: Path) -> str:
    pts = range(40, 70)
    video = write_video(folder / "v.mkv", pts=pts, time_base=Fraction(1, 10), fps=10)
    return f"{probe(video.path).offset_seconds:.1f} s"


def _held_out_of_order(folder: Path) -> str:
    """Length of a transport stream with B-frames in which a picture is held for 30 s."""
    stamps = [*range(20), *range(320, 340)]
    options = {"bf": "3"}
    return _end(write_video(folder / "v.ts", pts=stamps, fps=10, options=options).path)


def _late_matroska(folder: Path) -> str:
    """Stated length and problem of 3 s of Matroska whose clock begins at an hour."""
    path = write_numbers(folder / "v.mkv", range(30), clock_seconds=3600.0)
    with open_video(path, sampling=Sampling("uniform", 2.0)) as source:
        for _ in source.frames():
            pass
        return f"{source.info.duration_seconds:.1f} s, {source.problem or 'whole'}"


def _last(folder: Path) -> str:
    """The last number of an AVI file with frames out of order."""
    path = write_numbers(folder / "v.avi", range(100), options={"bf": "3"})
    return str(read_number(image_in(frame_jpeg(path, 9.95))))


def _held(folder: Path) -> str:
    """The span that is found for the second of three pictures of 20 s."""
    rng = np.random.default_rng(5)
    drawn = iter(lambda: random_scene(rng), None)
    scenes = list(itertools.islice((each for each in drawn if scene_captions(each, rng)), 3))
    (folder / "lib").mkdir()
    with av.open(str(folder / "lib/held.mp4"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=Fraction(1, 20))
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.codec_context.time_base, stream.codec_context.max_b_frames = Fraction(1, 20), 0
        for number, scene in enumerate(scenes):
            frame = av.VideoFrame.from_ndarray(draw_image(scene, seconds=1.0), format="rgb24")
            frame.pts, frame.time_base = 400 * number, Fraction(1, 20)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with _library(folder) as library:
        library.index([folder / "lib"])
        moments = library.search(scene_captions(scenes[1], rng)[0].text).moments
    if not moments:
        return "nothing"
    span = moments[0].span
    is_near = abs(span.start_seconds - 20) <= 1 and abs(span.end_seconds - 40) <= 1
    return "20-40 s" if is_near else f"{span.start_seconds:.1f}-{span.end_seconds:.1f} s"


def _deep(name: str, codec: str) -> Callable[[Path], str]:
    """The number that is shown 149 s after the beginning."""

    def get(folder: Path) -> str:
        path = write_numbers(folder / name, range(1500), codec=codec)
        return str(read_number(image_in(frame_jpeg(path, 149.05))))

    return get


def _timecode(fps: float) -> Callable[[Path], str]:
    """The timecode that an edit list gives to the end of the first hour."""

    def get(folder: Path) -> str:
        span = Span(3600.0, 3610.0)
        pick = Pick(folder / "v.mp4", fps, 7200.0, 640, 360, span, "words", 0.5)
        return str(re.findall(r"\d\d:\d\d:\d\d[:;]\d\d", to_edl([pick]))[0])

    return get


# ---------------------------------------------------------------- pictures


def _first(path: Path) -> NDArray[np.uint8]:
    with open_video(path, sampling=Sampling("uniform", 2.0)) as source:
        return next(iter(source.frames())).image


def _hdr(transfer: Any) -> Callable[[Path], str]:
    """The colour that an orange field has on a screen."""

    def get(folder: Path) -> str:
        field = np.full((96, 128, 3), (200, 130, 70), np.uint8)
        path = write_hdr(folder / "v.mp4", [as_hdr(field, transfer)] * 3, transfer)
        found = _first(path).mean(axis=(0, 1)).round().astype(int)
        return "200 130 70" if abs(found - field[0, 0]).max() <= 12 else " ".join(map(str, found))

    return get


def _cropped(name: str) -> Callable[[Path], str]:
    """Size of a video of 128 x 96 of which 32 pixels at the left are cut off."""

    def get(folder: Path) -> str:
        codec = "ffv1" if name.endswith("mkv") else "libx264"
        path = write_images(folder / name, [draw_number(1)] * 3, codec=codec)
        if name.endswith("mkv"):
            crop_matroska(path, "left", 32)
        else:
            crop_mov(path, 32, 0, 0, 0)
        height, width = _first(path).shape[:2]
        return f"{width} x {height}"

    return get


def _still(folder: Path) -> str:
    """The numbers of a video with a larger track of one image."""
    path = write_with_still(folder / "v.mp4", 20, Disposition.default)
    with open_video(path, sampling=Sampling("uniform", 10.0)) as source:
        return " ".join(str(read_number(frame.image)) for frame in source.frames())


def _interlaced(folder: Path) -> str:
    woven = [weave(stripes(8 * k), stripes(8 * k + 4)) for k in range(12)]
    path = write_interlaced(folder / "v.mpg", woven)
    write_clip(path, Span(0.0, 0.4), folder / "clip.mp4")
    worst = max(combs(_first(path)), combs(_first(folder / "clip.mp4")))
    return "no combs" if worst < 4 else f"combs of {worst:.0f}"


# ---------------------------------------------------------------- libraries


def _library(folder: Path) -> Any:
    return scanonce.open(folder / "index", models=ModelSettings(encoder="bundled"))


def _counts(folder: Path, runs: int = 1) -> str:
    with _library(folder) as library:
        for _ in range(runs):
            counts = library.index([folder / "lib"]).counts
        num_videos = library.status().totals.searchable
    return f"{num_videos} indexed, {counts.failed} failed"


def _film(folder: Path, name: str = "film.mp4") -> Path:
    path = folder / "lib" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, num_frames=30).path


def _odd_date(seconds: float) -> Callable[[Path], str]:
    """What is indexed of two films, the first of which was changed at an odd time."""

    def get(folder: Path) -> str:
        os.utime(_film(folder, "a.mp4"), (seconds, seconds))
        write_video(folder / "lib/b.mp4", num_frames=40)
        return _counts(folder)

    return get


def _source_code(folder: Path) -> str:
    _film(folder)
    for number in range(20):
        for ending in ("ts", "d.ts", "mts"):
            (folder / f"lib/m{number}.{ending}").write_text(
                f"export const {ending[0]} = {number};\n" * 3
            )
    return _counts(folder)


def _helper_folders(folder: Path) -> str:
    _film(folder)
    for number, helper in enumerate(("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")):
        path = folder / "lib" / helper / "v.mp4"
        path.parent.mkdir(parents=True)
        write_video(path, num_frames=40 + number)
    return _counts(folder)


def _index_inside(folder: Path) -> str:
    film = _film(folder)
    inside = folder / "lib/index"
    with scanonce.open(inside, models=ModelSettings(encoder="bundled")) as library:
        library.index([folder / "lib"])
        write_clip(film, Span(0.0, 0.5), inside / "cache/clip.mp4")
        library.index([folder / "lib"])
        return f"{library.status().totals.searchable} indexed"


def _filled_in_place(folder: Path) -> str:
    """Number of partial films after indexing one that is incomplete, and again after it was filled in.

    What is missing lies between the blocks that are read to recognise a file.
    """
    path = _film(folder)
    noise = np.random.default_rng(0).integers(0, 256, (40, 360, 640, 3)).astype(np.uint8)
    write_images(path, noise, options={"preset": "ultrafast"})
    whole = path.read_bytes()
    missing = bytearray(whole)
    starts = [k * (len(whole) - BLOCK_BYTES) // (NUM_BLOCKS - 1) for k in range(NUM_BLOCKS)]
    for start, following in list(itertools.pairwise(starts))[4:10]:
        missing[start + BLOCK_BYTES : following] = bytes(following - start - BLOCK_BYTES)
    path.write_bytes(missing)
    with _library(folder) as library:
        library.index([folder / "lib"])
        before = library.status().totals.partial
        path.write_bytes(whole)
        library.index([folder / "lib"])
        return f"{before}, then {library.status().totals.partial}"


def _control_characters(folder: Path) -> str:
    _film(folder, _ODD_NAME)
    (folder / f"lib/broken{_ODD_NAME}").write_bytes(bytes(range(256)) * 8)
    with _library(folder) as library:
        library.index([folder / "lib"])
    (folder / "config.toml").touch()
    environment = {**os.environ, "SCANONCE_CONFIG": str(folder / "config.toml")}
    printed = ""
    for arguments in (["status"], ["search", "a bird"]):
        code = "from scanonce.ui.cli import main; main()"
        command = [sys.executable, "-c", code, *arguments, "--index", str(folder / "index")]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        printed += ran.stdout + ran.stderr
    if "broken" not in printed:
        return f"no name in: {printed[-80:]!r}"
    return "printed raw" if "\x1b[2J" in printed else "not printed raw"


ROWS: Sequence[Row] = (
    Row("held pictures: the second of three", "20-40 s", _held),
    Row("MPEG-TS, clock jumps 5 h forward", "12.0 s", _joined(0.0, 18_000.0)),
    Row("MPEG-TS, clock jumps back", "12.0 s", _joined(500.0, 0.0)),
    Row("MPEG-TS, 33 bits of the clock wrap", "12.0 s", _joined(95_440.0, 95_446.0)),
    Row(
        "MPEG-PS of H.264, few packets have times", "18.0 s", _joined(0.0, 0.0, 99.0, ending="mpg")
    ),
    Row("MPEG-TS, 30 s held among B-frames", "34.0 s", _held_out_of_order),
    Row("Matroska begins an hour late", "3.0 s, whole", _late_matroska),
    Row("last picture of AVI, out of order", "99", _last),
    Row("video begins 4 s late", "4.0 s", _late),
    Row("edit list at 12.5 frames/s", "01:00:00:00", _timecode(12.5)),
    Row("edit list at 29.501 frames/s", "01:00:00;00", _timecode(29.501)),
    *(
        Row(f"picture at 149 s of {name}", "1490", _deep(name, codec))
        for name, codec in (("v.ts", "libx264"), ("v.m2ts", "libx264"), ("v.vob", "mpeg2video"))
    ),
    Row("HDR, PQ", "200 130 70", _hdr("pq")),
    Row("HDR, HLG", "200 130 70", _hdr("hlg")),
    Row("crop of Matroska", "96 x 96", _cropped("v.mkv")),
    Row("crop of QuickTime (clap)", "96 x 96", _cropped("v.mov")),
    Row("beside a track of one image", " ".join(map(str, range(20))), _still),
    Row("interlaced", "no combs", _interlaced),
    Row("changed in 2300", "2 indexed, 0 failed", _odd_date(10_413_792_000)),
    Row("changed in 1601", "2 indexed, 0 failed", _odd_date(-11_644_473_600)),
    Row("TypeScript (.ts, .mts)", "1 indexed, 0 failed", _source_code),
    Row("recycle bins and helper folders", "1 indexed, 0 failed", _helper_folders),
    Row("index inside the library", "1 indexed", _index_inside),
    Row("filled in place: partial films", "1, then 0", _filled_in_place),
    Row("control characters in names", "not printed raw", _control_characters),
)


def result_table(tried: Sequence[Tried]) -> Table:
    """Return the table of all rows."""
    table = Table("what", "right value", "got", "ok", box=None)
    for each in tried:
        ok = "[green]yes[/]" if each.is_right else "[red]no[/]"
        table.add_row(escape(each.row.what), escape(each.row.right), escape(each.got), ok)
    return table


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Words of the rows to try.", show_default="all")
    ] = None,
) -> None:
    """Try the zoo and print what comes of it."""
    rows = [row for row in ROWS if not only or any(word in row.what for word in only)]
    tried = []
    for row in rows:
        with console.status(escape(row.what)):
            tried.append(attempt(row))
    console.print(result_table(tried))
    raise typer.Exit(code=0 if all(each.is_right for each in tried) else 1)


if __name__ == "__main__":
    typer.run(main)
