"""The lines between strong, fair and weak matches: probabilities, alike in every library.

The command line shows answers of a running server by them, so importing this file costs nothing.
"""

GOOD = 0.33
"""The line: a moment of this probability or more is a good match. A wrong refusal is taken to cost twice as much as a
wrong acceptance, so that the cheaper side changes at 1 / (1 + 2)."""
STRONG = 0.8
"""A moment of this probability or more is a strong match."""
