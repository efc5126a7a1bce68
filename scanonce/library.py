"""A library of videos as one object: index it, search it, forget and label its videos.

import scanonce

with scanonce.open("~/.scanonce") as library:
    library.index(["~/Videos"])
    for moment in library.search("a red car drives past at night").moments:
        print(moment.path, moment.span.start_seconds, moment.span.end_seconds)
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Any

from pydantic import ValidationError

from scanonce.indexer.models import LoadedModels, encoder_name, load_models
from scanonce.indexer.pipeline import IndexReport, OnProgress, index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.tracks import (
    Committing,
    OnTrackProgress,
    TracksReport,
    check_tracks,
    make_tracks,
)
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.load import load_encoder
from scanonce.models.settings import ModelSettings
from scanonce.models.tracks.settings import TrackSettings
from scanonce.search.duplicates import Duplicate, OnCompared, find_duplicates
from scanonce.search.engine import SearchEngine
from scanonce.search.examples import Example
from scanonce.search.feedback import Piece
from scanonce.search.filters import SearchScope
from scanonce.search.result import SearchResult
from scanonce.search.saved import SavedSearches
from scanonce.search.settings import SearchSettings
from scanonce.search.text_bank import has_cached_bank, open_bank
from scanonce.search.unusual import OnRead, Unusual, find_unusual
from scanonce.storage.errors import ConfigError, EncoderError, IndexDirectoryError
from scanonce.storage.files import expanded
from scanonce.storage.index import Index, IndexStatus, change_labels
from scanonce.storage.layout import DEFAULT_INDEX, IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest
from scanonce.storage.records import Line, MadeTrack, TrackName
from scanonce.storage.settings import StorageSettings

logger = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str]
NOTHING_TYPED: Mapping[str, Any] = MappingProxyType({})


class Library:
    """A library of videos, by its index directory, which need not exist yet; a context manager. See `scanonce.open`.

    Searching may be shared by threads. Indexing and forgetting hold the writer's lock of the index, so they fail if
    another process writes it; searches go on meanwhile and see each commit.
    """

    def __init__(
        self,
        root: AnyPath = DEFAULT_INDEX,
        *,
        models: ModelSettings | None = None,
        indexer: IndexerSettings | None = None,
        storage: StorageSettings | None = None,
        search: SearchSettings | None = None,
        tracks: TrackSettings | None = None,
    ) -> None:
        """Set the index and the settings; nothing is opened or loaded before it is needed.

        Args:
            root: the index directory.
            models: encoder and localiser of a new index; device and number format of any index.
            indexer: sampling and clips of a new index; decoding.
            storage: settings of the vector index.
            search: settings of the search.
            tracks: models of speech and of text, and the tracks that indexing makes.
        """
        self.root = _absolute(root)
        self._models = models or ModelSettings()
        self._indexer = indexer or IndexerSettings()
        self._storage = storage or StorageSettings()
        self._search = search or SearchSettings()
        self._tracks = tracks or TrackSettings()
        self._opening = Lock()
        self._engine: SearchEngine | None = None
        self._loaded: tuple[Manifest | None, str, LoadedModels] | None = None

    def __enter__(self) -> "Library":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index and release the models."""
        with self._opening:
            if self._engine is not None:
                self._engine.close()
            self._engine, self._loaded = None, None

    # ------------------------------------------------ indexing

    @property
    def layout(self) -> IndexLayout:
        """The layout in use now; `scanonce reindex` and `restore` change it."""
        return IndexLayout.of(self.root)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the index; None before the first run."""
        layout = self.layout
        return read_manifest(layout) if layout.manifest.exists() else None

    def settings(self, typed: Mapping[str, Any] = NOTHING_TYPED) -> IndexerSettings:
        """Return the settings of a run: sampling and clips of an existing index, the others as given.

        Args:
            typed: settings for this run, by name, such as ``{"sampling": "keyframes"}``.

        Raises:
            ConfigError: one of ``typed`` is unknown or out of bounds.
            ManifestMismatch: one of ``typed`` differs from that of the index.
        """
        asked = self._indexer
        if typed:
            try:
                asked = IndexerSettings.model_validate({**asked.model_dump(), **typed})
            except ValidationError as error:
                raise ConfigError(f"settings of the indexer: {error}") from error
        manifest = self.manifest
        return asked if manifest is None else manifest.settle(asked, typed)

    def models(
        self,
        encoder: str | None = None,
        typed: Mapping[str, Any] = NOTHING_TYPED,
        *,
        on_stage: Callable[[str], object] = lambda _: None,
    ) -> LoadedModels:
        """Load the models of the index, or those for a new one; they are kept until the index has others.

        Args:
            encoder: name of an encoder; by default that of the index, or of the settings for a new index.
            typed: see `settings`.
            on_stage: called with a line of text if the models have to be loaded.

        Raises:
            EncoderError: the encoder cannot be loaded.
            LocaliserError: the localiser cannot be loaded, or does not fit.
        """
        known = self.manifest
        name = encoder_name(known, encoder, self._models)
        if self._loaded is not None:
            loaded_for, loaded_as, models = self._loaded
            made_since = loaded_for is None and known is not None and models.are_of(known)
            if made_since or (loaded_for, loaded_as) == (known, name):
                return models
        on_stage(f"loading encoder {name}")
        models = load_models(known, self._models, self.settings(typed), encoder=encoder)
        self._loaded = known, name, models
        return models

    def index(
        self,
        paths: Iterable[AnyPath] = (),
        *,
        encoder: str | None = None,
        typed: Mapping[str, Any] = NOTHING_TYPED,
        retry_failed: bool = False,
        on_progress: OnProgress = lambda _: None,
        on_stage: Callable[[str], object] = lambda _: None,
    ) -> IndexReport:
        """Bring the index in line with folders of videos: new videos are scanned, missing ones forgotten.

        Args:
            paths: folders or single video files; by default all folders of the index.
            encoder: name of the encoder of a new index.
            typed: settings of the indexer for this run; see `settings`.
            retry_failed: decode files again that failed before or could be decoded in part only.
            on_progress: called with the state of the run, several times a second at most.
            on_stage: called with a line of text before each long step.

        Returns:
            The result. Ctrl-C ends the run early with ``interrupted`` set; every finished video is kept.

        Raises:
            IndexDirectoryError: the index cannot be written, another process writes it, or it has no folders.
            ManifestMismatch: the encoder or a setting in ``typed`` differs from that of the index.
            EncoderError, LocaliserError: a model cannot be loaded.
        """
        roots = [_absolute(path) for path in paths] or self.known_roots()
        models = self.models(encoder, typed, on_stage=on_stage)
        on_stage("searching for new videos")
        report = index_library(
            roots,
            layout=self.layout,
            encoder=models.encoder,
            settings=self.settings(typed),
            storage=self._storage,
            localiser=models.localiser,
            on_progress=on_progress,
            retry_failed=retry_failed,
        )
        if not report.interrupted:
            self.prepare_search(on_stage=on_stage)
        return report

    def make_tracks(
        self,
        tracks: Sequence[MadeTrack],
        paths: Iterable[AnyPath] = (),
        *,
        again: bool = False,
        retry: bool = False,
        on_progress: OnTrackProgress = lambda _: None,
        committing: Committing | None = None,
    ) -> TracksReport:
        """Read speech, text or subtitles of the indexed videos, as far as they are missing; see `indexer.tracks`.

        Args:
            tracks: "subtitle", "said", "written"; they are read in this order.
            paths: only videos at or below these. Default: all.
            again: read videos again that have the track.
            retry: read videos again whose track has a note.
            on_progress: called with the state of the run.
            committing: entered for each commit to lock the index; None: it is locked for the whole run.

        Raises:
            TrackError: a model or a package is missing.
            IndexDirectoryError: there is no index, it cannot be written, or another process writes it.
        """
        return make_tracks(
            self.layout,
            tracks,
            settings=self._tracks,
            indexer=self._indexer,
            device=self._models.device,
            under=[_absolute(path) for path in paths],
            again=again,
            retry=retry,
            on_progress=on_progress,
            committing=committing,
        )

    def check_tracks(self, tracks: Sequence[MadeTrack]) -> None:
        """Load the models of some tracks, to see that they are there.

        Raises:
            TrackError: a model or a package is missing.
        """
        check_tracks(tracks, self._tracks, self._models.device)

    def remove_track(self, track: TrackName) -> int:
        """Remove a track from the index; return the number of videos that had it."""
        with Index.open(self.root, writing="scanonce tracks") as index:
            return index.catalog.lines.remove(track)

    def lines(self, video_id: int, tracks: Sequence[TrackName] | None = None) -> list[Line]:
        """Return the lines of a video by time: a transcript. By default those of all tracks."""
        with Index.open(self.root, read_only=True) as index:
            return index.catalog.lines.of(video_id, tracks)

    def prepare_search(self, *, on_stage: Callable[[str], object] = lambda _: None) -> None:
        """Embed the text bank of the encoder, once ever, so that the first search need not.

        A failure is not reported here: the videos are indexed, and the first search reports the error.
        """
        manifest = self.manifest
        if manifest is None or has_cached_bank(manifest.fingerprint):
            return
        on_stage("embedding the text bank that answers are judged by, once for this encoder")
        try:
            open_bank(load_encoder(manifest.encoder, self._models, towers="text"))
        except EncoderError as error:
            logger.warning("the text bank is not embedded: %s", error)

    def known_roots(self) -> list[Path]:
        """Return the folders and files that were indexed.

        Raises:
            IndexDirectoryError: there is no index, or it has no folders.
        """
        with Index.open(self.root) as index:
            roots = index.roots
        if not roots:
            raise IndexDirectoryError(
                f"the index {self.root} has no folders: name one, such as scanonce index ~/Videos"
            )
        return roots

    def forget(self, paths: Iterable[AnyPath]) -> int:
        """Remove folders or files from the index, with all stored data of their videos. The video files stay.

        Returns:
            The number of files removed.

        Raises:
            IndexDirectoryError: nothing at one of the paths is in the index, or another process writes it.
        """
        roots = [_absolute(path) for path in paths]
        with Index.open(self.root, open_pooling, writing="scanonce forget") as index:
            return index.forget(roots, self._storage)

    def label(
        self, paths: Iterable[AnyPath], *, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> tuple[int, int]:
        """Change the labels of the videos at or below some paths; see `storage.index.change_labels`.

        Returns:
            The numbers of labels added and removed.
        """
        roots = [_absolute(path) for path in paths]
        return change_labels(self.root, roots, add=add, remove=remove)

    def status(self) -> IndexStatus:
        """Return the settings of the index, its content and its size on disk.

        Raises:
            IndexDirectoryError: there is no usable index.
        """
        with Index.open(self.root, read_only=True) as index:
            return index.status()

    # ------------------------------------------------ searching

    @property
    def engine(self) -> SearchEngine:
        """The search engine, opened by the first use; it follows all changes of the index.

        Raises:
            ScanonceError: as `SearchEngine.open`.
        """
        with self._opening:
            if self._engine is None:
                self._engine = SearchEngine.open(
                    self.root, settings=self._search, models=self._models, tracks=self._tracks
                )
            return self._engine

    def search(
        self,
        text: str = "",
        *,
        examples: Sequence[Example] = (),
        more_like: Sequence[Piece] = (),
        less_like: Sequence[Piece] = (),
        top: int | None = None,
        within: SearchScope = None,
    ) -> SearchResult:
        """Find the moments that show what the text says, or look like examples; see `SearchEngine.search`."""
        return self.engine.search(
            text,
            examples=examples,
            more_like=more_like,
            less_like=less_like,
            top=top,
            within=within,
        )

    def search_many(
        self, texts: Sequence[str], *, top: int | None = None, within: SearchScope = None
    ) -> list[SearchResult]:
        """Answer several queries at once; see `SearchEngine.search_many`."""
        return self.engine.search_many(texts, top=top, within=within)

    @property
    def default_top(self) -> int:
        """The most moments of an answer if a search does not say how many."""
        return self._search.top

    @property
    def saved(self) -> SavedSearches:
        """The saved searches, which are kept in the index."""
        return SavedSearches(self.root, lambda: self.engine)

    def duplicates(
        self, *, within: SearchScope = None, on_progress: OnCompared = lambda done, total: None
    ) -> Iterator[Duplicate]:
        """Find the pairs of videos that share a span of some seconds; see `search.duplicates.find_duplicates`.

        Needs no encoder: stored frames are compared. The index stays open until the iterator ends.
        """
        with Index.open(self.root, open_pooling, read_only=True) as index:
            yield from find_duplicates(index, within=within, on_progress=on_progress)

    def unusual(
        self, folder: AnyPath, *, on_progress: OnRead = lambda done, total: None
    ) -> list[Unusual]:
        """Find moments far from all that a camera's folder has shown before; see `search.unusual.find_unusual`.

        Needs no encoder: stored frames are compared.
        """
        with Index.open(self.root, open_pooling, read_only=True) as index:
            return find_unusual(index, _absolute(folder), on_progress=on_progress)


def _absolute(path: AnyPath) -> Path:
    return Path(os.path.abspath(expanded(path)))
