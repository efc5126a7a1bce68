"""Differences between the files on disk and the index: of one video file, and of the stored files of one video.

`indexer.verify` looks for them in a whole index, `indexer.repair` removes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanonce.indexer.hashing import WHOLE_FILE_BYTES, fast_hash, full_hash, is_unchanged
from scanonce.indexer.scan import is_away
from scanonce.indexer.selection import Selection
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.storage.catalog.entries import Content, FileRecord, FileStamp
from scanonce.storage.index import Index
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorStore

Kind = Literal[
    "manifest",
    "catalogue",
    "video without file",
    "file missing",
    "file offline",
    "file changed",
    "file replaced",
    "file left out",
    "features missing",
    "features damaged",
    "thumbnails damaged",
    "localiser",
    "anchors missing",
    "anchors damaged",
    "vectors damaged",
    "vectors missing",
    "vectors differ",
    "words damaged",
    "line vectors damaged",
    "orphan",
]
Remedy = Literal["index", "repair", "localise", "restore", "none"]
"""The command that helps: ``index`` brings the index in line with the disk, ``repair`` makes derived data again,
``restore`` takes a backup. ``none``: only the detail says what to do, if anything."""

BY_DECODING: frozenset[Kind] = frozenset(
    ("features missing", "features damaged", "thumbnails damaged", "file replaced")
)
"""Kinds that are repaired by decoding the video again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, with the command that removes it."""

    kind: Kind
    subject: Path
    """The file. If stored data of a video differs, the first file of the video."""
    detail: str
    remedy: Remedy
    video_id: int | None = None
    """The video concerned, if there is one."""

    @classmethod
    def of_video(
        cls, video: Video, kind: Kind, detail: str, remedy: Remedy = "repair"
    ) -> "Difference":
        """Return a difference in the stored data of a video."""
        return cls(kind, video.path, detail, remedy, video.video_id)


# ---------------------------------------------------------------- video files


def compare_file(
    record: FileRecord,
    contents: Mapping[int, Content],
    libraries: Sequence[Path],
    selection: Selection,
) -> Difference | None:
    """Compare a video file with its record, and with the hashes of its content if they are given.

    Args:
        record: the record of the file.
        contents: contents by video id; for these the file is read and hashed.
        libraries: the folders of the index, which may be offline.
        selection: what of them is indexed.
    """
    stamp = record.stamp

    def differs(kind: Kind, detail: str, remedy: Remedy) -> Difference:
        return Difference(kind, stamp.path, detail, remedy, record.video_id)

    try:
        status = stamp.path.stat()
    except OSError as error:
        if _is_offline(stamp.path, libraries):
            return differs("file offline", "its folder is empty or missing; it is kept", "none")
        return differs("file missing", f"it cannot be seen: {error.strerror or error}", "index")
    if left_out := selection.why_left_out(stamp.path, libraries):
        return differs("file left out", f"{left_out.path}: {left_out.reason}", "index")
    if not selection.is_video(str(stamp.path)):
        return differs("file left out", "not a video by indexer.extensions", "index")
    if FileStamp.of(stamp.path, status) != stamp:
        sizes = f"{stamp.size_bytes} bytes on record, {status.st_size} now"
        same = status.st_size == stamp.size_bytes
        return differs(
            "file changed", "its modification time has changed" if same else sizes, "index"
        )
    content = contents.get(record.video_id) if record.video_id is not None else None
    if content is None or record.problem is not None:
        return None
    try:
        same = fast_hash(stamp.path) == content.fast_hash
        same = same and content.full_hash in (None, full_hash(stamp.path))
    except OSError as error:
        return differs("file missing", f"it cannot be read: {error.strerror or error}", "none")
    if not same:
        detail = "other content with the same size and time, which `scanonce index` does not notice"
        return differs("file replaced", detail, "repair")
    return None


def is_sampled_only(content: Content | None) -> bool:
    """Whether `compare_file` compares only samples of a file with this content, because nothing else is on record."""
    return (
        content is not None and content.full_hash is None and content.size_bytes > WHOLE_FILE_BYTES
    )


def _is_offline(path: Path, libraries: Sequence[Path]) -> bool:
    """Whether the library of a file is missing or empty, as if its disk were not plugged in."""
    return any(is_away(root) for root in libraries if root in path.parents)


# ---------------------------------------------------------------- stored files


@dataclass(frozen=True, slots=True)
class StoredFilesCheck:
    """Checks the stored files of videos: features, thumbnails and anchors."""

    index: Index
    anchor_grid: AnchorGrid | None = None
    """The grid of the localiser, which gives the number of anchors; None: the number is not checked."""
    anchor_width: int | None = None
    """Length of an anchor's vector; None: not checked."""

    def differences(
        self, video: Video, files: Sequence[FileRecord], *, values: bool
    ) -> list[Difference]:
        """Check the stored files of one video.

        Args:
            video: a searchable video.
            files: the records of its video files; one that is unchanged can be decoded again.
            values: read all values, not only the headers.
        """
        features, thumbnails = self.index.features, self.index.thumbnails
        problems: list[tuple[Kind, str]] = []
        if not features.has(video.uid):
            problems.append(("features missing", "no frame features are stored"))
        elif reason := features.problem(
            video.uid,
            dim=self.index.manifest.dim,
            num_frames=video.num_frames,
            values=values,
        ):
            problems.append(("features damaged", f"its frame features: {reason}"))
        if reason := thumbnails.problem(video.uid, values=values):
            problems.append(("thumbnails damaged", f"its thumbnails: {reason}"))
        remedy = _remedy_by_decoding(files) if problems else "none"
        found = [Difference.of_video(video, kind, detail, remedy) for kind, detail in problems]
        if self.index.anchors is not None:
            found += self._of_anchors(self.index.anchors, video, values)
        return found

    def _of_anchors(self, store: AnchorStore, video: Video, values: bool) -> list[Difference]:
        if not store.has(video.uid):
            detail = "no anchors of the localiser are stored"
            return [Difference.of_video(video, "anchors missing", detail)]
        num_anchors = None
        if self.anchor_grid is not None:
            num_anchors = sum(self.anchor_grid.counts(video.duration_seconds))
        reason = store.problem(
            video.uid, num_anchors=num_anchors, width=self.anchor_width, values=values
        )
        if reason is None:
            return []
        return [Difference.of_video(video, "anchors damaged", f"its anchors: {reason}")]


def _remedy_by_decoding(files: Iterable[FileRecord]) -> Remedy:
    return "repair" if any(is_unchanged(record.stamp) for record in files) else "restore"
