"""Indexes folders of videos: decode, encode, store, publish.

Decoding runs in child processes (`media.workers`). Encoding runs here, in batches that cross the borders of videos, so
that neither waits for the other. One commit makes a video searchable; the vector index is derived afterwards. Finished
work is never repeated: a run may be stopped at any point, and the next one continues with the next video.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from scanonce.indexer.anchors import check_localiser, scan_anchors
from scanonce.indexer.encode import EncodedVideo, encode_videos
from scanonce.indexer.full_hashes import FullHashes
from scanonce.indexer.models import make_manifest
from scanonce.indexer.plan import NewContent, Plan, plan
from scanonce.indexer.scan import NOT_ADDED, Scan, ScanProblem, scan
from scanonce.indexer.selection import Selection
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.answers import Event, FactsRead, Failed, Finished, Frames, Opened
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.media.workers import DecodePool
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.protocol import ClipEncoder
from scanonce.models.runtime import num_cores
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.catalog.entries import RunCounts, RunOutcome
from scanonce.storage.facts import NO_FACTS, Facts
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.recorded import with_name
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run; passed to the callback several times a second at most."""

    videos_done: int
    videos_total: int
    bytes_done: float
    """Bytes of the files to be decoded; a file in work counts by the share that is decoded."""
    bytes_total: int
    video_seconds: float
    """Seconds of video decoded so far."""
    current: Path | None
    """The file of the last event."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The result of a run."""

    counts: RunCounts
    problems: tuple[ScanProblem, ...]
    """Files and folders that became partial, failed or could not be read in this run, with the reason."""
    num_offline: int = 0
    """Number of known files that cannot be seen now, for example because a disk is not plugged in; they are kept."""
    interrupted: bool = False
    failed_before: tuple[ScanProblem, ...] = ()
    """Files that failed in an earlier run, with the reason; they were not tried again."""
    other_contents: tuple[Path, ...] = ()
    """Files with the extension of a video that are none, such as source code; they were left out."""

    @property
    def nothing_usable(self) -> bool:
        """Whether none of the files is searchable now."""
        counts = self.counts
        return counts.indexed + counts.partial + counts.skipped == 0


OnProgress = Callable[[Progress], None]

_CLIPS_PER_MB = 20_000
"""Most clips per megabyte of a video file: 6 hours at the default clips. Real files have a hundredth of that, hours of
slides up to a half; a few bytes can claim to be days."""
_FACTS_AT_ONCE = 256  # videos whose facts are written by one commit
_REPORT_SECONDS = 0.1  # between two calls of ``on_progress``


def index_library(
    roots: Sequence[Path],
    *,
    layout: IndexLayout,
    encoder: ClipEncoder,
    settings: IndexerSettings,
    storage: StorageSettings,
    localiser: TrainedLocaliser | None = None,
    on_progress: OnProgress = lambda _: None,
    retry_failed: bool = False,
    again: Collection[int] = (),
) -> IndexReport:
    """Bring an index in line with the videos in some folders.

    Args:
        roots: folders, or single video files; new ones become libraries. A known root that is missing is offline: its
            videos are kept.
        layout: the index; it is created if it does not exist.
        encoder: the vision tower.
        settings: sampling, clips and decoding.
        storage: settings of the vector index.
        localiser: the trained localiser of the index, whose video side runs here; None if it has none.
        on_progress: called with the state of the run, several times a second at most.
        retry_failed: decode unchanged files again that failed before or could be decoded in part only.
        again: ids of videos to decode again in any case.

    Returns:
        The result. Ctrl-C ends the run early with ``interrupted`` set; every finished video is kept.

    Raises:
        ManifestMismatch: the index was made with other settings; nothing was changed.
        IndexDirectoryError: the index cannot be written, or another process writes it.
    """
    wanted = make_manifest(encoder, settings, localiser)
    with Index.create(
        layout, wanted, encoder.head_files, open_pooling, writing="scanonce index"
    ) as index:
        check_localiser(index, localiser)
        run = _Run(index, encoder, localiser, settings, storage, on_progress)
        return run.index(roots, retry_failed=retry_failed, again=again)


