"""The library page: what is indexed, what failed and why, and indexing itself, which goes on without the page."""

import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import streamlit as st
from rich.console import Console

from scanonce.indexer.scan import outermost
from scanonce.storage.catalog.entries import Failure, Library, RunCounts, Totals
from scanonce.storage.errors import ConfigError, IndexDirectoryError, ScanonceError
from scanonce.storage.records import Video
from scanonce.ui import jobs
from scanonce.ui.commands.status import read_status
from scanonce.ui.jobs import Job
from scanonce.ui.pages.components import encodable
from scanonce.ui.pages.finding import Stamp, index_stamp
from scanonce.ui.pages.library_table import (
    COLUMNS,
    Sorting,
    date_text,
    library_table,
    opening,
    table_row,
)
from scanonce.ui.pages.session import shared
from scanonce.ui.views import clock, count_text, hours_text, num_pages, page_of, plain, size_text

ROWS, FAILURES = 50, 10
"""Videos and failures of a page."""
LIVE_SECONDS, IDLE_SECONDS = 1, 10
"""Between two looks at a run, and at whether somebody has started one."""
REDRAW_SECONDS = 15.0
"""During a run the table is drawn anew after so many, where there is something new."""

ShownState = Literal["indexed", "partial", "failed", "offline"]
STATES: tuple[ShownState, ...] = ("indexed", "partial", "failed", "offline")

# ---------------------------------------------------------------- pure


def sorted_videos(by_name: Sequence[Video], sorting: Sorting) -> Sequence[Video]:
    """Videos in the order of a column, those that are alike in it by name, as they come."""
    if sorting.column == "name":
        return by_name[::-1] if sorting.descending else by_name
    keys: dict[str, Callable[[Video], Any]] = {
        "folder": lambda video: str(video.path.parent),
        "length": attrgetter("duration_seconds"),
        "state": lambda video: STATES.index(video.state),
        "added": lambda video: video.added_at.timestamp() if video.added_at else 0.0,
    }
    return sorted(by_name, key=keys[sorting.column], reverse=sorting.descending)


def name_order(video: Video) -> tuple[str, str]:
    """A key: by name whatever its case, then by path."""
    return video.path.name.casefold(), str(video.path)


def named(videos: Iterable[Video], text: str) -> list[Video]:
    """Videos with every word of ``text`` in their name; case does not matter."""
    words = text.casefold().split()
    return [video for video in videos if all(word in video.path.name.casefold() for word in words)]


def is_offline(video: Video) -> bool:
    """None of its files is there now."""
    return not any(path.exists() for path in video.paths)


def check_folder(text: str, index_dir: Path) -> Path:
    """A folder a person typed, absolute.

    Raises:
        ConfigError: it cannot be indexed; says why and what to do.
    """
    if not text.strip():
        raise ConfigError("no folder was given: type its whole path, such as /home/me/Videos.")
    folder = Path(text.strip()).expanduser()
    if not folder.is_absolute():
        raise ConfigError(
            f"{text.strip()} is not a whole path: begin with / (or ~ for the server's home)."
        )
    folder = Path(os.path.abspath(folder))
    try:
        if not folder.exists():
            raise ConfigError(
                f"{folder} does not exist on the machine this server runs on: check the path, or plug its disk in."
            )
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            raise ConfigError(f"{folder} cannot be read by the server: check its permissions.")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be looked at ({error.strerror or error}).") from error
    if folder == index_dir or index_dir in folder.parents:
        raise ConfigError(f"{folder} is inside the index itself: choose the folder of your videos.")
    return folder


def outcome_text(counts: RunCounts, num_offline: int = 0) -> str:
    """What a run did, in a line.

    >>> outcome_text(RunCounts(seen=4, indexed=2, failed=1, skipped=1, video_seconds=125))
    '2 videos indexed (0:02:05), 1 there already, 1 failed'
    """
    done = counts.indexed + counts.partial
    indexed = f"{count_text(done, 'video')} indexed ({clock(counts.video_seconds)})"
    parts = [indexed if done else "nothing new indexed"]
    if counts.partial:
        parts.append(f"{counts.partial:,} of them in part")
    if counts.skipped:
        parts.append(f"{counts.skipped:,} there already")
    if counts.forgotten:
        parts.append(f"{counts.forgotten:,} no longer there")
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if num_offline:
        parts.append(f"{num_offline:,} cannot be seen now and stay")
    return ", ".join(parts)


