"""Embeddings like those of a joint space of images and texts, drawn from a seed, any number of them.

    >>> world = World()
    >>> block = world.block(0)
    >>> block.clips.shape, block.clips.dtype, block.shots.shape
    ((12000, 512), dtype('float16'), (2000, 512))

A clip is ``x = unit(.66 m_img + .75 u)``: all images share one direction, the gap between images and texts. ``u`` is
the unit vector of its content: one of 200 super-topics, one of 20,000 topics (frequent and rare ones, Zipf .7), the
video, the shot (AR(1) from shot to shot, 6 clips each, 60 clips a video) and the clip itself; each is normal with a
power-law spectrum (variance of the k-th axis k^-.9 for super-topics to k^-.5 for clips) in a random rotation. A text
is ``q = unit(.25 m_img + .29 w + .91 (.8 m_txt + .6 isotropic))``, where ``w`` is the content of one shot and 60 % of
that of a second shot, and ``m_txt`` is orthogonal to ``m_img``: far from all images, and partly in directions that no
image has. An image as a query is a clip of a video that is not in the library.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

DIM = 512
CLIPS_PER_SHOT = 6
SHOTS_PER_VIDEO = 10
CLIPS_PER_VIDEO = CLIPS_PER_SHOT * SHOTS_PER_VIDEO
VIDEOS_PER_BLOCK = 200
HELD_OUT = 1_000_000
"""Blocks from this number on are in no library."""

Half = Literal["all", "first", "second"]
"""The super-topics of videos: all, or those with even or odd numbers."""

_NUM_SUPER_TOPICS = 200
_NUM_TOPICS = 20_000
_ZIPF = 0.7
_EXPONENTS = (0.9, 0.8, 0.7, 0.6, 0.5)
_SHARES = (0.30, 0.28, 0.14, 0.207, 0.073)
"""Shares of the variance of a clip's content: super-topic, topic, video, shot, clip. The shares of shot and clip, and
the step between shots, follow from the three cosines inside a video."""
_SHOT_STEP = 0.6
"""Correlation of a shot with the next one."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Block:
    """Two hundred videos."""

    clips: NDArray[np.float16]
    """``[num_clips, DIM]``, one video after the other, as an index stores them."""
    shots: Floats
    """``[num_shots, DIM]``, unit vectors of the content of each shot."""


