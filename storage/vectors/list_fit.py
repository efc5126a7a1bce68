"""How well the inverted lists of an IVF index still fit their clips, and when to train them again.

Lists are trained once and then extended. Clips unlike the training clips crowd into lists that were made for others and
that a search visits last: nothing fails, but these clips are found less often.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from scanonce.storage.vectors.codes import held_out_rows, training_rows
from scanonce.storage.vectors.rows import ClipRows

MAX_GROWTH = 1.25
"""Lists are trained again when they hold more than this number of times the clips they were trained on. Lists are so
fine that they fit videos, not only topics: of 24,000 clips of new videos about the same topics, added to 60,000,
recall@10 of text queries was .85, and 1.00 after training again. Training takes 9 CPU seconds there and 200 at a
million clips: less than a millisecond for each clip added, whatever the size of the library."""

ADDED_PROBES = 2
"""Factor of the number of lists that are searched while they hold clips they were not trained on: found .91 of those
above, and costs half a millisecond more."""

MIN_ADDED_SHARE = 0.05
"""New clips that are hard to find are accepted up to this share of the training clips, because the cost of training
grows with the library: once for 50,000 new clips of a million, that is 3 milliseconds a clip."""

MIN_COSINE_SHARE = 0.95
"""Least ratio of the mean cosine of new clips with their centroids to that of held-out videos. It is 1.00 if they are
about the same things. With 12,000 new clips added to 60,000, recall@10 of the new ones with twice the probes was .96 at
1.00, .92 at .96 (a quarter of them about topics never seen), .88 at .92 (half of them), and 1.00 after training
again."""

NEW_VIDEO_SHARE = 0.85
"""Ratio of the mean cosine of new videos with their centroids to that of other clips of training videos: measured .78
and .92 with 60,000 clips, .80 and .89 with 120,000."""

MAX_IMBALANCE_GROWTH = 2
"""Greatest factor of the imbalance right after training. The measured library had 1.6 then, and 6.2 when half of its
clips were about topics that came later. Small libraries are less even from the start."""

FIT_ROWS = 4_096
"""Rows whose nearest centroid is looked up to measure the fit: a quarter of a CPU second at 4096 lists of 512
dimensions, for a mean with an error of .002."""

_EVEN = 1.5
"""Lists up to this imbalance count as even."""


class ListFit(BaseModel):
    """How well inverted lists fit their clips: right after training, and with the clips added since."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained_clips: int
    """Clips they held right after training."""
    trained_cosine: float
    """Mean cosine of held-out videos with their centroids; new videos about the same things have about the same. It is
    estimated by `NEW_VIDEO_SHARE` if there are too few videos to hold some out."""
    trained_imbalance: float
    """FAISS's imbalance factor then: 1 if all lists are equally long."""
    added_clips: int = 0
    """Clips added since."""
    added_cosine: float = 0.0
    """Mean cosine of the added clips with the centroid of their list."""
    strange_clips: int = 0
    """Number of clips added in merges whose own mean cosine was below `MIN_COSINE_SHARE`: a late burst must not vanish
    in the mean of all earlier clips."""
    imbalance: float
    """FAISS's imbalance factor now."""

    @classmethod
    def measured(cls, codes: Any, rows: ClipRows) -> "ListFit":
        """Measure the fit of newly trained codes to their rows."""
        imbalance = codes.invlists.imbalance_factor()
        return cls(
            trained_clips=len(rows),
            trained_cosine=_expected_cosine(codes, rows),
            trained_imbalance=imbalance,
            imbalance=imbalance,
        )

    def extended(self, codes: Any, added: ClipRows) -> "ListFit":
        """Return the fit after ``codes`` were extended by the rows ``added``."""
        clips = self.added_clips + len(added)
        cosine = _centroid_cosine(codes, added, np.arange(len(added)))
        total = self.added_cosine * self.added_clips + cosine * len(added)
        is_strange = cosine < MIN_COSINE_SHARE * self.trained_cosine
        return self.model_copy(
            update={
                "added_clips": clips,
                "added_cosine": total / max(1, clips),
                "strange_clips": self.strange_clips + (len(added) if is_strange else 0),
                "imbalance": codes.invlists.imbalance_factor(),
            }
        )

    def misfit(self) -> str | None:
        """Return why the lists should be trained again, ``None`` if they need not be."""
        if self.added_clips < MIN_ADDED_SHARE * self.trained_clips:
            return None
        if self.added_cosine < MIN_COSINE_SHARE * self.trained_cosine:
            return (
                f"the mean cosine of new clips with their centroids is {self.added_cosine:.3f}, of "
                f"videos like those trained on {self.trained_cosine:.3f}"
            )
        if self.strange_clips >= MIN_ADDED_SHARE * self.trained_clips:
            return (
                f"{self.strange_clips} of {self.added_clips} new clips came in merges whose mean "
                f"cosine with their centroids is less than {MIN_COSINE_SHARE} of "
                f"{self.trained_cosine:.3f}"
            )
        if self.imbalance > MAX_IMBALANCE_GROWTH * max(_EVEN, self.trained_imbalance):
            return (
                f"imbalance of the lists grew from {self.trained_imbalance:.2f} to "
                f"{self.imbalance:.2f}"
            )
        if self.added_clips > (MAX_GROWTH - 1) * self.trained_clips:
            return f"{self.added_clips} clips were added to {self.trained_clips}"
        return None


def _expected_cosine(codes: Any, rows: ClipRows) -> float:
    """Return the mean cosine that new videos about the same things should have."""
    if len(held_out := held_out_rows(rows)):
        return _centroid_cosine(codes, rows, held_out)
    every = np.arange(len(rows))
    left_out = np.delete(every, training_rows(rows, codes.nlist))
    return NEW_VIDEO_SHARE * _centroid_cosine(codes, rows, left_out if len(left_out) else every)


def _centroid_cosine(codes: Any, rows: ClipRows, among: NDArray[np.int64]) -> float:
    """Return the mean cosine of a sample of the rows ``among`` with their nearest centroid; 0 if there are none."""
    sample = np.random.default_rng(0).permutation(among)[:FIT_ROWS]
    clips = rows.gather(np.sort(sample))
    # Centroids are unit vectors already; anchors of a localiser need not be.
    clips /= np.maximum(np.linalg.norm(clips, axis=1, keepdims=True), 1e-12)
    cosines, _ = codes.quantizer.search(clips, 1)
    return float(cosines.sum() / max(1, len(clips)))
