"""The library page: the indexed videos, the failures with their reasons, and runs of the indexer.

A run is a process of its own and goes on without the page.
"""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from scanonce.indexer.scan import outermost
from scanonce.storage.catalog.entries import Failure
from scanonce.storage.errors import ConfigError, IndexDirectoryError
from scanonce.storage.records import Video
from scanonce.ui import jobs
from scanonce.ui.jobs import Job
from scanonce.ui.pages.addresses import open_moment, opening
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.finding import (
    CatalogContents,
    Stamp,
    catalog_contents,
    index_stamp,
    index_status,
)
from scanonce.ui.pages.library_table import (
    COLUMNS,
    STATES,
    Sorting,
    is_offline,
    library_table,
    named,
    sorted_videos,
    table_row,
)
from scanonce.ui.pages.library_text import advice, totals_text
from scanonce.ui.pages.run_panel import attempt, show_error, start_buttons, watch_run
from scanonce.ui.pages.session import shared
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import count_text, num_pages, page_of

ROWS, FAILURES = 50, 10
"""Number of videos and of failures on a page."""


@st.cache_resource(max_entries=4, show_spinner=False)
def shown_videos(stamp: Stamp, text: str, state: str | None, sorting: Sorting) -> tuple[Video, ...]:
    """Return the videos of all pages of the table. ``offline`` filters nothing here: it is not in the catalogue."""
    videos = named(catalog_contents(stamp).videos, text)
    if state in ("indexed", "partial", "failed"):
        videos = [video for video in videos if video.state == state]
    return tuple(sorted_videos(videos, sorting))


@st.cache_data(max_entries=2, ttl=60, show_spinner="Checking which files are present")
def offline_ids(stamp: Stamp) -> frozenset[int]:
    """Return the ids of offline videos. It checks every file, so only the filter ``offline`` asks for it."""
    return frozenset(
        video.video_id for video in catalog_contents(stamp).videos if is_offline(video)
    )


def page() -> None:
    """Draw the page."""
    with errors_shown():
        job = jobs.read(shared().layout.root)
        stamp = index_stamp()
        contents = _contents(stamp)
        totals = (
            st.empty()
        )  # keeps the elements below at their positions, so that a popover stays open
        if contents is not None and contents.videos:
            totals.markdown(_totals(contents))
        start_buttons(_roots(contents) if contents else [], job)
        show_error()
        watch_run(job)
        if contents is None or not (contents.videos or contents.failures):
            _empty(job)
            return
        busy = job is not None and job.alive
        if contents.failures:
            _failures(contents, busy=busy)
        if contents.videos:
            _table(stamp, contents, busy=busy)
        _forget_dialog(contents)


def _contents(stamp: Stamp) -> CatalogContents | None:
    """Return the catalogue; None if there is no index yet, or its tables are just being made."""
    if not shared().exists or not shared().layout.catalog.exists():
        return None
    return catalog_contents(stamp)


def _totals(contents: CatalogContents) -> str:
    try:
        status = index_status(shared().layout.root)
    except IndexDirectoryError:  # it is just being made
        status = None
    return totals_text(contents.totals, status)


def _roots(contents: CatalogContents) -> list[Path]:
    return outermost(library.root for library in contents.libraries)


def _empty(job: Job | None) -> None:
    if job is not None and job.alive:
        st.caption("The first videos appear here as soon as they are indexed.")
        return
    if job is not None and job.state == "done":
        st.write("No videos were found there.")
        st.caption("`indexer.extensions` in config.toml lists the extensions of video files.")
    else:
        st.write("There are no videos here yet. Add a folder: each video in it is scanned once.")
    st.caption("Or in a terminal:")
    st.code(f"scanonce index FOLDER --index {shared().layout.root}", language=None)


# ---------------------------------------------------------------- failures


def _failures(contents: CatalogContents, *, busy: bool) -> None:
    failures = contents.failures
    label = f"{count_text(len(failures), 'file')} could not be indexed"
    with st.expander(label, expanded=len(failures) <= 3):
        roots = [root for root in _roots(contents) if root.exists()]
        st.button(
            "Retry all",
            disabled=busy or not roots,
            on_click=attempt,
            args=(lambda: jobs.start(shared().layout.root, roots, retry=True),),
        )
        number = 1
        if len(failures) > FAILURES:
            number = st.pagination(num_pages(len(failures), FAILURES), key="failures_page")
        for position, failure in enumerate(page_of(failures, number, FAILURES)):
            _failure(failure, position, busy=busy)


