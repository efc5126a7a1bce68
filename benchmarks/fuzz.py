"""Guarded decoding of thousands of damaged files.

    python -m benchmarks.fuzz --files 5000

Small videos of many containers and codecs are mutated at random (`MUTATIONS`) and decoded under tight limits. Each
file must end in one of three ways: decoded, decoded in part, or failed with a reason. The command fails if an exception
escapes or a file never ends. The same seed makes the same files.
"""

import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from scanonce.media.answers import Event, Failed, Finished
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.runtime import num_cores

_STEPS = Preprocessing(None, (64, 64), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LIMITS = DecodeRequest(
    Sampling("uniform", 5.0),
    "pyav",
    _STEPS,
    stall_seconds=10.0,
    thumbnails=ThumbnailRequest(every_seconds=1.0, width=96),
    memory_mb=512,
    cpu_seconds=20,
    longest_seconds=3600.0,
)
"""Limits for sources of two seconds of 160 x 120."""
_SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", {}),
    "h264_index_first.mp4": ("libx264", {"movflags": "faststart"}),
    "h264_fragments.mp4": ("libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "hevc.mov": ("libx265", {}),
    "av1.mp4": ("libsvtav1", {}),
    "vp9.mkv": ("libvpx-vp9", {}),
    "h264.mkv": ("libx264", {}),
    "vp8.webm": ("libvpx", {}),
    "mpeg4.avi": ("mpeg4", {}),
    "mjpeg.avi": ("mjpeg", {}),
    "mpeg2.ts": ("mpeg2video", {}),
    "h264.ts": ("libx264", {}),
    "mpeg2.mpg": ("mpeg2video", {}),
    "flv1.flv": ("flv", {}),
    "wmv2.wmv": ("wmv2", {}),
    "theora.ogv": ("libtheora", {}),
    "mpeg2.mxf": ("mpeg2video", {}),
    "ffv1.nut": ("ffv1", {}),
}
_CODEC_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "12"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}
_REASONS = {
    "crashed on it": "crash",
    "exit code": "crash",
    "killed from outside": "crash",
    "gave no frame": "stall",
    "need more than": "memory",
    "processor time": "cpu",
    "made no sense": "nonsense",
    "of messages": "printing",
    "decoding raised": "exception",
}
KINDS = ("whole", "partial", "unreadable", *dict.fromkeys(_REASONS.values()))
_CHUNK_FILES = 250

Mutation = Callable[[bytearray, random.Random], None]


@dataclass(slots=True)
class Report:
    """Outcomes and costs of a run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of files of each of `KINDS`."""
    examples: dict[str, str] = field(default_factory=dict)
    """For each kind of failure, one file and its reason."""
    escaped: list[str] = field(default_factory=list)
    """Exceptions that left the pool, and files that never ended."""
    num_replaced: int = 0
    """Child processes that were replaced."""
    rss_mb: list[float] = field(default_factory=list)
    """Resident memory of this process, at the start and after each tenth of the files."""
    longest_silence_seconds: float = 0.0
    """Longest time between two events."""
    seconds: float = 0.0

    @property
    def num_files(self) -> int:
        """Number of files that ended."""
        return sum(self.outcomes.values())


# ---------------------------------------------------------------- sources


def write_sources(folder: Path) -> list[Path]:
    """Write small videos of all kinds that this build of FFmpeg can encode."""
    paths = []
    for name, (codec, options) in _SOURCES.items():
        try:
            av.codec.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        paths.append(folder / name)
        _write(paths[-1], codec, options)
    return paths


