"""The trained localiser's share of an index: derived from stored frame features, without decoding a single video.

New videos get their anchors as they are indexed; an index that was made without the localiser, or with another one,
gets them here. The new anchors grow in a folder of their own, video by video, while searches go on with the old ones;
writing its name into the manifest is the switch. Stop it at any point: the next call goes on with the next video.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.errors import ManifestMismatch
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest, read_manifest, write_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.vectors.publish import publish
from scanonce.storage.writer import writing


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """What deriving the anchors of an index came to."""

    videos: int
    """Searchable videos of the index."""
    derived: int
    """Of them, those whose anchors were not there yet."""
    interrupted: bool = False


AnchorObserver = Callable[[int, int, float], None]
"""Told (videos done, videos in all, seconds of video done) after each video."""


def scan_anchors(
    localiser: TrainedLocaliser, features: FrameFeatures, duration_seconds: float
) -> AnchorArrays:
    """The video side of the localiser for one video."""
    return AnchorArrays(*localiser.scan(features.frames, features.pts_seconds, duration_seconds))


def anchor_store(
    layout: IndexLayout, manifest: Manifest, localiser: TrainedLocaliser | None
) -> AnchorStore | None:
    """Where the localiser of an index keeps its anchors; None where it has none.

    Raises:
        ManifestMismatch: the index has another localiser.
    """
    if localiser is not None and (manifest.anchors or "").startswith(localiser.folder):
        return AnchorStore(layout.anchors / str(manifest.anchors))
    if localiser is None and manifest.anchors is None:
        return None
    raise ManifestMismatch(
        f"the index at {layout.root} finds moments by {manifest.localiser or 'the training-free localiser'} "
        f"({manifest.anchors or 'no anchors'}), asked for is {localiser.name if localiser else 'training-free'}"
        f"{f' ({localiser.folder})' if localiser else ''}. To change it: scanonce localise --localiser NAME"
    )


def publish_anchors(
    catalog: Catalog, store: AnchorStore, localiser: TrainedLocaliser, settings: StorageSettings
) -> None:
    """Brings the library-wide index of anchors in line with the catalogue, where one is kept."""
    if not settings.anchor_index or not localiser.ranks_by_vectors:
        return

    def load_anchors(video_id: int) -> NDArray[np.float32]:
        (video,) = catalog.videos([video_id])
        return store.read(video.uid).vectors.astype(np.float32)

    live = catalog.live_video_ids()
    publish(store.vectors, live, load_anchors, dim=localiser.width, settings=settings)


def derive_anchors(
    layout: IndexLayout,
    localiser: TrainedLocaliser | None,
    *,
    storage: StorageSettings,
    rebuild: bool = False,
    observe: AnchorObserver = lambda *_: None,
) -> AnchorReport:
    """Gives an index this localiser: what is missing of its anchors is derived, then searches use it.

    Args:
        layout: the index.
        localiser: the trained localiser it shall have, which must fit it; None for training-free.
        storage: whether a library-wide index of the anchors is kept.
        rebuild: derive all anchors anew, those that are there too.
        observe: told after each video.

    Raises:
        IndexDirectoryError: the index cannot be read or written, or somebody else writes it now; the old anchors are
            still in use.
    """
    with writing(layout, "scanonce localise"), Catalog.open(layout.catalog) as catalog:
        manifest = read_manifest(layout)
        videos = catalog.videos(states=SEARCHABLE)
        if localiser is None:
            _switch(layout, manifest, None, None)
            return AnchorReport(len(videos), 0)
        folder = _folder(manifest, localiser, rebuild)
        store, features = AnchorStore(layout.anchors / folder), FeatureStore(layout.features)
        derived, seconds = 0, 0.0
        try:
            for done, video in enumerate(videos, start=1):
                if not store.has(video.uid):
                    arrays = scan_anchors(
                        localiser, features.read(video.uid), video.duration_seconds
                    )
                    store.write(video.uid, arrays)
                    derived += 1
                seconds += video.duration_seconds
                observe(done, len(videos), seconds)
        except KeyboardInterrupt:
            return AnchorReport(len(videos), derived, interrupted=True)
        publish_anchors(catalog, store, localiser, storage)
        _switch(layout, manifest, localiser.name, folder)
    return AnchorReport(len(videos), derived)


def _folder(manifest: Manifest, localiser: TrainedLocaliser, rebuild: bool) -> str:
    """The folder to fill: the one in use, or one beside it that an interrupted run may have begun."""
    current = manifest.anchors or ""
    if not current.startswith(localiser.folder):
        return f"{localiser.folder}-0"
    if not rebuild:
        return current
    return f"{localiser.folder}-{int(current.rpartition('-')[2]) + 1}"


def _switch(
    layout: IndexLayout, manifest: Manifest, localiser: str | None, folder: str | None
) -> None:
    """From here on searches use this localiser; what others computed is removed."""
    if (manifest.localiser, manifest.anchors) != (localiser, folder):
        write_manifest(layout, replace(manifest, localiser=localiser, anchors=folder))
    others = [path for path in layout.anchors.glob("*-*") if path.name != folder]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)  # a reader may still be in it; swept the next time
