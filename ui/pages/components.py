"""The parts of the pages that Streamlit lacks: a grid of moments, the player with its strip, and the transcript.

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

from scanonce.search.localise import Curve
from scanonce.storage.records import Line, MadeTrack, Moment, Reason, Span, Video
from scanonce.ui.pages.addresses import moment_key, moment_url, thumb_url, transcript_url
from scanonce.ui.pages.judged import SIGNS, Sign
from scanonce.ui.reasons import reason_pieces
from scanonce.ui.safe_text import encodable, shown_name
from scanonce.ui.sentences import widened
from scanonce.ui.server.playback import Playback
from scanonce.ui.subtitles import TRANSCRIPT_FORMATS
from scanonce.ui.views import (
    LESS_CERTAIN,
    clock,
    curve_levels,
    match_text,
    match_word,
    percent_text,
    plain,
    span_text,
    times_across,
)

MAX_QUERY = 500
"""Maximum length of a query in characters; encoders read far fewer."""

_FOLDER = Path(__file__).with_name("assets")


def read_asset(*names: str) -> str:
    """Return the text of files in ``assets/``, one after another: a component has a single script."""
    return "\n".join((_FOLDER / name).read_text("utf-8") for name in names)


def no_callback() -> None:
    """Do nothing: a trigger exists only if it has a callback, and the page reads its value."""


_grid = st.components.v2.component(
    "scanonce_grid",
    html='<ul class="grid"></ul>',
    css=read_asset("grid.css"),
    js=read_asset("elements.js", "grid.js"),
)
_player = st.components.v2.component(
    "scanonce_player",
    html=read_asset("player.html"),
    css=read_asset("player.css"),
    js=read_asset("elements.js", "player.js"),
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
@media (max-width: 640px) { .stMainBlockContainer { padding: 4rem 1rem 3rem; } }
</style>"""


def page_style() -> None:
    """Set the margins of a page, narrower than Streamlit's."""
    st.html(_PAGE_STYLE)


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


# ---------------------------------------------------------------- the grid


@dataclass(frozen=True, slots=True)
class Picks:
    """The picked moments, on all pages of results."""

    version: int
    """Grows with each change, so that an old answer does not undo a new click."""
    keys: tuple[str, ...]
    """See `moment_key`, in the order they were picked."""


def moment_card(moment: Moment, query: str, *, alike: bool = False) -> dict[str, Any]:
    """Return the data of a moment's card.

    Args:
        moment: the moment.
        query: for the address of its page.
        alike: whether its probability is a likeness (`SearchEngine.similar`).
    """
    percent = percent_text(moment.probability)
    name = shown_name(moment.path)
    return {
        "key": moment_key(moment),
        "href": moment_url(moment.video_id, moment.span, query),
        "name": name,
        "path": encodable(str(moment.path)),
        "span": span_text(moment.span, tenths=False),
        "word": match_word(moment.probability),
        "match": f"{percent} alike" if alike else match_text(moment.probability),
        "thumbnails": [
            {"src": thumb_url(moment.video_id, seconds), "alt": f"{name} at {clock(seconds)}"}
            for seconds in times_across(moment.span)
        ],
        "reasons": reason_chips(moment.reasons),
    }


def reason_chips(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    """Return the data of the chips that say why a moment is in an answer: its words, or its probability by images.

    A moment that was only seen has none: its match says the same.
    """
    if not any(reason.text for reason in reasons):
        return []
    return [
        {
            "channel": reason.channel,
            "value": "" if reason.text else percent_text(reason.value),
            "pieces": [[encodable(text), marked] for text, marked in reason_pieces(reason)],
        }
        for reason in reasons
    ]


def moment_grid(
    moments: Sequence[Moment],
    query: str,
    *,
    key: str,
    picks: Picks,
    on_picks: Callable[[Picks], None],
    on_judge: Callable[[Sign, str], None] | None = None,
    divider: int | None = None,
    alike: bool = False,
) -> Moment | None:
    """Show moments as cards with thumbnails; return the one a person wants to open, else None.

    Args:
        moments: the moments of this page, in order.
        query: for the addresses of the cards.
        key: key of this grid among those of the page.
        picks: the picked moments; their boxes are checked.
        on_picks: called before the page runs again if a person has picked or unpicked a moment.
        on_judge: called with "more" or "less" and the key of a moment if a person wants others like it, or not; None:
            the cards have no such buttons.
        divider: position of the first moment below the divider; None: there is no divider on this page.
        alike: whether their probabilities are likenesses.
    """
    cards = {moment_key(moment): moment for moment in moments}
    found = _grid(
        key=key,
        data={
            "cards": [moment_card(moment, query, alike=alike) for moment in cards.values()],
            "picks": list(picks.keys),
            "version": picks.version,
            "label": "moments",
            "divider": divider,
            "divider_text": LESS_CERTAIN,
            "can_judge": on_judge is not None,
        },
        on_picks_change=partial(_take_picks, key, on_picks),
        on_judge_change=partial(_take_judgement, key, tuple(cards), on_judge),
        on_open_change=no_callback,
    )
    return cards.get(str(found.open)) if found.open else None


def _take_picks(key: str, on_picks: Callable[[Picks], None]) -> None:
    value = st.session_state[key].picks
    if isinstance(value, Mapping) and isinstance(value.get("keys"), list):
        version = value.get("version")
        if isinstance(version, int):
            on_picks(Picks(version, tuple(str(each) for each in value["keys"])))


def _take_judgement(
    key: str, shown: Sequence[str], on_judge: Callable[[Sign, str], None] | None
) -> None:
    value = st.session_state[key].judge
    if on_judge is None or not isinstance(value, Mapping):
        return
    moment = str(value.get("key"))
    for sign in SIGNS:
        if value.get("sign") == sign and moment in shown:
            on_judge(sign, moment)


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
    talk: Sequence[Span],
    query: str,
    key: str,
) -> tuple[Span, Crop | None]:
    """Show a player on a moment, the strip under it, and its in and out points.

    Args:
        video: the video to play.
        span: where playback starts and stops.
        source: what the player loads.
        opening: number of the opened moment. While it stays the same, the player is left alone.
        moments: the moments of the query in this video, in order of time.
        curve: the relevance of the query over the video. None: the strip shows none.
        talk: the sentences that are said in the video; empty: the cut cannot be widened to them.
        query: for the addresses of the moments and the caption.
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
            "caption": f"relevance of “{encodable(query)}”" if curve else "no query: no relevance",
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
        },
        on_cut_change=no_callback,
        on_crop_change=no_callback,
    )
    return cut_of(found.cut, opening, duration) or span, crop_of(found.crop, video)


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
