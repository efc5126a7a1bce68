"""Guarded decoding: a decoder that dies, hangs or lies costs one file."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import workers
from indexer.decode import Sampling
from indexer.workers import DecodePool, DecodeRequest, Event, Failed, Finished, Frames, Opened
from models.preprocess import Preprocessing
from tests.videos import cut, write_sound, write_video

STEPS = Preprocessing(None, (32, 32), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def request(stall_seconds: float = 30.0) -> DecodeRequest:
    return DecodeRequest(Sampling("uniform", 10.0), "pyav", STEPS, stall_seconds)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "good.mp4", num_frames=60, fps=30).path


def by_file(events: Iterator[Event]) -> dict[int, list[Event]]:
    files: dict[int, list[Event]] = {}
    for event in events:
        files.setdefault(event.job, []).append(event)
    return files


def test_frames_of_each_file_come_in_order_at_the_encoders_size(video: Path) -> None:
    with DecodePool(request(), workers=2) as pool:
        files = by_file(pool.decode([video] * 3))
    assert sorted(files) == [0, 1, 2]
    for events in files.values():
        assert isinstance(events[0], Opened)
        assert isinstance(events[-1], Finished)
        assert events[-1].problem is None
        assert events[-1].end_seconds == pytest.approx(2.0, abs=0.01)
        messages = [event for event in events if isinstance(event, Frames)]
        assert np.concatenate([each.pts_seconds for each in messages]) == pytest.approx(
            np.arange(20) / 10
        )
        assert all(each.images.shape == (len(each.pts_seconds), 32, 32, 3) for each in messages)
        assert all(each.images.dtype == np.uint8 for each in messages)


def test_files_that_are_no_videos_fail_and_the_rest_goes_on(tmp_path: Path, video: Path) -> None:
    garbage, empty = tmp_path / "garbage.mp4", tmp_path / "empty.mp4"
    garbage.write_bytes(os.urandom(5000))
    empty.touch()
    sound = write_sound(tmp_path / "sound.mp4")
    with DecodePool(request(), workers=2) as pool:
        files = by_file(pool.decode([garbage, empty, sound, tmp_path / "gone.mp4", video]))
    for job in range(4):
        (failure,) = files[job]
        assert isinstance(failure, Failed)
        assert failure.reason
    assert isinstance(files[4][-1], Finished)


def test_a_truncated_file_gives_its_frames_and_the_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", num_frames=300, fps=30).path
    with DecodePool(request(), workers=1) as pool:
        events = by_file(pool.decode([cut(whole, tmp_path / "cut.mkv", 0.6)]))[0]
    assert any(isinstance(event, Frames) for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].problem


def _dies(connection: Any, *_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hangs(connection: Any, *_: object) -> None:
    time.sleep(600)


def _lies(connection: Any, *_: object) -> None:
    connection.send_bytes(b"\x80\x04not what was agreed")
    time.sleep(600)


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [(_dies, "SIGSEGV"), (_hangs, "no frame for"), (_lies, "made no sense")],
)
def test_a_child_that_misbehaves_costs_its_file_and_is_replaced(
    video: Path, monkeypatch: pytest.MonkeyPatch, misbehave: Callable[..., None], reason: str
) -> None:
    decode_one = workers._decode_one

    def hostile(connection: Any, request: DecodeRequest, path: Path, threads: int) -> None:
        (misbehave if path.name == "bad.mp4" else decode_one)(connection, request, path, threads)

    # a forked child inherits the patch; the usual children start from a clean server
    monkeypatch.setattr(workers, "_decode_one", hostile)
    monkeypatch.setattr(workers, "_process_context", lambda: multiprocessing.get_context("fork"))
    bad = video.with_name("bad.mp4")
    with DecodePool(request(stall_seconds=1.0), workers=1) as pool:
        files = by_file(pool.decode([video, bad, video]))
    (failure,) = files[1]
    assert isinstance(failure, Failed)
    assert reason in failure.reason
    assert isinstance(files[0][-1], Finished)
    assert isinstance(files[2][-1], Finished)


def test_leaving_early_ends_the_children(video: Path) -> None:
    with DecodePool(request(), workers=2) as pool:
        next(pool.decode([video] * 50))
    assert not [child for child in multiprocessing.active_children() if child.name == "decoder"]


def test_no_files_give_no_events() -> None:
    with DecodePool(request(), workers=2) as pool:
        assert list(pool.decode([])) == []
