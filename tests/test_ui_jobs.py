"""Indexing in a process of its own: real processes on tiny films."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scanonce.indexer.pipeline import IndexReport, Progress
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import RunCounts
from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.ui import jobs
from scanonce.ui.jobs import Job, read, recorded
from tests import held
from tests.colours import write_film

WAIT_SECONDS = 600.0


def job_of(index: Path) -> Job:
    """Return the run of an index, which must have one."""
    job = read(index)
    assert job is not None
    return job


def wait_until(index: Path, holds: Callable[[Job], bool]) -> Job:
    """Return the run as soon as a condition holds."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        job = job_of(index)
        if holds(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"not within {WAIT_SECONDS} s: {job}")


def num_searchable(index: Path) -> int:
    try:
        with Catalog.open(index / "catalog.sqlite", read_only=True) as catalog:
            return len(catalog.live_video_ids())
    except IndexDirectoryError:  # its tables are just being made
        return 0


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A configuration that makes a run slow."""
    config = tmp_path / "slow.toml"
    config.write_text(
        '[models]\nencoder = "bundled"\n[indexer]\nbatch_frames = 1\ndecode_workers = 1\n'
    )
    return config


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a file without which no run indexes more than one video; see `tests.held`."""
    gate = tmp_path / "gate"
    monkeypatch.setenv(held.GATE, str(gate))
    monkeypatch.setattr(jobs, "MODULE", "tests.held")
    yield gate
    gate.touch()  # no run of a test that failed waits for ever


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for number in range(6):
        write_film(
            tmp_path / "films" / f"{number}.mp4", [("green", 24), ("blue", 2 + number)], fps=2
        )
    return tmp_path / "films"


def test_a_run_is_started_paused_and_resumed_until_all_is_indexed(
    films: Path, tmp_path: Path, slow: Path, gate: Path
) -> None:
    index = tmp_path / "index"
    job = jobs.start(index, [films], config=slow)  # it returns at once: the run cannot end yet
    assert (job.state, job.alive, job.paths) == ("running", True, (films,))
    with pytest.raises(IndexDirectoryError, match="another run"):
        jobs.start(index, [films], config=slow)
    assert os.getsid(job.pid) == job.pid, "the server's Ctrl-C does not reach it"

    job = wait_until(index, lambda job: job.videos_done >= 1 and job.alive)
    assert job.videos_total == 6
    assert 0 < job.share <= 1
    assert job.current is not None
    assert job.current.parent == films
    assert jobs.pause(index).state == "pausing"
    assert jobs.pause(index).state in ("pausing", "paused"), "a second click changes nothing"
    gate.touch()
    job = wait_until(index, lambda job: not job.alive)
    assert job.state == "paused"
    assert job.resumable
    done = num_searchable(index)
    assert 1 <= done < 6
    assert job.counts is not None
    assert job.counts.indexed == done
    with pytest.raises(IndexDirectoryError, match="nothing to pause"):
        jobs.pause(index)

    jobs.resume(index)
    job = wait_until(index, lambda job: not job.alive)
    assert job.state == "done", job
    assert job.counts is not None
    assert (job.counts.indexed, job.counts.skipped) == (6 - done, done)
    assert num_searchable(index) == 6


@pytest.mark.usefixtures("gate")
def test_a_run_that_is_killed_has_died_and_can_be_resumed(
    films: Path, tmp_path: Path, slow: Path
) -> None:
    index = tmp_path / "index"
    job = jobs.start(index, [films], config=slow)
    wait_until(index, lambda job: job.doing != "starting")
    os.kill(job.pid, signal.SIGKILL)
    job = wait_until(index, lambda job: not job.alive)
    assert job.state == "died"
    assert job.resumable
    assert job.error is not None
    assert "resume goes on from there" in job.error
    assert not list(index.glob("*.pause"))


def test_a_run_that_cannot_begin_has_failed_and_says_why(tmp_path: Path) -> None:
    index, missing = tmp_path / "index", tmp_path / "nowhere"
    config = tmp_path / "config.toml"
    config.write_text("[models]\nnonsense = 1\n")
    jobs.start(index, [missing], config=config)
    job = wait_until(index, lambda job: not job.alive)
    assert (job.state, job.resumable) == ("failed", False)
    assert job.error is not None
    assert "there is no such key" in job.error
    assert any("there is no such key" in line for line in job.log_tail)


