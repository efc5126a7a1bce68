"""Conversion of published CLIP4Clip checkpoints to encoders and back, equal to the bit."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from scanonce.models.clip4clip.build import build_head
from scanonce.models.clip4clip.convert import (
    convert_to_folder,
    convert_to_published,
    from_published,
    to_published,
)
from scanonce.models.clip4clip.head_files import read_head, write_head
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.storage.errors import EncoderError, EncoderUnavailable
from tests.checkpoints import make_siglip, write_tokenizer
from tests.command import scanonce

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

TINY = {"width": 64, "layers": 2, "text": 128, "text_layers": 1, "vocab": 12, "side": 2, "patch": 8}
FULL = {
    "width": 768,
    "layers": 12,
    "text": 512,
    "text_layers": 12,
    "vocab": 49408,
    "side": 7,
    "patch": 32,
}
"""ViT-B/32."""


def block(width: int) -> Shapes:
    return {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
    }


def blocks(begin: str, width: int, layers: int) -> Shapes:
    return {
        f"{begin}resblocks.{number}.{name}": shape
        for number in range(layers)
        for name, shape in block(width).items()
    }


def published(sizes: dict[str, int], head: str, context: int = 77) -> Shapes:
    """Names and shapes in a published checkpoint; the joint space is as wide as the text tower."""
    width, text = sizes["width"], sizes["text"]
    shapes: Shapes = {
        "clip.positional_embedding": (context, text),
        "clip.text_projection": (text, text),
        "clip.logit_scale": (),
        "clip.visual.class_embedding": (width,),
        "clip.visual.positional_embedding": (sizes["side"] ** 2 + 1, width),
        "clip.visual.proj": (width, text),
        "clip.visual.conv1.weight": (width, 3, sizes["patch"], sizes["patch"]),
        "clip.token_embedding.weight": (sizes["vocab"], text),
    }
    for name, size in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text)):
        shapes |= {f"clip.{name}.weight": (size,), f"clip.{name}.bias": (size,)}
    shapes |= blocks("clip.visual.transformer.", width, sizes["layers"])
    shapes |= blocks("clip.transformer.", text, sizes["text_layers"])
    positions: Shapes = {"frame_position_embeddings.weight": (context, text)}
    gates: Shapes = {f"lstm_visual.weight_{kind}_l0": (4 * text, text) for kind in ("ih", "hh")}
    gates |= {f"lstm_visual.bias_{kind}_l0": (4 * text,) for kind in ("ih", "hh")}
    cross: Shapes = {"cross.embeddings.position_embeddings.weight": (context, text)}
    pooler: Shapes = {
        f"cross.pooler.{name}": (text,) for name in ("ln_pool.weight", "ln_pool.bias")
    }
    pooler |= {"cross.pooler.dense.weight": (text, text), "cross.pooler.dense.bias": (text,)}
    dense: Shapes = {"similarity_dense.weight": (1, text), "similarity_dense.bias": (1,)}
    heads: dict[str, Shapes] = {
        "mean": {},
        "transformer": positions | blocks("transformerClip.", text, 4),
        "lstm": positions | gates,
        "tight": cross | blocks("cross.transformer.", text, 4) | pooler | dense,
    }
    return shapes | heads[head]


def random_state(shapes: Shapes) -> State:
    """Tensors whose every bit is drawn. As after upstream's training, matrices of the towers are in half precision."""
    rng, state = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        halved = name.startswith("clip.") and ("attn." in name or "mlp." in name or "proj" in name)
        dtype = torch.float16 if halved else torch.float32
        bits = bytearray(rng.bytes(math.prod(shape) * dtype.itemsize))
        state[name] = torch.frombuffer(bits, dtype=dtype).view(shape)
    return state


def are_same_bits(one: State, other: State) -> bool:
    def bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, Tensor]:
        return tensor.dtype, tensor.shape, tensor.contiguous().flatten().view(torch.int16)

    return one.keys() == other.keys() and all(
        (mine[:2], True) == (theirs[:2], torch.equal(mine[2], theirs[2]))
        for mine, theirs in ((bits(one[name]), bits(other[name])) for name in one)
    )


