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

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.clip4clip import as_float32, span_rows
from scanonce.models.encoder import HEAD_FILES, head_digest
from scanonce.models.runtime import use_one_thread
from scanonce.storage.errors import EncoderError

HeadKind = Literal["mean", "transformer", "lstm", "tight"]
"""How the frames of a clip become one vector, or with ``tight`` one score."""

SEQUENTIAL_KINDS = ("transformer", "lstm")
"""Kinds with one vector of a video, whatever is asked: these can be indexed."""

HEAD_CONFIG, HEAD_WEIGHTS = HEAD_FILES

_BATCH_FRAMES = (
    1024  # of all clips that are pooled together: 8 MB for each tensor of a block at width 512
)

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


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What decides the shapes and the arithmetic of a head."""

    kind: HeadKind
    dim: int
    """Width of frame features and of what comes out."""
    max_frames: int
    """Frames of a clip it was trained on; of longer ones as many are taken, evenly spread."""
    positions: int
    """Position vectors there are."""
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
    """meanP: ``unit(masked mean(unit(frame)))``, as `models.clip4clip.mean_pool` does with numbers of numpy.

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


class HeadPooling:
    """The `models.clip4clip.Pooling` of a sequential head, on the CPU in float32.

    Its files are read when it is first used. Cost of a transformer at CLIP's width of 512: 25 MFLOP for each frame of
    a clip, 0.3 GFLOP for 12 frames, beside 8.8 for each frame in ViT-B/32. Results do not depend on what else is
    pooled in the same call but for rounding in the last bits.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Takes the head in ``folder``, whose files have this `models.encoder.head_digest`."""
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
        """Embeddings ``[num_spans, dim]``; see `models.clip4clip.Pooling.embed_spans`.

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
        """Takes the head in ``folder``, whose files have this `models.encoder.head_digest`."""
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


def write_head_tensors(config: HeadConfig, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """The same of the tensors of a head, each in its own number format."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{HEAD_WEIGHTS}.part"
    unfinished.write_bytes(save({name: each.contiguous().cpu() for name, each in tensors.items()}))
    unfinished.replace(folder / HEAD_WEIGHTS)
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / HEAD_CONFIG).write_text(text, encoding="utf-8")


def read_head(folder: Path) -> Head | None:
    """The head of an encoder's folder, float32 in evaluation mode on the CPU; None where it has none: mean pooling.

    Raises:
        EncoderError: one of its two files is missing or cannot be read, or its tensors are not those of its
            configuration.
    """
    found = read_head_tensors(folder)
    return None if found is None else head_of(*found, str(folder / HEAD_WEIGHTS))


def read_head_tensors(folder: Path) -> tuple[HeadConfig, dict[str, Tensor]] | None:
    """What `write_head_tensors` wrote, not checked against each other. Raises EncoderError where it cannot be read."""
    if not (folder / HEAD_CONFIG).exists() and not (folder / HEAD_WEIGHTS).exists():
        return None
    config = read_head_config(folder)
    try:
        return config, load_file(folder / HEAD_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"{folder / HEAD_WEIGHTS} cannot be read ({error}). Fetch the folder again."
        ) from error


def read_head_config(folder: Path) -> HeadConfig:
    """The sizes and the kind of the head in a folder. Raises EncoderError where they cannot be read."""
    path = folder / HEAD_CONFIG
    try:
        return HeadConfig(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise EncoderError(
            f"{path} cannot be read ({error.strerror}): a head is {HEAD_CONFIG} and {HEAD_WEIGHTS}. "
            "Fetch the folder again."
        ) from error
    except (ValueError, TypeError) as error:  # not JSON, an unknown key, a value not allowed
        raise EncoderError(
            f"{path} is not the configuration of a head: {error}. "
            f"Its keys: {', '.join(field.name for field in fields(HeadConfig))}."
        ) from error


def only_reranks(files: Sequence[Path]) -> bool:
    """Whether these files, of `models.encoder.ClipEncoder.head_files`, are a head that cannot pool.

    Raises:
        EncoderError: its configuration cannot be read.
    """
    return bool(files) and read_head_config(files[0].parent).kind not in SEQUENTIAL_KINDS


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


def check_tensors(source: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises EncoderError, which lists them all, where tensors are missing, unknown or of another shape."""
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"unknown: {name}" for name in given if name not in wanted]
    problems += [
        f"{name}: shape {list(given[name].shape)}, should be {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if problems:
        raise EncoderError(
            f"{source} does not hold what it should:\n  "
            + "\n  ".join(problems)
            + "\nFetch it again."
        )
