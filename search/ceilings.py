"""The highest probability that a query may have in a video, found without looking for its moments.

    kept = KeptTexts()
    ceilings(snapshot, queries, video_ids, kept.of(snapshot.encoder, texts, encode, read))     # [num_queries]

To locate a query in a video takes many times as long as to judge it. A hundred saved searches, most of which have no
match in a new video, are therefore judged first: each window of a ladder of lengths is pooled once and multiplied with
all queries. Moments lie between these windows, so the ceiling is that of the best window plus `SLACK`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import pool_spans, unit
from scanonce.search import algebra
from scanonce.search.calibration import BY_FRAMES, UNCALIBRATED, as_logits, as_probabilities
from scanonce.search.channels import asks_images
from scanonce.search.composing import joins_examples
from scanonce.search.line_moments import Part
from scanonce.search.localise import Query as Vectors
from scanonce.search.query import (
    And,
    Atom,
    Given,
    Like,
    Not,
    Or,
    Query,
    Text,
    Then,
    Weighted,
    is_plain,
    is_wanted,
    leaves,
)
from scanonce.search.snapshot import Snapshot

SLACK = 0.5
"""Log-odds by which a moment may be better than the best window; `benchmarks.compounds --ceilings` finds the most."""

MOST_VIDEOS = 32
"""In more videos the vector index is faster than the windows of all of them."""

_STEP, _HOPS = 1.5, 4
"""Ratio of successive lengths of windows, and windows that begin within the length of one."""

_BLOCK = 4096  # windows that are pooled at once: 8 MB of 512 dimensions

_MOST_KEPT = 4096  # texts


@dataclass(frozen=True, slots=True, eq=False)
class KeptText:
    """A text as the encoder reads it."""

    joint: NDArray[np.float32]
    """``[dim]`` raw features."""
    states: NDArray[np.float32]
    """``[text width]``."""
    reading: Reading


class KeptTexts:
    """Texts that are asked again and again, encoded once by each encoder. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._fingerprint = ""
        self._known: dict[str, KeptText] = {}

    def of(
        self,
        encoder: ClipEncoder,
        texts: Sequence[str],
        encode: Callable[[Sequence[str]], TextFeatures],
        read: Callable[[Sequence[str]], list[Reading]],
    ) -> dict[str, KeptText]:
        """Return texts as vectors; those that are new are encoded together.

        Args:
            encoder: what encodes them.
            texts: the texts.
            encode: encodes texts.
            read: says how the encoder reads texts.
        """
        with self._lock:
            if self._fingerprint != encoder.fingerprint:
                self._fingerprint, self._known = encoder.fingerprint, {}
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            if len(self._known) + len(new) > _MOST_KEPT:
                self._known, new = {}, list(dict.fromkeys(texts))
            if new:
                features = encode(new)
                rows = zip(new, features.joint, features.states, read(new), strict=True)
                self._known |= {text: KeptText(*row) for text, *row in rows}
            return {text: self._known[text] for text in texts}


def ceilings(
    snapshot: Snapshot,
    queries: Sequence[Query],
    video_ids: Sequence[int],
    texts: Mapping[str, KeptText],
) -> NDArray[np.float64]:
    """Return the highest probability that a moment of some videos may have, for each query.

    Args:
        snapshot: the library.
        queries: the queries.
        video_ids: searchable videos.
        texts: all texts of the queries, as vectors.

    Returns:
        ``[num_queries]`` from 0 to 1; 1 if nothing can be said without looking for moments.
    """
    parts = list(dict.fromkeys(leaf for query in queries for leaf in leaves(query)))
    asked = [part for part in parts if isinstance(part, Text)]
    seen = [part for part in asked if asks_images(snapshot, part)]
    # Alone, a text has moments; in a query of several parts, the pieces of moments are judged by their frames too.
    alone: dict[Atom, float] = dict.fromkeys(asked, 0.0)
    joined: dict[Atom, float] = {**dict.fromkeys(parts, 1.0), **alone}
    if snapshot.frame_means is not None and seen:
        return np.ones(
            len(queries)
        )  # a head pools the clips: its embeddings are not those of windows
    for video_id in video_ids if seen else ():
        found = _by_images(snapshot, [part.words for part in seen], video_id, texts)
        for part, (of_moment, of_frames) in zip(seen, found.tolist(), strict=True):
            alone[part] = max(alone[part], of_moment)
            joined[part] = max(joined[part], of_moment, of_frames)
    if snapshot.lines.num_lines:
        for part in asked:
            words = snapshot.lines.find(Part.of(part), list(video_ids))
            wrong = math.prod(1.0 - each.probability for each in words)
            for values in (alone, joined):
                values[part] = 1.0 - (1.0 - values[part]) * wrong
    return np.array([ceiling_of(query, alone if is_plain(query) else joined) for query in queries])


