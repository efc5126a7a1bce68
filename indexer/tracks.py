"""The second pass over an index: speech, text in the image and subtitles, one track after the other.

    report = make_tracks(layout, ["subtitle", "said"], settings=TrackSettings(), indexer=IndexerSettings())

The images of a video are searchable before. A track of a video is stored by one commit and is not made again: a run may
be stopped at any point. Files are read in guarded children (`media.tracks`); a file that cannot be read gets a note,
and costs no other file anything.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from scanonce.indexer.passages import embed_passages, embed_tracks
from scanonce.indexer.scan import ScanProblem
from scanonce.indexer.settings import IndexerSettings
from scanonce.indexer.written import WrittenLines
from scanonce.media.guard import MAX_PRINTED_BYTES
from scanonce.media.limits import Limits
from scanonce.media.subtitles import sidecars
from scanonce.media.tracks import Audio, Pictures, read_texts
from scanonce.models.tracks.meaning import TextModel, load_text_model
from scanonce.models.tracks.settings import TrackSettings
from scanonce.models.tracks.speech import SpeechModel, load_speech_model
from scanonce.models.tracks.text_in_images import ImageReader, load_image_reader
from scanonce.storage.catalog.catalog import SEARCHABLE
from scanonce.storage.catalog.lines import MAX_LINES
from scanonce.storage.errors import VideoError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line, MadeTrack, Video

_LEAST_PAUSE, _MOST_PAUSE = 1.0, 16.0  # seconds from a picture that is read to the next
_AFTER_SECONDS = 0.5  # a line may end this long after the last frame


@dataclass(frozen=True, slots=True)
class TrackProgress:
    """Progress of a run; passed to the callback with every video and now and then within one."""

    track: MadeTrack
    videos_done: int
    videos_total: int
    seconds_done: float
    """Seconds of video that are read; videos of this track only."""
    seconds_total: float
    current: Path


@dataclass(frozen=True, slots=True)
class TracksReport:
    """The result of a run."""

    made: dict[MadeTrack, int]
    """Number of videos read, by track."""
    num_lines: int
    num_embedded: int
    """Number of earlier tracks that got the vectors of their lines."""
    notes: tuple[ScanProblem, ...]
    """Files of which a track could not be read, or not all of it, with the reason."""
    num_offline: int
    """Number of videos whose files cannot be seen now; the next run reads them."""
    num_pictures: int = 0
    """Number of frames whose text was read."""
    interrupted: bool = False


OnTrackProgress = Callable[[TrackProgress], object]
Committing = Callable[[], AbstractContextManager[object]]
"""Entered for each commit; locks the index."""


def make_tracks(
    layout: IndexLayout,
    tracks: Sequence[MadeTrack],
    *,
    settings: TrackSettings,
    indexer: IndexerSettings,
    device: str = "auto",
    under: Sequence[Path] = (),
    again: bool = False,
    retry: bool = False,
    on_progress: OnTrackProgress = lambda _: None,
    committing: Committing | None = None,
) -> TracksReport:
    """Read these tracks of all searchable videos that do not have them.

    Args:
        layout: the index.
        tracks: in the order in which they are read.
        settings: the models.
        indexer: limits of the children.
        device: of the speech model.
        under: only videos at or below these absolute paths. Default: all.
        again: read videos again that have the track.
        retry: read videos again whose track has a note.
        on_progress: called with the state of the run.
        committing: see `Committing`; None: the index is locked for the whole run.

    Returns:
        The result. Ctrl-C ends the run early with ``interrupted`` set; finished tracks are kept.

    Raises:
        TrackError: a model or a package is missing.
        IndexDirectoryError: the index cannot be written, or another process writes it.
    """
    doing = "scanonce tracks" if committing is None else None
    with Index.open(layout, writing=doing) as index:
        run = _Run(index, settings, indexer, device, on_progress, committing or nullcontext)
        interrupted = False
        try:
            run.embed_earlier()
            for track in tracks:
                run.make(track, under, again=again, retry=retry)
        except KeyboardInterrupt:
            interrupted = True
        return replace(run.report(), interrupted=interrupted)


def check_tracks(
    tracks: Sequence[MadeTrack], settings: TrackSettings, device: str = "auto"
) -> None:
    """Load the models of some tracks, and drop them.

    Raises:
        TrackError: a model or a package is missing.
    """
    if "said" in tracks:
        load_speech_model(settings.speech_model, device)
    if "written" in tracks:
        load_image_reader()


class _Run:
    """One run, with its models and the counts so far."""

    def __init__(
        self,
        index: Index,
        settings: TrackSettings,
        indexer: IndexerSettings,
        device: str,
        on_progress: OnTrackProgress,
        committing: Committing,
    ) -> None:
        self.catalog = index.catalog
        self.committing = committing
        self.settings = settings
        self.limits = Limits(
            indexer.stall_seconds,
            indexer.decode_memory_mb,
            indexer.decode_cpu_seconds,
            MAX_PRINTED_BYTES,
        )
        self.device = device
        self.on_progress = on_progress
        self.made: dict[MadeTrack, int] = {}
        self.notes: list[ScanProblem] = []
        self.offline: set[int] = set()
        self.num_lines, self.num_embedded, self.num_pictures = 0, 0, 0
        self._text_model: TextModel | None = load_text_model(settings.text_model)

    def report(self) -> TracksReport:
        """Return the result so far."""
        notes, offline = tuple(self.notes), len(self.offline)
        counts = self.num_lines, self.num_embedded
        return TracksReport(self.made, *counts, notes, offline, self.num_pictures)

    def embed_earlier(self) -> None:
        """Give the lines of earlier runs the vectors of this text model."""
        if self._text_model is not None:
            lines, model = self.catalog.lines, self._text_model
            tracks = lines.without_vectors(model.fingerprint)
            self.num_embedded = embed_tracks(lines, tracks, model, self.committing)

    def make(self, track: MadeTrack, under: Sequence[Path], *, again: bool, retry: bool) -> None:
        """Read one track of all videos that need it."""
        self.made.setdefault(track, 0)
        todo = list(self._missing(track, under, again=again, retry=retry))
        if not todo:
            return
        maker = _MAKERS[track](self)
        total = sum(video.duration_seconds for video, _ in todo)
        done = 0.0
        for number, (video, path) in enumerate(todo):
            before = done

            def on_seconds(seconds: float, *, at: int = number, start: float = before) -> None:
                now = TrackProgress(track, at, len(todo), start + seconds, total, path)  # noqa: B023
                self.on_progress(now)

            on_seconds(0.0)
            self._make_one(track, maker, video, path, on_seconds)
            done += video.duration_seconds
            self.on_progress(TrackProgress(track, number + 1, len(todo), done, total, path))

    def _missing(
        self, track: MadeTrack, under: Sequence[Path], *, again: bool, retry: bool
    ) -> Iterator[tuple[Video, Path]]:
        """Yield the videos to read, each with a file of it."""
        have = self.catalog.lines.sources(track)
        ids = self.catalog.matching_videos(under=under).tolist() if under else None
        for video in self.catalog.videos(ids, states=SEARCHABLE):
            source, problem = have.get(video.video_id, (None, None))
            is_made = source is not None and not again and not (retry and problem)
            if is_made and (track != "subtitle" or source == _subtitle_source(video)):
                continue
            path = next((each for each in video.paths if each.is_file()), None)
            if path is None:
                self.offline.add(video.video_id)
            else:
                yield video, path

    def _make_one(
        self,
        track: MadeTrack,
        maker: "_Maker",
        video: Video,
        path: Path,
        on_seconds: Callable[[float], object],
    ) -> None:
        try:
            made = maker.read(video, path, on_seconds)
        except VideoError as error:
            made = _Made(maker.source(video), (), str(error))
        lines = [line for line in made.lines if line.track == track]
        facts = [line for line in made.lines if line.track == "facts"]
        embedder = passages = None
        if self._text_model is not None and lines:
            embedder = self._text_model.fingerprint
            passages = embed_passages(lines[:MAX_LINES], self._text_model)
        put = self.catalog.lines.put
        with self.committing():
            put(
                video.video_id,
                track,
                lines,
                source=made.source,
                problem=made.problem,
                embedder=embedder,
                passages=passages,
            )
            if facts:
                put(video.video_id, "facts", facts, source=made.source)
        self.made[track] += 1
        self.num_lines += len(lines)
        if made.problem:
            self.notes.append(ScanProblem(path, f"{track}: {made.problem}"))


# ---------------------------------------------------------------- the tracks


@dataclass(frozen=True, slots=True)
class _Made:
    """One track of one video."""

    source: str
    lines: Sequence[Line]
    problem: str | None


class _Maker(ABC):
    """Reads one track of videos."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    @abstractmethod
    def source(self, video: Video) -> str:
        """Return what the track of a video is made by and from."""

    @abstractmethod
    def read(self, video: Video, path: Path, on_seconds: Callable[[float], object]) -> _Made:
        """Read the track of a video; ``on_seconds`` is called with the seconds that are done.

        Raises:
            VideoError: nothing can be read.
        """


