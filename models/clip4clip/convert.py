"""Conversion of published CLIP4Clip checkpoints to encoder folders and back, lossless in both directions.

    convert_to_folder(Path("pytorch_model.bin.4"), Path("my-encoder"), tokenizer="openai/clip-vit-base-patch32")
    convert_to_published(Path("my-encoder"), Path("pytorch_model.bin.4"))

A published checkpoint is a bare dictionary of tensors: ``clip.*`` with OpenAI's names, and those of the head
(`models.clip4clip.heads`). The folder is a `transformers` CLIPModel with the files of the head. Both directions are
strict: a tensor that is missing, unknown or of another shape is an error that names it. Tensors keep their number
formats, which differ within a published file.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from scanonce.models.clip4clip.build import block_from_transformers, block_to_transformers
from scanonce.models.clip4clip.head_files import (
    check_head_tensors,
    check_tensors,
    read_head_tensors,
    write_head_tensors,
)
from scanonce.models.clip4clip.heads import HeadConfig, HeadKind
from scanonce.models.clip4clip.openai import is_archive, read_openai
from scanonce.models.encoders.hub import find_folder, weight_files
from scanonce.models.encoders.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    Preprocessing,
    write_preprocessing,
)
from scanonce.storage.errors import EncoderError, EncoderUnavailable
from scanonce.storage.untrusted import DamagedFile, parse_object

DEFAULT_TOKENIZER = "openai/clip-vit-base-patch32"
"""All of OpenAI's CLIPs have the same tokenizer."""

_HEAD_WIDTH = 64
"""Width of an attention head in all of OpenAI's towers."""

_SAME = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
"""Tensors that are the same in both, by OpenAI's names, with their names in `transformers`."""

_TRANSPOSED = {
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
}
"""Tensors that `transformers` has transposed."""

_BLOCKS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
"""Prefixes of the blocks of the vision and of the text tower."""

