"""The child's side of `media.cut`: one job, then the process ends."""

from __future__ import annotations  # PyAV's generic types exist for the type checker only

import io
import json
import os
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from scanonce.media import guard
from scanonce.media.audio import audio_tracks
from scanonce.media.container import describe
from scanonce.media.encode import CLIP, PROXY, encode
from scanonce.media.geometry import Geometry
from scanonce.media.messages import ParentGone, send
from scanonce.media.playable import MediaFacts
from scanonce.media.render import Renderer
from scanonce.media.seek import SNAP_SECONDS, Reader, Ticker
from scanonce.storage.errors import UnreadableVideo


def main() -> None:
    """Run the job that the parent sends."""
    connection, limits = guard.launched()
    with guard.serving(connection, limits):
        job = json.loads(connection.recv_bytes())
        guard.allow_cpu(limits.cpu_seconds)
        guard.lock_down(
            connection, [_path(job["source"])], [_path(job["out"])] if "out" in job else []
        )
        _answer(connection, job)
    os._exit(0)  # nothing of value is open, and decoder threads need not be waited for


def _answer(connection: Connection, job: dict[str, Any]) -> None:
    """Run a job and send its result, or why there is none."""
    tick = Ticker(lambda seconds: send(connection, "progress", {"done_seconds": seconds}))
    try:
        send(connection, *_do(job, tick))
    except UnreadableVideo as error:
        send(connection, "unreadable", {"reason": str(error)})
    except (ParentGone, MemoryError):
        raise
    except av.FFmpegError as error:
        reason = f"it could not be written ({error.strerror or type(error).__name__})"
        send(connection, "failed", {"reason": reason})
    except Exception as error:  # whatever a file makes a decoder raise
        reason = f"decoding raised {type(error).__name__}: {error}"
        send(connection, "unreadable", {"reason": reason})


def _do(job: dict[str, Any], tick: Ticker) -> tuple[Any, ...]:
    """Kind, values and bytes of the result."""
    source = _path(job["source"])
    if job["kind"] == "probe":
        return "facts", asdict(_probe(source))
    if job["kind"] == "frame":
        return "jpeg", {}, _jpeg(source, job["seconds"], job["width"], tick)
    out = _path(job["out"])
    if job["kind"] == "clip":
        encode(source, out, CLIP, job["start"], job["end"], tick)
    else:
        if hasattr(os, "nice"):
            os.nice(10)  # searching goes first
        quality = replace(PROXY, max_short_side=job["max_height"])
        encode(source, out, quality, 0.0, job["end"], tick)
    return "written", {}


def _path(name: str) -> Path:
    """A path that was sent as the hexadecimal digits of its bytes."""
    return Path(os.fsdecode(bytes.fromhex(name)))


def _probe(source: Path) -> MediaFacts:
    with Reader(source, Ticker(lambda _: None)) as reader:
        container = reader.container
        geometry = Geometry.of(reader.first, reader.stream, None)
        info = describe(container, reader.stream, geometry)
        audio = next(iter(audio_tracks(container)), None)
        return MediaFacts(
            container=_container_name(source, container),
            video_codec=info.codec,
            pixel_format=reader.first.format.name,
            audio_codec=None if audio is None else str(audio.codec_context.codec.canonical_name),
            width=info.width,
            height=info.height,
            fps=info.fps,
            duration_seconds=info.duration_seconds,
            offset_seconds=max(0.0, round(reader.origin_seconds, 4)),
            is_interlaced=bool(reader.first.interlaced_frame),
            is_cropped=bool(geometry.crop),
        )


def _container_name(source: Path, container: InputContainer) -> str:
    name = str(container.format.name)
    if name.startswith("mov"):
        return "mp4"
    if name.startswith("matroska"):
        with source.open("rb") as file:  # the document type is in the first bytes
            return "webm" if b"webm" in file.read(64) else "matroska"
    return name


def _jpeg(source: Path, seconds: float, width: int, tick: Ticker) -> bytes:
    from PIL import Image  # not needed by the other jobs, whose start would wait for it

    with Reader(source, tick) as reader:
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
    Image.fromarray(Renderer(geometry).image(shown)).save(data, "JPEG", quality=85)
    return data.getvalue()


if __name__ == "__main__":
    main()
