"""Compares the files, the catalogue and everything derived from them, and names what differs.

    found = verify(IndexLayout.of(index_dir))
    for each in found.differences:
        print(each.subject, each.detail, each.remedy)

Nothing is written. A writer may be at work: each video that differs is looked at once more, in the catalogue as it is
then, so what was indexed or deleted meanwhile is no difference. What a writer at work is about to mend (files that are
gone or changed, videos not published yet, files of contents not recorded yet) is counted, not named.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from scanonce.indexer.plan import fast_hash, full_hash, is_unchanged
from scanonce.indexer.scan import is_away
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.soonet.grid import AnchorGrid
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.entries import Content, FileRecord
from scanonce.storage.derived import DerivedVectors, published_rows
from scanonce.storage.errors import IndexDirectoryError, LocaliserError, ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Video
from scanonce.storage.stores.anchors import AnchorStore
from scanonce.storage.vectors.generation import Generation, newest_generation, newest_number
from scanonce.storage.writer import content_stores, owner

Kind = Literal[
    "manifest",
    "catalogue",
    "video without file",
    "file missing",
    "file offline",
    "file changed",
    "file replaced",
    "features missing",
    "features damaged",
    "thumbnails damaged",
    "localiser",
    "anchors missing",
    "anchors damaged",
    "vectors damaged",
    "vectors lacking",
    "vectors differ",
    "stray",
]
Remedy = Literal["index", "repair", "localise", "restore", "none"]
"""The command that helps: ``index`` brings the index in line with the disk, ``repair`` makes again what is derived,
``restore`` takes a backup; ``none``: nothing is to be done but what the detail says."""


_SAMPLE = 200  # videos whose values are compared where not all are


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be."""

    kind: Kind
    subject: Path
    """The file; for what is stored of a video, the first of its files."""
    detail: str
    remedy: Remedy
    video_id: int | None = None
    """Where it is about a video."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at the whole index came to."""

    differences: tuple[Difference, ...]
    """Each once, in the order of the way of a video: catalogue, files, features, vectors."""
    videos: int = 0
    """Searchable ones."""
    files: int = 0
    compared: int = 0
    """Videos all of whose values were read and compared."""
    without_thumbnails: int = 0
    """Searchable videos; an index may have been made without."""
    pending: int = 0
    """Differences left to the writer that is at work."""


OnChecked = Callable[[int, int], None]
"""Called with the number of files and videos checked, and the number of all."""


def verify(
    layout: IndexLayout,
    *,
    full: bool = False,
    load_localiser: Callable[[], TrainedLocaliser] | None = None,
    on_checked: OnChecked = lambda *_: None,
    alone: bool = False,
) -> Verification:
    """Looks at everything in an index, and at the files it was made from.

    Costs a copy of the catalogue in the temporary folder, a look at each file's size and time, and the heads of three
    stored files of each video; of 200 videos, always the same ones, all values are read and compared: a few
    milliseconds a video. With ``full`` that is done of all of them, 28 MB per hour of video at the default encoder,
    and every video file is hashed: 1.1 MiB are read of each, all of it where a hash of the whole is on record.

    Args:
        layout: the index in use.
        full: look at all values, and into the video files.
        load_localiser: loads the localiser of the index, called only where it has one; None: how many anchors a
            video should have is not checked.
        on_checked: see `OnChecked`.
        alone: the caller holds the index for writing, so nobody else is at work.

    Raises:
        IndexDirectoryError: there is no index, or it is of an older version.
        ManifestMismatch: it is of a newer version.
    """
    while True:
        found = _verify(layout, full, load_localiser, on_checked, alone)
        now = IndexLayout.of(layout.root)
        if now == layout:
            return found
        layout = now  # another index took its place: what was seen is of neither


def _verify(
    layout: IndexLayout,
    full: bool,
    load_localiser: Callable[[], TrainedLocaliser] | None,
    on_checked: OnChecked,
    alone: bool,
) -> Verification:
    broken = []
    manifest = None
    try:
        manifest = read_manifest(layout)
    except ManifestMismatch:
        raise
    except IndexDirectoryError as error:
        if not layout.catalog.exists():
            raise
        broken.append(Difference("manifest", layout.manifest, str(error), "restore"))
    problem = _catalogue_problem(layout)
    if problem:
        broken.append(Difference("catalogue", layout.catalog, problem, "restore"))
    if manifest is None or broken:
        return Verification(tuple(broken))
    with (
        TemporaryDirectory(prefix="scanonce-") as folder,
        Index.open(layout, open_pooling, read_only=True) as index,
    ):
        snapshot = Path(folder, "catalog.sqlite")
        index.catalog.copy_to(snapshot)
        with Catalog.open(snapshot, read_only=True) as catalog:
            look = _Look(index, catalog, full, load_localiser, on_checked, alone)
            return look.at_everything()


