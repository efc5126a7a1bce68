"""Selects: the moments that people have picked for a cut, in order, kept with the index.

    selects = SelectsFile(layout)
    selects.change(lambda kept: added(kept, Select(7, Span(61.5, 70.0), "night.mp4")))
    selects.read()[0].key            # "7-61500-70000"

They are one small file that is written whole. A pick changes nothing that is searched, and so no search is asked again.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.files import write_whole
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span, span_key
from scanonce.storage.untrusted import DamagedFile, read_json

MOST_SELECTS = 1_000
LONGEST_TEXT = 500
"""Characters of a name, a note or a query; what is longer is cut off."""

_writing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Select:
    """A picked moment."""

    video_id: int
    span: Span
    """In and out, as trimmed when it was picked."""
    name: str
    """For people; at first the name of the file."""
    note: str = ""
    query: str = ""
    """What found it; empty: nothing was asked."""
    probability: float | None = None
    """See `Moment.probability`; None: no query found it."""
    score: float | None = None
    """See `Moment.score`."""

    @property
    def key(self) -> str:
        """Video, in and out in milliseconds: no two selects have the same."""
        return span_key(self.video_id, self.span)


Selects = tuple[Select, ...]
"""In the order of the cut."""


# ---------------------------------------------------------------- what people do with them


def added(selects: Selects, new: Select) -> Selects:
    """Add a select at the end; one that is there already, or is one too many, changes nothing."""
    if len(selects) >= MOST_SELECTS or any(each.key == new.key for each in selects):
        return selects
    return (*selects, _short(new))


def removed(selects: Selects, key: str) -> Selects:
    """Remove a select."""
    return tuple(each for each in selects if each.key != key)


def moved(selects: Selects, key: str, position: int) -> Selects:
    """Move a select to a position from 0 on; positions beyond an end are that end."""
    others = removed(selects, key)
    found = [each for each in selects if each.key == key]
    place = min(max(position, 0), len(others))
    return (*others[:place], *found, *others[place:])


def renamed(selects: Selects, key: str, name: str) -> Selects:
    """Give a select another name; an empty name changes nothing."""
    if not name.strip():
        return selects
    return tuple(_short(replace(each, name=name)) if each.key == key else each for each in selects)


def noted(selects: Selects, key: str, note: str) -> Selects:
    """Give a select a note, which may be empty."""
    return tuple(_short(replace(each, note=note)) if each.key == key else each for each in selects)


def _short(select: Select) -> Select:
    name, note, query = (
        " ".join(text.split())[:LONGEST_TEXT] for text in (select.name, select.note, select.query)
    )
    return replace(select, name=name, note=note, query=query)


# ---------------------------------------------------------------- the file


class SelectsFile:
    """The selects of an index. Threads may share it; processes that write it at the same time may lose a change."""

    def __init__(self, layout: IndexLayout) -> None:
        """Use the index at ``layout``; nothing is read."""
        self._path = layout.selects

    def read(self) -> Selects:
        """Return the selects; none if there is no file.

        Raises:
            IndexDirectoryError: the file is damaged or cannot be read.
        """
        try:
            return _selects_of(read_json(self._path))
        except FileNotFoundError:
            return ()
        except (OSError, DamagedFile, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IndexDirectoryError(
                f"the selects {self._path} cannot be read ({error}). Remove the file to begin anew, or take it from "
                "a backup."
            ) from error

    def change(self, do: Callable[[Selects], Selects]) -> Selects:
        """Replace the selects by what ``do`` makes of them, and return those.

        Raises:
            IndexDirectoryError: see `read`; or the file cannot be written, and the selects stay as they were.
        """
        with _writing:
            before = self.read()
            after = do(before)
            if after != before:
                content = json.dumps({"selects": [_row(each) for each in after]}, indent=1) + "\n"
                write_whole(self._path, lambda file: file.write(content.encode("utf-8", "replace")))
            return after


def _row(select: Select) -> dict[str, Any]:
    return {
        "video_id": select.video_id,
        "start_seconds": select.span.start_seconds,
        "end_seconds": select.span.end_seconds,
        "name": select.name,
        "note": select.note,
        "query": select.query,
        "probability": select.probability,
        "score": select.score,
    }


def _selects_of(values: dict[str, Any]) -> Selects:
    rows: Sequence[dict[str, Any]] = values["selects"]
    if len(rows) > MOST_SELECTS:
        raise ValueError(f"it has {len(rows)} selects, more than {MOST_SELECTS}")
    found: Selects = ()
    for row in rows:
        start, end = float(row["start_seconds"]), float(row["end_seconds"])
        if not (math.isfinite(end) and 0 <= start < end):
            raise ValueError(f"a select goes from {start} to {end} s")
        new = Select(
            int(row["video_id"]),
            Span(start, end),
            str(row["name"]),
            str(row["note"]),
            str(row["query"]),
            _number(row["probability"]),
            _number(row["score"]),
        )
        found = added(found, new)
    return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
