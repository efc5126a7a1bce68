"""Guarded decoding: a decoder that dies, hangs or lies costs one file."""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from scanonce.media import answers, child, guard
from scanonce.media.answers import Event, Failed, Finished, Frames, NewThumbnails, Opened
from scanonce.media.child import DecodeRequest
from scanonce.media.open import BACKENDS
from scanonce.media.sampling import SampledFrame, Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails
from tests.videos import cut, read_number, write_sound, write_video

STEPS = Preprocessing(None, (32, 32), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


THUMBNAILS = ThumbnailRequest(every_seconds=0.5, width=96)


def request(
    stall_seconds: float = 30.0, thumbnails: ThumbnailRequest | None = THUMBNAILS, **limits: Any
) -> DecodeRequest:
    return DecodeRequest(
        Sampling("uniform", 10.0), "pyav", STEPS, stall_seconds, thumbnails, **limits
    )


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


INFO = {"duration_seconds": 2.0, "width": 128, "height": 96, "fps": 30.0, "codec": "h264"}


def say(connection: Any, kind: str, values: object) -> None:
    connection.send_bytes(json.dumps({"kind": kind, "values": values}).encode())


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


def _stops_in_a_word(connection: Any, *_: object) -> None:
    os.write(connection.fileno(), b"\x00\x00\x01\x00half of what")
    time.sleep(600)


def _stops_between_words(connection: Any, *_: object) -> None:
    say(connection, "opened", INFO)
    say(connection, "frames", {})
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
        child._decode_one(connection, request(), Path("any"), 1)


def _spins(connection: Any, *_: object) -> None:
    while True:
        pass


def _spins_beside_frames(connection: Any, *_: object) -> None:
    say(connection, "opened", INFO)
    while True:  # what it says is new each time, so that it never seems to hang
        sum(range(1_000_000))
        say(connection, "thumbnails", {"pts_seconds": [time.monotonic() % 1000], "sizes": [1]})
        connection.send_bytes(b"?")


def _prints(connection: Any, *_: object) -> None:
    while True:
        with contextlib.suppress(OSError):
            os.write(2, b"error while decoding\n" * 1000)


def _raises(connection: Any, *_: object) -> None:
    raise LookupError("of a kind that nobody expects")


def _repeats(connection: Any, *_: object) -> None:
    say(connection, "opened", INFO)
    say(connection, "opened", INFO)
    time.sleep(600)


def says(kind: str, values: Any, *data: bytes, opened: bool = True) -> Callable[..., None]:
    """A child that says one thing, after it has opened its file in order."""

    def misbehave(connection: Any, *_: object) -> None:
        if opened:
            say(connection, "opened", INFO)
        say(connection, kind, values)
        for each in data:
            connection.send_bytes(each)
        time.sleep(600)

    return misbehave


def says_frames(*pts_seconds: float, images: int | None = None) -> Callable[..., None]:
    size = 32 * 32 * 3 * (len(pts_seconds) if images is None else images)
    return says("frames", {}, np.array(pts_seconds, np.float64).tobytes(), bytes(size))


def says_info(**values: Any) -> Callable[..., None]:
    return says("opened", INFO | values, opened=False)


def says_thumbnails(pts: Any, sizes: Any, data: bytes | None) -> Callable[..., None]:
    values = {"pts_seconds": pts, "sizes": sizes}
    return says("thumbnails", values, *([] if data is None else [data]))


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
NONSENSE: list[Callable[..., None]] = [
    *(
        says_info(duration_seconds=value)
        for value in (-1.0, NAN, INFINITY, 10**400, "1", None, True)
    ),
    *(says_info(fps=value) for value in (-25.0, NAN, INFINITY, [25.0])),
    *(says_info(width=value) for value in (0, -1, 1.5, 2**40, "128")),
    says_info(height=0),
    *(says_info(codec=value) for value in (None, 5, ["h264"])),
    says_info(more="than was asked"),
    says("opened", {}, opened=False),
    says("opened", None, opened=False),
    _repeats,
    says("dance", {}),
    says("frames", {}, np.zeros(1).tobytes(), bytes(32 * 32 * 3), opened=False),
    says("finished", {"end_seconds": 1.0, "problem": None}, opened=False),
    says_frames(),
    says_frames(NAN),
    says_frames(-1.0),
    says_frames(INFINITY),
    says_frames(1.0, 1.0),
    says_frames(2.0, 1.0),
    says_frames(86_400.0 * 3),
    says_frames(0.0, images=2),
    says_frames(*range(17)),
    says("frames", {}, b"odd", bytes(32 * 32 * 3)),
    *(
        says("finished", {"end_seconds": value, "problem": None})
        for value in (NAN, -1.0, 1e9, "1", None)
    ),
    says("finished", {"end_seconds": 1.0, "problem": 5}),
    says("finished", {"end_seconds": 1.0}),
    says("failed", {"reason": None, "transient": False}),
    says("failed", {"transient": False}),
]


def misbehave_on(
    monkeypatch: pytest.MonkeyPatch, misbehaviours: dict[str, Callable[..., None]]
) -> None:
    """From here on, a child that is told to decode a file of one of these names does something else."""
    decode_one = child._decode_one

    def hostile(connection: Any, request: DecodeRequest, path: Path, threads: int) -> None:
        act: Callable[..., None] = misbehaviours.get(path.name, decode_one)
        act(connection, request, path, threads)

    # a forked child inherits the patch; the usual children start from a clean server
    monkeypatch.setattr(child, "_decode_one", hostile)
    monkeypatch.setattr(guard, "process_context", lambda _: multiprocessing.get_context("fork"))


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (_dies, "SIGSEGV"),
        (_dies_in_a_word, "SIGSEGV"),
        (_aborts, "SIGABRT"),
        (_is_killed, "killed from outside"),
        (_leaves, "exit code 3"),
        (_raises, "exit code 1"),
        (_hangs_up, "made no sense"),
        (_hangs, "no frame for"),
        (_stops_in_a_word, "made no sense"),
        (_stops_between_words, "made no sense"),
        (_hoards, "its frames need more than 300 MB"),
        (_hoards_in_torch, "its frames need more than 300 MB"),
        (_spins, "it took more than 1 s of processor time"),
        (_spins_beside_frames, "it took more than 1 s of processor time"),
        (_prints, "the decoder printed 1 MB of messages"),
        (_lies, "made no sense"),
        (_nests, "made no sense"),
        (_floods, "made no sense"),
    ],
)
def test_a_child_that_misbehaves_costs_its_file_and_is_replaced(
    video: Path, monkeypatch: pytest.MonkeyPatch, misbehave: Callable[..., None], reason: str
) -> None:
    misbehave_on(monkeypatch, {"bad.mp4": misbehave})
    monkeypatch.setattr(guard, "_MESSAGE_SECONDS", 0.5)
    monkeypatch.setattr(guard, "MAX_PRINTED_BYTES", 1 << 20)
    bad = video.with_name("bad.mp4")
    stall_seconds = 1.0 if misbehave is _hangs else 30.0
    limits = request(stall_seconds, memory_mb=300, cpu_seconds=1)
    with DecodePool(limits, workers=1) as pool:
        files = by_file(pool.decode([video, bad, video]))
    failure = files[1][-1]
    assert isinstance(failure, Failed)
    assert reason in failure.reason
    assert failure.transient
    assert len(failure.detail) <= 2000
    assert isinstance(files[0][-1], Finished)
    assert isinstance(files[2][-1], Finished)


