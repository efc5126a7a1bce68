"""The state of an index in the documented schema: what the commands and the pages share."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from scanonce.models.soonet.trained import NO_LOCALISER
from scanonce.storage.index import Index


def read_status(index_dir: Path) -> dict[str, Any]:
    """Return the state of an index in the documented schema (docs/cli.md); reads the sizes of all its files.

    Raises:
        IndexDirectoryError: there is no usable index.
    """
    with Index.open(index_dir, read_only=True) as index:
        status = index.status()
    manifest, totals, vectors = status.manifest, status.totals, status.vectors
    return {
        "index": str(index_dir),
        "encoder": manifest.encoder,
        "fingerprint": manifest.fingerprint,
        "dim": manifest.dim,
        "sampling": manifest.sampling,
        "sample_fps": manifest.sample_fps,
        "localiser": manifest.localiser or NO_LOCALISER,
        "libraries": [str(root) for root in status.libraries],
        "videos": {"indexed": totals.indexed, "partial": totals.partial, "failed": totals.failed},
        "files": totals.num_files,
        "searchable_seconds": totals.searchable_seconds,
        "video_bytes": totals.size_bytes,
        "feature_bytes": status.feature_bytes,
        "anchor_bytes": status.anchor_bytes,
        "thumbnail_bytes": status.thumbnail_bytes,
        "vector_index": {
            "kind": vectors.kind if vectors else "none",
            "generation": status.generation,
            "factory": vectors.factory if vectors else None,
            "clips": status.num_clips,
        },
        "partial": [{"path": str(video.path), "reason": video.reason} for video in status.partial],
        "failures": [
            {"path": str(each.path), "reason": each.reason, "detail": each.detail}
            for each in status.failures
        ],
        "writer": asdict(status.writer) if status.writer else None,
    }
