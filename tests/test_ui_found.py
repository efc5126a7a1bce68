"""Uses of moments on the command line: clips, lists, a player; and days as people write them."""

import csv
import json
import os
from datetime import date
from io import StringIO
from pathlib import Path

import opentimelineio as otio  # type: ignore[import-untyped]
import pytest

from scanonce.media.cut import probe
from scanonce.storage.errors import QueryError
from scanonce.ui.days import first_day, last_day
from tests.colours import write_film
from tests.command import scanonce

TODAY = date(2026, 3, 31)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(films, index) with the bundled encoder."""
    root = tmp_path_factory.mktemp("found")
    films, index = root / "films", root / "index"
    write_film(films / "a film.mp4", [("red", 4), ("blue", 4)])
    write_film(films / "b.mkv", [("green", 6)])
    run = scanonce("index", films, "--index", index, "--encoder", "bundled")
    assert run.returncode == 0, run.stderr
    return films, index


def test_moments_are_cut_into_files(library: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("search", "a red car", "--top", 2, "--index", library[1])
    run = scanonce(*asked, "--save-clips", tmp_path / "clips", "--json")
    assert run.returncode == 0, run.stderr
    moments = json.loads(run.stdout)["moments"]
    files = sorted((tmp_path / "clips").iterdir())
    assert [each.name[:3] for each in files] == ["01 ", "02 "]
    assert [str(each) in run.stderr for each in files] == [True, True]
    for file, moment in zip(files, moments, strict=True):
        assert Path(moment["path"]).stem in file.name
        assert probe(file).video_codec == "h264"
    elsewhere = library[0].rename(tmp_path / "elsewhere")
    try:
        lost = scanonce(*asked, "--save-clips", tmp_path / "clips")
    finally:
        elsewhere.rename(library[0])
    assert lost.returncode == 1
    assert "no moment could be cut" in lost.stderr


def test_moments_are_printed_as_lists_for_other_programs(library: tuple[Path, Path]) -> None:
    asked = ("search", "a red car", "--top", 2, "--index", library[1])
    found = json.loads(scanonce(*asked, "--json").stdout)["moments"]
    rows = list(
        csv.DictReader(StringIO(scanonce(*asked, "--export", "csv").stdout.lstrip("\ufeff")))
    )
    assert [row["path"] for row in rows] == [each["path"] for each in found]
    assert scanonce(*asked, "--export", "edl").stdout.startswith("TITLE: ")
    timeline = otio.adapters.read_from_string(
        scanonce(*asked, "--export", "otio").stdout, "otio_json"
    )
    assert len(list(timeline.find_clips())) == 2
    several = scanonce(*asked, "--export", "srt")
    assert several.returncode == 1
    assert "--in FILE" in several.stderr
    one = scanonce(*asked, "--export", "srt", "--in", found[0]["path"])
    assert " --> " in one.stdout
    assert scanonce(*asked, "--paths").stdout.splitlines() == list(
        dict.fromkeys(each["path"] for each in found)
    )
    assert scanonce(*asked, "--paths", "--json").returncode == 2
    assert scanonce("search", "--queries", "x", "--json", "--open").returncode == 2


def test_the_first_moment_is_played_from_its_begin(
    library: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("search", "a red car", "--top", 1, "--index", library[1])
    (moment,) = json.loads(scanonce(*asked, "--json").stdout)["moments"]
    monkeypatch.setenv("PATH", str(tmp_path))
    none = scanonce(*asked, "--open")
    assert none.returncode == 1
    assert "mpv, vlc, ffplay" in none.stderr
    player = tmp_path / "mpv"
    player.write_text(f'#!/bin/sh\nprintf "%s|" "$@" > {tmp_path}/played\n')
    player.chmod(0o755)
    assert scanonce(*asked, "--open").returncode == 0
    start = f"--start={moment['start_seconds']:.3f}"
    assert (tmp_path / "played").read_text() == f"{start}|--|{moment['path']}|"


def test_a_clip_is_cut_out_of_any_video(library: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    run = scanonce("cut", library[0] / "a film.mp4", "0:01", "2.5", "--out", out)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(out)
    assert probe(out).video_codec == "h264"
    again = scanonce("cut", library[0] / "a film.mp4", "1", "2", "--out", out)
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert scanonce("cut", library[0] / "b.mkv", "1", "2", "--out", out, "--force").returncode == 0
    folder = scanonce("cut", library[0] / "b.mkv", "1", "2", "--out", tmp_path, "--force")
    assert folder.returncode == 1
    assert "is a folder: name a file in it" in folder.stderr
    for start, end in (("2", "1"), ("x", "1"), ("1", "1"), ("nan", "2"), ("1", "inf")):
        wrong = scanonce("cut", library[0] / "b.mkv", start, end, "--out", tmp_path / "x.mp4")
        assert wrong.returncode == 1, (start, end)
        assert "two times" in wrong.stderr


def test_one_file_is_searched_without_an_index(library: tuple[Path, Path], tmp_path: Path) -> None:
    film = library[0] / "a film.mp4"
    run = scanonce("peek", film, "a red car", "--encoder", "bundled", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {each["path"] for each in found["moments"]} == {str(film)}
    (tmp_path / "x.mp4").write_bytes(b"no video")
    refused = scanonce("peek", tmp_path / "x.mp4", "red", "--encoder", "bundled")
    assert refused.returncode == 1
    assert "cannot be searched" in refused.stderr


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2025", "2025-01-01", "2025-12-31"),
        ("2026-3-5", "2026-03-05", "2026-03-05"),
        (" Yesterday ", "2026-03-30", "2026-03-30"),
        ("today", "2026-03-31", "2026-03-31"),
        ("7d", "2026-03-24", "2026-03-24"),
        ("2 weeks ago", "2026-03-17", "2026-03-17"),
        ("1 month", "2026-02-28", "2026-02-28"),
        ("4 months", "2025-11-30", "2025-11-30"),
        ("2 years", "2024-03-31", "2024-03-31"),
    ],
)
def test_days_as_people_write_them(text: str, first: str, last: str) -> None:
    assert (first_day(text, TODAY).isoformat(), last_day(text, TODAY).isoformat()) == (first, last)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2024-13", "2024-02-30", "0000", "99999 years", "7", "d", "2024-1-1-1"]
)
def test_other_texts_are_no_days(text: str) -> None:
    with pytest.raises(QueryError, match="allowed is"):
        first_day(text, TODAY)


def test_a_search_by_a_relative_day_looks_at_the_files(library: tuple[Path, Path]) -> None:
    os.utime(library[0] / "b.mkv", (1_600_000_000, 1_600_000_000))
    scanonce("index", "--index", library[1])
    asked = ("search", "green", "--paths", "--index", library[1])
    assert scanonce(*asked, "--before", "2020-09").stdout.split() == [str(library[0] / "b.mkv")]
    assert "a film" in scanonce(*asked, "--after", "2 days").stdout
