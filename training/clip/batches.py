"""Which clips a step sees, with which caption and with which frames: decided by seed and step, and by nothing else.

So a run that goes on after an interruption needs no state of a generator, and processes that share a batch each make
their own part of it without asking the others.
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

_ORDER, _CAPTION, _AUGMENT, _HELD_OUT = 41, 42, 43, 44  # so that no two draws are of one generator


@dataclass(frozen=True, slots=True)
class ClipSet:
    """Clips with what is said of them, and their frames."""

    captions: Sequence[Sequence[str]]
    """Of each clip, at least one."""
    frames: Callable[[int], NDArray[np.uint8]]
    """[T, H, W, 3] of a clip by its number, at the encoder's size; T is 1 or more."""

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
    """What one process has of a batch."""

    parts: tuple[Part, ...]
    right: torch.Tensor
    """bool [N, N] over the whole batch, see `training.clip.contrast.right_pairs`."""


class Batches:
    """The batches of a run, by step.

    In an epoch each clip comes at most once, with one of its captions; the next epoch has the next caption. So a batch
    never has a clip twice, and its captions are not negatives of each other. What is left at the end of an epoch and
    is no whole batch is left out; another epoch has another order.
    """

    def __init__(self, clips: ClipSet, *, batch: int, seed: int, augment: bool) -> None:
        """Of ``batch`` clips over all processes; raises ConfigError where there are not as many clips."""
        if batch > len(clips):
            raise ConfigError(
                f"a batch of {batch} clips needs as many to train on, there are {len(clips)}: make the batch smaller "
                "(--batch, --accumulate, fewer processes) or give more captions"
            )
        self._clips, self._batch, self._seed, self._augment = clips, batch, seed, augment
        self.steps_per_epoch = len(clips) // batch
        first = np.random.default_rng((seed, _CAPTION)).integers(0, 2**31, len(clips))
        self._first_caption = first.tolist()

    def share(self, step: int, *, index: int, count: int, num_parts: int) -> Share:
        """What process ``index`` of ``count`` embeds in a step (from 0), in equal parts."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, _ORDER, epoch)).permutation(len(self._clips))
        numbers = order[place * self._batch : (place + 1) * self._batch].tolist()
        captions = [self._clips.captions[number] for number in numbers]
        texts = [
            each[(self._first_caption[number] + epoch) % len(each)]
            for number, each in zip(numbers, captions, strict=True)
        ]
        own = np.array_split(np.arange(self._batch), count)[index]
        parts = [
            self._part(step, [(int(at), numbers[at], texts[at]) for at in places])
            for places in np.array_split(own, num_parts)
        ]
        return Share(tuple(parts), right_pairs(texts, captions))

    def _part(self, step: int, examples: Sequence[tuple[int, int, str]]) -> Part:
        """Of (place in the batch, clip, text)."""
        frames = [self._clips.frames(number) for _, number, _ in examples]
        if self._augment:
            frames = [
                augmented(each, np.random.default_rng((self._seed, _AUGMENT, step, place)))
                for each, (place, _, _) in zip(frames, examples, strict=True)
            ]
        return Part(
            np.concatenate(frames),
            tuple(len(each) for each in frames),
            tuple(text for *_, text in examples),
        )


def augmented(frames: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clip as it might as well have been filmed: [T, H, W, 3] to [up to T, H, W, 3].

    At least half of the frames stay, in their order; all are shifted alike by up to a thirty-second of the picture
    (what comes in repeats the edge), with up to 7 % more or less contrast and 3 % more or less light. Pictures are not
    mirrored: captions say left and right.
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
    """To train on, and a share of the videos to validate on, all parts of a video on one side.

    Args:
        captioned: what there is; ``missing`` stays with the first.
        share: of the videos, in [0, 1); at least one where it is more than 0 and there are two or more.
        seed: which ones.
    """
    videos = list(dict.fromkeys(part.video for part in captioned.parts))
    count = min(max(1, round(share * len(videos))), len(videos) - 1) if share > 0 else 0
    order = np.random.default_rng((seed, _HELD_OUT)).permutation(len(videos))
    held = {videos[number] for number in order[:count]}

    def those(inside: bool) -> tuple[CaptionedPart, ...]:
        return tuple(part for part in captioned.parts if (part.video in held) == inside)

    return CaptionedVideos(those(False), captioned.missing), CaptionedVideos(those(True), ())
