"""The texts, the audio and the changed pictures of a video, each read in a guarded child process.

    texts = read_texts(path, limits=limits)                       # subtitles, title, chapters
    with Audio(path, limits=limits) as audio:
        for piece in audio:                                       # int16 at 16 kHz, 30 s at most
            ...
    with Pictures(path, limits=limits) as pictures:
        picture = pictures.next(after_seconds=0.0)                # the next that is worth reading, None at the end

Times are seconds from the first frame, as everywhere. What a child sends is checked (`media.messages`).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scanonce.media import guard
from scanonce.media.limits import Limits
from scanonce.media.messages import (
    MAX_NUMBER,
    MAX_SIDE,
    integer,
    number,
    receive_bytes,
    receive_header,
    text,
)
from scanonce.media.track_jobs import LINES_PER_MESSAGE, MAX_PIXELS, SAMPLES_PER_MESSAGE
from scanonce.storage.errors import DecoderCrashed, UnreadableVideo

_MAX_TRACKS = 1000
_MAX_BLOCKS = 1 << 16


@dataclass(frozen=True, slots=True)
class TextLine:
    """A text that a file states, and its time."""

    is_fact: bool
    """Whether it is the title or a chapter of the file, not a subtitle."""
    start_seconds: float
    end_seconds: float
    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a file and of its subtitle files."""

    lines: tuple[TextLine, ...]
    """By rising start."""
    problem: str | None
    """Why there are not all of them, or none; None if there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The part of a picture that has changed since the one before."""

    seconds: float
    """Time of its frame."""
    since: NDArray[np.float32]
    """``[rows, columns]``: the time from which on each of even blocks of the whole picture looks as it does."""
    band: NDArray[np.uint8]
    """``[rows, width, 3]`` RGB: the picture over its whole width from row ``top`` on."""
    top: int
    height: int
    """Rows of the whole picture."""

    def since_at(self, left: float, top: float, right: float, bottom: float) -> float:
        """Return the time from which on a box, in pixels of the whole picture, looks as it does.

        A quarter of its blocks may be newer: a box has blank corners, and neighbours that change.
        """
        rows, columns = self.since.shape
        tall, wide = self.height / rows, self.band.shape[1] / columns
        first, begin = (int(at / size) for at, size in ((top, tall), (left, wide)))
        first, begin = min(first, rows - 1), min(begin, columns - 1)
        part = self.since[
            first : max(first + 1, round(bottom / tall)),
            begin : max(begin + 1, round(right / wide)),
        ]
        return float(np.quantile(part, 0.75))


class _Job(guard.Child):
    """A child that does one job."""

    def __init__(self, kind: str, source: Path, limits: Limits, **values: object) -> None:
        if not source.is_file():  # a pipe or device could block for ever
            raise UnreadableVideo("the file is not there, or is no regular file")
        super().__init__(*guard.launch("scanonce.media.track_jobs", limits), limits)
        self.problem: str | None = None
        """After the last message: why not all could be read."""
        self.done_seconds = 0.0
        self.send({"kind": kind, "source": os.fsencode(source.absolute()).hex(), **values})

    def wait(self, expected: str) -> tuple[dict[str, Any], bytes] | None:
        """Return the values and bytes of the next message of a kind; None after the last one.

        Raises:
            UnreadableVideo: nothing of the file can be read.
            DecoderCrashed: the child crashed, stalled or reached a limit.
        """
        while True:
            self.check_progress()
            if not self.connection.poll(0.2):
                continue
            kind, values, data = self.read(lambda: self._receive(expected))
            self.printed.drop_much()
            if kind == "progress":
                self.done_seconds = values["done_seconds"]
            elif kind == "unreadable":
                if self.was_denied_memory():
                    raise DecoderCrashed(self.describe_memory())
                raise UnreadableVideo(values["reason"])
            elif kind == "finished":
                self.problem = values["problem"]
                return None
            else:
                return values, data

    def _receive(self, expected: str) -> tuple[str, dict[str, Any], bytes]:
        kind, values = receive_header(self.connection)
        if kind == "progress":
            return kind, {"done_seconds": number(values["done_seconds"], MAX_NUMBER)}, b""
        if kind == "unreadable":
            return kind, {"reason": text(values["reason"])}, b""
        if kind == "finished":
            problem = values["problem"]
            return kind, {"problem": None if problem is None else text(problem)}, b""
        if kind != expected:
            raise ValueError(f"{kind} out of turn")
        data = b""
        if kind == "audio":
            data = receive_bytes(self.connection, 2 * SAMPLES_PER_MESSAGE)
            if not data or len(data) % 2:
                raise ValueError(f"{len(data)} bytes of audio")
        elif kind == "picture":
            data = receive_bytes(self.connection, 3 * MAX_PIXELS)
            values["since"] = receive_bytes(self.connection, 4 * _MAX_BLOCKS)
        return kind, values, data


class _Reading:
    """A child that is read from bit by bit; a context manager."""

    _job: _Job

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._job.stop()

    @property
    def problem(self) -> str | None:
        """After the last piece: why not all could be decoded."""
        return self._job.problem


# ---------------------------------------------------------------- texts


