"""An index as one object: its manifest, catalogue, stores and vector index, opened once.

    with Index.open(Path("~/.scanonce").expanduser(), open_pooling) as index:
        index.manifest.encoder, index.catalog.totals().indexed
        index.embed_clips(video)                                                 # [num_clips, dim]

    with Index.open(root, open_pooling, writing="scanonce forget") as index:     # holds the writer's lock
        index.forget([Path("/films/old")], StorageSettings())

Embeddings are derived from stored frames here and nowhere else. The only model involved comes in through one function,
`storage.pooling.OpenPooling`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import Failure, Totals
from scanonce.storage.catalog.known import nearest_path
from scanonce.storage.catalog.lines import TrackTotals
from scanonce.storage.derived import DerivedVectors
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, create_or_check, read_manifest, write_manifest
from scanonce.storage.pooling import OpenPooling, Pooling
from scanonce.storage.records import TrackName, Video
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import GenerationInfo, newest_generation
from scanonce.storage.writer import Owner, delete_stored, owner, writing

Change = TypeVar("Change")


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The state of an index: its settings, its content and its size on disk."""

    manifest: Manifest
    libraries: tuple[Path, ...]
    """The folders and files that were indexed."""
    totals: Totals
    partial: tuple[Video, ...]
    """Videos that could be decoded in part only."""
    failures: tuple[Failure, ...]
    feature_bytes: int
    anchor_bytes: int
    thumbnail_bytes: int
    generation: int
    """Number of the newest generation of the vector index; 0 before the first."""
    vectors: GenerationInfo | None
    num_clips: int
    tracks: Mapping[TrackName, TrackTotals]
    """What is known of speech and of text, by track."""
    track_notes: tuple[tuple[Path, TrackName, str], ...]
    """Files of which a track could not be read, or not all of it, with the reason."""
    writer: Owner | None
    """The process that writes the index now."""