def make_tokenizer(folder: Path, size: int = TINY["vocab"]) -> Path:
    """Write a tokenizer of numbers; a text ends with the highest id, as in all of OpenAI's."""
    words = [*(str(number) for number in range(size - 2)), "<s>", "</s>"]
    folder.mkdir(parents=True)
    write_tokenizer(folder, words, pad="</s>", unknown="0")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "clip"))


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


# ---------------------------------------------------------------- equal to the bit


def test_a_checkpoint_of_full_size_comes_back_to_the_bit(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "tokenizer", FULL["vocab"])
    state = random_state(published(FULL, "transformer"))
    assert sum(value.numel() for value in state.values()) == 151_277_313 + 12_648_960
    source = save(state, tmp_path / "pytorch_model.bin.4")
    convert_to_folder(source, tmp_path / "encoder", tokenizer=str(tokenizer))
    assert are_same_bits(state, to_published(tmp_path / "encoder"))
    shutil.rmtree(tmp_path)  # 750 MB


@pytest.mark.parametrize("head", ["mean", "transformer", "lstm", "tight"])
def test_every_head_comes_back_to_the_bit(head: str, tokenizer: str, tmp_path: Path) -> None:
    state = random_state(published(TINY, head))
    source = save(state, tmp_path / "pytorch_model.bin.4")
    convert_to_folder(source, tmp_path / "encoder", tokenizer=tokenizer, max_frames=64)
    read = read_head(tmp_path / "encoder")
    assert (read.config.kind if read else "mean") == head
    assert read is None or read.config.max_frames == 64
    convert_to_published(tmp_path / "encoder", tmp_path / "again.bin")
    assert are_same_bits(state, torch.load(tmp_path / "again.bin", weights_only=True))


def test_tensors_that_follow_from_others_may_be_there(tmp_path: Path) -> None:
    state = random_state(published(TINY, "mean"))
    more = {f"clip.{name}": torch.tensor(1) for name in ("input_resolution", "context_length")}
    converted = from_published(state | more | {"clip.attn_mask": torch.zeros(77, 77)})
    assert len(converted.clip) == len(state) + 4 * (TINY["layers"] + TINY["text_layers"])


# ---------------------------------------------------------------- the same vectors


