"""Cached reads of the index: the pages ask again only if a writer has changed it."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import streamlit as st

from scanonce.media.cut import frame_jpeg
from scanonce.search.duplicates import Duplicate
from scanonce.search.engine import probability_curve
from scanonce.search.examples import Example
from scanonce.search.filters import Filter, SearchScope, filter_json
from scanonce.search.localise import Curve
from scanonce.search.looks import Look, look_of
from scanonce.search.query import Like
from scanonce.search.result import Coverage, SearchResult
from scanonce.search.saved import SavedSearch
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.catalog.entries import Failure, Library, Totals
from scanonce.storage.errors import IndexDirectoryError, reported
from scanonce.storage.records import Line, MadeTrack, Moment, Recording, Span, Video
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.ui.pages.components import Crop
from scanonce.ui.pages.session import shared
from scanonce.ui.safe_text import shown_name
from scanonce.ui.sentences import sentences, talk
from scanonce.ui.server.playback import find_file
from scanonce.ui.views import covered_by, folder_names, status_json

Stamp = tuple[tuple[str, int, int], ...]
"""Differs after every change of the index."""

FIRST, MOST = 48, 500
"""Number of moments asked for at first, and when somebody turns to a page beyond them."""

_CROP_WIDTH = 1280  # pixels of the picture that a part is cut out of

SUGGESTED = 3
"""Number of queries that the start page suggests."""


def index_stamp() -> Stamp:
    """Return the stamp of the index this server shows; costs a few file system calls."""
    layout = shared().layout
    wal = layout.catalog.with_name(layout.catalog.name + "-wal")
    return tuple(_stamp_of(path) for path in (layout.manifest, layout.catalog, wal))


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_mtime_ns, status.st_size


# ---------------------------------------------------------------- the library


@dataclass(frozen=True, slots=True)
class SearchableLibrary:
    """The videos that can be searched."""

    videos: Mapping[int, Video]
    seconds: float
    folders: Mapping[str, str]
    """Names by path, see `ui.views.folder_names`."""
    labels: tuple[str, ...]
    """The labels in use, sorted."""


@st.cache_resource(max_entries=2, show_spinner=False)
def searchable_library(stamp: Stamp) -> SearchableLibrary:
    """Return the searchable videos, read once for each ``stamp``.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        videos = catalog.videos(states=SEARCHABLE)
        roots = [library.root for library in catalog.libraries()]
        labels = tuple(catalog.labels.counts())
    return SearchableLibrary(
        {video.video_id: video for video in videos},
        sum(video.duration_seconds for video in videos),
        folder_names(roots, videos),
        labels,
    )


@dataclass(frozen=True, slots=True)
class CatalogContents:
    """Everything in the catalogue."""

    videos: tuple[Video, ...]
    """By name, ignoring case, then by path."""
    libraries: tuple[Library, ...]
    failures: tuple[Failure, ...]
    totals: Totals


@st.cache_resource(max_entries=2, show_spinner=False)
def catalog_contents(stamp: Stamp) -> CatalogContents:
    """Return everything in the catalogue, read once for each ``stamp``; 0.2 s for 10,000 videos.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        return CatalogContents(
            tuple(sorted(catalog.videos(), key=name_order)),
            tuple(catalog.libraries()),
            tuple(catalog.failures()),
            catalog.totals(),
        )


def name_order(video: Video) -> tuple[str, str]:
    """Return the key that sorts videos by name, ignoring case, then by path."""
    return video.path.name.casefold(), str(video.path)


@st.cache_data(max_entries=2, ttl=30, show_spinner=False)
def index_status(index_dir: Path) -> dict[str, Any]:
    """Return `ui.views.status_json`, kept for 30 s: it takes the size of every file of the index.

    Raises:
        ScanonceError: there is no usable index.
    """
    return status_json(index_dir, shared().config.library(index_dir).status())


@st.cache_resource(max_entries=2, show_spinner=False)
def recordings(stamp: Stamp) -> dict[int, Recording | None]:
    """Return when each searchable video was recorded, as far as that is known; see `ui.recorded`.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    videos = searchable_library(stamp).videos
    return {number: video.recording for number, video in videos.items()}


