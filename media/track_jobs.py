"""The child's side of `media.tracks`: reads the texts, the audio or the changed pictures of one file, then ends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanonce.media import guard
from scanonce.media.messages import MAX_TEXT_CHARS, ParentGone, send
from scanonce.media.seek import Entry, Ticker
from scanonce.storage.errors import UnreadableVideo

RATE = 16_000
"""Samples of audio a second, the rate of speech models."""
SAMPLES_PER_MESSAGE = 30 * RATE
LINES_PER_MESSAGE = 200
MAX_PIXELS = 1920 * 1088
"""Pixels of a picture; a larger one is reduced."""


def main() -> None:
    """Run the job that the parent sends."""
    connection, limits = guard.launched()
    with guard.serving(connection, limits):
        job = json.loads(connection.recv_bytes())
        guard.allow_cpu(limits.cpu_seconds)
        guard.lock_down(connection, [_path(job["source"]), *map(_path, job.get("sidecars", ()))])
        _answer(connection, job)
    os._exit(0)  # nothing of value is open, and decoder threads need not be waited for


def _answer(connection: Connection, job: dict[str, Any]) -> None:
    """Run a job; its last message is ``finished`` or ``unreadable``."""
    tick = Ticker(lambda seconds: send(connection, "progress", {"done_seconds": seconds}))
    source = _path(job["source"])
    try:
        problem = _JOBS[job["kind"]](connection, job, source, tick)
        send(connection, "finished", {"problem": problem})
    except UnreadableVideo as error:
        send(connection, "unreadable", {"reason": str(error)})
    except (ParentGone, MemoryError):
        raise
    except Exception as error:  # whatever a file makes a decoder raise
        reason = f"decoding raised {type(error).__name__}: {error}"
        send(connection, "unreadable", {"reason": reason})


def _path(name: str) -> Path:
    """A path that was sent as the hexadecimal digits of its bytes."""
    return Path(os.fsdecode(bytes.fromhex(name)))


# ---------------------------------------------------------------- texts


def _texts(connection: Connection, job: dict[str, Any], source: Path, tick: Ticker) -> str | None:
    from scanonce.media.subtitles import TimedText, read_sidecar, read_streams

    lines: list[TimedText] = []
    problems = []
    for name in job["sidecars"]:
        found, problem = read_sidecar(_path(name), job["fps"])
        lines += found
        problems += [problem] if problem else []
    found, problem = read_streams(source, job["offset_seconds"], tick)
    lines += found
    problems += [problem] if problem else []
    wanted, dropped = _sorted(lines, job["max_lines"])
    problems += [f"{dropped:,} lines are more than are kept"] if dropped else []
    for start in range(0, len(wanted), LINES_PER_MESSAGE):
        items = [list(line) for line in wanted[start : start + LINES_PER_MESSAGE]]
        send(connection, "lines", {"items": items})
    return "; ".join(problems) or None


def _sorted(lines: list[Any], most: int) -> tuple[list[Any], int]:
    """Return lines with a text, each once, by time and not before 0; and how many were too many."""
    seen = set()
    kept = []
    for line in sorted(lines, key=lambda each: (each.start_seconds, each.end_seconds)):
        if not line.text or not math.isfinite(line.start_seconds + line.end_seconds):
            continue
        start = max(0.0, line.start_seconds)
        end = max(start, line.end_seconds)
        if (key := (line.track, round(start, 1), line.text)) not in seen and line.end_seconds >= 0:
            seen.add(key)
            text = line.text[:MAX_TEXT_CHARS]
            kept.append(line._replace(start_seconds=start, end_seconds=end, text=text))
    return kept[:most], max(0, len(kept) - most)


# ---------------------------------------------------------------- audio


def _audio(connection: Connection, job: dict[str, Any], source: Path, tick: Ticker) -> str | None:
    import av

    from scanonce.media.audio import Audio, audio_tracks
    from scanonce.media.container import open_container

    with open_container(source) as container:
        origin = (container.start_time or 0) / av.time_base + job["offset_seconds"]
        num_tracks = len(audio_tracks(container))
    send(connection, "opened", {"num_tracks": num_tracks})
    if job["number"] >= num_tracks:
        return None
    length = job["length_seconds"]
    audio = Audio(source, tick, Entry(origin), length, number=job["number"], rate=RATE)
    for piece in _pieces(audio.chunks()):
        send(connection, "audio", {}, piece.data.cast("B"))
    errors = audio.num_errors
    return f"{errors} damaged piece(s) of its audio could not be decoded" if errors else None


def _pieces(chunks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.int16]]:
    """Yield the samples of ``[1, num_samples]`` in pieces of one length, the last one shorter."""
    held: list[NDArray[np.int16]] = []
    num_held = 0
    for chunk in chunks:
        held.append(np.rint(np.clip(chunk[0], -1.0, 1.0) * 32767).astype(np.int16))
        num_held += len(held[-1])
        if num_held >= SAMPLES_PER_MESSAGE:
            joined = np.concatenate(held)
            whole = num_held // SAMPLES_PER_MESSAGE * SAMPLES_PER_MESSAGE
            for start in range(0, whole, SAMPLES_PER_MESSAGE):
                yield joined[start : start + SAMPLES_PER_MESSAGE]
            held, num_held = [joined[whole:]], num_held - whole
    if num_held:
        yield np.concatenate(held)


# ---------------------------------------------------------------- pictures


def _pictures(
    connection: Connection, job: dict[str, Any], source: Path, tick: Ticker
) -> str | None:
    from scanonce.media.change import Changes
    from scanonce.media.open import open_video
    from scanonce.media.sampling import Sampling

    changes = Changes()
    after = _asked(connection)
    with open_video(source, sampling=Sampling("uniform", job["fps"]), threads=0) as video:
        newest: tuple[float, NDArray[np.uint8]] | None = None
        for frame in video.frames():
            seconds = tick.done_seconds = frame.pts_seconds
            if seconds >= job["length_seconds"]:
                break
            tick()
            changes.add(seconds, frame.image)
            newest = seconds, frame.image
            if seconds >= after and changes.is_worth_reading(seconds):
                _send_picture(connection, changes, *newest)
                after = _asked(connection)
        if newest is not None and changes.is_worth_reading(newest[0], is_last=True):
            _send_picture(connection, changes, *newest)
            _asked(connection)
        return video.problem


def _asked(connection: Connection) -> float:
    """Wait for the time from which on the parent wants the next picture."""
    return float(json.loads(connection.recv_bytes())["after_seconds"])


def _send_picture(
    connection: Connection, changes: Any, seconds: float, image: NDArray[np.uint8]
) -> None:
    """Send the part of a picture that has changed, over its whole width."""
    top, bottom = changes.band()
    changes.note_read()
    factor = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / MAX_PIXELS))
    if factor > 1:
        from PIL import Image

        image = np.asarray(Image.fromarray(image).reduce(factor))
    height, width = image.shape[:2]
    first, last = math.floor(top * height), math.ceil(bottom * height)
    band = np.ascontiguousarray(image[first:last])
    values = {"seconds": seconds, "top": first, "rows": len(band), "blocks": changes.since.shape}
    send(
        connection,
        "picture",
        {**values, "width": width, "height": height},
        band.data.cast("B"),
        np.ascontiguousarray(changes.since).data.cast("B"),
    )


_JOBS: dict[str, Callable[[Connection, dict[str, Any], Path, Ticker], str | None]] = {
    "texts": _texts,
    "audio": _audio,
    "pictures": _pictures,
}

if __name__ == "__main__":
    main()
