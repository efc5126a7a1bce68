"""Feedback: an answer again, after a person has picked moments of it and dismissed others.

    engine.search("a boat", more_like=[moments[2]], less_like=[moments[0]])

Rocchio (1971) moves the vector of a query towards the mean of the picked moments and away from that of the
dismissed ones. Text and images lie apart in the joint space, so the same sum is taken where both are comparable: of
log-odds. Those of a moment are those of the query, plus the mean of its likeness with the picked moments, less that
with the dismissed ones.

J. J. Rocchio, "Relevance feedback in information retrieval", in G. Salton (ed.), The SMART Retrieval System, 1971.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import unit
from scanonce.search.algebra import apart
from scanonce.search.answer import Search, Stopwatch, query_of
from scanonce.search.calibration import as_logits, as_probabilities
from scanonce.search.examples import stored_example, stored_piece
from scanonce.search.query import Like
from scanonce.search.result import SearchResult
from scanonce.search.snapshot import Snapshot
from scanonce.storage.errors import QueryError
from scanonce.storage.records import Moment

MOST_JUDGED = 32
"""Most moments of a query that are picked or dismissed."""

_PICKED, _DISMISSED = 0.75, 0.25
"""Weights of the mean of the picked and of the dismissed, if that of the query is 1: Salton and Buckley, "Improving
retrieval performance by relevance feedback", JASIS 41(4), 1990."""

_LEAST, _PER_SHOWN = 100, 4
"""Moments that are judged again: at least this many, and this many for each shown one."""

_SAME = 0.5
"""A moment with this tIoU or more with a dismissed one is left out."""

Piece = Moment | Like
"""A moment of an answer, or a piece of a video by its name."""


def deep(top: int) -> int:
    """Return the number of moments that are judged again, for this many that are shown."""
    return max(_LEAST, _PER_SHOWN * top)


def rocchio(
    probabilities: NDArray[np.float64],
    picked: NDArray[np.float64],
    dismissed: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the probabilities of moments after feedback.

    Args:
        probabilities: ``[num_moments]`` by the query.
        picked: ``[num_picked, num_moments]`` likeness with each picked moment, 0 to 1.
        dismissed: ``[num_dismissed, num_moments]`` likeness with each dismissed moment.

    >>> rocchio(np.array([0.5, 0.5]), np.array([[0.9, 0.1]]), np.empty((0, 2))).round(2)
    array([0.84, 0.16])
    """
    logits = as_logits(probabilities)
    if len(picked):
        logits = logits + _PICKED * _log_odds(picked).mean(axis=0)
    if len(dismissed):
        logits = logits - _DISMISSED * _log_odds(dismissed).mean(axis=0)
    return as_probabilities(logits)


def _log_odds(likeness: NDArray[np.float64]) -> NDArray[np.float64]:
    # nothing is more certain than a probability may be
    return as_logits(as_probabilities(as_logits(likeness)))


def like_of(piece: Piece) -> Like:
    """Return the piece of a video that a moment is."""
    if isinstance(piece, Like):
        return piece
    return Like(str(piece.path), piece.span.start_seconds, piece.span.end_seconds)


def pieces_of(pieces: Sequence[Piece], others: Sequence[Piece]) -> tuple[list[Like], list[Like]]:
    """Return the picked and the dismissed pieces.

    Raises:
        QueryError: they are more than `MOST_JUDGED`, or one of them is both.
    """
    if len(pieces) + len(others) > MOST_JUDGED:
        raise QueryError(
            f"at most {MOST_JUDGED} moments are picked or dismissed; got {len(pieces) + len(others)}"
        )
    more, less = [like_of(each) for each in pieces], [like_of(each) for each in others]
    if both := set(more) & set(less):
        raise QueryError(f"{min(map(str, both))} is picked and dismissed: take one of the two away")
    return more, less


class Feedback:
    """Picked and dismissed moments as vectors of one snapshot."""

    def __init__(self, snapshot: Snapshot, more: Sequence[Like], less: Sequence[Like]) -> None:
        """Pool the stored frames of the pieces.

        Raises:
            QueryError: one of them is of no video of the library.
        """
        self._snapshot = snapshot
        self._picked = [stored_example(snapshot, each)[0] for each in more]
        self._dismissed = [stored_example(snapshot, each)[0] for each in less]
        self._left_out = [stored_piece(snapshot, each) for each in less]

    def alike(self, search: Search) -> SearchResult:
        """Find the moments that look like the mean of the picked ones; their probability is their likeness."""
        if not self._picked:
            return SearchResult("", ())
        middle = unit(np.mean(self._picked, axis=0))
        towards = self._snapshot.judge.towards(middle)[None]
        features = TextFeatures(towards, np.empty((1, 0), np.float32))
        return search.answer(["more like this"], features, Stopwatch())[0]

    def judged_by(
        self, moments: Sequence[Moment], text: str, features: TextFeatures, reading: Reading
    ) -> list[Moment]:
        """Give moments the probability that they show a text, by their frames."""
        if not moments:
            return []
        query = query_of(features, 0)
        found = self._snapshot.judge.by_frames(text, query, self._embedded(moments), reading)
        return [
            replace(each, probability=value)
            for each, value in zip(moments, found.tolist(), strict=True)
        ]

    def again(self, moments: Sequence[Moment], top: int) -> tuple[Moment, ...]:
        """Judge the moments of an answer again: other probabilities, best first, without the dismissed moments.

        Args:
            moments: of those of a video that overlap, the better one stays.
            top: the most to return.
        """
        kept = [each for each in moments if not self._is_dismissed(each)]
        if not kept:
            return ()
        embedded = self._embedded(kept)
        found = rocchio(
            np.array([each.probability for each in kept]),
            self._likeness(self._picked, embedded),
            self._likeness(self._dismissed, embedded),
        )
        again = [
            replace(each, probability=value)
            for each, value in zip(kept, found.tolist(), strict=True)
        ]
        return tuple(apart(again, overlap=self._snapshot.settings.nms_overlap)[:top])

    def _embedded(self, moments: Sequence[Moment]) -> NDArray[np.float32]:
        """Pool the stored frames of moments, ``[num_moments, dim]``; each video is read once."""
        rows: dict[int, list[int]] = defaultdict(list)
        for number, each in enumerate(moments):
            rows[each.video_id].append(number)
        snapshot = self._snapshot
        pooled = np.empty((len(moments), snapshot.index.manifest.dim), np.float32)
        for video_id, numbers in rows.items():
            spans = [moments[number].span for number in numbers]
            bounds = np.array([(each.start_seconds, each.end_seconds) for each in spans])
            pooled[numbers] = snapshot.index.embed(snapshot.videos[video_id], bounds)
        return pooled

    def _likeness(
        self, pieces: Sequence[NDArray[np.float32]], embedded: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        judge = self._snapshot.judge
        rows = [judge.alike(judge.towards(each), embedded) for each in pieces]
        return np.stack(rows) if rows else np.empty((0, len(embedded)))

    def _is_dismissed(self, moment: Moment) -> bool:
        return any(
            moment.video_id == video.video_id and moment.span.tiou(span) >= _SAME
            for video, span in self._left_out
        )