class _Run:
    """One run, with its models and settings and the counts so far."""

    def __init__(
        self,
        index: Index,
        encoder: ClipEncoder,
        localiser: TrainedLocaliser | None,
        settings: IndexerSettings,
        storage: StorageSettings,
        on_progress: OnProgress,
    ) -> None:
        self.target = index
        self.catalog = index.catalog
        self.encoder = encoder
        self.localiser = localiser
        self.settings = settings
        self.storage = storage
        self.on_progress = on_progress
        self.counts = RunCounts()
        self.problems: list[ScanProblem] = []
        self.num_offline = 0
        self.failed_before: tuple[ScanProblem, ...] = ()
        self.other_contents: tuple[Path, ...] = ()

    def index(
        self, roots: Sequence[Path], *, retry_failed: bool, again: Collection[int]
    ) -> IndexReport:
        """Plan, decode, encode, store, forget, publish."""
        run_id = self.catalog.runs.begin("index")
        outcome: RunOutcome = "failed"
        try:
            todo = self.make_plan(roots, retry_failed, again)
            tracker = _Tracker(todo, self.on_progress)
            batch_frames = self.settings.batch_frames or self.encoder.batch_frames
            files = [new.files[0] for new in todo.to_index]
            with (
                _Publisher(self.publish, self.settings) as publisher,
                FullHashes(files) as hashes,
                self.decoders() as pool,
            ):
                events = tracker.follow(hashes.follow(pool.decode([file.path for file in files])))
                fps = self.settings.sample_fps
                for video in encode_videos(
                    events, self.encoder, batch_frames=batch_frames, fps=fps
                ):
                    new = todo.to_index[video.job]
                    content = replace(new.content, full_hash=hashes.take(video.job))
                    self.store(video, replace(new, content=content))
                    tracker.finish(video.job)
                    publisher.publish_if_due()
            self.attach_and_forget(todo)
            self.read_missing_facts()
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "stopped"
        finally:
            self.publish()
            self.catalog.runs.finish(run_id, outcome, self.counts)
        return IndexReport(
            self.counts,
            tuple(self.problems),
            self.num_offline,
            interrupted=outcome == "stopped",
            failed_before=self.failed_before,
            other_contents=self.other_contents,
        )

    def make_plan(self, roots: Sequence[Path], retry_failed: bool, again: Collection[int]) -> Plan:
        """Find the files that are new, changed, moved and gone; record those that cannot be read."""
        settings = self.settings
        libraries = {library.root for library in self.catalog.libraries()}
        found = scan(roots, Selection(settings, [self.target.layout.root]), libraries=libraries)
        todo = plan(
            self.catalog,
            found,
            retry_failed=retry_failed,
            again=again,
            attempts=settings.decode_attempts,
        )
        self.add_libraries(found, todo, libraries)
        for file, reason in todo.unreadable:
            self.catalog.record_failed([file], reason)
            self.problems.append(ScanProblem(file.path, reason))
        self.problems += todo.problems
        self.num_offline = len(todo.offline)
        self.failed_before = tuple(
            ScanProblem(record.stamp.path, str(record.reason)) for record in todo.failed_before
        )
        self.other_contents = todo.other_contents
        self.count(
            seen=len(found.files) - len(todo.other_contents),
            skipped=todo.unchanged - len(todo.failed_before) + len(todo.to_attach),
            failed=len(todo.unreadable),
        )
        return todo

    def add_libraries(self, found: Scan, todo: Plan, libraries: Collection[Path]) -> None:
        """Add the new roots, but those that hold nothing to index."""
        for root in found.roots:
            if root in found.refused or not set(libraries).isdisjoint((root, *root.parents)):
                continue
            if root in todo.other_contents:
                reason = (
                    f"not a video by its content. {NOT_ADDED}: name a video or a folder of videos"
                )
                self.problems.append(ScanProblem(root, reason))
            else:
                self.catalog.add_library(root)

    def decoders(self, facts: Literal["also", "only"] = "also") -> DecodePool:
        """Return the child processes that decode, or only read facts."""
        settings = self.settings
        every = settings.thumbnail_seconds
        request = DecodeRequest(
            Sampling(settings.sampling, settings.sample_fps),
            settings.decoder,
            self.encoder.preprocessing,
            settings.stall_seconds,
            ThumbnailRequest(every, settings.thumbnail_width) if every else None,
            memory_mb=settings.decode_memory_mb,
            cpu_seconds=settings.decode_cpu_seconds,
            longest_seconds=3600 * settings.longest_video_hours,
            seconds_per_mb=_CLIPS_PER_MB / self.target.manifest.grid.clips_per_second,
            facts=facts,
        )
        return DecodePool(request, workers=settings.decode_workers or num_cores())

    def store(self, video: EncodedVideo | Failed, new: NewContent) -> None:
        """Write features, thumbnails and anchors, then make the video searchable by one commit."""
        if isinstance(video, Failed):
            self.store_failure(video, new)
            return
        before = self.catalog.videos([new.replaces]) if new.replaces else []
        self.target.features.write(new.content.uid, video.features)
        self.target.thumbnails.write(new.content.uid, video.thumbnails)
        anchors = self.target.anchors
        if self.localiser is not None and anchors is not None:
            arrays = scan_anchors(self.localiser, video.features, video.duration_seconds)
            anchors.write(new.content.uid, arrays)
        self.catalog.record_indexed(
            new.content,
            new.files,
            state="partial" if video.problem else "indexed",
            duration_seconds=video.duration_seconds,
            num_frames=len(video.features.pts_seconds),
            info=video.info,
            reason=video.problem,
            replaces=new.replaces,
            facts=with_name(video.facts, new.files[0].path.name),
        )
        if before:
            self.target.delete_stored(before)
        if video.problem:
            self.problems.append(ScanProblem(new.files[0].path, f"partial: {video.problem}"))
        self.count(
            indexed=not video.problem,
            partial=bool(video.problem),
            video_seconds=video.duration_seconds,
        )

    def store_failure(self, video: Failed, new: NewContent) -> None:
        """Record a failure; a video that was searchable before stays searchable."""
        reason = video.reason
        if new.replaces is None:
            self.catalog.record_failed(
                new.files,
                reason,
                content=new.content,
                detail=video.detail,
                transient=video.transient,
            )
        else:
            reason = f"scanning it again failed, its earlier scan is kept: {reason}"
        self.problems.append(ScanProblem(new.files[0].path, reason))
        self.count(failed=1)

    def attach_and_forget(self, todo: Plan) -> None:
        """Record copies and moves, then remove the files that are gone, with their stored data."""
        for each in todo.to_attach:
            self.catalog.attach_file(each.video_id, each.file, full_hash=each.full_hash)
        self.target.delete_stored(self.catalog.forget_files(todo.to_forget))
        self.count(forgotten=len(todo.to_forget))

    def read_missing_facts(self) -> None:
        """Read the facts of the videos that an earlier version indexed, if they are not offline; none is scanned."""
        missing = [
            (video, path)
            for video in self.catalog.without_facts()
            if (path := next(filter(os.path.isfile, video.paths), None)) is not None
        ]
        if not missing:
            return
        total = sum(video.size_bytes for video, _ in missing)
        read: dict[int, Facts] = {}
        num_done, bytes_done = 0, 0.0
        with self.decoders("only") as pool:
            for event in pool.decode([path for _, path in missing]):
                if not isinstance(event, FactsRead | Failed):
                    continue
                video, path = missing[event.job]
                # a file that cannot be read is not tried again by every run
                facts = event.facts if isinstance(event, FactsRead) else NO_FACTS
                read[video.video_id] = with_name(facts, path.name)
                if len(read) == _FACTS_AT_ONCE:
                    self.catalog.record_facts(read)
                    read = {}
                num_done, bytes_done = num_done + 1, bytes_done + video.size_bytes
                self.on_progress(Progress(num_done, len(missing), bytes_done, total, 0.0, path))
        if read:
            self.catalog.record_facts(read)

    def publish(self) -> None:
        """Bring the vector index in line with the catalogue."""
        self.target.publish(self.storage)

    def count(self, **more: float) -> None:
        """Add to the counts of the run."""
        sums = {name: getattr(self.counts, name) + value for name, value in more.items()}
        self.counts = replace(self.counts, **sums)


