"""Hostile and broken files through guarded decoding, each with its required outcome.

Other tests cover the rest: children that crash, hang, exceed their limits or answer nonsense are in
test_media_workers.py. Empty files, garbage, folders, pipes, broken links, audio alone, cover images, playlists with a
local target, single frames, flipped bytes and damage in the middle are in test_media_decoders.py, over both back ends.
"""

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from benchmarks import fuzz
from scanonce.media import child
from scanonce.media.answers import Event, Failed, Finished, Frames, Opened
from tests.decoding import decode, make_request, misbehave_on, numbers_in, times_in
from tests.odd_videos import write_with_still
from tests.videos import cut, draw_number, write_video


def check_whole(events: list[Event], numbers: list[int]) -> None:
    end = events[-1]
    assert isinstance(end, Finished), end
    assert end.problem is None
    assert numbers_in(events) == numbers


def check_refused(events: list[Event], words: str) -> Failed:
    (failure,) = [each for each in events if not isinstance(each, Opened)]
    assert isinstance(failure, Failed)
    assert words in failure.reason
    assert not failure.transient
    return failure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


KINDS: dict[str, Any] = {
    "index first.mp4": {"container_options": {"movflags": "faststart"}},
    "index last.mp4": {},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "matroska.mkv": {},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "transport.ts": {"codec": "mpeg2video"},
    "flash.flv": {},
}
BY_THREES = list(range(0, 60, 3))  # 30 frames a second, 10 sampled


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest, folder: Path) -> Path:
    """A file of each kind: 60 frames, 2 s."""
    path = folder / str(request.param)
    if not path.exists():
        write_video(path, num_frames=60, **KINDS[request.param])
    return path


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    return write_video(folder / "plain.mp4", num_frames=60).path


# --- damage


def test_a_truncated_file_gives_its_beginning_or_is_refused(whole: Path, tmp_path: Path) -> None:
    parts = [cut(whole, tmp_path / f"{k}{whole.suffix}", k / 10) for k in range(1, 10)]
    found = []
    for events in decode(*parts, workers=2):
        end = events[-1]
        numbers = numbers_in(events)
        # the last frame may miss frames it refers to, or stand for one that is cut off
        assert numbers[:-1] == BY_THREES[: max(0, len(numbers) - 1)]
        assert isinstance(end, Finished) or not end.transient  # type: ignore[union-attr]
        found.append(len(numbers))
    # FFmpeg opens no file that ends in the head of a fragment
    found = [count for count in found if count]
    assert found == sorted(found)
    assert max(found, default=0) >= (0 if whole.name == "index last.mp4" else 15)


def test_blocks_of_zeros_cost_frames_at_most(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    size = len(data) // 20
    parts = []
    for k in range(0, 20, 2):
        part = tmp_path / f"{k}{whole.suffix}"
        part.write_bytes(data[: k * size] + bytes(size) + data[(k + 1) * size :])
        parts.append(part)
    for events in decode(*parts):
        end = events[-1]
        assert isinstance(end, Finished) or not end.transient  # type: ignore[union-attr]
        times = times_in(events)
        assert times == sorted(set(times))


def test_the_extension_of_a_name_is_ignored(whole: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"x.{ending}" for ending in ("avi", "mkv", "ts", "jpg", "m3u8", "")]
    for path in paths:
        shutil.copyfile(whole, path)
    for events in decode(*paths):
        check_whole(events, BY_THREES)


def test_a_few_damaged_files_of_every_kind_end_as_they_should() -> None:
    report = fuzz.run(num_files=60, seed=5, workers=2)
    assert sum(report.outcomes.values()) == 60
    assert not report.escaped
    assert report.outcomes["whole"] + report.outcomes["partial"] > 0
    assert report.outcomes["unreadable"] > 0


# --- other files, and the network


@pytest.fixture
def listener() -> Iterator[tuple[str, socket.socket]]:
    """An address of this test, and its socket, to which nobody may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield f"127.0.0.1:{server.getsockname()[1]}", server


def check_no_visit(server: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        server.accept()


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation '
    'id="1" bandwidth="1"><BaseURL>{target}</BaseURL><SegmentBase/></Representation>'
    "</AdaptationSet></Period></MPD>",
    "smooth": '<?xml version="1.0"?><SmoothStreamingMedia Url="{target}"/>',
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "a=control:{target}\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "real": "{target}\n",
}


@pytest.mark.parametrize("kind", LISTS)
def test_nothing_is_followed_to_another_file_or_the_network(
    kind: str, plain: Path, tmp_path: Path, listener: tuple[str, socket.socket]
) -> None:
    address, server = listener
    shutil.copyfile(plain, tmp_path / "target.mp4")
    targets = [
        "target.mp4",
        str(tmp_path / "target.mp4"),
        f"file:{tmp_path}/target.mp4",
        f"http://{address}/target.mp4",
        f"tcp://{address}",
    ]
    lists = []
    for number, target in enumerate(targets):
        text = LISTS[kind].format(target=target, port=address.split(":")[1])
        for ending in ("mp4", {"hls": "m3u8", "dash": "mpd", "session": "sdp"}.get(kind, "txt")):
            lists.append(tmp_path / f"list{number}.{ending}")
            lists[-1].write_text(text)
    for events in decode(*lists):
        check_refused(events, "not a video")
    check_no_visit(server)


CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"dinf")


def replace_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Return an MP4 file, or a part, with other content in every box of a kind; the sizes around it follow."""
    out, position = b"", 0
    while position + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[position : position + 8])
        inside = data[position + 8 : position + size]
        if name == kind:
            inside = content
        elif name in CONTAINERS:
            inside = replace_box(inside, kind, content)
        out += struct.pack(">I4s", 8 + len(inside), name) + inside
        position += size
    return out


