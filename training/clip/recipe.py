"""What decides a fine-tuning of a dual encoder; imports nothing heavy, so that the command line reads defaults here."""

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
    """All that decides what comes out. Where not said otherwise the defaults are CLIP4Clip's (arXiv 2104.08860)."""

    head: HeadName = "mean"
    """How frames become a vector; "tight" gives scores, for re-ranking."""
    max_frames: int = 12
    """Of a clip, evenly spread; CLIP4Clip has 64 for long videos."""
    fps: float = 1.0
    """Frames looked at per second of video."""
    epochs: int = 5
    """Passes over the clips, each with one of its captions (CLIP4Clip: over all pairs of a clip with a caption)."""
    batch: int = 32
    """Clips that a process embeds at once; what is compared with each other is `accumulate` times as many, times the
    number of processes (CLIP4Clip: 128)."""
    accumulate: int = 1
    """Parts of a batch that go through one after another, at the cost of one more forward pass; the loss and its
    gradient are those of the whole."""
    lr: float = 1e-4
    """Highest learning rate of the head's new parts."""
    encoder_lr: float = 1e-7
    """Highest learning rate of encoder and temperature; 0 leaves both as they are."""
    weight_decay: float = 0.2
    """Of matrices; biases, norms and the temperature have none."""
    warm_up: float = 0.1
    """Share of the run in which learning rates rise; they then fall along half a cosine to 0."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient."""
    freeze_layers: int = 0
    """First blocks of each tower that stay as they are, with all before them; 0 freezes nothing."""
    checkpointing: bool = False
    """Work activations out again on the way back instead of keeping them."""
    precision: Precision = "auto"
    """Of the encoder's arithmetic; weights are always float32. "auto": bfloat16 where the hardware multiplies it."""
    augment: bool = True
    """Shift frames, change light and contrast a little and leave some frames out (ours; CLIP4Clip does not)."""
    seed: int = 0
    """Of everything."""
    validation_share: float = 0.1
    """Of the videos, held out where no captions for validation are given; 0 for no validation."""
    validate_every: int = 0
    """Steps; 0: once in each epoch."""
    save_every: int = 100
    """Steps, or ten minutes: after the earlier of them the state is saved."""
    keep: Keep = "best"
    """Weights that are written: those with the best MRR of texts to videos on validation, or the last ones."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a value that is not allowed."""
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