def test_a_run_from_a_terminal_is_visible_and_refuses_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    with recorded(index, [tmp_path]) as recorder:
        recorder.report("loading")
        job = job_of(index)
        assert (job.state, job.doing, job.pid) == ("running", "loading", os.getpid())
        with pytest.raises(IndexDirectoryError, match="wait until it has ended, or pause it"):
            jobs.start(index, [tmp_path])
        other = subprocess.run(
            [sys.executable, "-c", _SECOND, index], capture_output=True, text=True, check=False
        )
        assert "is being written by process" in other.stderr
        assert "1 worker" not in other.stdout
        recorder.finish(IndexReport(RunCounts(seen=1, indexed=1), (), num_offline=2))
    job = job_of(index)
    assert (job.state, job.num_offline, job.has_log) == ("done", 2, False)
    assert job.counts == RunCounts(seen=1, indexed=1)


_SECOND = """
import sys
from pathlib import Path
from scanonce.ui.jobs import recorded
with recorded(Path(sys.argv[1]), []):
    print("1 worker")
"""


def test_progress_is_written_at_most_twice_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("scanonce.ui.jobs.time.monotonic", lambda: clock[0])
    seen = []
    with recorded(tmp_path, [tmp_path]) as recorder:
        for tenth in range(101):
            clock[0] = 101.0 + tenth / 10
            recorder.on_progress(
                Progress(tenth // 20, 10, 20.0 * tenth, 4000, 3.0 * tenth, Path("/a \udcff.mp4"))
            )
            job = job_of(tmp_path)
            seen.append(job)
        recorder.finish(IndexReport(RunCounts(), (), interrupted=True))
    assert len({job.bytes_done for job in seen}) == 21  # 10 s
    assert seen[-1].rate == pytest.approx(30.0)
    assert seen[-1].seconds_left == pytest.approx(10.0)
    assert seen[-1].current == Path("/a \udcff.mp4")
    job = job_of(tmp_path)
    assert job.state == "stopped", "nobody has asked it to pause"


def test_a_run_whose_interrupt_was_lost_stops_at_its_next_progress(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path, [tmp_path]) as recorder:  # noqa: PT012
        job = job_of(tmp_path)
        jobs._write_json(tmp_path / "run.pause", {"pid": job.pid, "pid_started": job.pid_started})
        recorder.on_progress(Progress(0, 1, 0.0, 1, 0.0, None))
    job = job_of(tmp_path)
    assert job.state == "paused"


def test_an_error_is_kept_with_its_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), recorded(tmp_path, [tmp_path]):
        raise ConfigError("/films does not exist: plug its disk in")
    job = job_of(tmp_path)
    assert (job.state, job.error) == ("failed", "/films does not exist: plug its disk in")
    with pytest.raises(ZeroDivisionError), recorded(tmp_path, [tmp_path]):
        _ = 1 / 0
    job = job_of(tmp_path)
    assert job.error is not None
    assert "please report it" in job.error


def test_another_process_with_the_same_id_is_not_the_run(tmp_path: Path) -> None:
    with recorded(tmp_path, [tmp_path]):
        job = job_of(tmp_path)
        jobs._write(tmp_path, replace(job, pid_started="some other time"))
        dead = job_of(tmp_path)
        assert dead.state == "died"


def test_a_process_that_has_ended_is_not_alive_before_anybody_waits_for_it() -> None:
    assert jobs._process_started(os.getpid()) == jobs._process_started(os.getpid()) is not None
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        deadline = time.monotonic() + WAIT_SECONDS
        while jobs._process_started(child.pid) is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert jobs._process_started(child.pid) is None


@pytest.mark.parametrize("content", ["", "[]", '{"paths": 3}', "{\x00", json.dumps({"pid": 1})])
def test_an_invalid_file_is_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert read(tmp_path) is None
    assert read(tmp_path / "nowhere") is None
    with pytest.raises(IndexDirectoryError, match="start one"):
        jobs.resume(tmp_path)
    with pytest.raises(ConfigError, match="add one first"):
        jobs.start(tmp_path, [])


def test_neither_torch_nor_streamlit_is_imported() -> None:
    code = "import sys, scanonce.ui.jobs; print([n for n in ('torch', 'streamlit') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
