"""Guarded decoding: a decoder that crashes, hangs or answers nonsense costs one file."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from scanonce.media import answers, child, guard
from scanonce.media.answers import Event, Failed, Finished, Frames, NewThumbnails, Opened
from scanonce.media.messages import send
from scanonce.media.open import BACKENDS
from scanonce.media.sampling import SampledFrame, Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.media.workers import DecodePool
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails
from tests.decoding import (
    STEPS,
    THUMBNAILS,
    Misbehaviour,
    decode,
    fork_children,
    make_request,
    misbehave_on,
    numbers_in,
    times_in,
)
from tests.videos import cut, read_number, write_audio, write_video

FRAME_BYTES = prod(STEPS.output_size) * 3
WHOLE = list(range(0, 60, 3))
"""Numbers of the sampled frames: 10 of 30 a second."""


def thumbnails_of(events: list[Event]) -> Thumbnails:
    return Thumbnails.join([each.thumbnails for each in events if isinstance(each, NewThumbnails)])


def opened(jpegs: Iterable[bytes]) -> list[NDArray[np.uint8]]:
    return [np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in jpegs]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "good.mp4", num_frames=60).path


def test_frames_of_each_file_come_in_order_at_the_encoders_size(video: Path) -> None:
    for events in decode(video, video, video, workers=2):
        assert isinstance(events[0], Opened)
        assert isinstance(events[-1], Finished)
        assert events[-1].problem is None
        assert events[-1].end_seconds == pytest.approx(2.0, abs=0.01)
        assert times_in(events) == pytest.approx(np.arange(20) / 10)
        assert numbers_in(events) == WHOLE
        messages = [event for event in events if isinstance(event, Frames)]
        assert all(each.images.shape == (len(each.pts_seconds), 48, 64, 3) for each in messages)
        assert all(each.images.dtype == np.uint8 for each in messages)


def test_many_workers_do_not_make_a_good_file_a_broken_one(video: Path) -> None:
    """Each file gets the threads of the workers that have nothing to do; FFmpeg starts only so many."""
    (events,) = decode(video, workers=100_000)
    assert numbers_in(events) == WHOLE


def test_thumbnails_are_the_frames_at_their_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.mp4", num_frames=300, fps=30, size=(480, 270)).path
    thumbnails = thumbnails_of(decode(video)[0])
    assert thumbnails.pts_seconds == pytest.approx(np.arange(20) / 2), "more than one message"
    images = opened(thumbnails.jpegs)
    assert [read_number(image) for image in images] == [15 * k for k in range(20)]
    assert {image.shape for image in images} == {(54, 96, 3)}


def test_thumbnails_are_upright(tmp_path: Path) -> None:
    video = write_video(tmp_path / "turned.mp4", size=(480, 270), rotation=90).path
    wide = ThumbnailRequest(every_seconds=0.5, width=160)
    (events,) = decode(video, request=make_request(thumbnails=wide))
    image = opened(thumbnails_of(events).jpegs)[0]
    assert image.shape == (90, 51, 3)
    assert read_number(image) == 0


@pytest.mark.parametrize(
    ("size", "shown"), [((2, 2), (2, 2)), ((16384, 2), (96, 1)), ((2, 2000), (1, 54))]
)
def test_frames_of_odd_shapes_get_thumbnails_too(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    (events,) = decode(write_video(tmp_path / "odd.mp4", size=size).path)
    assert isinstance(events[-1], Finished)
    images = opened(thumbnails_of(events).jpegs)
    assert [image.shape[1::-1] for image in images] == [shown] * 2


def test_no_thumbnails_are_made_without_a_request(video: Path) -> None:
    (events,) = decode(video, request=make_request(thumbnails=None))
    assert isinstance(events[-1], Finished)
    assert not thumbnails_of(events).jpegs


def test_files_that_are_no_videos_fail_and_the_rest_goes_on(tmp_path: Path, video: Path) -> None:
    garbage, empty = tmp_path / "garbage.mp4", tmp_path / "empty.mp4"
    garbage.write_bytes(os.urandom(5000))
    empty.touch()
    audio = write_audio(tmp_path / "audio.mp4")
    *others, good = decode(garbage, empty, audio, tmp_path / "gone.mp4", video, workers=2)
    for (failure,) in others:
        assert isinstance(failure, Failed)
        assert failure.reason
    assert isinstance(good[-1], Finished)


def test_a_truncated_file_gives_its_frames_and_the_reason(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", num_frames=300, fps=30).path
    (events,) = decode(cut(whole, tmp_path / "cut.mkv", 0.6))
    assert any(isinstance(event, Frames) for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].problem


INFO = {"duration_seconds": 2.0, "width": 128, "height": 96, "fps": 30.0, "codec": "h264"}


def _dies(connection: Any, *_: object) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hangs(connection: Any, *_: object) -> None:
    time.sleep(600)


def _sends_no_json(connection: Any, *_: object) -> None:
    connection.send_bytes(b"\x80\x04no JSON")
    time.sleep(600)


def _dies_in_a_message(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), b"\x00\x00\x01\x00half of what")
    os.kill(os.getpid(), signal.SIGSEGV)


def _nests(connection: Any, *_: object) -> None:
    connection.send_bytes(b"[" * 100_000)
    time.sleep(600)


def _stops_in_a_message(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), b"\x00\x00\x01\x00half of what")
    time.sleep(600)


def _stops_between_parts(connection: Any, *_: object) -> None:
    send(connection, "opened", INFO)
    send(connection, "frames", {})
    time.sleep(600)


def _floods(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), (2**31 - 1).to_bytes(4, "big") + b"{")
    time.sleep(600)


def _leaves(connection: Any, *_: object) -> None:
    os._exit(3)


def _aborts(connection: Any, *_: object) -> None:
    os.write(2, b"[h264 @ 0x55d0aa] about to \x1b[2Jabort\xff\nterminate called")
    os.abort()


def _hangs_up(connection: Any, *_: object) -> None:
    connection.close()
    time.sleep(600)


def _is_killed(connection: Any, *_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hoards(connection: Any, *_: object) -> None:
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))


def _hoards_in_torch(connection: Any, *_: object) -> None:
    def refuse(*_: object, **__: object) -> None:
        torch.empty(1 << 40)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "open_video", refuse)
        child._decode_one(connection, make_request(), Path("any"), 1)


def _spins(connection: Any, *_: object) -> None:
    while True:
        pass


def _spins_between_thumbnails(connection: Any, *_: object) -> None:
    send(connection, "opened", INFO)
    while True:  # each message is new, so that it never seems to hang
        sum(range(1_000_000))
        pts = time.monotonic() % 1000
        send(connection, "thumbnails", {"pts_seconds": [pts], "sizes": [1]}, b"?")


def _prints(connection: Any, *_: object) -> None:
    while True:
        with contextlib.suppress(OSError):
            os.write(2, b"error while decoding\n" * 1000)


def _raises(connection: Any, *_: object) -> None:
    raise LookupError("of a kind that nobody expects")


def _repeats(connection: Any, *_: object) -> None:
    send(connection, "opened", INFO)
    send(connection, "opened", INFO)
    time.sleep(600)


def sends(kind: str, values: Any, *data: bytes, opened: bool = True) -> Misbehaviour:
    """A child that sends one message, after it has opened its file in order."""

    def misbehave(connection: Any, *_: object) -> None:
        if opened:
            send(connection, "opened", INFO)
        send(connection, kind, values, *data)
        time.sleep(600)

    return misbehave


def sends_frames(*pts_seconds: float, images: int | None = None) -> Misbehaviour:
    size = FRAME_BYTES * (len(pts_seconds) if images is None else images)
    return sends("frames", {}, np.array(pts_seconds, np.float64).tobytes(), bytes(size))


def sends_info(**values: Any) -> Misbehaviour:
    return sends("opened", INFO | values, opened=False)


def sends_thumbnails(pts: Any, sizes: Any, data: bytes | None) -> Misbehaviour:
    values = {"pts_seconds": pts, "sizes": sizes}
    return sends("thumbnails", values, *([] if data is None else [data]))


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
    ([-0.5], [5], b"five!"),
    ([True], [True], b"!"),
]
NAN, INFINITY = float("nan"), float("inf")
NONSENSE: list[Misbehaviour] = [
    *(
        sends_info(duration_seconds=value)
        for value in (-1.0, NAN, INFINITY, 10**400, "1", None, True)
    ),
    *(sends_info(fps=value) for value in (-25.0, NAN, INFINITY, [25.0])),
    *(sends_info(width=value) for value in (0, -1, 1.5, 2**40, "128")),
    sends_info(height=0),
    *(sends_info(codec=value) for value in (None, 5, ["h264"])),
    sends_info(more="than was asked"),
    sends("opened", {}, opened=False),
    sends("opened", None, opened=False),
    _repeats,
    sends("dance", {}),
    sends("frames", {}, np.zeros(1).tobytes(), bytes(FRAME_BYTES), opened=False),
    sends("finished", {"end_seconds": 1.0, "problem": None}, opened=False),
    sends_frames(),
    sends_frames(NAN),
    sends_frames(-1.0),
    sends_frames(INFINITY),
    sends_frames(1.0, 1.0),
    sends_frames(2.0, 1.0),
    sends_frames(86_400.0 * 3),
    sends_frames(0.0, images=2),
    sends_frames(*range(17)),
    sends("frames", {}, b"odd", bytes(FRAME_BYTES)),
    *(
        sends("finished", {"end_seconds": value, "problem": None})
        for value in (NAN, -1.0, 1e9, "1", None)
    ),
    sends("finished", {"end_seconds": 1.0, "problem": 5}),
    sends("finished", {"end_seconds": 1.0}),
    sends("failed", {"reason": None, "transient": False}),
    sends("failed", {"transient": False}),
]


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (_dies, "SIGSEGV"),
        (_dies_in_a_message, "SIGSEGV"),
        (_aborts, "SIGABRT"),
        (_is_killed, "killed from outside"),
        (_leaves, "exit code 3"),
        (_raises, "exit code 1"),
        (_hangs_up, "made no sense"),
        (_hangs, "no frame for"),
        (_stops_in_a_message, "made no sense"),
        (_stops_between_parts, "made no sense"),
        (_hoards, "its frames need more than 300 MB of memory"),
        (_hoards_in_torch, "its frames need more than 300 MB of memory"),
        (_spins, "it took more than 1 s of processor time"),
        (_spins_between_thumbnails, "it took more than 1 s of processor time"),
        (_prints, "the decoder printed 1 MB of messages"),
        (_sends_no_json, "made no sense"),
        (_nests, "made no sense"),
        (_floods, "made no sense"),
    ],
)
def test_a_child_that_misbehaves_costs_its_file_and_is_replaced(
    video: Path, monkeypatch: pytest.MonkeyPatch, misbehave: Misbehaviour, reason: str
) -> None:
    misbehave_on(monkeypatch, {"bad.mp4": misbehave})
    # the good files are under these limits too, on a machine as busy as it may be
    monkeypatch.setattr(guard, "_MESSAGE_SECONDS", 5.0)
    monkeypatch.setattr(guard, "MAX_PRINTED_BYTES", 1 << 20)
    stall_seconds = 10.0 if misbehave is _hangs else 600.0
    request = make_request(stall_seconds, memory_mb=300, cpu_seconds=1)
    before, bad, after = decode(video, video.with_name("bad.mp4"), video, request=request)
    failure = bad[-1]
    assert isinstance(failure, Failed)
    assert reason in failure.reason
    assert failure.transient
    assert len(failure.detail) <= 2000
    assert isinstance(before[-1], Finished)
    assert isinstance(after[-1], Finished)


def test_no_part_of_an_impossible_answer_is_believed(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = [*NONSENSE, *(sends_thumbnails(*each) for each in NO_THUMBNAILS)]
    misbehaviours = {f"{number}.mp4": each for number, each in enumerate(nonsense)}
    misbehave_on(monkeypatch, misbehaviours)
    paths = [video.with_name(name) for name in misbehaviours]
    *files, good = decode(*paths, video, workers=2)
    for number, (*before, failure) in enumerate(files):
        assert failure == Failed(number, "the decoder's answer made no sense", "", transient=True)
        assert all(isinstance(event, Opened) for event in before), f"of answer {number}"
    assert isinstance(good[-1], Finished)


def test_the_last_output_of_a_decoder_is_kept(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehave_on(monkeypatch, {video.name: _aborts})
    ((failure,),) = decode(video)
    assert isinstance(failure, Failed)
    assert failure.detail.startswith("[h264] about to  [2Jabort\ufffd\nterminate called")


def test_a_real_child_that_crashes_costs_its_file(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=3000).path
    with DecodePool(make_request(), workers=1) as pool:
        events = pool.decode([long, long])
        first = next(events)
        (decoder,) = [each for each in multiprocessing.active_children() if each.name == "decoder"]
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSEGV)
        rest = list(events)
    (failure,) = [event for event in rest if isinstance(event, Failed)]
    assert isinstance(first, Opened)
    assert failure.job == 0
    assert failure.reason == "the decoder crashed on it (SIGSEGV)"
    assert failure.transient
    assert "Segmentation fault" in failure.detail, "and its position"
    assert "_end_with_parent" not in failure.detail, "which is no part of decoding"
    assert isinstance(rest[-1], Finished)
    assert rest[-1].job == 1


def test_a_child_that_sends_too_much_does_not_harm_the_next_file(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sends_two_ends(connection: Any, *_: object) -> None:
        both = b""
        for reason in ("not a video", "nor is the next one"):
            values = {"reason": reason, "transient": False}
            message = json.dumps({"kind": "failed", "values": values}).encode()
            both += len(message).to_bytes(4, "big") + message
        # at once, so that the second has arrived when the first is read
        os.write(connection.fileno(), both)

    misbehave_on(monkeypatch, {"bad.mp4": sends_two_ends})
    bad, good = decode(video.with_name("bad.mp4"), video)
    assert bad == [Failed(0, "not a video")]
    assert isinstance(good[-1], Finished)


def test_texts_of_a_child_are_made_printable(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "\x1b[2J\u202ereversed\n" + "x" * 10_000
    failed = sends("failed", {"reason": reason, "transient": 1}, opened=False)
    misbehave_on(monkeypatch, {video.name: failed})
    ((failure,),) = decode(video)
    assert isinstance(failure, Failed)
    assert failure.reason.startswith(" [2J reversed x")
    assert len(failure.reason) == 500
    assert not failure.transient


def test_endless_frames_are_cut_off(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(connection: Any, *_: object) -> None:
        send(connection, "opened", INFO)
        for k in range(1_000_000):
            send(connection, "frames", {}, np.array([k * 1e-6]).tobytes(), bytes(FRAME_BYTES))

    misbehave_on(monkeypatch, {video.name: endless})
    ((_, *frames, failure),) = decode(video, request=make_request(longest_seconds=5.0))
    assert len(frames) == 51, "10 a second, and one at the beginning"
    assert isinstance(failure, Failed)
    assert "made no sense" in failure.reason


def test_endless_thumbnails_are_cut_off(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(connection: Any, *_: object) -> None:
        send(connection, "opened", INFO)
        for k in range(1000):
            send(connection, "thumbnails", {"pts_seconds": [float(k)], "sizes": [4]}, b"jpeg")

    monkeypatch.setattr(answers, "MAX_THUMBNAILS", 50)
    misbehave_on(monkeypatch, {video.name: endless})
    (events,) = decode(video)
    assert len(thumbnails_of(events).jpegs) == 50
    assert isinstance(events[-1], Failed)
    assert "made no sense" in events[-1].reason


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["uniform", "keyframes"])
def test_only_the_beginning_of_a_video_that_is_too_long_is_decoded(
    tmp_path: Path, mode: Any, backend: str
) -> None:
    video = write_video(tmp_path / "long.mp4", num_frames=300, fps=30).path
    request = make_request(sampling=Sampling(mode, 2.0), backend=backend, longest_seconds=4.0)
    (events,) = decode(video, request=request)
    assert 3.0 < times_in(events)[-1] < 4.0
    assert events[-1] == Finished(0, 4.0, "only the first 4 s are indexed")


def test_lengths_are_reported_in_hours() -> None:
    class Endless:
        problem = "2 damaged piece(s) could not be decoded"
        end_seconds = 1e6

    assert child._describe_end(cast(Any, Endless()), make_request()) == {
        "end_seconds": 48 * 3600.0,
        "problem": "2 damaged piece(s) could not be decoded; only the first 48 h are indexed",
    }


def test_frames_of_a_slow_decoder_do_not_wait_for_a_full_message(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    class Slow:
        info = VideoInfo(2.0, 128, 96, 30.0, "h264")
        problem, end_seconds = None, 2.0

        def frames(self) -> Iterator[SampledFrame]:
            nonlocal now
            for k in range(12):  # fewer than fit into one message
                now += 0.4
                yield SampledFrame(k / 10, np.zeros((96, 128, 3), np.uint8))

    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(child, "open_video", lambda *_, **__: contextlib.nullcontext(Slow()))
    fork_children(monkeypatch)
    (events,) = decode(video)
    messages = [len(each.pts_seconds) for each in events if isinstance(each, Frames)]
    assert messages == [3, 3, 3, 3], "a second is the longest wait"
    assert isinstance(events[-1], Finished)


def test_leaving_early_ends_the_children(video: Path) -> None:
    with DecodePool(make_request(), workers=2) as pool:
        next(pool.decode([video] * 50))
    assert not [each for each in multiprocessing.active_children() if each.name == "decoder"]


def test_no_files_give_no_events() -> None:
    assert decode(workers=2) == []
