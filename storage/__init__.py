"""What is on disk, and the types everyone shares."""
