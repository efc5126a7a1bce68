"""Dual encoders: how they are found, loaded and run."""
