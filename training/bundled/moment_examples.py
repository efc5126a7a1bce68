"""Examples that the bundled localiser is trained on: small libraries of rendered films, as an index stores them.

No film is written: only the frames that an index stores are drawn, in every second film compressed with loss, and
encoded by the bundled CLIP. A library is a batch, and no query about one of its scenes is answered by another scene.
Its scenes are of few (thing, colour) pairs, so that for most queries the same thing also occurs in other light, at
another place, and doing the opposite.

    paths = make_libraries(MomentPlan(), "train", Path("bench/moments"), workers=2)
    library = read_library(paths[0])        # library.films[0].frames: [L, 128]
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.hub import BUNDLED_FOLDER, BUNDLED_NAME, fingerprint_folder
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.training.bars import progress_bar
from scanonce.training.bundled.clip_examples import (
    compressed,
    example_painter,
    random_quality,
    squeeze,
)
from scanonce.training.jobs import map_jobs
from scanonce.training.localiser.batches import FilmFrames, MomentLibrary, Queries
from scanonce.training.world.films import FilmSpec, film_frames, random_library
from scanonce.training.world.scene import (
    COLOURS,
    FRAMES_PER_SECOND,
    THINGS,
    Rng,
    SceneSpec,
    flies,
    is_held_out,
)
from scanonce.training.world.words import Caption, image_caption, scene_captions, true_facts

INDEX_FPS = 2.0
"""Frames per second that an index stores."""
_FRAMES = "on screen"
"""Part of the names of files: libraries of earlier versions have other frames, the first at or after their times."""

Split: TypeAlias = Literal["train", "validation", "all"]
"""``train`` and ``validation`` have no (thing, colour) pair in common, ``all`` has both; none has held-out pairs."""

Pair: TypeAlias = tuple[str, str]
"""A thing and its colour."""


@dataclass(frozen=True)
class MomentPlan:
    """Numbers and sizes of the libraries."""

    seed: int = 0
    num_libraries: int = 150
    films_per_library: int = 10
    pairs_per_library: int = 8
    """(Thing, colour) pairs; with fewer of them more scenes are hard to distinguish."""
    validation_libraries: int = 2
    validation_films: int = 40
    """Films of a library of validation, over all its pairs at once: as many as in the library of the test."""
    wordings: int = 4
    """Captions of each kind for a training scene; validation scenes have 2, as in the ground truth."""
    draw_size: tuple[int, int] = (320, 180)
    """(width, height) of frames before they are resized."""


def pairs_of(split: Split) -> list[Pair]:
    """Return the (thing, colour) pairs of a split: 54 to train on, 27 to validate on, 81 in all."""
    seen = [(thing, colour) for thing in THINGS for colour in COLOURS]
    seen = [pair for pair in seen if not is_held_out(*pair)]
    if split == "all":
        return seen
    return [pair for pair in seen if _is_validation(*pair) is (split == "validation")]


def _is_validation(thing: str, colour: str) -> bool:
    """A quarter of all pairs, along the diagonals next to those of `is_held_out`."""
    return (THINGS.index(thing) + COLOURS.index(colour)) % 4 == 1


def plan_films(plan: MomentPlan, split: Split, number: int) -> list[FilmSpec]:
    """Return the films of a library by its number; the same for the same arguments."""
    rng = np.random.default_rng(
        (plan.seed, 41, ("train", "validation", "all").index(split), number)
    )
    seed, pairs = int(rng.integers(2**31)), pairs_of(split)
    if split == "validation":
        return random_library(seed, plan.validation_films, pairs=pairs)
    chosen: list[Pair] = []
    while sum(flies(thing) for thing, _ in chosen) < 3:  # only things that fly rise or fall
        order = rng.permutation(len(pairs))[: plan.pairs_per_library]
        chosen = [pairs[n] for n in order]
    return random_library(seed, plan.films_per_library, pairs=chosen)


def stored_frames(film: FilmSpec) -> list[int]:
    """Return the numbers of the frames an index stores: those on screen at k / `INDEX_FPS` seconds.

    At 25 frames a second: 0, 12, 25, 37, ...
    """
    step = FRAMES_PER_SECOND / INDEX_FPS
    return [math.floor(k * step) for k in range(math.ceil(film.first_frames[-1] / step))]


def encode_film(
    film: FilmSpec, encoder: ClipEncoder, draw_size: tuple[int, int]
) -> NDArray[np.float16]:
    """Return the features an index would store of a film, [L, dim]; takes about 5 ms of one core per frame."""
    rng = np.random.default_rng((film.seed, 43))
    quality = random_quality(rng) if rng.random() < 0.5 else None
    side = encoder.preprocessing.output_size[0]
    frames = film_frames(film, stored_frames(film), painter=example_painter(draw_size))
    if quality is not None:
        frames = (compressed(frame, quality) for frame in frames)
    images = np.stack([squeeze(frame, side) for frame in frames])
    starts = range(0, len(images), encoder.batch_frames)
    parts = [encoder.encode_frames(images[start:][: encoder.batch_frames]) for start in starts]
    return np.concatenate(parts).astype(np.float16)


# --- Queries ---


def may_answer(scene: SceneSpec, caption: Caption) -> bool:
    """Whether a caption is true of a scene as a whole or of any frame of it."""
    possible = {
        "thing": {scene.thing},
        "colour": {scene.colour},
        "place": {scene.place},
        "light": {*scene.lights},
        "count": {str(count) for count in scene.counts},
        "happening": {scene.happening},
    }
    return all(
        name in possible[axis] for axis, _, name in (fact.partition(":") for fact in caption.facts)
    )


def captions_of(
    scene: SceneSpec, others: list[SceneSpec], rng: Rng, *, wordings: int, partial: bool
) -> list[Caption]:
    """Queries that one scene of a library answers and no other.

    Args:
        scene: scene the captions are about.
        others: all other scenes of the library.
        rng: generator of the words.
        wordings: captions of each kind; fewer if two have the same text.
        partial: add captions that leave out place or light, if they still fit no other scene.
    """
    captions = scene_captions(scene, rng, variants=wordings)
    if partial and any(not caption.needs_time for caption in captions):
        facts = frozenset(f for f in true_facts(scene) if not f.startswith("happening:"))
        shorter = [image_caption(facts, rng) for _ in range(wordings)]
        captions += [c for c in shorter if not any(may_answer(other, c) for other in others)]
    return list({caption.text: caption for caption in captions}.values())


def _queries_of(
    films: list[FilmSpec], encoder: ClipEncoder, plan: MomentPlan, split: Split
) -> Queries:
    scenes = [scene for film in films for scene in film.scenes]
    is_validation = split == "validation"
    wordings = 2 if is_validation else plan.wordings
    texts: list[str] = []
    happenings: list[str] = []
    answers: list[tuple[int, int, float, float]] = []
    number = 0
    for film_number, film in enumerate(films):
        for scene, span in zip(film.scenes, pairwise(film.first_frames), strict=True):
            rng = np.random.default_rng((film.seed, number, 47))
            others = [other for other in scenes if other is not scene]
            captions = captions_of(scene, others, rng, wordings=wordings, partial=not is_validation)
            for caption in captions:
                texts.append(caption.text)
                happenings.append(scene.happening if caption.needs_time else "")
                start, end = (frame / FRAMES_PER_SECOND for frame in span)
                answers.append((film_number, number, start, end))
            number += 1
    features = encoder.encode_text_features(texts)
    table = np.array(answers, np.float64)
    return Queries(
        texts=texts,
        films=table[:, :1].astype(np.int64),
        scenes=table[:, 1].astype(np.int64),
        spans=table[:, None, 2:],
        kinds=happenings,
        joint=features.joint,
        states=features.states,
    )


# --- Libraries on disk ---


def make_libraries(plan: MomentPlan, split: Split, folder: Path, *, workers: int) -> list[Path]:
    """Draw and encode the libraries of a split; those that exist are not made again.

    Args:
        plan: plan of the libraries.
        split: split of the (thing, colour) pairs.
        folder: folder that is kept between runs; the names of its files depend on plan and encoder.
        workers: number of processes; the result does not depend on it.

    Returns:
        The files in order, for `read_library`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_libraries = plan.validation_libraries if split == "validation" else plan.num_libraries
    paths = [folder / _file_name(plan, split, number) for number in range(num_libraries)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    jobs = [(plan, split, folder, number) for number in missing]
    started, frames = time.monotonic(), 0
    with progress_bar(f"encoding {split} libraries", is_hidden=not missing) as report:
        for done, num_frames in enumerate(map_jobs(_make_library, jobs, workers=workers), start=1):
            frames += num_frames
            rate = frames / (time.monotonic() - started)
            report(done, len(jobs), f"{rate:.0f} frames/s")
    return paths


def _make_library(plan: MomentPlan, split: Split, folder: Path, number: int) -> int:
    """Write one library atomically, and return its number of frames."""
    encoder = _encoder()
    films = plan_films(plan, split, number)
    frames = [encode_film(film, encoder, plan.draw_size) for film in films]
    queries = _queries_of(films, encoder, plan, split)
    path = folder / _file_name(plan, split, number)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            frames=np.concatenate(frames),
            num_frames=np.array([len(rows) for rows in frames]),
            durations=np.array([film.first_frames[-1] / FRAMES_PER_SECOND for film in films]),
            texts=np.array(queries.texts),
            happenings=np.array(queries.kinds),
            films=queries.films[:, 0],  # each query has one answer
            scenes=queries.scenes,
            spans=queries.spans[:, 0],
            joint=queries.joint,
            states=queries.states,
        )
    unfinished.replace(path)
    return sum(map(len, frames))


