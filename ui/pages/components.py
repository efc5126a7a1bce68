"""Parts of the pages that Streamlit lacks: the box for the query, the player with its strip, and the transcript.

They are components of `st.components.v2`. Their HTML, CSS and JavaScript in ``ui/pages/assets/`` are trusted code.
Text from outside (names, paths, queries) reaches them as data only, and they show it as text.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from scanonce.search.grades import GOOD
from scanonce.search.localise import Curve
from scanonce.storage.records import Line, MadeTrack, Moment, Span, Video
from scanonce.ui.pages.acts import acts_seen, fresh_acts
from scanonce.ui.pages.addresses import moment_url, transcript_url
from scanonce.ui.safe_text import encodable
from scanonce.ui.sentences import widened
from scanonce.ui.server.clips import MAX_CLIP_SECONDS
from scanonce.ui.server.playback import Playback
from scanonce.ui.subtitles import TRANSCRIPT_FORMATS
from scanonce.ui.views import (
    curve_levels,
    match_word,
    plain,
)

MAX_QUERY = 500
"""Maximum length of a query in characters; encoders read far fewer."""

_FOLDER = Path(__file__).with_name("assets")


def read_asset(*names: str) -> str:
    """Return the text of files in ``assets/``, one after another: a component has a single script and style sheet."""
    return "\n".join((_FOLDER / name).read_text("utf-8") for name in names)


def no_callback() -> None:
    """Do nothing: a trigger exists only if it has a callback, and the page reads its value."""


_player = st.components.v2.component(
    "scanonce_player",
    html=read_asset("player.html"),
    css=read_asset("player.css"),
    js=read_asset("elements.js", "times.js", "strip.js", "player.js"),
)


_transcript = st.components.v2.component(
    "scanonce_transcript",
    html=read_asset("transcript.html"),
    css=read_asset("transcript.css"),
    js=read_asset("elements.js", "transcript.js"),
)

_PAGE_STYLE = """<style>
.stMainBlockContainer { padding: 4.25rem 2.5rem 3rem; }
.stMainBlockContainer > [data-testid="stVerticalBlock"] { gap: 0.75rem; }
[data-testid="stLayoutWrapper"]:has(> .st-key-picks-bar) {
  position: sticky; bottom: 0; z-index: 5; padding: 0.5rem 0;
  background: light-dark(#ffffff, #14181b); /* as in .streamlit/config.toml */
}
[data-testid="stBaseButton-primary"] p { color: light-dark(#ffffff, #0c1417); }
[data-testid="stCaptionContainer"] { color: light-dark(#4a5359, #b4bdc2); opacity: 1; }
[data-testid="stCaptionContainer"] p { color: inherit; opacity: 1; }
@media (max-width: 640px) { .stMainBlockContainer { padding: 4rem 1rem 3rem; } }
</style>"""


def page_style() -> None:
    """Set the margins of a page, narrower than Streamlit's."""
    st.html(_PAGE_STYLE)


def page_title(what: str) -> None:
    """Set the title of the browser's tab: what the page shows, then the program."""
    st.set_page_config(page_title=f"{encodable(what)} - Scanonce")


# ---------------------------------------------------------------- the query


def query_box(label: str, *, key: str, on_change: Callable[[], None] | None = None) -> str:
    """Show the box for the query and return its text. The query is ``q`` in the address of every page that has one.

    Streamlit does not bind the box to the address, because `st.switch_page` may not set a bound parameter.

    Args:
        label: purpose of the box, also shown in it while it is empty.
        key: a different one for each page.
        on_change: called before the page runs with another query.
    """
    asked = st.query_params.get("q", "")
    if key not in st.session_state or st.session_state.get("asked") != asked:
        st.session_state[key] = asked[:MAX_QUERY]
    st.session_state["asked"] = asked

    def changed() -> None:
        ask(st.session_state[key] or "", key=key)
        if on_change is not None:
            on_change()

    text = st.text_input(
        label,
        key=key,
        type="search",
        label_visibility="collapsed",
        placeholder=label,
        max_chars=MAX_QUERY,
        on_change=changed,
    )
    return encodable(text or "").strip()


def ask(text: str, *, key: str) -> None:
    """Put a query into the box with this key, and into the address; for callbacks."""
    text = st.session_state[key] = st.session_state["asked"] = text.strip()
    if text:
        st.query_params["q"] = text
    else:
        st.query_params.pop("q", None)


def show_notes(notes: Iterable[str]) -> None:
    """Show the notes of an answer (`SearchResult.notes`) as quiet lines."""
    for note in notes:
        st.caption(plain(note))


# ---------------------------------------------------------------- the player


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of a picture of a video."""

    video_id: int
    seconds: float
    box: tuple[float, float, float, float]
    """Left, top, right and bottom as shares of the picture, 0 to 1."""


def player(
    video: Video,
    span: Span,
    source: Playback,
    *,
    opening: int,
    moments: Sequence[Moment],
    curve: Curve | None,
    is_calibrated: bool,
    talk: Sequence[Span],
    query: str,
    on_pick: Callable[[int, Span], None],
    key: str,
) -> tuple[Span, Crop | None]:
    """Show a player on a moment, the strip under it, and its in and out points.

    Args:
        video: the video to play.
        span: where playback starts and stops.
        source: what the player loads.
        opening: number of the opened moment. While it stays the same, the player is left alone.
        moments: the moments of the query in this video, in order of time.
        curve: the probability of the query over the video. None: the strip shows none.
        is_calibrated: whether the encoder of the index is: then the strip shows the line of a good match.
        talk: the sentences that are said in the video; empty: the cut cannot be widened to them.
        query: for the addresses of the moments and the caption.
        on_pick: called before the page runs again with each cut that was picked, and the id of its video: a person may
            be faster than the page, and pick what it showed before.
        key: key of this player.

    Returns:
        The cut between the in and out points, and the part of a picture that was just drawn, if any was.
    """
    duration = video.duration_seconds
    before = cut_of(getattr(st.session_state.get(key), "cut", None), opening, duration) or span
    found = _player(
        key=key,
        data={
            "opening": opening,
            "video": {
                "id": video.video_id,
                "duration": video.duration_seconds,
                "fps": video.info.fps if video.info else 0.0,
            },
            "source": {
                "url": source.url,
                "offset": source.offset_seconds,
                "state_url": source.state_url,
                "note": source.note,
            },
            "start": span.start_seconds,
            "end": span.end_seconds,
            "caption": _caption(query, curve, is_calibrated=is_calibrated),
            "levels": curve_levels(curve, video.duration_seconds) if curve else [],
            "moments": [
                {
                    "start": moment.span.start_seconds,
                    "end": moment.span.end_seconds,
                    "href": moment_url(video.video_id, moment.span, query),
                    "word": match_word(moment.probability),
                }
                for moment in moments
            ],
            "sentences": sentences_around(before, talk, duration) if talk else None,
            "frames": f"/media/frames/{video.video_id}/",
            "clips": f"/media/clips/{video.video_id}/",
            "longest": MAX_CLIP_SECONDS,
            # without a calibration nobody knows which value on the curve is a good match
            "line": round(255 * GOOD) if is_calibrated else None,
            "seen": acts_seen(key),
        },
        on_cut_change=no_callback,
        on_acts_change=partial(_take_picked, key, on_pick),
        on_crop_change=no_callback,
    )
    return cut_of(found.cut, opening, duration) or span, crop_of(found.crop, video)


def _caption(query: str, curve: Curve | None, *, is_calibrated: bool) -> str:
    if curve is None:
        return "no query: no curve"
    shown = f"probability of “{encodable(query)}”"
    return shown if is_calibrated else f"{shown}, not calibrated: no line of a good match"


def _take_picked(key: str, on_pick: Callable[[int, Span], None]) -> None:
    for act in fresh_acts(key):
        video_id, start, end = (act.get(name) for name in ("video", "start", "end"))
        if not isinstance(start, int | float) or not isinstance(end, int | float):
            continue
        if isinstance(video_id, int) and 0 <= start < end:
            on_pick(video_id, Span(float(start), float(end)))


def sentences_around(cut: Span, talk: Sequence[Span], duration_seconds: float) -> dict[str, Any]:
    """Return the data of a cut and of the whole sentences around it, within the video."""
    whole = widened(cut, talk)
    end = max(cut.end_seconds, min(whole.end_seconds, duration_seconds))
    return {"of": [cut.start_seconds, cut.end_seconds], "start": whole.start_seconds, "end": end}


def cut_of(value: object, opening: int, duration_seconds: float) -> Span | None:
    """Return the in and out points that a player sent; None if they are invalid or of another moment."""
    if not isinstance(value, Mapping) or value.get("opening") != opening:
        return None
    start, end = value.get("start"), value.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    if not 0 <= start < end <= duration_seconds + 1e-3:
        return None
    return Span(float(start), min(float(end), duration_seconds))


def crop_of(value: object, video: Video) -> Crop | None:
    """Return the part of a picture that a player sent; None if it is invalid or of another video."""
    if not isinstance(value, Mapping) or value.get("video") != video.video_id:
        return None
    numbers = [value.get(name) for name in ("seconds", "left", "top", "right", "bottom")]
    found = [float(each) for each in numbers if isinstance(each, int | float)]
    if len(found) < len(numbers):
        return None
    seconds, left, top, right, bottom = found
    if not 0 <= seconds <= video.duration_seconds:
        return None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        return None
    return Crop(video.video_id, seconds, (left, top, right, bottom))


# ---------------------------------------------------------------- the transcript


def transcript(video_id: int, lines: Mapping[MadeTrack, Sequence[Line]], *, key: str) -> None:
    """Show the lines of a video beside its player, which they follow and move.

    Args:
        video_id: the video.
        lines: by track, in order of time; the first track is shown first.
        key: key of this transcript.
    """
    _transcript(key=key, data=transcript_data(video_id, lines))


def transcript_data(video_id: int, lines: Mapping[MadeTrack, Sequence[Line]]) -> dict[str, Any]:
    """Return the data of a transcript."""
    rows = {
        track: [
            [line.start_seconds, line.end_seconds, encodable(line.text)]
            for line in sorted(own, key=lambda each: (each.start_seconds, each.end_seconds))
        ]
        for track, own in lines.items()
    }
    return {
        "video": video_id,
        "version": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "tracks": [
            {
                "name": track,
                "label": track.capitalize(),
                "lines": own,
                "downloads": [
                    {"label": kind.upper(), "href": transcript_url(video_id, track, kind)}
                    for kind in TRANSCRIPT_FORMATS
                ],
            }
            for track, own in rows.items()
        ],
    }
