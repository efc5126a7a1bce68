"""Encoders that read runs of frames: X-CLIP (arXiv 2208.02816) and VideoPrism (arXiv 2402.13217).

    encoder.window                                  # (16, 8): a vector every 8 frames, of the 16 frames around them
    encoder.encode_frames(windows)                  # [M, 16, H, W, 3] -> [M, dim]

`media.windows` makes the windows. A single image is read as a run in which nothing moves.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from scanonce.models.encoders.clip import TransformersEncoder


class VideoEncoder(TransformersEncoder):
    """`ClipEncoder` with a time axis. Texts of X-CLIP are read without the prompts that it makes of each video."""

    @property
    def window(self) -> tuple[int, int]:
        """Frames of a window, and frames from one window to the next: half of them."""
        frames = int(self._model.config.vision_config.num_frames)
        return frames, max(1, frames // 2)

    @property
    def batch_frames(self) -> int:
        """Windows of a batch, so that it has as many frames as one of other encoders."""
        return max(1, super().batch_frames // self.window[0])

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode windows ``[M, num_frames, H, W, 3]`` RGB, or images ``[M, H, W, 3]``, to raw features ``[M, dim]``."""
        if frames.ndim == 4 or not len(frames):
            return super().encode_frames(frames)
        flat = self._preprocessing.resize(frames.reshape(-1, *frames.shape[2:]))
        return super().encode_frames(flat.reshape(*frames.shape[:2], *flat.shape[1:]))

    def _resized(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return frames if frames.ndim == 5 else super()._resized(frames)

    def _image_features(self, images: torch.Tensor) -> torch.Tensor:
        if images.ndim == 4:
            images = images[:, None].expand(-1, self.window[0], -1, -1, -1)
        pixels = self._preprocessing.normalise(images.flatten(0, 1), self._dtype)
        videos = pixels.reshape(*images.shape[:2], *pixels.shape[1:])
        if self._model.config.model_type == "videoprism":
            output = self._model.get_video_features(pixel_values_videos=videos)
        else:
            output = self._model.get_video_features(pixel_values=videos)
        features: torch.Tensor = getattr(output, "pooler_output", output)
        return features.flatten(1)  # [M, 1, dim] of VideoPrism
