"""What a person takes away: picked moments, kept across pages, and the buttons that export moments."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import streamlit as st

from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.pages.components import Picks, moment_key, shown_name, span_millis
from scanonce.ui.pages.export import Pick, to_csv, to_edl, to_otio, to_srt
from scanonce.ui.server.routes import MAX_CLIP_SECONDS
from scanonce.ui.views import plain, span_text

Format = Literal["CSV", "SRT", "EDL", "OTIO"]
FORMATS: Mapping[Format, str] = {
    "CSV": "A table for spreadsheets",
    "SRT": "Subtitles that say what was found when; a zip for several videos",
    "EDL": "An edit list (CMX 3600) for editing programs",
    "OTIO": "An OpenTimelineIO timeline with markers",
}
_MOST_NAMES = 60


# ---------------------------------------------------------------- files


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A file to be saved."""

    name: str
    content: bytes
    mime: str


def pick_of(video: Video, span: Span, label: str, score: float) -> Pick:
    """A moment of a video, ready for export."""
    info = video.info
    return Pick(
        video.path,
        info.fps if info else 0.0,
        video.duration_seconds,
        info.width if info else 0,
        info.height if info else 0,
        span,
        label,
        score,
    )


def export_file(kind: Format, picks: Sequence[Pick], stem: str) -> ExportFile:
    """Moments in one of the formats, under a name that begins with ``stem``."""
    if kind == "CSV":
        # the mark at the front tells spreadsheets that it is UTF-8
        return ExportFile(f"{stem}.csv", _utf8("\ufeff" + to_csv(picks)), "text/csv")
    if kind == "EDL":
        return ExportFile(f"{stem}.edl", _utf8(to_edl(picks)), "text/plain")
    if kind == "OTIO":
        return ExportFile(f"{stem}.otio", _utf8(to_otio(picks)), "application/json")
    subtitles = to_srt(picks)
    if len(subtitles) == 1:
        return ExportFile(f"{stem}.srt", _utf8(next(iter(subtitles.values()))), "text/plain")
    return ExportFile(f"{stem} srt.zip", _zipped(subtitles), "application/zip")


def export_content(kind: Format, picks: Sequence[Pick], stem: str) -> bytes:
    """What is in it."""
    return export_file(kind, picks, stem).content


def clip_url(video_id: int, span: Span) -> str:
    """Where the exact cut of a span is downloaded."""
    start, end = span_millis(span)
    return f"/media/clips/{video_id}/{start}-{end}.mp4"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _zipped(subtitles: Mapping[Path, str]) -> bytes:
    data = io.BytesIO()
    taken: set[str] = set()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in subtitles.items():
            stem = shown_name(path.with_suffix("")).replace("/", "_").replace("\\", "_")
            name, number = f"{stem}.srt", 1
            while name.casefold() in taken:
                number += 1
                name = f"{stem} {number}.srt"
            taken.add(name.casefold())
            archive.writestr(name, _utf8(text))
    return data.getvalue()


# ---------------------------------------------------------------- what is picked


@dataclass(frozen=True, slots=True)
class Picked:
    """A moment and what it was found by."""

    moment: Moment
    query: str


def picked() -> dict[str, Picked]:
    """The picked moments of this viewer by `ui.pages.components.moment_key`, in the order they were picked."""
    found: dict[str, Picked] = st.session_state.setdefault("picked", {})
    return found


def current_picks() -> Picks:
    """The same for the grid."""
    return Picks(st.session_state.get("picks_version", 0), tuple(picked()))


def take_picks(shown: Mapping[str, Picked]) -> Callable[[Picks], None]:
    """What to do when a person picks: only what was shown, or picked before, can be."""

    def take(picks: Picks) -> None:
        known = {**shown, **picked()}
        st.session_state["picked"] = {key: known[key] for key in picks.keys if key in known}
        st.session_state["picks_version"] = picks.version

    return take


def shown_picks(moments: Sequence[Moment], query: str) -> dict[str, Picked]:
    """The moments of a page, as `take_picks` wants them."""
    return {moment_key(moment): Picked(moment, query) for moment in moments}


def clear_picks() -> None:
    """Nothing is picked."""
    st.session_state["picked"] = {}
    st.session_state["picks_version"] = st.session_state.get("picks_version", 0) + 1


# ---------------------------------------------------------------- the buttons


def export_buttons(picks: Sequence[Pick], stem: str, *, key: str) -> None:
    """A button for each format; the file is made when it is pressed."""
    for kind, what in FORMATS.items():
        several = kind == "SRT" and len({pick.path for pick in picks}) > 1
        ending = " srt.zip" if several else f".{kind.lower()}"
        st.download_button(
            kind,
            partial(export_content, kind, picks, stem),
            file_name=f"{stem}{ending}",
            help=what,
            on_click="ignore",
            key=f"{key}-{kind}",
        )


def picks_bar(videos: Mapping[int, Video]) -> None:
    """One line for what is picked: downloads of all of it, a link for each clip, and a way to start anew."""
    # forgotten videos cannot be exported any more
    chosen = [each for each in picked().values() if each.moment.video_id in videos]
    if not chosen:
        return
    picks = [
        pick_of(videos[each.moment.video_id], each.moment.span, each.query, each.moment.score)
        for each in chosen
    ]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="picks-bar"):
        st.markdown(f"**{len(chosen)} picked**", width="content")
        export_buttons(picks, "moments", key="picked")
        with st.popover("Clips"):
            for each in chosen[:_MOST_NAMES]:
                clip_link(each.moment.video_id, each.moment.span, _clip_label(each))
            if len(chosen) > _MOST_NAMES:
                st.caption(f"and {len(chosen) - _MOST_NAMES} more")
        st.button("Clear", on_click=clear_picks, type="tertiary", key="clear-picks")


def clip_link(video_id: int, span: Span, label: str) -> None:
    """A link that cuts a clip and downloads it; says so where it is too long. ``label`` is Markdown."""
    too_long = span.duration_seconds > MAX_CLIP_SECONDS
    st.link_button(
        label,
        clip_url(video_id, span),
        disabled=too_long,
        help=f"A clip has at most {MAX_CLIP_SECONDS / 60:.0f} minutes" if too_long else None,
    )


def _clip_label(picked: Picked) -> str:
    name = plain(shown_name(picked.moment.path))
    return f"{name}  {span_text(picked.moment.span, tenths=False)}"
