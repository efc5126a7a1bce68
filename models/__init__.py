"""Encoders and plain networks: both towers of a checkpoint in one place."""

from models.clip4clip import mean_pool, unit
from models.encoder import ClipEncoder, load_encoder
from models.settings import ModelSettings

__all__ = ["ClipEncoder", "ModelSettings", "load_encoder", "mean_pool", "unit"]