def test_an_answer_that_cannot_be_is_believed_in_no_part(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lies = [*NONSENSE, *(says_thumbnails(*each) for each in NO_THUMBNAILS)]
    misbehaviours = {f"{number}.mp4": lie for number, lie in enumerate(lies)}
    misbehave_on(monkeypatch, misbehaviours)
    paths = [video.with_name(name) for name in misbehaviours]
    with DecodePool(request(), workers=2) as pool:
        files = by_file(pool.decode([*paths, video]))
    for number in range(len(lies)):
        *before, failure = files[number]
        assert failure == Failed(number, "the decoder's answer made no sense", "", transient=True)
        assert all(isinstance(event, Opened) for event in before), f"of lie {number}"
    assert isinstance(files[len(lies)][-1], Finished)


def test_the_last_words_of_a_decoder_are_kept(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misbehave_on(monkeypatch, {video.name: _aborts})
    with DecodePool(request(), workers=1) as pool:
        (failure,) = pool.decode([video])
    assert isinstance(failure, Failed)
    assert failure.detail.startswith("[h264] about to  [2Jabort\ufffd\nterminate called")


def test_a_real_child_that_crashes_costs_its_file(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mkv", num_frames=3000).path
    with DecodePool(request(), workers=1) as pool:
        events = pool.decode([long, long])
        first = next(events)
        (decoder,) = [each for each in multiprocessing.active_children() if each.name == "decoder"]
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGSEGV)
        files = by_file(events)
    failure = files[0][-1]
    assert isinstance(first, Opened)
    assert isinstance(failure, Failed)
    assert failure.reason == "the decoder crashed on it (SIGSEGV)"
    assert failure.transient
    assert "Segmentation fault" in failure.detail, "and where it was"
    assert isinstance(files[1][-1], Finished)


def test_a_child_that_says_more_than_it_was_asked_does_not_harm_the_next_file(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talks_on(connection: Any, *_: object) -> None:
        both = b""
        for reason in ("not a video", "nor is the next one"):
            values = {"reason": reason, "transient": False}
            message = json.dumps({"kind": "failed", "values": values}).encode()
            both += len(message).to_bytes(4, "big") + message
        os.write(
            connection.fileno(), both
        )  # at once, so that the second is there when the first is read

    misbehave_on(monkeypatch, {"bad.mp4": talks_on})
    with DecodePool(request(), workers=1) as pool:
        files = by_file(pool.decode([video.with_name("bad.mp4"), video]))
    assert files[0] == [Failed(0, "not a video")]
    assert isinstance(files[1][-1], Finished)


def test_what_a_child_says_is_made_printable(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "\x1b[2J\u202ereversed\n" + "x" * 10_000
    failed = says("failed", {"reason": reason, "transient": 1}, opened=False)
    misbehave_on(monkeypatch, {video.name: failed})
    with DecodePool(request(), workers=1) as pool:
        (failure,) = pool.decode([video])
    assert isinstance(failure, Failed)
    assert failure.reason.startswith(" [2J reversed x")
    assert len(failure.reason) == 500
    assert not failure.transient


def test_frames_for_ever_are_cut_off(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(connection: Any, *_: object) -> None:
        say(connection, "opened", INFO)
        for k in range(1_000_000):
            say(connection, "frames", {})
            connection.send_bytes(np.array([k * 1e-6]).tobytes())
            connection.send_bytes(bytes(32 * 32 * 3))

    misbehave_on(monkeypatch, {video.name: endless})
    with DecodePool(request(longest_seconds=5.0), workers=1) as pool:
        *frames, failure = by_file(pool.decode([video]))[0][1:]
    assert len(frames) == 51, "10 a second, and one at the beginning"
    assert isinstance(failure, Failed)
    assert "made no sense" in failure.reason


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["uniform", "keyframes"])
def test_of_a_video_that_is_too_long_the_beginning_is_given(
    tmp_path: Path, mode: Any, backend: str
) -> None:
    video = write_video(tmp_path / "long.mp4", num_frames=300, fps=30).path
    limits = DecodeRequest(Sampling(mode, 2.0), backend, STEPS, 30.0, longest_seconds=4.0)
    with DecodePool(limits, workers=1) as pool:
        *others, end = pool.decode([video])
    times = np.concatenate([each.pts_seconds for each in others if isinstance(each, Frames)])
    assert 3.0 < times[-1] < 4.0
    assert end == Finished(0, 4.0, "only the first 4 s are indexed")


def test_lengths_are_told_in_hours() -> None:
    class Endless:
        problem = "2 damaged piece(s) could not be decoded"
        end_seconds = 1e6

    told = child._describe_end(cast(Any, Endless()), 48 * 3600.0)
    assert told == {
        "end_seconds": 48 * 3600.0,
        "problem": "2 damaged piece(s) could not be decoded; only the first 48 h are indexed",
    }


def test_a_slow_decoder_shows_that_it_goes_on(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        info = VideoInfo(2.0, 128, 96, 30.0, "h264")
        problem, end_seconds = None, 2.0

        def frames(self) -> Iterator[SampledFrame]:
            for k in range(12):  # fewer than go into one message, slower than one that hangs
                time.sleep(0.2)
                yield SampledFrame(k / 10, np.zeros((96, 128, 3), np.uint8))

    monkeypatch.setattr(child, "_SEND_SECONDS", 0.5)
    monkeypatch.setattr(child, "open_video", lambda *_, **__: contextlib.nullcontext(Slow()))
    monkeypatch.setattr(guard, "process_context", lambda _: multiprocessing.get_context("fork"))
    with DecodePool(request(stall_seconds=1.5), workers=1) as pool:
        events = list(pool.decode([video]))
    assert isinstance(events[-1], Finished)


def test_a_child_cannot_hand_over_thumbnails_for_ever(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(connection: Any, *_: object) -> None:
        say(connection, "opened", INFO)
        for k in range(1000):
            say(connection, "thumbnails", {"pts_seconds": [float(k)], "sizes": [4]})
            connection.send_bytes(b"jpeg")

    monkeypatch.setattr(answers, "MAX_THUMBNAILS", 50)
    misbehave_on(monkeypatch, {video.name: endless})
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
