"""Sentences about videos with their right answers, as benchmarks publish them.

    annotations = read_annotations(Path("charades_sta_test.txt"), "charades")
    annotations[0].text, annotations[0].video, annotations[0].spans
"""

from dataclasses import dataclass

from storage.records import Span


@dataclass(frozen=True, slots=True)
class Annotation:
    """A sentence about a video, and where in it the sentence is true."""

    id: str
    """Of the query, as the benchmark has it; the number of the line where it has none."""
    text: str
    video: str
    """Name of the video as the benchmark has it, without a folder and the file's ending."""
    spans: tuple[Span, ...] = ()
    """All right answers; empty where the sentence is about the whole video."""
    duration_seconds: float | None = None
    """Of the video, where the benchmark tells."""
    kind: str = ""
    """Of the query, where the benchmark has kinds (TVR: "v", "t", "vt"; the rendered world: "time")."""
