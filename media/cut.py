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
import io
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
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from scanonce.media.container import (
    Geometry,
    describe,
)
from scanonce.media.encode import CLIP, PROXY, encode, find_sound
from scanonce.media.playable import MediaFacts
from scanonce.media.seek import SNAP_SECONDS, Reader, Ticker
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


class Cancelled(VideoError):
    """Whoever asked for it no longer wants it."""


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
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["MALLOC_ARENA_MAX"] = "2"  # address space is limited, see `_limit_resources`
    process = subprocess.Popen(
        # -P: nothing is imported from the folder one happens to be in
        [sys.executable, "-P", "-m", "scanonce.media.cut"],
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
        say(result=_do(job, Ticker(lambda seconds: say(done=seconds))))
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


def _do(job: dict[str, Any], tick: Ticker) -> dict[str, Any]:
    source = Path(os.fsdecode(bytes.fromhex(job["source"])))
    if job["kind"] == "probe":
        return {"facts": asdict(_probe(source))}
    if job["kind"] == "frame":
        jpeg = _jpeg(source, job["seconds"], job["width"], tick)
        return {"jpeg": base64.b64encode(jpeg).decode("ascii")}
    out = Path(os.fsdecode(bytes.fromhex(job["out"])))
    if job["kind"] == "clip":
        encode(source, out, CLIP, job["start"], job["end"], tick)
    else:
        if hasattr(os, "nice"):
            os.nice(10)  # searching goes first
        settings = replace(PROXY, max_short_side=job["max_height"])
        encode(source, out, settings, 0.0, math.inf, tick)
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


# ---------------------------------------------------------------- reading


# ---------------------------------------------------------------- pictures and sound


def _probe(source: Path) -> MediaFacts:
    reader = Reader(source, Ticker(lambda _: None))
    assert reader.first is not None
    container = reader.container
    info = describe(container, reader.stream, Geometry.of(reader.first, reader.stream, None))
    sound = find_sound(container)
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


def _jpeg(source: Path, seconds: float, width: int, tick: Ticker) -> bytes:
    from PIL import Image

    reader = Reader(source, tick)
    shown: VideoFrame | None = None
    for at, frame in reader.frames(seconds):
        if shown is not None and at > seconds + SNAP_SECONDS:
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


# ---------------------------------------------------------------- writing


if __name__ == "__main__":
    main()