def _write(path: Path, codec: str, options: dict[str, str]) -> None:
    """Write two seconds of moving gradients."""
    rows, columns = np.mgrid[:120, :160]
    with av.open(str(path), "w", options=options) as output:
        stream: Any = output.add_stream(codec, rate=25, options=_CODEC_OPTIONS.get(codec, {}))
        stream.width, stream.height = 160, 120
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        for number in range(50):
            planes = [rows * 2 + number * 5, columns + number * 3, rows + columns - number * 4]
            image = np.stack(planes, axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


# ---------------------------------------------------------------- mutations


def _position(data: bytearray, chance: random.Random) -> int:
    """A random position, half of the time in the headers or the index."""
    size = len(data)
    where = chance.choice(["anywhere", "anywhere", "begin", "end"])
    if where == "begin":
        return chance.randrange(min(size, 1024))
    if where == "end":
        return size - 1 - chance.randrange(min(size, 3072))
    return chance.randrange(size)


def _block(data: bytearray, chance: random.Random) -> slice:
    start = _position(data, chance)
    return slice(start, start + chance.choice([1, 8, 64, 512, 4096]))


def flip_bits(data: bytearray, chance: random.Random) -> None:
    """Flip 1 to 300 single bits."""
    for _ in range(chance.choice([1, 3, 10, 50, 300])):
        data[_position(data, chance)] ^= 1 << chance.randrange(8)


def zero_block(data: bytearray, chance: random.Random) -> None:
    """Zero a block, as a disk does with lost sectors."""
    block = _block(data, chance)
    data[block] = bytes(len(data[block]))


def randomise_block(data: bytearray, chance: random.Random) -> None:
    """Replace a block by noise."""
    block = _block(data, chance)
    data[block] = chance.randbytes(len(data[block]))


def truncate(data: bytearray, chance: random.Random) -> None:
    """Drop the end, as an interrupted copy does."""
    del data[max(1, chance.randrange(len(data))) :]


def cut_out(data: bytearray, chance: random.Random) -> None:
    """Remove a block; the rest moves forward."""
    del data[_block(data, chance)]
    if not data:
        data += b"\0"


def duplicate_block(data: bytearray, chance: random.Random) -> None:
    """Repeat a block; the rest moves back."""
    block = _block(data, chance)
    data[block.start : block.start] = data[block] * chance.choice([1, 2, 50])


def swap_blocks(data: bytearray, chance: random.Random) -> None:
    """Exchange two blocks of the same length."""
    length = chance.choice([4, 64, 1024])
    if len(data) > 2 * length:
        a, b = (chance.randrange(len(data) - length) for _ in range(2))
        data[a : a + length], data[b : b + length] = (
            data[b : b + length],
            data[a : a + length],
        )


def edit_number(data: bytearray, chance: random.Random) -> None:
    """Set a field of 1, 2, 4 or 8 bytes to an extreme."""
    size = chance.choice([1, 2, 4, 4, 4, 8])
    ones = (1 << 8 * size) - 1
    value = chance.choice([0, 1, ones, ones >> 1, (ones >> 1) + 1, ones - 7, len(data) & ones])
    start = _position(data, chance)
    data[start : start + size] = value.to_bytes(size, chance.choice(["big", "little"]))


def edit_box_size(data: bytearray, chance: random.Random) -> None:
    """Change the size before a name of four letters, as MP4, QuickTime and AVI have it."""
    names = [
        start
        for start in range(4, min(len(data), 20_000) - 4)
        if data[start : start + 4].isalpha() and data[start : start + 4].isascii()
    ]
    if names:
        start = chance.choice(names)
        (size,) = struct.unpack(">I", data[start - 4 : start])
        new = chance.choice([0, 1, 7, 8, size - 1, size + 1, size * 2, 0x7FFFFFFF, 0xFFFFFFFF])
        data[start - 4 : start] = struct.pack(">I", new & 0xFFFFFFFF)


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    zero_block,
    randomise_block,
    truncate,
    cut_out,
    duplicate_block,
    swap_blocks,
    edit_number,
    edit_box_size,
)


def mutate(sources: Sequence[bytes], chance: random.Random) -> bytes:
    """Return one of the files after one to four mutations, sometimes spliced with the end of another."""
    data = bytearray(chance.choice(sources))
    if chance.random() < 0.08:
        other = chance.choice(sources)
        data[chance.randrange(len(data)) :] = other[chance.randrange(len(other)) :]
    for _ in range(chance.choice([1, 1, 2, 4])):
        chance.choice(MUTATIONS)(data, chance)
    return bytes(data)


def _write_chunks(
    sources: Sequence[Path], folder: Path, num_files: int, seed: int
) -> Iterator[list[Path]]:
    """Write damaged files, a chunk at a time; each chunk is removed before the next."""
    contents = [source.read_bytes() for source in sources]
    for begin in range(0, num_files, _CHUNK_FILES):
        paths = []
        for number in range(begin, min(num_files, begin + _CHUNK_FILES)):
            paths.append(folder / f"{number}.mp4")
            paths[-1].write_bytes(mutate(contents, random.Random(f"{seed} {number}")))
        yield paths
        for path in paths:
            path.unlink()


