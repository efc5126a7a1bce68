"""Batches of clips, with a caption and frames of each, which depend on the seed and the step alone.

So a resumed run needs no state of a generator, and processes that share a batch make their own parts of it
independently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.storage.errors import ConfigError
from scanonce.training.clip.captions import CaptionedPart, CaptionedVideos
from scanonce.training.clip.contrast import right_pairs

_ORDER, _CAPTION, _AUGMENT, _HELD_OUT = 41, 42, 43, 44  # so that generators are independent


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Clips with their captions and frames."""

    captions: Sequence[Sequence[str]]
    """Captions of each clip, at least one."""
    frames: Callable[[int], NDArray[np.uint8]]
    """Returns [T, H, W, 3] of a clip by its number, at the encoder's size; T is 1 or more."""

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, slots=True)
class Part:
    """Clips that are embedded together."""

    frames: NDArray[np.uint8]
    """[sum of lengths, H, W, 3], clip after clip."""
    lengths: tuple[int, ...]
    """Frames of each clip."""
    texts: tuple[str, ...]
    """One caption of each clip."""


@dataclass(frozen=True, slots=True)
class Share:
    """Share of one process in a batch."""

    parts: tuple[Part, ...]
    right: torch.Tensor
    """bool [N, N] over the whole batch, see `training.clip.contrast.right_pairs`."""


class Batches:
    """The batches of a run, by step.

    In an epoch each clip occurs at most once, with one of its captions; the next epoch has the next caption. So a batch
    never has a clip twice, and captions of a clip are not negatives of each other. An incomplete batch at the end of an
    epoch is left out; each epoch has another order.
    """

    def __init__(self, clips: ClipSet, *, batch: int, seed: int, augment: bool) -> None:
        """Make batches of ``batch`` clips over all processes; raises ConfigError if there are fewer clips."""
        if batch > len(clips):
            raise ConfigError(
                f"a batch of {batch} clips needs as many to train on, but there are {len(clips)}: make the batch "
                "smaller (--batch, --accumulate, fewer processes) or give more captions"
            )
        self._clips, self._batch, self._seed, self._augment = clips, batch, seed, augment
        self.steps_per_epoch = len(clips) // batch
        first = np.random.default_rng((seed, _CAPTION)).integers(0, 2**31, len(clips))
        self._first_caption = first.tolist()

    def share(self, step: int, *, index: int, count: int, num_parts: int) -> Share:
        """Return the share of process ``index`` of ``count`` in a step (from 0), in equal parts."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, _ORDER, epoch)).permutation(len(self._clips))
        numbers = order[position * self._batch : (position + 1) * self._batch].tolist()
        captions = [self._clips.captions[number] for number in numbers]
        texts = [
            each[(self._first_caption[number] + epoch) % len(each)]
            for number, each in zip(numbers, captions, strict=True)
        ]
        own = np.array_split(np.arange(self._batch), count)[index]
        parts = [
            self._part(step, [(int(at), numbers[at], texts[at]) for at in positions])
            for positions in np.array_split(own, num_parts)
        ]
        return Share(tuple(parts), right_pairs(texts, captions))

    def _part(self, step: int, examples: Sequence[tuple[int, int, str]]) -> Part:
        """Make a part of examples (position in the batch, clip, text)."""
        frames = [self._clips.frames(number) for _, number, _ in examples]
        if self._augment:
            frames = [
                augment(each, np.random.default_rng((self._seed, _AUGMENT, step, position)))
                for each, (position, _, _) in zip(frames, examples, strict=True)
            ]
        return Part(
            np.concatenate(frames),
            tuple(len(each) for each in frames),
            tuple(text for *_, text in examples),
        )


def augment(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change a clip slightly, [T, H, W, 3] to [up to T, H, W, 3].

    At least half of the frames are kept, in their order. All are shifted equally by up to a thirty-second of the frame
    (the edge is repeated), with up to 7 % more or less contrast and 3 % more or less brightness. Frames are not
    mirrored, since captions name left and right.
    """
    num_frames, height, width = frames.shape[:3]
    kept = int(rng.integers((num_frames + 1) // 2, num_frames + 1))
    rows = np.sort(rng.permutation(num_frames)[:kept])
    down, right = (int(rng.integers(-(side // 32), side // 32 + 1)) for side in (height, width))
    contrast, light = rng.uniform(0.93, 1.07), rng.uniform(-0.03, 0.03)
    levels = (np.arange(256) - 127.5) * contrast + 127.5 + 255 * light
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    shifted = frames[rows][:, np.clip(np.arange(height) - down, 0, height - 1)]
    shifted = shifted[:, :, np.clip(np.arange(width) - right, 0, width - 1)]
    return np.asarray(table[shifted])


def hold_out(
    captioned: CaptionedVideos, share: float, seed: int
) -> tuple[CaptionedVideos, CaptionedVideos]:
    """Split videos into those to train on and those to validate on; all parts of a video are on one side.

    Args:
        captioned: all videos; ``missing`` goes with the first part.
        share: share of videos to validate on, in [0, 1); if it is more than 0, at least one of two or more videos.
        seed: seed of the choice.
    """
    videos = list(dict.fromkeys(part.video for part in captioned.parts))
    count = min(max(1, round(share * len(videos))), len(videos) - 1) if share > 0 else 0
    order = np.random.default_rng((seed, _HELD_OUT)).permutation(len(videos))
    held = {videos[number] for number in order[:count]}

    def parts(are_held_out: bool) -> tuple[CaptionedPart, ...]:
        return tuple(part for part in captioned.parts if (part.video in held) == are_held_out)

    return CaptionedVideos(parts(False), captioned.missing), CaptionedVideos(parts(True), ())
