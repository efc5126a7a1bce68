"""Compares the video files, the catalogue and all derived data of an index, and reports the differences.

    found = verify(IndexLayout.of(index_dir))
    for each in found.differences:
        print(each.subject, each.detail, each.remedy)

Nothing is written. Another process may write the index meanwhile: each video that differs is checked again in the
catalogue as it is then, so that a video that was indexed or deleted in between is no difference. Differences that the
running writer is about to remove are counted, not reported: files that are gone or changed, videos that are not
published yet, stored files of contents that are not recorded yet.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from scanonce.indexer.differences import (
    Difference,
    StoredFilesCheck,
    compare_file,
    is_sampled_only,
)
from scanonce.indexer.selection import Selection
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.catalog import SEARCHABLE, Catalog
from scanonce.storage.catalog.entries import FileRecord
from scanonce.storage.derived import published_rows
from scanonce.storage.errors import IndexDirectoryError, LocaliserError, ManifestMismatch
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import read_manifest
from scanonce.storage.records import Video
from scanonce.storage.vectors.generation import Generation, newest_generation, newest_number
from scanonce.storage.writer import find_leftovers, owner

_SAMPLE = 200  # videos whose values are compared if not all are

OnChecked = Callable[[int, int], None]
"""Called with the number of files and videos checked, and the number of all."""

LoadLocaliser = Callable[[], TrainedLocaliser]
"""Loads the localiser of the index."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking a whole index."""

    differences: tuple[Difference, ...]
    """Each once, in the order in which a video is processed: catalogue, files, features, vectors."""
    videos: int = 0
    """Number of searchable videos."""
    files: int = 0
    compared: int = 0
    """Number of videos all of whose values were read and compared."""
    sampled_only: int = 0
    """With ``full``: number of videos of which only samples were compared, because no hash of the whole file is on
    record."""
    without_thumbnails: int = 0
    """Number of searchable videos without thumbnails; an index may have been made without."""
    pending: int = 0
    """Number of differences left to the running writer."""


def verify(
    layout: IndexLayout,
    *,
    full: bool = False,
    files: IndexerSettings | None = None,
    load_localiser: LoadLocaliser | None = None,
    on_checked: OnChecked = lambda *_: None,
    holds_lock: bool = False,
) -> Verification:
    """Check a whole index and the files it was made from.

    Costs a copy of the catalogue in the temporary folder, the size and time of each video file, and the headers of
    three stored files of each video. Of 200 videos, always the same ones, all values are read and compared, which
    takes a few milliseconds per video. With ``full`` that is done for all videos, 28 MB per hour of video at the
    default encoder, and every byte of every video file is read and compared by its hash.

    Args:
        layout: the index in use.
        full: compare the values of all videos, and hash the video files.
        files: which files of the folders are indexed; None: the default settings.
        load_localiser: called only if the index has a localiser; None: the number of anchors is not checked.
        on_checked: see `OnChecked`.
        holds_lock: the caller holds the writer's lock, so no other process writes.

    Raises:
        IndexDirectoryError: there is no index, or it is of an older version.
        ManifestMismatch: it is of a newer version.
    """
    while True:
        try:
            selection = Selection(files, [layout.root])
            found = _verify(layout, full, selection, load_localiser, on_checked, holds_lock)
            if IndexLayout.of(layout.root) == layout:
                return found
        except IndexDirectoryError:
            if IndexLayout.of(layout.root) == layout:
                raise
        # The index was replaced meanwhile: the result or the error is that of the old one.
        layout = IndexLayout.of(layout.root)


def _verify(
    layout: IndexLayout,
    full: bool,
    selection: Selection,
    load_localiser: LoadLocaliser | None,
    on_checked: OnChecked,
    holds_lock: bool,
) -> Verification:
    broken = []
    try:
        read_manifest(layout)
    except ManifestMismatch:
        raise
    except IndexDirectoryError as error:
        if not layout.catalog.exists():
            raise
        broken.append(Difference("manifest", layout.manifest, str(error), "restore"))
    problem = _catalogue_problem(layout)
    if problem:
        broken.append(Difference("catalogue", layout.catalog, problem, "restore"))
    if broken:
        return Verification(tuple(broken))
    with (
        TemporaryDirectory(prefix="scanonce-") as folder,
        Index.open(layout, open_pooling, read_only=True) as index,
    ):
        copy = Path(folder, "catalog.sqlite")
        index.catalog.copy_to(copy)
        with Catalog.open(
            copy
        ) as catalog:  # to be written: FTS5 checks itself by a statement that could write
            check = _IndexCheck(index, catalog, full, selection, on_checked, holds_lock)
            return check.run(load_localiser)


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


