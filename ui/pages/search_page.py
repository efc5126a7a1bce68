"""The search page: a query, filters, and the moments found. The address has all of them but the picks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.search.answer import SearchResult
from scanonce.search.filters import EARLIEST, LATEST, Filter
from scanonce.storage.errors import ScanonceError
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Moment
from scanonce.ui.pages import finding
from scanonce.ui.pages.components import ask, query_box
from scanonce.ui.pages.exports_bar import picking_grid, picks_bar
from scanonce.ui.pages.session import shared
from scanonce.ui.views import (
    ADDED,
    LENGTHS,
    added_since,
    count_text,
    filter_text,
    hours_text,
    num_pages,
    one_per_video,
    page_of,
    plain,
    search_line,
)

Value = TypeVar("Value", str, int)

CLOSEST = 4
SHOW = {count: f"Show {count}" for count in (12, 24, 48, 96)}
EXAMPLES = {
    BUNDLED_NAME: (
        "a red car at night",
        "a blue boat on the sea",
        "two yellow trains in the desert",
    ),
    "": (
        "a person opens a door",
        "a car drives along a road at night",
        "people at a table, eating",
    ),
}


def page() -> None:
    """Draw the page."""
    begin = time.perf_counter()
    if not shared().exists:
        _no_index()
        return
    try:
        stamp = finding.index_stamp()
        library = finding.searchable_library(stamp)
        query = query_box("What does the moment show?", key="search-query", on_change=_first_page)
        only, show, one = _filter_row(library)
        if not query:
            _examples(library)
            return
        wanted = finding.MOST if _asked_page() * show > finding.FIRST else finding.FIRST
        searching = time.perf_counter()
        result = finding.search(query, only, wanted, stamp)
        searched = time.perf_counter() - searching
    except ScanonceError as error:
        st.error(plain(str(error)))
        return
    # the same elements whatever was found: otherwise the grid is made again, and its thumbnails flicker
    line, notes, grid = st.empty(), st.container(), st.container()
    if not result.moments:
        notes.write(_nothing_found(result))
    elif result.no_good_match:
        notes.markdown(f"No good match for “{plain(result.query)}” in these videos.")
        notes.caption("Closest, probably not what you mean:")
        with grid:
            _grid(result.moments[:CLOSEST], result.query, dim=True)
    else:
        _moments(grid, result, show, one, more=len(result.moments) >= wanted == finding.FIRST)
    picks_bar(library.videos)
    page_ms = 1000 * (time.perf_counter() - begin - searched)
    line.caption(search_line(len(library.videos), library.seconds, result.timings_ms, page_ms))


# ---------------------------------------------------------------- above the moments


def _filter_row(library: finding.SearchableLibrary) -> tuple[Filter, int, bool]:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="filters"):
        folders = {"": "Any folder", **library.folders}
        folder = _choice("Folder", folders, key="folder", width=180)
        length = _choice("Length", _same(LENGTHS), key="length", width=130)
        added = _choice("Added", _same(ADDED), key="added", width=165)
        with st.popover("Labels, dates", key="more"):
            labels = _some("With all labels", library.labels, key="label")
            without = _some("Without labels", library.labels, key="without")
            first, last = _days()
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
    )
    if words := filter_text(only):  # the other filters are visible
        st.caption(f"Only videos {plain(words)}")
    return only, show, one


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


def _first_page() -> None:
    st.session_state["page"] = 1


def _asked_page() -> int:
    """Return the page in the address, 1 if it is invalid: `st.pagination` reads it too late, below the search."""
    asked = str(st.session_state.get("page", st.query_params.get("page", "1")))
    return int(asked) if asked.isdecimal() and len(asked) < 6 else 1


def _examples(library: finding.SearchableLibrary) -> None:
    size = f"{count_text(len(library.videos), 'video')}, {hours_text(library.seconds)}"
    if not library.videos:
        st.write("Nothing is indexed yet, or nothing could be read.")
        st.page_link("library_page.py", label="Open the library")
        return
    st.caption(f"{size}. Say what a moment shows, for example:")
    encoder = read_manifest(shared().layout).encoder
    with st.container(horizontal=True, gap="small", key="examples"):
        for text in EXAMPLES.get(encoder, EXAMPLES[""]):
            st.button(text, key=f"example-{text}", on_click=partial(ask, text, key="search-query"))


def _no_index() -> None:
    st.write("There is no index yet: add a folder of videos, and each video is scanned once.")
    st.page_link("library_page.py", label="Add a folder in the library")
    st.write("Or in a terminal:")
    st.code(f"scanonce index FOLDER --index {shared().layout.root}", language=None)


# ---------------------------------------------------------------- the moments


def _moments(
    grid: DeltaGenerator, result: SearchResult, show: int, one: bool, *, more: bool
) -> None:
    moments = one_per_video(result.moments) if one else result.moments
    # one page more than there are moments: turning to it searches for more
    pages = num_pages(len(moments), show) + (1 if more else 0)
    if _asked_page() > pages:
        st.session_state["page"] = pages
    number = 1
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center", key="paging"):
            number = st.pagination(pages, key="page", bind="query-params")
    with grid:
        _grid(page_of(moments, number, show), result.query)


def _grid(moments: Sequence[Moment], query: str, *, dim: bool = False) -> None:
    names = st.query_params.keys()
    st.session_state["results_address"] = {name: st.query_params.get_all(name) for name in names}
    picking_grid(moments, query, key="grid", dim=dim)


def _nothing_found(result: SearchResult) -> str:
    if result.num_videos == 0:
        return "No video passes these filters: choose another folder, length, date or label."
    return "Nothing is indexed yet, or nothing could be read."


if __name__ == "__main__":
    page()
