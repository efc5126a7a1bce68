"""The rendered world: short films with exact ground truth."""
