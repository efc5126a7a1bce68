"""Heads applied to stored frames: pooling of clips and re-ranking of moments.

    pooling = HeadPooling(layout.head, digest)
    embeddings = pooling.embed_spans(frames, pts_seconds, spans, fps)   # [num_spans, dim], to be indexed
    scores = HeadScoring(layout.head, digest).scores(text, runs)        # one score per run of frames

Both compute on the CPU in float32 and read the head when it is first used.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scanonce.models.clip4clip.head_files import read_head
from scanonce.models.clip4clip.heads import Head, SequentialHead, TightHead
from scanonce.models.encoders.hub import HEAD_FILES, head_digest
from scanonce.models.runtime import use_one_thread
from scanonce.models.vectors import as_float32
from scanonce.storage.errors import EncoderError
from scanonce.storage.targets import answering_rows, first_targets, target_bounds

# frames of all clips that are pooled together: 8 MB for each tensor of a block at width 512
_BATCH_FRAMES = 1024

HeadType = TypeVar("HeadType", bound=Head)


class _StoredHead(Generic[HeadType]):
    """The head in the folder of an index, read when it is first used.

    Args:
        folder: folder with its files.
        digest: `models.encoders.hub.head_digest` of these files, as in the manifest.
        kind: class of the head.
        purpose: use of the head in the index, for errors.
    """

    def __init__(self, folder: Path, digest: str, kind: type[HeadType], purpose: str) -> None:
        self._folder, self._digest, self._kind, self._purpose = folder, digest, kind, purpose
        self._head: HeadType | None = None

    def get(self) -> HeadType:
        """Return the head.

        Raises:
            EncoderError: its files are missing, have another digest or hold a head of another kind.
        """
        if self._head is None:
            head = self._read()
            if not isinstance(head, self._kind):
                raise EncoderError(f"{self._folder} holds no head that {self._purpose}: {head}.")
            self._head = head
        return self._head

    def _read(self) -> Head | None:
        try:
            found = head_digest([self._folder / name for name in HEAD_FILES])
        except OSError:
            found = None
        if found != self._digest:
            raise EncoderError(
                f"{self._folder} should hold the head that {self._purpose} ({self._digest[:12]}); it is missing or "
                "damaged. Run `scanonce index` with the encoder of the index, which restores it, or restore a backup."
            )
        return read_head(self._folder)


class HeadPooling:
    """`models.clip4clip.pooling.Pooling` by a sequential head.

    Cost of a transformer at CLIP's width of 512: 25 MFLOP per frame of a clip, 0.3 GFLOP for 12 frames, next to 8.8 per
    frame in ViT-B/32. Except for rounding in the last bits, results do not depend on the other spans of a call.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Use the head in ``folder``, whose files have this `models.encoders.hub.head_digest`."""
        self._stored = _StoredHead(folder, digest, SequentialHead, "pools the clips of this index")

    @torch.inference_mode()
    def embed_spans(
        self,
        frames: NDArray[np.floating],
        pts_seconds: NDArray[np.float64],
        spans: NDArray[np.float64],
        fps: float,
    ) -> NDArray[np.float32]:
        """Embed spans ``[num_spans, dim]``; see `models.clip4clip.pooling.Pooling.embed_spans`.

        Raises:
            EncoderError: the files of the head are missing or damaged.
        """
        head = self._stored.get()
        use_one_thread()
        raw = torch.from_numpy(np.require(as_float32(frames), requirements="W"))
        starts = first_targets(pts_seconds, fps)
        chosen = [
            answering_rows(starts, spread_evenly(first, last, head.config.max_frames))
            for first, last in target_bounds(spans, fps).tolist()
        ]
        embeddings = np.empty((len(spans), head.config.dim), np.float32)
        # spans of similar length together: they need little padding
        order = np.argsort([len(rows) for rows in chosen], kind="stable")
        for batch in np.array_split(order, max(1, _num_batches(chosen))):
            if len(batch):
                inputs, mask = _padded(raw, [chosen[number] for number in batch])
                embeddings[batch] = head(inputs, mask).numpy()
        return embeddings


class HeadScoring:
    """`search.rerank.Scoring` by a tight head.

    Cost at CLIP's width of 512: 25 MFLOP for the query and each frame, so 13 GFLOP for 40 runs of 12 frames.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Use the head in ``folder``, whose files have this `models.encoders.hub.head_digest`."""
        self._stored = _StoredHead(folder, digest, TightHead, "re-ranks the results of this index")

    @torch.inference_mode()
    def scores(
        self, text: NDArray[np.float32], runs: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        """Score a query with runs of frames, all in one pass; see `search.rerank.Scoring.scores`.

        As in training, query and frames are raw, and frames of a long run are sampled evenly.

        Raises:
            EncoderError: the files of the head are missing or damaged.
        """
        head = self._stored.get()
        use_one_thread()
        taken = [run[spread_evenly(0, len(run), head.config.max_frames)] for run in runs]
        ends = np.cumsum([0, *map(len, taken)])
        raw = np.require(as_float32(np.concatenate(taken)), requirements="W")
        rows = [np.arange(first, last) for first, last in pairwise(ends)]
        inputs, mask = _padded(torch.from_numpy(raw), rows)
        query = torch.from_numpy(np.array(text, np.float32))[None]  # [1, dim]
        scores: NDArray[np.float32] = head(query, inputs, mask)[0].numpy()
        return scores


def spread_evenly(first: int, last: int, most: int) -> NDArray[np.int64]:
    """Rows ``first`` to ``last - 1``, or ``most`` of them, evenly spread, if there are more.

    As in upstream, both ends are taken and positions between them are truncated to integers.

        >>> spread_evenly(10, 20, 4).tolist()
        [10, 13, 16, 19]
    """
    if last - first <= most:
        return np.arange(first, last)
    return first + np.linspace(0, last - first - 1, most).astype(np.int64)


def _num_batches(chosen: Sequence[NDArray[np.int64]]) -> int:
    return -(-sum(len(rows) for rows in chosen) // _BATCH_FRAMES)


def _padded(frames: Tensor, chosen: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Frames [B, T, dim] of runs of rows, with zeros after the shorter ones, and their mask [B, T]."""
    longest = max(len(rows) for rows in chosen)
    inputs = torch.zeros(len(chosen), longest, frames.shape[1])
    mask = torch.zeros(len(chosen), longest, dtype=torch.bool)
    for number, rows in enumerate(chosen):
        inputs[number, : len(rows)] = frames[torch.from_numpy(rows)]
        mask[number, : len(rows)] = True
    return inputs, mask
