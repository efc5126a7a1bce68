"""CLIP4Clip's heads: the parts that look at the frames of a clip together (arXiv 2104.08860), weight-compatible.

    head = build_head("transformer", dim=512, max_frames=12, text_model=clip.text_model)
    embeddings = embed_frames(head, frames, mask)    # [B, 512] of [B, 12, 512] raw features; mean pooling with None
    scores = HeadScoring(folder, digest).scores(text, runs)    # of a tight head: how well a sentence fits each
    write_head(head, folder)                         # beside the encoder's own files; `read_head` gives it back

``mean`` has no parameters and is None everywhere. ``transformer`` and ``lstm`` (seqTransf, seqLSTM) give one vector of
a video, whatever is asked, so they can be indexed. ``tight`` (tightTransf) gives a score of a text with a video: it
can only re-rank (`HeadScoring`). Parameters are named as upstream names them. Frames are *raw* projected features, as
upstream's are: the residual is added first, unit length comes after it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.clip4clip.head_files import (
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    HeadConfig,
    HeadKind,
    check_tensors,
    read_head_tensors,
    write_head_tensors,
)
from scanonce.storage.errors import EncoderError

# Upstream's own layer norm, unlike that of CLIP.
_LAYER_NORM_EPSILON = 1e-12
_POSITION_STD = 0.01  # CLIP's

_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""What OpenAI and upstream call the parts of a block, and what `transformers` does; queries, keys and values apart."""


class Head(nn.Module):
    """A head with parameters; `forward` of its kinds differ."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config


class SequentialHead(Head):
    """A head that gives a video's vector from its frames alone."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of clips.

        Args:
            frames: [B, T, dim] raw features in their order, the ones that count first.
            mask: [B, T] bool, true for frames that count.

        Returns:
            [B, dim] float32 of length 1; zero where no frame counts.
        """
        return mean_pool(self.contextualise(frames, mask), mask)

    def contextualise(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, dim]: frames plus what those beside them make of them."""
        raise NotImplementedError


class TransformerHead(SequentialHead):
    """seqTransf: a transformer over frames with positions, added to the frames."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.frame_position_embeddings = nn.Embedding(config.positions, config.dim)
        self.transformerClip = _Transformer(config.dim, config.layers, config.heads)
        nn.init.normal_(self.frame_position_embeddings.weight, std=_POSITION_STD)

    def contextualise(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, dim], T at most the positions there are."""
        places = self.frame_position_embeddings.weight[: frames.shape[1]]  # [T, dim]
        attended: Tensor = self.transformerClip(frames + places, mask)
        return frames + attended


