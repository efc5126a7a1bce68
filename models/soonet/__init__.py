"""SOONet: the network, its checkpoints, the grid of anchors, and its query side."""
