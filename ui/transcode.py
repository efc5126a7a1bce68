"""Cuts, proxies and single pictures of videos, each made in a guarded child process.

    write_clip(Path("film.mkv"), Span(62.0, 70.5), Path("clip.mp4"))
    write_proxy(Path("film.avi"), Path("proxy.mp4"), progress=print)
    frame_jpeg(Path("film.mkv"), 62.0, width=480)  # bytes of a JPEG

What comes out is H.264 (8 bit, 4:2:0) and AAC in an mp4 that begins with its index, upright, with square pixels, the
times between frames kept. Times are seconds from the first frame, as everywhere: a cut ``[start, end)`` begins with
the frame shown at ``start`` and ends before the one that begins at ``end``. Cutting seeks in MP4, Matroska, AVI, FLV
and ASF; other kinds of file are decoded from their beginning.

The child gets one job as JSON and answers in JSON lines. It is killed when it makes no progress, when it takes too
long, and when whoever asked is gone. A broken or hostile file costs that job only.
"""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import base64
import contextlib
import copy
import io
import itertools
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from scanonce.indexer.decoders.pyav import (
    Geometry,
    _Clock,
    codec_name,
    describe,
    find_video_stream,
    open_container,
)
from scanonce.storage.errors import DecoderCrashed, UnreadableVideo, VideoError
from scanonce.storage.records import Span

Progress = Callable[[float], object]
"""Is called now and then with the seconds of video that are done."""

STALL_SECONDS = 60.0
"""How long a child may decode nothing before it is killed."""

_CLIP_LIMIT_SECONDS = 1800.0
_PICTURE_LIMIT_SECONDS = 120.0
_PROXY_LIMIT_SECONDS = 6 * 3600.0
_MAX_MEMORY_BYTES = 8 << 30
_MAX_LINE_BYTES = 32 << 20

_SNAP_SECONDS = 0.0006
"""A frame this near to an end of a cut is at it: addresses carry whole milliseconds."""
_SEEKABLE = ("mov", "matroska", "avi", "flv", "asf")
"""Demuxers whose time stamps mean the same after a seek."""
_SEEK_BACK_SECONDS = (0.0, 5.0, 60.0)
_MAX_ERRORS_IN_A_ROW = 200
_TICKS = 90_000  # per second, in what is written
_AAC_RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_SOUND_JITTER_SECONDS = 0.02
_PROXY_MAX_FPS = 30.0

_MAX_OFFSET_SECONDS = 0.1  # of a clock that starts later, browsers disagree about what 0 is
_BROWSER_VIDEO = {"mp4": {"h264", "vp9", "av1"}, "webm": {"vp8", "vp9", "av1"}}
_BROWSER_SOUND = {"mp4": {"aac", "mp3", "opus", "flac"}, "webm": {"vorbis", "opus"}}
_BROWSER_PIXELS = {
    "h264": {"yuv420p", "yuvj420p"},
    "vp8": {"yuv420p"},
    "vp9": {"yuv420p", "yuvj420p", "yuva420p", "yuv420p10le"},
    "av1": {"yuv420p", "yuvj420p", "yuv420p10le"},
}


class Cancelled(VideoError):
    """Whoever asked for it no longer wants it."""


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What decides how a video can be shown."""

    container: str
    """``mp4`` (also QuickTime), ``webm``, or FFmpeg's name of another kind."""
    video_codec: str
    pixel_format: str
    audio_codec: str | None
    """None where there is no sound, or none that can be decoded."""
    width: int
    height: int
    fps: float
    duration_seconds: float
    """As the container states it, 0 where it does not."""
    offset_seconds: float
    """Where a browser's ``currentTime`` is when the first frame is shown."""


def playable(facts: MediaFacts) -> bool:
    """Whether all current browsers play the file as it is; else show its proxy."""
    return (
        facts.offset_seconds <= _MAX_OFFSET_SECONDS
        and facts.video_codec in _BROWSER_VIDEO.get(facts.container, ())
        and facts.pixel_format in _BROWSER_PIXELS[facts.video_codec]
        and (
            facts.audio_codec is None
            or facts.audio_codec in _BROWSER_SOUND.get(facts.container, ())
        )
    )


# ---------------------------------------------------------------- what callers use