def reference(kind: bytes, content: bytes) -> bytes:
    """Return the content of a `dref` box: the samples of this track are in another file."""
    entry = struct.pack(">I4sI", 12 + len(content), kind, 0) + content
    return struct.pack(">II", 0, 1) + entry


def alias(target: Path) -> bytes:
    """Return an alias record as QuickTime writes them, with a relative name and an absolute path."""
    path = str(target).encode()
    path += bytes(len(path) % 2)
    return (
        bytes(10)
        + bytes([4])
        + b"disk".ljust(27, b"\0")
        + bytes(12)
        + bytes([len(target.name)])
        + target.name.encode().ljust(63, b"\0")
        + bytes(16)
        + struct.pack(">HH", 1, 1)
        + bytes(16)
        + struct.pack(">HH", 2, len(path))
        + path
        + struct.pack(">HH", 0xFFFF, 0)
    )


def test_samples_in_another_file_are_left_there(plain: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.mp4"
    shutil.copyfile(plain, target)
    data = replace_box(plain.read_bytes(), b"dref", reference(b"alis", alias(target)))
    path = tmp_path / "thief.mov"
    path.write_bytes(data)
    # the reference works: FFmpeg reads the other file if it is allowed to
    options = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), options=options) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60
    (events,) = decode(path)
    check_refused(events, "no frame of it can be decoded")


def test_samples_at_an_address_are_not_requested(
    plain: Path, tmp_path: Path, listener: tuple[str, socket.socket]
) -> None:
    address, server = listener
    paths = []
    for kind in (b"url ", b"urn ", b"rsrc"):
        content = f"http://{address}/target.mp4\0".encode()
        paths.append(tmp_path / f"{kind.decode().strip()}.mov")
        paths[-1].write_bytes(
            replace_box(plain.read_bytes(), b"dref", reference(kind, content.ljust(160, b"\0")))
        )
    for events in decode(*paths):
        # FFmpeg follows aliases only, and reads the samples from this file instead
        assert isinstance(events[-1], Finished)
        assert numbers_in(events) == BY_THREES
    check_no_visit(server)


# --- sizes, rates and times


