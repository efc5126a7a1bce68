"""The statement that selects videos by folder, times, length and labels."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from scanonce.storage.catalog.entries import HalfOpen
from scanonce.storage.catalog.label_names import folded
from scanonce.storage.catalog.statements import below
from scanonce.storage.catalog.tables import FileRow, LabelRow, VideoRow

Value = TypeVar("Value")


def select_matching(
    under: Sequence[Path] = (),
    changed_ns: HalfOpen[int] = (None, None),
    indexed: HalfOpen[datetime] = (None, None),
    seconds: HalfOpen[float] = (None, None),
    labels: Iterable[str] = (),
    without_labels: Iterable[str] = (),
) -> Select[int]:
    """Return the statement behind `Catalog.matching_videos`."""
    file = select(FileRow.video_id).where(*_between(FileRow.mtime_ns, changed_ns))
    if under:
        file = file.where(or_(*(below(FileRow.path, root) for root in under)))
    statement = select(VideoRow.id).where(
        VideoRow.id.in_(file),
        *_between(VideoRow.indexed_at, indexed),
        *_between(VideoRow.duration_seconds, seconds),
    )
    carries = select(LabelRow.video_id)
    for key in {folded(label) for label in labels}:
        statement = statement.where(VideoRow.id.in_(carries.where(LabelRow.folded == key)))
    if excluded := {folded(label) for label in without_labels}:
        excluding = carries.where(LabelRow.folded.in_(excluded))
        statement = statement.where(VideoRow.id.not_in(excluding))
    return statement.order_by(VideoRow.id)


def _between(
    column: InstrumentedAttribute[Value], bounds: HalfOpen[Value]
) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a half-open range, none for an open end."""
    first, end = bounds
    if first is not None:
        yield column >= first
    if end is not None:
        yield column < end