def progress_text(job: Job) -> str | None:
    """How far a run is, in a line without any name in it; None where that is not known yet."""
    if job.videos_total is None:
        return None
    parts = [f"{job.videos_done:,} of {count_text(job.videos_total, 'video')}", f"{job.share:.0%}"]
    if job.rate is not None:
        parts.append(f"{job.rate:,.0f} video-seconds per second")
    if job.seconds_left is not None and job.state == "running":
        parts.append(f"{clock(job.seconds_left)} left")
    return " · ".join(parts)


def totals_text(totals: Totals, status: Mapping[str, Any] | None) -> str:
    """The size of the library, and what an hour of it takes on disk."""
    parts = [
        f"{count_text(totals.searchable, 'video')}, {hours_text(totals.searchable_seconds)}",
    ]
    if status is not None:
        parts.append(count_text(status["vector_index"]["clips"], "clip"))
        hours = totals.searchable_seconds / 3600
        sizes = [
            f"{size_text(status[f'{kind}_bytes'] / hours)} {kind}s"
            for kind in ("feature", "anchor", "thumbnail")
            if hours and status[f"{kind}_bytes"]
        ]
        if sizes:
            parts.append("an hour takes " + ", ".join(sizes))
    return " · ".join(parts)


_ADVICE = (
    ("crashed on it", "Play it to the end in a player; if that works, transcode it to H.264."),
    ("gave no frame", "Check its disk, or transcode it to H.264, then retry."),
    (
        "of memory",
        "Transcode it to a smaller picture, then retry, or raise indexer.decode_memory_mb.",
    ),
    (
        "of processor time",
        "Transcode it to H.264, then retry, or raise indexer.decode_cpu_seconds.",
    ),
    ("cannot be read", "Check its permissions and its disk, then retry."),
    ("decoder", "Transcode it to H.264, then retry; if it plays elsewhere, please report it."),
)


def advice(reason: str) -> str | None:
    """The next step for a failure whose reason does not end with one.

    >>> advice("the file is empty: copy or download it again") is None
    True
    """
    if ": " in reason and not reason.startswith("cannot be read"):
        return None
    return next((step for words, step in _ADVICE if words in reason), "Retry it.")


# ---------------------------------------------------------------- read once for each state of the library


@dataclass(frozen=True, slots=True)
class Facts:
    """What the catalogue says."""

    videos: tuple[Video, ...]
    """By name."""
    libraries: tuple[Library, ...]
    failures: tuple[Failure, ...]
    totals: Totals


