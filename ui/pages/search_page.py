"""The search page: a query, filters, and the moments found. The address has all of them but the picks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import streamlit as st

from scanonce.search.filters import EARLIEST, LATEST, MAX_CAMERA, Filter, place_of
from scanonce.search.notes import logic_words, proposed
from scanonce.search.query import is_compound
from scanonce.search.result import SearchResult
from scanonce.storage.errors import QueryError, ScanonceError
from scanonce.storage.records import Moment
from scanonce.ui.pages import finding
from scanonce.ui.pages.components import ask, page_title, query_box, show_notes
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.judged import chips, forget_judged, judge, judged
from scanonce.ui.pages.picking import picking_grid
from scanonce.ui.pages.session import shared
from scanonce.ui.pages.start import start
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import (
    ADDED,
    LENGTHS,
    added_since,
    count_good,
    coverage_text,
    divider_on,
    filter_text,
    good_text,
    is_full,
    num_pages,
    one_per_video,
    page_of,
    plain,
    search_line,
)

Value = TypeVar("Value", str, int)

SHOW = {count: f"Show {count}" for count in (12, 24, 48, 96)}
UNFOLDED = 4  # less certain moments that are shown at first

# endings of files that can be dropped; decoding finds out their content
UPLOADED = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "mp4", "m4v", "mov", "mkv", "webm", "avi")


_BOX = "search-query"
_LONGEST_NAME = 60  # characters of the query that name a search by default


def page() -> None:
    """Draw the page."""
    with errors_shown():
        _draw()


def _draw() -> None:
    begin = time.perf_counter()
    if not shared().exists:
        st.write("There is no index yet: add a folder of videos, and each video is scanned once.")
        _next_step()
        return
    stamp = finding.index_stamp()
    library = finding.searchable_library(stamp)
    query = query_box("What does the moment show?", key=_BOX, on_change=_other_query)
    only, show, one, uploads = _filter_row(library)
    if not library.videos:
        st.write("The index is empty: nothing is indexed yet, or nothing could be read.")
        _next_step()
        return
    feedback = judged(library.videos)
    if not (query or uploads or feedback.more):
        start(library, stamp, box=_BOX)
        return
    page_title(query or "by example")
    chips(feedback)
    wanted = finding.MOST if _asked_page() * show > finding.FIRST else finding.FIRST
    # the same elements whatever is found: otherwise the grid is made again, and its thumbnails flicker
    line, heading, notes = st.empty(), st.empty(), st.container()
    if not shared().is_ready:
        line.caption("Loading the model (once) \u2026")
    searching = time.perf_counter()
    by_more = bool(uploads or feedback)
    if by_more:
        result = finding.search_by(query, uploads, feedback.pieces, only, wanted, stamp)
    else:
        result = finding.search(query, only, wanted, stamp)
        shared().show_again(result)
    searched = time.perf_counter() - searching
    heading.markdown(_heading(result, one, wanted))
    with notes:
        show_notes(result.notes)
        _proposal(query)
        if not by_more:
            _saving(query, only)
    _moments(result, query if by_more else result.query, show, one, wanted)
    page_ms = 1000 * (time.perf_counter() - begin - searched)
    line.caption(search_line(len(library.videos), library.seconds, result.timings_ms, page_ms))
    if is_full(result, wanted) and not by_more:  # last: the moments do not wait for it
        covered = finding.coverage(query, only, wanted, stamp)
        heading.markdown(f"{_heading(result, one, wanted)} {coverage_text(covered)}.")


# ---------------------------------------------------------------- above the moments


def _proposal(query: str) -> None:
    """Offer what a sentence with "no", "or" or "then" may mean, one click away."""
    reading = None if is_compound(query) else proposed(query)
    if logic_words(query) and reading:
        st.button(
            f"Search: {plain(reading)}",
            key="proposal",
            on_click=ask,
            args=(reading,),
            kwargs={"key": _BOX},
        )


def _saving(query: str, only: Filter) -> None:
    """Offer to save the query with its filter under a name."""
    with st.popover("Save", key="saving"):
        st.text_input("Name", key="save-name", max_chars=100)
        st.button("Save this search", key="save", on_click=_save, args=(query, only))
        if said := st.session_state.pop("save-said", None):
            st.caption(plain(said))


def _save(query: str, only: Filter) -> None:
    name = str(st.session_state.get("save-name") or "").strip() or query[:_LONGEST_NAME]
    try:
        saved = shared().library.saved.add(name, query, only)
    except ScanonceError as error:
        st.session_state["save-said"] = str(error)
    else:
        st.session_state["save-said"] = f"Saved as {saved.name}."


def _filter_row(
    library: finding.SearchableLibrary,
) -> tuple[Filter, int, bool, tuple[finding.Upload, ...]]:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="filters"):
        folders = {"": "Any folder", **library.folders}
        folder = _choice("Folder", folders, key="folder", width=180)
        length = _choice("Length", _same(LENGTHS), key="length", width=130)
        added = _choice("Added", _same(ADDED), key="added", width=165)
        with st.popover("Labels, dates", key="more"):
            labels = _some("With all labels", library.labels, key="label")
            without = _some("Without labels", library.labels, key="without")
            first, last = _days()
            camera, near = _camera_and_place()
        uploads = _uploads()
        show = _choice("Show", SHOW, key="show", width=115, default=1)
        one = st.checkbox("one per video", key="one", bind="query-params", on_change=_first_page)
    shortest, longest = LENGTHS[length]
    only = Filter(
        folders=(Path(folder),) if folder else (),
        labels=frozenset(labels),
        without_labels=frozenset(without),
        recorded_after=first,
        recorded_before=last,
        indexed_after=added_since(added, date.today()),
        min_seconds=shortest,
        max_seconds=longest,
        camera=camera,
        near=near,
    )
    if words := filter_text(only):  # the other filters are visible
        st.caption(f"Only videos {plain(words)}")
    return only, show, one, uploads


def _camera_and_place() -> tuple[str | None, tuple[float, float, float] | None]:
    """Take a part of the name of a camera, and a place."""
    camera = st.text_input(
        "Camera", key="camera", bind="query-params", max_chars=MAX_CAMERA, on_change=_first_page
    )
    near = st.text_input(
        "Near (latitude, longitude, km)",
        key="near",
        bind="query-params",
        placeholder="48.86,2.35,10",
        on_change=_first_page,
    )
    try:
        return str(camera or "").strip() or None, place_of(near) if near else None
    except QueryError as error:
        st.caption(plain(str(error)))
        return str(camera or "").strip() or None, None


def _uploads() -> tuple[finding.Upload, ...]:
    """Take images and clips that the moments must look like; each can be taken away again where it was dropped."""
    with st.popover("Image, clip", key="by-example"):
        files = st.file_uploader(
            "Search by images or clips, alone or with the text",
            type=UPLOADED,
            accept_multiple_files=True,
            key="uploads",
            on_change=_first_page,
        )
    if files:
        st.caption(f"like {plain(', '.join(encodable(file.name) for file in files))}")
    return tuple(finding.Upload(file.name, file.getvalue()) for file in files)


def _some(heading: str, labels: Iterable[str], *, key: str) -> Sequence[str]:
    options = list(labels)  # not formatted: the address has the options as they are shown
    return st.multiselect(
        heading,
        options,
        key=key,
        bind="query-params",
        on_change=_first_page,
        placeholder="Choose" if options else "None yet: scanonce label PATH --add NAME",
        disabled=not options,
    )


def _days() -> tuple[date | None, date | None]:
    """Return the first and the last day of a recording, as far as they are chosen."""
    first, last = (
        st.date_input(
            f"Recorded {word}",
            None,
            EARLIEST,
            LATEST,
            key=word,
            bind="query-params",
            on_change=_first_page,
            help="The day on which the file was last changed",
        )
        for word in ("from", "until")
    )
    return first, last


def _choice(
    label: str, names: Mapping[Value, str], *, key: str, width: int, default: int = 0
) -> Value:
    """Show a choice of names and return the chosen value, which is also in the address."""
    values = list(names)
    chosen = st.selectbox(
        label,
        values,
        index=default,
        format_func=lambda value: names[value],
        key=key,
        bind="query-params",
        label_visibility="collapsed",
        on_change=_first_page,
        filter_mode=None,
        width=width,
    )
    return chosen if chosen in names else values[default]


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _other_query() -> None:
    forget_judged()
    _first_page()


def _first_page() -> None:
    st.session_state["page"] = 1


def _asked_page() -> int:
    """Return the page in the address, 1 if it is invalid: `st.pagination` reads it too late, below the search."""
    asked = str(st.session_state.get("page", st.query_params.get("page", "1")))
    return int(asked) if asked.isdecimal() and len(asked) < 6 else 1


def _next_step() -> None:
    st.page_link("library_page.py", label="Add a folder in the library")
    st.write("Or in a terminal:")
    st.code(f"scanonce index FOLDER --index {shared().layout.root}", language=None)


# ---------------------------------------------------------------- the moments


def _listed(result: SearchResult, one: bool) -> Sequence[Moment]:
    return one_per_video(result.moments) if one else result.moments


def _heading(result: SearchResult, one: bool, wanted: int) -> str:
    if result.num_videos == 0:
        return "No video passes these filters: choose another folder, length, date or label."
    return f"**{good_text(_listed(result, one), is_full=is_full(result, wanted))}**"


def _moments(result: SearchResult, query: str, show: int, one: bool, wanted: int) -> None:
    """Show a page of the moments, with the less certain ones folded after the first few.

    Args:
        result: the answer.
        query: its text, for the addresses of the cards; empty if it was asked by uploads alone.
        show: moments on a page.
        one: whether to show one moment of each video.
        wanted: moments that were asked for.
    """
    moments = _listed(result, one)
    is_unfolded = st.session_state.get("unfolded") == result.query
    shown = moments if is_unfolded else moments[: count_good(moments) + UNFOLDED]
    grid, more = st.container(), st.container()
    number = _page_number(
        num_pages(len(shown), show),
        # turning to one page more searches for more moments
        may_go_on=len(shown) == len(moments) and len(result.moments) >= wanted == finding.FIRST,
    )
    names = st.query_params.keys()
    st.session_state["listed"] = query, tuple(shown)
    st.session_state["results_address"] = {name: st.query_params.get_all(name) for name in names}
    with grid:
        picking_grid(
            page_of(shown, number, show),
            query,
            label=result.query,
            key="grid",
            on_judge=judge,
            divider=divider_on(shown, number, show),
            alike=not query,
        )
    if len(shown) < len(moments) and number * show >= len(shown):
        with more:
            label = f"Show {len(moments) - len(shown):,} more"
            st.button(label, key="unfold", on_click=_unfold, args=(result.query,))


def _page_number(pages: int, *, may_go_on: bool) -> int:
    pages += may_go_on
    if _asked_page() > pages:
        st.session_state["page"] = pages
    if pages == 1:
        return 1
    with st.container(horizontal=True, horizontal_alignment="center", key="paging"):
        return int(st.pagination(pages, key="page", bind="query-params"))


def _unfold(query: str) -> None:
    st.session_state["unfolded"] = query


if __name__ == "__main__":
    page()
