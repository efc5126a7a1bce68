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

_TEXT_WEIGHT = 3.0
"""Weight of a text that is asked for with an image, chosen on the films of `benchmarks.compounds --fit`."""


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
    centre: NDArray[np.float32]
    """``[dim]`` of the library (`search.text_bank.TextBank.centre`)."""

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

    def towards(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the direction to look in for moments like an image: ``[dim]`` of length 1."""
        return self.bank.direction(image - self.centre)

    def alike(
        self, direction: NDArray[np.float32], spans: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Judge spans, ``[num_spans, dim]`` of length 1, by their likeness with an image; ``[num_spans]``.

        Args:
            direction: `towards` the image, or `composed`.
            spans: the mean of the frames of each.
        """
        found = self.bank.likeness(direction, spans, self.centre)
        return np.clip(found.astype(np.float64), 0.0, 1.0)

    def composed(
        self,
        images: Sequence[tuple[NDArray[np.float32], float]],
        texts: Sequence[tuple[NDArray[np.float32], float]],
    ) -> NDArray[np.float32]:
        """Return the direction towards an image that is like some images, but as some texts say.

        The images and the texts are added as differences: from the centre of the library and from the texts of the
        bank. So words change what they speak of, and leave the rest as it is in the images.

        Args:
            images: ``[dim]`` each, and its weight.
            texts: ``[dim]`` each, and its weight.

        Returns:
            ``[dim]`` of length 1.
        """
        offset = np.zeros_like(self.centre)
        for image, weight in images:
            offset += weight * self.bank.whitened(image - self.centre)
        for text, weight in texts:
            offset += _TEXT_WEIGHT * weight * self.bank.text_offset(text)
        return self.bank.direction(offset)

    def is_calibrated(self, localiser: Localiser) -> bool:
        """Whether there are fitted weights for the moments of a localiser."""
        return localiser.calibration_key in self.calibration.by_key

    def by_image(
        self, direction: NDArray[np.float32], proposals: Sequence[Proposal]
    ) -> list[Judged]:
        """Judge moments by their likeness with an image; best first. See `alike`."""
        if not proposals:
            return []
        found = self.alike(direction, _embeddings(proposals))
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
