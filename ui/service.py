"""The functions of every door: of the HTTP API, MCP and the command line, over one library.

    with settings.library(index_dir) as library:
        service = Service(library)
        answered = service.search("a red car", top=5)
        service.thumbnail(answered.result.moments[0].video_id, 3.0)         # bytes of a JPEG

Videos are named by their ids: nothing here opens a path that came from outside. All of it may be called by several
threads at once. `Library` is the same for Python.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanonce.search.examples import Example
from scanonce.search.filters import Filter
from scanonce.search.localise import Curve
from scanonce.search.result import Coverage, SearchResult
from scanonce.storage.errors import ConfigError, QueryError, VideoError
from scanonce.storage.index import change_current
from scanonce.storage.records import Line, Span, TrackName, Video
from scanonce.storage.selects import Select, Selects, SelectsFile, added, removed
from scanonce.ui import jobs
from scanonce.ui.export import Pick
from scanonce.ui.export_files import export_content, export_name, pick_of, picks_of
from scanonce.ui.export_kinds import Format
from scanonce.ui.safe_text import shown_name
from scanonce.ui.server.cache import ProxyCache
from scanonce.ui.server.clips import MAX_CLIP_SECONDS, Clip
from scanonce.ui.timecode import RateName
from scanonce.ui.views import covered_by, is_full

if TYPE_CHECKING:
    from scanonce.library import Library
    from scanonce.search.feedback import Piece
    from scanonce.search.snapshot import Snapshot

MAX_VIDEOS = 1000
"""Most videos of one page of a list, and most moments of one export."""

NO_FILTER = Filter()


class ClipFailed(VideoError):
    """A clip could not be cut."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a search, with what it was asked for."""

    result: SearchResult
    only: Filter
    covered: Coverage | None = None
    """How much of the library matches, if all moments are good matches."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A span of a video to export."""

    video_id: int
    start_seconds: float
    end_seconds: float
    label: str = "moment"
    probability: float | None = None
    """As in an answer, 0 to 1."""