def looks(moments: Sequence[Moment], videos: Mapping[int, Video]) -> list[Look | None]:
    """Return the looks of the pictures on the cards of moments; None if there is no stored picture."""
    folder = shared().layout.thumbnails
    found = []
    for moment in moments:
        video = videos.get(moment.video_id)
        millis = round(1000 * moment.span.middle_seconds)
        found.append(None if video is None else _look(folder, video.uid, millis))
    return found


@lru_cache(maxsize=2_000)
def _look(folder: Path, uid: str, millis: int) -> Look | None:
    try:
        jpeg = ThumbnailStore(folder).read(uid, millis / 1000)
    except IndexDirectoryError:  # a damaged thumbnail must not break the page
        return None
    return None if jpeg is None else look_of(jpeg)


# ---------------------------------------------------------------- searches


def _filter_key(only: Filter) -> str:
    return json.dumps(filter_json(only))


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs={Filter: _filter_key})
def search(
    text: str, only: Filter | None, top: int, stamp: Stamp, video_id: int | None = None
) -> SearchResult:
    """Return the moments of a query in the videos that pass, or in one video; searched once for each ``stamp``.

    Raises:
        ScanonceError: see `SearchEngine.search`.
    """
    within: SearchScope = only if video_id is None else [video_id]
    result = shared().engine.search(text, top=top, within=within)
    shared().remember(result)
    return result


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a viewer has put next to the query."""

    name: str
    """As the browser gives it: any text."""
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Of its content and name."""
        return hashlib.sha256(self.data + self.name.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(upload: Upload) -> str:
    return upload.digest


@st.cache_resource(
    max_entries=16, show_spinner=False, hash_funcs={Filter: _filter_key, Upload: _digest}
)
def search_by(
    text: str,
    uploads: tuple[Upload, ...],
    judged: tuple[tuple[Like, ...], tuple[Like, ...]],
    only: Filter | None,
    top: int,
    stamp: Stamp,
) -> SearchResult:
    """Return the moments that look like uploaded files and fit a text, which may be empty, after feedback.

    The files are on the disk only while they are decoded, in the guarded child that decodes videos.

    Raises:
        ScanonceError: see `SearchEngine.search`.
    """
    with tempfile.TemporaryDirectory(prefix="scanonce-upload-") as folder:
        examples = []
        for number, upload in enumerate(uploads):
            path = Path(folder, str(number))
            with reported(path, "written"):
                path.write_bytes(upload.data)
            examples.append(Example(path, name=upload.name))
        more, less = judged
        result = shared().engine.search(
            text, examples=examples, more_like=more, less_like=less, top=top, within=only
        )
    shared().remember(result)
    return result


@st.cache_resource(max_entries=16, show_spinner=False)
def like_part(crop: Crop, top: int, stamp: Stamp) -> SearchResult:
    """Return the moments that look like a part of a picture of a video.

    Raises:
        ScanonceError: see `SearchEngine.search`; the file of the video is offline or cannot be decoded.
    """
    video = searchable_library(stamp).videos[crop.video_id]
    jpeg = frame_jpeg(find_file(video), crop.seconds, width=_CROP_WIDTH)
    with tempfile.TemporaryDirectory(prefix="scanonce-crop-") as folder:
        path = Path(folder, "frame.jpg")
        with reported(path, "written"):
            path.write_bytes(jpeg)
        name = f"part of {shown_name(video.path)}"
        example = Example(path, box=crop.box, kind="image", name=name)
        return shared().engine.search("", examples=[example], top=top)


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs={Filter: _filter_key})
def coverage(text: str, only: Filter | None, top: int, stamp: Stamp) -> Coverage:
    """Return how many of the videos that pass match a query; see `ui.views.covered_by`.

    Raises:
        ScanonceError: see `SearchEngine.coverage`.
    """
    return covered_by(shared().engine, search(text, only, top, stamp), only)


