"""What is indexed, with what, and what failed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scanonce.models.soonet.trained import NO_LOCALISER
from scanonce.storage.index import Index
from scanonce.ui.views import clock, count_text, size_text


def read_status(index_dir: Path) -> dict[str, Any]:
    """The state of an index in the documented schema (docs/cli.md).

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


def show_status(status: dict[str, Any], console: Console | None = None) -> None:
    """The same for people."""
    console = console or Console()
    videos, vectors = status["videos"], status["vector_index"]
    searchable = videos["indexed"] + videos["partial"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("index", escape(status["index"]))
    table.add_row(
        "videos", f"{count_text(searchable, 'video')}, {clock(status['searchable_seconds'])}"
    )
    table.add_row("folders", escape(", ".join(status["libraries"])))
    table.add_row(
        "encoder",
        f"{escape(status['encoder'])} ({status['fingerprint'][:12]}, {status['dim']} dimensions)",
    )
    table.add_row("sampling", f"{status['sampling']}, {status['sample_fps']:g} frames a second")
    table.add_row(
        "search",
        f"{vectors['kind']}, {count_text(vectors['clips'], 'clip')}, generation {vectors['generation']}",
    )
    table.add_row("localiser", escape(status["localiser"]))
    sizes = f"{size_text(status['feature_bytes'])} of features"
    if status["anchor_bytes"]:
        sizes += f", {size_text(status['anchor_bytes'])} of anchors"
    if status["thumbnail_bytes"]:
        an_hour = status["thumbnail_bytes"] / max(status["searchable_seconds"], 1.0) * 3600
        sizes += (
            f", {size_text(status['thumbnail_bytes'])} of thumbnails ({size_text(an_hour)} an hour)"
        )
    table.add_row("on disk", sizes)
    if writer := status["writer"]:
        table.add_row("written by", escape(f"process {writer['pid']}: {writer['doing']}"))
    console.print(table)
    for title, entries in (("in part", status["partial"]), ("failed", status["failures"])):
        if entries:
            console.print(f"\n[bold]{title}[/]")
            for entry in entries:
                console.print(
                    f"  {escape(entry['path'])}: {escape(entry['reason'])}", soft_wrap=True
                )
                if entry.get("detail"):
                    console.print(f"    [dim]{escape(entry['detail'])}[/]", soft_wrap=True)