def ceiling_of(query: Query, values: Mapping[Atom, float]) -> float:
    """Return the highest probability of a query, from those of its parts.

    >>> values = {Text("boat"): 0.7, Text("snow"): 0.2}
    >>> ceiling_of(And((Text("boat"), Text("snow"))), values)
    0.2
    >>> ceiling_of(And((Text("boat"), Not(Text("snow")))), values)
    0.7
    """
    match query:
        case Text() | Like() | Given():
            return values[query]
        case Weighted():
            return algebra.weighed(ceiling_of(query.query, values), query.weight)
        case Not():
            return 1.0
        case Or():
            return max(ceiling_of(part, values) for part in query.parts)
        case And():
            if joins_examples(query):
                return 1.0  # one image is looked for, which is none of the words and the examples
            wanted = [part for part in query.parts if is_wanted(part)]
            return min((ceiling_of(part, values) for part in wanted), default=1.0)
        case Then():
            return min(ceiling_of(query.first, values), ceiling_of(query.second, values))
        case _:
            assert_never(query)


def _by_images(
    snapshot: Snapshot, words: Sequence[str], video_id: int, texts: Mapping[str, KeptText]
) -> NDArray[np.float64]:
    """Return the highest probabilities of each text in the images of one video.

    Returns:
        ``[num_texts, 2]``: as a moment of the localiser, and by frames alone.
    """
    judge, localiser = snapshot.judge, snapshot.methods.localiser
    stored = snapshot.stored(snapshot.videos[video_id])
    (frames,) = stored.frames([(0.0, stored.duration_seconds)])
    if not len(frames.frames):
        return np.zeros((len(words), 2))
    queries = [
        Vectors(unit(texts[each].joint), texts[each].joint, texts[each].states) for each in words
    ]
    joint = np.stack([each.joint for each in queries])
    units = unit(frames.frames)
    evidence = np.full(len(words), -np.inf)
    cosines = np.full(len(words), -np.inf)
    spans = windows(stored.duration_seconds, frames.fps)
    for start in range(0, len(spans), _BLOCK):
        pooled = pool_spans(units, frames.pts_seconds, spans[start : start + _BLOCK], frames.fps)
        evidence = np.maximum(evidence, judge.bank.evidence_of_each(joint, pooled).max(axis=0))
        cosines = np.maximum(cosines, (pooled @ joint.T).max(axis=0))
    scores = localiser.highest_scores(queries, stored, cosines)
    if localiser.score_is_sigmoid:
        scores = as_logits(scores)
    found = []
    for k, each in enumerate(words):
        share = texts[each].reading.share
        weights, _ = judge.weights(localiser, each)
        by_frames = judge.calibration.weights(BY_FRAMES, each) or UNCALIBRATED
        here = slice(k, k + 1)
        of_moment = weights.probabilities(evidence[here], scores[here], share)[0]
        of_frames = by_frames.probabilities(evidence[here], cosines[here], share)[0]
        found.append((of_moment, of_frames))
    highest: NDArray[np.float64] = as_probabilities(as_logits(np.array(found)) + SLACK)
    return highest


def windows(duration_seconds: float, fps: float) -> NDArray[np.float64]:
    """Return spans of many lengths all over a video.

    >>> windows(2.0, 1.0).tolist()
    [[0.0, 1.0], [1.0, 2.0], [0.0, 2.0]]

    Args:
        duration_seconds: length of the video.
        fps: targets per second.

    Returns:
        ``[num_spans, 2]`` seconds; lengths from one target to the whole video.
    """
    num_targets = max(1, math.ceil(duration_seconds * fps))
    ladder = np.rint(_STEP ** np.arange(1 + math.log(num_targets) / math.log(_STEP)))
    lengths = np.unique(np.append(ladder[ladder < num_targets], num_targets).astype(np.int64))
    spans = []
    for length in lengths.tolist():
        first = np.arange(0, num_targets - length + 1, max(1, length // _HOPS))
        first = np.unique(np.append(first, num_targets - length))
        spans.append(np.stack([first, first + length], axis=1) / fps)
    return np.concatenate(spans)
