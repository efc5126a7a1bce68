"""The statement that selects videos by folder, times, length and labels."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import ColumnElement, Function, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from scanonce.storage.catalog.entries import HalfOpen
from scanonce.storage.catalog.facts import shown_by
from scanonce.storage.catalog.label_names import folded
from scanonce.storage.catalog.statements import below
from scanonce.storage.catalog.tables import FactsRow, FileRow, LabelRow, VideoRow

Value = TypeVar("Value")


def select_matching(
    under: Sequence[Path] = (),
    recorded_ns: HalfOpen[int] = (None, None),
    indexed: HalfOpen[datetime] = (None, None),
    seconds: HalfOpen[float] = (None, None),
    labels: Iterable[str] = (),
    without_labels: Iterable[str] = (),
    camera: str | None = None,
) -> Select[int]:
    """Return the statement behind `Catalog.matching_videos`."""
    file = select(FileRow.video_id)
    if recorded_ns != (None, None):
        recorded = func.coalesce(FactsRow.recorded_ns, FileRow.mtime_ns)
        file = file.outerjoin(FactsRow, FactsRow.video_id == FileRow.video_id).where(
            *_between(recorded, recorded_ns)
        )
    if under:
        file = file.where(or_(*(below(FileRow.path, root) for root in under)))
    statement = select(VideoRow.id).where(
        VideoRow.id.in_(file),
        *_between(VideoRow.indexed_at, indexed),
        *_between(VideoRow.duration_seconds, seconds),
    )
    if camera is not None:
        statement = statement.where(shown_by(camera))
    carries = select(LabelRow.video_id)
    for key in {folded(label) for label in labels}:
        statement = statement.where(VideoRow.id.in_(carries.where(LabelRow.folded == key)))
    if excluded := {folded(label) for label in without_labels}:
        excluding = carries.where(LabelRow.folded.in_(excluded))
        statement = statement.where(VideoRow.id.not_in(excluding))
    return statement.order_by(VideoRow.id)


def _between(
    column: InstrumentedAttribute[Value] | Function[Value], bounds: HalfOpen[Value]
) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a half-open range, none for an open end."""
    first, end = bounds
    if first is not None:
        yield column >= first
    if end is not None:
        yield column < end
