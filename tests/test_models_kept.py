"""The place of what is kept for an encoder, on machines that have none."""

import pwd
from pathlib import Path

import pytest
from huggingface_hub.utils import _cache_assets

from scanonce.models.kept import kept_file


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the hub's cache in which programs keep what is theirs."""
    folder = tmp_path / "assets"
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", str(folder))
    return folder


def test_a_file_has_a_place_for_each_kind_and_encoder(assets: Path) -> None:
    places = {kept_file(kind, encoder, "x") for kind in ("a", "b") for encoder in ("c", "d")}
    assert len(places) == 4
    for path in places:
        assert path is not None
        assert path.is_relative_to(assets)
        path.write_text("it can be written")


def test_nothing_is_kept_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(_cache_assets, "HF_ASSETS_CACHE", "~/.cache/huggingface/assets")
    assert kept_file("kind", "encoder", "x") is None


def test_nothing_is_kept_where_there_can_be_no_folder(assets: Path) -> None:
    assets.touch()
    assert kept_file("kind", "encoder", "x") is None
    assets.unlink()
    (assets / "scanonce").mkdir(parents=True)
    (assets / "scanonce" / "kind").touch()
    assert kept_file("kind", "encoder", "x") is None


def test_nothing_is_kept_in_a_folder_that_may_not_be_entered(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        found = kept_file("kind", "encoder", "x")
    assert found is None
