"""What a CLIP of our rendered world is trained on: pictures and scenes with captions and facts.

Frames pass the path that a film's frames take at search time: drawn at 16:9, in every second case
coded with loss, squeezed into the encoder's square. Every example is seeded by its number, so
that a pool is the same however many processes render it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scanonce.training.world.drawing import Painter
from scanonce.training.world.scene import Rng, SceneSpec, random_scene, view_at
from scanonce.training.world.words import FACTS, Caption, picture_caption, scene_caption, true_facts


@dataclass(frozen=True)
class ExamplePlan:
    """How many examples of what to render."""

    seed: int
    image_size: int
    num_pictures: int
    """Examples of one frame."""
    num_scenes: int
    """Examples of `frames_per_scene` frames."""
    frames_per_scene: int
    captions_each: int = 4
    draw_size: tuple[int, int] = (320, 180)
    """(width, height) pictures are drawn at before they are squeezed."""


@dataclass(frozen=True)
class Pool:
    """Rendered examples: a picture is an example of one frame, a scene of several."""

    frames: NDArray[np.uint8]
    """[examples, frames, image_size, image_size, 3]."""
    facts: NDArray[np.bool_]
    """[examples, FACTS]: what is true."""
    captions: list[list[str]]
    """[examples][captions_each]."""
    named: NDArray[np.bool_]
    """[examples, captions_each, FACTS]: what each caption states."""

    @classmethod
    def joined(cls, parts: list[Pool]) -> Pool:
        """One pool of several, in order."""
        return cls(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.facts for part in parts]),
            [captions for part in parts for captions in part.captions],
            np.concatenate([part.named for part in parts]),
        )


def squeeze(picture: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """A whole 16:9 frame as the square the encoder sees: nothing is cropped away.

    Returns:
        uint8 [image_size, image_size, 3], by the same antialiased bicubic resize as at search.
    """
    return np.asarray(picture.resize((image_size, image_size), Image.Resampling.BICUBIC))


def _as_if_decoded(picture: Image.Image, rng: Rng) -> Image.Image:
    """The picture after lossy coding in every second case: JPEG, as H.264's frames, halves the
    resolution of colour and rounds blocks of cosines."""
    if rng.random() < 0.5:
        return picture
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(40, 92)))
    return Image.open(buffer).convert("RGB")


def fact_row(facts: frozenset[str]) -> NDArray[np.bool_]:
    """Facts as a row of a table, bool [FACTS]."""
    return np.array([fact in facts for fact in FACTS])


def _worded(caption: Caption, rng: Rng) -> str:
    """The caption's text, at times with a word nobody knows: such words must not matter."""
    if rng.random() >= 0.15:
        return caption.text
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=rng.integers(2, 9))
    words = caption.text.split()
    words.insert(int(rng.integers(len(words) + 1)), "".join(letters))
    return " ".join(words)


def _render_example(plan: ExamplePlan, painter: Painter, rng: Rng, num_frames: int) -> Pool:
    """One example as a pool of its own: a picture for `num_frames` 1, else a scene."""
    scene = random_scene(rng)
    whole = num_frames > 1
    shares = (np.arange(num_frames) + rng.random(num_frames)) / num_frames
    times = [float(share) * scene.duration_seconds for share in shares]
    frames = [
        squeeze(_as_if_decoded(painter.paint(view_at(scene, at)), rng), plan.image_size)
        for at in times
    ]
    facts = true_facts(scene, None if whole else times[0])
    captions = [_caption(scene, facts, rng, whole) for _ in range(plan.captions_each)]
    return Pool(
        np.stack(frames)[None],
        fact_row(facts)[None],
        [[_worded(caption, rng) for caption in captions]],
        np.stack([fact_row(caption.facts) for caption in captions])[None],
    )


def _caption(scene: SceneSpec, facts: frozenset[str], rng: Rng, whole: bool) -> Caption:
    if whole and scene.happening != "nothing" and rng.random() < 0.6:
        return scene_caption(scene, rng)
    return picture_caption(facts, rng, full=bool(rng.random() < 0.4))


def _render_part(plan: ExamplePlan, num_frames: int, examples: range) -> Pool:
    painter = example_painter(plan.draw_size)
    return Pool.joined(
        [
            _render_example(
                plan, painter, np.random.default_rng((plan.seed, num_frames, n)), num_frames
            )
            for n in examples
        ]
    )


@lru_cache(maxsize=1)
def example_painter(size: tuple[int, int]) -> Painter:
    """This process's painter, which keeps every backdrop of the world (240 MB at 320 x 180)."""
    return Painter(size, keep_backdrops=800)


def render_pools(plan: ExamplePlan, *, workers: int) -> tuple[Pool, Pool]:
    """All examples of pictures and of scenes, each seeded by its number: workers do not matter.

    Costs about 3 ms of one core per frame.
    """
    step = 250
    jobs = [
        (num_frames, range(start, min(start + step, total)))
        for num_frames, total in (
            (1, plan.num_pictures),
            (plan.frames_per_scene, plan.num_scenes),
        )
        for start in range(0, total, step)
    ]
    parts: dict[int, list[Pool]] = {1: [], plan.frames_per_scene: []}
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns) as progress:
        task = progress.add_task("rendering frames", total=sum(n * len(span) for n, span in jobs))
        for (num_frames, span), part in zip(jobs, _render_jobs(plan, jobs, workers), strict=True):
            parts[num_frames].append(part)
            progress.advance(task, num_frames * len(span))
    return Pool.joined(parts[1]), Pool.joined(parts[plan.frames_per_scene])


def _render_jobs(plan: ExamplePlan, jobs: list[tuple[int, range]], workers: int) -> Iterator[Pool]:
    if workers <= 1:
        for num_frames, span in jobs:
            yield _render_part(plan, num_frames, span)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = [pool.submit(_render_part, plan, *job) for job in jobs]
        for done in running:
            yield done.result()
