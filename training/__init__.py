"""Offline side: the rendered world, training of checkpoints, and their scores."""
