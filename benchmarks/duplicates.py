"""How well near-duplicates are found: films of the rendered world and eight kinds of copies of each.

    python -m benchmarks.duplicates --films 12

It renders films, copies each of them in eight ways, indexes all with the bundled encoder and compares the pairs of
`scanonce duplicates` with the truth. A mirrored copy is no duplicate. Precision counts every pair that is found;
recall counts the pairs of a film and one of its copies.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from benchmarks.material import BENCH, console, processor
from scanonce.library import Library
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.runtime import num_cores
from scanonce.models.settings import ModelSettings
from scanonce.search.duplicates import Duplicate
from scanonce.training.bars import progress_bar
from scanonce.training.world.films import Library as FilmLibrary
from scanonce.training.world.films import ensure_rendered

AIM_PRECISION, AIM_RECALL = 0.99, 0.95
_EXCERPT_SECONDS = 10.0
_TRIM_SECONDS = 3.3, 2.6
_RATE = 25

Picture = NDArray[np.uint8]


def _same(image: Picture) -> Picture:
    return image


def _scaled(image: Picture) -> Picture:
    return np.asarray(Image.fromarray(image).resize((160, 90)))


def _letterboxed(image: Picture) -> Picture:
    height = image.shape[0]
    bar = height // 6
    return np.pad(image, ((bar, bar), (0, 0), (0, 0)))


def _mirrored(image: Picture) -> Picture:
    return np.ascontiguousarray(image[:, ::-1])


def _brighter(image: Picture) -> Picture:
    brighter: Picture = np.clip(image * 1.15 + 18.0, 0, 255).astype(np.uint8)
    return brighter


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to copy a film."""

    name: str
    change: Callable[[Picture], Picture] = _same
    codec: str = "libx264"
    quality: str = "28"
    rate: int = _RATE
    """Frames per second: those of the film between are left out."""
    trim: tuple[float, float] = (0.0, 0.0)
    """Seconds that are left out at both ends."""
    only_seconds: float | None = None
    """Length of an excerpt from a random place."""
    is_duplicate: bool = True

    @property
    def folder(self) -> str:
        """Name of the folder of its files."""
        return self.name.replace(" ", "-")

    def frames(self, num_frames: int, rng: np.random.Generator) -> set[int]:
        """Return the frames of the film that the copy has."""
        first, last = (round(_RATE * seconds) for seconds in self.trim)
        last = num_frames - last
        if self.only_seconds is not None:
            length = round(_RATE * self.only_seconds)
            first = int(rng.integers(0, max(1, num_frames - length)))
            last = min(first + length, num_frames)
        kept = np.arange(first, last)
        ticks = np.arange(first, last, _RATE / self.rate).astype(int)
        return set(ticks.tolist() if self.rate != _RATE else kept.tolist())


FILM = Kind("film", quality="23")
KINDS = (
    Kind("scaled", _scaled),
    Kind("other codec", codec="mpeg4", quality="9"),
    Kind("trimmed", trim=_TRIM_SECONDS),
    Kind("letterboxed", _letterboxed),
    Kind("mirrored", _mirrored, is_duplicate=False),
    Kind("excerpt", only_seconds=_EXCERPT_SECONDS),
    Kind("other frame rate", rate=15),
    Kind("brighter", _brighter),
)


# ------------------------------------------------ copies


def copy_film(film: Path, folder: Path, seed: int, seconds: float) -> None:
    """Write the beginning of a film and its copies, those that are missing, in one pass over its frames."""
    wanted = [
        (kind, folder / kind.folder / film.name)
        for kind in (FILM, *KINDS)
        if not (folder / kind.folder / film.name).exists()
    ]
    if not wanted:
        return
    with av.open(str(film)) as source:
        num_frames = min(source.streams.video[0].frames, round(seconds * _RATE))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                _Writer(kind, path, kind.frames(num_frames, np.random.default_rng((7, seed))))
            )
            for kind, path in wanted
        ]
        for position, image in enumerate(_images(film)):
            if position >= num_frames:
                break
            for writer in writers:
                writer.add(position, image)


