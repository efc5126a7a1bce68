"""Limits of one guarded child process and their defaults. Settings read the defaults: importing this stays cheap."""

from dataclasses import dataclass
from typing import Final

MEMORY_MB: Final = 4096
"""Beyond what the process has at its start."""
CPU_SECONDS: Final = 21_600
"""Processor time for one file, all threads together."""
LONGEST_HOURS: Final = 48.0
"""Length of video that is decoded; the rest is left out."""
FREE_MB: Final = 0.2
"""Every file may have the length of so many more megabytes: slides of flat colours are small."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources of one guarded child process."""

    stall_seconds: float
    """Wall time without a message after which the child is killed."""
    memory_mb: int = MEMORY_MB
    """Memory beyond what the child has at its start. Limited on Linux only."""
    cpu_seconds: int = CPU_SECONDS
    """Processor time for one file, all threads together. Not limited on Windows."""
    file_bytes: int | None = None
    """Size of any file that the child writes, the captured output included; None sets no limit."""
