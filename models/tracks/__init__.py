"""Models of texts in videos: speech, text in the image, and the meaning of a line."""