def _catalogue_problem(layout: IndexLayout) -> str | None:
    if not layout.catalog.exists():
        return "it is missing"
    try:
        with Catalog(layout.catalog, read_only=True) as catalog:
            problems = catalog.integrity_problems()
    except IndexDirectoryError as error:
        return str(error)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return problems[0] + more if problems else None


class _Look:
    """One look: the catalogue as it was at the beginning, and the one in use to look again."""

    def __init__(
        self,
        index: Index,
        catalog: Catalog,
        full: bool,
        load_localiser: Callable[[], TrainedLocaliser] | None,
        on_checked: OnChecked,
        alone: bool,
    ) -> None:
        self.index, self.catalog, self.live = index, catalog, index.catalog
        self.layout, self.manifest = index.layout, index.manifest
        self.full, self.load_localiser, self.alone = full, load_localiser, alone
        self.on_checked = on_checked
        self.features, self.thumbnails = index.features, index.thumbnails
        self.anchors = index.anchors
        self.anchor_grid: AnchorGrid | None = None
        self.anchor_width: int | None = None
        self.found: list[Difference] = []
        self.pending = 0
        self.done, self.total = 0, 0

    def at_everything(self) -> Verification:
        """Catalogue, files, what is stored of each video, vectors, and what belongs to nothing."""
        files = _all_files(self.catalog)
        videos = self.catalog.videos(states=SEARCHABLE)
        self.total = len(files) + len(videos)
        self.at_localiser()
        self.at_files(files)
        chosen = {video.video_id for video in (videos if self.full else _sample(videos))}
        sound = self.at_videos(videos, _by_video(files), chosen)
        compared = [video for video in sound if video.video_id in chosen]
        self.at_vectors(self.index.clips, compared)
        self.at_leavings()
        return Verification(
            tuple(self.found),
            videos=len(videos),
            files=len(files),
            compared=len(compared),
            without_thumbnails=sum(not self.thumbnails.has(video.uid) for video in videos),
            pending=self.pending,
        )

    # ------------------------------------------------ files

    def at_files(self, files: Sequence[FileRecord]) -> None:
        """The files of the library against what is on record of them."""
        contents = self.catalog.contents() if self.full else {}
        libraries = [library.root for library in self.catalog.libraries()]
        for record in files:
            if _file_difference(record, contents, libraries) is not None:
                self.take(self.again_at_file(record.stamp.path, libraries))
            self.step()

    def again_at_file(self, path: Path, libraries: Sequence[Path]) -> Difference | None:
        """The difference of one file by the catalogue as it is now."""
        for record in self.live.files_under(path):
            if record.stamp.path == path:
                ids = [record.video_id] if self.full and record.video_id is not None else []
                return _file_difference(record, self.live.contents(ids), libraries)
        return None

    def take(self, difference: Difference | None) -> None:
        """Keeps a difference of a file, unless a writer is bringing the catalogue in line with the files."""
        if difference is None:
            return
        if difference.remedy == "index" and self.writer_at_work():
            self.pending += 1
        else:
            self.found.append(difference)

    # ------------------------------------------------ what is stored of a video

    def at_localiser(self) -> None:
        """What anchors must be like, where the index has a localiser that can be asked."""
        if self.anchors is None or self.load_localiser is None:
            return
        problem = None
        try:
            localiser = self.load_localiser()
        except LocaliserError as error:
            problem = str(error)
        else:
            if str(self.manifest.anchors).startswith(localiser.folder):
                self.anchor_grid, self.anchor_width = localiser.grid, localiser.width
            else:
                problem = f"{localiser.name} is another one than that which made the anchors"
        if problem:
            subject = self.layout.anchors / str(self.manifest.anchors)
            self.found.append(Difference("localiser", subject, problem, "localise"))

    def at_videos(
        self,
        videos: Sequence[Video],
        files: Mapping[int, Sequence[FileRecord]],
        chosen: Collection[int],
    ) -> list[Video]:
        """What is stored of each video, all values of the chosen ones; the videos nothing is wrong with."""
        sound = []
        for video in videos:
            values = video.video_id in chosen
            problems = self.of_video(video, files.get(video.video_id, ()), values)
            if problems:  # what is gone from the catalogue by now is no difference
                fresh = self.live.videos([video.video_id], states=SEARCHABLE)
                for each in fresh:
                    records = [file for path in each.paths for file in self.live.files_under(path)]
                    self.found += self.of_video(each, records, values)
            else:
                sound.append(video)
            self.step()
        return sound

    def of_video(self, video: Video, files: Sequence[FileRecord], values: bool) -> list[Difference]:
        """What is wrong with the stored files of one video."""
        problems: list[tuple[Kind, str]] = []
        if not self.features.has(video.uid):
            problems.append(("features missing", "no frame features are stored"))
        elif reason := self.features.problem(
            video.uid, dim=self.manifest.dim, num_frames=video.num_frames, values=values
        ):
            problems.append(("features damaged", f"its frame features: {reason}"))
        if reason := self.thumbnails.problem(video.uid, values=values):
            problems.append(("thumbnails damaged", f"its thumbnails: {reason}"))
        remedy = _remedy_by_decoding(files) if problems else "none"
        found = [_of(video, kind, detail, remedy) for kind, detail in problems]
        if self.anchors is not None:
            found += self._of_anchors(self.anchors, video, values)
        return found

    def _of_anchors(self, store: AnchorStore, video: Video, values: bool) -> list[Difference]:
        if not store.has(video.uid):
            return [_of(video, "anchors missing", "no anchors of the localiser are stored")]
        num_anchors = None
        if self.anchor_grid is not None:
            num_anchors = sum(self.anchor_grid.counts(video.duration_seconds))
        reason = store.problem(
            video.uid, num_anchors=num_anchors, width=self.anchor_width, values=values
        )
        return [_of(video, "anchors damaged", f"its anchors: {reason}")] if reason else []

    # ------------------------------------------------ vectors

    def at_vectors(self, vectors: DerivedVectors, compared: Sequence[Video]) -> None:
        """A library-wide index: is it whole, does it hold every live video, are these its embeddings?"""
        generation = self.at_generation(vectors)
        if generation is None:
            return
        rows = published_rows(generation)
        for video in compared:
            if video.video_id not in rows:
                continue
            try:
                reason = vectors.difference(video, rows[video.video_id]())
            except IndexDirectoryError:  # its files were whole a moment ago: it was deleted since
                continue
            # a video keeps its vectors as long as it keeps its id: to look again is to see that it is still there
            if reason and self.live.videos([video.video_id], states=SEARCHABLE):
                self.found.append(_of(video, "vectors differ", reason))

    def at_generation(self, vectors: DerivedVectors) -> Generation | None:
        """The newest generation, if it is whole; what it lacks is named where no writer is about to add it."""
        for _ in range(10):
            token, writer = self.live.change_token(), self.writer_at_work()
            live = self.live.live_video_ids()
            newest = newest_number(vectors.folder)
            try:
                generation = newest_generation(vectors.folder, dim=vectors.dim)
            except ManifestMismatch as error:
                self.found.append(
                    Difference("vectors damaged", vectors.folder, str(error), "repair")
                )
                return None
            writer = writer or self.writer_at_work()
            # with nobody at work before and after, and no commit between, the two belong together
            if writer or self.live.change_token() == token:
                break
        whole = generation is not None and generation.number >= newest
        if not whole and (newest or len(live)) and not writer:
            used = f"generation {generation.number} is used" if generation else "there is no other"
            detail = f"generation {newest} cannot be used, {used}" if newest else "it is missing"
            self.found.append(Difference("vectors damaged", vectors.folder, detail, "repair"))
        if generation is None or not whole:
            self.pending += writer
            return None
        if generation.videos.max(initial=0) > self.live.last_video_id():
            detail = "it holds videos the catalogue never had, whose numbers others will get"
            self.found.append(Difference("vectors damaged", vectors.folder, detail, "repair"))
            return None
        lacking = np.setdiff1d(live, generation.videos)
        if writer:
            self.pending += len(lacking)
        else:
            detail = "searches load it each time: it is in no generation of the index"
            for video in self.live.videos(lacking.tolist()):
                self.found.append(_of(video, "vectors lacking", detail))
        return generation

    # ------------------------------------------------ what belongs to nothing

    def at_leavings(self) -> None:
        """Files of contents nobody knows, unfinished files, and videos that lost their last file."""
        strays = _strays(self.layout, self.catalog.uids())
        orphans = self.catalog.without_files()
        if not strays and not orphans:
            return
        if self.writer_at_work():
            self.pending += len(strays) + len(orphans)
            return
        strays = [path for path in _strays(self.layout, self.live.uids()) if path in strays]
        remaining = self.live.without_files().items() & orphans.items()
        if self.writer_at_work():
            self.pending += len(strays) + len(remaining)
            return
        for path in strays:
            detail = "it is of no video in the catalogue, or was never finished"
            self.found.append(Difference("stray", path, detail, "repair"))
        for video_id, uid in sorted(remaining):
            detail = "a video without a file is in the catalogue; it is never found"
            subject = self.features.path(uid)
            self.found.append(Difference("video without file", subject, detail, "index", video_id))

    def writer_at_work(self) -> bool:
        """Whether somebody writes the index at this moment."""
        return not self.alone and owner(self.layout) is not None

    def step(self) -> None:
        """Tells that one more was looked at."""
        self.done += 1
        self.on_checked(self.done, self.total)


