"""The page of near-duplicates: each pair side by side with the spans that both have, and a label for one of them."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import streamlit as st

from scanonce.search.duplicates import Duplicate, Match
from scanonce.storage.errors import ScanonceError
from scanonce.storage.records import Span, Video
from scanonce.ui.pages import finding
from scanonce.ui.pages.addresses import moment_url, open_moment, thumb_url
from scanonce.ui.pages.components import no_callback
from scanonce.ui.pages.errors import errors_shown, index_is_missing
from scanonce.ui.pages.pictures import show_pictures
from scanonce.ui.pages.session import shared
from scanonce.ui.safe_text import shown_name
from scanonce.ui.views import count_text, num_pages, page_of, percent_text, plain, span_text

PAIRS = 12
"""Pairs on a page."""
MATCHES = 6
"""Spans of a pair that are shown."""
LABEL = "duplicate"


def page() -> None:
    """Draw the page."""
    with errors_shown():
        _draw()


def _draw() -> None:
    if index_is_missing():
        return
    stamp = finding.index_stamp()
    if st.session_state.get("compared") is None:
        st.write(
            "Videos that are copies or excerpts of each other: encoded again, scaled, trimmed, or with bars. "
            "Stored frames are compared, which takes a while in a large library."
        )
        st.button("Compare all videos", on_click=_compare, key="compare")
        return
    # labels change the index, but not its frames: pairs are found again only if videos came or went
    pairs = _pairs(stamp)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="found"):
        st.markdown(f"**{count_text(len(pairs), 'pair')} of near-duplicates**", width="content")
        st.markdown("Label", width="content")
        label = st.text_input(
            "Label",
            LABEL,
            key="duplicate-label",
            max_chars=100,
            label_visibility="collapsed",
            width=220,
        )
    if problem := st.session_state.pop("duplicate-problem", None):
        st.error(plain(problem))
    number = 1
    if len(pairs) > PAIRS:
        number = st.pagination(num_pages(len(pairs), PAIRS), key="pairs_page")
    labels = finding.labels_of(stamp, tuple(_ids(page_of(pairs, number, PAIRS))))
    for pair in page_of(pairs, number, PAIRS):
        _pair(pair, label or LABEL, labels)


def _compare() -> None:
    st.session_state["compared"] = True


def _ids(pairs: Sequence[Duplicate]) -> list[int]:
    return sorted({video.video_id for pair in pairs for video in (pair.first, pair.second)})


def _pairs(stamp: finding.Stamp) -> Sequence[Duplicate]:
    return finding.near_duplicates(frozenset(finding.searchable_library(stamp).videos))


def _pair(pair: Duplicate, label: str, labels: Mapping[int, Collection[str]]) -> None:
    key = f"{pair.first.video_id}-{pair.second.video_id}"
    first = pair.matches[0]
    sides = {"first": (pair.first, first.first), "second": (pair.second, first.second)}
    with st.container(border=True, key=f"pair-{key}"):
        opened = show_pictures(
            [_picture(side, *each) for side, each in sides.items()],
            key=f"pictures-{key}",
            on_open=no_callback,
        )
        if opened in sides:
            video, span = sides[opened]
            open_moment(video.video_id, span)
        for match in pair.matches[:MATCHES]:
            st.caption(plain(_match_text(match)))
        if len(pair.matches) > MATCHES:
            st.caption(f"and {len(pair.matches) - MATCHES} more spans")
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", key=f"do-{key}"
        ):
            for side, video in (("first", pair.first), ("second", pair.second)):
                has_it = label.casefold() in {each.casefold() for each in labels[video.video_id]}
                lesser = ", the shorter or smaller" if video is pair.lesser else ""
                st.button(
                    f"Label {plain(shown_name(video.path))}{lesser}",
                    key=f"label-{side}-{key}",
                    on_click=partial(_label, video, label),
                    disabled=has_it,
                    help=f"It has the label {label}" if has_it else None,
                )


def _picture(side: str, video: Video, span: Span) -> dict[str, str]:
    middle = (span.start_seconds + span.end_seconds) / 2
    return {
        "key": side,
        "href": moment_url(video.video_id, span),
        "src": thumb_url(video.video_id, middle),
        "title": shown_name(video.path),
        "note": span_text(span, tenths=False),
    }


def _match_text(match: Match) -> str:
    return (
        f"{span_text(match.first)} is the same as {span_text(match.second)}, "
        f"{percent_text(match.likeness)} alike"
    )


def _label(video: Video, label: str) -> None:
    try:
        shared().library.label([video.path], add=[label])
    except ScanonceError as error:
        st.session_state["duplicate-problem"] = str(error)


if __name__ == "__main__":
    page()
