"""The tray of selects at the bottom of every page: picked moments in order, to rename, move, remove and export."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from scanonce.storage.errors import ScanonceError
from scanonce.storage.records import Moment, Span, Video
from scanonce.storage.selects import (
    MOST_SELECTS,
    Select,
    Selects,
    SelectsFile,
    added,
    moved,
    noted,
    removed,
    renamed,
)
from scanonce.ui.export_files import picks_of
from scanonce.ui.pages import finding
from scanonce.ui.pages.acts import acts_seen, fresh_acts
from scanonce.ui.pages.addresses import moment_url, thumb_url
from scanonce.ui.pages.components import read_asset
from scanonce.ui.pages.exports_bar import export_buttons
from scanonce.ui.pages.session import shared
from scanonce.ui.safe_text import shown_name
from scanonce.ui.server.clips import MAX_CLIP_SECONDS
from scanonce.ui.timecode import RATES, RateName
from scanonce.ui.views import clock, plain, timecode

KEY = "tray"

_tray = st.components.v2.component(
    "scanonce_tray",
    html=read_asset("tray.html"),
    css=read_asset("controls.css", "tray.css"),
    js=read_asset("elements.js", "tray.js"),
)


def selects() -> Selects:
    """Return the selects of the index.

    Raises:
        ScanonceError: they cannot be read.
    """
    return SelectsFile(shared().layout).read() if shared().exists else ()


def pick(select: Select) -> None:
    """Add a select; for callbacks. An error is shown by the tray."""
    _change(lambda kept: added(kept, select))


def unpick(key: str) -> None:
    """Remove a select; for callbacks. An error is shown by the tray."""
    _change(lambda kept: removed(kept, key))


def select_of(video: Video, span: Span, query: str, found: Moment | None = None) -> Select:
    """Return a span of a video as a select.

    Args:
        video: its video.
        span: in and out.
        query: what found it, or another name.
        found: the moment that the query found there.
    """
    return Select(
        video.video_id,
        span,
        shown_name(video.path),
        query=query,
        probability=None if found is None else found.probability,
        score=None if found is None else found.score,
    )


def tray() -> None:
    """Show the tray; nothing if nothing is picked."""
    if problem := st.session_state.pop("tray-problem", None):
        st.error(plain(problem))
    if not shared().exists:
        return
    kept = selects()
    if not kept:
        return
    videos = finding.searchable_library(finding.index_stamp()).videos
    picks = picks_of(kept, videos)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="picks-bar"):
        _tray(
            key=KEY,
            data={"selects": tray_rows(kept, videos), "seen": acts_seen(KEY)},
            on_acts_change=_take_acts,
        )
        with st.popover("Export", disabled=not picks):
            with st.container(horizontal=True, gap="small"):
                rate = st.selectbox(
                    "Timeline rate", [None, *RATES], format_func=_rate_text, key="timeline-rate"
                )
                export_buttons(picks, "selects", key="picked", rate=rate)
            long = sum(each.span.duration_seconds > MAX_CLIP_SECONDS for each in picks)
            st.link_button("Clips (zip)", "/media/selects/clips.zip", disabled=long > 0)
            if long:
                st.caption(f"{long} of them is longer than {MAX_CLIP_SECONDS / 60:.0f} minutes")


def _rate_text(rate: RateName | None) -> str:
    return "as the first moment" if rate is None else rate.replace("df", " drop frame")


def tray_rows(kept: Sequence[Select], videos: Mapping[int, Video]) -> list[dict[str, Any]]:
    """Return the data of the rows; a select whose video was forgotten stays until a person removes it."""
    rows = []
    for each in kept:
        video = videos.get(each.video_id)
        fps = video.info.fps if video is not None and video.info is not None else 0.0
        rows.append(
            {
                "key": each.key,
                "name": each.name,
                "note": each.note,
                "query": each.query,
                "in": timecode(each.span.start_seconds, fps),
                "out": timecode(each.span.end_seconds, fps),
                "length": clock(each.span.duration_seconds, tenths=True),
                "src": thumb_url(each.video_id, each.span.middle_seconds) if video else "",
                "href": moment_url(each.video_id, each.span, each.query) if video else "",
            }
        )
    return rows


def _take_acts() -> None:
    for act in fresh_acts(KEY):
        key, value = str(act.get("key")), act.get("value")
        match act.get("kind"):
            case "remove":
                unpick(key)
            case "clear":
                _change(lambda _: ())
            case "rename":
                _change(partial(renamed, key=key, name=str(value)))
            case "note":
                _change(partial(noted, key=key, note=str(value)))
            case "move" if isinstance(value, int):
                _change(partial(moved, key=key, position=value))
            case _:
                continue


def _change(do: Callable[[Selects], Selects]) -> None:
    try:
        kept = SelectsFile(shared().layout).change(do)
    except ScanonceError as error:
        st.session_state["tray-problem"] = str(error)
    else:
        if len(kept) >= MOST_SELECTS:
            st.session_state["tray-problem"] = (
                f"there is room for {MOST_SELECTS:,} selects: remove some"
            )
