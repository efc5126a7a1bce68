"""Moments as the files that people save: their names and their content; see `ui.export` for the formats."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scanonce.storage.records import Moment, Span, Video
from scanonce.storage.selects import Selects
from scanonce.ui.export import Pick, to_csv, to_edl, to_otio, to_srt
from scanonce.ui.export_kinds import Format
from scanonce.ui.safe_text import shown_name
from scanonce.ui.timecode import RATES, RateName
from scanonce.ui.timelines import to_fcpxml, to_premiere, to_resolve_markers

_TIMELINES: Mapping[Format, Callable[..., str]] = {
    "EDL": to_edl,
    "OTIO": to_otio,
    "FCPXML": to_fcpxml,
    "XML": to_premiere,
    "MARKERS": to_resolve_markers,
}


def pick_of(video: Video, span: Span, label: str, found: Moment | None = None) -> Pick:
    """Return a span of a video, ready for export.

    Args:
        video: its video.
        span: what to export.
        label: the query, or another name.
        found: the moment that a query found there.
    """
    info = video.info
    return Pick(
        video.path,
        info.fps if info else 0.0,
        video.duration_seconds,
        info.width if info else 0,
        info.height if info else 0,
        span,
        label,
        None if found is None else found.probability,
        None if found is None else found.score,
        info.offset_seconds if info else 0.0,
        words="" if found is None else " / ".join(each.text for each in found.reasons if each.text),
        timecode=video.facts.timecode,
        audio=video.facts.audio,
        recorded=video.recording,
        camera=video.facts.camera,
    )


def picks_of(kept: Selects, videos: Mapping[int, Video]) -> list[Pick]:
    """Return the selects of videos that are there, ready for export in their order.

    The label of each is its note, else what found it, else its name.
    """
    return [
        replace(
            pick_of(videos[each.video_id], each.span, each.note or each.query or each.name),
            probability=each.probability,
            score=each.score,
        )
        for each in kept
        if each.video_id in videos
    ]


def export_name(kind: Format, picks: Sequence[Pick], stem: str) -> str:
    """Return the name of an exported file, which begins with ``stem``."""
    if kind == "MARKERS":
        return f"{stem} markers.edl"
    is_zip = kind == "SRT" and len({pick.path for pick in picks}) > 1
    return f"{stem} srt.zip" if is_zip else f"{stem}.{kind.lower()}"


def export_content(kind: Format, picks: Sequence[Pick], rate: RateName | None = None) -> bytes:
    """Return the content of an exported file.

    Args:
        kind: the format.
        picks: in their order.
        rate: frame rate of the timeline, for formats that have one. Default: that of the first moment's video; in OTIO
            each video has its own.
    """
    if kind == "CSV":
        return _utf8("\ufeff" + to_csv(picks))  # spreadsheets recognise UTF-8 by the mark in front
    if write := _TIMELINES.get(kind):
        return _utf8(write(picks, rate=None if rate is None else RATES[rate]))
    subtitles = to_srt(picks)
    return _utf8(*subtitles.values()) if len(subtitles) == 1 else _zipped(subtitles)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _zipped(subtitles: Mapping[Path, str]) -> bytes:
    data = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in subtitles.items():
            stem = shown_name(path.with_suffix("")).replace("/", "_").replace("\\", "_")
            name, number = f"{stem}.srt", 1
            while name.casefold() in taken:  # some file systems ignore case
                number += 1
                name = f"{stem} {number}.srt"
            taken.add(name.casefold())
            archive.writestr(name, _utf8(text))
    return data.getvalue()