class OpenAiTower(nn.Module):
    """OpenAI's blocks, whose attention has one matrix of queries, keys and values, in float32."""

    def __init__(self, state: State, begin: str, width: int, layers: int) -> None:
        super().__init__()
        self.state = {name: value.float() for name, value in state.items()}
        self.begin, self.layers = begin, layers
        self.attention = nn.MultiheadAttention(width, width // 64).train(False)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        for number in range(self.layers):
            own = {name: self.state[f"{self.begin}resblocks.{number}.{name}"] for name in block(64)}
            self.attention.load_state_dict(
                {name[5:]: value for name, value in own.items() if name.startswith("attn.")}
            )
            size = tokens.shape[-1:]
            normed = F.layer_norm(tokens, size, own["ln_1.weight"], own["ln_1.bias"])
            tokens = tokens + self.attention(normed, normed, normed, attn_mask=mask)[0]
            normed = F.layer_norm(tokens, size, own["ln_2.weight"], own["ln_2.bias"])
            hidden = normed @ own["mlp.c_fc.weight"].T + own["mlp.c_fc.bias"]
            hidden = hidden * torch.sigmoid(1.702 * hidden)
            tokens = tokens + hidden @ own["mlp.c_proj.weight"].T + own["mlp.c_proj.bias"]
        return tokens


def openai_images(state: State, pixels: Tensor) -> Tensor:
    s = {name.removeprefix("clip.visual."): value.float() for name, value in state.items()}
    patches = F.conv2d(pixels, s["conv1.weight"], stride=TINY["patch"]).flatten(2).permute(2, 0, 1)
    first = s["class_embedding"].expand(1, len(pixels), -1)
    tokens = torch.cat([first, patches]) + s["positional_embedding"][:, None]
    tokens = F.layer_norm(tokens, tokens.shape[-1:], s["ln_pre.weight"], s["ln_pre.bias"])
    tower = OpenAiTower(state, "clip.visual.transformer.", TINY["width"], TINY["layers"])
    last = tower(tokens, None)[0]
    return F.layer_norm(last, last.shape[-1:], s["ln_post.weight"], s["ln_post.bias"]) @ s["proj"]


def openai_texts(state: State, ids: list[int]) -> Tensor:
    s = {name.removeprefix("clip."): value.float() for name, value in state.items()}
    padded = torch.tensor(ids + [0] * (77 - len(ids)))
    tokens = (s["token_embedding.weight"][padded] + s["positional_embedding"])[:, None]
    mask = torch.full((77, 77), -torch.inf).triu(1)
    tower = OpenAiTower(state, "clip.transformer.", TINY["text"], TINY["text_layers"])
    states = tower(tokens, mask)[:, 0]
    states = F.layer_norm(states, states.shape[-1:], s["ln_final.weight"], s["ln_final.bias"])
    return states[padded.argmax()] @ s["text_projection"]


@torch.no_grad()
def test_an_encoder_has_the_vectors_of_its_checkpoint(tokenizer: str, tmp_path: Path) -> None:
    shapes = published(TINY, "transformer")
    torch.manual_seed(3)
    state = {name: 0.2 * torch.randn(shape) for name, shape in shapes.items()}
    convert_to_folder(save(state, tmp_path / "model.bin"), tmp_path / "own", tokenizer=tokenizer)
    encoder = load_encoder(str(tmp_path / "own"), ModelSettings(device="cpu", dtype="float32"))
    assert [path.name for path in encoder.head_files] == ["head.json", "head.safetensors"]
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    pixels = encoder.preprocessing.normalise(torch.from_numpy(frames), torch.float32)
    expected = openai_images(state, pixels)
    np.testing.assert_allclose(encoder.encode_frames(frames), expected, rtol=1e-4, atol=1e-4)
    texts = encoder.encode_texts(["3 1 4 1 5", "9"])
    for given, ids in zip(texts, ([10, 3, 1, 4, 1, 5, 11], [10, 9, 11]), strict=True):
        np.testing.assert_allclose(given, openai_texts(state, ids), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- refusals


def without(name: str) -> Callable[[State], object]:
    return lambda state: {each: value for each, value in state.items() if each != name}


def with_one(name: str, *shape: int) -> Callable[[State], object]:
    return lambda state: {**state, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("clip.visual.ln_pre.bias"), "missing: clip.visual.ln_pre.bias"),
        (without("clip.token_embedding.weight"), "token_embedding.weight"),
        (without("clip.transformer.resblocks.0.ln_1.bias"), "missing: clip.transformer"),
        (without("transformerClip.resblocks.2.ln_1.bias"), "missing: transformerClip"),
        (without("frame_position_embeddings.weight"), "missing: frame_position"),
        (with_one("clip.visual.colour", 3), "unknown: clip.visual.colour"),
        (with_one("similarity_dense.bias", 1), "unknown: similarity_dense.bias"),
        (with_one("clip.visual.proj", 5, 5), r"clip.visual.proj: shape \[5, 5\]"),
        (with_one("clip.visual.conv2.weight", 64, 3, 3, 8, 8), "linear_patch 3d"),
        (with_one("clip.visual.layer1.0.conv1.weight", 3), "ResNet"),
        (lambda _: {"epoch": 3, "optimizer_state_dict": {}, "loss": 0.1}, "optimizer"),
        (lambda _: [torch.zeros(3)], "holds a list"),
        (lambda _: {}, "empty"),
    ],
)
def test_an_incomplete_or_foreign_checkpoint_is_refused(
    change: Callable[[State], object], message: str, tokenizer: str, tmp_path: Path
) -> None:
    state = random_state(published(TINY, "transformer"))
    source = save(change(state), tmp_path / "model.bin")
    with pytest.raises(EncoderError, match=message):
        convert_to_folder(source, tmp_path / "out", tokenizer=tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_file_that_would_run_code_is_refused(tokenizer: str, tmp_path: Path) -> None:
    source = save({"clip.logit_scale": Path("code")}, tmp_path / "model.bin")
    with pytest.raises(EncoderError, match="cannot be read as a file of tensors"):
        convert_to_folder(source, tmp_path / "out", tokenizer=tokenizer)


def test_a_checkpoint_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    state = random_state(published(TINY, "mean"))
    source = save(state, tmp_path / "model.bin")
    with pytest.raises(EncoderUnavailable, match="--tokenizer /path/to/folder"):
        convert_to_folder(source, tmp_path / "out")
    other = make_tokenizer(tmp_path / "other", 30)
    with pytest.raises(EncoderError, match=r"has 30 tokens .* knows 12"):
        convert_to_folder(source, tmp_path / "out", tokenizer=str(other))
    (tmp_path / "out").mkdir()
    with pytest.raises(EncoderError, match="exists already"):
        convert_to_folder(source, tmp_path / "out", tokenizer=str(other))


@pytest.fixture
def own(tokenizer: str, tmp_path: Path) -> Path:
    source = save(random_state(published(TINY, "lstm")), tmp_path / "model.bin")
    convert_to_folder(source, tmp_path / "own", tokenizer=tokenizer)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("tower", "change", "message"),
    [
        ("text_config", {"hidden_act": "gelu"}, "text tower: hidden_act is gelu"),
        ("vision_config", {"num_attention_heads": 4}, "vision tower: num_attention_heads is 4"),
        ("text_config", {"eos_token_id": 3}, "eos_token_id is 3"),
        ("vision_config", {"num_hidden_layers": 1}, "unknown: vision_model.encoder.layers.1"),
    ],
)
def test_an_encoder_that_upstream_would_compute_differently_is_refused(
    tower: str, change: dict[str, object], message: str, own: Path
) -> None:
    path = own / "config.json"
    config = json.loads(path.read_text())
    config[tower] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=message):
        to_published(own)


