"""Films and libraries of our own rendered world: things, colours, places, light and motion.

Films are H.264 with audio. Since we draw them, their ground truth is exact: every query names one scene of the
library, and its span is exact to the frame. `training.world.scene` has the scenes, `training.world.words` their
captions, `training.world.drawing` their images.

    python -m scanonce.training.world.films --seed 1 --films 12 demo/films
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from scanonce.training.bars import progress_bar
from scanonce.training.jobs import map_jobs
from scanonce.training.world.drawing import Painter, View
from scanonce.training.world.scene import (
    FILM_SIZE,
    FRAMES_PER_SECOND,
    HOME,
    SHIFTED,
    Rng,
    SceneSpec,
    World,
    random_scene,
    view_at,
)
from scanonce.training.world.words import scene_captions

AUDIO_RATE = 44_100
"""Audio samples per second."""
FADE_FRAMES = 12
"""Frames of a cross-fade; its middle counts as the boundary of the two scenes."""
AUDIO_FRAME = 1024
"""Samples that AAC encodes at a time."""


Joint: TypeAlias = Literal["cut", "fade"]
"""Transition between two scenes."""


@dataclass(frozen=True)
class FilmSpec:
    """A film: scenes one after another, joined by cuts and fades."""

    scenes: tuple[SceneSpec, ...]
    joints: tuple[Joint, ...]
    """Transition after each scene but the last."""
    seed: int
    """Seed of the tune."""

    @property
    def first_frames(self) -> tuple[int, ...]:
        """First frame of each scene, and after the last scene the end of the film."""
        return tuple(int(n) for n in np.cumsum([0, *(s.num_frames for s in self.scenes)]))


def random_library(
    seed: int,
    num_films: int,
    *,
    held_out: bool = False,
    pairs: Collection[tuple[str, str]] | None = None,
    world: World = HOME,
    scenes_each: tuple[int, int] = (5, 9),
) -> list[FilmSpec]:
    """Films of several scenes in which no query for one scene is answered by another.

    Args:
        seed: seed of all random numbers.
        num_films: number of films.
        held_out: only (thing, colour) pairs that training never draws; otherwise only the other pairs.
        pairs: if given, only these pairs.
        world: colours and places of the films.
        scenes_each: least and largest number of scenes of a film.

    Raises:
        ValueError: the world has not enough different scenes for this number of films.
    """
    rng = np.random.default_rng((seed, num_films, int(held_out)))
    taken: dict[tuple[str, str], list[SceneSpec]] = {}
    films = []
    for _ in range(num_films):
        scenes = tuple(
            _new_scene(rng, taken, held_out, pairs, world)
            for _ in range(rng.integers(scenes_each[0], scenes_each[1] + 1))
        )
        joints: list[Joint] = ["fade" if rng.random() < 0.4 else "cut" for _ in scenes[1:]]
        films.append(FilmSpec(scenes, tuple(joints), seed=int(rng.integers(2**31))))
    return films


def _new_scene(
    rng: Rng,
    taken: dict[tuple[str, str], list[SceneSpec]],
    held_out: bool,
    pairs: Collection[tuple[str, str]] | None,
    world: World,
) -> SceneSpec:
    for _ in range(2000):
        scene = random_scene(rng, held_out=held_out, pairs=pairs, world=world)
        alike = taken.setdefault((scene.thing, scene.colour), [])
        if not any(_can_be_confused(scene, other) for other in alike):
            alike.append(scene)
            return scene
    raise ValueError(
        f"no different scene left after {sum(map(len, taken.values()))} scenes: "
        "ask for fewer films in one library"
    )


def _can_be_confused(first: SceneSpec, second: SceneSpec) -> bool:
    """Whether a query for one scene may be true of the other, of the same thing and colour."""
    if first.happening == second.happening != "nothing":
        return True  # a caption of a happening need not name the place
    return (
        first.place == second.place
        and bool({*first.lights} & {*second.lights})
        and bool({*first.counts} & {*second.counts})
    )


# --- Images ---


def film_views(
    film: FilmSpec, numbers: Iterable[int] | None = None
) -> Iterator[tuple[View, View | None, float]]:
    """Views of every frame, or of the frames of these numbers.

    Yields:
        A view, and during a fade the view of the next scene and its share.
    """
    starts = film.first_frames
    for number in range(starts[-1]) if numbers is None else numbers:
        index = int(np.searchsorted(starts, number, side="right")) - 1
        for joint in (index - 1, index):
            share = _fade_share(film, joint, number)
            if 0 < share < 1:
                # both scenes continue for half a fade beyond their spans
                before, after = _shot(film, joint, number), _shot(film, joint + 1, number)
                yield before, after, share
                break
        else:
            yield _shot(film, index, number), None, 0.0


def _shot(film: FilmSpec, index: int, number: int) -> View:
    seconds = (number - film.first_frames[index]) / FRAMES_PER_SECOND
    return view_at(film.scenes[index], seconds)


def _fade_share(film: FilmSpec, joint: int, number: int) -> float:
    """Share of the scene after a joint in a frame; no fade unless it is between 0 and 1.

    The middle of a fade of 12 frames, the boundary of the scenes, is between its frames 5 and 6.
    """
    if not 0 <= joint < len(film.joints) or film.joints[joint] == "cut":
        return 0.0
    return (number - film.first_frames[joint + 1] + FADE_FRAMES / 2 + 0.5) / FADE_FRAMES


def film_frames(
    film: FilmSpec, numbers: Iterable[int] | None = None, *, painter: Painter | None = None
) -> Iterator[Image.Image]:
    """Draw every frame of a film in order, or the frames of these numbers, RGB.

    Args:
        film: film to draw.
        numbers: numbers of frames; None: all.
        painter: painter of another size than `FILM_SIZE`.
    """
    painter = painter or Painter(FILM_SIZE, keep_backdrops=8)
    for view, faded_in, share in film_views(film, numbers):
        image = painter.paint(view)
        if faded_in is not None:
            image = Image.blend(image, painter.paint(faded_in), share)
        yield image


def render_film(film: FilmSpec, path: Path) -> Path:
    """Write a film as MP4: H.264 at 25 frames a second, AAC mono; returns `path`.

    Takes about 4 ms of one core per frame. The file appears when it is complete.
    """
    return write_film(path, film_frames(film), compose_audio(film))


def write_film(path: Path, images: Iterable[Image.Image], samples: NDArray[np.float32]) -> Path:
    """Write images and audio as `render_film` does.

    Args:
        path: of the film.
        images: of `FILM_SIZE`, RGB, 25 a second.
        samples: as of `compose_audio`, as long as the images.
    """
    unfinished = path.with_name(f"{path.name}.part")
    with av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as file:
        video = file.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height = FILM_SIZE
        video.pix_fmt = "yuv420p"
        # one thread, so that the same film has the same bytes; films are rendered in parallel instead
        video.options = {"preset": "ultrafast", "crf": "25", "threads": "1"}
        audio = file.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        encoded = 0
        for number, image in enumerate(images):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(image))))
            until = (number + 1) * AUDIO_RATE // FRAMES_PER_SECOND
            while encoded < until:
                file.mux(audio.encode(_audio_frame(samples, encoded)))
                encoded += AUDIO_FRAME
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return unfinished.replace(path)


# --- Audio ---


def _audio_frame(samples: NDArray[np.float32], start: int) -> av.AudioFrame:
    part = np.ascontiguousarray(samples[None, start : start + AUDIO_FRAME])
    frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = AUDIO_RATE, start
    return frame


def compose_audio(film: FilmSpec) -> NDArray[np.float32]:
    """A gentle tune over the length of a film, with the rustle of rain during rain.

    Returns:
        float32 [samples] in -1 to 1, `AUDIO_RATE` per second.
    """
    rng = np.random.default_rng((film.seed, 23))
    num_samples = film.first_frames[-1] * AUDIO_RATE // FRAMES_PER_SECOND
    samples = np.zeros(num_samples + 4 * AUDIO_RATE, np.float32)
    root, step = 220.0 * 2 ** (int(rng.integers(-3, 4)) / 12), int(0.32 * AUDIO_RATE)
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])  # major pentatonic, in half tones
    note = 3
    for beat, start in enumerate(range(0, num_samples, step)):
        if beat % 8 == 0:
            bass = root / 2 * 2 ** (int(rng.choice([0, 5, 7, 9])) / 12)
            _add_note(samples, start, bass, seconds=2.8, loudness=0.10)
        if rng.random() < 0.7:
            note = int(np.clip(note + rng.integers(-2, 3), 0, len(scale) - 1))
            _add_note(samples, start, root * 2 ** (scale[note] / 12), seconds=1.4, loudness=0.12)
    samples = samples[:num_samples]
    for scene, first in zip(film.scenes, film.first_frames, strict=False):
        if "rain" in scene.lights:
            _add_rain(samples, scene, first * AUDIO_RATE // FRAMES_PER_SECOND, rng)
    return np.clip(samples, -1, 1)


def _add_note(
    samples: NDArray[np.float32], start: int, pitch: float, *, seconds: float, loudness: float
) -> None:
    at = np.arange(int(seconds * AUDIO_RATE), dtype=np.float32) / AUDIO_RATE
    swell = np.minimum(at / 0.02, 1) * np.exp(-3.2 * at / seconds) * loudness
    turns = 2 * np.pi * pitch * at
    tone = np.sin(turns) + 0.3 * np.sin(2 * turns) + 0.1 * np.sin(3 * turns)
    samples[start : start + len(at)] += (swell * tone).astype(np.float32)


def _add_rain(samples: NDArray[np.float32], scene: SceneSpec, start: int, rng: Rng) -> None:
    num_samples = min(scene.num_frames * AUDIO_RATE // FRAMES_PER_SECOND, len(samples) - start)
    times = np.linspace(0, scene.duration_seconds, 64)
    strength = [view_at(scene, float(t)).rain for t in times]
    loudness = np.interp(np.linspace(0, 1, num_samples), np.linspace(0, 1, 64), strength)
    noise = rng.standard_normal(num_samples + 1).astype(np.float32)
    rustle = (noise[1:] + noise[:-1]) * 0.012
    samples[start : start + num_samples] += (rustle * loudness).astype(np.float32)


# --- Libraries ---


@dataclass(frozen=True)
class TruthLine:
    """One query of a library and the only moment that answers it."""

    path: str
    """Path of the film, relative to the library's folder."""
    query: str
    start_seconds: float
    end_seconds: float
    """Half-open span, on a boundary of frames."""
    needs_time: bool


