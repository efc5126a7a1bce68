"""What the pages find, kept while the library stays as it is: a page that is turned asks nothing anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from scanonce.search.engine import SearchResult
from scanonce.search.filters import Filter, SearchScope
from scanonce.search.localise import Curve
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.records import Span, Video
from scanonce.ui.pages.session import shared
from scanonce.ui.views import filter_json, folder_names

Stamp = tuple[tuple[str, int, int], ...]
"""Another one where a writer has changed the index."""


FIRST, MOST = 48, 500
"""Moments asked for at first, and when somebody turns to a page beyond them."""


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """What there is to search."""

    videos: Mapping[int, Video]
    seconds: float
    folders: Mapping[str, str]
    """Names by path, see `ui.views.folder_names`."""
    labels: tuple[str, ...]
    """Those in use, in order."""


def index_stamp() -> Stamp:
    """That of the index this server shows; a few file system calls."""
    layout = shared().layout
    wal = layout.catalog.with_name(layout.catalog.name + "-wal")
    return tuple(_stamp_of(path) for path in (layout.manifest, layout.catalog, wal))


def _filter_key(only: Filter) -> str:
    return json.dumps(filter_json(only))


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_mtime_ns, status.st_size


@st.cache_resource(max_entries=2, show_spinner=False)
def library_facts(stamp: Stamp) -> LibraryFacts:
    """The searchable videos, read once for each ``stamp``.

    Raises:
        ScanonceError: the catalogue cannot be read.
    """
    with shared().catalog() as catalog:
        videos = catalog.videos(states=SEARCHABLE)
        roots = [library.root for library in catalog.libraries()]
        labels = tuple(catalog.labels.counts())
    return LibraryFacts(
        {video.video_id: video for video in videos},
        sum(video.duration_seconds for video in videos),
        folder_names(roots, videos),
        labels,
    )


@st.cache_resource(max_entries=64, show_spinner=False, hash_funcs={Filter: _filter_key})
def search(
    text: str, only: Filter | None, top: int, stamp: Stamp, video_id: int | None = None
) -> SearchResult:
    """The moments of a sentence in the videos that pass, or in one video; asked once for each ``stamp``.

    Raises:
        ScanonceError: see `SearchEngine.search`.
    """
    within: SearchScope = only if video_id is None else [video_id]
    with shared().engine() as engine:
        result = engine.search(text, top=top, within=within)
    shared().remember(result)
    return result


@st.cache_resource(max_entries=32, show_spinner=False)
def similar(video_id: int, span: Span, top: int, stamp: Stamp) -> SearchResult:
    """Moments that look like this one, but those that overlap it.

    Raises:
        ScanonceError: see `SearchEngine.similar`.
    """
    with shared().engine() as engine:
        found = engine.similar(video_id, span, top=top + 4)
    others = [
        moment
        for moment in found.moments
        if moment.video_id != video_id or moment.span.tiou(span) == 0.0
    ]
    return SearchResult(found.query, tuple(others[:top]), found.no_good_match, found.timings_ms)


@st.cache_resource(max_entries=16, show_spinner=False)
def curve(text: str, video_id: int, stamp: Stamp) -> Curve:
    """The relevance of a sentence over a whole video.

    Raises:
        ScanonceError: see `SearchEngine.curve`.
    """
    with shared().engine() as engine:
        return engine.curve(text, video_id)
