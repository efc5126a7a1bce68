"""Cuts, proxies and single frames of videos, each made in a guarded child process.

    write_clip(Path("film.mkv"), Span(62.0, 70.5), Path("clip.mp4"))
    write_proxy(Path("film.avi"), Path("proxy.mp4"), progress=print)
    frame_jpeg(Path("film.mkv"), 62.0, width=480)  # bytes of a JPEG

The output is H.264 (8 bit, 4:2:0) and AAC in an mp4 that begins with its index, upright, with square pixels; the times
between frames are kept. Times are seconds from the first frame, as everywhere: a cut ``[start, end)`` begins with the
frame shown at ``start`` and ends before the one that begins at ``end``. Cutting seeks by time in MP4, Matroska, AVI,
FLV, ASF, MXF and Ogg, and finds its way by `media.places` in MPEG-TS and MPEG-PS; other kinds of file are decoded from
their beginning.

The child (`media.jobs`) runs one job under the limits of `media.guard`. It is also killed if it takes too long.
"""

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from scanonce.media import guard
from scanonce.media.limits import MEMORY_MB, Limits
from scanonce.media.messages import (
    MAX_NUMBER,
    number,
    receive_bytes,
    receive_header,
    record,
    text,
)
from scanonce.media.playable import MediaFacts
from scanonce.storage.errors import DecoderCrashed, UnreadableVideo, VideoError
from scanonce.storage.records import Span

Progress = Callable[[float], object]
"""Is called now and then with the seconds of video that are done."""

STALL_SECONDS = 60.0
"""How long a child may decode nothing before it is killed."""

_FRAME_LIMIT_SECONDS = 120.0
_CLIP_LIMIT_SECONDS = 1800.0
_PROXY_LIMIT_SECONDS = 6 * 3600.0
# decoder and encoder hold frames for each of their threads: 2.5 GB of 8K video with two cores
_ENCODING_MEMORY_MB = 7680
_MAX_JPEG_BYTES = 32 << 20


class Cancelled(VideoError):
    """The caller has cancelled the job."""


# ---------------------------------------------------------------- public functions


def probe(source: Path) -> MediaFacts:
    """Return container, codecs and size of a file; about 0.2 s, most of it the start of the child.

    Raises:
        UnreadableVideo: it is no video that can be decoded.
        DecoderCrashed: the child crashed, stalled or reached a limit.
    """
    facts: MediaFacts = _run({"kind": "probe"}, source, "facts", _FRAME_LIMIT_SECONDS)
    return facts


def frame_jpeg(source: Path, seconds: float, width: int = 480) -> bytes:
    """Return a JPEG of the frame shown at ``seconds``, at most ``width`` wide; the last one after the end.

    Raises:
        UnreadableVideo, DecoderCrashed: as :func:`probe`.
    """
    job = {"kind": "frame", "seconds": seconds, "width": width}
    jpeg: bytes = _run(job, source, "jpeg", _FRAME_LIMIT_SECONDS)
    return jpeg