def read_texts(
    source: Path,
    *,
    limits: Limits,
    sidecars: Sequence[Path] = (),
    offset_seconds: float = 0.0,
    fps: float = 0.0,
    max_lines: int,
) -> Texts:
    """Read the text streams, the title and the chapters of a video, and its subtitle files.

    Args:
        source: the video.
        limits: of the child.
        sidecars: subtitle files, see `media.subtitles.sidecars`.
        offset_seconds: `VideoInfo.offset_seconds` of the video.
        fps: its frame rate, for subtitle files that count frames.
        max_lines: the most lines to return.

    Raises:
        UnreadableVideo: nothing can be read.
        DecoderCrashed: the child crashed, stalled or reached a limit.
    """
    names = [os.fsencode(each.absolute()).hex() for each in sidecars]
    values = {"sidecars": names, "offset_seconds": offset_seconds, "fps": fps}
    lines: list[TextLine] = []
    with _Job("texts", source, limits, max_lines=max_lines, **values) as job:
        while (message := job.wait("lines")) is not None:
            lines += job.read(lambda values=message[0]: _text_lines(values["items"]))  # type: ignore[misc]
            if len(lines) > max_lines:
                raise DecoderCrashed(guard.NONSENSE)
        return Texts(tuple(lines), job.problem)


def _text_lines(items: Any) -> list[TextLine]:
    if not isinstance(items, list) or len(items) > LINES_PER_MESSAGE:
        raise ValueError("no list of lines")
    lines = []
    for track, start, end, content, language in items:
        begin = number(start, MAX_NUMBER)
        lines.append(
            TextLine(
                is_fact=track == "facts",
                start_seconds=begin,
                end_seconds=max(begin, number(end, MAX_NUMBER)),
                text=text(content),
                language=None if language is None else text(language)[:12],
            )
        )
    return lines


# ---------------------------------------------------------------- audio


class Audio(_Reading):
    """The samples of one audio track, in pieces; a context manager. Iterate once."""

    def __init__(
        self,
        source: Path,
        *,
        limits: Limits,
        length_seconds: float,
        offset_seconds: float = 0.0,
        track: int = 0,
    ) -> None:
        """Open a file.

        Args:
            source: the video.
            limits: of the child.
            length_seconds: the most seconds of audio, from the first frame on.
            offset_seconds: `VideoInfo.offset_seconds` of the video.
            track: which of its audio tracks: 0 is the main one, the others follow in their order.

        Raises:
            UnreadableVideo: the file cannot be opened.
            DecoderCrashed: the child crashed, stalled or reached a limit.
        """
        values = {"offset_seconds": offset_seconds, "length_seconds": length_seconds}
        self._job = _Job("audio", source, limits, number=track, **values)
        try:
            opened = self._job.wait("opened")
            found = 0 if opened is None else opened[0]["num_tracks"]
            self.num_tracks = self._job.read(lambda: int(number(found, _MAX_TRACKS)))
        except BaseException:
            self._job.stop()
            raise

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        """Yield ``[num_samples]`` mono at 16 kHz, 30 s at most; without gaps, from the first frame on.

        Raises:
            UnreadableVideo, DecoderCrashed: as the constructor.
        """
        while (message := self._job.wait("audio")) is not None:
            yield np.frombuffer(message[1], np.int16)


# ---------------------------------------------------------------- pictures


class Pictures(_Reading):
    """The pictures of a video that are worth reading, one at a time; a context manager."""

    def __init__(self, source: Path, *, limits: Limits, length_seconds: float, fps: float) -> None:
        """Open a file.

        Args:
            source: the video.
            limits: of the child.
            length_seconds: frames from this time on are not decoded.
            fps: frames a second that are compared.
        """
        values = {"length_seconds": length_seconds, "fps": fps}
        self._job = _Job("pictures", source, limits, **values)

    @property
    def done_seconds(self) -> float:
        """How far the video has been decoded."""
        return self._job.done_seconds

    def next(self, after_seconds: float) -> Picture | None:
        """Return the next picture from a time on whose text has changed, or the last one of the video; None at the end.

        Raises:
            UnreadableVideo: nothing can be decoded.
            DecoderCrashed: the child crashed, stalled or reached a limit.
        """
        self._job.send({"after_seconds": after_seconds})
        message = self._job.wait("picture")
        return None if message is None else self._job.read(lambda: _picture(*message))


def _picture(values: dict[str, Any], data: bytes) -> Picture:
    width, height = integer(values["width"], MAX_SIDE), integer(values["height"], MAX_SIDE)
    rows, top = integer(values["rows"], height), int(number(values["top"], height))
    seconds = number(values["seconds"], MAX_NUMBER)
    since = np.frombuffer(values["since"], np.float32)
    if not np.isfinite(since).all() or not ((since >= 0) & (since <= seconds + 1)).all():
        raise ValueError("blocks that look so since a time that is not there")
    down, across = (integer(each, _MAX_BLOCKS) for each in values["blocks"])
    band = np.frombuffer(data, np.uint8).reshape(rows, width, 3)
    if top + rows > height:
        raise ValueError(f"rows {top} to {top + rows} of a picture of {height}")
    return Picture(seconds, since.reshape(down, across), band, top, height)
