"""The table of the library page: Streamlit's own has neither links nor buttons.

It is a component of `st.components.v2`. Its CSS and JavaScript in ``ui/pages/assets/`` are trusted code. Names and
reasons come from files: they reach it as data only, and it shows them as text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import streamlit as st

from scanonce.storage.records import Video
from scanonce.ui.pages.addresses import moment_url, opening, thumb_url
from scanonce.ui.pages.components import no_callback, read_asset
from scanonce.ui.safe_text import encodable
from scanonce.ui.views import clock, date_text

ShownState = Literal["indexed", "partial", "failed", "offline"]
STATES: tuple[ShownState, ...] = ("indexed", "partial", "failed", "offline")

COLUMNS = {
    "name": "Name",
    "folder": "Folder",
    "length": "Length",
    "state": "State",
    "added": "Added",
}

_component = st.components.v2.component(
    "scanonce_library",
    html='<div id="frame"><table><caption></caption><thead></thead><tbody></tbody></table></div>',
    css=read_asset("library.css"),
    js=read_asset("elements.js", "library.js"),
)


# ---------------------------------------------------------------- order and filters


@dataclass(frozen=True, slots=True)
class Sorting:
    """The column by which videos are sorted, and the direction."""

    column: str = "name"
    descending: bool = False

    def clicked(self, column: str) -> "Sorting":
        """Return the order after a click on a heading: reversed, or another column in its usual direction."""
        if column == self.column:
            return Sorting(column, not self.descending)
        return Sorting(column, column in ("length", "added"))


def sorted_videos(by_name: Sequence[Video], sorting: Sorting) -> Sequence[Video]:
    """Return videos in the order of a column; those that are equal in it keep their order."""
    if sorting.column == "name":
        return by_name[::-1] if sorting.descending else by_name
    keys: dict[str, Callable[[Video], Any]] = {
        "folder": lambda video: str(video.path.parent),
        "length": attrgetter("duration_seconds"),
        "state": lambda video: STATES.index(video.state),
        "added": lambda video: video.added_at.timestamp() if video.added_at else 0.0,
    }
    return sorted(by_name, key=keys[sorting.column], reverse=sorting.descending)


def named(videos: Iterable[Video], text: str) -> list[Video]:
    """Return the videos with every word of ``text`` in their name, ignoring case."""
    words = text.casefold().split()
    return [video for video in videos if all(word in video.path.name.casefold() for word in words)]


def is_offline(video: Video) -> bool:
    """Return whether none of the video's files is present."""
    return not any(path.exists() for path in video.paths)


# ---------------------------------------------------------------- the table


def table_row(video: Video, *, offline: bool, busy: bool) -> dict[str, Any]:
    """Return the data of a video's row.

    Args:
        video: a video of the catalogue.
        offline: whether its file is offline.
        busy: whether a run is at work, so that nothing can be forgotten or retried.
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
        "note": "its file is offline" if offline else encodable(video.reason or ""),
        "added": date_text(video.added_at),
        "thumbnail": thumb_url(video.video_id, seconds / 2) if can_open else None,
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
    """Show rows under headings to sort by; return the id of the video a person wants to open, else None.

    Args:
        rows: from `table_row`, those of this page.
        key: key of this table. In the callbacks ``st.session_state[key]`` has ``sort`` (a column), ``forget`` or
            ``retry`` (the id of a video).
        label: caption for screen readers.
        sorting: the order of the rows.
        on_sort: called after a click on a heading.
        on_forget: called if a video is to be forgotten.
        on_retry: called if a video is to be tried again.
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
        on_open_change=no_callback,
    )
    return found.open if isinstance(found.open, int) else None
