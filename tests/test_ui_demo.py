"""The demo, with two films."""

from pathlib import Path

import pytest
from PIL import Image

from tests.command import scanonce


def test_the_demo_finds_moments_draws_a_sheet_and_starts_at_once_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = scanonce("demo", tmp_path / "demo", "--films", 2)
    assert demo.returncode == 0
    assert "2 videos indexed" in demo.stdout
    assert demo.stdout.count("(it is in film_") == 2
    assert "scanonce index ~/Videos" in demo.stdout
    with Image.open(tmp_path / "demo" / "found.png") as sheet:
        assert sheet.width > 1000
        colours = sheet.convert("RGB").resize((64, 64)).getcolors(64 * 64)
        assert colours is not None
        assert len(colours) > 100
    monkeypatch.setattr("scanonce.training.world.films.render_library", None)
    again = scanonce("demo", tmp_path / "demo", "--films", 2)
    assert "2 there already" in again.stdout
