"""Training of the bundled checkpoints, and the gate that checks their figures."""