class LstmHead(SequentialHead):
    """seqLSTM: one layer that reads the frames from first to last, added to the frames."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        # Upstream has them and never reads them: kept, so that nothing of a checkpoint is lost.
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
    """tightTransf: a transformer over a text and the frames of a video together, which gives their score."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.cross = _Cross(config)
        self.similarity_dense = nn.Linear(config.dim, 1)
        nn.init.normal_(self.similarity_dense.weight, std=0.02)
        nn.init.zeros_(self.similarity_dense.bias)

    def forward(self, texts: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Scores of every text with every video. Cost: a pass over T + 1 tokens for each of the Q * B pairs.

        Args:
            texts: [Q, dim] raw features.
            frames: [B, T, dim] raw features.
            mask: [B, T] bool, true for frames that count.

        Returns:
            [Q, B] float32, higher is better; no cosine, of any size.
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
    """Upstream's cross encoder. It has no token types: a text is told from frames by its position, the first."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.embeddings = _Placed(config.positions, config.dim)
        self.transformer = _Transformer(config.dim, config.layers, config.heads)
        self.pooler = _FirstToken(config.dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[N, dim] of tokens [N, L, dim]: what the first of them has become."""
        pooled: Tensor = self.pooler(self.transformer(self.embeddings(tokens), mask))
        return pooled


class _Placed(nn.Module):
    def __init__(self, positions: int, dim: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, dim)
        self.dropout = nn.Dropout(0.1)
        nn.init.normal_(self.position_embeddings.weight, std=_POSITION_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        placed: Tensor = self.dropout(tokens + self.position_embeddings.weight[: tokens.shape[1]])
        return placed


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
        """[N, L, width]; nothing looks at tokens that do not count in mask [N, L]."""
        # where none counts they all do: the result is not used, and must not be NaN
        padded = ~(mask | ~mask.any(dim=1, keepdim=True))
        for block in self.resblocks:
            tokens = block(tokens, padded)
        return tokens


class _Block(nn.Module):
    """A pre-norm block: queries, keys and values all come from the normalised tokens."""

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
        """As CLIP's text tower begins (Radford et al. 2021): what a block adds shrinks with their number."""
        added = width**-0.5 * (2 * layers) ** -0.5
        state = dict(self.named_parameters())
        nn.init.normal_(state["attn.in_proj_weight"], std=width**-0.5)
        nn.init.normal_(state["attn.out_proj.weight"], std=added)
        nn.init.normal_(state["mlp.c_fc.weight"], std=(2 * width) ** -0.5)
        nn.init.normal_(state["mlp.c_proj.weight"], std=added)
        for name in ("attn.in_proj_bias", "attn.out_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias"):
            nn.init.zeros_(state[name])

    def forward(self, tokens: Tensor, padded: Tensor) -> Tensor:
        """[N, L, width]; ``padded`` [N, L] is true for tokens not to be looked at."""
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


_CLASSES: Mapping[str, type[Head]] = {
    "transformer": TransformerHead,
    "lstm": LstmHead,
    "tight": TightHead,
}


# ---------------------------------------------------------------- pooling


def mean_pool(frames: Tensor, mask: Tensor) -> Tensor:
    """meanP: ``unit(masked mean(unit(frame)))``, as `models.vectors.mean_pool` does with numbers of numpy.

    Args:
        frames: [B, T, dim], raw or unit.
        mask: [B, T] bool.

    Returns:
        [B, dim] float32 of length 1; zero, with a gradient of zero, where no frame counts.
    """
    weights = mask.to(torch.float32)[..., None]  # [B, T, 1]
    units = F.normalize(frames.float(), dim=-1, eps=1e-12)
    mean = (units * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return F.normalize(mean, dim=-1, eps=1e-12)


def embed_frames(head: Head | None, frames: Tensor, mask: Tensor) -> Tensor:
    """Embeddings [B, dim] of clips, by a sequential head or, without one, by the mean; see `SequentialHead.forward`.

    A tight head has no embeddings: what is indexed beside it is the mean.
    """
    if isinstance(head, SequentialHead):
        embeddings: Tensor = head(frames, mask)
        return embeddings
    return mean_pool(frames, mask)


# ---------------------------------------------------------------- beginnings


def build_head(
    kind: HeadKind,
    dim: int,
    max_frames: int,
    text_model: nn.Module | None = None,
    *,
    layers: int = 4,
) -> Head | None:
    """A head to be trained, float32 on the CPU; None for ``mean``, which has nothing to train.

    As upstream does, it begins with what the text tower knows of order: its positions and its first blocks are copied.
    A text tower of another width is not used, blocks it lacks begin at random; so do positions behind its last one.

    Args:
        kind: which head.
        dim: of frame features.
        max_frames: of a clip in training.
        text_model: text tower of a `transformers` model; None: everything begins at random.
        layers: transformer blocks; for an LSTM not looked at.

    Raises:
        EncoderError: the sizes are not allowed.
    """
    if kind == "mean":
        return None
    tower = {} if text_model is None else _usable_tower(text_model, dim)
    positions = tower.get("embeddings.position_embedding.weight", torch.empty(0, dim))
    needed = max_frames + (kind == "tight")
    heads = _num_heads(text_model) if tower and text_model is not None else max(1, dim // 64)
    try:
        config = HeadConfig(kind, dim, max_frames, max(len(positions), needed), layers, heads)
    except ValueError as error:
        raise EncoderError(f"a {kind} head cannot be made: {error}.") from error
    head = _CLASSES[kind](config)
    places, transformer = _parts(head)
    with torch.no_grad():
        places[: len(positions)] = positions
    if transformer is not None:
        for number, block in enumerate(transformer.resblocks):
            begin = f"encoder.layers.{number}."
            own = {
                name.removeprefix(begin): tower[name] for name in tower if name.startswith(begin)
            }
            if own:
                block.load_state_dict(block_from_transformers(own))
    return head


def _parts(head: Head) -> tuple[Tensor, _Transformer | None]:
    """The positions of a head, and its blocks."""
    if isinstance(head, TransformerHead):
        return head.frame_position_embeddings.weight, head.transformerClip
    if isinstance(head, TightHead):
        return head.cross.embeddings.position_embeddings.weight, head.cross.transformer
    assert isinstance(head, LstmHead)
    return head.frame_position_embeddings.weight, None


def _usable_tower(text_model: nn.Module, dim: int) -> dict[str, Tensor]:
    """The tensors of a text tower, float32; none where their widths are not those of a head."""
    inner = getattr(text_model, "text_model", text_model)  # some classes wrap the tower once more
    state = {name: tensor.detach().float().cpu() for name, tensor in inner.state_dict().items()}
    wanted = {
        "embeddings.position_embedding.weight": (None, dim),
        "encoder.layers.0.mlp.fc1.weight": (4 * dim, dim),
    }
    for name, (rows, columns) in wanted.items():
        shape = state[name].shape if name in state else (0, 0)
        if shape[1] != columns or rows not in (None, shape[0]):
            return {}
    return state


def _num_heads(text_model: nn.Module) -> int:
    """Attention heads of a text tower: its blocks mean nothing with another number."""
    return int(text_model.config.num_attention_heads)  # type: ignore[union-attr, arg-type]


def block_from_transformers(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A block in the naming of OpenAI and upstream, of one of `transformers`; the numbers are the same.

    Raises:
        KeyError: a tensor is missing.
    """
    ours = {}
    for kind in ("weight", "bias"):
        parts = [block[f"self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v")]
        ours[f"attn.in_proj_{kind}"] = torch.cat(parts)
        for upstream, name in _BLOCK_PARTS.items():
            ours[f"{upstream}.{kind}"] = block[f"{name}.{kind}"]
    return ours


def block_to_transformers(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back of `block_from_transformers`."""
    theirs = {}
    for kind in ("weight", "bias"):
        parts = block[f"attn.in_proj_{kind}"].chunk(3)
        for part, tensor in zip(("q", "k", "v"), parts, strict=True):
            theirs[f"self_attn.{part}_proj.{kind}"] = tensor
        for upstream, name in _BLOCK_PARTS.items():
            theirs[f"{name}.{kind}"] = block[f"{upstream}.{kind}"]
    return theirs


# ---------------------------------------------------------------- on disk


def write_head(head: Head | None, folder: Path) -> None:
    """Writes ``head.safetensors`` and ``head.json`` into a folder; for None, mean pooling, removes what is there."""
    if head is not None:
        write_head_tensors(head.config, head.state_dict(), folder)
        return
    for name in (HEAD_CONFIG, HEAD_WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def read_head(folder: Path) -> Head | None:
    """The head of an encoder's folder, float32 in evaluation mode on the CPU; None where it has none: mean pooling.

    Raises:
        EncoderError: one of its two files is missing or cannot be read, or its tensors are not those of its
            configuration.
    """
    found = read_head_tensors(folder)
    return None if found is None else head_of(*found, str(folder / HEAD_WEIGHTS))


def head_of(config: HeadConfig, tensors: Mapping[str, Tensor], source: str) -> Head:
    """A head of these tensors, which must be all of its own and no others; ``source`` is named where they are not.

    Raises:
        EncoderError: lists what is missing, unknown or of another shape.
    """
    head = _shapes_of(config)
    check_tensors(source, head.state_dict(), tensors)
    head.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    for name, parameter in head.named_parameters():
        parameter.requires_grad_(
            not (config.kind == "lstm" and name == "frame_position_embeddings.weight")
        )
    return head.eval()


def check_head_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises EncoderError as `head_of` does, and makes none."""
    check_tensors(source, _shapes_of(config).state_dict(), tensors)


def _shapes_of(config: HeadConfig) -> Head:
    with torch.device("meta"):  # without numbers
        return _CLASSES[config.kind](config)
