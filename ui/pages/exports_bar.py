"""Picked moments, kept across pages, and the buttons that export moments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from scanonce.storage.records import Moment, Span, Video
from scanonce.ui.export import Pick
from scanonce.ui.export_files import FORMATS, export_content, export_name, pick_of
from scanonce.ui.pages.addresses import clip_url, moment_key, open_moment
from scanonce.ui.pages.components import Picks, moment_grid
from scanonce.ui.pages.judged import Sign
from scanonce.ui.safe_text import shown_name
from scanonce.ui.server.routes import MAX_CLIP_SECONDS
from scanonce.ui.views import plain, span_text

_MOST_NAMES = 60


# ---------------------------------------------------------------- picked moments


@dataclass(frozen=True, slots=True)
class Picked:
    """A moment and the query that found it."""

    moment: Moment
    query: str


def picked() -> dict[str, Picked]:
    """Return the picked moments of this viewer by `moment_key`, in the order they were picked."""
    found: dict[str, Picked] = st.session_state.setdefault("picked", {})
    return found


def picking_grid(
    moments: Sequence[Moment],
    query: str,
    *,
    key: str,
    label: str | None = None,
    on_judge: Callable[[Sign, str], None] | None = None,
    divider: int | None = None,
    alike: bool = False,
) -> None:
    """Show moments as cards that can be picked; a click on a card opens the page of its moment.

    Args:
        moments: the moments of this page, in order.
        query: for the addresses of the cards.
        key: key of this grid among those of the page.
        label: label of picked moments in exports. Default: the query.
        on_judge: see `components.moment_grid`.
        divider: position of the first moment below the divider; None: there is no divider on this page.
        alike: whether their probabilities are likenesses.
    """
    opened = moment_grid(
        moments,
        query,
        key=key,
        picks=Picks(st.session_state.get("picks_version", 0), tuple(picked())),
        on_picks=partial(take_picks, shown_picks(moments, label or query)),
        on_judge=on_judge,
        divider=divider,
        alike=alike,
    )
    if opened is not None:
        open_moment(opened.video_id, opened.span, query)


def shown_picks(moments: Sequence[Moment], query: str) -> dict[str, Picked]:
    """Return the moments of a page, as `take_picks` needs them."""
    return {moment_key(moment): Picked(moment, query) for moment in moments}


def take_picks(shown: Mapping[str, Picked], picks: Picks) -> None:
    """Take over the picks of the browser: only moments that were shown, or picked before, can be picked."""
    known = {**shown, **picked()}
    st.session_state["picked"] = {key: known[key] for key in picks.keys if key in known}
    st.session_state["picks_version"] = picks.version


def clear_picks() -> None:
    """Unpick all moments."""
    st.session_state["picked"] = {}
    st.session_state["picks_version"] = st.session_state.get("picks_version", 0) + 1


# ---------------------------------------------------------------- the buttons


def export_buttons(picks: Sequence[Pick], stem: str, *, key: str) -> None:
    """Show a button for each format; the file is made when it is pressed."""
    for kind, description in FORMATS.items():
        st.download_button(
            kind,
            partial(export_content, kind, picks),
            file_name=export_name(kind, picks, stem),
            help=description,
            on_click="ignore",
            key=f"{key}-{kind}",
        )


def picks_bar(videos: Mapping[int, Video]) -> None:
    """Show one line for the picked moments: downloads of all, a link for each clip, and a button to clear them."""
    # videos that were forgotten since cannot be exported
    chosen = [each for each in picked().values() if each.moment.video_id in videos]
    if not chosen:
        return
    picks = [
        pick_of(videos[each.moment.video_id], each.moment.span, each.query, each.moment)
        for each in chosen
    ]
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="picks-bar"):
        st.markdown(f"**{len(chosen)} picked**", width="content")
        export_buttons(picks, "moments", key="picked")
        with st.popover("Clips"):
            for each in chosen[:_MOST_NAMES]:
                clip_link(each.moment.video_id, each.moment.span, _clip_label(each))
            if len(chosen) > _MOST_NAMES:
                st.caption(f"and {len(chosen) - _MOST_NAMES} more")
        st.button("Clear", on_click=clear_picks, type="tertiary", key="clear-picks")


def clip_link(video_id: int, span: Span, label: str) -> None:
    """Show a link that cuts a clip and downloads it, disabled if the clip is too long. ``label`` is Markdown."""
    too_long = span.duration_seconds > MAX_CLIP_SECONDS
    st.link_button(
        label,
        clip_url(video_id, span),
        disabled=too_long,
        help=f"A clip has at most {MAX_CLIP_SECONDS / 60:.0f} minutes" if too_long else None,
    )


def _clip_label(picked: Picked) -> str:
    name = plain(shown_name(picked.moment.path))
    return f"{name}  {span_text(picked.moment.span, tenths=False)}"
