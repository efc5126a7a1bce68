"""Addresses of moments, thumbnails, frames and clips, and the names of moments in them."""

from urllib.parse import urlencode

import streamlit as st

from scanonce.storage.records import Moment, Span, Video, span_key
from scanonce.ui.safe_text import encodable

OPEN_SECONDS = 10.0
"""Length of the moment at which a video is opened, from its beginning."""


def opening(video: Video) -> Span:
    """Return the moment at which a video is opened if no other is named."""
    return Span(0.0, min(OPEN_SECONDS, video.duration_seconds))


def moment_parameters(video_id: int, span: Span, query: str = "") -> dict[str, str]:
    """Return the query parameters of the page of a moment."""
    values = {
        "v": str(video_id),
        "a": f"{span.start_seconds:.3f}",
        "b": f"{span.end_seconds:.3f}",
    }
    return {**values, "q": encodable(query)} if query else values


def moment_url(video_id: int, span: Span, query: str = "") -> str:
    """Return the address of the page of a moment, which can be bookmarked and shared."""
    return f"moment?{urlencode(moment_parameters(video_id, span, query))}"


def open_moment(video_id: int, span: Span, query: str = "") -> None:
    """Switch to the page of a moment; does not return."""
    st.switch_page("moment_page.py", query_params=moment_parameters(video_id, span, query))


def thumb_url(video_id: int, seconds: float) -> str:
    """Return the address of a video's thumbnail."""
    return f"/media/thumbs/{video_id}/{max(0, round(seconds * 1000))}.jpg"


def frames_url(video_id: int, span: Span) -> str:
    """Return the address of some stored thumbnails of a span, all in one answer."""
    start, end = span.millis
    return f"/media/moments/{video_id}/{start}-{end}.json"


def transcript_url(video_id: int, track: str, kind: str) -> str:
    """Return the address at which the lines of a track are downloaded, as ``srt``, ``vtt`` or ``txt``."""
    return f"/media/transcripts/{video_id}/{track}.{kind}"


def moment_key(moment: Moment) -> str:
    """Return the name of a moment between server and browser: ids and milliseconds.

    >>> from pathlib import Path
    >>> moment_key(Moment(3, Path("a.mp4"), Span(1.5, 2.0), 0.3, 0.8))
    '3-1500-2000'
    """
    return span_key(moment.video_id, moment.span)
