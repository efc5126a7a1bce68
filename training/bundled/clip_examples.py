"""Examples that the bundled encoder is trained on: images and scenes of the rendered world, with captions and facts.

Frames are prepared as the frames of a film are at search time: drawn at 16:9, in half of the cases compressed with
loss, resized to the encoder's square. Every example has a seed of its own, so that a pool does not depend on the number
of processes that render it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scanonce.training.bars import progress_bar
from scanonce.training.jobs import map_jobs
from scanonce.training.world.drawing import Painter
from scanonce.training.world.scene import Rng, SceneSpec, random_scene, view_at
from scanonce.training.world.words import FACTS, Caption, image_caption, scene_caption, true_facts

_EXAMPLES_PER_JOB = 250


@dataclass(frozen=True)
class ExamplePlan:
    """Numbers and sizes of the examples to be rendered."""

    seed: int
    image_size: int
    num_images: int
    """Examples of one frame."""
    num_scenes: int
    """Examples of `frames_per_scene` frames."""
    frames_per_scene: int
    captions_each: int = 4
    draw_size: tuple[int, int] = (320, 180)
    """(width, height) of frames before they are resized."""


@dataclass(frozen=True)
class Pool:
    """Rendered examples, of one frame each (images) or of several (scenes)."""

    frames: NDArray[np.uint8]
    """[examples, frames, image_size, image_size, 3]."""
    facts: NDArray[np.bool_]
    """[examples, FACTS]: facts that are true."""
    captions: list[list[str]]
    """[examples][captions_each]."""
    named: NDArray[np.bool_]
    """[examples, captions_each, FACTS]: facts that each caption states."""

    @classmethod
    def joined(cls, parts: list[Pool]) -> Pool:
        """Concatenate pools, in order."""
        return cls(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.facts for part in parts]),
            [captions for part in parts for captions in part.captions],
            np.concatenate([part.named for part in parts]),
        )


def squeeze(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """Resize a whole 16:9 frame to the square of the encoder, without a crop.

    Returns:
        uint8 [image_size, image_size, 3], by the same antialiased bicubic resize as at search.
    """
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BICUBIC))


def random_quality(rng: Rng) -> int:
    """Draw a JPEG quality for `compressed`."""
    return int(rng.integers(40, 92))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG, which stands for H.264: both halve the resolution of colour and round cosines."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def fact_row(facts: frozenset[str]) -> NDArray[np.bool_]:
    """Facts as a row of a table, bool [FACTS]."""
    return np.array([fact in facts for fact in FACTS])


def _with_random_word(caption: Caption, rng: Rng) -> str:
    """The caption's text, sometimes with a random word in it: unknown words must not matter."""
    if rng.random() >= 0.15:
        return caption.text
    letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz"), size=rng.integers(2, 9))
    words = caption.text.split()
    words.insert(int(rng.integers(len(words) + 1)), "".join(letters))
    return " ".join(words)


def _render_example(plan: ExamplePlan, painter: Painter, rng: Rng, num_frames: int) -> Pool:
    """One example as a pool: an image if `num_frames` is 1, else a scene."""
    scene = random_scene(rng)
    is_scene = num_frames > 1
    shares = (np.arange(num_frames) + rng.random(num_frames)) / num_frames
    times = [float(share) * scene.duration_seconds for share in shares]
    frames = []
    for at in times:
        image = painter.paint(view_at(scene, at))
        if rng.random() >= 0.5:
            image = compressed(image, random_quality(rng))
        frames.append(squeeze(image, plan.image_size))
    facts = true_facts(scene, None if is_scene else times[0])
    captions = [_caption(scene, facts, rng, is_scene) for _ in range(plan.captions_each)]
    return Pool(
        np.stack(frames)[None],
        fact_row(facts)[None],
        [[_with_random_word(caption, rng) for caption in captions]],
        np.stack([fact_row(caption.facts) for caption in captions])[None],
    )


def _caption(scene: SceneSpec, facts: frozenset[str], rng: Rng, is_scene: bool) -> Caption:
    if is_scene and scene.happening != "nothing" and rng.random() < 0.6:
        return scene_caption(scene, rng)
    return image_caption(facts, rng, full=bool(rng.random() < 0.4))


def _render_part(plan: ExamplePlan, num_frames: int, examples: range) -> Pool:
    painter = example_painter(plan.draw_size)
    rngs = (np.random.default_rng((plan.seed, num_frames, number)) for number in examples)
    return Pool.joined([_render_example(plan, painter, rng, num_frames) for rng in rngs])


@lru_cache(maxsize=1)
def example_painter(size: tuple[int, int]) -> Painter:
    """Return this process's painter, which keeps every backdrop of the world (240 MB at 320 x 180)."""
    return Painter(size, keep_backdrops=800)


def render_pools(plan: ExamplePlan, *, workers: int) -> tuple[Pool, Pool]:
    """Render all images and all scenes; they do not depend on the number of workers.

    Costs about 3 ms of one core per frame.
    """
    step = _EXAMPLES_PER_JOB
    jobs = [
        (plan, num_frames, range(start, min(start + step, total)))
        for num_frames, total in ((1, plan.num_images), (plan.frames_per_scene, plan.num_scenes))
        for start in range(0, total, step)
    ]
    parts: dict[int, list[Pool]] = {1: [], plan.frames_per_scene: []}
    done, total_frames = 0, sum(num_frames * len(span) for _, num_frames, span in jobs)
    with progress_bar("rendering frames") as report:
        pools = map_jobs(_render_part, jobs, workers=workers)
        for (_, num_frames, span), part in zip(jobs, pools, strict=True):
            parts[num_frames].append(part)
            done += num_frames * len(span)
            report(done, total_frames)
    return Pool.joined(parts[1]), Pool.joined(parts[plan.frames_per_scene])