class _IndexCheck:
    """One check of an index: of a copy of its catalogue, and again of the live catalogue if something differs."""

    def __init__(
        self,
        index: Index,
        catalog: Catalog,
        full: bool,
        selection: Selection,
        on_checked: OnChecked,
        holds_lock: bool,
    ) -> None:
        self.index, self.catalog, self.live = index, catalog, index.catalog
        self.full, self.holds_lock = full, holds_lock
        self.selection = selection
        self.on_checked = on_checked
        self.stored = StoredFilesCheck(index)
        self.found: list[Difference] = []
        self.num_pending = 0
        self.sampled_only: set[int] = set()
        self.num_checked, self.num_all = 0, 0

    def run(self, load_localiser: LoadLocaliser | None) -> Verification:
        """Check video files, the stored files of each video, the vector index, and leftovers."""
        files = _all_files(self.catalog)
        videos = self.catalog.videos(states=SEARCHABLE)
        self.num_all = len(files) + len(videos)
        if self.index.anchors is not None and load_localiser is not None:
            self.check_localiser(load_localiser)
        self.check_files(files)
        chosen = {video.video_id for video in (videos if self.full else _sample(videos))}
        whole = self.check_videos(videos, _by_video(files), chosen)
        compared = [video for video in whole if video.video_id in chosen]
        self.check_vectors(compared)
        self.check_lines()
        self.check_leftovers()
        has_thumbnails = self.index.thumbnails.has
        return Verification(
            tuple(self.found),
            videos=len(videos),
            files=len(files),
            compared=len(compared),
            sampled_only=len(self.sampled_only),
            without_thumbnails=sum(not has_thumbnails(video.uid) for video in videos),
            pending=self.num_pending,
        )

    # ------------------------------------------------ video files

    def check_files(self, files: Sequence[FileRecord]) -> None:
        """Compare the video files with their records."""
        contents = self.catalog.contents() if self.full else {}
        libraries = [library.root for library in self.catalog.libraries()]
        for record in files:
            if compare_file(record, contents, libraries, self.selection) is not None:
                difference = self.compare_again(record.stamp.path, libraries)
                if difference is None:
                    pass
                elif difference.remedy == "index" and self.is_being_written():
                    self.num_pending += 1
                else:
                    self.found.append(difference)
            elif record.video_id and is_sampled_only(contents.get(record.video_id)):
                self.sampled_only.add(record.video_id)
            self.count_checked()

    def compare_again(self, path: Path, libraries: Sequence[Path]) -> Difference | None:
        """Compare one file with the live catalogue."""
        for record in self.live.files_under(path):
            if record.stamp.path == path:
                ids = [record.video_id] if self.full and record.video_id is not None else []
                contents = self.live.contents(ids)
                return compare_file(record, contents, libraries, self.selection)
        return None

    # ------------------------------------------------ stored files of videos

    def check_localiser(self, load_localiser: LoadLocaliser) -> None:
        """Load the localiser; if it fits the index, anchors are checked against its grid."""
        anchors = str(self.index.manifest.anchors)
        problem = None
        try:
            localiser = load_localiser()
        except LocaliserError as error:
            problem = str(error)
        else:
            if anchors.startswith(localiser.folder):
                self.stored = StoredFilesCheck(self.index, localiser.grid, localiser.width)
            else:
                problem = f"the anchors were made by another version of {localiser.name}"
        if problem:
            subject = self.index.layout.anchors_of(anchors)
            self.found.append(Difference("localiser", subject, problem, "localise"))

    def check_videos(
        self,
        videos: Sequence[Video],
        files: Mapping[int, Sequence[FileRecord]],
        chosen: Collection[int],
    ) -> list[Video]:
        """Check the stored files of each video, with all values of the chosen ones; return videos without a fault."""
        whole = []
        for video in videos:
            values = video.video_id in chosen
            if self.stored.differences(video, files.get(video.video_id, ()), values=values):
                # again by the live catalogue, which may have lost the video meanwhile
                for each in self.live.videos([video.video_id], states=SEARCHABLE):
                    records = [file for path in each.paths for file in self.live.files_under(path)]
                    self.found += self.stored.differences(each, records, values=values)
            else:
                whole.append(video)
            self.count_checked()
        return whole

    # ------------------------------------------------ vectors

    def check_vectors(self, compared: Sequence[Video]) -> None:
        """Check that the vector index is whole and has every live video, and compare the vectors of some videos."""
        generation = self.check_generation()
        if generation is None:
            return
        rows = published_rows(generation)
        for video in compared:
            if video.video_id not in rows:
                continue
            try:
                if self.index.features.was_pooled_otherwise(video.uid):
                    continue
                reason = self.index.clips.difference(video, rows[video.video_id]())
            except IndexDirectoryError:  # its files were whole a moment ago: it was deleted since
                continue
            # A video keeps its vectors as long as its id, so it is enough to see that the id is still live.
            if reason and self.live.videos([video.video_id], states=SEARCHABLE):
                self.found.append(Difference.of_video(video, "vectors differ", reason))

    def check_generation(self) -> Generation | None:
        """Return the newest generation if it is whole; report missing videos unless a writer is about to add them."""
        folder, dim = self.index.clips.folder, self.index.clips.dim

        def damaged(detail: str) -> Difference:
            return Difference("vectors damaged", folder, detail, "repair")

        for _ in range(10):
            token, is_written = self.live.change_token(), self.is_being_written()
            live = self.live.live_video_ids()
            newest = newest_number(folder)
            try:
                generation = newest_generation(folder, dim=dim)
            except ManifestMismatch as error:
                self.found.append(damaged(str(error)))
                return None
            is_written = is_written or self.is_being_written()
            # Without a writer before and after, and without a commit in between, the two belong together.
            if is_written or self.live.change_token() == token:
                break
        whole = generation is not None and generation.number >= newest
        if not whole and (newest or len(live)) and not is_written:
            used = f"generation {generation.number} is used" if generation else "there is no other"
            self.found.append(
                damaged(
                    f"generation {newest} cannot be used, {used}" if newest else "it is missing"
                )
            )
        if generation is None or not whole:
            self.num_pending += is_written
            return None
        if generation.videos.max(initial=0) > self.live.last_video_id():
            self.found.append(
                damaged(
                    "it has ids of videos the catalogue never had; other videos will get these ids"
                )
            )
            return None
        missing = np.setdiff1d(live, generation.videos)
        if is_written:
            self.num_pending += len(missing)
        else:
            detail = "it is in no generation of the vector index: each search loads it again"
            for video in self.live.videos(missing.tolist()):
                self.found.append(Difference.of_video(video, "vectors missing", detail))
        return generation

    # ------------------------------------------------ lines

    def check_lines(self) -> None:
        """Compare the words of lines and paths, and the vectors of lines, with the lines and paths."""
        layout = self.index.layout
        for detail in self.catalog.lines.word_problems():
            self.found.append(Difference("words damaged", layout.catalog, detail, "repair"))
        found = [each.track_id for each in self.catalog.lines.vector_problems()]
        # again by the live catalogue, in which the track may be gone or made again
        problems = {
            each.video_id: each.problem
            for each in (self.live.lines.vector_problems(found) if found else ())
        }
        for video in self.live.videos(problems, states=SEARCHABLE):
            detail = f"the vectors of its lines: {problems[video.video_id]}"
            self.found.append(Difference.of_video(video, "line vectors damaged", detail))

    # ------------------------------------------------ leftovers

    def check_leftovers(self) -> None:
        """Find orphaned and unfinished files, and videos that lost their last file."""
        layout = self.index.layout
        leftovers = find_leftovers(layout, self.catalog.uids())
        without_files = self.catalog.without_files()
        if not leftovers and not without_files:
            return
        if self.is_being_written():
            self.num_pending += len(leftovers) + len(without_files)
            return
        leftovers = [path for path in find_leftovers(layout, self.live.uids()) if path in leftovers]
        remaining = self.live.without_files().items() & without_files.items()
        if self.is_being_written():
            self.num_pending += len(leftovers) + len(remaining)
            return
        for path in leftovers:
            detail = "it belongs to no video in the catalogue, or was never finished"
            self.found.append(Difference("orphan", path, detail, "repair"))
        for video_id, uid in sorted(remaining):
            detail = "the catalogue has a video without a file; searches do not find it"
            subject = self.index.features.path(uid)
            self.found.append(Difference("video without file", subject, detail, "index", video_id))

    def is_being_written(self) -> bool:
        """Whether another process writes the index now."""
        return not self.holds_lock and owner(self.index.layout) is not None

    def count_checked(self) -> None:
        """Report that one more file or video was checked."""
        self.num_checked += 1
        self.on_checked(self.num_checked, self.num_all)


def _all_files(catalog: Catalog) -> list[FileRecord]:
    """Every file of the catalogue once, even if libraries are inside each other."""
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


def _sample(videos: Sequence[Video]) -> list[Video]:
    """Choose the same videos each time, in their order."""
    if len(videos) <= _SAMPLE:
        return list(videos)
    chosen = np.random.default_rng(0).choice(len(videos), _SAMPLE, replace=False)
    return [videos[number] for number in np.sort(chosen).tolist()]
