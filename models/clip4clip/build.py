"""New CLIP4Clip heads, initialised from the text tower of an encoder, and the two namings of a transformer block.

    head = build_head("transformer", dim=512, max_frames=12, text_model=clip.text_model)

As in upstream, the text tower gives a head its positions and first blocks.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scanonce.models.clip4clip.heads import Head, HeadConfig, HeadKind, head_class
from scanonce.storage.errors import EncoderError

_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Parts of a block by OpenAI's and upstream's names, and their names in `transformers`; without queries, keys and
values, which OpenAI has in one matrix and `transformers` in three."""


def build_head(
    kind: HeadKind,
    dim: int,
    max_frames: int,
    text_model: nn.Module | None = None,
    *,
    layers: int = 4,
) -> Head | None:
    """Build a head to be trained, float32 on the CPU; None for ``mean``, which has nothing to train.

    As in upstream, positions and first blocks are copied from the text tower, which has learnt order. Blocks and
    positions that the tower does not have are drawn at random; a tower of another width is not used.

    Args:
        kind: kind of the head.
        dim: width of frame features.
        max_frames: frames of a clip in training.
        text_model: text tower of a `transformers` model; None: all parameters are drawn.
        layers: transformer blocks; ignored for an LSTM.

    Raises:
        EncoderError: the sizes are not allowed.
    """
    if kind == "mean":
        return None
    tower = {} if text_model is None else _usable_tower(text_model, dim)
    known = tower.get("embeddings.position_embedding.weight", torch.empty(0, dim))
    positions = max(len(known), max_frames + (kind == "tight"))
    heads = max(1, dim // 64)
    if tower and text_model is not None:  # its blocks compute something else with another number
        heads = int(text_model.config.num_attention_heads)  # type: ignore[union-attr, arg-type]
    try:
        config = HeadConfig(kind, dim, max_frames, positions, layers, heads)
    except ValueError as error:
        raise EncoderError(f"a {kind} head cannot be made: {error}.") from error
    head = head_class(kind)(config)
    with torch.no_grad():
        head.position_vectors[: len(known)] = known
    for number, block in enumerate(head.blocks):
        begin = f"encoder.layers.{number}."
        own = {name.removeprefix(begin): tower[name] for name in tower if name.startswith(begin)}
        if own:
            block.load_state_dict(block_from_transformers(own))
    return head


def _usable_tower(text_model: nn.Module, dim: int) -> dict[str, Tensor]:
    """Return the tensors of a text tower, float32; none if its widths are not those of a head."""
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


def block_from_transformers(block: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a `transformers` block to the names of OpenAI and upstream; the numbers stay the same.

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
    """Rename the tensors of a block of OpenAI or upstream to the names of `transformers`.

    Raises:
        KeyError: a tensor is missing.
    """
    theirs = {}
    for kind in ("weight", "bias"):
        parts = block[f"attn.in_proj_{kind}"].chunk(3)
        for part, tensor in zip(("q", "k", "v"), parts, strict=True):
            theirs[f"self_attn.{part}_proj.{kind}"] = tensor
        for upstream, name in _BLOCK_PARTS.items():
            theirs[f"{name}.{kind}"] = block[f"{upstream}.{kind}"]
    return theirs