def ground_truth(films: list[FilmSpec], *, seed: int, variants: int = 2) -> list[TruthLine]:
    """All queries of a library; the same wording for the same seed.

    Args:
        films: films of the library.
        seed: seed of the wording.
        variants: captions of each kind that a scene has, see `scene_captions`.
    """
    lines = []
    for film_number, film in enumerate(films):
        starts = film.first_frames
        for index, scene in enumerate(film.scenes):
            rng = np.random.default_rng((seed, film_number, index, 29))
            start, end = (starts[i] / FRAMES_PER_SECOND for i in (index, index + 1))
            lines += [
                TruthLine(film_name(film_number), caption.text, start, end, caption.needs_time)
                for caption in scene_captions(scene, rng, variants=variants)
            ]
    return lines


def film_name(number: int) -> str:
    """The file name of a library's film by number."""
    return f"film_{number:03d}.mp4"


def render_library(
    out_dir: Path,
    *,
    seed: int,
    num_films: int,
    held_out: bool = False,
    shifted: bool = False,
    workers: int = 2,
) -> Path:
    """Render films and their ground truth, the same for the same arguments.

    Args:
        out_dir: folder for `film_000.mp4`, ... and `ground_truth.jsonl`; made if it is missing.
        seed: seed of all random numbers.
        num_films: films of about 45 seconds; each costs about 5 seconds of one core.
        held_out: only things in colours that training never draws them in.
        shifted: other colours and places than the bundled checkpoints know.
        workers: number of processes; with 1 everything is done in this one.

    Returns:
        Path of the ground truth, one `TruthLine` as JSON a line. `training.clip.captions` reads it as captions too.
    """
    world = SHIFTED if shifted else HOME
    films = random_library(seed, num_films, held_out=held_out, world=world)
    return render_films(films, out_dir, seed=seed, workers=workers)


