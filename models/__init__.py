"""Encoders and plain networks: both towers of a checkpoint in one place."""

from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import mean_pool, unit

__all__ = ["ClipEncoder", "ModelSettings", "load_encoder", "mean_pool", "unit"]