def write_clip(
    source: Path,
    span: Span,
    out: Path,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write ``[start, end)`` of a video, exact to the frame, with its audio.

    Args:
        source: any video that can be indexed.
        span: an end after the end of the video means that end.
        out: an mp4; it appears complete or not at all.
        progress: see `Progress`.
        cancel: if it is set, the child is killed and `Cancelled` raised.
        max_bytes: a larger file is an error.

    Raises:
        UnreadableVideo: nothing in the span can be decoded.
        DecoderCrashed: the child crashed, stalled or reached a limit.
        VideoError: the file cannot be written, or is the video itself.
    """
    job = {"kind": "clip", "start": span.start_seconds, "end": span.end_seconds}
    _write(job, source, out, _CLIP_LIMIT_SECONDS, progress, cancel, max_bytes)


def write_proxy(
    source: Path,
    out: Path,
    max_height: int = 480,
    *,
    end_seconds: float = math.inf,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write a small copy of a video that every browser plays; its times are those of the video.

    Args:
        source: any video that can be indexed.
        out: as for :func:`write_clip`, as are the others.
        max_height: the shorter side, in pixels; never enlarged.
        end_seconds: where it ends at the latest. A few bytes can claim to be days long, which cost time and space.

    Raises:
        VideoError: as :func:`write_clip`.
    """
    job = {"kind": "proxy", "max_height": max_height, "end": end_seconds}
    _write(job, source, out, _PROXY_LIMIT_SECONDS, progress, cancel, max_bytes)


# ---------------------------------------------------------------- running a job


def _write(
    job: dict[str, Any],
    source: Path,
    out: Path,
    limit_seconds: float,
    progress: Progress | None,
    cancel: threading.Event | None,
    max_bytes: int | None,
) -> None:
    """Have the child write a temporary file, then rename it to ``out``."""
    if out.exists() and source.exists() and out.samefile(source):
        raise VideoError(f"{out} is the video itself, which is never changed: name another file")
    out.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=".tmp-", suffix=".mp4")
    os.close(descriptor)
    temporary = Path(name)
    try:
        _run(
            {**job, "out": os.fsencode(temporary).hex()},
            source,
            "written",
            limit_seconds,
            progress=progress,
            cancel=cancel,
            memory_mb=_ENCODING_MEMORY_MB,
            max_bytes=max_bytes,
        )
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _run(
    job: dict[str, Any],
    source: Path,
    result: Literal["facts", "jpeg", "written"],
    limit_seconds: float,
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    memory_mb: int = MEMORY_MB,
    max_bytes: int | None = guard.MAX_PRINTED_BYTES,
) -> Any:
    """Return the value of the message of kind ``result`` with which the child ends its job."""
    if not source.is_file():  # a pipe or device could block for ever
        raise UnreadableVideo(
            "the file is not there, or is no regular file: scan the library again"
        )
    # no more processor time than all cores have in the wall time
    cpu_seconds = math.ceil(limit_seconds * (os.cpu_count() or 1))
    limits = Limits(STALL_SECONDS, memory_mb, cpu_seconds, max_bytes)
    end = time.monotonic() + limit_seconds
    process, connection = guard.launch("scanonce.media.jobs", limits)
    with guard.Child(process, connection, limits, cancel) as child:
        child.send({**job, "source": os.fsencode(source.absolute()).hex()})
        while True:
            if cancel is not None and cancel.is_set():
                raise Cancelled("it was cancelled")
            if time.monotonic() > end:
                raise DecoderCrashed(
                    f"the decoder took more than {limit_seconds:.0f} s and was stopped"
                )
            child.check_progress()
            if not connection.poll(0.2):
                continue
            kind, value = _read(child, result, cancel)
            if kind == result:
                return value
            if progress is not None:
                progress(value)


def _read(child: guard.Child, result: str, cancel: threading.Event | None) -> tuple[str, Any]:
    """``(kind, value)`` of the next message: ``progress`` or ``result``; other outcomes are raised."""
    try:
        kind, value = child.read(lambda: _receive(child.connection, result))
    except DecoderCrashed:
        if cancel is not None and cancel.is_set():
            raise Cancelled("it was cancelled") from None
        raise
    if kind == "unreadable":
        if child.was_denied_memory():
            raise DecoderCrashed(child.describe_memory())
        raise UnreadableVideo(value)
    if kind == "failed":
        raise VideoError(value)
    child.printed.drop_much()
    return kind, value


def _receive(connection: Connection, result: str) -> tuple[str, Any]:
    """Receive and check one message of a job that ends with ``result``."""
    kind, values = receive_header(connection)
    if kind == "progress":
        return kind, number(values["done_seconds"], MAX_NUMBER)
    if kind in ("unreadable", "failed"):
        return kind, text(values["reason"])
    if kind != result:
        raise ValueError(f"{kind} out of turn")
    if kind == "facts":
        return kind, record(MediaFacts, values)
    if kind == "jpeg":
        jpeg = receive_bytes(connection, _MAX_JPEG_BYTES)
        if not jpeg.startswith(b"\xff\xd8"):
            raise ValueError("the image is no JPEG")
        return kind, jpeg
    return kind, None
