"""Commands that print the figures of docs/benchmarks.md.

Each makes its own material the first time, under ``bench/``, and needs no network.
"""
