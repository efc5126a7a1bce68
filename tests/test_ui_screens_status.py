"""The status page: its pure functions, and the page as Streamlit runs it."""

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Run, RunCounts
from scanonce.ui.pages.session import shared
from scanonce.ui.pages.status_page import (
    index_facts,
    latency_text,
    percentiles,
    run_doctor,
    run_rows,
    size_rows,
)
from tests.ui_library import empty_index, run_page, shown_index, texts

STATUS: dict[str, Any] = {
    "index": "/index",
    "encoder": "openai/clip",
    "fingerprint": "abcdef" * 10,
    "dim": 512,
    "sampling": "uniform",
    "sample_fps": 2.0,
    "exact_times": True,
    "localiser": "bundled",
    "calibration": {"kind": "none", "labelled_queries": 0},
    "anchors": "0123456789ab-3",
    "libraries": ["/films", "/films/a.mp4", "/more"],
    "videos": {"indexed": 5, "partial": 1, "failed": 2},
    "searchable_seconds": 7200.0,
    "video_bytes": 4_000_000_000,
    "feature_bytes": 4_000_000,
    "anchor_bytes": 0,
    "thumbnail_bytes": 28_000_000,
    "vector_index": {"kind": "flat", "generation": 4, "clips": 1655},
}


def test_facts_name_encoder_localiser_and_index() -> None:
    shown = index_facts(STATUS, "cpu")
    assert shown["Encoder"] == "openai/clip, 512 dimensions, fingerprint abcdefabcdef, on cpu"
    assert shown["Localiser"] == "bundled, fingerprint 0123456789ab, on cpu"
    assert shown["Calibration"] == "uncalibrated: scanonce tune --calibrate fits it"
    fitted = {**STATUS, "calibration": {"kind": "index", "labelled_queries": 1}}
    assert index_facts(fitted, "cpu")["Calibration"] == "fitted to 1 labelled query"
    assert shown["Vector index"] == "exact (flat), 1,655 clips, generation 4"
    assert shown["Videos"] == "6 videos, 2.0 h, 1 in part; 2 failed"
    assert shown["Folders"] == "/films, /more"
    assert index_facts({**STATUS, "localiser": "training-free"}, "cpu")["Localiser"].startswith(
        "training-free"
    )


def test_sizes_are_given_per_hour_of_video() -> None:
    rows = {row["Kind"]: row["Per hour of video"] for row in size_rows(STATUS)}
    assert rows == {
        "features": "2.0 MB",
        "thumbnails": "14.0 MB",
        "all of these": "16.0 MB",
        "the videos themselves": "2.0 GB",
    }
    assert {
        row["Per hour of video"] for row in size_rows({**STATUS, "searchable_seconds": 0.0})
    } == {""}


def test_runs_are_rows() -> None:
    began = datetime(2026, 11, 21, 12, tzinfo=UTC)
    counts = RunCounts(3, 1, 1, 1, 0, 0, 65.0)
    done = Run(2, "index", began, began + timedelta(seconds=75), "done", counts)
    killed = Run(1, "index", began, None, None, RunCounts())
    first, second = run_rows([done, killed])
    assert (first["Outcome"], first["Took"], first["Video"]) == ("done", "0:01:15", "0:01:05")
    assert (second["Outcome"], second["Took"]) == ("did not end", "")


def test_percentiles_are_by_stage_in_order() -> None:
    timings = [{"total": float(ms), "text": 1.0, "extra": 2.0} for ms in range(1, 101)]
    rows = percentiles(timings)
    assert [row["stage"] for row in rows] == ["text", "extra", "total"]
    assert rows[-1] == {"stage": "total", "p50": 50.5, "p95": 95.05}
    assert latency_text(rows, 100) == (
        "Milliseconds of the last 100 searches: half (p50) and 95 % (p95) took no longer than "
        "text 1 and 1; extra 2 and 2; total 50 and 95."
    )
    assert percentiles([]) == []


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [
        ("", "scanonce: config.toml: no such key", "config.toml: no such key; run `scanonce"),
        ("nonsense", "", "it printed nothing"),
        ("[1]", "", "it printed nothing"),
    ],
)
def test_a_doctor_that_cannot_answer_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str, said: str
) -> None:
    answer = subprocess.CompletedProcess([], 1, stdout, stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    (finding,) = run_doctor()
    assert not finding["ok"]
    assert said in finding["detail"]


def test_a_doctor_that_hangs_is_given_up() -> None:
    (finding,) = run_doctor(timeout_seconds=0.01)
    assert "no answer" in finding["detail"]


# ---------------------------------------------------------------- the page


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The index directory that the page shows, not made yet."""
    for _ in shown_index(tmp_path / "index", monkeypatch):
        yield tmp_path / "index"


@pytest.fixture
def library(index: Path) -> Path:
    """An index with one finished run and no videos."""
    layout = empty_index(index, "**bundled**")
    with Catalog.open(layout.catalog) as catalog:
        catalog.add_library(Path("/films/_a_ <b>"))
        catalog.runs.finish(catalog.runs.begin("index"), "done", RunCounts())
    return index


def test_without_an_index_the_page_says_so(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st, "page_link", lambda *_, **__: None)  # its page is in `ui/pages/app.py`
    page = run_page("status")
    assert "There is no index yet." in texts(page)
    assert "Nobody has searched since this server was started." in texts(page)


def test_index_runs_and_sizes_are_shown_as_text(library: Path) -> None:
    page = run_page("status")
    shown = [element.value for element in page.text]
    assert str(library) in shown
    assert "/films/_a_ <b>" in shown
    missing = "subtitle,said,written"
    assert any(text.endswith(f"Next: scanonce tracks add {missing}") for text in shown)
    assert any(text.startswith("**bundled**, 4 dimensions") for text in shown)
    assert any("scanonce tune --calibrate" in text for text in shown)
    assert list(page.dataframe[0].value["Outcome"]) == ["done"]
    assert "Kind" in page.table[0].value.columns


def test_the_last_searches_are_shown_by_stage(library: Path) -> None:
    for total in (10.0, 20.0):
        shared().timings.append({"text": 5.0, "library": 1.0, "moments": 2.0, "total": total})
    assert any(
        "last 2 searches" in text and "total 15 and 20" in text
        for text in texts(run_page("status"))
    )


def test_the_doctor_is_asked_by_a_button_and_its_findings_are_kept(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    found = [
        {"name": "faiss", "ok": True, "detail": "fine"},
        {"name": "encoder", "ok": False, "detail": "**not** here: fetch it"},
    ]

    def doctor(*command: object, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess([], 1, json.dumps(found), "")

    monkeypatch.setattr(subprocess, "run", doctor)
    page = run_page("status")
    assert not asked
    page.button[0].click().run()
    page.run()
    assert len(asked) == 1, "kept"
    assert "1 of 2 checks failed." in texts(page)
    assert "**not** here: fetch it" in [element.value for element in page.text]
    page.button[0].click().run()
    assert len(asked) == 2, "asked again"


def test_a_damaged_manifest_gives_a_message(library: Path) -> None:
    (library / "manifest.json").write_text("{")
    page = run_page("status")
    assert "Restore the file from a backup" in page.error[0].value
    assert "Doctor" in [element.value for element in page.subheader]
