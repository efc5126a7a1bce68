"""Small pictures with links: the videos and searches of the start page, and the results beside the player."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from scanonce.storage.records import Moment
from scanonce.ui.pages.addresses import moment_key, moment_url, thumb_url
from scanonce.ui.pages.components import read_asset
from scanonce.ui.safe_text import shown_name
from scanonce.ui.views import clock, match_text

_pictures = st.components.v2.component(
    "scanonce_pictures",
    html='<ul class="pictures"></ul>',
    css=read_asset("pictures.css"),
    js=read_asset("elements.js", "pictures.js"),
)


def show_pictures(
    items: Sequence[Mapping[str, Any]],
    *,
    key: str,
    on_open: Callable[[], None],
    current: str | None = None,
) -> str | None:
    """Show pictures in a row; return the key of the one a person wants to open, else None.

    Args:
        items: see ``assets/pictures.js``.
        key: key of these pictures among the components of the page.
        on_open: called before the page runs again because one was opened.
        current: key of the item that is open; the keys n and shift-n open the next and the previous one. None: they
            are no list of results.
    """
    found = _pictures(
        key=key,
        data={"items": list(items), "label": key.replace("-", " "), "current": current},
        on_open_change=on_open,
    )
    return str(found.open) if found.open else None


def result_picture(moment: Moment, query: str) -> dict[str, Any]:
    """Return the data of a moment's picture: a stored thumbnail from its middle."""
    name = shown_name(moment.path)
    middle = moment.span.middle_seconds
    return {
        "key": moment_key(moment),
        "href": moment_url(moment.video_id, moment.span, query),
        "src": thumb_url(moment.video_id, middle),
        "title": name,
        "note": f"{clock(moment.span.start_seconds)} \u00b7 {match_text(moment.probability)}",
    }
