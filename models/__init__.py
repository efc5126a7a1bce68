"""Encoders and plain networks: both towers of a checkpoint in one place."""
