"""The options by which `search`, `duplicates` and `saved add` choose videos."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.storage.errors import QueryError
from scanonce.ui.commands.options import absolute
from scanonce.ui.days import first_day, last_day

if TYPE_CHECKING:
    from scanonce.search.filters import Filter

FoldersOption = Annotated[
    list[Path] | None,
    typer.Option("--in", help="Only videos at or below this folder; several: any of them."),
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option("--label", help="Only videos with this label; several: all of them."),
]
WithoutLabelsOption = Annotated[
    list[str] | None, typer.Option("--exclude-label", help="Only videos without this label.")
]


def _first_day(text: str) -> date:
    return _day(first_day, text)


def _last_day(text: str) -> date:
    return _day(last_day, text)


def _day(read: Callable[[str, date], date], text: str) -> date:
    try:
        return read(text, date.today())
    except QueryError as error:
        raise typer.BadParameter(str(error)) from error


AfterOption = Annotated[
    date | None,
    typer.Option(
        parser=_first_day,
        metavar="DAY",
        help="Only videos recorded on this day or later: 2026-11-30, 2026-11, yesterday, 7 days.",
    ),
]
BeforeOption = Annotated[
    date | None,
    typer.Option(
        parser=_last_day, metavar="DAY", help="Only videos recorded on this day or earlier."
    ),
]
LongerOption = Annotated[
    float | None, typer.Option(min=0, help="Only videos of this many seconds or more.")
]
ShorterOption = Annotated[
    float | None, typer.Option(min=0, help="Only videos of less than this many seconds.")
]

CameraOption = Annotated[
    str | None,
    typer.Option("--camera", metavar="TEXT", help="Only videos of a camera with this in its name."),
]
NearOption = Annotated[
    str | None,
    typer.Option(
        "--near",
        metavar="LAT,LON,KM",
        help="Only videos recorded near a place: 48.86,2.35,10.",
    ),
]


def new_filter(
    folders: Sequence[Path] | None,
    labels: Sequence[str] | None,
    without_labels: Sequence[str] | None,
    after: date | None,
    before: date | None,
    longer: float | None,
    shorter: float | None,
    camera: str | None = None,
    near: str | None = None,
) -> "Filter":
    """Return the filter of these options.

    Raises:
        QueryError: they make no sense together.
    """
    from scanonce.search.filters import Filter, place_of

    return Filter(
        folders=tuple(absolute(folder) for folder in folders or ()),
        labels=frozenset(labels or ()),
        without_labels=frozenset(without_labels or ()),
        recorded_after=after,
        recorded_before=before,
        min_seconds=longer,
        max_seconds=shorter,
        camera=camera,
        near=None if near is None else place_of(near),
    )
