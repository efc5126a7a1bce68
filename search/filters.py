"""Which videos a search looks in: a `Filter`, and what it comes to as ids of videos and as masks over an index.

    only = Filter(folders=(Path("/films/2024"),), labels=frozenset({"holiday"}), min_seconds=30.0)
    engine.search("a red car", within=only)

A mask goes into the search itself, where it decides what is looked at: few passing clips are all scored, more of them
take more probes (`storage.vectors.flat`). Filtering what an unfiltered search had found would lose the answer.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import HalfOpen
from scanonce.storage.catalog.labels import folded, normal_label
from scanonce.storage.errors import QueryError
from scanonce.storage.vectors.library import LibraryIndex
from scanonce.storage.vectors.rows import Mask

MOST_TERMS = 100
"""Folders of a filter, and labels: each is a term of the catalogue's query, which takes some hundreds."""

EARLIEST, LATEST = date(1900, 1, 1), date(2200, 1, 1)
"""Days a filter may name; nanoseconds since 1970 end in 2262."""

_KEPT = 4  # filters whose masks are kept: a page asks with one again and again; a byte a clip each


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which videos a search looks in: those of which all of this is true. The default lets all pass.

    Raises:
        QueryError: something of it makes no sense; the message says what is allowed.
    """

    videos: frozenset[int] | None = None
    """Ids; any by default. Those that are gone are no error."""
    folders: tuple[Path, ...] = ()
    """Absolute. A file of the video lies at or below one of them; anywhere where there is none."""
    labels: frozenset[str] = frozenset()
    """It carries all of these. Upper and lower case are the same; see `storage.catalog.labels`."""
    without_labels: frozenset[str] = frozenset()
    """It carries none of these."""
    recorded_after: date | None = None
    """The file was changed last on this day or later, in the local time zone. The catalogue knows no other date of a
    recording: what a camera wrote keeps its own, a file that was edited has that of the edit. Where the video has
    several files, one that lies in ``folders`` counts."""
    recorded_before: date | None = None
    """The file was changed last on this day or earlier."""
    indexed_after: date | None = None
    """The video was indexed last on this day or later, in the local time zone."""
    indexed_before: date | None = None
    """The video was indexed last on this day or earlier."""
    min_seconds: float | None = None
    """Length of the video at least, seconds."""
    max_seconds: float | None = None
    """Length of the video, seconds; this itself is too long."""

    def __post_init__(self) -> None:
        for name in ("labels", "without_labels"):
            object.__setattr__(self, name, frozenset(map(normal_label, getattr(self, name))))
        self._check_folders()
        self._check_labels()
        _check_days("recorded", self.recorded_after, self.recorded_before)
        _check_days("indexed", self.indexed_after, self.indexed_before)
        _check_lengths(self.min_seconds, self.max_seconds)

    @property
    def passes_all(self) -> bool:
        """Whether nothing is filtered out."""
        return self == Filter()

    def matching(self, catalog: Catalog) -> NDArray[np.int64]:
        """Ids of the searchable videos that pass, rising.

        Cost with 100,000 files: 5 to 30 ms where some thousand pass, up to .2 s where most do.

        Raises:
            IndexDirectoryError: the catalogue cannot be read.
        """
        changed = _days(self.recorded_after, self.recorded_before)
        ids = catalog.matching_videos(
            under=self.folders,
            changed_ns=(_nanoseconds(changed[0]), _nanoseconds(changed[1])),
            indexed=_days(self.indexed_after, self.indexed_before),
            seconds=(self.min_seconds, self.max_seconds),
            labels=self.labels,
            without_labels=self.without_labels,
        )
        if self.videos is None:
            return ids
        return ids[np.isin(ids, np.fromiter(self.videos, np.int64))]

    def _check_folders(self) -> None:
        if len(self.folders) > MOST_TERMS:
            raise QueryError(
                f"a filter takes up to {MOST_TERMS} folders, got {len(self.folders)}; "
                "name one that holds them"
            )
        for folder in self.folders:
            if not folder.is_absolute():
                raise QueryError(f"a filter takes whole paths of folders, got {str(folder)!r}")

    def _check_labels(self) -> None:
        both = {folded(each) for each in self.labels} & {
            folded(each) for each in self.without_labels
        }
        if both:
            raise QueryError(
                f"the label {min(both)!r} is asked for and ruled out: no video can pass; drop one"
            )
        count = len(self.labels) + len(self.without_labels)
        if count > MOST_TERMS:
            raise QueryError(f"a filter takes up to {MOST_TERMS} labels, got {count}")


Within: TypeAlias = Filter | Collection[int] | None
"""Where to look: a filter, ids of videos, or everywhere."""


def as_filter(within: Within) -> Filter | None:
    """The filter that says the same; None where everything passes."""
    if within is None or isinstance(within, Filter):
        return None if within is None or within.passes_all else within
    return Filter(videos=frozenset(int(video_id) for video_id in within))  # NumPy ints too


@dataclass(frozen=True, eq=False, slots=True)
class Passing:
    """What a filter comes to in a library as it is."""

    ids: NDArray[np.int64]
    """Of the videos, rising."""
    clips: Mask
    """Over the rows of the vector index."""


class FilterMasks:
    """What filters come to, the last few of them kept. Make another one when the catalogue has changed."""

    def __init__(
        self,
        catalog: Catalog,
        live_videos: Collection[int] | NDArray[np.int64],
        clips: LibraryIndex,
    ) -> None:
        """For a library that was opened for these videos; what was committed since does not pass."""
        self._catalog = catalog
        array = isinstance(live_videos, np.ndarray)
        self._live = np.asarray(live_videos if array else list(live_videos), np.int64)
        self._clips = clips
        self._kept = lru_cache(maxsize=_KEPT)(self._resolve)

    def passing(self, within: Within) -> Passing | None:
        """What passes; None where everything does.

        Kept for the last few filters; anew it is `Filter.matching` (nothing for ids alone) and .2 ms for a
        million clips.
        """
        only = as_filter(within)
        return None if only is None else self._kept(only)

    def _resolve(self, only: Filter) -> Passing:
        if only == Filter(videos=only.videos):  # the catalogue knows nothing more
            ids = np.sort(np.fromiter(only.videos or (), np.int64))
        else:
            ids = only.matching(self._catalog)
        ids = ids[np.isin(ids, self._live)]
        return Passing(ids, self._clips.mask(ids))


# ---------------------------------------------------------------- days and lengths


def _days(first: date | None, last: date | None) -> HalfOpen[datetime]:
    """From the midnight that begins the first day to the one that ends the last, local time."""
    return (
        None if first is None else _midnight(first),
        None if last is None else _midnight(last + timedelta(days=1)),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min).astimezone()  # the zone as it was on that day


def _nanoseconds(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp()) * 10**9


def _check_days(what: str, first: date | None, last: date | None) -> None:
    for name, day in ((f"{what}_after", first), (f"{what}_before", last)):
        if day is None:
            continue
        if isinstance(day, datetime):
            raise QueryError(f"{name} is a day, such as {day.date()}; got the time {day}")
        if not EARLIEST <= day <= LATEST:
            raise QueryError(f"{name} is a day from {EARLIEST} to {LATEST}; got {day}")
    if first is not None and last is not None and first > last:
        raise QueryError(
            f"{what}_after {first} is later than {what}_before {last}: no video can pass; swap them"
        )


def _check_lengths(shortest: float | None, longest: float | None) -> None:
    for name, seconds in (("min_seconds", shortest), ("max_seconds", longest)):
        if seconds is not None and not 0.0 <= seconds < float("inf"):
            raise QueryError(f"{name} is a number of seconds, 0 or more; got {seconds}")
    if shortest is not None and longest is not None and shortest >= longest:
        raise QueryError(
            f"min_seconds {shortest:g} is not below max_seconds {longest:g}: no video can pass"
        )