def write_flat(path: Path, width: int, height: int, codec: str, pixel_format: str) -> Path:
    """Write one grey frame."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        frame = av.VideoFrame(width, height, pixel_format)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 30_000), (30_000, 1), (3, 2)])
def test_frames_of_any_shape_are_decoded(tmp_path: Path, width: int, height: int) -> None:
    video = write_flat(tmp_path / "odd.mov", width, height, "png", "gray")
    (events,) = decode(video, request=make_request(thumbnails=None))
    opened, frames, end = events
    assert isinstance(opened, Opened)
    assert (opened.info.width, opened.info.height) == (width, height)
    assert isinstance(frames, Frames)
    assert np.ptp(frames.images) == 0
    assert isinstance(end, Finished)


def test_a_huge_frame_is_decoded_if_there_is_memory_for_it(tmp_path: Path) -> None:
    huge = write_flat(tmp_path / "huge.mkv", 16_384, 16_000, "mjpeg", "yuvj420p")
    small = write_flat(tmp_path / "small.mkv", 64, 48, "mjpeg", "yuvj420p")
    (denied, other) = decode(huge, small, request=make_request(memory_mb=256))
    (failure,) = denied
    assert isinstance(failure, Failed)
    assert failure.reason == "its frames need more than 256 MB of memory"
    assert failure.transient
    assert isinstance(other[-1], Finished)
    (allowed,) = decode(huge)
    assert isinstance(allowed[-1], Finished)


def test_a_frame_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    small = write_flat(tmp_path / "small.mkv", 64, 48, "mjpeg", "yuvj420p")
    data = small.read_bytes()
    size = data.index(b"\xff\xc0") + 5  # of the frame, in the JPEG itself
    paths = []
    for side in (16_000, 16_384, 65_535):
        paths.append(tmp_path / f"{side}.mkv")
        paths[-1].write_bytes(data[:size] + struct.pack(">HH", side, side) + data[size + 4 :])
    for events in decode(*paths):
        check_refused(events, "no frame of it can be decoded")


def test_an_index_of_a_hundred_million_frames_costs_its_file(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "index.mp4"
    many = 100_000_000
    data = plain.read_bytes()
    for kind, content in (
        (b"stsz", struct.pack(">III", 0, 1, many)),
        (b"stts", struct.pack(">IIII", 0, 1, many, 1)),
        (b"stsc", struct.pack(">IIIII", 0, 1, 1, many, 1)),
    ):
        start = data.index(kind) - 4
        (size,) = struct.unpack(">I", data[start : start + 4])
        room = size - 8 - len(content)
        assert room >= 0 or kind == b"stsc", "boxes keep their size, so that nothing else moves"
        if room >= 0:
            data = data[: start + 8] + content + bytes(room) + data[start + size :]
    path.write_bytes(data)
    hostile, good = decode(path, plain, request=make_request(memory_mb=256))
    assert isinstance(hostile[-1], Failed)
    check_whole(good, BY_THREES)


def test_a_frame_that_claims_a_gigabyte_is_damage(plain: Path, tmp_path: Path) -> None:
    data = bytearray(plain.read_bytes())
    sizes = data.index(b"stsz") + 16
    data[sizes + 30 * 4 : sizes + 31 * 4] = struct.pack(">I", 0x3FFF_0000)
    path = tmp_path / "large.mp4"
    path.write_bytes(data)
    (events,) = decode(path)
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.problem
    assert numbers_in(events)[:8] == BY_THREES[:8]


def test_a_million_frames_a_second_are_thinned(tmp_path: Path) -> None:
    no_reordering = {"bf": "0"}  # FFmpeg writes an edit list of length 0 for it
    video = write_video(
        tmp_path / "fast.mp4", num_frames=60, fps=1_000_000, options=no_reordering
    ).path
    (events,) = decode(video)
    opened = events[0]
    assert isinstance(opened, Opened)
    assert opened.info.fps == pytest.approx(1e6)
    check_whole(events, [0])


def test_times_before_zero_begin_at_zero(tmp_path: Path) -> None:
    stamps = list(range(-40, 20))
    for name in ("early.mkv", "early.ts"):
        events = decode(write_video(tmp_path / name, pts=stamps).path)[0]
        assert times_in(events) == pytest.approx(np.arange(20) / 10, abs=2e-3)
        check_whole(events, BY_THREES)


def test_an_mp4_begins_where_its_edit_list_says(tmp_path: Path) -> None:
    (events,) = decode(write_video(tmp_path / "early.mp4", pts=list(range(-40, 20))).path)
    check_whole(events, list(range(40, 60, 3)))


@pytest.mark.parametrize("jump", [30 * 86_400, 400 * 86_400])
def test_a_jump_of_many_days_is_damage(tmp_path: Path, jump: int) -> None:
    stamps = [*range(30), *range(jump * 30, jump * 30 + 30)]
    (events,) = decode(write_video(tmp_path / "jump.mkv", pts=stamps, options={"bf": "0"}).path)
    assert isinstance(events[-1], Finished)
    # The milliseconds of Matroska leave open which of two frames is on screen at a time after the jump.
    np.testing.assert_allclose(numbers_in(events)[:20], BY_THREES, atol=1)
    np.testing.assert_allclose(times_in(events)[:20], np.arange(20) / 10, atol=0.04)
    assert len(numbers_in(events)) <= 21


def test_a_clock_that_starts_again_goes_on(tmp_path: Path) -> None:
    once = write_video(tmp_path / "once.ts", num_frames=60, codec="mpeg2video").path
    twice = tmp_path / "twice.ts"
    twice.write_bytes(once.read_bytes() * 2)
    (events,) = decode(twice)
    times = times_in(events)
    assert isinstance(events[-1], Finished)
    assert times == sorted(set(times))
    assert 3.8 < times[-1] < 4.1


# --- streams


def test_a_video_track_without_a_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as output:
        stream: Any = output.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    (events,) = decode(path)
    check_refused(events, "no frame of it can be decoded")


def test_of_ten_video_tracks_one_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "ten.mkv"
    with av.open(str(path), "w") as output:
        streams: list[Any] = [output.add_stream("libx264", rate=30) for _ in range(10)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(60):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")
                frame.pts = number
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode())
    (events,) = decode(path)
    check_whole(events, BY_THREES)


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv"])
@pytest.mark.parametrize(
    "disposition",
    [Disposition.default, Disposition.still_image, Disposition.timed_thumbnails],
    ids=["default", "still", "thumbnails"],
)
def test_a_track_of_one_image_does_not_hide_the_video(
    tmp_path: Path, name: str, disposition: Disposition
) -> None:
    (events,) = decode(write_with_still(tmp_path / name, 20, disposition))
    assert numbers_in(events)[:5] == [0, 1, 2, 3, 4]


def test_the_rate_of_raw_dv_is_that_of_its_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.dv", num_frames=10, fps=25, codec="dvvideo", size=(720, 576))
    (events,) = decode(path.path)
    assert isinstance(events[0], Opened)
    assert events[0].info.fps == 25.0


# --- names and permissions

NAMES = [
    *("фильм", "映画", "فيلم", "फ़िल्म", "영화", "סרט", "🎬", "e\u0301"),
    *(
        "two\nlines",
        "tab\t",
        "\x1b[2J",
        "\u202eevil",
        " ",
        "'\"; $(touch x) `",
        "a\\b",
        "%s%n",
        "-i",
    ),
    *("pipe:0", "http:", "concat:a|b", "data:,", "x" * 250, "...", "~", "#", "?", "*"),
    *(os.fsdecode(name) for name in (b"\xff\xfe", b"caf\xe9", b"\xed\xb0\x80")),
]


def test_names_are_only_names(plain: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name / f"{name}.mp4"[-250:] for name in NAMES if name not in ("...", "~")]
    for path in paths:
        path.parent.mkdir()
        shutil.copyfile(plain, path)
    for events in decode(*paths):
        check_whole(events, BY_THREES)


def test_a_file_without_permission_is_reported(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.mp4"
    shutil.copyfile(plain, path)
    path.chmod(0)
    decode_one = child._decode_one

    def as_nobody(*arguments: Any) -> None:
        with contextlib.suppress(PermissionError):  # only root has to become another user
            os.setuid(65_534)
        decode_one(*arguments)

    misbehave_on(monkeypatch, {path.name: as_nobody})
    ((failure,),) = decode(path)
    assert isinstance(failure, Failed)
    assert failure.reason == "the file cannot be opened (Permission denied): check its permissions"
    assert failure.transient, "it may be allowed tomorrow"


def test_folders_and_pipes_cost_nothing_but_themselves(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    *others, good = decode(tmp_path / "x.mp4", tmp_path / "pipe.mp4", plain)
    for events in others:
        check_refused(events, "not a regular file")
    check_whole(good, BY_THREES)
