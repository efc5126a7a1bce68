"""One file per video content: frame features, anchors, thumbnails."""