# ---------------------------------------------------------------- the run


def classify(event: Finished | Failed) -> str:
    """Return one of `KINDS`."""
    if isinstance(event, Finished):
        return "partial" if event.problem else "whole"
    return next(
        (kind for words, kind in _REASONS.items() if words in event.reason),
        "unreadable",
    )


def run(
    *,
    num_files: int,
    seed: int = 0,
    workers: int = 2,
    backend: str = "pyav",
    keep: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Damage and decode files.

    Args:
        num_files: number of damaged files.
        seed: seed of the damage.
        workers: number of child processes.
        backend: one of `media.open.BACKENDS`.
        keep: a folder for files that failed in any way but as unreadable; None keeps none.
        on_progress: called with a line of text now and then.
    """
    report = Report()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sources = write_sources(folder)
        report.rss_mb.append(_rss_mb())
        begin = time.monotonic()
        for paths in _write_chunks(sources, folder, num_files, seed):
            _decode(paths, replace(LIMITS, backend=backend), workers, report, keep)
            if report.num_files + len(report.escaped) >= len(report.rss_mb) * num_files / 10:
                report.rss_mb.append(_rss_mb())
                on_progress(f"{report.num_files} files, {report.rss_mb[-1]:.0f} MB")
        report.seconds = time.monotonic() - begin
    return report


def _decode(
    paths: list[Path], request: DecodeRequest, workers: int, report: Report, keep: Path | None
) -> None:
    missing = set(range(len(paths)))
    with DecodePool(request, workers=workers) as pool:
        try:
            for event in _timed(pool.decode(paths), report):
                if isinstance(event, Finished | Failed):
                    missing.remove(event.job)
                    _count(event, paths[event.job], report, keep)
        except Exception as error:  # this command exists to find them
            report.escaped.append(f"{type(error).__name__}: {error}")
        report.num_replaced += pool.num_replaced
    report.escaped += [f"no end of {paths[job].name}" for job in missing]


def _timed(events: Iterator[Event], report: Report) -> Iterator[Event]:
    heard_at = time.monotonic()
    for event in events:
        silence = time.monotonic() - heard_at
        report.longest_silence_seconds = max(report.longest_silence_seconds, silence)
        yield event
        heard_at = time.monotonic()


def _count(event: Finished | Failed, path: Path, report: Report, keep: Path | None) -> None:
    kind = classify(event)
    report.outcomes[kind] += 1
    if kind not in ("whole", "partial", "unreadable"):
        assert isinstance(event, Failed)
        report.examples.setdefault(kind, f"{path.stem}: {event.reason} | {event.detail[-300:]}")
        if keep is not None:
            (keep / f"{kind}-{path.stem}").write_bytes(path.read_bytes())


def _rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def table(report: Report) -> Table:
    """All figures of a run."""
    out = Table(title="damaged files", box=None, show_header=False)
    out.add_row("files", str(report.num_files))
    for kind in KINDS:
        out.add_row(f"  {kind}", str(report.outcomes[kind]))
    out.add_row("exceptions and files without an end", str(len(report.escaped)))
    out.add_row("children replaced", str(report.num_replaced))
    out.add_row("longest wait for an event, s", f"{report.longest_silence_seconds:.1f}")
    out.add_row("memory of the parent, MB", " ".join(f"{each:.0f}" for each in report.rss_mb))
    out.add_row("files a second", f"{report.num_files / report.seconds:.1f}")
    return out


def main(
    files: Annotated[int, typer.Option(min=1, help="Number of damaged files.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the damage.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Child processes; 0: one per core.")] = 0,
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
    keep: Annotated[
        Path | None, typer.Option(help="Folder for files that crash, hang or need too much.")
    ] = None,
) -> None:
    """Decode damaged files and print their outcomes; exit code 1 if anything escaped."""
    console = Console()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    report = run(
        num_files=files,
        seed=seed,
        workers=workers or num_cores(),
        backend=decoder,
        keep=keep,
        on_progress=console.print,
    )
    console.print(table(report))
    for kind, example in report.examples.items():
        console.print(f"{kind}: {example}", markup=False)
    for escaped in report.escaped:
        console.print(f"escaped: {escaped}", markup=False)
    raise typer.Exit(bool(report.escaped))


if __name__ == "__main__":
    typer.run(main)
