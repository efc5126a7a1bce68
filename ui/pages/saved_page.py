"""The page of saved searches: how many new matches each has, its answer, and a button to remove it."""

from functools import partial

import streamlit as st

from scanonce.search.result import SearchResult
from scanonce.search.saved import MOST_NEW, SavedSearch
from scanonce.storage.errors import ScanonceError
from scanonce.ui.pages import finding
from scanonce.ui.pages.components import show_notes
from scanonce.ui.pages.errors import errors_shown, index_is_missing
from scanonce.ui.pages.picking import picking_grid
from scanonce.ui.pages.session import shared
from scanonce.ui.views import date_text, divider_at, filter_text, good_text, plain

SHOWN = 24
"""Moments of the answer that are shown."""


def page() -> None:
    """Draw the page."""
    with errors_shown():
        _draw()


def _draw() -> None:
    if index_is_missing():
        return
    stamp = finding.index_stamp()
    rows = finding.saved_searches(stamp)
    if not rows:
        st.write("No search is saved yet. Search for something, then press Save above the moments.")
    for saved, num_new, problem in rows:
        _row(saved, num_new, problem)
    if failure := st.session_state.pop("saved-problem", None):
        st.error(plain(failure))
    answer = st.session_state.get("saved-answer")
    if answer is not None and answer[0] in {saved.name for saved, *_ in rows}:
        _answer(*answer)


def _row(saved: SavedSearch, num_new: int, problem: str | None) -> None:
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", key=f"saved-{saved.name}"
    ):
        more = " or more" if num_new >= MOST_NEW else ""
        st.markdown(f"**{plain(saved.name)}**", width="content")
        st.markdown(f"{num_new}{more} new" if num_new else "nothing new", width="content")
        only = filter_text(saved.only)
        facts = [saved.query, *([f"only videos {only}"] if only else [])]
        looked = date_text(saved.looked_at)
        facts.append(f"last looked {looked}" if looked else "never looked at")
        facts += [f"cannot be asked: {problem}"] if problem else []
        st.caption(plain(" \u00b7 ".join(facts)), width="stretch")
        st.button("Run", key=f"run-{saved.name}", on_click=partial(_run, saved.name))
        st.button(
            "Remove",
            key=f"remove-{saved.name}",
            on_click=partial(_remove, saved.name),
            type="tertiary",
        )


def _run(name: str) -> None:
    try:
        result = shared().library.saved.run(name, top=SHOWN)
    except ScanonceError as error:
        st.session_state["saved-problem"] = str(error)
    else:
        st.session_state["saved-answer"] = name, result


def _remove(name: str) -> None:
    try:
        shared().library.saved.remove(name)
    except ScanonceError as error:
        st.session_state["saved-problem"] = str(error)


def _answer(name: str, result: SearchResult) -> None:
    st.markdown(f"#### {plain(name)}")
    st.caption(good_text(result.moments))
    show_notes(result.notes)
    picking_grid(result.moments, result.query, key="saved-grid", divider=divider_at(result.moments))


if __name__ == "__main__":
    page()
