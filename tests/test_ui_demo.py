"""The demo, with two films."""

from pathlib import Path

import pytest
from PIL import Image

from scanonce.ui.commands.demo import run_demo


def test_the_demo_finds_moments_draws_a_sheet_and_starts_at_once_the_next_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_demo(tmp_path / "demo", 2)
    output = capsys.readouterr().out
    assert "2 videos indexed" in output
    assert output.count("(it is in film_") == 2
    assert "scanonce index ~/Videos" in output
    with Image.open(tmp_path / "demo" / "found.png") as sheet:
        assert sheet.width > 1000
        colours = sheet.convert("RGB").resize((64, 64)).getcolors(64 * 64)
        assert colours is not None
        assert len(colours) > 100
    monkeypatch.setattr("scanonce.ui.commands.demo.render_library", None)
    run_demo(tmp_path / "demo", 2)
    assert "2 there already" in capsys.readouterr().out
