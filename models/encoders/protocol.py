"""The interface between an encoder and the rest of the program.

`scanonce.models.encoders.load.load_encoder` returns an implementation. Anything with these members will do, so tests
use small encoders without weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.reading import Reading

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from scanonce.models.encoders.preprocess import Preprocessing

Towers = Literal["both", "vision", "text"]


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Outputs of the text tower, before and after the projection."""

    joint: NDArray[np.float32]
    """``[M, dim]`` raw features in the joint space, as `ClipEncoder.encode_texts` returns them."""
    states: NDArray[np.float32]
    """``[M, width of the text tower]``: the state at the end of each text after the last layer norm, not projected.
    Localisers read these: the projection keeps what frames can show and drops the rest, such as an order in time."""


class ClipEncoder(Protocol):
    """A dual encoder: frames and texts in one space."""

    @property
    def name(self) -> str:
        """Name it was loaded by: ``bundled``, a hub id or a folder."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights and configuration: equal fingerprints mean equal vectors."""

    @property
    def dim(self) -> int:
        """Width of the joint space."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Resize, crop and normalisation; `encode_frames` takes frames before or after its ``resize``."""

    @property
    def head_files(self) -> Sequence[Path]:
        """Files of the encoder's head (`models.clip4clip.heads`): a sequential head pools the frames of a clip, a tight
        head re-ranks search results. Empty: clips are means, and nothing re-ranks.
        """

    @property
    def batch_frames(self) -> int:
        """Batch size at which its device is fastest."""

    @property
    def max_concurrency(self) -> int:
        """Number of concurrent calls of `encode_frames`, one per thread, at which its device is fastest."""

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode ``[N, H, W, 3]`` RGB to raw features ``[N, dim]``."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to raw features ``[M, dim]``; a text longer than the encoder's context is cut."""

    def read(self, text: str) -> Reading:
        """Say which words of a text the encoder cannot read, and whether the text is too long for it."""

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Encode texts to features and to the states before the projection, at the cost of `encode_texts`."""


def window_of(encoder: ClipEncoder) -> tuple[int, int] | None:
    """Return the window of an encoder with a time axis, which has a property ``window``; None for all others.

    Returns:
        Frames of a window, and frames from one window to the next. `ClipEncoder.encode_frames` then takes windows
        ``[M, num_frames, H, W, 3]`` too, and ``batch_frames`` counts windows.
    """
    window: tuple[int, int] | None = getattr(encoder, "window", None)
    return window