def render_films(films: Sequence[FilmSpec], out_dir: Path, *, seed: int, workers: int) -> Path:
    """Render these films and their ground truth.

    Args:
        films: the films of the library.
        out_dir: folder for `film_000.mp4`, ... and `ground_truth.jsonl`; made if it is missing.
        seed: seed of the wording of the ground truth.
        workers: number of processes; with 1 everything is done in this one.

    Returns:
        Path of the ground truth.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    jobs = [(film, out_dir / film_name(number)) for number, film in enumerate(films)]
    total, done, started = sum(film.first_frames[-1] for film in films), 0, time.monotonic()
    with progress_bar("rendering frames") as report:
        for film, _ in zip(films, map_jobs(render_film, jobs, workers=workers), strict=True):
            done += film.first_frames[-1]
            report(done, total, f"{done / (time.monotonic() - started):.0f} frames/s")
    truth_path = out_dir / "ground_truth.jsonl"
    lines = (json.dumps(asdict(line)) for line in ground_truth(list(films), seed=seed))
    truth_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return truth_path


@dataclass(frozen=True, slots=True)
class Library:
    """A library to be rendered."""

    name: str
    seed: int
    num_films: int
    held_out: bool
    """Only (thing, colour) pairs that training never draws; otherwise only the other pairs."""
    shifted: bool = False
    """In the shifted world."""
    thing: str | None = None
    """Only this thing."""
    scenes_each: tuple[int, int] = (5, 9)
    """Least and largest number of scenes of a film."""

    def films(self) -> list[FilmSpec]:
        """Return the films, not rendered."""
        world = SHIFTED if self.shifted else HOME
        pairs = None
        if self.thing is not None:
            pairs = [(self.thing, colour) for colour in world.colours]
        return random_library(
            self.seed,
            self.num_films,
            held_out=self.held_out,
            pairs=pairs,
            world=world,
            scenes_each=self.scenes_each,
        )

    def digest(self) -> str:
        """Digest of the words, times, and one frame of each film, so that a change of the world changes it."""
        films = self.films()
        digest = hashlib.blake2b(digest_size=6)
        for line in ground_truth(films, seed=self.seed):
            digest.update(json.dumps(asdict(line)).encode())
        painter = Painter(FILM_SIZE, keep_backdrops=8)
        for film in films:
            for frame in film_frames(film, [film.first_frames[-1] // 2], painter=painter):
                digest.update(frame.tobytes())
        return digest.hexdigest()


def ensure_rendered(library: Library, folder: Path, *, workers: int) -> Path:
    """Return the ground truth of a library below a folder; its films are rendered unless they exist.

    The films are in ``<name>-<digest>/films``; films of an earlier world stay next to them.
    """
    films = folder / f"{library.name}-{library.digest()}" / "films"
    truth = films / "ground_truth.jsonl"  # written last
    if not truth.exists():
        render_films(library.films(), films, seed=library.seed, workers=workers)
    return truth


def main(
    out_dir: Annotated[Path, typer.Argument(help="Folder for the films and their ground truth.")],
    seed: Annotated[
        int, typer.Option(help="Seed of all random numbers; the same seed, the same films.")
    ] = 0,
    films: Annotated[int, typer.Option(min=1, help="Number of films of about 45 s.")] = 12,
    held_out: Annotated[
        bool, typer.Option(help="Only things in colours that training never draws them in.")
    ] = False,
    shifted: Annotated[
        bool, typer.Option(help="Colours and places that the bundled checkpoints do not know.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render films of our small world, with exact ground truth."""
    path = render_library(
        out_dir, seed=seed, num_films=films, held_out=held_out, shifted=shifted, workers=workers
    )
    typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
