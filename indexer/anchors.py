"""The anchors of a trained localiser, derived from the stored frame features without decoding a video.

New videos get their anchors when they are indexed. An index that was made without the localiser, or with another,
gets them here: they are written to a new folder, video by video, while searches use the old ones. Writing the name of
that folder to the manifest is the switch. It may be stopped at any point: the next call continues with the next video.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.errors import ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import Manifest
from scanonce.storage.stores.anchors import AnchorArrays, AnchorStore
from scanonce.storage.stores.features import FrameFeatures


@dataclass(frozen=True, slots=True)
class AnchorReport:
    """The result of deriving the anchors of an index."""

    videos: int
    """Number of searchable videos."""
    derived: int
    """Number of videos whose anchors were derived by this call."""
    interrupted: bool = False


OnVideo = Callable[[int, int, float], None]
"""Called after each video with the number of videos done, the number of all, and the seconds of video done."""


def scan_anchors(
    localiser: TrainedLocaliser, features: FrameFeatures, duration_seconds: float
) -> AnchorArrays:
    """Run the video side of the localiser on one video."""
    return AnchorArrays(*localiser.scan(features.frames, features.pts_seconds, duration_seconds))


def check_localiser(index: Index, localiser: TrainedLocaliser | None) -> None:
    """Refuse a localiser that is not the one of the index.

    Raises:
        ManifestMismatch: the index has another localiser, or has one and none was given.
    """
    manifest = index.manifest
    if localiser is not None and (manifest.anchors or "").startswith(localiser.folder):
        return
    if localiser is None and manifest.anchors is None:
        return
    asked = f"{localiser.name} ({localiser.folder})" if localiser else "training-free"
    raise ManifestMismatch(
        f"the index at {index.layout.root} finds moments by {manifest.localiser or 'the training-free localiser'} "
        f"({manifest.anchors or 'no anchors'}), asked for is {asked}. To change it: scanonce localise --localiser NAME"
    )


def derive_anchors(
    layout: IndexLayout,
    localiser: TrainedLocaliser | None,
    *,
    rebuild: bool = False,
    on_video: OnVideo = lambda *_: None,
) -> AnchorReport:
    """Switch an index to this localiser, after deriving the anchors that are missing.

    Args:
        layout: the index.
        localiser: the trained localiser, which must fit the index; None for the training-free one.
        rebuild: derive all anchors again, not only missing ones.
        on_video: see `OnVideo`.

    Raises:
        IndexDirectoryError: the index cannot be read or written, or another process writes it; the old anchors are
            still used.
    """
    with Index.open(layout, open_pooling, writing="scanonce localise") as index:
        videos = index.catalog.videos(states=SEARCHABLE)
        if localiser is None:
            _switch(index, None, None)
            return AnchorReport(len(videos), 0)
        folder = _folder(index.manifest, localiser, rebuild)
        store = AnchorStore(layout.anchors_of(folder))
        derived, seconds = 0, 0.0
        try:
            for done, video in enumerate(videos, start=1):
                if not store.has(video.uid):
                    stored = index.features.read(video.uid)
                    store.write(video.uid, scan_anchors(localiser, stored, video.duration_seconds))
                    derived += 1
                seconds += video.duration_seconds
                on_video(done, len(videos), seconds)
        except KeyboardInterrupt:
            return AnchorReport(len(videos), derived, interrupted=True)
        _switch(index, localiser.name, folder)
    return AnchorReport(len(videos), derived)


def _folder(manifest: Manifest, localiser: TrainedLocaliser, rebuild: bool) -> str:
    """Return the name of the folder to fill: the one in use, or a new one that an interrupted run may have begun."""
    current = manifest.anchors or ""
    if not current.startswith(localiser.folder):
        return f"{localiser.folder}-0"
    if not rebuild:
        return current
    return f"{localiser.folder}-{int(current.rpartition('-')[2]) + 1}"


def _switch(index: Index, localiser: str | None, folder: str | None) -> None:
    """Switch searches to this localiser, and remove the anchors of all others."""
    index.use_localiser(localiser, folder)
    for path in index.layout.anchor_folders():
        if path.name != folder:
            # If a file cannot be removed because a reader has it open, the next call removes it.
            shutil.rmtree(path, ignore_errors=True)
