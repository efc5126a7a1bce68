"""The trained localiser's share of an index: derived from stored frame features, without decoding a video.

New videos get their anchors as they are indexed; an index that was made without the localiser, or with another one,
gets them here. The new anchors grow in a folder of their own, video by video, while searches go on with the old ones;
writing its name into the manifest is the switch. Stop it at any point: the next call goes on with the next video.
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
    """What deriving the anchors of an index did."""

    videos: int
    """Searchable videos of the index."""
    derived: int
    """Those whose anchors were missing before."""
    interrupted: bool = False


OnVideo = Callable[[int, int, float], None]
"""Called after each video with the videos done, all videos, and the seconds of video done."""


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
    """Give an index this localiser: derive the anchors that are missing, then let searches use it.

    Args:
        layout: the index.
        localiser: the trained localiser, which must fit the index; None for the training-free one.
        rebuild: derive all anchors again, not only missing ones.
        on_video: see `OnVideo`.

    Raises:
        IndexDirectoryError: the index cannot be read or written, or another process writes it; the old anchors are
            still in use.
    """
    with Index.open(layout, open_pooling, writing="scanonce localise") as index:
        videos = index.catalog.videos(states=SEARCHABLE)
        if localiser is None:
            _switch(index, None, None)
            return AnchorReport(len(videos), 0)
        folder = _folder(index.manifest, localiser, rebuild)
        store = AnchorStore(layout.anchors / folder)
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
    """The folder to fill: the one in use, or a new one that an interrupted run may have begun."""
    current = manifest.anchors or ""
    if not current.startswith(localiser.folder):
        return f"{localiser.folder}-0"
    if not rebuild:
        return current
    return f"{localiser.folder}-{int(current.rpartition('-')[2]) + 1}"


def _switch(index: Index, localiser: str | None, folder: str | None) -> None:
    """Let searches use this localiser, and remove the anchors of all others."""
    index.use_localiser(localiser, folder)
    for path in index.layout.anchors.glob("*-*"):
        if path.name != folder:
            shutil.rmtree(
                path, ignore_errors=True
            )  # a reader may still be in it; swept the next time
