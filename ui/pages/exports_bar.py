"""The buttons that export moments."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import streamlit as st

from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.pages.export import Pick, to_csv, to_edl, to_otio, to_srt
from scanonce.ui.safe_text import shown_name

Format = Literal["CSV", "SRT", "EDL", "OTIO"]
FORMATS: Mapping[Format, str] = {
    "CSV": "A table for spreadsheets",
    "SRT": "Subtitles that mark the moments; a zip for several videos",
    "EDL": "An edit list (CMX 3600) for editing programs",
    "OTIO": "An OpenTimelineIO timeline with markers",
}


# ---------------------------------------------------------------- files


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
    )


def export_name(kind: Format, picks: Sequence[Pick], stem: str) -> str:
    """Return the name of an exported file, which begins with ``stem``."""
    is_zip = kind == "SRT" and len({pick.path for pick in picks}) > 1
    return f"{stem} srt.zip" if is_zip else f"{stem}.{kind.lower()}"


def export_content(kind: Format, picks: Sequence[Pick]) -> bytes:
    """Return the content of an exported file."""
    if kind == "CSV":
        return _utf8("\ufeff" + to_csv(picks))  # spreadsheets recognise UTF-8 by the mark in front
    if kind == "EDL":
        return _utf8(to_edl(picks))
    if kind == "OTIO":
        return _utf8(to_otio(picks))
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


# ---------------------------------------------------------------- the buttons


def export_buttons(picks: Sequence[Pick], stem: str, *, key: str) -> None:
    """Show a button for each format; the file is made when it is pressed."""
    for kind, description in FORMATS.items():
        st.download_button(
            kind,
            partial(export_content, kind, picks),
            file_name=export_name(kind, picks, stem),
            help=description,
            on_click="ignore",
            key=f"{key}-{kind}",
        )
