"""The parts of the pages that Streamlit has not: a grid of moments, and the player with its strip.

Both are components of `st.components.v2`; their html, css and js lie in ``ui/pages/assets/`` and are trusted code. What
comes from files (names, paths, queries) reaches them as data only, and they show it as text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from scanonce.search.localise import Curve
from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.pages.session import moment_url, thumb_url
from scanonce.ui.views import clock, curve_levels, picture_times, span_text, strength_word

MAX_QUERY = 500
"""Letters of a sentence; encoders read far fewer."""

_FOLDER = Path(__file__).with_name("assets")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


_grid = st.components.v2.component(
    "scanonce_grid", html='<ul class="grid"></ul>', css=_read("grid.css"), js=_read("grid.js")
)
_player = st.components.v2.component(
    "scanonce_player",
    html=_read("player.html"),
    css=_read("player.css"),
    js=_read("player.js"),
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
    """The margins of a page: pictures need the room."""
    st.html(_PAGE_STYLE)


# ---------------------------------------------------------------- the query


def query_box(label: str, *, key: str, on_change: Callable[[], None] | None = None) -> str:
    """The box for the sentence, which is ``q`` in the address of every page that has one.

    Not bound to the address by Streamlit: `st.switch_page` may not set what is bound.

    Args:
        label: what it is for, also shown in the empty box.
        key: another one for each page.
        on_change: is called before the page runs with another sentence.
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
    """Puts a sentence into the box with this key, and into the address; for callbacks."""
    text = st.session_state[key] = st.session_state["asked"] = text.strip()
    if text:
        st.query_params["q"] = text
    else:
        st.query_params.pop("q", None)


# ---------------------------------------------------------------- the grid


@dataclass(frozen=True, slots=True)
class Picks:
    """What is picked, on all pages of results."""

    version: int
    """One more with each change, so that an old answer does not undo a new click."""
    keys: tuple[str, ...]
    """See `moment_key`, in the order they were picked."""


def moment_key(moment: Moment) -> str:
    """What names a moment between the page and the browser: ids and milliseconds.

    >>> moment_key(Moment(3, Path("a.mp4"), Span(1.5, 2.0), 0.3))
    '3-1500-2000'
    """
    start, end = span_millis(moment.span)
    return f"{moment.video_id}-{start}-{end}"


def span_millis(span: Span) -> tuple[int, int]:
    """A span in whole milliseconds, as addresses carry it."""
    return round(1000 * span.start_seconds), round(1000 * span.end_seconds)


def moment_card(moment: Moment, query: str, *, dim: bool = False) -> dict[str, Any]:
    """What the grid shows of a moment."""
    name = shown_name(moment.path)
    return {
        "key": moment_key(moment),
        "href": moment_url(moment.video_id, moment.span, encodable(query)),
        "name": name,
        "path": encodable(str(moment.path)),
        "span": span_text(moment.span, tenths=False),
        "word": strength_word(round(moment.strength, 2)),
        "strength": f"{moment.strength:.2f}",
        "dim": dim,
        "pictures": [
            {"src": thumb_url(moment.video_id, seconds), "alt": f"{name} at {clock(seconds)}"}
            for seconds in picture_times(moment.span)
        ],
    }


def moment_grid(
    moments: Sequence[Moment],
    query: str,
    *,
    key: str,
    picks: Picks,
    on_picks: Callable[[Picks], None],
    dim: bool = False,
) -> Moment | None:
    """Moments as cards with pictures; the one a person wants to open, else None.

    Args:
        moments: those of this page, in order.
        query: for the addresses of the cards.
        key: of this grid among those of the page.
        picks: what is picked; boxes of these are checked.
        on_picks: is called before the page runs again where a person has picked or unpicked.
        dim: show them as what was probably not meant.
    """
    cards = {moment_key(moment): moment for moment in moments}
    found = _grid(
        key=key,
        data={
            "cards": [moment_card(moment, query, dim=dim) for moment in cards.values()],
            "picks": list(picks.keys),
            "version": picks.version,
            "label": "moments",
        },
        on_picks_change=partial(_take_picks, key, on_picks),
        on_open_change=_nothing,
    )
    return cards.get(str(found.open)) if found.open else None


def _take_picks(key: str, on_picks: Callable[[Picks], None]) -> None:
    value = st.session_state[key].picks
    if isinstance(value, Mapping) and isinstance(value.get("keys"), list):
        version = value.get("version")
        if isinstance(version, int):
            on_picks(Picks(version, tuple(str(each) for each in value["keys"])))


def _nothing() -> None:
    """A trigger needs a callback to be there; the page reads its value."""


# ---------------------------------------------------------------- the player


@dataclass(frozen=True, slots=True)
class Source:
    """What the player loads."""

    url: str
    offset_seconds: float = 0.0
    """Where the player's clock is at the first frame."""
    state_url: str | None = None
    """Tells how far a proxy is."""
    note: str | None = None
    """Shown under the video."""


def player(
    video: Video,
    span: Span,
    source: Source,
    *,
    opening: int,
    moments: Sequence[Moment],
    curve: Curve | None,
    query: str,
    key: str,
) -> Span:
    """A player on a moment, with the strip under it and its in and out points; the cut they give.

    Args:
        video: what is played.
        span: where it opens and stops.
        source: what is loaded.
        opening: another number for another moment; for the same one the player is left alone.
        moments: those of the query in this video, in order of time.
        curve: the relevance of the query over the video; no strip of it where None.
        query: for the addresses of the moments and the caption.
        key: of this player.
    """
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
                    "href": moment_url(video.video_id, moment.span, encodable(query)),
                    "word": strength_word(moment.strength),
                }
                for moment in moments
            ],
            "frames": f"/media/frames/{video.video_id}/",
        },
        on_cut_change=_nothing,
    )
    return cut_of(found.cut, opening, video.duration_seconds) or span


def cut_of(value: object, opening: int, duration_seconds: float) -> Span | None:
    """The in and out points a player sent; None where they are of another moment or make no sense."""
    if not isinstance(value, Mapping) or value.get("opening") != opening:
        return None
    start, end = value.get("start"), value.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    if not 0 <= start < end <= duration_seconds + 1e-3:
        return None
    return Span(float(start), min(float(end), duration_seconds))


# ---------------------------------------------------------------- names


def encodable(text: str) -> str:
    """A text that can be sent: names of files may be any bytes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shown_name(path: Path) -> str:
    """The name of a file as it is shown."""
    return encodable(path.name)