def _images(film: Path) -> Iterator[Picture]:
    """Yield the frames of a film in half its size, so that copies are made in half the time."""
    with av.open(str(film)) as source:
        for frame in source.decode(video=0):
            half = frame.reformat(frame.width // 2, frame.height // 2, "rgb24")
            yield half.to_ndarray().astype(np.uint8, copy=False)


class _Writer:
    """One copy while it is written."""

    def __init__(self, kind: Kind, path: Path, frames: set[int]) -> None:
        self.kind, self.path, self.frames = kind, path, frames
        self.stream: av.VideoStream | None = None

    def __enter__(self) -> _Writer:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.unfinished = self.path.with_suffix(".part")
        self.file = av.open(str(self.unfinished), "w", format="mp4")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self.stream is not None and error is None:
            self.file.mux(self.stream.encode(None))
        self.file.close()
        if error is None:
            self.unfinished.replace(self.path)

    def add(self, position: int, image: Picture) -> None:
        """Take the next frame of the film."""
        if position not in self.frames:
            return
        changed = self.kind.change(image)
        self.stream = self.stream or self._open(changed)
        self.file.mux(self.stream.encode(av.VideoFrame.from_ndarray(changed)))

    def _open(self, image: Picture) -> av.VideoStream:
        is_h264 = self.kind.codec == "libx264"
        quality = {"crf": self.kind.quality, "preset": "ultrafast"} if is_h264 else {}
        stream = self.file.add_stream(self.kind.codec, rate=self.kind.rate)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {**quality, "threads": "1"}
        if not is_h264:
            stream.bit_rate = 150_000
        return stream


# ------------------------------------------------ truth and figures


@dataclass(frozen=True, slots=True)
class Copied:
    """The origin of a file."""

    film: str
    kind: str

    @property
    def is_mirrored(self) -> bool:
        """Whether it is a mirror image."""
        return any(kind.folder == self.kind and not kind.is_duplicate for kind in KINDS)


def origin(path: Path) -> Copied:
    """Return the origin of a file by its place."""
    return Copied(path.name, path.parent.name)


def is_right(one: Copied, other: Copied) -> bool:
    """Whether two files are duplicates: of one film, and both mirrored or neither."""
    return one.film == other.film and one.is_mirrored == other.is_mirrored


def find(library: Library) -> tuple[list[Duplicate], float]:
    """Return the duplicates of a library, and the seconds it took."""
    begin = time.perf_counter()
    with progress_bar("comparing", console=console, is_transient=True) as report:
        found = list(library.duplicates(on_progress=lambda done, total: report(done, total)))
    return found, time.perf_counter() - begin


def show(found: Sequence[Duplicate], num_films: int) -> bool:
    """Print precision and recall; return whether both aims are met."""
    pairs = [(origin(each.first.path), origin(each.second.path)) for each in found]
    right = sum(is_right(*pair) for pair in pairs)
    hits = Counter(
        other.kind if one.kind == FILM.folder else one.kind
        for one, other in pairs
        if is_right(one, other) and FILM.folder in (one.kind, other.kind)
    )
    table = Table(title="found of each kind", box=None)
    table.add_column("kind")
    table.add_column("found", justify="right")
    copied = [kind for kind in KINDS if kind.is_duplicate]
    for kind in copied:
        table.add_row(kind.name, f"{hits[kind.folder]} of {num_films}")
    mirrored = sum(one.film == other.film and not is_right(one, other) for one, other in pairs)
    table.add_row("mirrored, no duplicate", f"{mirrored}")
    console.print(table)
    precision = right / len(pairs) if pairs else 0.0
    recall = sum(hits.values()) / (num_films * len(copied))
    console.print(
        f"{len(pairs)} pairs · precision {precision:.3f} (aim >= {AIM_PRECISION}) · "
        f"recall {recall:.3f} (aim >= {AIM_RECALL})"
    )
    return precision >= AIM_PRECISION and recall >= AIM_RECALL


def main(
    films: Annotated[int, typer.Option(min=1, help="Films; the aim is set for 200.")] = 4,
    seconds: Annotated[float, typer.Option(min=12, help="Only this much of each film.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 1,
) -> None:
    """Print precision and recall of near-duplicates."""
    console.print(f"{processor()}, {num_cores()} cores")
    wanted = FilmLibrary("small", seed=11, num_films=max(films, 8), held_out=True)
    folder = ensure_rendered(wanted, BENCH / "duplicates", workers=workers).parent
    rendered = sorted(folder.glob("film_*.mp4"))[:films]
    made = folder.parent / f"first-{films}-{seconds:g}s"
    with progress_bar("copying", console=console, is_transient=True) as report:
        for number, film in enumerate(rendered):
            copy_film(film, made / "videos", number, seconds)
            report(number + 1, len(rendered))
    settings = ModelSettings(encoder=BUNDLED_NAME, localiser="training-free")
    with Library(made / "index", models=settings) as library:
        library.index([made / "videos"])
        found, elapsed = find(library)
    is_met = show(found, len(rendered))
    num_videos = len(rendered) * (1 + len(KINDS))
    console.print(f"{num_videos} videos compared in {elapsed:.1f} s")
    if not is_met:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
