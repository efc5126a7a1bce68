"""CLIP4Clip's heads: networks over the frames of a clip (arXiv 2104.08860), weight-compatible.

    head = build_head("transformer", dim=512, max_frames=12, text_model=clip.text_model)   # models.clip4clip.build
    embeddings = embed_frames(head, frames, mask)      # [B, 512] of [B, 12, 512] raw features; head None: the mean

The kind ``mean`` has no parameters; its head is None everywhere. ``transformer`` and ``lstm`` (seqTransf, seqLSTM) are
sequential: they return one vector per video, independent of the query, so it can be indexed. ``tight`` (tightTransf)
scores a text with a video: it can only re-rank (`models.clip4clip.apply.HeadScoring`). Parameters have upstream's
names. Frames are *raw* projected features, as upstream's are: the residual is added first, unit length comes after it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LAYER_NORM_EPSILON = 1e-12  # upstream's own layer norm; CLIP's has 1e-5
_POSITION_STD = 0.01  # as in CLIP

HeadKind = Literal["mean", "transformer", "lstm", "tight"]
"""How the frames of a clip become one vector, or with ``tight`` a score for each text."""

SEQUENTIAL_KINDS = ("transformer", "lstm")
"""Kinds with one vector per video, independent of the query: these can be indexed."""


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Sizes and kind of a head: all that decides its shapes and its arithmetic."""

    kind: HeadKind
    dim: int
    """Width of frame features and of embeddings."""
    max_frames: int
    """Frames of a clip in training; of a longer clip this number is taken, evenly spread."""
    positions: int
    """Number of position vectors."""
    layers: int = 4
    """Transformer blocks; the LSTM has one layer."""
    heads: int = 8
    """Attention heads of a block."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(HeadKind) or self.kind == "mean":
            raise ValueError(f'kind must be "transformer", "lstm" or "tight"; got {self.kind!r}')
        for name in ("dim", "max_frames", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        needed = self.max_frames + (self.kind == "tight")
        if self.positions < needed:
            raise ValueError(f"positions must be {needed} or more; got {self.positions}")
        if self.dim % self.heads:
            raise ValueError(f"heads must divide dim {self.dim}; got {self.heads}")


class Head(nn.Module):
    """A head with parameters; the arguments of `forward` depend on its kind."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def position_vectors(self) -> Tensor:
        """[positions, dim]."""
        raise NotImplementedError

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Transformer blocks, first to last."""
        return ()


class SequentialHead(Head):
    """A head that embeds a video by its frames alone."""

    frame_position_embeddings: nn.Embedding

    @property
    def position_vectors(self) -> Tensor:
        """[positions, dim]."""
        return self.frame_position_embeddings.weight

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Embed clips.

        Args:
            frames: [B, T, dim] raw features in their order, the ones that count first.
            mask: [B, T] bool, true for frames that count.

        Returns:
            [B, dim] float32 of length 1; zero if no frame counts.
        """
        return mean_pool_tensors(self.contextualise(frames, mask), mask)

    def contextualise(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, dim]: each frame plus an output that depends on the other frames."""
        raise NotImplementedError


class TransformerHead(SequentialHead):
    """seqTransf: frames plus the output of a transformer over frames with positions."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.frame_position_embeddings = nn.Embedding(config.positions, config.dim)
        self.transformerClip = _Transformer(config.dim, config.layers, config.heads)
        nn.init.normal_(self.frame_position_embeddings.weight, std=_POSITION_STD)

    @property
    def blocks(self) -> nn.ModuleList:
        """Transformer blocks, first to last."""
        return self.transformerClip.resblocks

    def contextualise(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, dim]; T is at most the number of positions."""
        positions = self.position_vectors[: frames.shape[1]]  # [T, dim]
        attended: Tensor = self.transformerClip(frames + positions, mask)
        return frames + attended


class LstmHead(SequentialHead):
    """seqLSTM: frames plus the output of one layer that reads them from first to last."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        # Upstream has them and never reads them; kept so that a conversion loses nothing of a checkpoint.
        self.frame_position_embeddings = nn.Embedding(config.positions, config.dim)
        self.frame_position_embeddings.weight.requires_grad_(False)
        self.lstm_visual = nn.LSTM(config.dim, config.dim, batch_first=True)
        nn.init.normal_(self.frame_position_embeddings.weight, std=_POSITION_STD)

    def contextualise(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, dim]; frames that do not count stay as they are."""
        lengths = mask.sum(dim=1).clamp(min=1)  # an empty row cannot be packed
        packed = nn.utils.rnn.pack_padded_sequence(
            frames, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        read, _ = self.lstm_visual(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            read, batch_first=True, total_length=frames.shape[1]
        )
        return frames + states


class TightHead(Head):
    """tightTransf: a transformer over a text and the frames of a video together, which scores the pair."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.cross = _Cross(config)
        self.similarity_dense = nn.Linear(config.dim, 1)
        nn.init.normal_(self.similarity_dense.weight, std=0.02)
        nn.init.zeros_(self.similarity_dense.bias)

    @property
    def position_vectors(self) -> Tensor:
        """[positions, dim]."""
        return self.cross.embeddings.position_embeddings.weight

    @property
    def blocks(self) -> nn.ModuleList:
        """Transformer blocks, first to last."""
        return self.cross.transformer.resblocks

    def forward(self, texts: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Score every text with every video. Cost: a pass over T + 1 tokens for each of the Q * B pairs.

        Args:
            texts: [Q, dim] raw features.
            frames: [B, T, dim] raw features.
            mask: [B, T] bool, true for frames that count.

        Returns:
            [Q, B] float32, higher is better; not a cosine, its range is not bounded.
        """
        num_texts, num_videos, num_frames = len(texts), len(frames), frames.shape[1]
        first = texts[:, None, None].expand(-1, num_videos, 1, -1)  # [Q, B, 1, dim]
        rest = frames[None].expand(num_texts, -1, -1, -1)  # [Q, B, T, dim]
        tokens = torch.cat([first, rest], dim=2).flatten(0, 1)  # [Q * B, 1 + T, dim]
        counts = F.pad(mask, (1, 0), value=True)[None].expand(num_texts, -1, -1).flatten(0, 1)
        assert counts.shape == (num_texts * num_videos, 1 + num_frames)
        scores: Tensor = self.similarity_dense(self.cross(tokens, counts))  # [Q * B, 1]
        return scores.float().view(num_texts, num_videos)


class _Cross(nn.Module):
    """Upstream's cross encoder. It has no token types: its position, the first, distinguishes the text from frames."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.embeddings = _PositionEmbedding(config.positions, config.dim)
        self.transformer = _Transformer(config.dim, config.layers, config.heads)
        self.pooler = _FirstToken(config.dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[N, dim] of tokens [N, L, dim]: the output at the first of them."""
        pooled: Tensor = self.pooler(self.transformer(self.embeddings(tokens), mask))
        return pooled


class _PositionEmbedding(nn.Module):
    def __init__(self, positions: int, dim: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, dim)
        self.dropout = nn.Dropout(0.1)
        nn.init.normal_(self.position_embeddings.weight, std=_POSITION_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: tokens.shape[1]]  # [L, dim]
        embedded: Tensor = self.dropout(tokens + positions)
        return embedded


class _FirstToken(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ln_pool = nn.LayerNorm(dim, eps=_LAYER_NORM_EPSILON)
        self.dense = nn.Linear(dim, dim)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, dim] of [N, L, dim]."""
        return _quick_gelu(self.dense(self.ln_pool(tokens[:, 0])))


class _Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, heads, layers) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[N, L, width]; tokens that do not count in mask [N, L] are not attended to."""
        # If no token counts, all do: the result is not used, but must not be NaN.
        padded = ~(mask | ~mask.any(dim=1, keepdim=True))
        for block in self.resblocks:
            tokens = block(tokens, padded)
        return tokens


class _Block(nn.Module):
    """A pre-norm block; queries, keys and values all come from the normalised tokens."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPSILON)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=_QuickGelu(),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPSILON)
        self._initialise(width, layers)

    def _initialise(self, width: int, layers: int) -> None:
        """Initialise as CLIP's text tower (Radford et al. 2021): residuals shrink with the number of blocks."""
        residual = width**-0.5 * (2 * layers) ** -0.5
        state = dict(self.named_parameters())
        nn.init.normal_(state["attn.in_proj_weight"], std=width**-0.5)
        nn.init.normal_(state["attn.out_proj.weight"], std=residual)
        nn.init.normal_(state["mlp.c_fc.weight"], std=(2 * width) ** -0.5)
        nn.init.normal_(state["mlp.c_proj.weight"], std=residual)
        for name in ("attn.in_proj_bias", "attn.out_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias"):
            nn.init.zeros_(state[name])

    def forward(self, tokens: Tensor, padded: Tensor) -> Tensor:
        """[N, L, width]; tokens that are true in ``padded`` [N, L] are not attended to."""
        normed = self.ln_1(tokens)
        attended, _ = self.attn(normed, normed, normed, key_padding_mask=padded, need_weights=False)
        tokens = tokens + attended
        fed: Tensor = self.mlp(self.ln_2(tokens))
        return tokens + fed


class _QuickGelu(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return _quick_gelu(values)


def _quick_gelu(values: Tensor) -> Tensor:
    return values * torch.sigmoid(1.702 * values)


def head_class(kind: HeadKind) -> type[Head]:
    """Return the class of a kind that has parameters."""
    classes: dict[HeadKind, type[Head]] = {
        "transformer": TransformerHead,
        "lstm": LstmHead,
        "tight": TightHead,
    }
    return classes[kind]


def mean_pool_tensors(frames: Tensor, mask: Tensor) -> Tensor:
    """meanP: ``unit(masked mean(unit(frame)))``; `models.vectors.mean_pool` is the same for numpy arrays.

    Args:
        frames: [B, T, dim], raw or unit.
        mask: [B, T] bool.

    Returns:
        [B, dim] float32 of length 1; zero, with a gradient of zero, if no frame counts.
    """
    weights = mask.to(torch.float32)[..., None]  # [B, T, 1]
    units = F.normalize(frames.float(), dim=-1, eps=1e-12)
    mean = (units * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1, eps=1e-12)


def embed_frames(head: Head | None, frames: Tensor, mask: Tensor) -> Tensor:
    """Embeddings [B, dim] of clips, by a sequential head or else by the mean; see `SequentialHead.forward`.

    A tight head has no embeddings: the index of its encoder holds means.
    """
    if isinstance(head, SequentialHead):
        embeddings: Tensor = head(frames, mask)
        return embeddings
    return mean_pool_tensors(frames, mask)
