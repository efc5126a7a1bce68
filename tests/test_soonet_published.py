"""The published SOONet, step by step as in docs/soonet.md, and OpenAI's archives: files of exactly their layout."""

import pickle
import re
import shlex
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_encoders import make_encoder
from scanonce.models.clip4clip.openai import read_openai
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.models.soonet.checkpoint import PUBLISHED
from scanonce.models.soonet.network import Soonet
from scanonce.storage.errors import EncoderError
from tests.colours import write_film
from tests.command import ROOT, scanonce
from tests.test_models_convert import published

SIZES = {"width": 64, "layers": 1, "text": 512, "text_layers": 1, "side": 7, "patch": 32}
"""The widths that SOONet reads; everything else is smaller than in ViT-B/32."""
SOONET = "SOONet_MAD_VIT-B-32_4Scale_10C.pth"


class Part(nn.Module):
    """A module of an archive; only its names and tensors matter."""


def module_of(tensors: dict[str, Tensor]) -> nn.Module:
    """A module whose tensors have these names."""
    root = Part()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        part: nn.Module = root
        for step in path:
            if step not in part._modules:
                part.add_module(step, Part())
            part = part.get_submodule(step)
        if tensor.is_floating_point():
            part.register_parameter(last, nn.Parameter(tensor))
        else:
            part.register_buffer(last, tensor)
    return root


def openai_tensors(vocabulary: int) -> dict[str, Tensor]:
    """Tensors with OpenAI's names, numbers formats and shapes, but fewer layers and words."""
    torch.manual_seed(0)
    tensors = {}
    for name, shape in published({**SIZES, "vocab": vocabulary}, "mean").items():
        is_half = "attn." in name or "mlp." in name or "proj" in name or "conv1" in name
        drawn = torch.randn(shape) * 0.02 + (
            1.0 if ".ln_" in name or "ln_final.weight" in name else 0.0
        )
        tensors[name.removeprefix("clip.")] = drawn.half() if is_half else drawn
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": vocabulary}
    return tensors | {name: torch.tensor(value) for name, value in numbers.items()}


def write_archive(path: Path, tensors: dict[str, Tensor]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the format is old; OpenAI's files have it
        torch.jit.save(torch.jit.script(module_of(tensors)), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of docs/soonet.md."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = make_encoder("clip", folder / "clip-tokenizer")
    (tokenizer / "model.safetensors").unlink()
    encoder_words = len(_tokenizer(tokenizer))
    write_archive(folder / "ViT-B-32.pt", openai_tensors(encoder_words))
    torch.manual_seed(1)
    torch.save({"model": Soonet(PUBLISHED).state_dict()}, folder / SOONET)
    write_film(folder / "films/film.mp4", [("red", 12.0), ("blue", 12.0)])
    return folder


def _tokenizer(folder: Path) -> list[str]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder).get_vocab())