class Service:
    """A library for programs."""

    def __init__(
        self,
        library: "Library",
        cache: ProxyCache | None = None,
        *,
        config: Path | None = None,
        roots: Sequence[Path] = (),
    ) -> None:
        """Open nothing yet.

        Args:
            library: the library; its owner closes it.
            cache: where clips are kept; without it none can be cut.
            config: configuration file of runs of the indexer. Default: as for the command line.
            roots: folders at or below which folders may be indexed that the index does not know yet.
        """
        self.library, self.config, self._cache = library, config, cache
        self._roots = tuple(Path(os.path.realpath(root)) for root in roots)

    # ------------------------------------------------ finding

    def search(
        self,
        text: str = "",
        *,
        examples: Sequence[Example] = (),
        more_like: "Sequence[Piece]" = (),
        less_like: "Sequence[Piece]" = (),
        top: int | None = None,
        only: Filter = NO_FILTER,
    ) -> Answered:
        """Answer a query; raises as `SearchEngine.search`.

        Args:
            text: the query, with its operators (`search.query`).
            examples: images and clips that the moments look like.
            more_like: moments that are right.
            less_like: moments that are wrong.
            top: the most moments. Default: that of the settings.
            only: the videos to search.
        """
        engine = self.library.engine
        result = engine.search(
            text,
            examples=examples,
            more_like=more_like,
            less_like=less_like,
            top=top,
            within=only,
        )
        # how many videos match is counted for texts only
        asked = self.library.default_top if top is None else top
        counts = not (examples or more_like or less_like) and is_full(result, asked)
        return Answered(result, only, covered_by(engine, result, only) if counts else None)

    def similar(
        self, video_id: int, span: Span, *, top: int | None = None, only: Filter = NO_FILTER
    ) -> Answered:
        """Find moments that look like a span of a video; raises as `SearchEngine.similar`."""
        self.video(video_id)
        return Answered(self.library.engine.similar(video_id, span, top=top, within=only), only)

    def curve(self, text: str, video_id: int) -> Curve:
        """Score a whole video with a text; raises as `SearchEngine.curve`."""
        self.video(video_id)
        return self.library.engine.curve(text, video_id)

    def run_saved(self, name: str, top: int | None = None) -> Answered:
        """Answer a saved search, and note that it was looked at; raises as `SavedSearches.run`."""
        saved = self.library.saved
        return Answered(saved.run(name, top=top), saved.get(name).only)

    # ------------------------------------------------ videos

    def video(self, video_id: int) -> Video:
        """Return a searchable video.

        Raises:
            NoSuchVideo: there is none with this id.
        """
        with self._reading() as snapshot:
            return snapshot.video(video_id)

    def videos(
        self, name: str = "", *, after: int = 0, count: int = 100
    ) -> tuple[list[Video], dict[int, tuple[str, ...]]]:
        """Return searchable videos by rising id, and their labels by id.

        Args:
            name: a part of a path; case is ignored.
            after: the last id of the page before.
            count: the most videos, 1 to `MAX_VIDEOS`.
        """
        wanted = name.casefold()
        with self._reading() as snapshot:
            first = int(np.searchsorted(snapshot.live, after, side="right"))
            videos = (snapshot.videos[each] for each in snapshot.live[first:].tolist())
            named = (
                video
                for video in videos
                if any(wanted in str(path).casefold() for path in video.paths)
            )
            found = list(islice(named, count))
            labels = snapshot.index.catalog.labels.of(video.video_id for video in found)
        return found, labels

    def lines(self, video_id: int, tracks: Sequence[TrackName] | None = None) -> list[Line]:
        """Return the lines of a video, by time; by default those of all tracks."""
        return self.library.engine.lines(video_id, tracks)

    def thumbnail(self, video_id: int, seconds: float) -> bytes | None:
        """Return the stored thumbnail nearest to a time, a JPEG; None if the video has none."""
        with self._reading() as snapshot:
            return snapshot.index.thumbnails.read(snapshot.video(video_id).uid, seconds)

    def clip(self, video_id: int, span: Span) -> tuple[str, Path]:
        """Cut a span of a video, exact to the frame, or find it in the cache; wait until it is ready.

        Returns:
            The key of the clip in the cache (see `ProxyCache.acquire`), and the path of the video.

        Raises:
            QueryError: the span is not one of the video, or longer than `MAX_CLIP_SECONDS`.
            ClipFailed: it could not be cut; the message says why.
        """
        assert self._cache is not None, "this service has no cache for clips"
        video = self.video(video_id)
        checked = span_in(video, span)
        clip = Clip(video, *checked.millis)
        state = self._cache.wait(clip.key, clip.maker(self._cache))
        if state.state != "ready":
            raise ClipFailed(f"the clip could not be cut: {state.reason}")
        return clip.key, video.path

    def export(
        self,
        kind: Format,
        chosen: Sequence[Chosen],
        stem: str = "moments",
        rate: RateName | None = None,
    ) -> tuple[str, bytes]:
        """Return moments as a file: its name and content; see `ui.export_files`.

        Raises:
            QueryError: a span is not one of its video, or there are none, or more than `MAX_VIDEOS`.
        """
        if not 0 < len(chosen) <= MAX_VIDEOS:
            raise QueryError(f"an export has 1 to {MAX_VIDEOS} moments; got {len(chosen)}")
        picks = [self._pick(each) for each in chosen]
        return export_name(kind, picks, stem), export_content(kind, picks, rate)

    # ------------------------------------------------ selects

    def selects(self) -> Selects:
        """Return the selects, in the order of the cut."""
        return SelectsFile(self.library.layout).read()

    def select(self, chosen: Sequence[Chosen]) -> Selects:
        """Add moments at the end of the selects, and return all; the label of each becomes its query.

        Raises:
            QueryError: a span is not one of its video; nothing was added.
        """
        new = []
        for each in chosen:
            pick = self._pick(each)
            name = shown_name(pick.path)
            new.append(
                Select(
                    each.video_id, pick.span, name, query=each.label, probability=each.probability
                )
            )
        return SelectsFile(self.library.layout).change(lambda kept: reduce(added, new, kept))

    def unselect(self, key: str) -> Selects:
        """Remove a select by its key, and return the others; an unknown key changes nothing."""
        return SelectsFile(self.library.layout).change(lambda kept: removed(kept, key))

    def export_selects(self, kind: Format, rate: RateName | None = None) -> tuple[str, bytes]:
        """Return the selects as a file: its name and content; those of videos that are gone are left out.

        Raises:
            QueryError: nothing is selected.
        """
        kept = self.selects()
        with self._reading() as snapshot:
            picks = picks_of(kept, snapshot.videos)
        if not picks:
            raise QueryError("nothing is selected: pick moments on the pages, or POST /selects")
        return export_name(kind, picks, "selects"), export_content(kind, picks, rate)

    def _pick(self, chosen: Chosen) -> Pick:
        video = self.video(chosen.video_id)
        span = span_in(video, span_of(chosen.start_seconds, chosen.end_seconds), longest=None)
        return replace(pick_of(video, span, chosen.label), probability=chosen.probability)

    # ------------------------------------------------ labels

    def labels(self) -> dict[str, int]:
        """Return the number of videos by label."""
        with self._reading() as snapshot:
            return snapshot.index.catalog.labels.counts()

    def change_labels(
        self, ids: Sequence[int], *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[int, int]:
        """Change the labels of videos; return the numbers of labels added and removed.

        Raises:
            NoSuchVideo: there is no video with one of the ids; nothing was changed.
            QueryError: a label is empty, too long, or has control characters.
        """
        for video_id in ids:
            self.video(video_id)
        return change_current(
            self.library.root,
            lambda index: (
                index.catalog.labels.add(ids, add),
                index.catalog.labels.remove(ids, remove),
            ),
        )[-1]

    # ------------------------------------------------ indexing

    def run(self) -> jobs.Job | None:
        """Return the current run of the indexer, or the last one."""
        return jobs.read(self.library.root)

    def start_run(self, folders: Sequence[str] = (), *, retry: bool = False) -> jobs.Job:
        """Start to index folders in a process of its own.

        Args:
            folders: known folders of the index, or folders at or below an allowed root. Default: all known ones.
            retry: also decode again the videos that failed before.

        Raises:
            ConfigError: a folder is neither.
            IndexDirectoryError: a run is at work already.
        """
        known = self.library.known_roots()
        paths = [self._allowed(folder, known) for folder in folders] or known
        return jobs.start(self.library.root, paths, config=self.config, retry=retry)

    def stop_run(self) -> jobs.Job:
        """Ask the run to stop; videos indexed so far are kept.

        Raises:
            IndexDirectoryError: no run is at work.
        """
        return jobs.pause(self.library.root)

    def _allowed(self, folder: str, known: Sequence[Path]) -> Path:
        for root in known:
            if folder == str(root):
                return root
        if "\0" not in folder and os.path.isabs(folder):
            path = Path(os.path.realpath(folder))
            if any(path.is_relative_to(root) for root in self._roots):
                return path
        raise ConfigError(
            "this folder may not be indexed from here: name a folder of the index, or one at or below a folder of "
            "serve.roots in the configuration"
        )

    def _reading(self) -> "AbstractContextManager[Snapshot]":
        return self.library.engine.reading()


def span_in(video: Video, span: Span, *, longest: float | None = MAX_CLIP_SECONDS) -> Span:
    """Return a span cut to the length of its video.

    Raises:
        QueryError: it begins after the end, or is longer than ``longest`` seconds.
    """
    end = min(span.end_seconds, video.duration_seconds)
    if span.start_seconds >= end:
        raise QueryError(
            f"the video has {video.duration_seconds:.3f} seconds; a span begins before that"
        )
    if longest is not None and end - span.start_seconds > longest:
        raise QueryError(f"a clip has at most {longest / 60:.0f} minutes")
    return Span(span.start_seconds, end)


def span_of(start: float, end: float) -> Span:
    """Return a span of two numbers of a request.

    Raises:
        QueryError: it is empty, ends before it begins, or has no end.
    """
    if not 0 <= start < end < float("inf"):
        raise QueryError(f"a span is two times in seconds, 0 <= start < end; got {start} and {end}")
    return Span(start, end)
