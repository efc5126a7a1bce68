"""The page of a moment: play it, move its in and out points, export it, find others from it.

/moment?v=7&a=61.5&b=70&q=a+red+car    video 7 from 61.5 to 70 s, found by "a red car"
"""

from functools import partial

import streamlit as st

from scanonce.search.result import SearchResult
from scanonce.storage.errors import VideoError
from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.export_files import pick_of
from scanonce.ui.fact_text import fact_rows
from scanonce.ui.pages import finding
from scanonce.ui.pages.addresses import moment_key, moment_url, open_moment, opening, thumb_url
from scanonce.ui.pages.components import (
    Crop,
    no_callback,
    page_title,
    player,
    query_box,
    show_notes,
    transcript,
)
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.exports_bar import (
    export_buttons,
)
from scanonce.ui.pages.picking import picking_grid
from scanonce.ui.pages.pictures import result_picture, show_pictures
from scanonce.ui.pages.session import shared
from scanonce.ui.pages.tray import pick, select_of
from scanonce.ui.recorded import wall_clock
from scanonce.ui.safe_text import encodable, shown_name
from scanonce.ui.server.cache import proxy_cache
from scanonce.ui.server.playback import find_file, playback
from scanonce.ui.views import (
    clock,
    divider_at,
    good_text,
    parse_span,
    plain,
    span_text,
    times_across,
)

MOMENTS_HERE, ALIKE, WIDER = 50, 8, 8
PLAYER = "player"
LISTED = 48
OFFLINE_PICTURES = 6
MARKED = 4  # moments that are marked in a video without a good match


def page() -> None:
    """Draw the page."""
    with errors_shown():
        found = _asked_video()
        if found is None:
            _unknown()
            return
        video, stamp = found
        query = _head(video)
        page_title(f"{query or 'Moment'} - {shown_name(video.path)}")
        try:
            find_file(video)
        except VideoError:
            _offline(video)
        else:
            cut, here = _player(video, query, stamp)
            _exports(video, cut, query, here)
            _like_a_part(video, query, stamp)
        _go_on(video, query, stamp)


# ---------------------------------------------------------------- the address


def _asked_video() -> tuple[Video, finding.Stamp] | None:
    asked = st.query_params.get("v", "")
    if not shared().exists or not (asked.isascii() and asked.isdecimal() and len(asked) <= 15):
        return None
    stamp = finding.index_stamp()
    video = finding.searchable_library(stamp).videos.get(int(asked))
    return None if video is None else (video, stamp)


def _asked_span(video: Video) -> Span:
    start, end = st.query_params.get("a", ""), st.query_params.get("b", "")
    return parse_span(start, end, video.duration_seconds) or opening(video)


def _opening(video: Video) -> int:
    """Return the number of the opened moment, which grows when the address names another moment."""
    asked = [st.query_params.get(name, "") for name in ("v", "a", "b")]
    number, before = st.session_state.get("opening", (0, None))
    if before != asked:
        trimmed = getattr(st.session_state.get(PLAYER), "cut", None) or {}
        cut = [f"{trimmed.get(name, 0.0):.3f}" for name in ("start", "end")]
        # the player has put its cut into the address: the same moment is still open
        is_trim = trimmed.get("opening") == number and before and before[0] == asked[0]
        if not (is_trim and cut == asked[1:]):
            number += 1
            st.session_state["opened"] = _asked_span(video)
        st.session_state["opening"] = (number, asked)
    return int(number)


def _opened(video: Video) -> Span:
    """Return the moment that was opened, as it was before it was trimmed."""
    opened = st.session_state.get("opened")
    return opened if isinstance(opened, Span) else _asked_span(video)


def _unknown() -> None:
    st.write("There is no such video in this library. It may have been forgotten since.")
    _back("Search")


def _back(label: str) -> None:
    address = st.session_state.get("results_address")
    st.page_link(
        "search_page.py",
        label=label,
        icon=":material/arrow_back:",
        query_params=address or None,
    )


# ---------------------------------------------------------------- the parts


def _head(video: Video) -> str:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="head"):
        _back("Results")
        query = query_box("Search in this video", key="moment-query", on_change=_jump)
        st.toggle("whole library", key="wide", bind="query-params")
    info = video.info
    facts = [clock(video.duration_seconds)]
    if info is not None:
        facts += [f"{info.width}x{info.height}", f"{info.fps:.4g} fps", info.codec]
    st.markdown(f"**{plain(shown_name(video.path))}**  &ensp;{plain(' · '.join(facts))}")
    return query


def _offline(video: Video) -> None:
    """Show what the index has of a video whose file is not there, and what to do."""
    span = _asked_span(video)
    st.session_state["opened"] = span
    st.warning(
        "The file is not where it was indexed, so it cannot be played or cut. Connect its drive, or move it back. "
        "Its pictures and its place in searches are kept until the library is indexed without it."
    )
    for path in video.paths:
        st.code(encodable(str(path)), language=None, wrap_lines=True)
    show_pictures(
        [
            {
                "key": f"{seconds:.3f}",
                "href": moment_url(video.video_id, span, st.query_params.get("q", "")),
                "src": thumb_url(video.video_id, seconds),
                "title": clock(seconds),
                "note": "",
            }
            for seconds in times_across(span, OFFLINE_PICTURES)
        ],
        key="stored-pictures",
        on_open=no_callback,
    )


def _listed(query: str, here: tuple[Moment, ...]) -> tuple[Moment, ...]:
    """Return the results that the search page showed for this query, or else the moments of this video."""
    asked, shown = st.session_state.get("listed", ("", ()))
    return tuple(shown if asked == query and query else here)[:LISTED]