_NOT_LEARNED = {"clip.input_resolution", "clip.context_length", "clip.vocab_size", "clip.attn_mask"}
"""Tensors that may be in a published file; all follow from the shapes of others."""
_NOT_LEARNED_IN_FOLDERS = {
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
}
"""Tensors 0, 1, 2 ... that earlier versions of `transformers` wrote."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
)


@dataclass(frozen=True, slots=True)
class Converted:
    """A published checkpoint with the names of an encoder folder."""

    clip: dict[str, Tensor]
    """Tensors of a `transformers` CLIPModel."""
    config: CLIPConfig
    head: tuple[HeadConfig, dict[str, Tensor]] | None
    """Configuration and tensors of the head; None: mean pooling."""


# ---------------------------------------------------------------- published file to folder


def convert_to_folder(
    source: Path,
    out: Path,
    *,
    tokenizer: str = DEFAULT_TOKENIZER,
    max_frames: int = 12,
    is_openai: bool = False,
) -> None:
    """Write a published checkpoint as a folder for ``scanonce index --encoder``.

    Args:
        source: a published checkpoint, such as ``pytorch_model.bin.4``.
        out: a folder that does not exist yet.
        tokenizer: a hub id or a folder with the tokenizer of a CLIP in the `transformers` format: a published
            checkpoint has none.
        max_frames: frames of a clip in the training of the head, which the file does not contain: 12 in the recipes
            for MSR-VTT, MSVD and LSMDC, 64 in those for ActivityNet and DiDeMo.
        is_openai: ``source`` is one of OpenAI's archives (`models.clip4clip.openai`), such as ``ViT-B-32.pt``.

    Raises:
        EncoderError: ``source`` is not such a checkpoint, ``out`` exists, or the tokenizer does not fit.
        EncoderUnavailable: the tokenizer is not on this machine, and the hub cannot be reached.
    """
    _refuse_existing(out, "folder")
    if not source.is_file():
        raise EncoderError(f"{source} is not a file: give a published checkpoint.")
    state = read_openai(source) if is_openai else _read_published(source)
    converted = from_published(state, source=str(source), max_frames=max_frames)
    files = _tokenizer_files(tokenizer, converted.config.text_config.vocab_size)
    with _unfinished(out) as folder:
        _write_clip(converted, folder)
        if converted.head is not None:
            write_head_tensors(*converted.head, folder)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        folder.rename(out)


def from_published(
    state: Mapping[str, Tensor], *, source: str = "the checkpoint", max_frames: int = 12
) -> Converted:
    """Rename the tensors of a published checkpoint; they are views if possible.

    Raises:
        EncoderError: the tensors are not those of a CLIP4Clip checkpoint; the message names ``source``.
    """
    _refuse_other_towers(state, source)
    clip = {
        name.removeprefix("clip."): tensor
        for name, tensor in state.items()
        if name.startswith("clip.") and name not in _NOT_LEARNED
    }
    others = {name: tensor for name, tensor in state.items() if not name.startswith("clip.")}
    config = _clip_config(clip, source)
    check_tensors(source, _published_shapes(config), _with_prefix(clip, "clip."))
    head = _head_config(others, clip["text_projection"].shape[1], max_frames, source)
    if head is None:
        check_tensors(source, {}, others)
        return Converted(_clip_to_transformers(clip), config, None)
    check_head_tensors(head, others, source)
    return Converted(_clip_to_transformers(clip), config, (head, others))


def _refuse_other_towers(state: Mapping[str, Tensor], source: str) -> None:
    """Raise EncoderError that describes a file of another kind."""
    if "optimizer_state_dict" in state:
        raise EncoderError(
            f"{source} holds the state of an optimizer. The weights are in pytorch_model.bin.N in the same folder."
        )
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange or not state:
        raise EncoderError(
            f"{source} is not a dictionary of tensors"
            + (f": it holds {strange[0]}." if strange else ": it is empty.")
            + " Give the pytorch_model.bin.N of a CLIP4Clip training."
        )
    if "clip.visual.conv2.weight" in state and "clip.visual.layer1.0.conv1.weight" not in state:
        raise EncoderError(
            f'{source} was trained with "linear_patch 3d": it reads three frames at once, which no encoder here '
            'supports. Use one trained with "2d", which is the default and no worse.'
        )
    if "clip.visual.layer1.0.conv1.weight" in state:
        raise EncoderError(
            f"{source} has a ResNet as vision tower; only vision transformers can be converted."
        )


def _clip_to_transformers(clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = {_SAME[name]: clip[name] for name in _SAME}
    tensors |= {_TRANSPOSED[name]: clip[name].T for name in _TRANSPOSED}
    for ours, theirs in _BLOCKS.items():
        for number, block in _blocks(clip, ours):
            tensors |= _with_prefix(block_to_transformers(block), f"{theirs}{number}.")
    return tensors


def _clip_config(clip: Mapping[str, Tensor], source: str) -> CLIPConfig:
    """Infer the sizes of a CLIP from the shapes of its tensors."""
    try:
        vision_width, _, patch, _ = clip["visual.conv1.weight"].shape
        patches = clip["visual.positional_embedding"].shape[0] - 1
        vocabulary, text_width = clip["token_embedding.weight"].shape
        embed_dim = clip["text_projection"].shape[1]
        context = clip["positional_embedding"].shape[0]
        feed = {begin: clip[f"{begin}0.mlp.c_fc.weight"].shape[0] for begin in _BLOCKS}
    except (KeyError, ValueError, IndexError) as error:
        raise EncoderError(
            f"{source} does not hold a CLIP with OpenAI's names: {error} is missing or of another shape. "
            "Give the pytorch_model.bin.N of a CLIP4Clip training."
        ) from error
    side = round(patches**0.5)
    if side * side != patches or vision_width % _HEAD_WIDTH or text_width % _HEAD_WIDTH:
        raise EncoderError(
            f"{source}: {patches} patches of an image, widths {vision_width} and {text_width}; patches must form a "
            f"square, and widths must be multiples of {_HEAD_WIDTH}."
        )
    layers = {begin: len(list(_blocks(clip, begin))) for begin in _BLOCKS}
    vision, text = _BLOCKS
    common = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": embed_dim}
    return CLIPConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": text_width,
            "intermediate_size": feed[text],
            "num_hidden_layers": layers[text],
            "num_attention_heads": text_width // _HEAD_WIDTH,
            "max_position_embeddings": context,
            # With 2, transformers reads a text at its highest id, which is OpenAI's rule.
            "eos_token_id": 2,
            "bos_token_id": 0,
            "pad_token_id": 1,
            **common,
        },
        vision_config={
            "image_size": side * patch,
            "patch_size": patch,
            "hidden_size": vision_width,
            "intermediate_size": feed[vision],
            "num_hidden_layers": layers[vision],
            "num_attention_heads": vision_width // _HEAD_WIDTH,
            **common,
        },
        projection_dim=embed_dim,
        dtype="float32" if clip["ln_final.weight"].dtype == torch.float32 else "float16",
    )


def _head_config(
    tensors: Mapping[str, Tensor], dim: int, max_frames: int, source: str
) -> HeadConfig | None:
    """Infer the head from the names and shapes of its tensors; None if there are none."""
    kinds: dict[str, tuple[HeadKind, str]] = {
        "transformerClip.": ("transformer", "frame_position_embeddings.weight"),
        "lstm_visual.": ("lstm", "frame_position_embeddings.weight"),
        "cross.": ("tight", "cross.embeddings.position_embeddings.weight"),
    }
    for begin, (kind, positions) in kinds.items():
        if not any(name.startswith(begin) for name in tensors):
            continue
        if positions not in tensors:
            raise EncoderError(
                f"{source} does not hold the tensors it should:", f"  missing: {positions}"
            )
        middle = {"transformer": "resblocks.", "tight": "transformer.resblocks.", "lstm": ""}[kind]
        layers = len(list(_blocks(tensors, begin + middle))) if middle else 4
        try:
            count = tensors[positions].shape[0]
            return HeadConfig(kind, dim, max_frames, count, layers, dim // _HEAD_WIDTH)
        except ValueError as error:
            raise EncoderError(f"{source}: its {kind} head cannot be used: {error}.") from error
    return None


def _published_shapes(config: CLIPConfig) -> dict[str, Tensor]:
    """Return tensors without numbers that have the names and shapes of ``clip.*``."""
    with torch.device("meta"):
        return _with_prefix(_clip_to_published(CLIPModel(config).state_dict()), "clip.")


def _write_clip(converted: Converted, folder: Path) -> None:
    config = converted.config
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in converted.clip.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    side = config.vision_config.image_size
    steps = Preprocessing(side, None, (side, side), "bicubic", CLIP_MEAN, CLIP_STD)
    write_preprocessing(steps, folder)


def _tokenizer_files(name: str, vocabulary: int) -> list[Path]:
    """Return the files of a tokenizer.

    Args:
        name: a hub id or a folder.
        vocabulary: number of tokens it must have.

    Raises:
        EncoderError: the tokenizer cannot be loaded or has another number of tokens.
        EncoderUnavailable: the tokenizer is not on this machine, and the hub cannot be reached.
    """
    try:
        folder = find_folder(name)
    except EncoderUnavailable as error:
        raise EncoderUnavailable(
            f'a published checkpoint has no tokenizer, and "{name}" is not on this machine and the hub cannot be '
            "reached. Give a folder with the tokenizer.json of any of OpenAI's CLIPs:",
            "        scanonce convert SOURCE OUT --tokenizer /path/to/folder",
            f"  On a machine with a network: scanonce fetch {name} --to FOLDER",
        ) from error
    files = [path for each in _TOKENIZER_FILES if (path := folder / each).exists()]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise EncoderError(
            f"the tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}. "
            "Give a folder with the tokenizer.json of a CLIP: --tokenizer FOLDER"
        ) from error
    if len(tokenizer) != vocabulary or tokenizer.eos_token_id != vocabulary - 1:
        raise EncoderError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens and ends a text with number "
            f"{tokenizer.eos_token_id}; the checkpoint knows {vocabulary} and reads a text at the last of them. "
            "Give the tokenizer of its training: --tokenizer FOLDER"
        )
    return files


# ---------------------------------------------------------------- folder to published file


def convert_to_published(source: Path, out: Path) -> None:
    """Write the folder of an encoder as one file that CLIP4Clip's own code loads.

    Args:
        source: a folder with a CLIP, and perhaps a head.
        out: a file that does not exist yet.

    Raises:
        EncoderError: upstream's code could not compute the same with the encoder, or ``out`` exists.
    """
    _refuse_existing(out, "file")
    state = to_published(source)
    with _unfinished(out) as folder:
        torch.save(state, folder / "file")
        (folder / "file").rename(out)


def to_published(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder by their names in a published checkpoint.

    Raises:
        EncoderError: the folder cannot be read, or upstream's code could not compute the same with it.
    """
    config = _read_clip_config(folder)
    tensors = {
        name: tensor
        for name, tensor in _read_folder(folder).items()
        if name not in _NOT_LEARNED_IN_FOLDERS
    }
    with torch.device("meta"):
        wanted = CLIPModel(config).state_dict()
    check_tensors(str(folder), wanted, tensors)
    state = _with_prefix(_clip_to_published(tensors), "clip.")
    found = read_head_tensors(folder)
    if found is not None:
        head, parts = found
        check_head_tensors(head, parts, str(folder))
        _refuse_foreign(folder, _foreign_head(head, config))
        state |= parts
    return state


