"""The text bank of an encoder: what else could be said about a moment, as vectors.

    bank = open_bank(encoder)
    bank.evidence(query, moments)       # [num_moments], 3 and more if the query says it better than most texts

A cosine alone says little: its level differs between encoders, queries and images. So a query is compared with
thousands of everyday texts (`search.bank`) on the same moment, as in zero-shot classification (Radford et al., 2021,
arXiv 2103.00020). Nothing of it depends on the library.

The bank is embedded once per encoder: seconds with a small one, half a minute with a large one. It is kept in the
cache of the Hugging Face hub, by the fingerprint of the encoder and a digest of the texts.
"""

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.kept import kept_file
from scanonce.models.vectors import as_float32, unit
from scanonce.search.bank import bank
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.files import write_whole

logger = logging.getLogger(__name__)

_BATCH = 64
_EMBEDDINGS = "embeddings"
_LEAST_SPREAD = 1e-6  # of a bank whose texts are all alike on a moment

_RIDGE = 0.3
"""Of `TextBank.likeness`: variance that is added in all directions, as a share of the greatest one. Chosen on the films
of `benchmarks.compounds --fit`, of which an image finds its scene among the first five for 79 %; for 71 % by the
correlation of cosines with the texts of the bank, which weighs the directions the other way round."""

_FEW = 8
"""Of `TextBank.centre`: number of clips for which the mean of the bank stands."""