def probe(source: Path) -> MediaFacts:
    """What kind of file it is; about 0.3 s, most of it the start of the child.

    Raises:
        UnreadableVideo: it is no video that can be decoded.
        DecoderCrashed: the child died or hung on it.
    """
    return MediaFacts(**_run({"kind": "probe"}, source, _PICTURE_LIMIT_SECONDS)["facts"])


def frame_jpeg(source: Path, seconds: float, width: int = 480) -> bytes:
    """A JPEG of the frame shown at ``seconds``, at most ``width`` wide; the last one after the end.

    Raises:
        UnreadableVideo, DecoderCrashed: as :func:`probe`.
    """
    job = {"kind": "frame", "seconds": seconds, "width": width}
    return base64.b64decode(_run(job, source, _PICTURE_LIMIT_SECONDS)["jpeg"])


def write_clip(
    source: Path,
    span: Span,
    out: Path,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_bytes: int | None = None,
) -> None:
    """Writes ``[start, end)`` of a video, to the frame, with its sound.

    Args:
        source: any video that can be indexed.
        span: an end after the end of the video is that end.
        out: an mp4; it is there whole or not at all.
        progress: see `Progress`.
        cancel: when set, the child is killed and `Cancelled` raised.
        max_bytes: a larger file is an error.

    Raises:
        UnreadableVideo: nothing in the span can be decoded.
        DecoderCrashed: the child died or hung on it.
        VideoError: the file cannot be written.
    """
    job = {"kind": "clip", "start": span.start_seconds, "end": span.end_seconds}
    _write(job, source, out, _CLIP_LIMIT_SECONDS, progress, cancel, max_bytes)


def write_proxy(
    source: Path,
    out: Path,
    max_height: int = 480,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_bytes: int | None = None,
) -> None:
    """Writes a small copy of a whole video that every browser plays; its times are those of the video.

    Args:
        source: any video that can be indexed.
        out: as for :func:`write_clip`, as are the others.
        max_height: the shorter side, in pixels; never enlarged.

    Raises:
        VideoError: as :func:`write_clip`.
    """
    job = {"kind": "proxy", "max_height": max_height}
    _write(job, source, out, _PROXY_LIMIT_SECONDS, progress, cancel, max_bytes)


# ---------------------------------------------------------------- the parent's side