class _Subtitles(_Maker):
    """Text streams, subtitle files, title and chapters."""

    def source(self, video: Video) -> str:
        """Return a digest of the subtitle files, so that a new one is noticed."""
        return _subtitle_source(video)

    def read(self, video: Video, path: Path, on_seconds: Callable[[float], object]) -> _Made:
        """See `_Maker.read`."""
        texts = read_texts(
            path,
            limits=self.run.limits,
            sidecars=[each for known in video.paths for each in sidecars(known)],
            offset_seconds=_offset(video),
            fps=video.info.fps if video.info else 0.0,
            max_lines=MAX_LINES,
        )
        lines = [
            Line(
                video.video_id,
                "facts" if each.is_fact else "subtitle",
                each.start_seconds,
                min(each.end_seconds, video.duration_seconds),
                each.text,
                language=each.language,
            )
            for each in texts.lines
            if each.start_seconds < video.duration_seconds
        ]
        return _Made(self.source(video), lines, texts.problem)


class _Speech(_Maker):
    """Speech of one audio track."""

    def __init__(self, run: _Run) -> None:
        super().__init__(run)
        self.model: SpeechModel = load_speech_model(run.settings.speech_model, run.device)

    def source(self, video: Video) -> str:
        """Return the name of the model."""
        return self.model.name

    def read(self, video: Video, path: Path, on_seconds: Callable[[float], object]) -> _Made:
        """See `_Maker.read`."""
        wanted = self.run.settings.audio_track
        number = max(0, wanted - 1)
        while True:
            lines, problem, num_tracks = self._read_track(video, path, number, on_seconds)
            number += 1
            if lines or wanted or number >= num_tracks:
                break
        if wanted > num_tracks:
            problem = f"it has {num_tracks} audio track(s), and tracks.audio_track is {wanted}"
        return _Made(self.source(video), lines, problem)

    def _read_track(
        self, video: Video, path: Path, number: int, on_seconds: Callable[[float], object]
    ) -> tuple[list[Line], str | None, int]:
        duration = video.duration_seconds
        with Audio(
            path,
            limits=self.run.limits,
            length_seconds=duration + _AFTER_SECONDS,
            offset_seconds=_offset(video),
            track=number,
        ) as audio:
            lines = [
                Line(
                    video.video_id,
                    "said",
                    each.start_seconds,
                    min(each.end_seconds, duration),
                    each.text,
                    each.confidence,
                    each.language,
                )
                for each in self.model.transcribe(audio, on_seconds)
                if each.start_seconds < duration
            ]
            return lines, audio.problem, audio.num_tracks


