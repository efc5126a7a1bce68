"""Encoders and plain networks: both towers of a checkpoint in one place."""

from scanonce.models.clip4clip import mean_pool, unit
from scanonce.models.encoder import ClipEncoder, load_encoder
from scanonce.models.settings import ModelSettings

__all__ = ["ClipEncoder", "ModelSettings", "load_encoder", "mean_pool", "unit"]
