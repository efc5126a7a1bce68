"""Video files: decoding, seeking, cutting and encoding, all of it in guarded child processes."""
