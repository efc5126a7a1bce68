"""What the search page shows before there is a query: suggestions, the newest videos and the last searches."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from scanonce.storage.records import Moment, Video
from scanonce.ui.pages import finding
from scanonce.ui.pages.addresses import moment_url, open_moment, opening, thumb_url
from scanonce.ui.pages.components import ask, no_callback
from scanonce.ui.pages.pictures import show_pictures
from scanonce.ui.pages.session import shared
from scanonce.ui.safe_text import encodable, shown_name
from scanonce.ui.track_text import next_track_command
from scanonce.ui.views import clock, count_text, hours_text, match_text

NEWEST = 6
"""Number of new videos that are shown."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def start(library: finding.SearchableLibrary, stamp: finding.Stamp, *, box: str) -> None:
    """Show what to begin with. The suggestions come last: the first ones wait for the encoder.

    Args:
        library: the videos, at least one.
        stamp: of the index.
        box: key of the box for the query.

    Raises:
        ScanonceError: the encoder or the index cannot be read.
    """
    size = f"{count_text(len(library.videos), 'video')}, {hours_text(library.seconds)}"
    line, examples = st.empty(), st.container(horizontal=True, gap="small", key="examples")
    line.caption(f"{size}. Say what a moment shows.")
    if not finding.is_read_for_words(stamp):
        st.caption(f"Nothing is read for words yet: {next_track_command(['said'])}")
    _newest(library.videos)
    _last_searches(library.videos, box)
    texts = finding.suggestions(stamp)
    if texts:
        line.caption(f"{size}. Say what a moment shows, for example:")
    with examples:
        for text in texts:
            st.button(text, key=f"example-{text}", on_click=partial(ask, text, key=box))


def newest(videos: Iterable[Video]) -> list[Video]:
    """Return the videos that were indexed last, newest first."""
    found = sorted(videos, key=lambda each: (each.added_at or _LONG_AGO, each.video_id))
    return found[: -NEWEST - 1 : -1]


def _newest(videos: Mapping[int, Video]) -> None:
    st.markdown("#### Newest videos")
    shown = newest(videos.values())
    opened = show_pictures(
        [video_picture(video) for video in shown], key="newest-videos", on_open=no_callback
    )
    if opened is not None:
        video = next((each for each in shown if str(each.video_id) == opened), None)
        if video is not None:
            open_moment(video.video_id, opening(video))


def _last_searches(videos: Mapping[int, Video], box: str) -> None:
    # videos that were forgotten since have no picture
    past = {
        query: moment for query, moment in shared().last_searches() if moment.video_id in videos
    }
    if not past:
        return

    def again() -> None:
        query = st.session_state["last-searches"].open
        if query in past:
            ask(query, key=box)

    st.markdown("#### Last searches")
    pictures = [search_picture(query, moment) for query, moment in past.items()]
    show_pictures(pictures, key="last-searches", on_open=again)


def video_picture(video: Video) -> dict[str, Any]:
    """Return the data of a video's picture: a stored thumbnail from its middle."""
    name = shown_name(video.path)
    return {
        "key": str(video.video_id),
        "href": moment_url(video.video_id, opening(video)),
        "src": thumb_url(video.video_id, video.duration_seconds / 2),
        "title": name,
        "note": clock(video.duration_seconds),
    }


def search_picture(query: str, moment: Moment) -> dict[str, Any]:
    """Return the data of a search's picture: a stored thumbnail from the middle of its first moment."""
    middle = (moment.span.start_seconds + moment.span.end_seconds) / 2
    return {
        "key": query,
        "href": f"?{urlencode({'q': encodable(query)})}",
        "src": thumb_url(moment.video_id, middle),
        "title": query,
        "note": match_text(moment.probability),
    }