class _Publisher:
    """Publishes from time to time in another thread.

    Training the cells of a large vector index takes minutes, during which videos are stored and found as before.
    """

    def __init__(self, publish: Callable[[], None], settings: IndexerSettings) -> None:
        self._publish = publish
        self._every_seconds = settings.publish_seconds
        self._begun_at = time.monotonic()
        self._pool = ThreadPoolExecutor(1, "publish")
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the running publish. Its error is dropped: the publish at the end of the run meets it again."""
        self._pool.shutdown()

    def publish_if_due(self) -> None:
        """Begin to publish if it is time; raise the error of the last publish, if it had one."""
        if time.monotonic() - self._begun_at < self._every_seconds:
            return
        if self._running is not None:
            if not self._running.done():
                return
            self._running.result()
        self._begun_at = time.monotonic()
        self._running = self._pool.submit(self._publish)


class _Tracker:
    """Computes the progress from events and reports it: every finished video, all else ten times a second at most."""

    def __init__(self, todo: Plan, on_progress: OnProgress) -> None:
        self._files = [new.files[0] for new in todo.to_index]
        self._bytes_total = sum(file.size_bytes for file in self._files)
        # Sums for finished files, single values for files in work: a report costs the same in a library of any size.
        self._num_done, self._bytes_done, self._seconds_done = 0, 0, 0.0
        self._on_progress = on_progress
        self._shares: dict[int, float] = {}
        self._infos: dict[int, VideoInfo] = {}
        self._seconds: dict[int, float] = {}
        self._reported_at = 0.0

    def follow(self, events: Iterator[Event]) -> Iterator[Event]:
        """Pass events on."""
        for event in events:
            if isinstance(event, Opened):
                self._infos[event.job] = event.info
            elif isinstance(event, Frames):
                seconds = float(event.pts_seconds[-1])
                self._seconds[event.job] = seconds
                self._shares[event.job] = min(
                    1.0, seconds / max(self._infos[event.job].duration_seconds, seconds, 1e-3)
                )
            elif isinstance(event, Finished):
                self._seconds[event.job] = event.end_seconds
            self._report(event.job)
            yield event

    def finish(self, job: int) -> None:
        """Count a video that is stored or has failed."""
        self._num_done += 1
        self._bytes_done += self._files[job].size_bytes
        self._seconds_done += self._seconds.pop(job, 0.0)
        self._shares.pop(job, None)
        self._infos.pop(job, None)
        self._report(job, now=True)

    def _report(self, job: int, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at = time.monotonic()
        self._on_progress(
            Progress(
                videos_done=self._num_done,
                videos_total=len(self._files),
                bytes_done=self._bytes_done
                + sum(self._files[j].size_bytes * share for j, share in self._shares.items()),
                bytes_total=self._bytes_total,
                video_seconds=self._seconds_done + sum(self._seconds.values()),
                current=self._files[job].path,
            )
        )
