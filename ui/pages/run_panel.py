"""The part of the library page that starts, shows, pauses and resumes a run of the indexer."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import streamlit as st

from scanonce.storage.catalog.entries import RunCounts
from scanonce.ui import jobs
from scanonce.ui.jobs import Job
from scanonce.ui.pages.errors import errors_shown
from scanonce.ui.pages.finding import index_status
from scanonce.ui.pages.library_text import (
    check_folder,
    folders_text,
    progress_text,
    took_text,
)
from scanonce.ui.pages.session import shared
from scanonce.ui.reports import sentence
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import count_text, date_text, outcome_text, plain

LIVE_SECONDS, IDLE_SECONDS = 1, 10
"""How often the panel reads the state of a run, and how often it checks whether somebody has started one."""
REDRAW_SECONDS = 15.0
"""During a run the whole page is drawn again after this time, if videos have been indexed since."""


def attempt(action: Callable[[], object]) -> None:
    """Call a button's action; :func:`show_error` on the next run of the page shows what went wrong."""
    try:
        action()
    except Exception as error:
        st.session_state["library_error"] = sentence(error)


def show_error(key: str = "library_error") -> None:
    """Show the error of the last action, once."""
    error = st.session_state.pop(key, None)
    if error:
        st.error(plain(error))


# ---------------------------------------------------------------- starting


def start_buttons(roots: Sequence[Path], job: Job | None) -> None:
    """Show the buttons that add a folder and start a run, and the folders of the library."""
    busy = job is not None and job.alive
    present = [root for root in roots if root.exists()]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        # only a new key closes the popover after a folder was added
        key = f"add_folder_{st.session_state.get('folders_added', 0)}"
        with st.popover("Add folder", type="secondary" if roots else "primary", key=key):
            _add_folder(busy=busy)
        st.button(
            "Index now",
            type="secondary" if (job is not None and job.resumable) or not roots else "primary",
            disabled=busy or not present,
            help="Finds new, changed and removed videos in all folders. Videos already indexed are not decoded again.",
            on_click=attempt,
            args=(lambda: jobs.start(shared().layout.root, present),),
        )
        if roots:
            st.text(folders_text(roots, present))


def _add_folder(*, busy: bool) -> None:
    st.caption(
        "A folder on the machine this server runs on, with all folders in it. "
        "The videos stay in place and are not changed."
    )
    with st.form("add_folder", border=False):
        st.text_input("Folder", key="new_folder", placeholder="/home/me/Videos")
        st.form_submit_button(
            "Add and index",
            type="primary",
            disabled=busy,
            on_click=_take_folder,
        )
    show_error("folder_error")
    if busy:
        st.caption("Another folder can be added when this run has ended or is paused.")


def _take_folder() -> None:
    index_dir = shared().layout.root
    try:
        folder = check_folder(str(st.session_state.get("new_folder", "")), index_dir)
        jobs.start(index_dir, [folder])
    except Exception as error:
        st.session_state["folder_error"] = sentence(error)
        return
    st.session_state["new_folder"] = ""
    st.session_state["folders_added"] = st.session_state.get("folders_added", 0) + 1


# ---------------------------------------------------------------- the run


def watch_run(job: Job | None) -> None:
    """Show the run, updated by itself without the rest of the page."""
    st.session_state["library_run"] = _identity(job)
    st.session_state["library_drawn"] = (datetime.now(), job.videos_done if job else 0)
    every = LIVE_SECONDS if job is not None and job.alive else IDLE_SECONDS
    st.fragment(errors_shown()(_show_run), run_every=every)()


def _identity(job: Job | None) -> tuple[str, str] | None:
    return (job.pid_started, job.state) if job else None


def _show_run() -> None:
    job = jobs.read(shared().layout.root)
    if _identity(job) != st.session_state.get("library_run"):
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
                help="Stops cleanly. Videos indexed so far are kept.",
                on_click=attempt,
                args=(lambda: jobs.pause(shared().layout.root),),
            )
            st.text("finishing the current videos" if job.state == "pausing" else doing)


_OUTCOMES = {
    "paused": "Paused.",
    "stopped": "Stopped in the terminal.",
    "done": "Last run:",
    "failed": "Indexing failed.",
    "died": "Indexing ended without finishing.",
}


def _show_outcome(job: Job) -> None:
    done = None
    if job.counts:
        done = outcome_text(job.counts, job.num_offline, took_text(job, job.counts))
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
            on_click=attempt,
            args=(lambda: jobs.resume(shared().layout.root),),
        )
        if job.log_tail:
            with st.expander("Log"):
                st.code("\n".join(job.log_tail), language=None)


def _decoded(counts: RunCounts) -> int:
    return counts.indexed + counts.partial + counts.failed
