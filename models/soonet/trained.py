"""Trained localisers by name: which one an index gets, and its video side.

    localiser = choose_localiser("auto", fingerprint=encoder.fingerprint, dim=encoder.dim, sampling="uniform", fps=2.0)
    vectors, norms = localiser.scan(frames, pts_seconds, duration_seconds)  # once, when a video is indexed

The query side is `search.soonet`. None stands for "no trained localiser": moments are then found from the curve of
frame scores alone, which needs no training.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.storage.errors import LocaliserError

if TYPE_CHECKING:
    from scanonce.models.soonet.network import (  # torch: not for those who only choose
        Soonet,
        SoonetConfig,
    )

BUNDLED_LOCALISER = "bundled"
BUNDLED_LOCALISER_FOLDER = Path(__file__).parents[1] / "bundled" / "soonet"
NO_LOCALISER = "training-free"


class TrainedLocaliser:
    """A SOONet checkpoint, ready to scan videos and to read queries. Thread-safe: it changes nothing."""

    def __init__(self, name: str, model: Soonet, fingerprint: str) -> None:
        """`load_localiser` is the usual way in."""
        self.name = name
        self.model = model
        self.fingerprint = fingerprint
        self.grid = model.config.grid

    @property
    def folder(self) -> str:
        """How the folders begin in which an index keeps what this localiser computed."""
        return self.fingerprint[:12]

    @property
    def collapses(self) -> bool:
        """Whether both stages are one inner product with a stored vector."""
        return self.model.config.stage2_pool == "mean"

    @property
    def width(self) -> int:
        """Length of a stored vector."""
        return self.model.config.vector_dim

    def scan(
        self, frames: NDArray[np.float16], pts_seconds: NDArray[np.float64], duration_seconds: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """What is stored of a video: ``vectors`` [num_anchors, width] and ``norms`` [num_anchors], by anchor row.

        Args:
            frames: ``[num_frames, dim]`` raw features as stored.
            pts_seconds: ``[num_frames]`` their times.
            duration_seconds: length of the video.
        """
        if not len(frames):
            return np.empty((0, self.width), np.float16), np.empty(0, np.float32)
        rows = self.grid.frame_rows(pts_seconds, duration_seconds)
        scanned = self.model.scan(frames[rows])
        return scanned.vectors.astype(np.float16), scanned.norms.astype(np.float32)

    def texts(self, features: TextFeatures) -> NDArray[np.float32]:
        """The features of sentences that this localiser reads, ``[M, text_dim]``.

        Raises:
            LocaliserError: the encoder's text tower has another width.
        """
        config = self.model.config
        texts = features.states if config.text_features == "states" else features.joint
        if texts.shape[1] != config.text_dim:
            raise LocaliserError(
                f"localiser {self.name} reads sentences as {config.text_dim} numbers, the encoder gives "
                f"{texts.shape[1]}. Use the encoder it was trained with, or run "
                f"`scanonce localise --localiser {NO_LOCALISER}`."
            )
        return texts

    def query_vectors(self, features: TextFeatures) -> NDArray[np.float32]:
        """What stored vectors are multiplied with, ``[M, width]``; only where `collapses`."""
        return self.model.query_vectors_of(self.texts(features))


def load_localiser(name: str, *, device: str = "cpu") -> TrainedLocaliser:
    """The trained localiser of that name.

    Args:
        name: ``bundled``, a folder with config.json and model.safetensors, or a published ``.pth`` file.
        device: where it computes, as in config.toml. A query's share is too small for anything but the CPU.

    Raises:
        LocaliserError: there is no usable checkpoint.
    """
    from scanonce.models.runtime import pick_device  # torch takes seconds to import
    from scanonce.models.soonet.network import fingerprint, read_soonet

    path = BUNDLED_LOCALISER_FOLDER if name == BUNDLED_LOCALISER else Path(name).expanduser()
    model = read_soonet(path).to(pick_device(device))
    return TrainedLocaliser(name, model, fingerprint(path))


def choose_localiser(
    name: str, *, fingerprint: str, dim: int, sampling: str, fps: float, device: str = "cpu"
) -> TrainedLocaliser | None:
    """The localiser for an index with this encoder and sampling.

    Args:
        name: ``auto`` (the bundled one where it fits, else none), ``training-free`` (none), or as `load_localiser`.
        fingerprint: of the encoder.
        dim: of its frame features.
        sampling: ``uniform`` or ``keyframes``.
        fps: sampled frames per second.
        device: see `load_localiser`.

    Raises:
        LocaliserError: the localiser asked for by name is no usable checkpoint, or does not fit.
    """
    if name == NO_LOCALISER:
        return None
    if name == "auto" and not (BUNDLED_LOCALISER_FOLDER / "config.json").exists():
        return None
    localiser = load_localiser(BUNDLED_LOCALISER if name == "auto" else name, device=device)
    reasons = _misfits(localiser.model.config, fingerprint, dim, sampling, fps)
    if not reasons:
        return localiser
    if name == "auto":
        return None
    raise LocaliserError(
        f"localiser {name} does not fit this index: {'; '.join(reasons)}. "
        f'Index with what it was trained on, or choose "{NO_LOCALISER}", which fits every index.'
    )


def _misfits(
    config: SoonetConfig, fingerprint: str, dim: int, sampling: str, fps: float
) -> list[str]:
    """Why a localiser cannot be used, in words; empty where it can."""
    reasons = []
    if config.encoder_fingerprint not in (None, fingerprint):
        reasons.append(
            f"it was trained on encoder {str(config.encoder_fingerprint)[:12]}, the index has {fingerprint[:12]}"
        )
    elif config.frame_dim != dim:
        reasons.append(f"it reads frames of {config.frame_dim} dimensions, the encoder gives {dim}")
    if sampling != "uniform":
        reasons.append(f"it needs evenly sampled frames, the index has {sampling}")
    elif abs(config.fps - fps) > 1e-6:
        reasons.append(f"it reads {config.fps:g} frames a second, the index has {fps:g}")
    return reasons
