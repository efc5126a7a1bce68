"""Preprocessing of decoded frames as in the training of an encoder; the constants come from its checkpoint.

It has two steps, since they run in different processes: decoders resize frames while they are bytes, the encoder
normalises them on its device. Resizing rounds to bytes in the reference implementation too, so the split changes
nothing.

    >>> steps = Preprocessing(short_side=224, exact_size=None, crop=(224, 224), resample="bicubic",
    ...                       mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> steps.resize(np.zeros((2, 720, 1280, 3), np.uint8)).shape
    (2, 224, 224, 3)
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from scanonce.storage.errors import EncoderError
from scanonce.storage.untrusted import DamagedFile, parse_object

Resample = Literal["bilinear", "bicubic"]
_PIL_RESAMPLE: dict[int, Resample] = {2: "bilinear", 3: "bicubic"}
"""Resampling filters by their number in PIL, as processor configurations have them."""

_PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_DESCRIBES_IMAGES = {"image_mean", "size", "patch_size", "do_resize"}

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of RGB values in [0, 1] that OpenAI's CLIPs were trained with."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Constants of resize, crop and normalisation, and both steps."""

    short_side: int | None
    """Target of the shorter side in pixels, keeping the aspect ratio; None if ``exact_size`` is given."""
    exact_size: tuple[int, int] | None
    """(height, width) to resize to without keeping the aspect ratio; None if ``short_side`` is given."""
    crop: tuple[int, int] | None
    """(height, width) of the centre crop; None: no cropping."""
    resample: Resample
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Mean and standard deviation are of RGB values in [0, 1]."""

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the encoder's input."""
        size = self.crop or self.exact_size
        assert size is not None, (
            "a short side without a crop has no fixed output size; `read_preprocessing` refuses it"
        )
        return size

    @property
    def min_short_side(self) -> int:
        """Least short side of frames that may be reduced before ``resize``, in pixels."""
        return 2 * (self.short_side or max(self.output_size))

    def resize(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize and crop frames to the encoder's size.

        Args:
            frames: ``[num_frames, height, width, 3]`` RGB.

        Returns:
            ``[num_frames, *output_size, 3]``; the argument itself if it has that size.
        """
        height, width = frames.shape[1:3]
        if (height, width) == self.output_size:
            return frames
        target = self.exact_size or self._keep_aspect(height, width)
        # uint8 with channels last in memory is torch's fast path, and rounds as the reference does
        images = torch.from_numpy(np.require(frames, requirements="W")).permute(0, 3, 1, 2)
        resized = functional.interpolate(images, size=target, mode=self.resample, antialias=True)
        if self.crop is not None:
            resized = _crop_middle(resized, self.crop)
        return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())

    def normalise(self, frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Normalise ``[N, H, W, 3]`` uint8 to ``[N, 3, H, W]`` of ``dtype``, on the device of ``frames``."""
        values = frames.permute(0, 3, 1, 2).to(torch.float32)
        mean = torch.tensor(self.mean, device=frames.device).view(3, 1, 1) * 255
        std = torch.tensor(self.std, device=frames.device).view(3, 1, 1) * 255
        return ((values - mean) / std).to(dtype)

    def inputs(self, frames: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the arguments of the vision tower for ``[N, *output_size, 3]`` uint8, on the device of ``frames``."""
        return {"pixel_values": self.normalise(frames, dtype)}

    def _keep_aspect(self, height: int, width: int) -> tuple[int, int]:
        assert self.short_side is not None
        # the reference truncates the long side to an integer too
        if height <= width:
            return self.short_side, int(self.short_side * width / height)
        return int(self.short_side * height / width), self.short_side


def _crop_middle(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width = images.shape[-2:]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    if top < 0 or left < 0:  # a crop larger than the image: padded with black
        bottom, right = size[0] - height + top, size[1] - width + left
        images = functional.pad(images, [max(0, each) for each in (-left, right, -top, bottom)])
        top, left = max(0, top), max(0, left)
    return images[..., top : top + size[0], left : left + size[1]]


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read the processor configuration of a checkpoint.

    Raises:
        EncoderError: the folder has none, or it asks for an unsupported step.
    """
    return preprocessing_of(read_processor(folder), folder)


def preprocessing_of(values: Mapping[str, Any], folder: Path) -> Preprocessing:
    """Return the preprocessing that the values of a processor configuration describe; see `read_preprocessing`."""
    size = values.get("size") or 224
    if isinstance(size, int):
        size = {"shortest_edge": size}
    crop = values.get("crop_size") if values.get("do_center_crop", False) else None
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    resample = resample_of(values)
    exact = (size["height"], size["width"]) if "height" in size else None
    if resample is None or (exact is None and ("shortest_edge" not in size or crop is None)):
        raise EncoderError(
            f"{folder}: its processor asks for size={size}, crop={crop}, resample={values.get('resample')}; "
            "supported are a shortest edge with a centre crop or a fixed height and width, bilinear or bicubic. "
            "Use another checkpoint."
        )
    mean, std = value_range(values)
    return Preprocessing(
        short_side=None if exact else size["shortest_edge"],
        exact_size=exact,
        crop=(crop["height"], crop["width"]) if crop else None,
        resample=resample,
        mean=mean,
        std=std,
    )


def resample_of(values: Mapping[str, Any]) -> Resample | None:
    """Return the filter that a processor configuration asks for; None if it is not supported."""
    return _PIL_RESAMPLE.get(values.get("resample", 3))


def value_range(
    values: Mapping[str, Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of RGB values in [0, 1] that stand for all arithmetic of a processor.

    A processor computes ``(bytes * rescale_factor - offset - image_mean) / image_std``, each step if it is switched on;
    that of EfficientNet (ALIGN) has the offset, and divides by ``image_std`` a second time with ``include_top``.
    """
    scale = (
        255.0 * float(values.get("rescale_factor", 1 / 255))
        if values.get("do_rescale", True)
        else 255.0
    )
    offset = 1.0 if values.get("rescale_offset", False) else 0.0
    normalises = values.get("do_normalize", True)
    means = values.get("image_mean", CLIP_MEAN) if normalises else (0.0,) * 3
    stds = values.get("image_std", CLIP_STD)
    again = stds if values.get("include_top", False) else (1.0,) * 3
    stds = stds if normalises else (1.0,) * 3
    mean = [(offset + each) / scale for each in means]
    std = [first * second / scale for first, second in zip(stds, again, strict=True)]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def write_preprocessing(steps: Preprocessing, folder: Path) -> None:
    """Write ``preprocessor_config.json`` in the format of `transformers`, for an encoder of the CLIP family."""
    if steps.exact_size is None:
        size = {"shortest_edge": steps.short_side}
    else:
        size = dict(zip(("height", "width"), steps.exact_size, strict=True))
    values = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": next(n for n, name in _PIL_RESAMPLE.items() if name == steps.resample),
        "do_center_crop": steps.crop is not None,
        "crop_size": dict(zip(("height", "width"), steps.output_size, strict=True)),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": steps.mean,
        "image_std": steps.std,
    }
    text = json.dumps(values, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def read_processor(folder: Path) -> dict[str, Any]:
    """Read the image part of the processor configuration: a file of its own, or a part of the newer joint file.

    Raises:
        EncoderError: the folder has none, or it cannot be read.
    """
    for name in _PROCESSOR_FILES:
        try:
            values = parse_object((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, DamagedFile) as error:
            raise EncoderError(
                f"{folder / name} cannot be read: {error}. Fetch the checkpoint again."
            ) from error
        image = values.get("image_processor") or values.get("video_processor") or values
        if isinstance(image, dict) and _DESCRIBES_IMAGES & image.keys():
            return dict(image)
    raise EncoderError(
        f"{folder} has no preprocessor_config.json: without it frames cannot be prepared as in training. "
        "Copy the file from the source of the checkpoint."
    )
