"""The status page: the models and sizes of the index, the times of searches, and the checks of the installation."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from scanonce.indexer.scan import outermost
from scanonce.models.runtime import pick_device
from scanonce.models.soonet.trained import NO_LOCALISER
from scanonce.storage.catalog.entries import Run
from scanonce.storage.manifest import read_manifest
from scanonce.ui.jobs import read as read_job
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.finding import index_status
from scanonce.ui.pages.session import CONFIG_VARIABLE, Shared, shared
from scanonce.ui.safe_text import encodable
from scanonce.ui.track_text import coverage_lines
from scanonce.ui.views import (
    INEXACT_TIMES,
    calibration_text,
    clock,
    count_text,
    date_text,
    hours_text,
    size_text,
)

STAGES = ("text", "library", "moments", "total")
DOCTOR_SECONDS = 180.0

Finding = Mapping[str, Any]
"""``name``, ``ok`` and ``detail``: the schema of `scanonce doctor --json`."""


# ---------------------------------------------------------------- pure


def index_facts(status: Mapping[str, Any], device: str) -> dict[str, str]:
    """Return the facts about an index, by title.

    Args:
        status: from `ui.views.status_json`, with ``anchors`` of the manifest.
        device: the device of encoder and localiser.
    """
    vectors, videos = status["vector_index"], status["videos"]
    searchable = videos["indexed"] + videos["partial"]
    video_text = (
        f"{count_text(searchable, 'video')}, {hours_text(status['searchable_seconds'])}"
        + (f", {videos['partial']:,} in part" if videos["partial"] else "")
        + (f"; {videos['failed']:,} failed" if videos["failed"] else "")
    )
    return {
        "Index": status["index"],
        "Videos": video_text,
        "Folders": ", ".join(map(str, outermost(map(Path, status["libraries"])))) or "none",
        "Encoder": f"{status['encoder']}, {status['dim']} dimensions, fingerprint "
        f"{status['fingerprint'][:12]}, on {device}",
        "Localiser": _localiser_text(status, device),
        "Calibration": calibration_text(status["calibration"]),
        "Sampling": f"{status['sampling']}, {status['sample_fps']:g} frames a second"
        + ("" if status["exact_times"] else f"; {INEXACT_TIMES}"),
        "Vector index": f"{_KINDS.get(vectors['kind'], vectors['kind'])}, "
        f"{count_text(vectors['clips'], 'clip')}, generation {vectors['generation']}",
    }


_KINDS = {"flat": "exact (flat)", "ivfpq": "IVF-PQ", "none": "none yet"}


def _localiser_text(status: Mapping[str, Any], device: str) -> str:
    if status["localiser"] == NO_LOCALISER:
        return "training-free, from the curve of frame scores"
    folder = status.get("anchors")
    known = f", fingerprint {folder.rsplit('-', 1)[0]}" if folder else ""
    return f"{status['localiser']}{known}, on {device}"


def size_rows(status: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the size on disk of each kind of file, in all and for an hour of video."""
    hours = status["searchable_seconds"] / 3600
    kinds = {
        "features": "feature_bytes",
        "anchors": "anchor_bytes",
        "thumbnails": "thumbnail_bytes",
    }
    rows = [(name, status[key]) for name, key in kinds.items() if status[key]]
    rows.append(("all of these", sum(num_bytes for _, num_bytes in rows)))
    rows.append(("the videos themselves", status["video_bytes"]))
    return [
        {
            "Kind": name,
            "On disk": size_text(num_bytes),
            "Per hour of video": size_text(num_bytes / hours) if hours else "",
        }
        for name, num_bytes in rows
    ]


def run_rows(runs: Iterable[Run]) -> list[dict[str, str | int]]:
    """Return the last runs of the indexer as rows, newest first.

    A run without an end is still at work or was killed.
    """
    rows: list[dict[str, str | int]] = []
    for run in runs:
        counts = run.counts
        seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
        rows.append(
            {
                "Started": date_text(run.started_at),
                "What": run.kind,
                "Outcome": run.outcome or "did not end",
                "Took": clock(seconds) if seconds is not None else "",
                "Indexed": counts.indexed,
                "In part": counts.partial,
                "Failed": counts.failed,
                "Already indexed": counts.skipped,
                "Forgotten": counts.forgotten,
                "Video": clock(counts.video_seconds),
            }
        )
    return rows


def percentiles(timings: Sequence[Mapping[str, float]]) -> list[dict[str, str | float]]:
    """Return p50 and p95 in milliseconds for each stage, in the order of the stages.

    >>> percentiles([{"text": 2.0, "total": 4.0}, {"text": 4.0, "total": 8.0}])[0]
    {'stage': 'text', 'p50': 3.0, 'p95': 3.9}
    """
    rows: list[dict[str, str | float]] = []
    others = sorted({name for timing in timings for name in timing}.difference(STAGES))
    for stage in (*STAGES[:-1], *others, STAGES[-1]):
        values = [timing[stage] for timing in timings if stage in timing]
        if values:
            p50, p95 = np.percentile(values, (50, 95))
            rows.append({"stage": stage, "p50": round(float(p50), 2), "p95": round(float(p95), 2)})
    return rows