@st.cache_resource(max_entries=2, show_spinner=False)
def read_facts(stamp: Stamp) -> Facts:
    """All of it, read once for each ``stamp``; 0.2 s for 10,000 videos.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        return Facts(
            tuple(sorted(catalog.videos(), key=name_order)),
            tuple(catalog.libraries()),
            tuple(catalog.failures()),
            catalog.totals(),
        )


@st.cache_resource(max_entries=4, show_spinner=False)
def shown_videos(stamp: Stamp, text: str, state: str | None, sorting: Sorting) -> tuple[Video, ...]:
    """The videos of all pages of the table, but for the state ``offline``, which the disk knows."""
    videos = named(read_facts(stamp).videos, text)
    if state in ("indexed", "partial", "failed"):
        videos = [video for video in videos if video.state == state]
    return tuple(sorted_videos(videos, sorting))


@st.cache_data(max_entries=2, ttl=60, show_spinner="Looking which files are there")
def offline_ids(stamp: Stamp) -> frozenset[int]:
    """Videos whose files are not there; looks at every file, so it is asked for only by that filter."""
    return frozenset(video.video_id for video in read_facts(stamp).videos if is_offline(video))


@st.cache_data(max_entries=2, ttl=30, show_spinner=False)
def index_status(index_dir: Path) -> Mapping[str, Any] | None:
    """Sizes on disk, which take a look at every file of the index; None while it is being made."""
    try:
        return read_status(index_dir)
    except IndexDirectoryError:
        return None


# ---------------------------------------------------------------- the page


def page() -> None:
    """The page, from top to bottom."""
    try:
        job = jobs.read(shared().layout.root)
        stamp = index_stamp()
        facts = _facts(stamp)
        totals = st.empty()  # what follows keeps its place, and a popover stays open
        if facts is not None and facts.videos:
            totals.markdown(totals_text(facts.totals, index_status(shared().layout.root)))
        _above(facts, job)
        _tell_mistake()
        _watch(job)
        if facts is None or not (facts.videos or facts.failures):
            _empty(job)
            return
        busy = job is not None and job.alive
        if facts.failures:
            _failures(facts, busy=busy)
        if facts.videos:
            _table(stamp, facts, busy=busy)
        _forget_dialog(facts)
    except ScanonceError as error:
        st.error(plain(str(error)))


def _facts(stamp: Stamp) -> Facts | None:
    """None where there is no index yet, or its tables are just being made."""
    if not shared().exists or not shared().layout.catalog.exists():
        return None
    return read_facts(stamp)


def _empty(job: Job | None) -> None:
    if job is not None and job.alive:
        st.caption("The first videos appear here as soon as they are indexed.")
        return
    if job is not None and job.state == "done":
        st.write("No videos were found there.")
        st.caption("`indexer.extensions` in config.toml lists what counts as one.")
    else:
        st.write("There are no videos here yet. Add a folder: each video in it is scanned once.")
    st.caption("Or in a terminal:")
    st.code(f"scanonce index FOLDER --index {shared().layout.root}", language=None)


# ---------------------------------------------------------------- starting, pausing


def _do(action: Callable[[], object]) -> None:
    """For callbacks of buttons: what goes wrong is told by the page that is drawn next."""
    try:
        action()
    except ScanonceError as error:
        st.session_state["library_mistake"] = str(error)


def _tell_mistake() -> None:
    mistake = st.session_state.pop("library_mistake", None)
    if mistake:
        st.error(plain(mistake))


def _above(facts: Facts | None, job: Job | None) -> None:
    busy = job is not None and job.alive
    roots = outermost(library.root for library in facts.libraries) if facts else []
    present = [root for root in roots if root.exists()]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        # with another key it is another one, which is closed
        key = f"add_folder_{st.session_state.get('folders_added', 0)}"
        with st.popover("Add folder", type="secondary" if roots else "primary", key=key):
            _add_folder(busy=busy)
        st.button(
            "Index now",
            type="secondary" if (job is not None and job.resumable) or not roots else "primary",
            disabled=busy or not present,
            help="Looks for new, changed and removed videos in all folders. What is indexed is not decoded again.",
            on_click=_do,
            args=(lambda: jobs.start(shared().layout.root, present),),
        )
        if roots:
            st.text(_folders_text(roots, present))


def _folders_text(roots: Sequence[Path], present: Sequence[Path]) -> str:
    shown = [
        encodable(str(root)) + ("" if root in present else " (not there now)") for root in roots[:3]
    ]
    more = f" and {len(roots) - 3} more" if len(roots) > 3 else ""
    return ", ".join(shown) + more


def _add_folder(*, busy: bool) -> None:
    st.caption(
        "A folder on the machine this server runs on, with all folders in it. "
        "The videos stay where they are and are not changed."
    )
    with st.form("add_folder", border=False):
        st.text_input("Folder", key="new_folder", placeholder="/home/me/Videos")
        st.form_submit_button(
            "Add and index",
            type="primary",
            disabled=busy,
            on_click=_take_folder,
        )
    mistake = st.session_state.pop("folder_mistake", None)
    if mistake:
        st.error(plain(mistake))
    if busy:
        st.caption("Another folder can be added when this run has ended or is paused.")


def _take_folder() -> None:
    index_dir = shared().layout.root
    try:
        folder = check_folder(str(st.session_state.get("new_folder", "")), index_dir)
        jobs.start(index_dir, [folder])
    except ScanonceError as error:
        st.session_state["folder_mistake"] = str(error)
        return
    st.session_state["new_folder"] = ""
    st.session_state["folders_added"] = st.session_state.get("folders_added", 0) + 1


def _watch(job: Job | None) -> None:
    """The run, looked at again and again without the rest of the page."""
    seen = (job.pid_started, job.state) if job else None
    st.session_state["library_run"] = seen
    st.session_state["library_drawn"] = (datetime.now(), job.videos_done if job else 0)
    every = LIVE_SECONDS if job is not None and job.alive else IDLE_SECONDS
    st.fragment(_show_run, run_every=every)()


def _show_run() -> None:
    job = jobs.read(shared().layout.root)
    seen = (job.pid_started, job.state) if job else None
    if seen != st.session_state.get("library_run"):
        index_status.clear()
        st.rerun()
    if job is None:
        return
    if job.alive:
        drawn_at, videos_done = st.session_state["library_drawn"]
        is_old = (datetime.now() - drawn_at).total_seconds() > REDRAW_SECONDS
        if is_old and job.videos_done > videos_done:
            st.rerun()
        _show_progress(job)
    else:
        _show_outcome(job)


def _show_progress(job: Job) -> None:
    with st.container(border=True):
        st.progress(job.share, text=progress_text(job))
        doing = encodable(str(job.current or job.doing))
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                "Pausing" if job.state == "pausing" else "Pause",
                disabled=job.state == "pausing",
                help="Stops cleanly; what is indexed is kept.",
                on_click=_do,
                args=(lambda: jobs.pause(shared().layout.root),),
            )
            st.text("finishing what is begun" if job.state == "pausing" else doing)


_OUTCOMES = {
    "paused": "Paused.",
    "stopped": "Stopped in the terminal.",
    "done": "Last run:",
    "failed": "Indexing failed.",
    "died": "Indexing ended without finishing.",
}


def _show_outcome(job: Job) -> None:
    done = outcome_text(job.counts, job.num_offline) if job.counts else None
    when = date_text(job.updated_at)
    if job.state == "done":
        st.caption(f"{_OUTCOMES['done']} {done or 'nothing'} · {when}")
        return
    with st.container(border=True):
        if job.state in ("failed", "died"):
            st.error(f"{_OUTCOMES[job.state]} {plain(job.error or '')}")
        else:
            left = (job.videos_total or 0) - (_decoded(job.counts) if job.counts else 0)
            to_go = f", {count_text(left, 'video')} to go" if left > 0 else ""
            st.markdown(f"{_OUTCOMES[job.state]} {done}{to_go}" if done else _OUTCOMES[job.state])
        st.button(
            "Resume" if job.resumable else "Try again",
            type="primary",
            on_click=_do,
            args=(lambda: jobs.resume(shared().layout.root),),
        )
        if job.log_tail:
            with st.expander("Log"):
                st.code("\n".join(job.log_tail), language=None)


def _decoded(counts: RunCounts) -> int:
    return counts.indexed + counts.partial + counts.failed


# ---------------------------------------------------------------- failures


def _failures(facts: Facts, *, busy: bool) -> None:
    failures = facts.failures
    label = f"{count_text(len(failures), 'file')} could not be indexed"
    with st.expander(label, expanded=len(failures) <= 3):
        roots = [root for root in outermost(each.root for each in facts.libraries) if root.exists()]
        st.button(
            "Retry all",
            disabled=busy or not roots,
            on_click=_do,
            args=(lambda: jobs.start(shared().layout.root, roots, retry=True),),
        )
        number = 1
        if len(failures) > FAILURES:
            number = st.pagination(num_pages(len(failures), FAILURES), key="failures_page")
        for place, failure in enumerate(page_of(failures, number, FAILURES)):
            _failure(failure, place, busy=busy)


def _failure(failure: Failure, place: int, *, busy: bool) -> None:
    step = advice(failure.reason)
    path, reason, button = st.columns([5, 6, 1], vertical_alignment="center")
    path.text(encodable(str(failure.path)))
    said = f"The decoder said: {failure.detail}" if failure.detail else None
    reason.text(encodable(failure.reason) + (f". {step}" if step else ""), help=said)
    button.button(
        "Retry",
        key=f"retry_{place}",
        disabled=busy,
        on_click=_do,
        args=(lambda: _retry(failure.path),),
    )


def _retry(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"{path} is not there now: plug its disk in, or let “Index now” forget it."
        )
    jobs.start(shared().layout.root, [path], retry=True)


# ---------------------------------------------------------------- the table


def _table(stamp: Stamp, facts: Facts, *, busy: bool) -> None:
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
    count.caption(_count_text(len(videos), len(facts.videos)))
    if not videos:
        st.write("No video has such a name and state.")
        return
    pages = num_pages(len(videos), ROWS)
    place = st.container()
    number = 1
    if pages > 1:
        with st.container(horizontal=True, horizontal_alignment="center"):
            key = f"library_page_{st.session_state.get('library_orders', 0)}"
            number = st.pagination(pages, key=key)
    rows = page_of(videos, number, ROWS)
    with place:
        chosen = library_table(
            [table_row(video, offline=is_offline(video), busy=busy) for video in rows],
            key="library_table",
            label=_count_text(len(videos), len(facts.videos)),
            sorting=sorting,
            on_sort=_sort,
            on_forget=_ask_to_forget,
            on_retry=lambda: _do(_retry_chosen),
        )
    if chosen is not None:
        _open(facts, chosen)


def _count_text(shown: int, known: int) -> str:
    return count_text(known, "video") if shown == known else f"{shown:,} of {known:,} videos"


def _first_page() -> None:
    """Another order has pages of its own: what is chosen with another key begins anew."""
    st.session_state["library_orders"] = st.session_state.get("library_orders", 0) + 1


def _sort() -> None:
    column = st.session_state["library_table"].sort
    if column in COLUMNS:
        st.session_state["library_sorting"] = st.session_state["library_sorting"].clicked(column)
        _first_page()


def _find(facts: Facts, video_id: object) -> Video | None:
    return next((video for video in facts.videos if video.video_id == video_id), None)


def _open(facts: Facts, video_id: object) -> None:
    video = _find(facts, video_id)
    if video is not None:
        span = opening(video)
        st.switch_page(
            "moment_page.py",
            query_params={
                "v": str(video.video_id),
                "a": f"{span.start_seconds:.3f}",
                "b": f"{span.end_seconds:.3f}",
            },
        )


def _retry_chosen() -> None:
    video = _find(read_facts(index_stamp()), st.session_state["library_table"].retry)
    if video is not None:
        _retry(video.path)


# ---------------------------------------------------------------- forgetting


def _ask_to_forget() -> None:
    st.session_state["forgetting"] = st.session_state["library_table"].forget


def _keep() -> None:
    st.session_state.pop("forgetting", None)


def _forget_dialog(facts: Facts) -> None:
    video = _find(facts, st.session_state.get("forgetting"))
    if video is None:
        return

    @st.dialog("Forget this video?", on_dismiss=_keep)
    def ask() -> None:
        for path in video.paths:
            st.text(encodable(str(path)))
        st.write("It will no longer be found. The file itself is not touched.")
        if any(path.exists() for path in video.paths):
            st.caption("While it lies in a folder of the library, the next indexing adds it again.")
        with st.container(horizontal=True, gap="small"):
            forget = st.button("Forget", type="primary", key="forget")
            keep = st.button("Keep", key="keep")
        if forget:
            with st.spinner("Forgetting"):
                _do(lambda: forget_video(video))
        if forget or keep:
            _keep()
            st.rerun()

    ask()


def forget_video(video: Video) -> None:
    """Forgets every file of a video.

    Raises:
        IndexDirectoryError: a run goes on, which writes the index; or it cannot be written.
    """
    from scanonce.ui.commands.index import run_forget

    index_dir = shared().layout.root
    job = jobs.read(index_dir)
    if job is not None and job.alive:
        raise IndexDirectoryError(
            "the library is being indexed: wait until that has ended, or pause it."
        )
    for path in video.paths:
        run_forget(path, index_dir, shared().config.storage, Console(file=io.StringIO()))


if __name__ == "__main__":
    page()