# ---------------------------------------------------------------- files


def _all_files(catalog: Catalog) -> list[FileRecord]:
    """Every file of the catalogue once, also where libraries lie one inside the other."""
    records = {
        record.stamp.path: record
        for library in catalog.libraries()
        for record in catalog.files_under(library.root)
    }
    return [records[path] for path in sorted(records)]


def _by_video(files: Iterable[FileRecord]) -> dict[int, list[FileRecord]]:
    records: dict[int, list[FileRecord]] = {}
    for record in files:
        if record.video_id is not None:
            records.setdefault(record.video_id, []).append(record)
    return records


def _file_difference(
    record: FileRecord, contents: Mapping[int, Content], libraries: Sequence[Path]
) -> Difference | None:
    """A file against its record, and against its content where that is given."""
    stamp = record.stamp

    def differs(kind: Kind, detail: str, remedy: Remedy) -> Difference:
        return Difference(kind, stamp.path, detail, remedy, record.video_id)

    try:
        status = stamp.path.stat()
    except OSError as error:
        if _is_offline(stamp.path, libraries):
            return differs("file offline", "its folder is empty or not there; it is kept", "none")
        return differs("file missing", f"it cannot be seen: {error.strerror or error}", "index")
    if (status.st_size, status.st_mtime_ns) != (stamp.size_bytes, stamp.mtime_ns):
        sizes = f"{stamp.size_bytes} bytes on record, {status.st_size} now"
        same = status.st_size == stamp.size_bytes
        return differs("file changed", "its time of change is another" if same else sizes, "index")
    content = contents.get(record.video_id) if record.video_id is not None else None
    if content is None or record.problem is not None:
        return None
    try:
        same = fast_hash(stamp.path) == content.fast_hash
        same = same and content.full_hash in (None, full_hash(stamp.path))
    except OSError as error:
        return differs("file missing", f"it cannot be read: {error.strerror or error}", "none")
    if not same:
        detail = "other content with the same size and time: `scanonce index` does not see that"
        return differs("file replaced", detail, "repair")
    return None


