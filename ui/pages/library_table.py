"""The table of the library page: Streamlit's own has neither links nor buttons.

It is a component of `st.components.v2`; its css and js lie in ``ui/pages/assets/`` and are trusted code. Names and
reasons come from files: they reach it as data only, and it shows them as text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from scanonce.storage.records import Span, Video
from scanonce.ui.pages.components import encodable
from scanonce.ui.pages.session import moment_url, thumb_url
from scanonce.ui.views import clock

COLUMNS = {
    "name": "Name",
    "folder": "Folder",
    "length": "Length",
    "state": "State",
    "added": "Added",
}
OPEN_SECONDS = 10.0
"""Of a video that is opened, the first so many are the moment."""

_FOLDER = Path(__file__).with_name("assets")

_component = st.components.v2.component(
    "scanonce_library",
    html='<div id="frame"><table><caption></caption><thead></thead><tbody></tbody></table></div>',
    css=(_FOLDER / "library.css").read_text("utf-8"),
    js=(_FOLDER / "library.js").read_text("utf-8"),
)


@dataclass(frozen=True, slots=True)
class Sorting:
    """By which column, and which way."""

    column: str = "name"
    descending: bool = False

    def clicked(self, column: str) -> "Sorting":
        """After a click on a heading: the other way, or another column its usual way round."""
        if column == self.column:
            return Sorting(column, not self.descending)
        return Sorting(column, column in ("length", "added"))


def opening(video: Video) -> Span:
    """The moment at which a video is opened."""
    return Span(0.0, min(OPEN_SECONDS, video.duration_seconds))


def date_text(when: datetime | None) -> str:
    """A time in the zone of the server."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M") if when else ""


def table_row(video: Video, *, offline: bool, busy: bool) -> dict[str, Any]:
    """What the table shows of a video.

    Args:
        video: of the catalogue.
        offline: its file is not there now.
        busy: a run goes on, so nothing can be forgotten or retried.
    """
    seconds = video.duration_seconds
    can_open = video.state != "failed"
    can_retry = video.state in ("failed", "partial") and not offline
    actions = [] if busy else ["retry", "forget"] if can_retry else ["forget"]
    return {
        "id": video.video_id,
        "href": moment_url(video.video_id, opening(video)) if can_open else None,
        "name": encodable(video.path.name),
        "folder": encodable(str(video.path.parent)),
        "length": clock(seconds) if can_open else "",
        "state": "offline" if offline else video.state,
        "note": "its file is not there now" if offline else encodable(video.reason or ""),
        "added": date_text(video.added_at),
        "picture": thumb_url(video.video_id, seconds / 2) if can_open else None,
        "actions": actions,
    }


def library_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str,
    label: str,
    sorting: Sorting,
    on_sort: Callable[[], None],
    on_forget: Callable[[], None],
    on_retry: Callable[[], None],
) -> int | None:
    """Rows with headings to sort by; the id of the video a person wants to open, else None.

    Args:
        rows: of `table_row`, those of this page.
        key: of this table. In the callbacks ``st.session_state[key]`` has ``sort`` (a column), ``forget`` or ``retry``
            (the id of a video).
        label: its caption for screen readers.
        sorting: as the rows are sorted.
        on_sort: a heading was clicked.
        on_forget: a video is to be forgotten.
        on_retry: a video is to be tried again.
    """
    found = _component(
        key=key,
        data={
            "columns": [{"key": key, "label": label} for key, label in COLUMNS.items()],
            "sort": sorting.column,
            "descending": sorting.descending,
            "rows": list(rows),
            "label": label,
        },
        on_sort_change=on_sort,
        on_forget_change=on_forget,
        on_retry_change=on_retry,
        on_open_change=_nothing,
    )
    return found.open if isinstance(found.open, int) else None


def _nothing() -> None:
    """A trigger needs a callback to be there; the page reads its value."""
