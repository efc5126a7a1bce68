"""Lines joined to passages that are long enough to have a meaning, and their vectors."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby

import numpy as np

from scanonce.models.tracks.meaning import TextModel
from scanonce.storage.catalog.lines import Lines
from scanonce.storage.catalog.passages import MAX_LINES, Passages
from scanonce.storage.records import Line

_WORDS = 15  # lines are joined until they have as many: a sentence of talk
_GAP_SECONDS = 3.0  # between lines that belong together


def split_passages(lines: Sequence[Line]) -> list[int]:
    """Return the numbers of lines that follow each other in each passage; their sum is that of the lines."""
    counts: list[int] = []
    words, end = _WORDS, -np.inf
    for line in lines:
        is_apart = line.start_seconds - end > _GAP_SECONDS
        if words >= _WORDS or is_apart or counts[-1] == MAX_LINES:
            counts.append(0)
            words = 0
        counts[-1] += 1
        words += len(line.text.split())
        end = line.start_seconds if line.track == "written" else line.end_seconds
    return counts


def embed_passages(lines: Sequence[Line], model: TextModel) -> Passages | None:
    """Return the passages of a track; None if it has no lines."""
    if not lines:
        return None
    counts = split_passages(lines)
    numbers = np.repeat(np.arange(len(counts)), counts)
    texts = [
        " ".join(line.text for _, line in group)
        for _, group in groupby(zip(numbers, lines, strict=True), key=lambda pair: pair[0])
    ]
    return Passages(model.embed(texts), np.array(counts))


def embed_tracks(
    lines: Lines,
    tracks: Iterable[int],
    model: TextModel,
    committing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> int:
    """Give the lines of some tracks their vectors; return the number of those that have lines.

    Args:
        lines: of a catalogue.
        tracks: ids.
        model: the text model.
        committing: entered for each commit.
    """
    number = 0
    for track_id in tracks:
        passages = embed_passages([each.line for each in lines.in_track(track_id)], model)
        if passages is not None:
            with committing():
                lines.put_passages(track_id, model.fingerprint, passages)
            number += 1
    return number