def latency_text(rows: Sequence[Mapping[str, str | float]], num_searches: int) -> str:
    """Return the plot in words."""
    stages = "; ".join(f"{row['stage']} {row['p50']:.0f} and {row['p95']:.0f}" for row in rows)
    last = f"last {num_searches:,} searches" if num_searches > 1 else "only search"
    return f"Milliseconds of the {last}: half (p50) and 95 % (p95) took no longer than {stages}."


# ---------------------------------------------------------------- doctor


def run_doctor(config: str | None = None, timeout_seconds: float = DOCTOR_SECONDS) -> list[Finding]:
    """Return the findings of `scanonce doctor`, run in a process of its own: it loads what a server does not need.

    Args:
        config: configuration file. Default: as for the command line.
        timeout_seconds: time after which the process is killed, which is a finding too.
    """
    command = [sys.executable, "-m", "scanonce.ui.cli", "doctor", "--json"]
    if config:
        command += ["--config", config]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        return [
            {"name": str(each["name"]), "ok": bool(each["ok"]), "detail": str(each["detail"])}
            for each in found
        ]
    except subprocess.TimeoutExpired:
        detail = (
            f"it gave no answer in {timeout_seconds:.0f} s: run `scanonce doctor` in a terminal"
        )
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        detail = (
            f"{last.removeprefix('scanonce: ')}; run `scanonce doctor` in a terminal to see more"
        )
    return [{"name": "doctor", "ok": False, "detail": detail}]


@st.cache_data(ttl=3600, show_spinner=False)
def doctor() -> tuple[list[Finding], datetime]:
    """Return the findings, kept for an hour, and their time."""
    return run_doctor(os.environ.get(CONFIG_VARIABLE)), datetime.now()


# ---------------------------------------------------------------- the page


@st.cache_data(show_spinner=False)
def device(name: str) -> str:
    """Return the device of encoder and localiser."""
    return str(pick_device(name))


def page() -> None:
    """Draw the page."""
    here = shared()
    with errors_shown():
        if here.exists:
            status = index_status(here.layout.root)
            _index(status, here)
            _tracks(status)
            _sizes(status)
            _runs(here)
        else:
            st.write("There is no index yet.")
            st.page_link("library_page.py", label="Add a folder in the library")
    _latency(list(here.timings))
    _doctor()


def _index(status: Mapping[str, Any], here: Shared) -> None:
    st.subheader("Index")
    shown = index_facts(
        {**status, "anchors": read_manifest(here.layout).anchors}, device(here.config.models.device)
    )
    for title, text in shown.items():
        name, value = st.columns([1, 6], gap="small", wrap=False)
        name.caption(title)
        value.text(encodable(text))


def _tracks(status: Mapping[str, Any]) -> None:
    """Show which tracks are read."""
    st.subheader("Words")
    searchable = status["videos"]["indexed"] + status["videos"]["partial"]
    for text in coverage_lines(status["tracks"], searchable):
        st.text(text)


def _sizes(status: Mapping[str, Any]) -> None:
    st.subheader("On disk")
    st.table(size_rows(status), border="horizontal", hide_index=True)


def _runs(here: Shared) -> None:
    st.subheader("Last runs")
    with here.catalog() as catalog:
        runs = catalog.runs.last(10)
    if not runs:
        st.write("None yet.")
        return
    rows = run_rows(runs)
    job = read_job(here.layout.root)
    if job is not None and job.alive and rows[0]["Outcome"] == "did not end":
        rows[0]["Outcome"] = "running"
    st.dataframe(rows, hide_index=True, alt=f"the last {count_text(len(rows), 'run')}")


def _latency(timings: Sequence[Mapping[str, float]]) -> None:
    st.subheader("Searches")
    if not timings:
        st.write("Nobody has searched since this server was started.")
        return
    rows = percentiles(timings)
    text = latency_text(rows, len(timings))
    st.bar_chart(
        rows,
        x="stage",
        y=["p50", "p95"],
        x_label="",  # of the stages: the chart is turned, its labels are not
        y_label="milliseconds",
        color=["#0b7285", "#8cc4cf"],
        horizontal=True,
        sort=False,
        stack=False,
        height=40 * len(rows) + 90,
        alt=text,
    )
    st.caption(text)


def _doctor() -> None:
    st.subheader("Doctor")
    if st.button("Check this installation", help="Takes some ten seconds."):
        doctor.clear()
        st.session_state["doctor_asked"] = True
    if not st.session_state.get("doctor_asked"):
        st.caption("Packages, device, decoders, weights, disk, and a small run of everything.")
        return
    with st.spinner("Checking packages, device, decoders and weights"):
        findings, when = doctor()
    bad = [finding for finding in findings if not finding["ok"]]
    st.write(
        f"{len(bad)} of {count_text(len(findings), 'check')} failed."
        if bad
        else f"All {len(findings)} checks passed."
    )
    for finding in [*bad, *(each for each in findings if each["ok"])]:
        name, detail = st.columns([1, 5], gap="small")
        with name.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.badge("ok" if finding["ok"] else "failed", color="green" if finding["ok"] else "red")
            st.text(finding["name"])
        detail.text(encodable(finding["detail"]))
    st.caption(f"Checked at {when:%H:%M}.")


if __name__ == "__main__":
    page()