def documented_commands() -> list[list[str]]:
    """The commands of docs/soonet.md, in order."""
    text = (ROOT / "docs/soonet.md").read_text()
    lines = re.findall(r"^scanonce (.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def placed(words: list[str], folder: Path) -> list[str]:
    """The words of a command with the names of files in a folder."""
    names = {"ViT-B-32.pt", "vit-b-32", "clip-tokenizer", "films", "library", SOONET}
    return [str(folder / word) if word in names else word for word in words]


def test_the_documented_steps_lead_from_the_published_files_to_moments(files: Path) -> None:
    convert, index, localise, search, again = documented_commands()
    for command in (convert, index, localise):
        ran = scanonce(*placed(command, files))
        assert ran.returncode == 0, ran.stderr
    assert "does not say which encoder it was trained on" in ran.stdout
    found = scanonce(*placed(search, files))
    assert found.returncode == 0, found.stderr
    assert "film.mp4" in found.stdout
    ran = scanonce(*placed(again, files))
    assert ran.returncode == 0, ran.stderr


def test_an_index_of_another_rate_is_told_the_setting_and_the_command(files: Path) -> None:
    encoder, library = files / "own", files / "slow"
    convert = documented_commands()[0]
    assert scanonce(*placed([*convert[:3], str(encoder), *convert[4:]], files)).returncode == 0
    index = ["index", files / "films", "--encoder", encoder, "--index", library]
    assert scanonce(*index).returncode == 0
    refused = scanonce("localise", "--localiser", files / SOONET, "--index", library)
    assert refused.returncode == 1
    assert "it reads 5 frames a second, the index has 2" in refused.stderr
    assert "indexer.sample_fps" in refused.stderr
    (command,) = re.findall(r"scanonce (reindex --sample-fps 5) ", refused.stderr)
    assert scanonce(*command.split(), "--index", library).returncode == 0
    ran = scanonce("localise", "--localiser", files / SOONET, "--index", library)
    assert ran.returncode == 0, ran.stderr


# ---- OpenAI's archives


def test_the_tensors_of_an_archive_are_read_to_the_bit(files: Path) -> None:
    expected = openai_tensors(len(_tokenizer(files / "clip-tokenizer")))
    given = read_openai(files / "ViT-B-32.pt")
    assert given.keys() == {f"clip.{name}" for name in expected}
    for name, tensor in expected.items():
        assert given[f"clip.{name}"].dtype == tensor.dtype
        assert torch.equal(given[f"clip.{name}"], tensor), name


def test_a_converted_archive_computes_what_its_tensors_say(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    words = ["--tokenizer", files / "clip-tokenizer"]
    ran = scanonce("convert", "openai", files / "ViT-B-32.pt", out, *words)
    assert ran.returncode == 0, ran.stderr
    encoder = load_encoder(str(out), ModelSettings(dtype="float32", device="cpu"))
    assert encoder.dim == 512
    features = encoder.encode_text_features(["a red car"])
    projection = read_openai(files / "ViT-B-32.pt")["clip.text_projection"].float()
    torch.testing.assert_close(
        torch.from_numpy(features.states) @ projection, torch.from_numpy(features.joint)
    )


def test_an_archive_is_not_converted_without_the_word(files: Path, tmp_path: Path) -> None:
    ran = scanonce("convert", files / "ViT-B-32.pt", tmp_path / "out")
    assert ran.returncode == 1
    assert "scanonce convert openai" in ran.stderr
    assert scanonce("convert", files / "ViT-B-32.pt").returncode == 2


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    tensors = {"visual.layer1.0.conv1.weight": torch.zeros(4), "visual.conv2.weight": torch.zeros(4)}  # fmt: skip
    archive = write_archive(tmp_path / "RN50.pt", tensors)
    ran = scanonce("convert", "openai", archive, tmp_path / "out")
    assert ran.returncode == 1
    assert "ResNet" in ran.stderr


class Bomb:
    """Runs code when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return (os.mkdir, ("pickle-ran",))


def rewritten(source: Path, out: Path, changed: dict[str, bytes]) -> Path:
    """A copy of an archive with other contents of some entries, by the ends of their names."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = next(
                (each for end, each in changed.items() if name.endswith(end)), old.read(name)
            )
            new.writestr(name, content)
    return out


def test_code_in_an_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_archive(tmp_path / "model.pt", {"a": torch.zeros(4)})
    monkeypatch.chdir(tmp_path)
    for bomb in (pickle.dumps(Bomb()), b"cbuiltins\neval\n(S'1+1'\ntR."):
        archive = rewritten(source, tmp_path / "bomb.pt", {"/data.pkl": bomb})
        with pytest.raises(EncoderError, match="which no such archive needs"):
            read_openai(archive)
    assert not (tmp_path / "pickle-ran").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"/data.pkl": b""},
        {"/data.pkl": b"\x80\x02."},
        {"/data.pkl": b"\x80\x02N."},
        {"/data/0": b"short"},
        {"/data.pkl": b"\x80\x02Vx\nQ."},
    ],
)
def test_a_damaged_archive_is_an_error(tmp_path: Path, changed: dict[str, bytes]) -> None:
    source = write_archive(tmp_path / "model.pt", {"a": torch.zeros(4)})
    archive = rewritten(source, tmp_path / "damaged.pt", changed)
    with pytest.raises(EncoderError, match="cannot be read as one of OpenAI's archives"):
        read_openai(archive)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04"])
def test_another_file_is_not_an_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(EncoderError, match="is not one of OpenAI's archives"):
        read_openai(tmp_path / "file.pt")
