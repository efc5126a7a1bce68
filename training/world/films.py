"""Our own rendered world: short films of things, colours, places, light and motion.

Films are H.264 with sound, and because we drew them, their ground truth is exact: every query
names one scene of the library, its span given to the frame. Scenes are in
`training.world.scene`, their wording in `training.world.words`, their looks in
`training.world.drawing`; here they become films and libraries.

    python -m scanonce.training.world.films --seed 1 --films 12 demo/films
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import av
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from scanonce.training.world.drawing import Painter, View
from scanonce.training.world.scene import (
    COLOURS,
    FILM_SIZE,
    FRAMES_PER_SECOND,
    HAPPENINGS,
    HOME,
    LIGHTS,
    PLACES,
    SHIFTED,
    THINGS,
    Rng,
    SceneSpec,
    World,
    draw_picture,
    is_held_out,
    random_scene,
    view_at,
)
from scanonce.training.world.words import (
    FACTS,
    Caption,
    picture_caption,
    scene_captions,
    true_facts,
)

__all__ = [
    "COLOURS",
    "FACTS",
    "FILM_SIZE",
    "FRAMES_PER_SECOND",
    "HAPPENINGS",
    "HOME",
    "LIGHTS",
    "PLACES",
    "SHIFTED",
    "THINGS",
    "Caption",
    "FilmSpec",
    "SceneSpec",
    "TruthLine",
    "World",
    "draw_picture",
    "ground_truth",
    "is_held_out",
    "picture_caption",
    "random_library",
    "random_scene",
    "render_film",
    "render_library",
    "scene_captions",
    "true_facts",
    "view_at",
]

AUDIO_RATE = 44_100
"""Samples of sound per second."""
FADE_FRAMES = 12
"""Frames of a cross-fade; the middle of it counts as the boundary of the two scenes."""
AUDIO_FRAME = 1024
"""Samples AAC encodes at a time."""


Joint: TypeAlias = Literal["cut", "fade"]
"""How one scene goes over into the next."""


@dataclass(frozen=True)
class FilmSpec:
    """A film: scenes one after another, joined by cuts and fades."""

    scenes: tuple[SceneSpec, ...]
    joints: tuple[Joint, ...]
    """How each scene but the last goes over into the next."""
    seed: int
    """Of the tune."""

    @property
    def first_frames(self) -> tuple[int, ...]:
        """Where each scene begins, and after the last one where the film ends."""
        return tuple(int(n) for n in np.cumsum([0, *(s.num_frames for s in self.scenes)]))


def random_library(
    seed: int,
    num_films: int,
    *,
    held_out: bool = False,
    pairs: Collection[tuple[str, str]] | None = None,
    world: World = HOME,
) -> list[FilmSpec]:
    """Films of 5 to 9 scenes in which no query for one scene is answered by another.

    Args:
        seed: Of everything.
        num_films: How many films.
        held_out: Only of (thing, colour) pairs that training never sees, otherwise of the others.
        pairs: If given, only these of them; one at least of a thing that flies.
        world: Of which colours and places.

    Raises:
        ValueError: if the world has too few different scenes for so many films.
    """
    rng = np.random.default_rng((seed, num_films, int(held_out)))
    taken: dict[tuple[str, str], list[SceneSpec]] = {}
    films = []
    for _ in range(num_films):
        scenes = tuple(
            _new_scene(rng, taken, held_out, pairs, world) for _ in range(rng.integers(5, 10))
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
        return True  # a caption of what happens need not name the place
    return (
        first.place == second.place
        and bool({*first.lights} & {*second.lights})
        and bool({*first.counts} & {*second.counts})
    )


def film_views(
    film: FilmSpec, numbers: Iterable[int] | None = None
) -> Iterator[tuple[View, View | None, float]]:
    """What every frame, or those of some numbers, shows.

    Yields:
        A view, and in a fade the next scene's view and its share.
    """
    starts = film.first_frames
    for number in range(starts[-1]) if numbers is None else numbers:
        index = int(np.searchsorted(starts, number, side="right")) - 1
        for joint in (index - 1, index):
            share = _fade_share(film, joint, number)
            if 0 < share < 1:
                # Either scene goes on for half a fade beyond its span.
                before, after = _shot(film, joint, number), _shot(film, joint + 1, number)
                yield before, after, share
                break
        else:
            yield _shot(film, index, number), None, 0.0


def _shot(film: FilmSpec, index: int, number: int) -> View:
    seconds = (number - film.first_frames[index]) / FRAMES_PER_SECOND
    return view_at(film.scenes[index], seconds)


def _fade_share(film: FilmSpec, joint: int, number: int) -> float:
    """How much of the scene after a joint is in a frame; outside 0 to 1 there is no fade.

    A fade of 12 frames has its middle, the boundary of the scenes, between its frames 5 and 6.
    """
    if not 0 <= joint < len(film.joints) or film.joints[joint] == "cut":
        return 0.0
    return (number - film.first_frames[joint + 1] + FADE_FRAMES / 2 + 0.5) / FADE_FRAMES


def film_pictures(
    film: FilmSpec, numbers: Iterable[int] | None = None, *, painter: Painter | None = None
) -> Iterator[Image.Image]:
    """Every frame of a film in order, or those of some numbers, RGB.

    Args:
        film: What to draw.
        numbers: Of the frames; all where not given.
        painter: Of another size than `FILM_SIZE`.
    """
    painter = painter or Painter(FILM_SIZE, keep_backdrops=8)
    for view, faded_in, share in film_views(film, numbers):
        picture = painter.paint(view)
        if faded_in is not None:
            picture = Image.blend(picture, painter.paint(faded_in), share)
        yield picture


def render_film(film: FilmSpec, path: Path) -> Path:
    """Writes a film as MP4: H.264 at 25 frames a second, AAC mono.

    Takes about 4 ms of one core per frame. The file appears only when it is whole.

    Returns:
        `path`.
    """
    sound = compose_sound(film)
    unfinished = path.with_name(f"{path.name}.part")
    with av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as file:
        video = file.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height = FILM_SIZE
        video.pix_fmt = "yuv420p"
        # One thread, so that the same film gives the same bytes; films run side by side instead.
        video.options = {"preset": "ultrafast", "crf": "25", "threads": "1"}
        audio = file.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        heard = 0
        for number, picture in enumerate(film_pictures(film)):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(picture))))
            until = (number + 1) * AUDIO_RATE // FRAMES_PER_SECOND
            while heard < until:
                file.mux(audio.encode(_audio_frame(sound, heard)))
                heard += AUDIO_FRAME
        file.mux(video.encode(None))
        file.mux(audio.encode(None))
    return unfinished.replace(path)


def _audio_frame(sound: NDArray[np.float32], start: int) -> av.AudioFrame:
    samples = np.ascontiguousarray(sound[None, start : start + AUDIO_FRAME])
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = AUDIO_RATE, start
    return frame


def compose_sound(film: FilmSpec) -> NDArray[np.float32]:
    """A gentle tune over the length of a film, with the rustle of rain where it rains.

    Returns:
        float32 [samples] in -1 to 1, `AUDIO_RATE` a second.
    """
    rng = np.random.default_rng((film.seed, 23))
    num_samples = film.first_frames[-1] * AUDIO_RATE // FRAMES_PER_SECOND
    sound = np.zeros(num_samples + 4 * AUDIO_RATE, np.float32)
    root, step = 220.0 * 2 ** (int(rng.integers(-3, 4)) / 12), int(0.32 * AUDIO_RATE)
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])  # major pentatonic, in half tones
    note = 3
    for beat, start in enumerate(range(0, num_samples, step)):
        if beat % 8 == 0:
            bass = root / 2 * 2 ** (int(rng.choice([0, 5, 7, 9])) / 12)
            _add_note(sound, start, bass, seconds=2.8, loudness=0.10)
        if rng.random() < 0.7:
            note = int(np.clip(note + rng.integers(-2, 3), 0, len(scale) - 1))
            _add_note(sound, start, root * 2 ** (scale[note] / 12), seconds=1.4, loudness=0.12)
    sound = sound[:num_samples]
    for scene, first in zip(film.scenes, film.first_frames, strict=False):
        if "rain" in scene.lights:
            _add_rain(sound, scene, first * AUDIO_RATE // FRAMES_PER_SECOND, rng)
    return np.clip(sound, -1, 1)


def _add_note(
    sound: NDArray[np.float32], start: int, pitch: float, *, seconds: float, loudness: float
) -> None:
    at = np.arange(int(seconds * AUDIO_RATE), dtype=np.float32) / AUDIO_RATE
    swell = np.minimum(at / 0.02, 1) * np.exp(-3.2 * at / seconds) * loudness
    turns = 2 * np.pi * pitch * at
    tone = np.sin(turns) + 0.3 * np.sin(2 * turns) + 0.1 * np.sin(3 * turns)
    sound[start : start + len(at)] += (swell * tone).astype(np.float32)


def _add_rain(sound: NDArray[np.float32], scene: SceneSpec, start: int, rng: Rng) -> None:
    num_samples = min(scene.num_frames * AUDIO_RATE // FRAMES_PER_SECOND, len(sound) - start)
    times = np.linspace(0, scene.duration_seconds, 64)
    strength = [view_at(scene, float(t)).rain for t in times]
    loudness = np.interp(np.linspace(0, 1, num_samples), np.linspace(0, 1, 64), strength)
    noise = rng.standard_normal(num_samples + 1).astype(np.float32)
    rustle = (noise[1:] + noise[:-1]) * 0.012
    sound[start : start + num_samples] += (rustle * loudness).astype(np.float32)


@dataclass(frozen=True)
class TruthLine:
    """One query of a library and the only moment that answers it."""

    path: str
    """Of the film, relative to the library's folder."""
    query: str
    start_seconds: float
    end_seconds: float
    """Half-open span, on a boundary of frames."""
    needs_time: bool


