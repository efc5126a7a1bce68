"""The options by which `search`, `duplicates` and `saved add` choose videos."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanonce.ui.commands.options import absolute

if TYPE_CHECKING:
    from scanonce.search.filters import Filter

_DAY = "%Y-%m-%d"

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
AfterOption = Annotated[
    datetime | None,
    typer.Option(formats=[_DAY], help="Only files last modified on this day or later."),
]
BeforeOption = Annotated[
    datetime | None,
    typer.Option(formats=[_DAY], help="Only files last modified on this day or earlier."),
]
LongerOption = Annotated[
    float | None, typer.Option(min=0, help="Only videos of this many seconds or more.")
]
ShorterOption = Annotated[
    float | None, typer.Option(min=0, help="Only videos of less than this many seconds.")
]


def new_filter(
    folders: Sequence[Path] | None,
    labels: Sequence[str] | None,
    without_labels: Sequence[str] | None,
    after: datetime | None,
    before: datetime | None,
    longer: float | None,
    shorter: float | None,
) -> "Filter":
    """Return the filter of these options.

    Raises:
        QueryError: they make no sense together.
    """
    from scanonce.search.filters import Filter

    return Filter(
        folders=tuple(absolute(folder) for folder in folders or ()),
        labels=frozenset(labels or ()),
        without_labels=frozenset(without_labels or ()),
        recorded_after=after.date() if after else None,
        recorded_before=before.date() if before else None,
        min_seconds=longer,
        max_seconds=shorter,
    )
