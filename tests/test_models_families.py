"""Each family of encoders: its text and image side against its own classes in `transformers`, and what is refused."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from benchmarks.conformance import REFUSED, refuse, run
from benchmarks.tiny_encoders import FAMILIES, make_encoder
from scanonce.models.encoders.clip import TransformersEncoder
from scanonce.models.encoders.joint import JointEncoder
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.patches import PatchPreprocessing
from scanonce.models.encoders.protocol import window_of
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.storage.errors import EncoderError
from tests.colours import write_film

FP32 = ModelSettings(dtype="float32", device="cpu")
JOINT = ["embeddinggemma2", "qwen3-vl-embedding"]
SIZES = [(90, 160), (160, 90), (71, 333), (60, 66)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: make_encoder(name, root / name) for name in FAMILIES}


def load(folder: Path) -> TransformersEncoder:
    encoder = load_encoder(str(folder), FP32)
    assert isinstance(encoder, TransformersEncoder)
    return encoder


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture: filters that differ in rounding differ little on it."""
    yy, xx = np.mgrid[:height, :width]
    waves = np.stack([np.sin(xx / 9) + np.cos(yy / 7), np.sin(yy / 11), np.cos(xx / 5)], axis=2)
    image: np.ndarray = ((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)
    return image


def published(name: str, folder: Path, image: np.ndarray) -> dict[str, torch.Tensor]:
    """What the published processor makes of an image."""
    processor = getattr(transformers, FAMILIES[name].processor).from_pretrained(folder)
    frames = {"embeddinggemma2": {"max_soft_tokens": 70}}.get(name, {})
    return dict(processor(Image.fromarray(image), return_tensors="pt", **frames))


# ---- from index to search


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_works_from_index_to_search(name: str, tmp_path: Path) -> None:
    film = write_film(tmp_path / "films/film.mp4", [("red", 4.0), ("blue", 4.0)])
    assert run(name, tmp_path, film).result == "ok"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_with_the_nearest_that_does(name: str, tmp_path: Path) -> None:
    sentence = refuse(name, tmp_path).result
    assert "The nearest that works: " in sentence
    assert len(sentence.splitlines()) == 1


# ---- images


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.processor])
def test_images_are_prepared_as_by_the_published_processor(
    folders: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    encoder = load(folders[name])
    theirs = published(name, folders[name], picture(*size))
    frames = torch.from_numpy(encoder.preprocessing.resize(picture(*size)[None]))
    steps = encoder.preprocessing
    ours = steps.inputs(frames, torch.float32)
    expected = theirs["pixel_values"]
    if (
        name == "qwen3-vl-embedding"
    ):  # compared before the patches are put in the order of its tower
        assert isinstance(steps, PatchPreprocessing)
        assert steps.grids(frames).tolist() == theirs["image_grid_thw"][:, 1:].tolist()
        return
    assert ours["pixel_values"].shape == expected.shape
    difference = (ours["pixel_values"] - expected).abs()
    # one step of 255 is 0.015 here at most: rounding may differ by one or two in a few pixels
    assert difference.max() < 0.05
    assert difference.mean() < 0.002
    if name == "naflex":
        assert ours["pixel_attention_mask"].tolist() == theirs["pixel_attention_mask"].tolist()
        assert ours["spatial_shapes"].tolist() == theirs["spatial_shapes"].tolist()


def test_frames_of_any_shape_travel_in_one_batch(folders: dict[str, Path]) -> None:
    for name in ["naflex", *JOINT]:
        encoder = load(folders[name])
        strips = [encoder.preprocessing.resize(picture(*size)[None]) for size in SIZES]
        together = encoder.encode_frames(np.concatenate(strips))
        alone = np.concatenate([encoder.encode_frames(picture(*size)[None]) for size in SIZES])
        np.testing.assert_allclose(unit(together), unit(alone), atol=1e-4)
        assert not np.allclose(unit(alone)[0], unit(alone)[1], atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", JOINT)
def test_a_joint_model_reads_an_image_as_with_the_published_processor(
    folders: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    """The image is prepared by the processor of `transformers`, and its tokens are written out here."""
    encoder, image = load(folders[name]), published(name, folders[name], picture(*size))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    inputs: dict[str, Any]
    if name == "embeddinggemma2":
        count = int(image["num_soft_tokens_per_image"][0])
        text = "<boi>" + "<image>" * count + "<eoi>"
        inputs = {key: image[key] for key in ("pixel_values", "image_position_ids")}
    else:
        count = int(image["image_grid_thw"][0].prod()) // 4
        text = (
            "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
            f"{'<|image_pad|>' * count}<|vision_end|><|im_end|>\n<|im_start|>assistant\n"
        )
        inputs = {key: image[key] for key in ("pixel_values", "image_grid_thw")}
    tokens = tokenizer(text, return_tensors="pt")
    if name == "qwen3-vl-embedding":
        inputs["mm_token_type_ids"] = (
            tokens["input_ids"] == encoder.module.config.image_token_id
        ).int()
    with torch.inference_mode():
        states = encoder.module(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], **inputs
        ).last_hidden_state[0]
    expected = states.mean(dim=0) if name == "embeddinggemma2" else states[-1]
    ours = unit(encoder.encode_frames(picture(*size)[None]))[0]
    assert ours @ unit(expected.numpy()) > 0.9999


# ---- windows of frames


@pytest.mark.parametrize(("name", "window"), [("xclip", (8, 4)), ("videoprism", (16, 8))])
def test_a_window_is_read_as_by_its_own_class(
    folders: dict[str, Path], name: str, window: tuple[int, int]
) -> None:
    encoder = load(folders[name])
    assert window_of(encoder) == window
    run = np.stack([np.roll(picture(90, 160), 5 * shift, axis=1) for shift in range(window[0])])
    ours = encoder.encode_frames(run[None])
    assert ours.shape == (1, encoder.dim)
    resized = torch.from_numpy(encoder.preprocessing.resize(run))
    pixels = encoder.preprocessing.normalise(resized, torch.float32)[None]
    given = "pixel_values_videos" if name == "videoprism" else "pixel_values"
    with torch.inference_mode():
        expected = encoder.module.get_video_features(**{given: pixels}).pooler_output.flatten(1)
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)
    still = encoder.encode_frames(run[:1])  # a single image is a run in which nothing moves
    repeated = encoder.encode_frames(np.repeat(run[:1], window[0], axis=0)[None])
    np.testing.assert_allclose(still, repeated, atol=1e-5)
    assert not np.allclose(unit(still), unit(ours), atol=1e-3)


# ---- texts


@pytest.mark.parametrize("name", ["siglip", "siglip2", "naflex", "tipsv2", "videoprism"])
def test_capitals_are_read_as_the_small_letters_of_the_training(
    folders: dict[str, Path], name: str
) -> None:
    encoder = load(folders[name])
    texts = encoder.encode_texts(["A RED Car at night", "a red car at night", "a blue house"])
    np.testing.assert_array_equal(texts[0], texts[1])
    assert not np.allclose(texts[1], texts[2])


@pytest.mark.parametrize("name", ["siglip", "siglip2", "naflex"])
def test_texts_of_siglip_have_full_length_and_no_mask(folders: dict[str, Path], name: str) -> None:
    tokens = load(folders[name]).tokenise(["a red car"])
    assert set(tokens) == {"input_ids"}
    assert tokens["input_ids"].shape == (1, 16)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_states_of_texts_come_before_the_projection(
    folders: dict[str, Path], name: str
) -> None:
    encoder = load(folders[name])
    features = encoder.encode_text_features(["a red car", "the blue house"])
    assert features.joint.shape == (2, encoder.dim)
    assert features.states.shape[0] == 2
    assert np.isfinite(features.states).all()
    projection = {"chinese-clip": "text_projection", "altclip": "text_projection"}.get(name)
    if projection is not None:
        projected = getattr(encoder.module, projection)(torch.from_numpy(features.states))
        np.testing.assert_allclose(projected.detach().numpy(), features.joint, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("embeddinggemma2", "task: search result | query: a red car"),
        ("qwen3-vl-embedding", "Retrieve images or text relevant to the user's query."),
    ],
)
def test_a_query_of_a_joint_model_has_its_prompt(
    folders: dict[str, Path], name: str, prompt: str
) -> None:
    encoder = load(folders[name])
    tokens = encoder.tokenise(["a red car", "word " * 2000])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    first, long = (tokenizer.decode(each, skip_special_tokens=True) for each in tokens["input_ids"])
    assert prompt.replace(" ", "").lower() in first.replace(" ", "").lower()
    assert "a red car" in first.lower()
    if name == "qwen3-vl-embedding":  # the end of the prompt, which is pooled, is never cut off
        assert long.rstrip().endswith("assistant")