def test_a_folder_of_an_earlier_transformers_is_converted_too(own: Path) -> None:
    wanted = to_published(own)
    tensors = load_file(own / "model.safetensors")
    tensors |= {
        f"{tower}_model.embeddings.position_ids": torch.arange(5) for tower in ("text", "vision")
    }
    torch.save(tensors, own / "pytorch_model.bin")
    (own / "model.safetensors").unlink()
    assert are_same_bits(wanted, to_published(own))


def test_a_foreign_head_or_model_and_an_existing_target_are_refused(
    own: Path, tmp_path: Path
) -> None:
    write_head(build_head("transformer", 128, 12), own)
    with pytest.raises(EncoderError, match="12 positions, CLIP4Clip has those of texts, 77"):
        to_published(own)
    with pytest.raises(EncoderError, match='holds a "siglip"'):
        to_published(make_siglip(tmp_path / "siglip"))
    with pytest.raises(EncoderError, match="exists already"):
        convert_to_published(own, own / "config.json")


def test_the_command_chooses_the_direction_by_its_source(tokenizer: str, tmp_path: Path) -> None:
    state = random_state(published(TINY, "transformer"))
    source = save(state, tmp_path / "model.bin")
    there = scanonce("convert", source, tmp_path / "own", "--tokenizer", tokenizer)
    assert (there.returncode, there.stderr) == (0, "")
    assert "with a transformer head" in there.stdout.replace("\n", " ")
    back = scanonce("convert", tmp_path / "own", tmp_path / "again.bin")
    assert back.returncode == 0
    assert are_same_bits(state, torch.load(tmp_path / "again.bin", weights_only=True))
    nothing = scanonce("convert", tmp_path / "none", tmp_path / "other")
    assert nothing.returncode == 1
    assert "there is nothing at" in nothing.stderr
