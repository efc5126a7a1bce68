"""Texts with times inside a video file and in its subtitle files. Runs in a guarded child (`media.track_jobs`).

Of a subtitle file at most 8 MB are read. Its encoding is UTF-8, what its first bytes say, or what charset-normalizer
finds most likely. Markup is dropped: nothing of it reaches a page.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer

from scanonce.media.container import open_container
from scanonce.media.messages import printable
from scanonce.media.stream import StreamDecoder
from scanonce.storage.errors import UnreadableVideo

MAX_BYTES = 8 << 20
"""Bytes of a subtitle file that are read: hours of dense subtitles have 1 MB."""
ENDINGS = (".srt", ".vtt", ".ass", ".ssa", ".sub")
"""Endings of the names of subtitle files."""

_DETECTED_BYTES = 1 << 18
_TEXT_CODECS = ("subrip", "ass", "ssa", "mov_text", "webvtt", "text", "microdvd", "ttml")
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TAG = re.compile(r"<[^<>]{0,300}>")
_OVERRIDE = re.compile(r"\{[^{}]{0,2000}\}")
_BREAK = re.compile(r"\\[Nnh]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})?")


class TimedText(NamedTuple):
    """A text of a file and its time, in seconds from the first frame; before the first frame it is negative."""

    track: str
    """``subtitle`` or ``facts``."""
    start_seconds: float
    end_seconds: float
    text: str
    language: str | None


def plain(text: str) -> str:
    r"""Return the text of a subtitle in one line, without markup.

    >>> plain(r"{\an8}<i>It&#39;s</i>\N- Tom &amp; <script>alert(1)</script> Jerry")
    "It's - Tom & alert(1) Jerry"
    """
    bare = _TAG.sub("", _OVERRIDE.sub("", _BREAK.sub(" ", text)))
    return " ".join(printable(html.unescape(bare)).split())


def sidecars(video: Path) -> list[Path]:
    """Return the subtitle files of a video, by name: ``film.srt`` or ``Film.EN.ASS`` of ``film.mp4``."""
    stem = video.stem.casefold()
    try:
        names = [each for each in video.parent.iterdir() if each.suffix.casefold() in ENDINGS]
    except OSError:
        return []
    return sorted(
        each
        for each in names
        if each.stem.casefold() == stem or each.stem.casefold().startswith(f"{stem}.")
    )


def language_of(sidecar: Path) -> str | None:
    """Return the language that the name of a subtitle file states: that of ``film.en.srt`` is ``en``."""
    last = sidecar.stem.rpartition(".")[2]
    stated = "." in sidecar.stem and _LANGUAGE.fullmatch(last)
    return last.lower() if stated else None


# ---------------------------------------------------------------- subtitle files


def read_sidecar(path: Path, fps: float) -> tuple[list[TimedText], str | None]:
    """Read a subtitle file.

    Args:
        path: the file.
        fps: frame rate of the video, for formats that count frames; 0: unknown.

    Returns:
        Its lines, and a note if not all of it could be read.
    """
    import pysubs2

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return [], f"{path.name} cannot be read ({error.strerror})"
    problem = None
    if len(data) > MAX_BYTES:
        data = data[: data.rfind(b"\n", 0, MAX_BYTES) + 1 or MAX_BYTES]
        problem = f"only the first {MAX_BYTES >> 20} MB of {path.name} are read"
    try:
        events = pysubs2.SSAFile.from_string(_decoded(data), fps=fps or None)
    except (pysubs2.exceptions.Pysubs2Error, ValueError, KeyError, IndexError, AttributeError):
        return [], f"{path.name} is no subtitle file that can be read"
    language = language_of(path)
    lines = [
        TimedText("subtitle", each.start / 1000, each.end / 1000, plain(each.text), language)
        for each in events
        if not each.is_comment and not each.is_drawing
    ]
    return lines, problem


def _decoded(data: bytes) -> str:
    for bom, name in sorted(_BOMS.items(), key=lambda item: -len(item[0])):
        if data.startswith(bom):
            return data.decode(name, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start > len(data) - 4:  # cut within a letter
            return data.decode("utf-8", "replace")
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_DETECTED_BYTES]).best()
    return data.decode(best.encoding if best else "cp1252", "replace")


# ---------------------------------------------------------------- streams of a video


def read_streams(
    path: Path, offset_seconds: float, tick: Callable[[], object]
) -> tuple[list[TimedText], str | None]:
    """Read the title, the chapters and all text streams of a file.

    Args:
        path: the video.
        offset_seconds: time of its first frame after the start of the file.
        tick: is called with every packet.

    Returns:
        Its texts by stream, and a note if some could not be read.
    """
    try:
        container = open_container(path)
    except UnreadableVideo as error:
        return [], str(error)
    with container:
        origin = (container.start_time or 0) / av.time_base + offset_seconds
        lines = list(_facts(container, origin))
        streams = [each for each in container.streams.subtitles if _codec(each) in _TEXT_CODECS]
        images = len(container.streams.subtitles) - len(streams)
        problem = (
            "it has subtitles that are images, which are not read"
            if images and not streams
            else None
        )
        if streams:
            lines += _packets(container, streams, origin, tick)
    return lines, problem


def _facts(container: InputContainer, origin: float) -> Iterator[TimedText]:
    end = (container.duration or 0) / av.time_base
    if title := plain(str(container.metadata.get("title", ""))):
        yield TimedText("facts", 0.0, end, title, None)
    for chapter in container.chapters():
        base = float(chapter["time_base"] or 0)
        title = plain(str(chapter["metadata"].get("title", "")))
        if title:
            start, stop = chapter["start"] * base - origin, chapter["end"] * base - origin
            yield TimedText("facts", start, stop, title, None)


def _packets(
    container: InputContainer, streams: list[Any], origin: float, tick: Callable[[], object]
) -> Iterator[TimedText]:
    decoders = {each.index: StreamDecoder(container, each) for each in streams}
    languages = {each.index: _language(each) for each in streams}
    # its own demultiplexing counts errors and goes on after them
    for packet in decoders[streams[0].index].packets():
        tick()
        decoder = decoders.get(packet.stream_index)
        if decoder is None or not packet.size or packet.pts is None:
            continue
        start = float(packet.pts * packet.time_base) - origin
        end = start + float((packet.duration or 0) * packet.time_base)
        for subtitle in decoder.decode(packet):
            content = getattr(subtitle, "dialogue", b"") or getattr(subtitle, "text", b"")
            text = plain(content.decode("utf-8", "replace"))
            yield TimedText("subtitle", start, end, text, languages[packet.stream_index])


def _codec(stream: Any) -> str | None:
    return None if stream.codec_context is None else str(stream.codec_context.name)


def _language(stream: Any) -> str | None:
    stated = str(stream.metadata.get("language", ""))
    return stated.lower() if _LANGUAGE.fullmatch(stated) and stated != "und" else None
