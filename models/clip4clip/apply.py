"""A head at work on stored frames: clips are pooled by it, or moments re-ranked."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scanonce.models.clip4clip.heads import Head, SequentialHead, TightHead, read_head
from scanonce.models.encoders.hub import HEAD_FILES, head_digest
from scanonce.models.runtime import use_one_thread
from scanonce.models.vectors import as_float32, span_rows
from scanonce.storage.errors import EncoderError

_BATCH_FRAMES = (
    1024  # of all clips that are pooled together: 8 MB for each tensor of a block at width 512
)


class HeadPooling:
    """The `models.clip4clip.pooling.Pooling` of a sequential head, on the CPU in float32.

    Its files are read when it is first used. Cost of a transformer at CLIP's width of 512: 25 MFLOP for each frame of
    a clip, 0.3 GFLOP for 12 frames, beside 8.8 for each frame in ViT-B/32. Results do not depend on what else is
    pooled in the same call but for rounding in the last bits.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Takes the head in ``folder``, whose files have this `models.encoders.load.head_digest`."""
        self._folder = folder
        self._digest = digest
        self._head: SequentialHead | None = None

    @torch.inference_mode()
    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Embeddings ``[num_spans, dim]``; see `models.clip4clip.pooling.Pooling.embed_spans`.

        Raises:
            EncoderError: the head's files are missing or not those it was made with.
        """
        head = self._load()
        use_one_thread()
        raw = torch.from_numpy(np.require(as_float32(frames), requirements="W"))
        chosen = [
            spread(first, last, head.config.max_frames)
            for first, last in zip(*span_rows(pts_seconds, spans), strict=True)
        ]
        embeddings = np.empty((len(spans), head.config.dim), np.float32)
        # those of a length together: little is padded
        order = np.argsort([len(rows) for rows in chosen], kind="stable")
        for places in np.array_split(order, max(1, _num_batches(chosen))):
            if len(places):
                inputs, mask = _padded(raw, [chosen[place] for place in places])
                embeddings[places] = head(inputs, mask).numpy()
        return embeddings

    def _load(self) -> SequentialHead:
        if self._head is None:
            head = _read_kept(self._folder, self._digest, "pools the clips of this index")
            if not isinstance(head, SequentialHead):
                raise EncoderError(f"{self._folder} holds a head that cannot pool: {head}.")
            self._head = head
        return self._head


class HeadScoring:
    """The `search.rerank.Scoring` of a tight head, on the CPU in float32.

    Its files are read when it is first used. Cost at CLIP's width of 512: 25 MFLOP for the sentence and each frame, so
    13 GFLOP for 40 runs of 12 frames.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Takes the head in ``folder``, whose files have this `models.encoders.load.head_digest`."""
        self._folder = folder
        self._digest = digest
        self._head: TightHead | None = None

    @torch.inference_mode()
    def scores(
        self, text: NDArray[np.float32], runs: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """How well a sentence fits runs of frames, all in one pass; see `search.rerank.Scoring.scores`.

        As in training, sentence and frames are raw, and of a long run frames are taken evenly.

        Raises:
            EncoderError: the head's files are missing or not those it was made with.
        """
        head = self._load()
        use_one_thread()
        taken = [run[spread(0, len(run), head.config.max_frames)] for run in runs]
        ends = np.cumsum([0, *map(len, taken)])
        raw = np.require(as_float32(np.concatenate(taken)), requirements="W")
        rows = [np.arange(first, last) for first, last in pairwise(ends)]
        inputs, mask = _padded(torch.from_numpy(raw), rows)
        sentence = torch.from_numpy(np.array(text, np.float32))[None]  # [1, dim]
        scores: NDArray[np.float32] = head(sentence, inputs, mask)[0].numpy()
        return scores

    def _load(self) -> TightHead:
        if self._head is None:
            head = _read_kept(self._folder, self._digest, "re-ranks what is found in this index")
            if not isinstance(head, TightHead):
                raise EncoderError(f"{self._folder} holds a head that cannot re-rank: {head}.")
            self._head = head
        return self._head


def _read_kept(folder: Path, digest: str, does: str) -> Head | None:
    """The head that an index keeps, whose files must have this digest; ``does`` is told where they have not."""
    try:
        found = head_digest([folder / name for name in HEAD_FILES])
    except OSError:
        found = None
    if found != digest:
        raise EncoderError(
            f"{folder} should hold the head that {does} ({digest[:12]}); it is missing or damaged. Run "
            "`scanonce index` with the encoder the index was made with, which puts it back, or restore a backup."
        )
    return read_head(folder)


def spread(first: int, last: int, most: int) -> NDArray[np.int64]:
    """Rows from ``first`` up to ``last``; where they are more than ``most``, so many of them, evenly spread.

    As upstream does it: both ends are taken, what lies between is cut to integers.

        >>> spread(10, 20, 4).tolist()
        [10, 13, 16, 19]
    """
    if last - first <= most:
        return np.arange(first, last)
    return first + np.linspace(0, last - first - 1, most).astype(np.int64)


def _num_batches(chosen: Sequence[NDArray[np.int64]]) -> int:
    return -(-sum(len(rows) for rows in chosen) // _BATCH_FRAMES)


def _padded(frames: Tensor, chosen: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Frames [B, T, dim] of runs of rows, with zeros behind the shorter ones, and their mask [B, T]."""
    longest = max(len(rows) for rows in chosen)
    inputs = torch.zeros(len(chosen), longest, frames.shape[1])
    mask = torch.zeros(len(chosen), longest, dtype=torch.bool)
    for place, rows in enumerate(chosen):
        inputs[place, : len(rows)] = frames[torch.from_numpy(rows)]
        mask[place, : len(rows)] = True
    return inputs, mask
