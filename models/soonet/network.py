"""SOONet: one scan of a video returns vectors of all its anchors (arXiv 2303.08345), weight-compatible.

    model = read_soonet(Path("SOONet_MAD_VIT-B-32_4Scale_10C.pth"))                # models.soonet.checkpoint
    scanned = model.scan(frames)                        # [L, 512] raw features at 5 fps; once, at indexing
    scores = score_anchors(model.query_vector(text), scanned.vectors)              # models.soonet.query

Only `Soonet.regress` reads video and query together: both stages of the ranking are inner products of a video vector
with a query vector. With mean pooling they are one inner product: a vector of ``2 * hidden_dim`` numbers per anchor
holds all that the ranking needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.runtime import use_one_thread
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.models.soonet.parts import ContentEncoder, PiecePosition, Regressor, VideoEncoder

# frames whose content is computed together: 10 MB of each projection
_PROJECTION_FRAMES = 5120

# Reach of the edge of a piece, in windows: in the shifted block of the finest scale half a window of tokens misses its
# neighbours. These are a quarter of a window in the next scale, whose unshifted block spreads that over the window and
# whose shifted block over half a window more: 1.5. That again is 0.75 windows of the scale after it, then 1, then 1.5,
# and so on. Two windows of the coarsest scale on either side contain it.
_OVERLAP_WINDOWS = 2

_BLOCK = 4096  # anchors that are converted to float32 at once


@dataclass(frozen=True, slots=True)
class SoonetConfig:
    """Sizes and variants: all that decides shapes and arithmetic; the defaults are the published model for MAD."""

    hidden_dim: int = 512
    snippet_length: int = 10
    """Frames per anchor of the finest scale."""
    num_scales: int = 4
    fps: float = 5.0
    """Frames per second in training."""
    window: int = 64
    """Tokens that attend to each other in the video encoder, an even number."""
    num_heads: int = 8
    stage2_pool: Literal["mean", "max"] = "mean"
    """Pooling of the scores of an anchor's frames. ``max`` cannot be stored as a vector of the anchor: the second stage
    is then computed for the candidates of each query (`Soonet.contents`, 2.4 MFLOP per frame)."""
    legacy_mask: bool = False
    """Mask windows as the published code does, with its defect, instead of as intended; see `legacy_labels`."""
    max_positions: int = 400
    """Number of position vectors: the greatest length of an anchor in frames."""
    frame_dim: int = 512
    """Width of frame features; if it is not ``hidden_dim``, a linear layer comes first."""
    text_dim: int = 512
    """Width of text features; if it is not ``hidden_dim``, a linear layer comes first."""
    text_features: Literal["states", "joint"] = "states"
    """``states``: the text tower's last hidden state without its projection, which published weights were trained on;
    ``joint``: its features in the joint space."""
    encoder_fingerprint: str | None = None
    """Encoder whose features it was trained on; None: any encoder of matching widths."""
    clip_weight: float = 0.0
    """Weight with which the cosine of the query and the frames of a regressed span is added to its score."""
    curve_tiou: float = 0.0
    """A regressed span takes its edges from the curve of frame scores if the curve has a span of at least this tIoU
    with it; 0: never, as published."""

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "num_heads", "max_positions", "frame_dim", "text_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                f"hidden_dim must be an even multiple of num_heads; got {self.hidden_dim}, {self.num_heads}"
            )
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and 2 or more; got {self.window}")
        if self.stage2_pool not in ("mean", "max"):
            raise ValueError(f'stage2_pool is "mean" or "max"; got {self.stage2_pool!r}')
        if self.text_features not in ("states", "joint"):
            raise ValueError(f'text_features is "states" or "joint"; got {self.text_features!r}')
        if self.grid.lengths[-1] > self.max_positions:
            raise ValueError(
                f"anchors of {self.grid.lengths[-1]} frames need as many positions; got {self.max_positions}"
            )

    @property
    def grid(self) -> AnchorGrid:
        """Grid of the anchors it scores."""
        return AnchorGrid(self.fps, self.snippet_length, self.num_scales)

    @property
    def vector_dim(self) -> int:
        """Width of the vectors of `Soonet.scan`."""
        return self.hidden_dim * (2 if self.stage2_pool == "mean" else 1)


@dataclass(frozen=True, slots=True, eq=False)
class ScannedVideo:
    """Stored arrays of a video: vectors for the ranking, and the lengths that restore raw contexts."""

    vectors: NDArray[np.floating]
    """``[num_anchors, vector_dim]``, rows as in `AnchorGrid`: ``unit(context)`` and, with mean pooling, the mean of the
    ``unit(content)`` of the frames."""
    norms: NDArray[np.float32]
    """``[num_anchors]``: ``context = unit(context) * norm``, so the context is not stored twice."""


class Soonet(nn.Module):
    """The network; names and shapes of its state dict are those of the published checkpoint."""

    def __init__(self, config: SoonetConfig | None = None) -> None:
        """Draw new weights."""
        super().__init__()
        self.config = config = config or SoonetConfig()
        dim = config.hidden_dim
        self.video_encoder = VideoEncoder(
            config.grid,
            dim=dim,
            window=config.window,
            num_heads=config.num_heads,
            legacy_mask=config.legacy_mask,
        )
        self.q2v_stage1 = _Linear(dim)
        self.v2q_stage1 = _Linear(dim)
        self.q2v_stage2 = _Stage2(config)
        self.v2q_stage2 = _Linear(dim)
        self.regressor = Regressor(dim)
        # no bias: the zero vectors after the end of a video stay zero
        self.input_frames = (
            nn.Identity()
            if config.frame_dim == dim
            else nn.Linear(config.frame_dim, dim, bias=False)
        )
        self.input_text = (
            nn.Identity() if config.text_dim == dim else nn.Linear(config.text_dim, dim)
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.regressor.fc_q.weight.device

    @property
    def content_encoder(self) -> ContentEncoder:
        """Part that computes `contents`."""
        return self.q2v_stage2.encoder

    def contexts(self, frames: Tensor, num_frames: Tensor | None = None) -> list[Tensor]:
        """Compute the context of every anchor.

        Args:
            frames: ``[B, L, frame_dim]`` raw features; padded with zeros to whole anchors of the coarsest scale here.
            num_frames: ``[B]`` frames that are not padding; None: all. The legacy mask ignores it.

        Returns:
            By scale ``[B, N_i, hidden_dim]``, with ``N_i = ceil(L / longest) * longest / length_i``; this includes
            anchors past the end of the video, whose contexts mean nothing.
        """
        longest = self.config.grid.lengths[-1]
        total = frames.shape[1]
        if num_frames is None:
            num_frames = torch.full((len(frames),), total, device=frames.device)
        padded = F.pad(self.input_frames(frames), (0, 0, 0, -total % longest))
        whole = PiecePosition(0, padded.shape[1], num_frames)
        levels: list[Tensor] = self.video_encoder(padded, whole)
        return levels

    def contents(self, frames: Tensor) -> Tensor:
        """Contents of anchors from their frames: ``[K, a, frame_dim]`` to ``[K, a, hidden_dim]``."""
        hidden = self.input_frames(frames)
        encoder = self.content_encoder
        contents: Tensor = encoder(hidden, encoder.project(hidden))
        return contents

    def query_vectors(self, texts: Tensor) -> Tensor:
        """Compute the vectors that anchors are compared with.

        Args:
            texts: ``[M, text_dim]`` raw text features.

        Returns:
            ``[M, 2 * hidden_dim]``: two unit vectors, the first for contexts, the second for contents.
        """
        query = self.input_text(texts)
        halves = (self.q2v_stage1.fc(query), self.q2v_stage2.qfc(query))
        return torch.cat([F.normalize(half, dim=-1) for half in halves], dim=-1)

    def regress(self, texts: Tensor, contexts: Tensor, contents: Tensor) -> Tensor:
        """Regress the boundaries of the moment from anchors of one scale.

        Args:
            texts: ``[text_dim]`` for all, or ``[K, text_dim]``, raw.
            contexts: ``[K, hidden_dim]``, raw.
            contents: ``[K, a, hidden_dim]`` of `contents`.

        Returns:
            ``[K, 2]``: offsets of start and end, in lengths of the anchor.
        """
        offsets: Tensor = self.regressor(self.input_text(texts), contexts, contents)
        return offsets

    @torch.inference_mode()
    def query_vector(self, text: ArrayLike) -> NDArray[np.float32]:
        """`query_vectors` of one text feature ``[text_dim]``: ``[2 * hidden_dim]`` float32."""
        use_one_thread()
        texts = torch.as_tensor(np.asarray(text, np.float32)[None], device=self.device)
        vector: NDArray[np.float32] = self.query_vectors(texts)[0].cpu().numpy()
        return vector

    @torch.inference_mode()
    def best_anchors(
        self, texts: NDArray[np.float32], vectors: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Return the highest ``s1 + s2`` of each text among some anchors.

        Args:
            texts: ``[num_texts, text_dim]`` raw text features.
            vectors: ``[num_anchors, vector_dim]`` of `scan`, at least one; read in blocks.

        Returns:
            ``[num_texts]``.
        """
        use_one_thread()
        queries = self.query_vectors(torch.as_tensor(texts, device=self.device)).cpu()
        best = torch.full((len(texts),), -torch.inf)
        for start in range(0, len(vectors), _BLOCK):
            block = torch.as_tensor(vectors[start : start + _BLOCK].astype(np.float32))
            scores = block @ queries[:, : block.shape[1]].T
            best = torch.maximum(best, scores.max(dim=0).values)
        result: NDArray[np.float32] = best.numpy()
        return result

    @torch.inference_mode()
    def scan(
        self,
        frames: NDArray[np.floating],
        *,
        dtype: type[np.float16] | type[np.float32] = np.float16,
        chunk_windows: int = 8,
    ) -> ScannedVideo:
        """Compute all that a query needs of a video.

        A long video is scanned in pieces, with the same result: attention in windows does not reach beyond the overlap
        of the pieces. A video that fits into one piece with its overlaps is scanned whole. At the published size 8
        windows are 2.3 hours.

        Args:
            frames: ``[L, frame_dim]`` raw features on the grid of the config, any float type; may be memory-mapped.
            dtype: number format of the vectors: float16 for storing.
            chunk_windows: length of a piece, in windows of the coarsest scale.
        """
        use_one_thread()
        config = self.config
        dim, lengths = config.hidden_dim, config.grid.lengths
        counts = [-(-len(frames) // length) for length in lengths]
        vectors = [np.zeros((count, config.vector_dim), dtype) for count in counts]
        norms = [np.zeros(count, np.float32) for count in counts]
        for first, contexts in self._context_pieces(frames, chunk_windows):
            for scale, (length, piece) in enumerate(zip(lengths, contexts, strict=True)):
                start = first // length
                real = piece[: counts[scale] - start]
                norm = real.norm(dim=-1)
                norms[scale][start : start + len(real)] = norm.cpu().numpy()
                units = real / norm.clamp_min(1e-12)[:, None]
                vectors[scale][start : start + len(real), :dim] = units.cpu().numpy()
        if config.stage2_pool == "mean":
            for first, contents in self._content_pieces(frames):
                for scale, (length, piece) in enumerate(zip(lengths, contents, strict=True)):
                    start = first // length
                    real = piece[: counts[scale] - start]
                    vectors[scale][start : start + len(real), dim:] = real.cpu().numpy()
        return ScannedVideo(np.concatenate(vectors), np.concatenate(norms))

    def _context_pieces(
        self, frames: NDArray[np.floating], chunk_windows: int
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield ``(first frame, [N_i, D] by scale)`` of the pieces of a video.

        A piece begins and ends at borders of windows of all scales. It is computed with an overlap on either side,
        which is dropped; see `_OVERLAP_WINDOWS`.
        """
        config, lengths = self.config, self.config.grid.lengths
        step = config.window * lengths[-1]  # frames
        overlap = _OVERLAP_WINDOWS * step
        total = len(frames)
        padded = total + -total % lengths[-1]
        num_frames = torch.tensor([total], device=self.device)
        core_length = max(1, chunk_windows) * step
        if padded <= core_length + 2 * overlap:
            core_length = max(1, padded)
        for core in range(0, padded, core_length):
            begin, end = max(0, core - overlap), min(padded, core + core_length + overlap)
            piece = self._hidden(frames, begin, end)[None]
            pyramid = self.video_encoder(piece, PiecePosition(begin, padded, num_frames))
            kept = [
                level[0, (core - begin) // length : (core + core_length - begin) // length]
                for level, length in zip(pyramid, lengths, strict=True)
            ]
            yield core, kept

    def _content_pieces(self, frames: NDArray[np.floating]) -> Iterator[tuple[int, list[Tensor]]]:
        """Yield ``(first frame, mean unit content [N_i, D] by scale)``; the scales share the projections of frames."""
        lengths = self.config.grid.lengths
        step = max(1, _PROJECTION_FRAMES // lengths[-1]) * lengths[-1]
        for start in range(0, len(frames), step):
            end = min(start + step, len(frames) + -len(frames) % lengths[-1])
            hidden = self._hidden(frames, start, end)  # [F, D]
            projected = self.content_encoder.project(hidden)  # [F, 3D]
            means = []
            for length in lengths:
                contents = self.content_encoder(
                    hidden.reshape(-1, length, hidden.shape[1]),  # [K, a, D]
                    projected.reshape(-1, length, projected.shape[1]),  # [K, a, 3D]
                )
                means.append(F.normalize(contents, dim=-1).mean(dim=1))
            yield start, means

    def _hidden(self, frames: NDArray[np.floating], first: int, last: int) -> Tensor:
        """Frames in the model's width, ``[last - first, D]``, zero after the end of the video."""
        piece = np.zeros((last - first, self.config.frame_dim), np.float32)
        stored = frames[first:last]
        piece[: len(stored)] = stored
        hidden: Tensor = self.input_frames(torch.from_numpy(piece).to(self.device))
        return hidden


class _Linear(nn.Module):
    """A linear layer under its published name, ``fc``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, dim)


class _Stage2(nn.Module):
    def __init__(self, config: SoonetConfig) -> None:
        super().__init__()
        dim = config.hidden_dim
        self.qfc = nn.Linear(dim, dim)
        self.encoder = ContentEncoder(
            dim, num_heads=config.num_heads, max_positions=config.max_positions
        )
