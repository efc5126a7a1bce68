"""Filters of a search: a `Filter`, and the videos and clips of a library that pass it.

    only = Filter(folders=(Path("/films/2024"),), labels=frozenset({"holiday"}), min_seconds=30.0)
    engine.search("a red car", within=only)

The mask of a filter is applied inside the vector search: if few clips pass, all of them are scored; if more do, the
search probes more cells (`storage.vectors.ivfpq`). Filtering the result of an unfiltered search would lose answers.
"""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from scanonce.storage.catalog.label_names import folded, normal_label
from scanonce.storage.errors import QueryError

if TYPE_CHECKING:  # the command line makes a filter without a catalogue; these are slow to import
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import TypeAdapter

    from scanonce.storage.catalog.catalog import Catalog
    from scanonce.storage.catalog.entries import HalfOpen
    from scanonce.storage.vectors.library import LibraryIndex
    from scanonce.storage.vectors.rows import Mask

MAX_TERMS = 100
"""Most folders, and most labels, of a filter. Each is a term of an SQL query, and SQLite allows some hundreds."""

MAX_CAMERA = 100
"""Most characters of the camera of a filter."""

MAX_KM = 20_100
"""Half of the way around the earth."""

EARLIEST, LATEST = date(1900, 1, 1), date(2200, 1, 1)
"""First and last day of a filter; 64-bit nanoseconds since 1970 end in 2262."""

_NUM_CACHED = 4
"""Filters whose masks are kept, since a page searches with the same one repeatedly. A mask takes a byte per clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Conditions on the videos to search; a video passes if it meets all of them. The default passes every video.

    Raises:
        QueryError: a condition makes no sense; the message says what is allowed.
    """

    videos: frozenset[int] | None = None
    """Ids of the videos; None for any. Unknown ids are ignored."""
    folders: tuple[Path, ...] = ()
    """Absolute paths. A file of the video is at or below one of them; () for any."""
    labels: frozenset[str] = frozenset()
    """The video has all of these labels. Case is ignored; see `storage.catalog.labels`."""
    without_labels: frozenset[str] = frozenset()
    """The video has none of these labels."""
    recorded_after: date | None = None
    """Recorded on this day or later, in the local time zone (`storage.facts`). If neither file nor name states when,
    the last change of the file counts; if a video has several files, that of those in ``folders``."""
    recorded_before: date | None = None
    """Recorded on this day or earlier."""
    indexed_after: date | None = None
    """The video was last indexed on this day or later, in the local time zone."""
    indexed_before: date | None = None
    """The video was last indexed on this day or earlier."""
    min_seconds: float | None = None
    """Least length of the video, seconds, inclusive."""
    max_seconds: float | None = None
    """Greatest length of the video, seconds, exclusive."""
    camera: str | None = None
    """Make and model of the camera contain this text; case is ignored."""
    near: tuple[float, float, float] | None = None
    """Latitude and longitude in degrees, and a distance in km: recorded at most so far from there."""

    def __post_init__(self) -> None:
        for name in ("labels", "without_labels"):
            object.__setattr__(self, name, frozenset(map(normal_label, getattr(self, name))))
        self._check_folders()
        self._check_labels()
        _check_days("recorded", self.recorded_after, self.recorded_before)
        _check_days("indexed", self.indexed_after, self.indexed_before)
        _check_lengths(self.min_seconds, self.max_seconds)
        _check_camera(self.camera)
        if self.near is not None:
            object.__setattr__(self, "near", checked_place(self.near))

    @property
    def passes_all(self) -> bool:
        """Whether every video passes."""
        return self == Filter()

    def matching(self, catalog: "Catalog") -> "NDArray[np.int64]":
        """Return the ids of the searchable videos that pass, rising.

        With 100,000 files this takes 5 to 30 ms if some thousands pass, up to 0.2 s if most do.

        Raises:
            IndexDirectoryError: the catalogue cannot be read.
        """
        import numpy as np

        recorded = _days(self.recorded_after, self.recorded_before)
        ids = catalog.matching_videos(
            under=self.folders,
            recorded_ns=(_nanoseconds(recorded[0]), _nanoseconds(recorded[1])),
            indexed=_days(self.indexed_after, self.indexed_before),
            seconds=(self.min_seconds, self.max_seconds),
            labels=self.labels,
            without_labels=self.without_labels,
            camera=self.camera,
            near=self.near,
        )
        if self.videos is None:
            return ids
        return ids[np.isin(ids, np.fromiter(self.videos, np.int64))]

    def resolved(self, catalog: "Catalog") -> Self:
        """Return the filter with its folders as the catalogue has them, see `storage.catalog.known`.

        Raises:
            QueryError: the catalogue has no file in one of the folders, or one of the labels is not in use; the message
                names the nearest that is.
        """
        _check_known(self.labels | self.without_labels, catalog)
        folders = (each for folder in self.folders for each in _known_folders(folder, catalog))
        return replace(self, folders=tuple(dict.fromkeys(folders)))

    def _check_folders(self) -> None:
        if len(self.folders) > MAX_TERMS:
            raise QueryError(
                f"a filter takes up to {MAX_TERMS} folders, got {len(self.folders)}; "
                "name a folder that holds them"
            )
        for folder in self.folders:
            if not folder.is_absolute():
                raise QueryError(f"a filter takes absolute paths of folders, got {str(folder)!r}")

    def _check_labels(self) -> None:
        both = {folded(each) for each in self.labels} & {
            folded(each) for each in self.without_labels
        }
        if both:
            raise QueryError(
                f"the label {min(both)!r} is both required and excluded: no video can pass; drop one"
            )
        count = len(self.labels) + len(self.without_labels)
        if count > MAX_TERMS:
            raise QueryError(f"a filter takes up to {MAX_TERMS} labels, got {count}")