class Index:
    """An open index. May be shared by threads; a context manager.

    `scanonce reindex` and `restore` may replace the index of its directory. This object stays with the index that was
    opened; see `is_current`.
    """

    def __init__(
        self,
        layout: IndexLayout,
        manifest: Manifest,
        catalog: Catalog,
        open_pooling: OpenPooling | None = None,
    ) -> None:
        """Hold an open catalogue. `open` and `create` are the usual way in."""
        self.layout = layout
        self.manifest = manifest
        self.catalog = catalog
        self.features = FeatureStore(layout.features, manifest.dim, old_fps=manifest.sample_fps)
        self.thumbnails = ThumbnailStore(layout.thumbnails)
        self._open_pooling = open_pooling
        self._pooling: Pooling | None = None
        self._resources = ExitStack()

    @classmethod
    def open(
        cls,
        location: Path | IndexLayout,
        open_pooling: OpenPooling | None = None,
        *,
        writing: str | None = None,
        read_only: bool = False,
    ) -> Self:
        """Open an existing index.

        Args:
            location: the index directory, or the layout of an index in staging.
            open_pooling: opens the pooling of its clips; None if nothing will be embedded.
            writing: the command that writes the index, which is then locked until it is closed; None: not locked.
            read_only: open the catalogue for reading only.

        Raises:
            IndexDirectoryError: there is no usable index, or another process writes it.
            ManifestMismatch: it was written by a newer version.
        """
        layout = location if isinstance(location, IndexLayout) else IndexLayout.of(location)
        with ExitStack() as resources:
            _lock(resources, layout, writing)
            manifest = read_manifest(layout)
            catalog = resources.enter_context(Catalog.open(layout.catalog, read_only=read_only))
            index = cls(layout, manifest, catalog, open_pooling)
            if writing is not None:
                index.refuse_forged_names()
            index._resources = resources.pop_all()
        return index

    @classmethod
    def create(
        cls,
        layout: IndexLayout,
        wanted: Manifest,
        head_files: Sequence[Path],
        open_pooling: OpenPooling | None = None,
        *,
        writing: str,
    ) -> Self:
        """Open an index for writing; create it if there is none.

        Args:
            layout: the index.
            wanted: the manifest of a new index, with which an existing one must agree.
            head_files: see `storage.manifest.create_or_check`.
            open_pooling: opens the pooling of its clips; None if nothing will be embedded.
            writing: the command that writes the index, which is locked until it is closed.

        Raises:
            ManifestMismatch: the index was made with other settings than ``wanted``; nothing was changed.
            IndexDirectoryError: as `open`.
        """
        with ExitStack() as resources:
            _lock(resources, layout, writing)
            create_or_check(layout, wanted, head_files)
            index = cls.open(layout, open_pooling)
            index.refuse_forged_names()
            resources.push(index._resources)
            index._resources = resources.pop_all()
        return index

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the catalogue and release the lock."""
        self._resources.close()

    def with_manifest(self, manifest: Manifest) -> "Index":
        """Return the same open index with a manifest that was written since; closing either closes both."""
        index = Index(self.layout, manifest, self.catalog, self._open_pooling)
        index._resources = self._resources
        return index

    def refuse_forged_names(self) -> None:
        """Read every name of the catalogue that is the name of a file, before anything is written or deleted by one.

        Cost: a tenth of a second for 100,000 videos.

        Raises:
            IndexDirectoryError: one of them could lead out of the index.
        """
        self.catalog.uids()

    @property
    def is_current(self) -> bool:
        """Whether this is still the index of its directory."""
        return IndexLayout.of(self.layout.root) == self.layout

    @property
    def roots(self) -> list[Path]:
        """The folders and files that were indexed, sorted."""
        return [library.root for library in self.catalog.libraries()]

    # ------------------------------------------------ vectors

    @property
    def pooling(self) -> Pooling:
        """The pooling of its clips, opened by the first use."""
        if self._pooling is None:
            assert self._open_pooling is not None, "this index was opened without its pooling"
            self._pooling = self._open_pooling(self.layout.head, self.manifest.head)
        return self._pooling

    def embed(self, video: Video, spans: NDArray[np.float64]) -> NDArray[np.float32]:
        """Embed spans of a video from its stored frames.

        Args:
            video: a searchable video.
            spans: ``[num_spans, 2]`` half-open, seconds.

        Returns:
            ``[num_spans, dim]`` float32 of length 1.

        Raises:
            IndexDirectoryError: the stored features are missing or damaged.
        """
        stored = self.features.read(video.uid)
        return self.pooling.embed_spans(stored.frames, stored.pts_seconds, spans, stored.fps)

    def embed_clips(self, video: Video) -> NDArray[np.float32]:
        """Embed all clips of a video, ``[num_clips, dim]``; see `embed`."""
        try:
            spans = self.manifest.grid.spans(video.duration_seconds)
        except (
            ValueError
        ) as error:  # the catalogue is damaged: indexing would have refused the video
            raise IndexDirectoryError(f"{video.path}: {error}. Or restore a backup.") from error
        return self.embed(video, spans)

    @property
    def clips(self) -> DerivedVectors:
        """The vector index of the clips."""
        return DerivedVectors(self.layout.vectors, self.manifest.dim, self.embed_clips)

    @property
    def anchors(self) -> AnchorStore | None:
        """The anchors of the trained localiser; None if the index has no trained localiser."""
        folder = self.manifest.anchors
        return AnchorStore(self.layout.anchors_of(folder)) if folder else None

    def publish(self, settings: StorageSettings) -> None:
        """Bring the vector index in line with the catalogue; takes milliseconds if it is.

        Raises:
            IndexDirectoryError: it cannot be written.
        """
        self.clips.publish(self.catalog, settings)

    # ------------------------------------------------ changes

    def use_localiser(self, name: str | None, folder: str | None) -> None:
        """Switch searches to another localiser and its anchors.

        Args:
            name: name by which it was loaded; None for the training-free localiser.
            folder: name of the folder of its anchors; None for the training-free localiser.
        """
        if (self.manifest.localiser, self.manifest.anchors) != (name, folder):
            self.manifest = replace(self.manifest, localiser=name, anchors=folder)
            write_manifest(self.layout, self.manifest)

    def delete_stored(self, videos: Iterable[Video]) -> None:
        """Delete the stored files of videos that are gone from the catalogue."""
        delete_stored(self.layout, videos)

    def forget(self, paths: Sequence[Path], settings: StorageSettings) -> int:
        """Remove folders or files from the index, with all stored data of their videos. The video files stay.

        Args:
            paths: absolute paths.
            settings: settings of the vector index.

        Returns:
            The number of files removed.

        Raises:
            IndexDirectoryError: nothing at one of the paths is in the index; nothing was removed.
        """
        places = {place: path for path in paths for place in self.catalog.spelled(path)}
        known = {place: self.catalog.files_under(place) for place in places}
        for place, files in known.items():
            is_root = any(place in (root, *root.parents) for root in self.roots)
            if not files and not is_root:
                raise self._nothing_at(places[place], "nothing")
        self.delete_stored(self.catalog.forget_libraries(list(places)))
        self.publish(settings)
        return len({record.stamp.path for files in known.values() for record in files})

    def searchable_at(self, paths: Sequence[Path]) -> list[int]:
        """Return the ids, rising, of the searchable videos at or below these absolute paths.

        Raises:
            IndexDirectoryError: one of the paths has none.
        """
        found: set[int] = set()
        for path in paths:
            here = self.catalog.matching_videos(under=[path]).tolist()
            if not here:
                raise self._nothing_at(path, "nothing searchable")
            found.update(here)
        return sorted(found)

    def _nothing_at(self, path: Path, what: str) -> IndexDirectoryError:
        near = nearest_path(self.catalog, path)
        hint = f"; the nearest that is in it is {near}" if near else ""
        return IndexDirectoryError(
            f"{what} at {path} is in the index {self.layout.root}{hint}; `scanonce status` lists its folders."
        )

    # ------------------------------------------------ status

    def status(self) -> IndexStatus:
        """Return the state of the index; reads no features, only the sizes of their files."""
        newest = newest_generation(self.layout.vectors, dim=self.manifest.dim, with_codes=False)
        anchors = self.anchors
        return IndexStatus(
            manifest=self.manifest,
            libraries=tuple(self.roots),
            totals=self.catalog.totals(),
            partial=tuple(self.catalog.videos(states=["partial"])),
            failures=tuple(self.catalog.failures()),
            feature_bytes=self.features.size_bytes(),
            anchor_bytes=anchors.size_bytes() if anchors else 0,
            thumbnail_bytes=self.thumbnails.size_bytes(),
            generation=newest.number if newest else 0,
            vectors=newest.info if newest else None,
            num_clips=len(newest.base) + len(newest.delta) if newest else 0,
            tracks=self.catalog.lines.totals(),
            track_notes=self._track_notes(),
            writer=owner(self.layout),
        )

    def _track_notes(self) -> tuple[tuple[Path, TrackName, str], ...]:
        problems = self.catalog.lines.problems()
        videos = self.catalog.videos({video_id for video_id, _, _ in problems})
        paths = {video.video_id: video.path for video in videos}
        return tuple(
            (paths[video_id], name, problem)
            for video_id, name, problem in problems
            if video_id in paths
        )


def change_labels(
    root: Path, paths: Sequence[Path], *, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> tuple[int, int]:
    """Change the labels of the videos at or below some paths.

    This takes no writer's lock, so it need not wait for a run of hours: it is one short transaction between those of
    the run. In either order, a video that is scanned again passes its labels on, and one that is removed is skipped.

    Args:
        root: the index directory.
        paths: absolute paths.
        add: labels the videos get.
        remove: labels the videos lose.

    Returns:
        The numbers of labels added and removed.

    Raises:
        IndexDirectoryError: there is no index, or nothing searchable at one of the paths.
        QueryError: a label is empty, too long, or has control characters.
    """

    def change(index: Index) -> tuple[int, int]:
        ids, labels = index.searchable_at(paths), index.catalog.labels
        return labels.add(ids, add), labels.remove(ids, remove)

    return change_current(root, change)[-1]


def change_current(root: Path, change: Callable[[Index], Change]) -> list[Change]:
    """Change an index without the writer's lock; if it was replaced meanwhile, change the new one too.

    Args:
        root: the index directory.
        change: changes an index in one transaction.

    Returns:
        The result of each change; the last one is of the index that is current.

    Raises:
        IndexDirectoryError: there is no index.
    """
    results = []
    while True:
        with Index.open(root) as index:
            results.append(change(index))
            if index.is_current:
                return results


def _lock(resources: ExitStack, layout: IndexLayout, command: str | None) -> None:
    if command is not None:
        resources.enter_context(writing(layout, command))
