"""Guarded decoding: a decoder that dies, hangs or lies costs one file."""

import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer import workers
from indexer.decode import Sampling
from indexer.thumbnails import ThumbnailRequest
from indexer.workers import (
    DecodePool,
    DecodeRequest,
    Event,
    Failed,
    Finished,
    Frames,
    NewThumbnails,
    Opened,
)
from models.preprocess import Preprocessing
from storage.thumbnails import Thumbnails
from tests.videos import cut, read_number, write_sound, write_video

STEPS = Preprocessing(None, (32, 32), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


THUMBNAILS = ThumbnailRequest(every_seconds=0.5, width=96)


def request(
    stall_seconds: float = 30.0, thumbnails: ThumbnailRequest | None = THUMBNAILS
) -> DecodeRequest:
    return DecodeRequest(Sampling("uniform", 10.0), "pyav", STEPS, stall_seconds, thumbnails)


def thumbnails_of(events: list[Event]) -> Thumbnails:
    return Thumbnails.join([each.thumbnails for each in events if isinstance(each, NewThumbnails)])


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


def test_thumbnails_are_the_frames_at_their_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", num_frames=300, fps=30, size=(480, 270)).path
    with DecodePool(request(), workers=1) as pool:
        thumbnails = thumbnails_of(by_file(pool.decode([video]))[0])
    assert thumbnails.pts_seconds == pytest.approx(np.arange(20) / 2), "more than one message"
    pictures = [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in thumbnails.jpegs]
    assert [read_number(picture) for picture in pictures] == [15 * k for k in range(20)]
    assert {picture.shape for picture in pictures} == {(54, 96, 3)}


def test_thumbnails_are_upright(tmp_path: Path) -> None:
    video = write_video(tmp_path / "turned.mp4", size=(480, 270), rotation=90).path
    wide = ThumbnailRequest(every_seconds=0.5, width=160)
    with DecodePool(request(thumbnails=wide), workers=1) as pool:
        thumbnails = thumbnails_of(by_file(pool.decode([video]))[0])
    picture = np.asarray(Image.open(io.BytesIO(thumbnails.jpegs[0])))
    assert picture.shape == (90, 51, 3)
    assert read_number(picture) == 0


@pytest.mark.parametrize(
    ("size", "shown"), [((2, 2), (2, 2)), ((16384, 2), (96, 1)), ((2, 2000), (1, 54))]
)
def test_pictures_of_odd_shapes_get_thumbnails_too(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    video = write_video(tmp_path / "odd.mp4", size=size).path
    with DecodePool(request(), workers=1) as pool:
        events = by_file(pool.decode([video]))[0]
    assert isinstance(events[-1], Finished)
    thumbnails = thumbnails_of(events)
    assert [Image.open(io.BytesIO(jpeg)).size for jpeg in thumbnails.jpegs] == [shown] * 2


def test_none_are_made_where_none_are_asked_for(video: Path) -> None:
    with DecodePool(request(thumbnails=None), workers=1) as pool:
        events = by_file(pool.decode([video]))[0]
    assert isinstance(events[-1], Finished)
    assert not thumbnails_of(events).jpegs


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


def _dies_in_a_word(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), b"\x00\x00\x01\x00half of what")
    os.kill(os.getpid(), signal.SIGSEGV)


def _nests(connection: Any, *_: object) -> None:
    connection.send_bytes(b"[" * 100_000)
    time.sleep(600)


def _floods(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), (2**31 - 1).to_bytes(4, "big") + b"{")
    time.sleep(600)


def says_thumbnails(pts: Any, sizes: Any, data: bytes | None) -> Callable[..., None]:
    def misbehave(connection: Any, *_: object) -> None:
        values = {"pts_seconds": pts, "sizes": sizes}
        connection.send_bytes(json.dumps({"kind": "thumbnails", "values": values}).encode())
        if data is not None:
            connection.send_bytes(data)
        time.sleep(600)

    return misbehave


NO_THUMBNAILS: list[tuple[Any, Any, bytes | None]] = [
    ([0.0], [THUMBNAILS.max_bytes + 1], None),
    ([0.0], [-1], None),
    ([0.0], ["1"], None),
    ([0.0], [5], b"six by"),
    ([0.0], [5], b"four"),
    ([], [], b""),
    ([], [5], b"five!"),
    ([0.0, 1.0], [5], b"five!"),
    ([[0.0]], [5], b"five!"),
    ([1.0, 1.0], [2, 3], b"five!"),
    ([float("nan")], [5], b"five!"),
    ([10**400], [5], b"five!"),
    ([float(k) for k in range(17)], [1] * 17, b"?" * 17),
]


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (_dies, "SIGSEGV"),
        (_dies_in_a_word, "SIGSEGV"),
        (_hangs, "no frame for"),
        (_lies, "made no sense"),
        (_nests, "made no sense"),
        (_floods, "made no sense"),
        *((says_thumbnails(*each), "made no sense") for each in NO_THUMBNAILS),
    ],
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


def test_a_child_cannot_hand_over_thumbnails_for_ever(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(connection: Any, *_: object) -> None:
        for k in range(1000):
            values = {"pts_seconds": [float(k)], "sizes": [4]}
            connection.send_bytes(json.dumps({"kind": "thumbnails", "values": values}).encode())
            connection.send_bytes(b"jpeg")

    monkeypatch.setattr(workers, "_MAX_THUMBNAILS", 50)
    monkeypatch.setattr(workers, "_decode_one", endless)
    monkeypatch.setattr(workers, "_process_context", lambda: multiprocessing.get_context("fork"))
    with DecodePool(request(), workers=1) as pool:
        events = by_file(pool.decode([video]))[0]
    assert len(thumbnails_of(events).jpegs) == 50
    assert isinstance(events[-1], Failed)
    assert "made no sense" in events[-1].reason


def test_leaving_early_ends_the_children(video: Path) -> None:
    with DecodePool(request(), workers=2) as pool:
        next(pool.decode([video] * 50))
    assert not [child for child in multiprocessing.active_children() if child.name == "decoder"]


def test_no_files_give_no_events() -> None:
    with DecodePool(request(), workers=2) as pool:
        assert list(pool.decode([])) == []
