"""What an encoder is to the rest of the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scanonce.models.encoders.preprocess import Preprocessing

Towers = Literal["both", "vision", "text"]


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Sentences as the text tower sees them, before and after the projection."""

    joint: NDArray[np.float32]
    """``[M, dim]`` raw features in the space of the pictures; what `ClipEncoder.encode_texts` gives."""
    states: NDArray[np.float32]
    """``[M, width of the text tower]``: the state at the end of each text after the last layer norm, not projected.
    Localisers read these: the projection keeps what pictures can show and drops the rest, such as an order in time."""


class ClipEncoder(Protocol):
    """A dual encoder: pictures and sentences in one space."""

    @property
    def name(self) -> str:
        """What it was loaded by: ``bundled``, a hub id or a folder."""

    @property
    def fingerprint(self) -> str:
        """Digest of weights and configuration: equal means the same vectors."""

    @property
    def dim(self) -> int:
        """Width of the joint space."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What frames go through first; `encode_frames` takes them before or after its ``resize``."""

    @property
    def head_files(self) -> Sequence[Path]:
        """The files of its head (`models.clip4clip.heads`): one that pools the frames of a clip, or a tight one, which
        re-ranks what is found. None: clips are means, and nothing re-ranks.
        """

    @property
    def batch_frames(self) -> int:
        """How many frames at once its device likes best."""

    @property
    def lanes(self) -> int:
        """How many calls of `encode_frames` at once, from as many threads, its device likes best."""

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``[N, H, W, 3]`` RGB to raw features ``[N, dim]``."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentences to raw features ``[M, dim]``; what is longer than the encoder reads is cut."""

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """The same together with the states before the projection, at the same cost."""