# ---- width


@pytest.mark.parametrize("name", JOINT)
def test_a_joint_model_may_be_shortened(folders: dict[str, Path], name: str) -> None:
    whole, short = load(folders[name]), load_encoder(f"{folders[name]}@16", FP32)
    assert isinstance(short, JointEncoder)
    assert (whole.dim, short.dim) == (32, 16)
    assert short.name == f"{folders[name]}@16"
    assert short.fingerprint != whole.fingerprint
    frames = picture(90, 160)[None]
    np.testing.assert_array_equal(short.encode_frames(frames), whole.encode_frames(frames)[:, :16])
    np.testing.assert_array_equal(
        short.encode_texts(["a car"]), whole.encode_texts(["a car"])[:, :16]
    )
    with pytest.raises(EncoderError, match=r"have 32 numbers, not 64\. Set models\.dim"):
        load_encoder(f"{folders[name]}@64", FP32)


def test_the_width_of_the_settings_is_that_of_a_new_index(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    import scanonce

    film = write_film(tmp_path / "film.mp4", [("red", 2.0)])
    models = ModelSettings(encoder=str(folders["embeddinggemma2"]), dtype="float32", dim=8)
    with scanonce.open(tmp_path / "index", models=models) as library:
        library.index([film])
        assert library.manifest is not None
        assert library.manifest.dim == 8
    # the index keeps its width whatever the settings say later
    with scanonce.open(tmp_path / "index", models=ModelSettings(dtype="float32")) as library:
        assert library.search("a red car").moments


def test_other_encoders_cannot_be_shortened(folders: dict[str, Path]) -> None:
    with pytest.raises(
        EncoderError, match=r"the vectors of CLIP cannot be shortened .* models\.dim"
    ):
        load_encoder(f"{folders['clip']}@16", FP32)


# ---- what is refused


def test_float16_is_refused_where_it_would_compute_noise(folders: dict[str, Path]) -> None:
    half = ModelSettings(dtype="float16", device="cpu")
    with pytest.raises(EncoderError, match=r"beyond the range of float16: set models\.dtype"):
        load_encoder(str(folders["embeddinggemma2"]), half)


def test_openvino_is_refused_for_images_of_any_shape(folders: dict[str, Path]) -> None:
    settings = ModelSettings(backend="openvino")
    with pytest.raises(EncoderError, match=r'Set models\.backend to "torch"'):
        load_encoder(str(folders["naflex"]), settings)


def test_weights_of_another_class_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A captioning BLIP has the same configuration, and its missing tensors would be drawn at random."""
    config = transformers.AutoConfig.from_pretrained(folders["blip"])
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folders["blip"] / name).read_bytes())
    with pytest.raises(EncoderError, match=r"the weights have no .* its vectors would be noise"):
        load_encoder(str(tmp_path), FP32)


def test_a_missing_package_is_named_with_its_command(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    block_sentencepiece(monkeypatch)
    with pytest.raises(EncoderError, match="pip install sentencepiece"):
        load_encoder(str(folders["siglip"]), FP32, towers="text")


def block_sentencepiece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `transformers` find no sentencepiece, as on a machine without it."""
    from transformers.utils import import_utils

    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    checks = dict(import_utils.BACKENDS_MAPPING)
    checks["sentencepiece"] = (lambda: False, checks["sentencepiece"][1])
    monkeypatch.setattr(import_utils, "BACKENDS_MAPPING", checks)


# ---- an index is refused before its first frame


def test_an_index_with_a_broken_text_side_is_refused_before_the_first_frame(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scanonce

    block_sentencepiece(monkeypatch)
    # other tests have checked this encoder with the package
    monkeypatch.setattr("scanonce.models.encoders.check.was_checked", lambda _: False)
    monkeypatch.setattr("scanonce.indexer.pipeline.DecodePool", None)  # nothing may be decoded
    (tmp_path / "film.mp4").write_bytes(b"not looked at")
    models = ModelSettings(
        encoder=str(folders["siglip"]), dtype="float32", localiser="training-free"
    )
    with (
        scanonce.open(tmp_path / "index", models=models) as library,
        pytest.raises(EncoderError, match=r"cannot read queries.*pip install sentencepiece"),
    ):
        library.index([tmp_path])
    assert not (tmp_path / "index").exists() or os.listdir(tmp_path / "index") == []


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("text_projection.weight", "its text side computes vectors that are not numbers"),
        ("visual_projection.weight", "its vision side computes vectors that are not numbers"),
    ],
)
def test_vectors_that_are_not_numbers_are_refused(
    folders: dict[str, Path], tmp_path: Path, tensor: str, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    from scanonce.models.encoders.check import check_named

    folder = copy(folders["clip"], tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor] = torch.full_like(tensors[tensor], float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=message):
        check_named(str(folder), FP32)


def test_a_tokenizer_of_another_encoder_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from scanonce.models.encoders.check import check_named

    folder = copy(folders["chinese-clip"], tmp_path / "chinese")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"] = {
        f"{piece}9": 10**6 + n for n, piece in enumerate(words["model"]["vocab"])
    }
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(EncoderError):
        check_named(str(folder), FP32)


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to
