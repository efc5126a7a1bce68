"""What one decoding process may take, by default."""

from typing import Final

MEMORY_MB: Final = 4096
"""Beyond what the process has at its start."""
CPU_SECONDS: Final = 21_600
"""Processor time of one file, all threads together."""
LONGEST_HOURS: Final = 48.0
"""Of video; what comes after is not decoded."""
