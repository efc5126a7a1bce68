"""Video files: decoding, seeking, cutting and encoding, all of it in guarded child processes.

Why it is as it is: docs/decisions.md, "Media".
"""
