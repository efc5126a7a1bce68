"""Recipe of a fine-tuning of a dual encoder; no heavy imports, since the command line reads its defaults here."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from scanonce.storage.errors import ConfigError

HeadName = Literal["mean", "transformer", "lstm", "tight"]
"""CLIP4Clip's heads, see `models.clip4clip.heads`."""
Precision = Literal["auto", "float32", "bfloat16"]
Keep = Literal["best", "last"]

MAX_LOG_SCALE = math.log(100)
"""CLIP's clamp of the temperature (Radford et al. 2021, section 2.5)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the result. Unless stated otherwise the defaults are CLIP4Clip's (arXiv 2104.08860)."""

    head: HeadName = "mean"
    """Pooling of frames into one vector; "tight" computes scores instead, for re-ranking."""
    max_frames: int = 12
    """Most frames of a clip, evenly spread; CLIP4Clip has 64 for long videos."""
    fps: float = 1.0
    """Frames per second of video."""
    epochs: int = 5
    """Passes over the clips, each with one of its captions (CLIP4Clip: over all pairs of a clip with a caption)."""
    batch: int = 32
    """Clips that a process embeds at once. The number of clips compared with each other is `batch` times `accumulate`
    times the number of processes (CLIP4Clip: 128)."""
    accumulate: int = 1
    """Parts of a batch that are embedded one after another, at the cost of one more forward pass. Loss and gradient are
    those of the whole batch."""
    lr: float = 1e-4
    """Highest learning rate of the head."""
    encoder_lr: float = 1e-7
    """Highest learning rate of encoder and temperature; 0: neither is trained."""
    weight_decay: float = 0.2
    """Weight decay of matrices; biases, norms and the temperature have none."""
    warm_up: float = 0.1
    """Share of the run in which learning rates rise; they then fall to 0 along half a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the gradient of a step."""
    freeze_layers: int = 0
    """Number of first blocks of each tower that are not trained, with the embeddings before them; 0: all are."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    precision: Precision = "auto"
    """Precision of the encoder's arithmetic; weights are always float32. "auto": bfloat16 if the hardware has it."""
    augment: bool = True
    """Shift frames, change light and contrast a little, and leave some frames out (ours; CLIP4Clip does not)."""
    seed: int = 0
    """Seed of all random numbers."""
    validation_share: float = 0.1
    """Share of the videos that is held out if there are no captions for validation; 0: no validation."""
    validate_every: int = 0
    """Steps between validations; 0: one in each epoch."""
    save_every: int = 100
    """Steps between saved states; there are at most ten minutes between them too."""
    keep: Keep = "best"
    """Weights that are written: those with the best MRR of text to video on validation, or the last ones."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that is not allowed."""
        least = {"max_frames": 1, "epochs": 1, "batch": 1, "accumulate": 1, "freeze_layers": 0}
        least |= {"lr": 0, "encoder_lr": 0, "weight_decay": 0, "validate_every": 0, "save_every": 1}
        for name, value in least.items():
            _check(getattr(self, name) >= value, name, f"{value} or more", getattr(self, name))
        for name in ("fps", "clip_norm"):
            _check(getattr(self, name) > 0, name, "more than 0", getattr(self, name))
        for name in ("warm_up", "validation_share"):
            _check(0 <= getattr(self, name) < 1, name, "0 to less than 1", getattr(self, name))
        for name, kind in (("head", HeadName), ("precision", Precision), ("keep", Keep)):
            allowed = get_args(kind)
            _check(
                getattr(self, name) in allowed,
                name,
                f"one of {', '.join(allowed)}",
                getattr(self, name),
            )
        _check(
            self.encoder_lr > 0 or self.head != "mean",
            "encoder_lr",
            "more than 0 with the head mean, which has nothing else to train",
            self.encoder_lr,
        )


def _check(holds: bool, name: str, allowed: str, given: object) -> None:
    if not holds:
        raise ConfigError(f"{name.replace('_', ' ')} must be {allowed}; got {given}")