def _failure(failure: Failure, position: int, *, busy: bool) -> None:
    step = advice(failure.reason)
    path, reason, button = st.columns([5, 6, 1], vertical_alignment="center")
    path.text(encodable(str(failure.path)))
    detail = f"Message of the decoder: {failure.detail}" if failure.detail else None
    reason.text(encodable(failure.reason) + (f". {step}" if step else ""), help=detail)
    button.button(
        "Retry",
        key=f"retry_{position}",
        disabled=busy,
        on_click=attempt,
        args=(lambda: _retry(failure.path),),
    )


def _retry(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"{path} is not there now: plug its disk in, or let “Index now” forget it."
        )
    jobs.start(shared().layout.root, [path], retry=True)


# ---------------------------------------------------------------- the table


def _table(stamp: Stamp, contents: CatalogContents, *, busy: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        text = st.text_input(
            "Name",
            key="library_name",
            placeholder="Words of the name",
            label_visibility="collapsed",
            type="search",
            bind="query-params",
            on_change=_first_page,
            width=260,
        )
        state = st.segmented_control(
            "State",
            STATES,
            key="library_state",
            label_visibility="collapsed",
            bind="query-params",
            on_change=_first_page,
        )
        count = st.container(width="content")
    sorting = st.session_state.setdefault("library_sorting", Sorting())
    videos: Sequence[Video] = shown_videos(stamp, text or "", state, sorting)
    if state == "offline":
        offline = offline_ids(stamp)
        videos = [video for video in videos if video.video_id in offline]
    count.caption(_count_text(len(videos), len(contents.videos)))
    if not videos:
        st.write("No video has such a name and state.")
        return
    pages = num_pages(len(videos), ROWS)
    table = st.container()
    number = 1
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center"):
            key = f"library_page_{st.session_state.get('library_orders', 0)}"
            number = st.pagination(pages, key=key)
    rows = page_of(videos, number, ROWS)
    with table:
        chosen = library_table(
            [table_row(video, offline=is_offline(video), busy=busy) for video in rows],
            key="library_table",
            label=_count_text(len(videos), len(contents.videos)),
            sorting=sorting,
            on_sort=_sort,
            on_forget=_ask_to_forget,
            on_retry=lambda: attempt(_retry_chosen),
        )
    video = _find(contents, chosen)
    if video is not None:
        open_moment(video.video_id, opening(video))


def _count_text(shown: int, known: int) -> str:
    return count_text(known, "video") if shown == known else f"{shown:,} of {known:,} videos"


def _first_page() -> None:
    """Go back to the first page of the table: a pagination with a new key starts there."""
    st.session_state["library_orders"] = st.session_state.get("library_orders", 0) + 1


def _sort() -> None:
    column = st.session_state["library_table"].sort
    if column in COLUMNS:
        st.session_state["library_sorting"] = st.session_state["library_sorting"].clicked(column)
        _first_page()


def _find(contents: CatalogContents, video_id: object) -> Video | None:
    return next((video for video in contents.videos if video.video_id == video_id), None)


def _retry_chosen() -> None:
    video = _find(catalog_contents(index_stamp()), st.session_state["library_table"].retry)
    if video is not None:
        _retry(video.path)


# ---------------------------------------------------------------- forgetting


def _ask_to_forget() -> None:
    st.session_state["forgetting"] = st.session_state["library_table"].forget


def _keep() -> None:
    st.session_state.pop("forgetting", None)


def _forget_dialog(contents: CatalogContents) -> None:
    video = _find(contents, st.session_state.get("forgetting"))
    if video is None:
        return

    @st.dialog("Forget this video?", on_dismiss=_keep)
    @errors_shown()
    def ask() -> None:
        for path in video.paths:
            st.text(encodable(str(path)))
        st.write("It will no longer be found. The file itself is not touched.")
        if any(path.exists() for path in video.paths):
            st.caption(
                "As long as the file is in a folder of the library, the next run adds it again."
            )
        with st.container(horizontal=True, gap="small"):
            forget = st.button("Forget", type="primary", key="forget")
            keep = st.button("Keep", key="keep")
        if forget:
            with st.spinner("Forgetting"):
                attempt(lambda: forget_video(video))
        if forget or keep:
            _keep()
            st.rerun()

    ask()


def forget_video(video: Video) -> None:
    """Forget every file of a video.

    Raises:
        IndexDirectoryError: a run is at work and writes the index; or the index cannot be written.
    """
    index_dir = shared().layout.root
    job = jobs.read(index_dir)
    if job is not None and job.alive:
        raise IndexDirectoryError(
            "the library is being indexed: wait until that has ended, or pause it."
        )
    shared().config.library(index_dir).forget(video.paths)


if __name__ == "__main__":
    page()