class _Written(_Maker):
    """Text in the image."""

    def __init__(self, run: _Run) -> None:
        super().__init__(run)
        self.reader: ImageReader = load_image_reader()

    def source(self, video: Video) -> str:
        """Return the name of the model."""
        return self.reader.name

    def read(self, video: Video, path: Path, on_seconds: Callable[[float], object]) -> _Made:
        """See `_Maker.read`."""
        lines, pause, after = WrittenLines(), _LEAST_PAUSE, 0.0
        with Pictures(
            path,
            limits=self.run.limits,
            length_seconds=video.duration_seconds + _AFTER_SECONDS,
            fps=self.run.settings.written_fps,
        ) as pictures:
            while (picture := pictures.next(after)) is not None:
                is_new = lines.add(picture, self.reader.read(picture.band))
                self.run.num_pictures += 1
                # what changes without new text is looked at less and less often
                pause = _LEAST_PAUSE if is_new else min(2 * pause, _MOST_PAUSE)
                after = picture.seconds + pause
                on_seconds(min(picture.seconds, video.duration_seconds))
            found = lines.finish(video.video_id, video.duration_seconds)
            return _Made(self.source(video), found, pictures.problem)


_MAKERS: dict[MadeTrack, type[_Maker]] = {
    "subtitle": _Subtitles,
    "said": _Speech,
    "written": _Written,
}


def _offset(video: Video) -> float:
    return video.info.offset_seconds if video.info else 0.0


def _subtitle_source(video: Video) -> str:
    """Return a digest of the subtitle files of a video: their names, sizes and times."""
    stamps = []
    for path in dict.fromkeys(each for known in video.paths for each in sidecars(known)):
        try:
            status = path.stat()
        except OSError:
            continue
        stamps.append(f"{path.name}:{status.st_size}:{status.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(sorted(stamps)).encode("utf-8", "surrogateescape"))
    return f"subtitles {digest.hexdigest()[:16]}" if stamps else "subtitles"