@dataclass(frozen=True, eq=False)
class TextBank:
    """The texts of the bank as embeddings of one encoder."""

    embeddings: NDArray[np.float32]
    """``[num_texts, dim]`` of length 1, in the order of `search.bank.bank`."""

    @cached_property
    def _mean(self) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = self.embeddings.mean(axis=0)
        return mean

    @cached_property
    def _covariance(self) -> NDArray[np.float32]:
        """``[dim, dim]``: gives the spread of all cosines of a moment without computing them."""
        rows = self.embeddings - self._mean
        return as_float32(rows.T @ rows / len(rows))

    def _spread(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviation of the cosines of each row with the bank, ``[num_rows]``."""
        return _lengths(rows, self._covariance)

    def evidence(
        self, query: NDArray[np.float32], moments: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Say how far a query is above the bank on each moment, in standard deviations of the bank on that moment.

        Args:
            query: ``[dim]`` of length 1.
            moments: ``[num_moments, dim]`` of length 1.

        Returns:
            ``[num_moments]``: 0 for a text like any other, 3 and more for one that describes the moment.
        """
        return as_float32(_products(moments, query - self._mean) / self._spread(moments))

    def evidence_of_each(
        self, queries: NDArray[np.float32], moments: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the evidence of several queries on each moment, but for the last bits of `evidence`.

        Args:
            queries: ``[num_queries, dim]`` of length 1.
            moments: ``[num_moments, dim]`` of length 1.

        Returns:
            ``[num_moments, num_queries]``.
        """
        variance = np.einsum("ij,ij->i", moments @ self._covariance, moments)
        spread = np.sqrt(np.maximum(variance, _LEAST_SPREAD**2))
        return as_float32(moments @ (queries - self._mean).T / spread[:, None])

    def direction(self, offset: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the direction in which moments are more like an image, ``[dim]`` of length 1.

        Args:
            offset: ``[dim]``, the image less the centre of the library.
        """
        return unit(self._precision @ offset)

    def likeness(
        self,
        direction: NDArray[np.float32],
        moments: NDArray[np.float32],
        centre: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Say how alike two images are: their cosine after whitening, from the centre of the library.

        Cosines of two images are high for any two, since images have a direction of their own in the joint space; so
        they are measured from the mean of the library. Directions in which texts differ most count less (whitening):
        else the kind of scene decides alone, and colours and things count for nothing.

        Args:
            direction: ``[dim]``, `direction` of one of them.
            moments: ``[num_moments, dim]``.
            centre: ``[dim]``, the mean of the clips of the library.

        Returns:
            ``[num_moments]`` in [-1, 1]; 1 for the image itself, about 0 for one that has nothing in common.
        """
        rows = moments - centre
        lengths = _lengths(rows, self._precision) * _lengths(direction[None], self._widened)
        cosines = _products(rows, direction) / lengths
        return as_float32(np.clip(cosines, -1.0, 1.0))

    def whitened(self, offset: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a difference of two embeddings, ``[dim]``, with a length of 1 after whitening."""
        return as_float32(offset / _lengths(offset[None], self._precision)[0])

    def text_offset(self, text: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how a text differs from the texts of the bank, `whitened`."""
        return self.whitened(text - self._mean)

    def centre(self, clips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the centre of a library, ``[dim]``, from a sample of its clips, ``[num_clips, dim]``.

        A few clips give no mean, so the mean of the bank counts as some more.
        """
        total = clips.sum(axis=0) + _FEW * self._mean
        return as_float32(total / (len(clips) + _FEW))

    @cached_property
    def _widened(self) -> NDArray[np.float32]:
        """``[dim, dim]``, the covariance with `_RIDGE`, as a share of the greatest variance."""
        covariance = self._covariance.astype(np.float64)
        greatest = max(float(np.linalg.eigvalsh(covariance)[-1]), _LEAST_SPREAD**2)
        return as_float32(covariance / greatest + _RIDGE * np.eye(len(covariance)))

    @cached_property
    def _precision(self) -> NDArray[np.float32]:
        """``[dim, dim]``, the inverse of `_widened`."""
        return as_float32(np.linalg.inv(self._widened.astype(np.float64)))


def _lengths(rows: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each row by a matrix, the root of ``row @ matrix @ row``; over 0."""
    # Row by row: the numbers of a moment must not depend, even in the last bit, on its neighbours in the answer.
    squares = np.array([row @ (matrix @ row) for row in rows])
    return as_float32(np.sqrt(np.maximum(squares, _LEAST_SPREAD**2)))


def _products(rows: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the product of each row with a vector, each by itself."""
    products: NDArray[np.float32] = np.einsum("ij,j->i", rows, vector)
    return products


def bank_digest() -> str:
    """Digest of the texts of the bank."""
    return hashlib.sha256("\n".join(bank()).encode()).hexdigest()[:12]


def _cache_file(fingerprint: str) -> Path | None:
    """Return the file of an encoder's bank; None if the cache of this machine cannot be written."""
    return kept_file("text-bank", fingerprint, f"{bank_digest()}.safetensors")


def has_cached_bank(fingerprint: str) -> bool:
    """Whether the bank of an encoder is in the cache, so that `open_bank` takes no time."""
    path = _cache_file(fingerprint)
    return path is not None and path.exists()


def open_bank(encoder: ClipEncoder) -> TextBank:
    """Return the bank of an encoder with its text tower, from the cache, or embedded and kept there."""
    path = _cache_file(encoder.fingerprint)
    if path is not None and path.exists():
        try:
            kept = load_file(path)[_EMBEDDINGS].astype(np.float32)
            if kept.shape == (len(bank()), encoder.dim) and np.isfinite(kept).all():
                return TextBank(unit(kept))
        except (OSError, SafetensorError, KeyError) as error:
            logger.warning("%s is damaged and is made again: %s", path, error)
    texts = bank()
    parts = [encoder.encode_texts(texts[start:][:_BATCH]) for start in range(0, len(texts), _BATCH)]
    embeddings = unit(np.concatenate(parts)).astype(np.float16)
    if path is not None:
        content = save({_EMBEDDINGS: embeddings})
        try:
            write_whole(path, lambda file: file.write(content))
        except IndexDirectoryError as error:
            logger.warning("the text bank is embedded again next time: %s", error)
    return TextBank(unit(embeddings.astype(np.float32)))