@lru_cache(maxsize=1)
def _encoder() -> ClipEncoder:
    return load_encoder(BUNDLED_NAME)


def _file_name(plan: MomentPlan, split: Split, number: int) -> str:
    """File name with a digest of plan, frames and encoder.

    The number of libraries is left out, so that more can be added.
    """
    decides = replace(plan, num_libraries=0, validation_libraries=0)
    digest = hashlib.sha256(f"{decides} {_FRAMES} {_fingerprint()}".encode()).hexdigest()[:12]
    return f"{split}-{digest}-{number:04d}.npz"


@lru_cache(maxsize=1)
def _fingerprint() -> str:
    return fingerprint_folder(BUNDLED_FOLDER)


def read_library(path: Path) -> MomentLibrary:
    """Read a library that `make_libraries` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        ends = np.cumsum(stored["num_frames"])
        films = [
            FilmFrames(frames, float(duration))
            for frames, duration in zip(
                np.split(stored["frames"], ends[:-1]), stored["durations"], strict=True
            )
        ]
        queries = Queries(
            texts=stored["texts"].tolist(),
            films=stored["films"][:, None],
            scenes=stored["scenes"],
            spans=stored["spans"][:, None],
            kinds=stored["happenings"].tolist(),
            joint=stored["joint"],
            states=stored["states"],
        )
    return MomentLibrary(films, queries)