def filter_json(only: Filter) -> dict[str, Any]:
    """Return the fields of a filter by name, without those that filter nothing; `filter_of` reads it again.

    >>> filter_json(Filter(labels=frozenset({"b", "a"}), min_seconds=30.0))
    {'labels': ['a', 'b'], 'min_seconds': 30.0}
    """
    values = {each.name: getattr(only, each.name) for each in fields(only)}
    given = {name: value for name, value in values.items() if value not in (None, (), frozenset())}
    return {name: _plain_value(value) for name, value in given.items()}


def _plain_value(value: Any) -> Any:
    """Return a value of a filter as a JSON type."""
    if isinstance(value, tuple) and value and isinstance(value[0], float):
        return list(value)
    if isinstance(value, tuple | frozenset):
        return sorted(_plain_value(each) for each in value)
    return str(value) if isinstance(value, date | Path) else value


@cache
def _reader() -> "TypeAdapter[Filter]":
    from pydantic import TypeAdapter

    return TypeAdapter(Filter)


def filter_of(text: str) -> Filter:
    """Read a filter from the JSON text of `filter_json`.

    >>> filter_of('{"labels": ["a"]}') == Filter(labels=frozenset({"a"}))
    True

    Raises:
        QueryError: it is no filter, or has a condition that this version does not know.
    """
    try:
        only = _reader().validate_json(text)
        unknown = set(json.loads(text)) - {each.name for each in fields(Filter)}
    except ValueError as error:
        raise QueryError(f"this is no filter: {text[:200]!r}") from error
    if unknown:
        raise QueryError(
            f"a filter has the condition {min(unknown)!r}, which this version does not know"
        )
    return only


SearchScope: TypeAlias = Filter | Collection[int] | None
"""The videos to search: a filter, ids of videos, or None for all."""


def as_filter(within: SearchScope) -> Filter | None:
    """Return the equivalent filter; None if every video passes."""
    if within is None or isinstance(within, Filter):
        return None if within is None or within.passes_all else within
    return Filter(videos=frozenset(int(video_id) for video_id in within))  # NumPy ints too


@dataclass(frozen=True, eq=False, slots=True)
class FilteredLibrary:
    """The videos and clips of one state of a library that pass a filter."""

    ids: "NDArray[np.int64]"
    """Ids of the videos, rising."""
    clips: "Mask"
    """Mask over the clips of the vector index."""


