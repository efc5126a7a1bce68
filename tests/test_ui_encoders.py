"""`scanonce encoders` and `fetch`, and the check of an encoder by `doctor` and by new indexes."""

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from benchmarks.tiny_encoders import make_encoder
from scanonce.models.encoders import check
from scanonce.models.encoders.check import check_encoder, was_checked
from scanonce.models.encoders.families import known_families
from scanonce.models.encoders.hub import with_width
from scanonce.models.encoders.known import KNOWN, recommend
from scanonce.models.encoders.load import load_encoder
from scanonce.models.offline_weights import CONCEPTS_NAME, IMAGENET, SENTENCES, are_installed
from scanonce.models.settings import ModelSettings
from tests.colours import write_film
from tests.command import scanonce

FP32 = ModelSettings(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder("siglip", tmp_path_factory.mktemp("encoders") / "siglip")


# ---- the list


def test_the_list_says_what_is_here_and_recommends_by_language() -> None:
    printed = json.loads(scanonce("encoders", "--language", "zh", "--json").stdout)
    rows = {row["name"]: row for row in printed["encoders"]}
    assert rows["bundled"]["is_here"]
    assert not rows["openai/clip-vit-base-patch32"]["is_here"]
    assert rows["bundled"]["frames_per_second"] is None
    assert rows[printed["recommended"]]["languages"] in ("zh", "100+")
    table = scanonce("encoders", columns=80)
    assert table.returncode == 0, table.stderr
    for each in KNOWN:
        assert each.name in table.stdout
    assert "scanonce fetch openai/clip-vit-base-patch32 --to" in table.stdout


def test_those_on_this_machine_are_measured() -> None:
    rows = json.loads(scanonce("encoders", "--measure", "--json").stdout)["encoders"]
    assert {row["name"] for row in rows if row["frames_per_second"]} == {
        row["name"] for row in rows if row["is_here"]
    }
    assert rows[0]["name"] == "bundled"
    assert rows[0]["frames_per_second"] > 0


@pytest.mark.parametrize("language", ["en", "de", "zh", "it", "ja"])
@pytest.mark.parametrize("has_gpu", [False, True])
def test_the_recommended_encoder_speaks_the_language(language: str, has_gpu: bool) -> None:
    assert recommend(language, has_gpu=has_gpu).speaks(language)


def test_every_family_that_loads_is_listed() -> None:
    listed = {each.family for each in KNOWN}
    assert listed - {CONCEPTS_NAME} == known_families().keys() - {"clipseg", "groupvit"}


def test_the_encoder_of_pypi_is_listed_and_offered_beside_a_download() -> None:
    rows = json.loads(scanonce("encoders", "--json").stdout)["encoders"]
    (row,) = [each for each in rows if each["name"] == CONCEPTS_NAME]
    assert row["is_here"] == are_installed(IMAGENET, SENTENCES)
    assert "scanonce index VIDEOS --encoder concepts" in scanonce("encoders").stdout
    german = scanonce("encoders", "--language", "de").stdout
    assert "--encoder concepts" not in german  # it knows English only


@pytest.mark.parametrize("name", ["bundled", "concepts"])
def test_what_is_not_on_the_hub_is_not_asked_of_it(name: str, tmp_path: Path) -> None:
    ran = scanonce("fetch", name, "--to", tmp_path / "out")
    assert ran.returncode == 1
    assert "nothing to fetch" in ran.stderr
    assert f"scanonce index VIDEOS --encoder {name}" in ran.stderr
    assert not (tmp_path / "out").exists()


# ---- the hub


@pytest.fixture
def hub(
    tmp_path: Path, siglip: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, bytes]]:
    """A hub in memory: files by model. Downloads copy what the patterns allow."""
    models = {"google/siglip": {path.name: path.read_bytes() for path in siglip.iterdir()}}
    models["google/siglip"] |= {"README.md": b"a card", "flax_model.msgpack": b"not needed"}

    def info(_: object, name: str, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in models[name]])

    def one(name: str, file: str, **_: Any) -> str:
        path = tmp_path / "one" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(models[name][file])
        return str(path)

    def snapshot(
        name: str,
        *,
        local_files_only: bool = False,
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
        local_dir: Path | None = None,
        **_: Any,
    ) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        assert local_dir is not None
        (local_dir / ".cache").mkdir(parents=True)
        for file in filter_repo_objects(
            models[name], allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (local_dir / file).write_bytes(models[name][file])
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", one)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return models


def test_fetch_writes_what_an_offline_machine_needs(
    tmp_path: Path, siglip: Path, hub: dict[str, dict[str, bytes]]
) -> None:
    ran = scanonce("fetch", "google/siglip", "--to", tmp_path / "own")
    assert ran.returncode == 0, ran.stderr
    needed = {path.name for path in siglip.iterdir()}
    assert {path.name for path in (tmp_path / "own").iterdir()} == needed
    assert "which works: 32 numbers" in ran.stdout
    assert load_encoder(str(tmp_path / "own"), FP32).dim == 32


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_weights_have_no_place(
    tmp_path: Path, hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    assert scanonce("encoders").returncode == 0
    ran = scanonce("fetch", "google/siglip", "--to", tmp_path / "own")
    assert ran.returncode == 1
    assert "because the home folder is not known. Set HOME, or HF_HOME" in ran.stderr


def test_a_cache_that_cannot_be_written_is_not_taken_for_a_hub_that_cannot_be_reached(
    tmp_path: Path, hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache/models")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    ran = scanonce("fetch", "google/siglip", "--to", tmp_path / "own")
    assert ran.returncode == 1
    assert "cannot be fetched: /cache/models: Permission denied. Make room or check" in ran.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b'{"model_type": "blip-2"}'}, "writes texts and has no vectors"),
        (
            {
                "config.json": b'{"model_type": "internvideo2", "auto_map": {"AutoModel": "own.Own"}}'
            },
            "code of a checkpoint is never run",
        ),
        ({"open_clip_config.json": b"{}"}, "in the format of open_clip"),
        ({"pytorch_model.bin": b""}, "it has no config.json"),
        ({"config.json": b"[1]"}, "its config.json is damaged"),
    ],
)
def test_a_model_that_cannot_work_is_refused_before_its_weights_are_downloaded(
    tmp_path: Path,
    hub: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    message: str,
) -> None:
    hub["some/model"] = {**files, "model.safetensors": b"large"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    ran = scanonce("fetch", "some/model", "--to", tmp_path / "own")
    assert ran.returncode == 1
    assert message in ran.stderr


@pytest.mark.parametrize(
    "name", ["./folder/", "../..", "-x/y", "a/b..c", "a/b-", "\u0430/b", "a/b/c"]
)
def test_fetch_takes_ids_of_the_hub_only(tmp_path: Path, name: str) -> None:
    ran = scanonce("fetch", "--to", tmp_path / "own", "--", name)
    assert ran.returncode == 1
    assert "is not the id of a model" in ran.stderr


@pytest.mark.parametrize(
    "command", [["index", "films"], ["fetch", "google/siglip2-base-patch16-224"]]
)
def test_without_the_hub_every_error_names_fetch(tmp_path: Path, command: list[str]) -> None:
    option = ["--to", tmp_path / "own"]
    if command[0] == "index":
        option = ["--encoder", "google/siglip2-base-patch16-224", "--index", tmp_path / "index"]
    ran = scanonce(*command, *option)
    assert ran.returncode == 1
    assert "scanonce fetch google/siglip2-base-patch16-224 --to FOLDER" in ran.stderr


# ---- the check


def test_a_checked_encoder_is_not_checked_again(
    siglip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(siglip), FP32, towers="vision")
    monkeypatch.setattr(check, "was_checked", lambda _: False)
    check_encoder(encoder, lambda: load_encoder(str(siglip), FP32, towers="text"))
    monkeypatch.undo()
    assert was_checked(encoder.fingerprint)
    check_encoder(encoder, pytest.fail)  # the text tower is not loaded
    monkeypatch.setattr(check, "version", lambda package: f"another {package}")
    assert not was_checked(encoder.fingerprint)


def test_doctor_checks_the_encoder_of_the_index(tmp_path: Path, siglip: Path) -> None:
    folder = tmp_path / "siglip"
    shutil.copytree(siglip, folder)
    film = write_film(tmp_path / "films/film.mp4", [("red", 2.0)])
    config = tmp_path / "config.toml"
    config.write_text(f'index_dir = "{tmp_path / "index"}"\n[models]\nencoder = "bundled"\n')
    ran = scanonce("index", film, "--encoder", folder, "--config", config)
    assert ran.returncode == 0, ran.stderr

    def finding() -> dict[str, Any]:
        findings = json.loads(scanonce("doctor", "--json", "--config", config).stdout)
        return next(each for each in findings if each["name"] == "encoder of the index")

    assert finding()["ok"], finding()
    assert "encodes images and texts to 32 numbers" in finding()["detail"]
    (folder / "spiece.model").unlink()
    broken = finding()
    assert not broken["ok"]
    assert "tokenizer" in broken["detail"]


def test_a_name_gets_a_width_once() -> None:
    assert with_width("google/embeddinggemma-2", 256) == "google/embeddinggemma-2@256"
    assert with_width("google/embeddinggemma-2@128", 256) == "google/embeddinggemma-2@128"
    assert with_width("bundled", 0) == "bundled"
