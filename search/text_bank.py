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
        # Row by row: the numbers of a moment must not depend, even in the last bit, on its neighbours in the answer.
        variance = np.array([row @ (self._covariance @ row) for row in rows])
        return as_float32(np.sqrt(np.maximum(variance, _LEAST_SPREAD**2)))

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

    def likeness(
        self, image: NDArray[np.float32], moments: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Say how alike two images are: the correlation of their cosines with all texts of the bank.

        Cosines of two images are high for any two, since images have a direction of their own in the joint space.

        Args:
            image: ``[dim]`` of length 1.
            moments: ``[num_moments, dim]`` of length 1.

        Returns:
            ``[num_moments]`` in [-1, 1]; 1 for the image itself.
        """
        together = _products(moments, self._covariance @ image)
        spreads = self._spread(moments) * self._spread(image[None])
        return as_float32(np.clip(together / spreads, -1.0, 1.0))


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
