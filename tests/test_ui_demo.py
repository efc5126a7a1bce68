"""The demo, with two films."""

import json
import re
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
    truth = (tmp_path / "demo" / "films" / "ground_truth.jsonl").read_text()
    proposed = re.search(r'search "(.+)" --index', demo.stdout)
    assert proposed
    assert proposed[1] in {json.loads(line)["query"] for line in truth.splitlines()}
    tried = scanonce("search", proposed[1], "--json", "--index", tmp_path / "demo" / "index")
    assert not json.loads(tried.stdout)["no_good_match"]
    with Image.open(tmp_path / "demo" / "found.png") as sheet:
        assert sheet.width > 1000
        colours = sheet.convert("RGB").resize((64, 64)).getcolors(64 * 64)
        assert colours is not None
        assert len(colours) > 100
    monkeypatch.setattr("scanonce.training.world.films.render_library", None)
    again = scanonce("demo", tmp_path / "demo", "--films", 2)
    assert "2 already indexed" in again.stdout