def _is_offline(path: Path, libraries: Sequence[Path]) -> bool:
    """Whether the library that holds a file is away, as that of a disk that is not plugged in is."""
    return any(is_away(root) for root in libraries if root in path.parents)


def _remedy_by_decoding(files: Iterable[FileRecord]) -> Remedy:
    return "repair" if any(is_unchanged(record.stamp) for record in files) else "restore"


# ---------------------------------------------------------------- the rest


def _of(video: Video, kind: Kind, detail: str, remedy: Remedy = "repair") -> Difference:
    return Difference(kind, video.path, detail, remedy, video.video_id)


def _sample(videos: Sequence[Video]) -> list[Video]:
    """The same videos each time, in their order."""
    if len(videos) <= _SAMPLE:
        return list(videos)
    chosen = np.random.default_rng(0).choice(len(videos), _SAMPLE, replace=False)
    return [videos[number] for number in np.sort(chosen).tolist()]


def _strays(layout: IndexLayout, known: set[str]) -> list[Path]:
    """What `storage.writer.clear_leavings` would remove."""
    files = [path for path in layout.folder.glob(".tmp-*") if path.is_file()]
    files += [path for store in content_stores(layout) for path in store.orphans(known)]
    folders = [*layout.vectors.glob("staging-*"), *layout.anchors.glob("*/vectors")]
    return [*files, *folders]