def _clip_to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {name: tensors[_SAME[name]] for name in _SAME}
    state |= {name: tensors[_TRANSPOSED[name]].T.contiguous() for name in _TRANSPOSED}
    for ours, theirs in _BLOCKS.items():
        for number, block in _blocks(tensors, theirs):
            state |= _with_prefix(block_from_transformers(block), f"{ours}{number}.")
    return state


def _read_clip_config(folder: Path) -> CLIPConfig:
    """Read the configuration of a CLIP and refuse one that upstream cannot compute with."""
    try:
        values = parse_object((folder / "config.json").read_bytes())
        config = CLIPConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, DamagedFile) as error:
        raise EncoderError(
            f"{folder} is not the folder of an encoder: {str(error).splitlines()[0]}. "
            "Give a folder with config.json and model.safetensors."
        ) from error
    if values.get("model_type") != "clip":
        raise EncoderError(
            f'{folder} holds a "{values.get("model_type")}"; only a CLIP can become a CLIP4Clip checkpoint.'
        )
    _refuse_foreign(folder, _foreign_clip(config))
    return config


def _foreign_clip(config: Any) -> list[str]:
    """Describe what upstream would compute differently.

    Upstream infers sizes from shapes and has the rest built in.
    """
    reasons = []
    for name, tower in (("text", config.text_config), ("vision", config.vision_config)):
        wanted = {
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "num_attention_heads": tower.hidden_size // _HEAD_WIDTH,
            "intermediate_size": 4 * tower.hidden_size,
        }
        for setting, value in wanted.items():
            if getattr(tower, setting) != value:
                reasons.append(
                    f"{name} tower: {setting} is {getattr(tower, setting)}, CLIP4Clip has {value}"
                )
    text = config.text_config
    if text.eos_token_id not in (2, text.vocab_size - 1):
        reasons.append(
            f"text tower: eos_token_id is {text.eos_token_id}, CLIP4Clip reads a text at its highest id"
        )
    return reasons


