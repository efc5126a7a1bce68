"""Parts of SOONet (arXiv 2303.08345): video encoder, content encoder and boundary regressor, as plain modules.

    encoder = VideoEncoder(AnchorGrid(), dim=512, window=64, num_heads=8, legacy_mask=False)
    whole = PiecePosition(0, 18000, torch.tensor([18000]))
    levels = encoder(frames, whole)                            # [1, 18000, 512] -> [1, N_i, 512] by scale

The video encoder is a pyramid of Swin V2 layers in one dimension (arXiv 2111.09883). Tokens are anchors: the output of
a layer is the anchors of its scale, and the elementwise maximum of two neighbours is their parent in the next scale.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.soonet.grid import AnchorGrid

_FORBIDDEN = -100.0  # added by the published code to logits of forbidden attention
_FEW_ROWS = 32  # too few to pay for the change of layout
_BIAS_WIDTH = 512  # hidden width of the position bias in Swin V2, for any width of the model
_DROPOUT = 0.1  # dropout of content attention in training
# probability of skipping a branch of the last block in training; it rises from 0 at the first block, as in Swin
_DROP_PATH = 0.1


@dataclass(frozen=True, slots=True)
class PiecePosition:
    """Position of a piece in its padded video, in frames or tokens."""

    start: int
    """First frame or token of the piece; windows of every scale begin there."""
    total: int
    """Length of the whole video, padding included."""
    real: Tensor
    """``[B]`` length of the whole video, padding excluded."""

    def in_tokens(self, length: int) -> "PiecePosition":
        """The same position in tokens of ``length`` frames."""
        real = torch.div(self.real + length - 1, length, rounding_mode="floor")
        return PiecePosition(self.start // length, self.total // length, real)

    def valid(self, num_tokens: int) -> Tensor:
        """``[B, num_tokens]``, true for tokens of the piece that are not padding."""
        positions = torch.arange(self.start, self.start + num_tokens, device=self.real.device)
        return positions < self.real[:, None]


# ------------------------------------------------ video encoder


class VideoEncoder(nn.Module):
    """Pyramid from frames to contexts of the anchors of every scale."""

    def __init__(
        self, grid: AnchorGrid, *, dim: int, window: int, num_heads: int, legacy_mask: bool
    ) -> None:
        """Draw new weights; ``window`` tokens attend to each other; see `legacy_labels` for the mask."""
        super().__init__()
        self.lengths = grid.lengths
        self.window = window
        self.legacy_mask = legacy_mask
        self.patch_embed = _PatchEmbedding(dim, grid.snippet_length)
        rates = [_DROP_PATH * n / (2 * grid.num_scales - 1) for n in range(2 * grid.num_scales)]
        self.layers = nn.ModuleList(
            _Layer(dim, window, num_heads, rates[2 * scale : 2 * scale + 2])
            for scale in range(grid.num_scales)
        )
        self.apply(_init_linear)

    def forward(self, frames: Tensor, position: PiecePosition) -> list[Tensor]:
        """Contexts by scale, ``[B, L / length_i, D]``.

        Args:
            frames: ``[B, L, D]``, whole anchors of the coarsest scale.
            position: position of these frames in the video.
        """
        tokens: Tensor = self.patch_embed(frames)  # [B, N_0, D]
        levels: list[Tensor] = []
        for length, layer in zip(self.lengths, self.layers, strict=True):
            here = position.in_tokens(length)
            if levels:
                tokens = self._halve(tokens, position.in_tokens(length // 2), here)
            tokens = layer(tokens, *self._masks(tokens.shape[1], here))
            levels.append(tokens)
        return levels

    def _halve(self, tokens: Tensor, finer: PiecePosition, coarser: PiecePosition) -> Tensor:
        """Maximum of two neighbours; padding does not count, except in the published code."""
        batch, num_tokens, dim = tokens.shape
        if not self.legacy_mask:
            padding = ~finer.valid(num_tokens)[..., None]
            tokens = tokens.masked_fill(padding, -math.inf)
        parents = tokens.reshape(batch, num_tokens // 2, 2, dim).amax(dim=2)  # [B, N / 2, D]
        if not self.legacy_mask:
            parents = parents.masked_fill(~coarser.valid(num_tokens // 2)[..., None], 0.0)
        return parents

    def _masks(self, num_tokens: int, position: PiecePosition) -> tuple[Tensor | None, Tensor]:
        """Masks added to the logits of the unshifted and the shifted block, ``[B or 1, windows, w, w]`` each."""
        window, shift, device = self.window, self.window // 2, position.real.device
        padding = -num_tokens % window
        labels = torch.zeros(num_tokens + padding, dtype=torch.long, device=device)
        if self.legacy_mask:
            whole = legacy_labels(position.total, window).to(device)
            labels = whole[position.start : position.start + len(labels)].clone()
        labels[-shift:] = -1  # the first tokens of the piece, rolled to its end
        labels = labels.reshape(1, -1, window)
        apart = labels[..., :, None] != labels[..., None, :]  # [1, windows, w, w]
        if self.legacy_mask:
            return None, apart * _FORBIDDEN
        valid = F.pad(position.valid(num_tokens), (0, padding))  # [B, windows * w]
        return (
            _mask(valid, torch.zeros_like(apart)),
            _mask(valid.roll(-shift, dims=1), apart),
        )


def _mask(valid: Tensor, apart: Tensor) -> Tensor:
    """Hide padding and pairs that are apart; every token sees itself, so no row is empty (softmax would be NaN)."""
    window = apart.shape[-1]
    hidden = apart | ~valid.reshape(len(valid), -1, 1, window)  # [B, windows, w, w]
    hidden = hidden & ~torch.eye(window, dtype=torch.bool, device=hidden.device)
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, -math.inf)


def legacy_labels(num_tokens: int, window: int = 64) -> Tensor:
    """Labels of rolled tokens in the published code: tokens of a window with equal labels see each other.

    The cut should separate the last tokens from the padding after them, but the published code computes it with two
    windows (128) instead of the padded length. It is right at that length only; in longer videos a window near the end
    is cut at the wrong position, and the padding is seen. Weights trained with this mask need it.

    Returns:
        ``[num_tokens padded to whole windows]`` int64.
    """
    shift = window // 2
    padded = num_tokens + -num_tokens % window
    padding = padded - num_tokens
    missing = 2 * window + shift - num_tokens
    cut = max(0, padded - missing) if missing > 0 else min(padded, -missing)
    labels = torch.zeros(padded, dtype=torch.long)
    if padding in (0, shift):
        ranges = [(padded - window, padded - shift)]
    elif padding > shift:
        ranges = [(cut, padded - window), (padded - window, padded - shift)]
    else:
        ranges = [(padded - window, cut), (cut, padded - shift)]
    ranges.append((padded - shift, padded))
    for label, (start, end) in enumerate(ranges, start=1):
        labels[start:end] = label  # later ranges win; one that ends before it starts is empty
    return labels


class _PatchEmbedding(nn.Module):
    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(dim, dim, kernel_size=length, stride=length)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        snippets: Tensor = self.proj(frames.transpose(1, 2))  # [B, D, L] -> [B, D, N]
        normed: Tensor = self.norm(snippets.transpose(1, 2))  # [B, N, D]
        return normed


class _Layer(nn.Module):
    """An unshifted and a shifted block."""

    def __init__(self, dim: int, window: int, num_heads: int, drop_rates: list[float]) -> None:
        super().__init__()
        self.shift = window // 2
        self.blocks = nn.ModuleList(_Block(dim, window, num_heads, rate) for rate in drop_rates)

    def forward(self, tokens: Tensor, mask: Tensor | None, shifted_mask: Tensor) -> Tensor:
        plain, shifted = self.blocks
        result: Tensor = shifted(plain(tokens, mask, shift=0), shifted_mask, shift=self.shift)
        return result


class _Block(nn.Module):
    """Attention and MLP, each followed by its norm (res-post-norm); norms start at 0, so a new branch adds nothing."""

    def __init__(self, dim: int, window: int, num_heads: int, drop_rate: float) -> None:
        super().__init__()
        self.window = window
        self.drop_rate = drop_rate
        self.norm1 = nn.LayerNorm(dim)
        self.attn = _WindowAttention(dim, window, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim)
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None, *, shift: int) -> Tensor:
        batch, num_tokens, dim = tokens.shape
        rolled = F.pad(tokens, (0, 0, 0, -num_tokens % self.window)).roll(-shift, dims=1)
        windows = rolled.reshape(batch, -1, self.window, dim)  # [B, W, w, D]
        attended = self.attn(windows, mask).flatten(1, 2).roll(shift, dims=1)  # [B, W * w, D]
        tokens = tokens + self._dropped(self.norm1(attended[:, :num_tokens]))
        return tokens + self._dropped(self.norm2(self.mlp(tokens)))

    def _dropped(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_rate or torch.is_inference_mode_enabled():
            return branch
        keep = 1 - self.drop_rate
        return branch * (torch.rand(len(branch), 1, 1, device=branch.device) < keep) / keep


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.fc2 = nn.Linear(2 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return result


class _WindowAttention(nn.Module):
    """Cosine attention inside windows with a bias learnt from distances (Swin V2, sections 3.2 and 3.3)."""

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(self, dim: int, window: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        # distances stretched to [-8, 8], then log2(1 + |d|) / log2(8) with their sign
        distances = 8 * torch.arange(1 - window, window, dtype=torch.float32) / (window - 1)
        table = distances.sign() * (distances.abs() + 1).log2() / 3
        self.register_buffer("relative_coords_table", table[None, :, None])
        positions = torch.arange(window)
        index = positions[:, None] - positions[None, :] + window - 1  # query - key, from 0
        self.register_buffer("relative_position_index", index)
        self.cpb_mlp = nn.Sequential(
            nn.Linear(1, _BIAS_WIDTH), nn.ReLU(), nn.Linear(_BIAS_WIDTH, num_heads, bias=False)
        )
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """``[B, W, w, D]`` to the same shape; ``mask [B or 1, W, w, w]`` is added to the logits."""
        batch, num_windows, window, dim = windows.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(windows, self.qkv.weight, bias)  # [B, W, w, 3D]
        qkv = qkv.reshape(batch, num_windows, window, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # [B, W, H, w, D / H] each
        cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        scale = self.logit_scale.clamp(max=math.log(100)).exp()  # at most 100, as in Swin V2
        logits = cosines * scale + self._position_bias()  # [B, W, H, w, w]
        if mask is not None:
            logits = logits + mask[:, :, None]
        attended = logits.softmax(dim=-1) @ value
        projected: Tensor = self.proj(attended.transpose(2, 3).flatten(-2))  # [B, W, w, D]
        return projected

    def _position_bias(self) -> Tensor:
        """``[H, w, w]``, in (0, 16)."""
        by_distance: Tensor = self.cpb_mlp(self.relative_coords_table)[0]  # [2w - 1, H]
        bias = by_distance[self.relative_position_index]  # [w, w, H]
        return 16 * torch.sigmoid(bias.permute(2, 0, 1))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# ------------------------------------------------ second stage and boundaries


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``; for many rows at inference on a CPU by oneDNN, measured twice as fast as MKL on an AMD Zen 5."""
    plain = not torch.is_inference_mode_enabled() or inputs.device.type != "cpu"
    if plain or inputs.dtype != torch.float32 or not torch._C._has_mkldnn:
        return F.linear(inputs, weight, bias)
    rows = inputs.reshape(-1, inputs.shape[-1])
    if len(rows) < _FEW_ROWS:
        return F.linear(inputs, weight, bias)
    outputs = F.linear(
        rows.to_mkldnn(), weight.to_mkldnn(), None if bias is None else bias.to_mkldnn()
    )
    return outputs.to_dense().reshape(*inputs.shape[:-1], len(weight))


