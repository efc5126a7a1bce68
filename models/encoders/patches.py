"""Preprocessing of encoders that take images of any shape as patches (SigLIP 2 NaFlex, EmbeddingGemma 2, Qwen3-VL).

Frames keep their aspect ratio, so frames of two videos have different sizes, but decoders and batches need arrays of
one size. So a resized frame travels as a strip: its patches one below the other, as many as the encoder takes, after a
head that has the number of rows and columns.

    >>> steps = PatchPreprocessing(resample="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3, patch=16, max_patches=256)
    >>> strip = steps.resize(np.zeros((2, 720, 1280, 3), np.uint8))
    >>> strip.shape, steps.grids(torch.from_numpy(strip)).tolist()
    ((2, 4112, 16, 3), [[12, 21], [12, 21]])
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from scanonce.models.encoders.preprocess import (
    Preprocessing,
    read_processor,
    resample_of,
    value_range,
)
from scanonce.storage.errors import EncoderError

Rule = Literal["naflex", "gemma", "qwen"]

_FRAME_TOKENS = {"gemma": 70, "qwen": 256}
"""Most tokens of a frame: 70 is the budget of a video frame in EmbeddingGemma 2's own processor. Qwen's limit for
single images is a thousand and more, which no index of frames needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPreprocessing(Preprocessing):
    """Constants of resizing to patches, and the steps. ``short_side``, ``exact_size`` and ``crop`` are None."""

    short_side: int | None = None
    exact_size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    patch: int
    """Side of a patch in pixels."""
    max_patches: int
    """Most patches of a frame."""
    multiple: int = 1
    """Rows and columns of patches are multiples of this, the side of a token."""
    rule: Rule = "naflex"
    """How the size of a frame is chosen."""

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of a strip: the head and ``max_patches`` patches."""
        return (self.max_patches + 1) * self.patch, self.patch

    @property
    def min_short_side(self) -> int:
        """Least short side of frames that may be reduced before ``resize``, in pixels."""
        return 2 * self.patch * math.isqrt(self.max_patches)

    def resize(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize frames to strips; for the arguments see `Preprocessing.resize`."""
        height, width = frames.shape[1:3]
        if (height, width) == self.output_size:
            return frames
        size = self.size_of(height, width)
        images = torch.from_numpy(np.require(frames, requirements="W")).permute(0, 3, 1, 2)
        resized = functional.interpolate(images, size=size, mode=self.resample, antialias=True)
        return self._strips(resized.permute(0, 2, 3, 1).numpy())

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that a frame is resized to."""
        unit = self.patch * self.multiple
        if self.rule == "naflex":
            return _largest_that_fits(height, width, self.patch, self.max_patches)
        longest = self.max_patches // self.multiple**2 * unit
        area = self.max_patches * self.patch**2
        scale = math.sqrt(area / (height * width))
        if self.rule == "qwen":  # frames smaller than the budget keep their size
            near = (max(1, round(height / unit)) * unit, max(1, round(width / unit)) * unit)
            if near[0] * near[1] <= area:
                return near
        tall, wide = (math.floor(side * scale / unit) * unit for side in (height, width))
        if not tall:
            return unit, min(max(1, width // height) * unit, longest)
        if not wide:
            return min(max(1, height // width) * unit, longest), unit
        return tall, wide

    def grids(self, strips: torch.Tensor) -> torch.Tensor:
        """Return the numbers of rows and columns of patches ``[N, 2]`` of strips ``[N, *output_size, 3]``."""
        head = strips[:, 0, 0, :].to(torch.int64), strips[:, 0, 1, :].to(torch.int64)
        return torch.stack([part[:, 0] * 256 + part[:, 1] for part in head], dim=1)

    def normalise(self, frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Normalise strips ``[N, *output_size, 3]`` uint8 to patches ``[N, max_patches, patch * patch * 3]``.

        Patches that a frame does not have are zero.
        """
        cells = frames.reshape(len(frames), self.max_patches + 1, self.patch**2, 3)[:, 1:]
        mean, std = (
            torch.tensor(each, device=frames.device) * 255 for each in (self.mean, self.std)
        )
        values = ((cells.to(torch.float32) - mean) / std).flatten(2)
        return torch.where(self._is_there(frames)[..., None], values, 0.0).to(dtype)

    def inputs(self, frames: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the arguments of SigLIP 2's vision tower."""
        return {
            "pixel_values": self.normalise(frames, dtype),
            "pixel_attention_mask": self._is_there(frames).to(torch.int64),
            "spatial_shapes": self.grids(frames),
        }

    def _is_there(self, strips: torch.Tensor) -> torch.Tensor:
        """Return which of the patches each frame has, ``[N, max_patches]``."""
        counts = self.grids(strips).prod(dim=1, keepdim=True)
        return torch.arange(self.max_patches, device=strips.device) < counts

    def _strips(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut images ``[N, height, width, 3]`` of whole patches into strips."""
        num, height, width, _ = images.shape
        rows, columns, side = height // self.patch, width // self.patch, self.patch
        cells = images.reshape(num, rows, side, columns, side, 3).swapaxes(2, 3)
        strips = np.zeros((num, self.max_patches + 1, side, side, 3), np.uint8)
        strips[:, 1 : rows * columns + 1] = cells.reshape(num, rows * columns, side, side, 3)
        for column, count in enumerate((rows, columns)):
            strips[:, 0, 0, column, :2] = divmod(count, 256)
        return strips.reshape(num, *self.output_size, 3)


def _largest_that_fits(height: int, width: int, patch: int, max_patches: int) -> tuple[int, int]:
    """Return the largest size of whole patches, in the ratio of the frame, with at most ``max_patches`` patches.

    Found by halving, as in the published processor, whose last step decides between two sizes.
    """

    def sides(scale: float) -> tuple[int, int]:
        return (
            max(1, math.ceil(height * scale / patch)),
            max(1, math.ceil(width * scale / patch)),
        )

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if math.prod(sides(middle)) <= max_patches:
            low = middle
        else:
            high = middle
    rows, columns = sides(low)
    return rows * patch, columns * patch


def read_patches(folder: Path, rule: Rule) -> PatchPreprocessing:
    """Read the processor configuration of a checkpoint that takes patches.

    Raises:
        EncoderError: the folder has none, or it asks for an unsupported step.
    """
    values = read_processor(folder)
    resample = resample_of(values)
    if resample is None:
        raise EncoderError(
            f"{folder}: its processor asks for resample={values.get('resample')}; supported are bilinear and bicubic. "
            "Use another checkpoint."
        )
    mean, std = value_range(values)
    patch = int(values.get("patch_size", 16))
    multiple, max_patches = _budget(values, rule)
    return PatchPreprocessing(
        resample=resample, mean=mean, std=std, patch=patch, max_patches=max_patches, multiple=multiple, rule=rule
    )  # fmt: skip


def _budget(values: dict[str, Any], rule: Rule) -> tuple[int, int]:
    """Return the side of a token in patches, and the most patches of a frame."""
    if rule == "naflex":
        return 1, int(values.get("max_num_patches", 256))
    key, default = ("pooling_kernel_size", 3) if rule == "gemma" else ("merge_size", 2)
    multiple = int(values.get(key, default))
    return multiple, _FRAME_TOKENS[rule] * multiple**2
