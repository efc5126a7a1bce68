"""The state of an index, and the removal of videos from it: what the commands and the pages share."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from scanonce.models.soonet.trained import NO_LOCALISER
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.stores.features import FeatureStore
from scanonce.storage.stores.thumbnails import ThumbnailStore
from scanonce.storage.vectors.generation import newest_generation
from scanonce.storage.writer import delete_stored, owner, writing


def read_status(index_dir: Path) -> dict[str, Any]:
    """Return the state of an index in the documented schema (docs/cli.md); reads the sizes of all its files.

    Raises:
        IndexDirectoryError: there is no usable index.
    """
    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    with Catalog.open(layout.catalog, read_only=True) as catalog:
        totals = catalog.totals()
        roots = [str(library.root) for library in catalog.libraries()]
        failures = [
            {"path": str(each.path), "reason": each.reason, "detail": each.detail}
            for each in catalog.failures()
        ]
        partial = [
            {"path": str(video.path), "reason": video.reason}
            for video in catalog.videos(states=["partial"])
        ]
    anchors = AnchorStore(layout.anchors / manifest.anchors) if manifest.anchors else None
    generation = newest_generation(layout.vectors, dim=manifest.dim, with_codes=False)
    return {
        "index": str(index_dir),
        "encoder": manifest.encoder,
        "fingerprint": manifest.fingerprint,
        "dim": manifest.dim,
        "sampling": manifest.sampling,
        "sample_fps": manifest.sample_fps,
        "localiser": manifest.localiser or NO_LOCALISER,
        "libraries": roots,
        "videos": {"indexed": totals.indexed, "partial": totals.partial, "failed": totals.failed},
        "files": totals.num_files,
        "searchable_seconds": totals.searchable_seconds,
        "video_bytes": totals.size_bytes,
        "feature_bytes": FeatureStore(layout.features).size_bytes(),
        "anchor_bytes": anchors.size_bytes() if anchors else 0,
        "thumbnail_bytes": ThumbnailStore(layout.thumbnails).size_bytes(),
        "vector_index": {
            "kind": generation.info.kind if generation else "none",
            "generation": generation.number if generation else 0,
            "factory": generation.info.factory if generation else None,
            "clips": (len(generation.base) + len(generation.delta)) if generation else 0,
        },
        "partial": partial,
        "failures": failures,
        "writer": asdict(writer) if (writer := owner(layout)) else None,
    }


def forget(path: Path, index_dir: Path, storage: StorageSettings) -> int:
    """Remove a folder or file from an index, with its features, thumbnails and clips.

    Args:
        path: an indexed folder or file; it need not exist any more.
        index_dir: the index directory.
        storage: settings of the vector index.

    Returns:
        The number of files removed from the index; the files themselves stay.

    Raises:
        IndexDirectoryError: nothing at that path is indexed, or another process writes the index.
    """
    # heavy, and `read_status` needs none of it
    from scanonce.indexer.anchors import publish_anchors
    from scanonce.indexer.pipeline import publish_clips
    from scanonce.models.soonet.trained import load_localiser

    layout = IndexLayout.of(index_dir)
    manifest = read_manifest(layout)
    root = path.expanduser().absolute()
    with writing(layout, "scanonce forget"), Catalog.open(layout.catalog) as catalog:
        known = catalog.files_under(root)
        if not known:
            raise IndexDirectoryError(
                f"nothing at {root} is in the index {index_dir}; `scanonce status` lists its folders."
            )
        delete_stored(layout, catalog.forget_library(root))
        features = FeatureStore(layout.features)
        publish_clips(catalog, features, layout, manifest.grid, manifest.dim, storage)
        anchors = AnchorStore(layout.anchors / str(manifest.anchors))
        if manifest.localiser and anchors.vectors.exists():
            publish_anchors(catalog, anchors, load_localiser(manifest.localiser), storage)
    return len(known)