class ContentEncoder(nn.Module):
    """Self-attention of the frames of one anchor; positions count from its start."""

    def __init__(self, dim: int, *, num_heads: int, max_positions: int) -> None:
        """Draw new weights, for anchors of at most ``max_positions`` frames."""
        super().__init__()
        self.num_heads = num_heads
        self.posemb = _Positions(max_positions, dim)
        self.encoder = _Projections(dim)

    def project(self, frames: Tensor) -> Tensor:
        """Queries, keys and values of frames without positions: ``[..., D]`` to ``[..., 3D]``."""
        return product(frames, self.encoder.weight())

    def forward(self, frames: Tensor, projected: Tensor) -> Tensor:
        """``[K, a, D]`` frames and their `project` to contents ``[K, a, D]``.

        W (x + p) = W x + W p: a frame is projected once for all anchors and scales that contain it, a position once.
        """
        num_anchors, length, dim = frames.shape
        positions = self.posemb.embed.weight[:length].relu()
        positions = F.linear(positions, self.encoder.weight(), self.encoder.bias())  # [a, 3D]
        qkv = projected + positions
        qkv = qkv.reshape(num_anchors, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # [K, H, a, D / H] each
        noisy = self.training and not torch.is_inference_mode_enabled()
        attended = F.scaled_dot_product_attention(
            query, key, value, dropout_p=_DROPOUT if noisy else 0.0
        )
        return frames + attended.transpose(1, 2).flatten(-2)  # [K, a, D]


class _Positions(nn.Module):
    def __init__(self, num_positions: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_positions, dim)


class _Projections(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)

    def weight(self) -> Tensor:
        """``[3D, D]``"""
        return torch.cat([self.to_q.weight, self.to_k.weight, self.to_v.weight])

    def bias(self) -> Tensor:
        """``[3D]``"""
        return torch.cat([self.to_q.bias, self.to_k.bias, self.to_v.bias])


class Regressor(nn.Module):
    """Offsets of the boundaries of a moment, regressed from an anchor."""

    def __init__(self, dim: int) -> None:
        """Draw new weights."""
        super().__init__()
        self.fc_ctx = nn.Linear(dim, dim)
        self.fc_q = nn.Linear(dim, dim)
        self.fc_ctn = nn.Linear(dim, dim)
        self.attn = _FrameWeights(dim)
        self.predictor = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, 2))

    def forward(self, queries: Tensor, contexts: Tensor, contents: Tensor) -> Tensor:
        """``[D]`` or ``[K, D]``, ``[K, D]``, ``[K, a, D]`` to ``[K, 2]``."""
        gate = self.fc_q(queries).relu()
        context = self.fc_ctx(contexts).relu() * gate
        contents = product(contents, self.fc_ctn.weight, self.fc_ctn.bias)
        hidden = contents.relu() * gate.unsqueeze(-2)  # [K, a, D]
        content = (self.attn(hidden) * hidden).sum(dim=-2)
        offsets: Tensor = self.predictor(torch.cat([context, content], dim=-1))
        return offsets


class _FrameWeights(nn.Module):
    """Attention weights of the frames of an anchor."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim // 2)
        self.fc2 = nn.Linear(dim // 2, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[K, a, D]`` to ``[K, a, 1]``, which sum to 1 over the frames."""
        each = product(hidden, self.fc1.weight, self.fc1.bias).relu()
        weights: Tensor = self.fc2(each).softmax(dim=-2)
        return weights
