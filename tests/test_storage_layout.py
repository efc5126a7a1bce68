"""The manifest, and writing files whole or not at all."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch
from scanonce.storage.files import write_whole
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, create_or_check, read_manifest

MADE_WITH = Manifest("bundled", "f" * 64, 128, "uniform", 2.0, (4.0, 8.0), 0.5)


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    layout = IndexLayout(tmp_path / "index")
    create_or_check(layout, MADE_WITH)
    return layout


def test_a_manifest_reads_back_as_written(layout: IndexLayout) -> None:
    assert read_manifest(layout) == MADE_WITH


def test_the_same_settings_are_accepted_again(layout: IndexLayout) -> None:
    create_or_check(layout, MADE_WITH)


def test_the_same_weights_under_another_name_are_the_same_encoder(layout: IndexLayout) -> None:
    create_or_check(layout, replace(MADE_WITH, encoder="/somewhere/else"))
    assert read_manifest(layout).encoder == "bundled"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fingerprint", "0" * 64),
        ("dim", 512),
        ("sampling", "keyframes"),
        ("sample_fps", 1.0),
        ("clip_scales_seconds", (4.0,)),
        ("clip_stride_ratio", 1.0),
    ],
)
def test_another_setting_is_an_error_that_names_both_sides_and_the_way_out(
    layout: IndexLayout, name: str, value: object
) -> None:
    with pytest.raises(ManifestMismatch) as caught:
        create_or_check(layout, replace(MADE_WITH, **{name: value}))  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(getattr(MADE_WITH, name)) in message
    assert str(value) in message
    assert "--index" in message
    assert read_manifest(layout) == MADE_WITH


def test_another_encoder_is_named_with_its_fingerprint(layout: IndexLayout) -> None:
    with pytest.raises(ManifestMismatch, match="has bundled, asked for is openai/clip"):
        create_or_check(layout, replace(MADE_WITH, encoder="openai/clip", fingerprint="0"))


def test_a_newer_schema_is_refused(layout: IndexLayout) -> None:
    text = layout.manifest.read_text().replace('"schema_version": 1', '"schema_version": 99')
    layout.manifest.write_text(text)
    with pytest.raises(ManifestMismatch, match="schema version 99, this program reads 1"):
        read_manifest(layout)


@pytest.mark.parametrize("name", ["file", "file/index"])
def test_a_file_is_no_place_for_an_index(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexDirectoryError, match="is a file, or inside one"):
        IndexLayout.of(tmp_path / name)


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="scanonce index"):
        read_manifest(IndexLayout(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_an_error(layout: IndexLayout, content: str) -> None:
    layout.manifest.write_text(content)
    with pytest.raises(IndexDirectoryError):
        read_manifest(layout)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_whole(target, lambda file: file.write(b"old"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IndexDirectoryError, match="No space left"):
        write_whole(target, lambda file: file.write(b"new"))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