def _foreign_head(head: HeadConfig, config: Any) -> list[str]:
    """Describe what upstream would compute differently with a head."""
    text = config.text_config
    reasons = []
    if head.dim != text.hidden_size or head.dim != config.projection_dim:
        reasons.append(
            f"head: width {head.dim}; CLIP4Clip needs the width of texts ({text.hidden_size}) and of the joint space "
            f"({config.projection_dim}) to be the same"
        )
    if head.kind != "lstm" and head.heads != head.dim // _HEAD_WIDTH:
        reasons.append(
            f"head: {head.heads} attention heads, CLIP4Clip has {head.dim // _HEAD_WIDTH}"
        )
    if head.positions != text.max_position_embeddings:
        reasons.append(
            f"head: {head.positions} positions, CLIP4Clip has those of texts, {text.max_position_embeddings}"
        )
    return reasons


def _refuse_foreign(folder: Path, reasons: list[str]) -> None:
    if reasons:
        raise EncoderError(
            f"{folder} cannot become a CLIP4Clip checkpoint, which would compute something different:",
            *(f"  {reason}" for reason in reasons),
            "Only encoders fine-tuned from one of OpenAI's vision transformers can.",
        )


# ---------------------------------------------------------------- tensors and files


def _blocks(tensors: Mapping[str, Tensor], begin: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """(number, tensors by their names in the block) of each block under a prefix."""
    blocks: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(begin):
            number, _, part = name.removeprefix(begin).partition(".")
            blocks.setdefault(number, {})[part] = tensor
    yield from blocks.items()


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _read_published(path: Path) -> Mapping[str, Tensor]:
    """Read a dictionary of tensors with the unpickler restricted to tensors."""
    if is_archive(path):
        raise EncoderError(
            f"{path} is one of OpenAI's archives: scanonce convert openai {path} OUT makes an encoder of it."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError, ValueError) as error:
        raise EncoderError(
            f"{path} cannot be read as a file of tensors: {str(error).splitlines()[0]}. "
            "Give the pytorch_model.bin.N of a CLIP4Clip training."
        ) from error
    if not isinstance(state, Mapping):
        raise EncoderError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors.")
    return state


def _read_folder(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    try:
        for path in weight_files(folder):
            tensors |= load_file(path) if path.suffix == ".safetensors" else _read_published(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"the weights in {folder} cannot be read ({error}). Fetch it again."
        ) from error
    return tensors


def _refuse_existing(out: Path, kind: str) -> None:
    if out.exists():
        raise EncoderError(f"{out} exists already: name another {kind}, or remove it first.")


@contextmanager
def _unfinished(out: Path) -> Iterator[Path]:
    """Temporary folder next to ``out``, to be renamed when complete: ``out`` is never there in part.

    Raises:
        EncoderError: the folder cannot be written.
    """
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=".tmp-"))
        temporary.chmod(0o755)
        yield temporary
    except OSError as error:
        raise EncoderError(
            f"{out} cannot be written ({error.strerror or error}). Make room or check the folder's permissions."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