class World:
    """The possible topics of videos, and the videos about them: the same ones whenever they are drawn."""

    def __init__(self, seed: int = 0, half: Half = "all") -> None:
        """Draw topics and rotations; worlds with the same seed share them, whatever their half."""
        rng = np.random.default_rng(seed)
        self._seed = seed
        turn, _ = np.linalg.qr(rng.standard_normal((DIM, DIM)))
        self._axes = [_axes(turn, exponent) for exponent in _EXPONENTS]
        self._picture_mean = unit(rng.standard_normal(DIM).astype(np.float32))
        text_mean = rng.standard_normal(DIM).astype(np.float32)
        text_mean -= (text_mean @ self._picture_mean) * self._picture_mean
        self._text_mean = unit(text_mean)
        super_topics = self._draw(0, _NUM_SUPER_TOPICS, rng)
        of_topic = rng.integers(_NUM_SUPER_TOPICS, size=_NUM_TOPICS)
        self._topics = super_topics[of_topic] + self._draw(1, _NUM_TOPICS, rng)
        weights = np.arange(1, _NUM_TOPICS + 1) ** -_ZIPF
        if half != "all":
            weights[of_topic % 2 == (half == "first")] = 0
        self._weights = weights / weights.sum()
        self._half = half

    def block(self, number: int) -> Block:
        """Return the ``number``-th two hundred videos."""
        shots, rng = self._shots(number)
        clips = np.repeat(shots, CLIPS_PER_SHOT, axis=0)
        clips += self._draw(4, len(clips), rng)
        pictures: Floats = 0.66 * self._picture_mean + 0.75 * unit(clips)
        return Block(unit(pictures).astype(np.float16), unit(shots))

    def texts(self, num_videos: int, count: int, seed: int = 0) -> Floats:
        """Return texts ``[count, DIM]`` about shots of the first ``num_videos`` videos."""
        rng = np.random.default_rng((self._seed, 2, seed))
        shots = rng.integers(num_videos * SHOTS_PER_VIDEO, size=count)
        meant = self._shots_at(shots)
        other = self._shots_at(
            HELD_OUT * VIDEOS_PER_BLOCK * SHOTS_PER_VIDEO
            + rng.choice(2_000, count, replace=count > 2_000)
        )
        isotropic = unit(rng.standard_normal((count, DIM), np.float32))
        away = 0.8 * self._text_mean + 0.6 * isotropic
        meaning = unit(meant + np.float32(0.6) * other)
        sentences = 0.25 * self._picture_mean + 0.29 * meaning + 0.91 * away
        return unit(sentences.astype(np.float32))

    def pictures(self, count: int) -> Floats:
        """Return clips ``[count, DIM]`` of videos that are in no library, each of a different one if possible."""
        clips = self.block(HELD_OUT + 1).clips
        return clips[:: max(1, len(clips) // count)][:count].astype(np.float32)

    def _shots(self, number: int) -> tuple[Floats, np.random.Generator]:
        """Return the content of the shots of a block ``[num_shots, DIM]``, and the generator for their clips."""
        stream = len(self._half)  # 3, 5 or 6: worlds of different halves share no video
        rng = np.random.default_rng((self._seed, 1, number, stream))
        topics = rng.choice(_NUM_TOPICS, VIDEOS_PER_BLOCK, p=self._weights)
        videos = self._topics[topics] + self._draw(2, VIDEOS_PER_BLOCK, rng)
        steps = self._draw(3, VIDEOS_PER_BLOCK * SHOTS_PER_VIDEO, rng)
        own = steps.reshape(VIDEOS_PER_BLOCK, SHOTS_PER_VIDEO, DIM)
        for shot in range(1, SHOTS_PER_VIDEO):
            own[:, shot] *= np.float32(np.sqrt(1 - _SHOT_STEP**2))
            own[:, shot] += np.float32(_SHOT_STEP) * own[:, shot - 1]
        return (videos[:, None] + own).reshape(-1, DIM), rng

    def _shots_at(self, numbers: NDArray[np.int64]) -> Floats:
        """Return unit vectors of single shots."""
        per_block = VIDEOS_PER_BLOCK * SHOTS_PER_VIDEO
        blocks = numbers // per_block
        out = np.empty((len(numbers), DIM), np.float32)
        for block in np.unique(blocks):
            mine = blocks == block
            out[mine] = self._shots(int(block))[0][numbers[mine] % per_block]
        return unit(out)

    def _draw(self, level: int, count: int, rng: np.random.Generator) -> Floats:
        """Draw vectors of a level, ``[count, DIM]``; their squares sum to the level's share on average."""
        normal = rng.standard_normal((count, DIM), np.float32)
        drawn: Floats = normal @ self._axes[level] * np.float32(_SHARES[level] ** 0.5)
        return drawn


def _axes(turn: NDArray[np.float64], exponent: float) -> Floats:
    """Return a matrix ``[DIM, DIM]`` that scales the axes by the spectrum, then rotates them."""
    variances = np.arange(1, DIM + 1) ** -exponent
    scaled: Floats = (np.sqrt(variances / variances.sum())[:, None] * turn).astype(np.float32)
    return scaled


def unit(vectors: Floats) -> Floats:
    """Scale each row to length 1."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


# ------------------------------------------------ on disk


def videos_for(num_clips: int) -> int:
    """Return the number of videos for a number of clips."""
    return -(-num_clips // CLIPS_PER_VIDEO)


def matrix_of(path: Path, world: World, num_videos: int) -> NDArray[np.float16]:
    """Map the clips of the first videos, ``[num_clips, DIM]``; write them if missing, one block at a time.

    A longer file also serves for fewer videos: earlier videos do not depend on later ones.
    """
    wanted = num_videos * CLIPS_PER_VIDEO
    row_bytes = 2 * DIM
    there = path.stat().st_size // row_bytes if path.exists() else 0
    if there < wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        blocks = range(-(-num_videos // VIDEOS_PER_BLOCK))
        with unfinished.open("wb") as file:
            for block in track(blocks, f"drawing {wanted:,} clips", transient=True):
                file.write(world.block(block).clips.data)
        unfinished.replace(path)
    return np.memmap(path, np.float16, "r", shape=(wanted, DIM))


# ------------------------------------------------ statistics, stated and drawn


@dataclass(frozen=True, slots=True)
class Statistic:
    """One figure of drawn embeddings, and the stated one."""

    name: str
    stated: float
    measured: float


def picture_statistics(clips: NDArray[np.float16]) -> list[Statistic]:
    """Return the statistics of at most 100,000 clips of whole videos."""
    taken = clips[: 100_000 // CLIPS_PER_VIDEO * CLIPS_PER_VIDEO].astype(np.float32)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(taken))
    half = len(rows) // 2
    random = (taken[rows[:half]] * taken[rows[half : 2 * half]]).sum(axis=1)
    videos = taken.reshape(-1, SHOTS_PER_VIDEO, CLIPS_PER_SHOT, DIM)
    inside = (videos[:, :, :-1] * videos[:, :, 1:]).sum(axis=-1)
    cut = (videos[:, :-1, -1] * videos[:, 1:, 0]).sum(axis=-1)
    firsts = videos[:, :, 0]
    between = firsts @ firsts.transpose(0, 2, 1)
    other = between[:, ~np.eye(SHOTS_PER_VIDEO, dtype=np.bool_)]
    variances = np.linalg.eigvalsh(np.cov(taken, rowvar=False))[::-1]
    below = np.cumsum(variances) / variances.sum()
    dims = [float(np.searchsorted(below, share) + 1) for share in (0.5, 0.8, 0.9)]
    return [
        Statistic("random pair, mean cosine", 0.44, float(random.mean())),
        Statistic("random pair, 1 %", 0.28, float(np.percentile(random, 1))),
        Statistic("random pair, 99 %", 0.59, float(np.percentile(random, 99))),
        Statistic("adjacent clips, same shot", 0.959, float(inside.mean())),
        Statistic("adjacent clips, over a cut", 0.913, float(cut.mean())),
        Statistic("same video, another shot", 0.871, float(other.mean())),
        Statistic("axes for 50 % of the variance", 48, dims[0]),
        Statistic("axes for 80 %", 199, dims[1]),
        Statistic("axes for 90 %", 310, dims[2]),
        Statistic("participation ratio", 83, float(variances.sum() ** 2 / (variances**2).sum())),
    ]


def text_statistics(
    clips: NDArray[np.float16], texts: Floats, best: NDArray[np.int64]
) -> list[Statistic]:
    """Return the statistics of texts and clips, given the rows ``[num_texts, 100]`` of the exact answers."""
    rows = np.random.default_rng(0).integers(len(clips), size=4_000)
    cosines = texts @ clips[np.sort(rows)].astype(np.float32).T
    pairs = zip(texts, best, strict=True)
    top = np.median([clips[mine].astype(np.float32) @ text for text, mine in pairs], axis=0)
    size = f" of {len(clips):,}"
    return [
        Statistic("text and clip, median cosine" + size, 0.169, float(np.median(cosines))),
        Statistic("sentence and clip, 1 %", 0.07, float(np.percentile(cosines, 1))),
        Statistic("sentence and clip, 99 %", 0.26, float(np.percentile(cosines, 99))),
        Statistic("best clip of a sentence", 0.362, float(top[0])),
        Statistic("10th", 0.341, float(top[9])),
        Statistic("100th", 0.288, float(top[99])),
    ]
