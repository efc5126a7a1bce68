"""Trained localisers: the choice of one for an index, and its video side.

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
from scanonce.storage.files import expanded

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from scanonce.models.soonet.network import Soonet, SoonetConfig

BUNDLED_LOCALISER = "bundled"
BUNDLED_LOCALISER_FOLDER = Path(__file__).parents[1] / "bundled" / "soonet"
NO_LOCALISER = "training-free"


class TrainedLocaliser:
    """A loaded SOONet checkpoint, which scans videos and reads queries; immutable and so thread-safe."""

    def __init__(self, name: str, model: Soonet, fingerprint: str) -> None:
        """Wrap a model; `load_localiser` reads one from disk."""
        self.name = name
        self.model = model
        self.fingerprint = fingerprint
        self.grid = model.config.grid

    @property
    def folder(self) -> str:
        """Prefix of the folders in which an index stores the vectors of this localiser."""
        return self.fingerprint[:12]

    @property
    def ranks_by_vectors(self) -> bool:
        """Whether both stages of the ranking are one inner product with a stored vector."""
        return self.model.config.stage2_pool == "mean"

    @property
    def width(self) -> int:
        """Width of a stored vector."""
        return self.model.config.vector_dim

    def scan(
        self, frames: NDArray[np.float16], pts_seconds: NDArray[np.float64], duration_seconds: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Compute the stored arrays of a video: ``vectors`` [num_anchors, width] and ``norms`` [num_anchors].

        Args:
            frames: ``[num_frames, dim]`` raw features as stored.
            pts_seconds: ``[num_frames]``, rising.
            duration_seconds: length of the video.
        """
        if not len(frames):
            return np.empty((0, self.width), np.float16), np.empty(0, np.float32)
        rows = self.grid.frame_rows(pts_seconds, duration_seconds)
        scanned = self.model.scan(frames[rows])
        return scanned.vectors.astype(np.float16), scanned.norms.astype(np.float32)

    def texts(self, features: TextFeatures) -> NDArray[np.float32]:
        """Select the text features that this localiser reads, ``[M, text_dim]``.

        Raises:
            LocaliserError: their width is not that of the localiser.
        """
        config = self.model.config
        texts = features.states if config.text_features == "states" else features.joint
        if texts.shape[1] != config.text_dim:
            raise LocaliserError(
                f"localiser {self.name} reads texts of {config.text_dim} dimensions, the encoder has "
                f"{texts.shape[1]}. Use the encoder of its training, or run "
                f"`scanonce localise --localiser {NO_LOCALISER}`."
            )
        return texts


def load_localiser(name: str, *, device: str = "cpu") -> TrainedLocaliser:
    """Load a trained localiser by name.

    Args:
        name: ``bundled``, a folder with config.json and model.safetensors, or a published ``.pth`` file.
        device: device as in config.toml. The work of a query is too small for anything but the CPU.

    Raises:
        LocaliserError: there is no usable checkpoint.
    """
    from scanonce.models.runtime import pick_device  # torch takes seconds to import
    from scanonce.models.soonet.checkpoint import fingerprint_soonet, read_soonet

    path = BUNDLED_LOCALISER_FOLDER if name == BUNDLED_LOCALISER else expanded(name)
    model = read_soonet(path).to(pick_device(device))
    return TrainedLocaliser(name, model, fingerprint_soonet(path))


def choose_localiser(
    name: str, *, fingerprint: str, dim: int, sampling: str, fps: float, device: str = "cpu"
) -> TrainedLocaliser | None:
    """Choose the localiser for an index with this encoder and sampling; None: training-free.

    Args:
        name: ``auto`` (the bundled one if it fits, else none), ``training-free`` (none), or as in `load_localiser`.
        fingerprint: fingerprint of the encoder.
        dim: width of its frame features.
        sampling: ``uniform`` or ``keyframes``.
        fps: sampled frames per second.
        device: see `load_localiser`.

    Raises:
        LocaliserError: a localiser other than ``auto`` is not a usable checkpoint or does not fit.
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
        + _way_out(localiser.model.config, dim, sampling, fps)
    )


def _way_out(config: SoonetConfig, dim: int, sampling: str, fps: float) -> str:
    """Return the sentence that says how an index comes to fit a localiser."""
    fits_but_for_the_rate = (
        config.frame_dim == dim and sampling == "uniform" and not _is_rate(config, fps)
    )
    if fits_but_for_the_rate:
        return (
            f"The setting is indexer.sample_fps: scanonce reindex --sample-fps {config.fps:g} scans the videos again, "
            "searches go on meanwhile, and if it is stopped, the same command goes on; then run this command again. "
            f'Or choose "{NO_LOCALISER}", which fits every index.'
        )
    return f'Index with the encoder and sampling of its training, or choose "{NO_LOCALISER}", which fits every index.'


def _is_rate(config: SoonetConfig, fps: float) -> bool:
    """Whether frames are sampled as often as in the training of a localiser."""
    return abs(config.fps - fps) <= 1e-6


def _misfits(
    config: SoonetConfig, fingerprint: str, dim: int, sampling: str, fps: float
) -> list[str]:
    """Describe why a localiser does not fit an index; empty if it fits."""
    reasons = []
    if config.encoder_fingerprint not in (None, fingerprint):
        reasons.append(
            f"it was trained on encoder {str(config.encoder_fingerprint)[:12]}, the index has {fingerprint[:12]}"
        )
    elif config.frame_dim != dim:
        reasons.append(f"it reads frames of {config.frame_dim} dimensions, the encoder has {dim}")
    if sampling != "uniform":
        reasons.append(f"it needs evenly sampled frames, the index has {sampling}")
    elif not _is_rate(config, fps):
        reasons.append(f"it reads {config.fps:g} frames a second, the index has {fps:g}")
    return reasons