def ground_truth(films: list[FilmSpec], *, seed: int, variants: int = 2) -> list[TruthLine]:
    """All queries of a library: the same seed puts them into the same words.

    Args:
        films: The library.
        seed: Of the words.
        variants: Of each kind of caption a scene has; `scene_captions` says which there are.
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
    """Renders films and their ground truth, the same for the same arguments.

    Args:
        out_dir: Folder for `film_000.mp4`, ... and `ground_truth.jsonl`; made where missing.
        seed: Of everything.
        num_films: Films of about 45 seconds; each costs about 5 seconds of one core.
        held_out: Only of things in colours that training never sees them in.
        shifted: In other colours and at other places than those the bundled checkpoints know.
        workers: Processes; with 1 all is done in this one.

    Returns:
        Path of the ground truth, one `TruthLine` as JSON a line: also a file of captions as
        `training.clip.captions` reads them.
    """
    world = SHIFTED if shifted else HOME
    films = random_library(seed, num_films, held_out=held_out, world=world)
    out_dir.mkdir(parents=True, exist_ok=True)
    _render_films(films, out_dir, workers)
    truth_path = out_dir / "ground_truth.jsonl"
    lines = (json.dumps(asdict(line)) for line in ground_truth(films, seed=seed))
    truth_path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return truth_path


def _render_films(films: list[FilmSpec], out_dir: Path, workers: int) -> None:
    jobs = [(film, out_dir / film_name(number)) for number, film in enumerate(films)]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} frames/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        frames = sum(film.first_frames[-1] for film in films)
        task = progress.add_task("rendering frames", total=frames, rate=0.0)

        def count(film: FilmSpec) -> None:
            progress.advance(task, film.first_frames[-1])
            progress.update(task, rate=progress.tasks[0].speed or 0.0)

        if workers <= 1:
            for film, path in jobs:
                render_film(film, path)
                count(film)
            return
        # Fresh processes: a fork would copy the caller's threads in whatever state they are.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            running = {pool.submit(render_film, film, path): film for film, path in jobs}
            for done in as_completed(running):
                done.result()
                count(running[done])


def main(
    out_dir: Annotated[Path, typer.Argument(help="Folder for the films and their ground truth.")],
    seed: Annotated[int, typer.Option(help="Of everything: the same seed, the same films.")] = 0,
    films: Annotated[int, typer.Option(min=1, help="How many films of about 45 s.")] = 12,
    held_out: Annotated[
        bool, typer.Option(help="Only things in colours that training never sees.")
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
