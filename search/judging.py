"""From proposals of a localiser to moments with probabilities, best first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import cosines_with
from scanonce.search.calibration import BY_FRAMES, UNCALIBRATED, Calibration, Weights, as_logits
from scanonce.search.localise import Localiser, Proposal, Query
from scanonce.search.text_bank import TextBank


@dataclass(frozen=True, slots=True)
class Judged:
    """A proposal with its probability and its evidence."""

    proposal: Proposal
    probability: float
    evidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Judges moments by the bank and the calibration of an encoder."""

    bank: TextBank
    calibration: Calibration

    def by_text(
        self,
        text: str,
        query: Query,
        proposals: Sequence[Proposal],
        localiser: Localiser,
        reading: Reading,
    ) -> list[Judged]:
        """Judge the moments of a query, best first; equal probabilities keep their order.

        Args:
            text: the query.
            query: the query as vectors.
            proposals: the moments.
            localiser: what found them.
            reading: how the encoder reads the text.
        """
        if not proposals:
            return []
        weights, is_own = self.weights(localiser, text)
        evidence = self.bank.evidence(query.joint, _embeddings(proposals))
        scores = np.array([each.score for each in proposals])
        if localiser.score_is_sigmoid:
            scores = as_logits(scores)
        found = weights.probabilities(evidence, scores, reading.share)
        # The scores of a trained localiser that was never calibrated still order better than frames do: the order
        # stays, and the probabilities are dealt out along it.
        return _ordered(proposals, found, evidence, keeps_order=not is_own)

    def weights(self, localiser: Localiser, text: str) -> tuple[Weights, bool]:
        """Return the weights for a query, and whether they are for moments that this localiser finds."""
        key = localiser.calibration_key
        own = self.calibration.weights(key, text)
        if own is not None:
            return own, True
        by_frames = self.calibration.weights(BY_FRAMES, text) or UNCALIBRATED
        return by_frames, key == BY_FRAMES

    def by_frames(
        self, text: str, query: Query, spans: NDArray[np.float32], reading: Reading
    ) -> NDArray[np.float64]:
        """Judge spans by the mean of their frames alone, whatever localiser the index has.

        Args:
            text: the query.
            query: the query as vectors.
            spans: ``[num_spans, dim]`` of length 1, the pooled frames of each.
            reading: how the encoder reads the text.

        Returns:
            ``[num_spans]`` probabilities.
        """
        weights = self.calibration.weights(BY_FRAMES, text) or UNCALIBRATED
        evidence = self.bank.evidence(query.joint, spans)
        return weights.probabilities(evidence, cosines_with(query.joint, spans), reading.share)

    def alike(self, image: NDArray[np.float32], spans: NDArray[np.float32]) -> NDArray[np.float64]:
        """Judge spans, ``[num_spans, dim]`` of length 1, by their likeness with an image; ``[num_spans]``."""
        return np.clip(self.bank.likeness(image, spans).astype(np.float64), 0.0, 1.0)

    def is_calibrated(self, localiser: Localiser) -> bool:
        """Whether there are fitted weights for the moments of a localiser."""
        return localiser.calibration_key in self.calibration.by_key

    def by_image(self, image: NDArray[np.float32], proposals: Sequence[Proposal]) -> list[Judged]:
        """Judge moments by their likeness with an image, ``[dim]`` of length 1; best first."""
        if not proposals:
            return []
        found = self.alike(image, _embeddings(proposals))
        return _ordered(proposals, found, np.zeros(len(proposals)), keeps_order=False)


def _embeddings(proposals: Sequence[Proposal]) -> NDArray[np.float32]:
    return np.stack([each.embedding for each in proposals])


def _ordered(
    proposals: Sequence[Proposal],
    probabilities: NDArray[np.float64],
    evidence: NDArray[np.floating],
    *,
    keeps_order: bool,
) -> list[Judged]:
    falling = np.argsort(-probabilities, kind="stable")
    order = range(len(proposals)) if keeps_order else falling.tolist()
    return [
        Judged(proposals[k], float(probability), float(evidence[k]))
        for k, probability in zip(order, probabilities[falling].tolist(), strict=True)
    ]
