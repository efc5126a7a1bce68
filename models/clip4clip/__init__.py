"""CLIP4Clip: pooling of frames by their mean or by a head, and conversion of published checkpoints."""