class LibraryFilters:
    """Applies filters to one state of a library and keeps the last few results. Threads may share it."""

    def __init__(
        self,
        catalog: "Catalog",
        live_videos: "Collection[int] | NDArray[np.int64]",
        clips: "LibraryIndex",
    ) -> None:
        """Filter these videos and clips; videos that the catalogue got later do not pass."""
        import numpy as np

        self._catalog = catalog
        array = isinstance(live_videos, np.ndarray)
        self._live = np.asarray(live_videos if array else list(live_videos), np.int64)
        self._clips = clips
        self._cached = lru_cache(maxsize=_NUM_CACHED)(self._apply)

    def apply(self, within: SearchScope) -> FilteredLibrary | None:
        """Return the videos and clips that pass; None if all do.

        A filter that is not cached costs `Filter.matching`, unless it has only ids, and 0.2 ms for a million clips.

        Raises:
            QueryError: a folder or a label is not known; see `Filter.resolved`.
        """
        only = as_filter(within)
        return None if only is None else self._cached(only)

    def _apply(self, only: Filter) -> FilteredLibrary:
        import numpy as np

        if only == Filter(videos=only.videos):  # ids alone need no query
            ids = np.sort(np.fromiter(only.videos or (), np.int64))
        else:
            ids = only.resolved(self._catalog).matching(self._catalog)
        ids = ids[np.isin(ids, self._live)]
        return FilteredLibrary(ids, self._clips.mask(ids))


# ---------------------------------------------------------------- folders and labels


def _known_folders(folder: Path, catalog: "Catalog") -> tuple[Path, ...]:
    from scanonce.storage.catalog.known import known_paths, nearest_folder

    if found := known_paths(catalog, folder):
        return found
    near = nearest_folder(catalog, folder)
    hint = f"the nearest that has some is {near}" if near else "the index has no folder yet"
    raise QueryError(f"no file at or below {folder} is in the index; {hint}")


def _check_known(labels: Collection[str], catalog: "Catalog") -> None:
    if not labels:
        return
    from scanonce.storage.catalog.known import nearest

    used = {folded(label): label for label in catalog.labels.counts()}
    for label in sorted(labels):
        if folded(label) not in used:
            near = nearest(folded(label), used)
            hint = (
                f"the nearest is {used[near]!r}"
                if near
                else "scanonce label PATH --add NAME adds one"
            )
            raise QueryError(f"no video has the label {label!r}; {hint}")


# ---------------------------------------------------------------- days and lengths


def _days(first: date | None, last: date | None) -> "HalfOpen[datetime]":
    """Return the midnights before the first day and after the last day, local time."""
    return (
        None if first is None else _midnight(first),
        None if last is None else _midnight(last + timedelta(days=1)),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(
        day, time.min
    ).astimezone()  # with the offset of that day, summer time or not


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


def _check_camera(camera: str | None) -> None:
    if camera is not None and not 0 < len(camera.strip()) <= MAX_CAMERA:
        raise QueryError(
            f"a camera is 1 to {MAX_CAMERA} characters of its make and model; got {camera[:80]!r}"
        )


def place_of(text: str) -> tuple[float, float, float]:
    """Return the place of a text such as ``48.86,2.35,10``.

    Raises:
        QueryError: it is none; see `checked_place`.
    """
    try:
        return checked_place([float(part) for part in text.split(",")])
    except ValueError:
        return checked_place([math.nan])


def checked_place(near: Sequence[float]) -> tuple[float, float, float]:
    """Return latitude, longitude and distance.

    Raises:
        QueryError: there is no such place or distance.
    """
    if len(near) == 3 and all(math.isfinite(each) for each in near):
        latitude, longitude, km = (float(each) for each in near)
        if abs(latitude) <= 90 and abs(longitude) <= 180 and 0 < km <= MAX_KM:
            return latitude, longitude, km
    raise QueryError(
        "near is a latitude from -90 to 90, a longitude from -180 to 180 and a distance above 0 and at most "
        f"{MAX_KM:,} km, such as 48.86,2.35,10"
    )


def _check_lengths(shortest: float | None, longest: float | None) -> None:
    for name, seconds in (("min_seconds", shortest), ("max_seconds", longest)):
        if seconds is not None and not 0.0 <= seconds < float("inf"):
            raise QueryError(f"{name} is a number of seconds, 0 or more; got {seconds}")
    if shortest is not None and longest is not None and shortest >= longest:
        raise QueryError(
            f"min_seconds {shortest:g} is not below max_seconds {longest:g}: no video can pass"
        )