def _results(listed: tuple[Moment, ...], query: str) -> None:
    """Show the results beside the player; a click opens one in place."""
    if len(listed) < 2:
        return
    opened = st.session_state.get("opened")
    current = next((each for each in listed if _is_open(each, opened)), None)
    key = show_pictures(
        [result_picture(moment, query) for moment in listed],
        key="results",
        on_open=no_callback,
        current=moment_key(current) if current else "",
    )
    wanted = next((each for each in listed if moment_key(each) == key), None)
    if wanted is not None:
        open_moment(wanted.video_id, wanted.span, query)


def _is_open(moment: Moment, opened: object) -> bool:
    if not isinstance(opened, Span) or str(moment.video_id) != st.query_params.get("v"):
        return False
    return abs(moment.span.start_seconds - opened.start_seconds) < 0.01


def _jump() -> None:
    """Open the best moment of another query; for callbacks."""
    st.session_state["jump"] = True


def _player(video: Video, query: str, stamp: finding.Stamp) -> tuple[Span, tuple[Moment, ...]]:
    """Show the player, with the transcript beside it; return the cut, and the moments of the query in this video."""
    result = SearchResult("", ())
    curve = None
    if query:
        result = finding.search(query, None, MOMENTS_HERE, stamp, video.video_id)
        curve = finding.curve(query, video.video_id, stamp)
        if st.session_state.pop("jump", False) and result.moments:
            best = result.moments[0].span
            st.query_params["a"], st.query_params["b"] = (
                f"{best.start_seconds:.3f}",
                f"{best.end_seconds:.3f}",
            )
    marked = result.moments[: result.num_good or MARKED]
    if query:
        found = "No good match in this video; the nearest are marked."
        st.caption(found if result.no_good_match else good_text(result.moments))
        show_notes(result.notes)
    said = finding.transcript(video.video_id, stamp)
    listed = _listed(query, result.moments)
    shares = [7, 3] if said.lines else [4, 1]
    has_right = said.lines or len(listed) > 1
    left, right = st.columns(shares, gap="small") if has_right else (st.container(), None)
    with left:
        cut, crop = player(
            video,
            _asked_span(video),
            playback(video, proxy_cache(shared().index_dir)),
            opening=_opening(video),
            moments=sorted(marked, key=lambda moment: moment.span),
            curve=curve,
            is_calibrated=shared().engine.is_calibrated,
            talk=said.sentences,
            query=query,
            on_pick=partial(_pick, query, result.moments),
            key=PLAYER,
        )
    if crop is not None:
        st.session_state["crop"] = crop
    if right is not None:
        with right:
            _results(listed, query)
            if said.lines:
                transcript(video.video_id, said.lines, key="transcript")
    return cut, result.moments


def _pick(query: str, here: tuple[Moment, ...], video_id: int, cut: Span) -> None:
    video = finding.searchable_library(finding.index_stamp()).videos.get(video_id)
    if video is None or cut.start_seconds >= video.duration_seconds:
        return
    cut = Span(cut.start_seconds, min(cut.end_seconds, video.duration_seconds))
    overlapping = (each for each in here if each.video_id == video_id and each.span.tiou(cut) > 0)
    pick(select_of(video, cut, query, next(overlapping, None)))


def _exports(video: Video, cut: Span, query: str, here: tuple[Moment, ...]) -> None:
    found = next((moment for moment in here if moment.span.tiou(cut) > 0), None)  # the best one
    stem = f"{shown_name(video.path.with_suffix(''))} {span_text(cut).replace(':', '.')}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="exports"):
        st.markdown(f"Export {plain(span_text(cut))}", width="content")
        export_buttons([pick_of(video, cut, query or "moment", found)], stem, key="cut")
    if when := wall_clock(video.recording, cut.start_seconds):
        st.caption(f"Recorded {plain(when)}" if video.facts.recorded_at else plain(when))
    st.code(encodable(str(video.path)), language=None, wrap_lines=True)
    _facts(video)


def _facts(video: Video) -> None:
    """Show what the file states about its recording."""
    if rows := fact_rows(video):
        with st.expander("Recording", key="facts"):
            st.markdown("  \n".join(f"**{name}** {plain(text)}" for name, text in rows.items()))


def _like_a_part(video: Video, query: str, stamp: finding.Stamp) -> None:
    """Show what looks like the part of the picture that was drawn last, until it is taken away."""
    crop = st.session_state.get("crop")
    if not isinstance(crop, Crop) or crop.video_id != video.video_id:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="crop"):
        st.markdown(f"#### Like the part drawn at {clock(crop.seconds)}", width="content")
        st.button("Clear", on_click=_clear_crop, type="tertiary", key="clear-crop")
    result = finding.like_part(crop, ALIKE, stamp)
    picking_grid(result.moments, query, key="part", label=result.query, alike=True)


def _clear_crop() -> None:
    st.session_state.pop("crop", None)


def _go_on(video: Video, query: str, stamp: finding.Stamp) -> None:
    if query and st.session_state.get("wide"):
        wider = finding.search(query, None, finding.FIRST, stamp)
        st.markdown("#### In the whole library")
        shown = wider.moments[:WIDER]
        st.caption(good_text(wider.moments))
        picking_grid(shown, query, key="wider", divider=divider_at(shown))
        st.page_link("search_page.py", label="All results", query_params={"q": query})
    alike = finding.similar(video.video_id, _opened(video), ALIKE, stamp)
    if alike.moments:
        st.markdown("#### More like this")
        picking_grid(alike.moments, query, key="alike", label=alike.query, alike=True)


if __name__ == "__main__":
    page()