@st.cache_resource(max_entries=2, show_spinner=False)
def suggestions(stamp: Stamp) -> tuple[str, ...]:
    """Return queries to begin with, found once for each ``stamp``.

    Raises:
        ScanonceError: see `SearchEngine.suggestions`.
    """
    return shared().engine.suggestions(SUGGESTED)


@st.cache_resource(max_entries=32, show_spinner=False)
def similar(video_id: int, span: Span, top: int, stamp: Stamp) -> SearchResult:
    """Return moments that look like this one, without those that overlap it.

    Raises:
        ScanonceError: see `SearchEngine.similar`.
    """
    found = shared().engine.similar(video_id, span, top=top + 4)
    others = [
        moment
        for moment in found.moments
        if moment.video_id != video_id or moment.span.tiou(span) == 0.0
    ]
    return replace(found, moments=tuple(others[:top]))


@st.cache_resource(max_entries=16, show_spinner=False)
def curve(text: str, video_id: int, stamp: Stamp) -> Curve:
    """Return the probability of a query over a whole video.

    Raises:
        ScanonceError: see `search.engine.probability_curve`.
    """
    return probability_curve(shared().engine, text, video_id)


# ---------------------------------------------------------------- saved searches and near-duplicates


@st.cache_resource(max_entries=2, show_spinner=False)
def saved_searches(stamp: Stamp) -> tuple[tuple[SavedSearch, int, str | None], ...]:
    """Return the saved searches by name, each with its number of new matches and why it cannot be asked.

    Raises:
        ScanonceError: see `SavedSearches.count_new`.
    """
    saved = shared().library.saved
    return tuple((each, *saved.count_new(each)) for each in saved.all())


@st.cache_resource(max_entries=2, show_spinner=False)
def near_duplicates(ids: frozenset[int]) -> tuple[Duplicate, ...]:
    """Return the pairs of near-duplicates, those with most in common first; shows its progress.

    Args:
        ids: all searchable videos. Their frames never change, so neither do the pairs.

    Raises:
        ScanonceError: see `search.duplicates.find_duplicates`.
    """
    bar = st.progress(0.0, "Comparing")

    def show(done: int, total: int) -> None:
        bar.progress(done / max(total, 1), "Comparing")

    found = shared().library.duplicates(on_progress=show)
    pairs = sorted(found, key=lambda each: -each.shared_seconds)
    bar.empty()
    return tuple(pairs)


@st.cache_data(max_entries=8, show_spinner=False)
def labels_of(stamp: Stamp, ids: tuple[int, ...]) -> dict[int, tuple[str, ...]]:
    """Return the labels of some videos.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        found = catalog.labels.of(list(ids))
    return {number: tuple(found.get(number, ())) for number in ids}


# ---------------------------------------------------------------- what is said and written


@dataclass(frozen=True, slots=True)
class Transcript:
    """The lines of a video."""

    lines: Mapping[MadeTrack, tuple[Line, ...]]
    """By track, those that have any: speech first."""
    sentences: tuple[Span, ...]
    """Of what is said."""


@st.cache_resource(max_entries=16, show_spinner=False)
def transcript(video_id: int, stamp: Stamp) -> Transcript:
    """Return the lines of a video, read once for each ``stamp``.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    order: tuple[MadeTrack, ...] = ("said", "subtitle", "written")
    with shared().catalog() as catalog:
        found = catalog.lines.of(video_id, order)
    lines = {name: tuple(line for line in found if line.track == name) for name in order}
    return Transcript(
        {name: own for name, own in lines.items() if own}, tuple(sentences(talk(found)))
    )


@st.cache_resource(max_entries=2, show_spinner=False)
def is_read_for_words(stamp: Stamp) -> bool:
    """Return whether any video has a track that was read, with or without lines.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        return any(catalog.lines.sources(name) for name in get_args(MadeTrack))
