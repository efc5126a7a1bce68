"""What the benchmarks work on and how they measure: generated films, a random checkpoint, meters.

Everything lies under ``bench/`` (not in git), is made once from seeds, and is used again by the next run.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from scanonce.indexer.pipeline import IndexReport, index_library
from scanonce.indexer.pipeline import Progress as IndexProgress
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings

BENCH = Path(__file__).resolve().parents[1] / "bench"
"""Where generated material is kept."""

FILM_FPS = 30
SAMPLE_FPS = 2.0

_SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "2160p": (3840, 2160)}
_LENGTHS = {"720p": (60, 5, 42, 12, 28, 8, 35, 18, 52, 7), "1080p": (20, 12)}
_SECONDS_4K = 10

_CLIP_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}

console = Console(width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar in seconds of video."""

    progress: Progress
    task: TaskID

    def advance(self, seconds: float) -> None:
        """So much more is done."""
        self.progress.advance(self.task, seconds)

    def move_to(self, seconds: float) -> None:
        """So much is done in all."""
        self.progress.update(self.task, completed=seconds)


@contextmanager
def progress_bar(label: str, total: float) -> Iterator[Bar]:
    """A bar that goes away when the block ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s of video"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, progress.add_task(label, total=total))


# ------------------------------------------------ films


@dataclass(frozen=True, slots=True)
class Film:
    """A generated video file."""

    path: Path
    seconds: float
    """Length; every film has `FILM_FPS` frames a second."""


def speed_films() -> dict[str, list[Film]]:
    """About five minutes of films by picture size, in mixed lengths; made where missing."""
    films = {
        size: [
            Film(BENCH / "films" / size / f"{number:02d}_{seconds}s.mp4", seconds)
            for number, seconds in enumerate(lengths)
        ]
        for size, lengths in _LENGTHS.items()
    }
    _make_missing(films)
    return films


def memory_films() -> list[Film]:
    """Two 4K films, of 20 s and of 60 s, that hold the same ten seconds two and six times."""
    folder = BENCH / "films"
    base = Film(folder / "2160p-base" / "base.mp4", _SECONDS_4K)
    _make_missing({"2160p": [base]})
    made = []
    for times in (2, 6):
        seconds = times * _SECONDS_4K
        path = folder / f"2160p-{seconds}s" / f"{seconds}s.mp4"
        made.append(Film(join([base] * times, path), seconds))
    return made


def many_films(base: Sequence[Film], count: int) -> list[Film]:
    """Films that each hold all of ``base`` in an order of their own: long material without encoding it anew."""
    seconds = sum(film.seconds for film in base)
    made = []
    for number in range(count):
        order = np.random.default_rng(number).permutation(len(base))
        path = BENCH / "films" / f"joined-{count}" / f"{number:03d}.mp4"
        made.append(Film(join([base[k] for k in order], path), seconds))
    return made


def join(films: Sequence[Film], path: Path) -> Path:
    """Films of one size one after another, packets copied; nothing is done where ``path`` is there."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with av.open(str(unfinished), "w", format="mp4") as out:
        stream = None
        offset = 0
        for film in films:
            with av.open(str(film.path)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                assert video.time_base is not None
                for packet in source.demux(video):
                    if packet.pts is None or packet.dts is None:  # the mark at the end
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = stream
                    out.mux(packet)
                offset += round(film.seconds / video.time_base)
    return unfinished.replace(path)


def _make_missing(films: dict[str, list[Film]]) -> None:
    missing = [(size, film) for size in films for film in films[size] if not film.path.exists()]
    if not missing:
        return
    with progress_bar("making films", sum(film.seconds for _, film in missing)) as bar:
        for size, film in missing:
            film.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = film.path.with_suffix(".part")
            for _ in _write_film(unfinished, _SIZES[size], film.seconds):
                bar.advance(1 / FILM_FPS)
            unfinished.replace(film.path)


def _write_film(path: Path, size: tuple[int, int], seconds: float) -> Iterator[None]:
    """H.264 as x264 makes it by default: preset medium, key frames at cuts and at most 250 frames apart."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=FILM_FPS)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 250
        # PyAV sets bounds of its own where none are given; these are x264's
        stream.options = {"preset": "medium", "crf": "23", "bf": "3", "b-pyramid": "normal"}
        num_frames = round(seconds * FILM_FPS)
        rng = np.random.default_rng((size[1], num_frames))  # no two films of a size have one length
        for picture in _pictures(size, num_frames, rng):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
            yield
        file.mux(stream.encode(None))


def _pictures(
    size: tuple[int, int], num_frames: int, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Frames as planes ``[height * 3 / 2, width]``: shots of 2 to 7 s, all in motion, with film grain."""
    width, height = size
    grain = (rng.standard_normal((height + 64, width + 64)) * 2).astype(np.int16)
    done = 0
    while done < num_frames:
        length = min(int(rng.integers(2 * FILM_FPS, 7 * FILM_FPS)), num_frames - done)
        for picture in _shot(size, length, rng):
            top, left = rng.integers(0, 64, 2)
            luma = picture[:height].astype(np.int16)
            luma += grain[top : top + height, left : left + width]
            picture[:height] = np.clip(luma, 0, 255)
            yield picture
        done += length


def _shot(
    size: tuple[int, int], num_frames: int, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """A textured background that pans, and four textured things that cross it."""
    width, height = size
    margin = 128
    scene = _texture((width + margin, height + margin), rng)
    things = [_texture((width // 6, height // 4), rng) for _ in range(4)]
    starts = rng.integers(0, (width * 5 // 6, height * 3 // 4), (4, 2))
    speeds = rng.uniform(-6, 6, (4, 2)) * (width / 1280)
    pan = rng.uniform(-margin / 2, margin / 2, 2)
    for number in range(num_frames):
        share = number / num_frames - 0.5
        x, y = (int(margin / 2 + pan * share) // 2 * 2 for pan in pan)
        planes = np.empty((height * 3 // 2, width), np.uint8)
        _paste(planes, size, scene, (-x, -y))
        for thing, start, speed in zip(things, starts, speeds, strict=True):
            at = (start + speed * number).astype(int) % (width * 5 // 6, height * 3 // 4)
            _paste(planes, size, thing, (int(at[0]) // 2 * 2, int(at[1]) // 2 * 2))
        yield planes


_Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def _texture(size: tuple[int, int], rng: np.random.Generator) -> _Planes:
    """Luma and both colours of a cloudy texture with detail at every scale, as pictures of nature have it."""
    return (
        _clouds(size, rng, contrast=50.0),
        _clouds((size[0] // 2, size[1] // 2), rng, contrast=25.0),
        _clouds((size[0] // 2, size[1] // 2), rng, contrast=25.0),
    )


def _clouds(
    size: tuple[int, int], rng: np.random.Generator, *, contrast: float
) -> NDArray[np.uint8]:
    total = np.full(size[::-1], 128.0 + rng.uniform(-40, 40), np.float32)
    for octave in range(2, 9):
        cells = rng.standard_normal((2**octave, 2**octave)).astype(np.float32)
        layer = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
        total += np.asarray(layer) * (contrast * 0.62 ** (octave - 2))
    return np.clip(total, 16, 235).astype(np.uint8)


def _paste(
    planes: NDArray[np.uint8], size: tuple[int, int], texture: _Planes, at: tuple[int, int]
) -> None:
    """Puts a texture with its corner at an even position, cut at the borders of the picture."""
    width, height = size
    quarter = height * width // 4
    chroma = planes[height:].reshape(-1)
    targets = (
        planes[:height],
        chroma[:quarter].reshape(height // 2, width // 2),
        chroma[quarter:].reshape(height // 2, width // 2),
    )
    for target, source, scale in zip(targets, texture, (1, 2, 2), strict=True):
        x, y = at[0] // scale, at[1] // scale
        left, top = max(0, x), max(0, y)
        right = min(target.shape[1], x + source.shape[1])
        bottom = min(target.shape[0], y + source.shape[0])
        target[top:bottom, left:right] = source[top - y : bottom - y, left - x : right - x]


# ------------------------------------------------ checkpoint


def vit_b_32() -> Path:
    """A checkpoint folder of exactly the size of openai/clip-vit-base-patch32, with random weights.

    Speed does not depend on what the weights are. Its tokenizer makes one number of each letter.
    """
    folder = BENCH / "vit-b-32"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".part")
    with console.status("making a checkpoint of the size of ViT-B/32"):
        torch.manual_seed(0)
        config = CLIPConfig()
        CLIPModel(config).save_pretrained(unfinished)
        (unfinished / "preprocessor_config.json").write_text(json.dumps(_CLIP_PROCESSOR))
        _letters_tokenizer().save_pretrained(unfinished)
    return unfinished.replace(folder)


def _letters_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {letter: 3 + n for n, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


# ------------------------------------------------ meters


@dataclass(slots=True)
class Meter:
    """Wall, processor time and peak memory of this process and all below it, while the ``with`` block runs.

    Processes that end are counted up to the last look at them, a fifth of a second before at most.
    """

    memory: bool = False
    """Also look at memory, which costs time itself: leave it off where the wall matters."""
    wall_seconds: float = 0.0
    own_cpu_seconds: float = 0.0
    children_cpu_seconds: float = 0.0
    peak_bytes: int = 0
    """Sum of the proportional set sizes: pages that processes share are counted once."""
    _seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _begin: float = 0.0

    def __enter__(self) -> Self:
        """Starts looking."""
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="meter")
        self._thread.start()
        self.own_cpu_seconds = -time.process_time()
        self._begin = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Adds up."""
        self.wall_seconds = time.perf_counter() - self._begin
        self.own_cpu_seconds += time.process_time()
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        self._look()
        self.children_cpu_seconds = sum(last - first for first, last in self._seen.values())

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._look(started=True)

    def _look(self, *, started: bool = False) -> None:
        memory = 0
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
                if self.memory:
                    memory += process.memory_full_info().pss
            except psutil.Error:  # it has just ended
                continue
            if process.pid != me.pid:
                now = times.user + times.system
                # a process that began under our eyes counts from its start
                first, _ = self._seen.get(process.pid, (0.0 if started else now, now))
                self._seen[process.pid] = (first, now)
        self.peak_bytes = max(self.peak_bytes, memory)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of the values do not exceed."""
    return float(np.percentile(values, percent))


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


# ------------------------------------------------ the pipeline


def run_index(
    roots: Sequence[Path], encoder: ClipEncoder, settings: IndexerSettings, total_seconds: float
) -> IndexReport:
    """Indexes into a fresh index that is thrown away; raises where a file did not decode."""
    BENCH.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="index-", dir=BENCH))
    try:
        with progress_bar("indexing", total_seconds) as bar:

            def observe(now: IndexProgress) -> None:
                bar.move_to(now.video_seconds)

            report = index_library(
                roots,
                layout=IndexLayout(scratch),
                encoder=encoder,
                settings=settings,
                storage=StorageSettings(),
                on_progress=observe,
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if report.problems:
        raise RuntimeError(f"generated films must index without a problem: {report.problems}")
    return report


def decode_request(encoder: ClipEncoder) -> DecodeRequest:
    """What `index_library` asks its decoders for by default."""
    settings = IndexerSettings()
    return DecodeRequest(
        Sampling(settings.sampling, settings.sample_fps),
        settings.decoder,
        encoder.preprocessing,
        settings.stall_seconds,
        ThumbnailRequest(settings.thumbnail_seconds, settings.thumbnail_width),
    )


def drop_from_cache(folder: Path) -> None:
    """Makes the next read of the files below a folder come from the disk, where the system can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
