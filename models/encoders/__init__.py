"""Dual encoders: the protocol, finding and loading checkpoints, and the back ends."""