def _write(
    job: dict[str, Any],
    source: Path,
    out: Path,
    limit_seconds: float,
    progress: Progress | None,
    cancel: threading.Event | None,
    max_bytes: int | None,
) -> None:
    """Has the child write a temporary file, which then takes the place of ``out``."""
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=".tmp-", suffix=".mp4")
    os.close(descriptor)
    temporary = Path(name)
    job = {**job, "out": os.fsencode(temporary).hex(), "max_bytes": max_bytes}
    try:
        _run(job, source, limit_seconds, progress=progress, cancel=cancel)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _run(
    job: dict[str, Any],
    source: Path,
    limit_seconds: float,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> dict[str, Any]:
    """The child's last answer."""
    if not source.is_file():  # a pipe or device could block for ever
        raise UnreadableVideo(
            "the file is not there, or is no regular file: scan the library again"
        )
    message = json.dumps({**job, "source": os.fsencode(source.absolute()).hex()})
    started = heard = time.monotonic()
    with _child() as process, _lines(process) as lines:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # a child that died at once is noticed below
            process.stdin.write(message.encode() + b"\n")
            process.stdin.flush()
        while True:
            if cancel is not None and cancel.is_set():
                raise Cancelled("it was cancelled")
            now = time.monotonic()
            if now - heard > STALL_SECONDS or now - started > limit_seconds:
                raise DecoderCrashed(
                    f"the decoder was stopped: nothing came of it for {now - heard:.0f} s, "
                    f"{now - started:.0f} s after it began"
                )
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                continue
            heard = time.monotonic()
            answer = _parse(line, process)
            if "done" in answer:
                if progress is not None:
                    progress(float(answer["done"]))
            elif "unreadable" in answer:
                raise UnreadableVideo(str(answer["unreadable"]))
            elif "failed" in answer:
                raise VideoError(str(answer["failed"]))
            elif "result" in answer:
                return cast("dict[str, Any]", answer["result"])


def _parse(line: bytes, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    if not line:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        code = process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                raise DecoderCrashed(f"the decoder crashed on it ({signal.Signals(-code).name})")
        raise DecoderCrashed(f"the decoder process ended (exit code {code})")
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise DecoderCrashed("the decoder's answer made no sense")
    return answer


@contextlib.contextmanager
def _child() -> Iterator[subprocess.Popen[bytes]]:
    """A child waiting for its job; killed at the end, whatever it does then."""
    kept = ("PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    environment["MALLOC_ARENA_MAX"] = "2"  # address space is limited, see `_limit_resources`
    process = subprocess.Popen(
        # -P: nothing is imported from the folder one happens to be in
        [sys.executable, "-P", "-m", "scanonce.ui.transcode"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()


@contextlib.contextmanager
def _lines(process: subprocess.Popen[bytes]) -> Iterator[queue.Queue[bytes]]:
    """What the child says, line by line; an empty line where it has closed its end."""
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = cast("IO[bytes]", process.stdout)

    def read() -> None:
        line = b"\n"
        while line:
            line = stdout.readline(_MAX_LINE_BYTES)
            lines.put(line)

    thread = threading.Thread(target=read, daemon=True, name="transcode")
    thread.start()
    try:
        yield lines
    finally:
        process.kill()  # ends the reading
        thread.join()
        stdout.close()


# ---------------------------------------------------------------- the child's side


def main() -> None:
    """One job from standard input, answers to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    os.dup2(2, 1)  # nothing else may write there
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def say(**values: Any) -> None:
        print(json.dumps(values), file=answers)

    _limit_resources(job.get("max_bytes"))
    try:
        say(result=_do(job, _Ticker(lambda seconds: say(done=seconds))))
    except UnreadableVideo as error:
        say(unreadable=str(error))
    except MemoryError:
        say(unreadable="its frames do not fit in memory")
    except av.FFmpegError as error:
        say(failed=f"it could not be written ({error.strerror or type(error).__name__})")
    except Exception as error:  # whatever a file makes a decoder raise is told
        say(unreadable=f"decoding raised {type(error).__name__}: {error}")
    answers.flush()
    os._exit(0)  # nothing of value is open, and decoder threads need not be waited for


def _do(job: dict[str, Any], tick: _Ticker) -> dict[str, Any]:
    source = Path(os.fsdecode(bytes.fromhex(job["source"])))
    if job["kind"] == "probe":
        return {"facts": asdict(_probe(source))}
    if job["kind"] == "frame":
        jpeg = _jpeg(source, job["seconds"], job["width"], tick)
        return {"jpeg": base64.b64encode(jpeg).decode("ascii")}
    out = Path(os.fsdecode(bytes.fromhex(job["out"])))
    if job["kind"] == "clip":
        _encode(source, out, _CLIP, job["start"], job["end"], tick)
    else:
        if hasattr(os, "nice"):
            os.nice(10)  # searching goes first
        settings = replace(_PROXY, max_short_side=job["max_height"])
        _encode(source, out, settings, 0.0, math.inf, tick)
    return {}


def _end_with_parent() -> None:
    """The parent holds the other end of standard input for as long as it wants an answer."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 1024):
            pass
    os._exit(1)


def _limit_resources(max_bytes: int | None) -> None:
    if sys.platform == "win32":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
        if max_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))


class _Ticker:
    """Tells the parent, a few times a second, how far we are."""

    def __init__(self, say: Callable[[float], object]) -> None:
        self._say = say
        self._said_at = -math.inf
        self.done_seconds = 0.0

    def __call__(self) -> None:
        """Something was decoded."""
        now = time.monotonic()
        if now - self._said_at > 0.2:
            self._said_at = now
            self._say(round(self.done_seconds, 3))


# ---------------------------------------------------------------- reading


class _Reader:
    """The frames of a video and when they are shown."""

    def __init__(self, path: Path, tick: _Ticker) -> None:
        self.path = path
        self.tick = tick
        self.container = open_container(path)
        self.stream = find_video_stream(self.container)
        self.stream.thread_type = "AUTO"
        self._by_dts = self.container.format.name == "avi"
        self._time_base = self.stream.time_base or Fraction(1, 1000)
        self._num_errors = 0
        self._clock = _Clock(self.stream, self._by_dts)
        self._decoded = self._decode()
        self.first = next(self._decoded, None)
        if self.first is None:
            raise UnreadableVideo(
                f"no picture of its {codec_name(self.stream)} track can be decoded: "
                "copy or download it again"
            )
        self._origin = self._stamp(self.first)

    def close(self) -> None:
        self.container.close()

    @property
    def origin_seconds(self) -> float:
        """The time of the first frame on the clock of the container."""
        return float((self.first.pts or 0) * self._time_base) if self.first else 0.0

    @property
    def step_seconds(self) -> float:
        """How long a frame is usually shown."""
        return 1.0 / float(self.stream.average_rate or self.stream.guessed_rate or 25)

    def frames(self, start_seconds: float = 0.0) -> Iterator[tuple[float, VideoFrame]]:
        """``(seconds, frame)`` in order of time, at the latest from the one shown at ``start_seconds`` on."""
        assert self.first is not None
        moved = False
        if self._origin is not None and self.container.format.name.startswith(_SEEKABLE):
            for back in _SEEK_BACK_SECONDS:
                if start_seconds - back <= 1.0:
                    break
                moved = True
                found = self._seek(start_seconds - back)
                first = next(found, None)
                if first is not None and first[0] <= start_seconds + _SNAP_SECONDS:
                    yield first
                    yield from found
                    return
        if moved:
            afresh = _Reader(self.path, self.tick)
            try:
                yield from afresh.frames()
            finally:
                afresh.close()
            return
        clock = copy.copy(self._clock)
        for frame in itertools.chain([self.first], self._decoded):
            yield clock.frame_seconds(frame), frame

    def _seek(self, seconds: float) -> Iterator[tuple[float, VideoFrame]]:
        assert self._origin is not None
        stamp = self._origin + math.floor(seconds / self._time_base)
        try:
            self.container.seek(stamp, stream=self.stream)
        except av.FFmpegError:
            return
        last = -math.inf
        for frame in self._decode():
            found = self._stamp(frame)
            if found is not None:
                shown = float((found - self._origin) * self._time_base)
                if shown > last:
                    last = shown
                    yield shown, frame

    def _stamp(self, frame: VideoFrame) -> int | None:
        return frame.dts if self._by_dts or frame.pts is None else frame.pts

    def _decode(self) -> Iterator[VideoFrame]:
        self._num_errors = 0
        for packet in self._packets():
            yield from self._decode_packet(packet if packet.size else None)

    def _decode_packet(self, packet: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.FFmpegError:
            self._num_errors += 1
            return
        for frame in frames:
            self._num_errors = 0
            self.tick()
            yield frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Also the empty one that marks the end."""
        while self._num_errors < _MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self.container.demux(self.stream):
                    yield packet
                    if self._num_errors >= _MAX_ERRORS_IN_A_ROW:
                        return
                return
            except av.FFmpegError:  # the next packet may be readable again
                self._num_errors += 1


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame and when it is shown, from the beginning of a cut."""

    start_seconds: float
    end_seconds: float
    frame: VideoFrame


def _cut(
    frames: Iterable[tuple[float, VideoFrame]], start: float, end: float, step: float
) -> Iterator[_Shown]:
    """What is shown in ``[start, end)``: of frames at 0, 0.4 and 0.8, [0.5, 0.9) is 0-0.3 and 0.3-0.4."""
    zero: float | None = None
    held: tuple[float, VideoFrame] | None = None
    stop: float | None = None
    for seconds, frame in frames:
        if seconds >= end - _SNAP_SECONDS:
            stop = seconds if seconds <= end + _SNAP_SECONDS else end
            break
        if held is not None and seconds > start + _SNAP_SECONDS:
            zero = _zero(held[0], start) if zero is None else zero
            yield _Shown(max(0.0, held[0] - zero), seconds - zero, held[1])
        held = (seconds, frame)
    if held is not None:
        zero = _zero(held[0], start) if zero is None else zero
        stop = min(end, held[0] + _duration(held[1], step)) if stop is None else stop
    if held is None or zero is None or stop is None or stop <= zero:
        raise UnreadableVideo(
            f"nothing of it can be decoded between {start:.3f} and {end:.3f} s: "
            "choose a span inside the video"
        )
    yield _Shown(max(0.0, held[0] - zero), stop - zero, held[1])


def _zero(first_seconds: float, start: float) -> float:
    """Where a cut begins: with its first frame, or inside of it."""
    return first_seconds if first_seconds >= start - _SNAP_SECONDS else start


def _duration(frame: VideoFrame, step: float) -> float:
    stated = float((frame.duration or 0) * (frame.time_base or 0))
    return stated if 0.0 < stated < 86_400.0 else step


def _thin(
    frames: Iterable[tuple[float, VideoFrame]], fps: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Leaves out frames so that no more than ``fps`` a second are left."""
    due = 0.0
    for seconds, frame in frames:
        if seconds >= due - 1e-3:
            due = max(due, seconds - 1.0 / fps) + 1.0 / fps
            yield seconds, frame


# ---------------------------------------------------------------- pictures and sound


def _probe(source: Path) -> MediaFacts:
    reader = _Reader(source, _Ticker(lambda _: None))
    assert reader.first is not None
    container = reader.container
    info = describe(container, reader.stream, Geometry.of(reader.first, reader.stream, None))
    sound = _find_sound(container)
    facts = MediaFacts(
        container=_container_name(source, container),
        video_codec=info.codec,
        pixel_format=reader.first.format.name,
        audio_codec=None if sound is None else str(sound.codec_context.codec.canonical_name),
        width=info.width,
        height=info.height,
        fps=info.fps,
        duration_seconds=info.duration_seconds,
        offset_seconds=max(0.0, round(reader.origin_seconds, 4)),
    )
    reader.close()
    return facts


def _container_name(source: Path, container: InputContainer) -> str:
    name = str(container.format.name)
    if name.startswith("mov"):
        return "mp4"
    if name.startswith("matroska"):
        with source.open("rb") as file:  # the document type stands in the first bytes
            return "webm" if b"webm" in file.read(64) else "matroska"
    return name


def _jpeg(source: Path, seconds: float, width: int, tick: _Ticker) -> bytes:
    from PIL import Image

    reader = _Reader(source, tick)
    shown: VideoFrame | None = None
    for at, frame in reader.frames(seconds):
        if shown is not None and at > seconds + _SNAP_SECONDS:
            break
        shown = frame
    if shown is None:
        raise UnreadableVideo("its end cannot be decoded: choose another time")
    geometry = Geometry.of(shown, reader.stream, None)
    scale = min(1.0, width / geometry.width)
    geometry = replace(
        geometry,
        output_width=max(1, round(geometry.width * scale)),
        output_height=max(1, round(geometry.height * scale)),
    )
    data = io.BytesIO()
    Image.fromarray(geometry.picture(shown)).save(data, "JPEG", quality=85)
    reader.close()
    return data.getvalue()


def _upright(frame: VideoFrame, geometry: Geometry, width: int, height: int) -> VideoFrame:
    """The frame as it is shown, ``height x width`` and 8 bit; its colours keep their matrix."""
    stored = (height, width) if geometry.transpose else (width, height)
    is_yuv = frame.format.name.startswith(("yuv", "nv", "p0", "p2", "p4"))
    limited = frame.reformat(
        *stored,
        format="yuv420p",
        interpolation="BICUBIC",
        dst_colorspace=None if is_yuv else "ITU709",
        dst_color_range="MPEG",
    )
    if not (geometry.transpose or geometry.flip_x or geometry.flip_y):
        return limited
    data = limited.to_ndarray().reshape(-1)
    areas = (stored[0] * stored[1], stored[0] * stored[1] // 4)
    y, u, v = np.split(data, (areas[0], areas[0] + areas[1]))
    planes = [y.reshape(stored[1], stored[0])]
    planes += [plane.reshape(stored[1] // 2, stored[0] // 2) for plane in (u, v)]
    turned = [_turn(plane, geometry).reshape(-1) for plane in planes]
    upright = np.concatenate(turned).reshape(height * 3 // 2, width)
    result = VideoFrame.from_ndarray(np.ascontiguousarray(upright), format="yuv420p")
    result.colorspace, result.color_range = limited.colorspace, limited.color_range
    return result


def _turn(plane: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    if geometry.transpose:
        plane = plane.T
    if geometry.flip_x:
        plane = plane[:, ::-1]
    return plane[::-1] if geometry.flip_y else plane


def _find_sound(container: InputContainer) -> AudioStream | None:
    best = container.streams.best("audio")
    if isinstance(best, AudioStream) and best.codec_context is not None:
        usable = best.codec_context.sample_rate and best.codec_context.layout.nb_channels
        return best if usable else None
    return None


class _Sound:
    """The sound of a cut as samples without gaps: where the file has none there is silence."""

    def __init__(self, path: Path, tick: _Ticker, start_seconds: float, end_seconds: float) -> None:
        """Times are those of the container; a file of its own, so that pictures need not wait."""
        self._tick = tick
        self._start = start_seconds
        self._container = open_container(path)
        self.stream = _find_sound(self._container)
        self.rate, self.layout, self.num_channels = 48_000, "stereo", 2
        self.num_given = 0
        if self.stream is None:
            return
        context = self.stream.codec_context
        if context.layout.nb_channels == 1:
            self.layout, self.num_channels = "mono", 1
        if context.sample_rate in _AAC_RATES:
            self.rate = context.sample_rate
        length = end_seconds - start_seconds
        self._num_wanted = math.inf if math.isinf(length) else round(length * self.rate)
        if start_seconds > 1.0 and self._container.format.name.startswith(_SEEKABLE):
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(round((start_seconds - 1.0) * av.time_base))

    def close(self) -> None:
        self._container.close()

    def chunks(self) -> Iterator[NDArray[np.float32]]:
        """``[num_channels, num_samples]``, one after another."""
        for seconds, samples in self._resampled():
            index = self.num_given
            if seconds is not None:
                index = round((seconds - self._start) * self.rate)
            late = index - self.num_given
            if self.num_given and abs(late) <= _SOUND_JITTER_SECONDS * self.rate:
                late = 0
            if late > 0:
                yield from self._silence(late)
            kept = samples[:, max(0, -late) :]
            kept = kept[:, : int(min(kept.shape[1], self._num_wanted - self.num_given))]
            if kept.shape[1]:
                self.num_given += kept.shape[1]
                yield kept
            if self.num_given >= self._num_wanted:
                return

    def _silence(self, count: int) -> Iterator[NDArray[np.float32]]:
        count = int(min(count, self._num_wanted - self.num_given))
        while count > 0:
            part = min(count, self.rate)
            self.num_given += part
            count -= part
            yield np.zeros((self.num_channels, part), np.float32)

    def _resampled(self) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
        resampler: AudioResampler | None = None
        form: tuple[Any, ...] = ()
        for frame in itertools.chain(self._decoded(), [None]):
            if frame is not None:
                now = (frame.format.name, frame.layout.name, frame.sample_rate)
                if resampler is None or now != form:
                    form = now
                    resampler = AudioResampler("fltp", self.layout, self.rate)
            if resampler is None:
                return
            try:
                parts = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                resampler = None
                continue
            for part in parts:
                seconds = None
                if part.pts is not None and part.time_base is not None:
                    seconds = float(part.pts * part.time_base)
                yield seconds, cast("NDArray[np.float32]", part.to_ndarray())

    def _decoded(self) -> Iterator[AudioFrame]:
        assert self.stream is not None
        num_errors = 0
        while num_errors < _MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self._container.demux(self.stream):
                    try:
                        frames = self.stream.codec_context.decode(packet if packet.size else None)
                    except av.FFmpegError:
                        num_errors += 1
                        continue
                    for frame in frames:
                        num_errors = 0
                        self._tick()
                        yield frame
                return
            except av.FFmpegError:
                num_errors += 1


# ---------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True)
class _Quality:
    """How an mp4 is written."""

    crf: int
    preset: str
    sound_bits: int
    max_short_side: int | None = None
    max_fps: float | None = None


_CLIP = _Quality(crf=18, preset="veryfast", sound_bits=160_000)
_PROXY = _Quality(crf=27, preset="superfast", sound_bits=96_000, max_fps=_PROXY_MAX_FPS)


def _encode(
    source: Path, out: Path, quality: _Quality, start: float, end: float, tick: _Ticker
) -> None:
    """Writes ``[start, end)``: pictures in order, and after each the sound up to it."""
    reader = _Reader(source, tick)
    frames = reader.frames(start)
    if quality.max_fps is not None:
        frames = _thin(frames, quality.max_fps)
    pictures = _cut(frames, start, end, reader.step_seconds)
    picture = next(pictures)
    zero = reader.origin_seconds
    sound = _Sound(source, tick, zero + start, zero + end)
    writer = _Writer(out, picture.frame, reader, sound, quality)
    chunks = sound.chunks() if sound.stream is not None else iter(())
    for shown in itertools.chain([picture], pictures):
        writer.add_picture(shown)
        tick.done_seconds = shown.end_seconds
        while sound.num_given < shown.end_seconds * sound.rate:
            chunk = next(chunks, None)
            if chunk is None:
                break
            writer.add_sound(chunk)
    writer.close()
    sound.close()
    reader.close()


class _Writer:
    """An mp4 in the making."""

    def __init__(
        self, out: Path, first: VideoFrame, reader: _Reader, sound: _Sound, quality: _Quality
    ) -> None:
        self._geometry = Geometry.of(first, reader.stream, None)
        width, height = self._geometry.width, self._geometry.height
        scale = min(1.0, (quality.max_short_side or math.inf) / min(width, height))
        self._size = (_even(width * scale), _even(height * scale))
        self._output = av.open(f"file:{out}", "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(reader.stream.average_rate or 25).limit_denominator(1001)
        options = {"crf": str(quality.crf), "preset": quality.preset, "bf": "0"}
        self._video: Any = self._output.add_stream(
            "libx264", rate=min(max(rate, Fraction(1)), Fraction(120)), options=options
        )
        self._video.width, self._video.height = self._size
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = Fraction(1, _TICKS)
        self._video.codec_context.gop_size = max(12, min(250, round(2 * rate)))  # two seconds
        converted = _upright(first, self._geometry, *self._size)
        context = self._video.codec_context
        context.colorspace, context.color_range = converted.colorspace, 1
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        self._durations: dict[int, int] = {}
        self._last_pts = -1
        self._audio: Any = None
        self._pending: list[NDArray[np.float32]] = []
        self._num_pending = 0
        self._num_written = 0
        self._sound_rate, self._sound_layout = sound.rate, sound.layout
        if sound.stream is not None:
            self._audio = self._output.add_stream("aac", rate=sound.rate, layout=sound.layout)
            self._audio.codec_context.bit_rate = quality.sound_bits * sound.num_channels // 2

    def add_picture(self, shown: _Shown) -> None:
        """The next frame."""
        frame = _upright(shown.frame, self._geometry, *self._size)
        frame.pts = max(self._last_pts + 1, round(shown.start_seconds * _TICKS))
        frame.time_base = Fraction(1, _TICKS)
        self._last_pts = frame.pts
        self._durations[frame.pts] = max(1, round(shown.end_seconds * _TICKS) - frame.pts)
        self._mux_pictures(self._video.encode(frame))

    def add_sound(self, samples: NDArray[np.float32]) -> None:
        """The next samples, ``[num_channels, num_samples]``; AAC takes 1024 at a time."""
        self._pending.append(samples)
        self._num_pending += samples.shape[1]
        if self._num_pending >= 1024:
            joined = np.concatenate(self._pending, axis=1)
            whole = self._num_pending // 1024 * 1024
            for start in range(0, whole, 1024):
                self._encode_sound(joined[:, start : start + 1024])
            self._pending = [joined[:, whole:]]
            self._num_pending -= whole

    def close(self) -> None:
        """Writes what is left, and the index before everything."""
        self._mux_pictures(self._video.encode())
        if self._audio is not None:
            if self._num_pending:
                self._encode_sound(np.concatenate(self._pending, axis=1))
            self._output.mux(self._audio.encode())
        self._output.close()

    def _mux_pictures(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(cast(int, packet.pts), packet.duration)
            self._output.mux(packet)

    def _encode_sound(self, samples: NDArray[np.float32]) -> None:
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=self._sound_layout
        )
        frame.sample_rate = self._sound_rate
        frame.pts, frame.time_base = self._num_written, Fraction(1, self._sound_rate)
        self._num_written += samples.shape[1]
        self._output.mux(self._audio.encode(frame))


def _even(length: float) -> int:
    """H.264 with 4:2:0 has even sides: 321 becomes 320."""
    return max(2, 2 * int(round(length) // 2))


if __name__ == "__main__":
    main()
