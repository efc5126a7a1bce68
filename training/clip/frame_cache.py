"""Frames of videos and of parts of videos, decoded once and memory-mapped: later epochs decode nothing.

    parts = [VideoPart(Path("a.mp4"), None), VideoPart(Path("a.mp4"), Span(2.0, 7.5))]
    cache = FrameCache.build(Path("run/frames"), parts, preprocessing=encoder.preprocessing)
    cache.kept      # [0, 1]: parts that have frames
    cache.frames(1)  # uint8 [T, height, width, 3] at the encoder's size, T from 1 to max_frames
    cache.problems  # videos that are left out, with the reasons

Frames are sampled as in CLIP4Clip: one a second by their true times, and at most `max_frames` of these, evenly spread.
A video is decoded once for all its parts, in guarded processes (`media.workers`); bad videos are left out and reported.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from scanonce.indexer.hashing import fast_hash
from scanonce.indexer.settings import IndexerSettings
from scanonce.media.answers import Failed, Finished, Frames
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.runtime import num_cores
from scanonce.storage.errors import ConfigError, reported
from scanonce.storage.files import make_folder, write_whole
from scanonce.storage.records import Span
from scanonce.storage.targets import shown_at
from scanonce.training.bars import OnProgress

_SAVE_SECONDS = 60.0
"""Decoding time that is lost when a run is killed."""


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A video, or a part of it, whose frames are wanted."""

    video: Path
    span: Span | None = None
    """None: the whole video."""


@dataclass(frozen=True, slots=True)
class CacheProblem:
    """A video that is left out or incomplete."""

    video: Path
    reason: str
    is_left_out: bool
    """False: the frames that could be decoded are used."""


class FrameCache:
    """Frames of parts, by the number of the part."""

    def __init__(
        self,
        frames: NDArray[np.uint8],
        rows: Sequence[tuple[int, int] | None],
        problems: Sequence[CacheProblem],
        num_decoded: int,
    ) -> None:
        """Hold mapped frames ``[N, height, width, 3]`` and each part's (first row, rows); `build` makes it."""
        self._frames = frames
        self._rows = rows
        self.problems = tuple(problems)
        """Videos that are left out or incomplete."""
        self.num_decoded = num_decoded
        """Number of videos that had to be decoded; 0 if an earlier run decoded all of them."""
        self.kept = [number for number, each in enumerate(rows) if each is not None]
        """Numbers of the parts that have frames."""

    def frames(self, number: int) -> NDArray[np.uint8]:
        """Return the frames of one part in order of time, ``[T, height, width, 3]``; a view of the file.

        T is from 1 to ``max_frames``.

        Raises:
            KeyError: the part's video is left out, see `problems`.
        """
        rows = self._rows[number]
        if rows is None:
            raise KeyError(number)
        first, count = rows
        return self._frames[first : first + count]

    @classmethod
    def build(
        cls,
        folder: Path,
        parts: Sequence[VideoPart],
        *,
        preprocessing: Preprocessing,
        fps: float = 1.0,
        max_frames: int = 12,
        workers: int = 0,
        on_progress: OnProgress = lambda done, total: None,
    ) -> "FrameCache":
        """Return the frames of all parts; frames that the folder does not have are decoded.

        Costs the decoding of each new video, and on disk 27 kB a frame at 96 x 96 and 150 kB at 224 x 224. Several
        processes may call it at once: one decodes, the others wait and map the same file.

        Args:
            folder: folder of the cache; made if it is missing. Frames of other settings in it are not touched.
            parts: parts whose frames are wanted; may repeat.
            preprocessing: preprocessing of the encoder; frames are stored at its input size, not normalised.
            fps: frames per second of video.
            max_frames: most frames of a part.
            workers: decoding processes; 0: one per core.
            on_progress: called with the number of videos that are done, and of all videos.

        Raises:
            ConfigError: ``fps`` is not positive and finite, or ``max_frames`` is less than 1.
            IndexDirectoryError: the folder cannot be written.
        """
        settings = _Settings.of(preprocessing, Sampling("uniform", fps), max_frames)
        with reported(folder, "written"):
            make_folder(folder)
            # other processes wait here while one decodes, and then find all frames
            with FileLock(folder / "decoding.lock"):
                store = _Store(folder, settings)
                filling = _Filling(store, parts, on_progress)
                filling.decode_missing(preprocessing, workers)
                return cls(store.mapped(), filling.rows(), filling.problems, filling.num_decoded)


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings that decide which frames a part has, and their pixels."""

    size: tuple[int, int]
    """(height, width)."""
    resize: str
    """Steps of resizing to that size."""
    fps: float
    max_frames: int

    @classmethod
    def of(cls, steps: Preprocessing, sampling: Sampling, max_frames: int) -> "_Settings":
        if max_frames < 1:
            raise ConfigError(f"at least one frame of each part is needed; got {max_frames}")
        resize = f"{steps.short_side} {steps.exact_size} {steps.crop} {steps.resample}"
        return cls(steps.output_size, resize, sampling.fps, max_frames)

    @property
    def name(self) -> str:
        """Name of the two files of these settings."""
        return hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()

    @property
    def frame_bytes(self) -> int:
        return self.size[0] * self.size[1] * 3


class _Store:
    """The two files of the same settings: all frames one after another, and the rows of each part.

    Frames are only ever appended, and they count only after the index names them. The next run cuts off the leftovers
    of a run that died, and mappings of earlier rows stay valid.
    """

    def __init__(self, folder: Path, settings: _Settings) -> None:
        self.settings = settings
        self.folder = folder
        self.parts: dict[str, tuple[int, int]] = {}
        """(first row, number of rows) by key; no rows if a part begins after the end of its video."""
        self.partial: dict[str, str] = {}
        """Reason why a video is incomplete, by content."""
        self.num_frames = 0
        self._data_path = folder / f"{settings.name}.frames"
        self._index_path = folder / f"{settings.name}.json"
        self._read()
        self._saved_at = time.monotonic()

    def _read(self) -> None:
        """Read the index of an earlier run; if it is damaged, everything is decoded again."""
        try:
            index = json.loads(self._index_path.read_text(encoding="utf-8"))
            num_frames = int(index["num_frames"])
            if self._data_path.stat().st_size < num_frames * self.settings.frame_bytes:
                return
            self.parts = {str(key): (int(a), int(n)) for key, (a, n) in index["parts"].items()}
            self.partial = {str(key): str(reason) for key, reason in index["partial"].items()}
            self.num_frames = num_frames
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.parts, self.partial = {}, {}

    def open_data(self) -> IO[bytes]:
        """Open the frames for appending. A file that the index does not describe is replaced by a new one."""
        if self.num_frames == 0:
            self._data_path.unlink(missing_ok=True)
        file = self._data_path.open("ab")
        file.truncate(self.num_frames * self.settings.frame_bytes)
        return file

    def add(self, file: IO[bytes], key: str, frames: Iterable[bytes]) -> None:
        first = self.num_frames
        for frame in frames:
            file.write(frame)
            self.num_frames += 1
        self.parts[key] = (first, self.num_frames - first)

    def save(self, file: IO[bytes], *, every_seconds: float = 0.0) -> None:
        """Make the additions durable, frames first; at most once in ``every_seconds``."""
        if time.monotonic() - self._saved_at < every_seconds:
            return
        file.flush()
        os.fsync(file.fileno())
        index = {
            "settings": asdict(self.settings),
            "num_frames": self.num_frames,
            "parts": self.parts,
            "partial": self.partial,
        }
        write_whole(self._index_path, lambda out: out.write(json.dumps(index).encode()))
        self._saved_at = time.monotonic()

    def mapped(self) -> NDArray[np.uint8]:
        """``[num_frames, height, width, 3]``, read-only."""
        shape = (self.num_frames, *self.settings.size, 3)
        if self.num_frames == 0:  # an empty file cannot be mapped
            return np.zeros(shape, np.uint8)
        return np.memmap(self._data_path, np.uint8, mode="r", shape=shape)


class _Filling:
    """Finds the contents of the parts, and decodes those that the store does not have."""

    def __init__(self, store: _Store, parts: Sequence[VideoPart], on_progress: OnProgress) -> None:
        self.problems: list[CacheProblem] = []
        self.num_decoded = 0
        self._store = store
        self._parts = parts
        self._on_progress = on_progress
        self._videos = list(dict.fromkeys(part.video for part in parts))
        self._contents = self._hashed()

    def _hashed(self) -> dict[Path, str]:
        """Return the content hash of each readable video, so that a moved video is recognised."""
        contents = {}
        for video in self._videos:
            try:
                contents[video] = fast_hash(video)
            except OSError as error:
                self._leave_out(video, f"it cannot be read ({error.strerror or error})")
        return contents

    def _leave_out(self, video: Path, reason: str) -> None:
        self.problems.append(CacheProblem(video, reason, is_left_out=True))

    def decode_missing(self, preprocessing: Preprocessing, workers: int) -> None:
        """Decode every content with a missing part, once."""
        spans: dict[str, dict[str, Span | None]] = {}
        paths: dict[str, Path] = {}
        for part in self._parts:
            content = self._contents.get(part.video)
            if content is not None and _key(content, part.span) not in self._store.parts:
                spans.setdefault(content, {})[_key(content, part.span)] = part.span
                paths.setdefault(content, part.video)
        if not spans:
            return
        defaults = IndexerSettings()
        request = DecodeRequest(
            Sampling("uniform", self._store.settings.fps),
            defaults.decoder,
            preprocessing,
            defaults.stall_seconds,
        )
        with (
            self._store.open_data() as file,
            DecodePool(request, workers=workers or num_cores()) as pool,
        ):
            self._add_all(file, pool, list(paths.items()), spans)

    def _add_all(
        self,
        file: IO[bytes],
        pool: DecodePool,
        videos: Sequence[tuple[str, Path]],
        spans: dict[str, dict[str, Span | None]],
    ) -> None:
        done = len(self._videos) - len(videos)
        decoding: dict[int, _Decoding] = {}
        with ExitStack() as spools:
            for event in pool.decode([path for _, path in videos]):
                content, path = videos[event.job]
                match event:
                    case Frames(job, pts, images):
                        if job not in decoding:
                            spool = tempfile.TemporaryFile(dir=self._store.folder)  # noqa: SIM115
                            decoding[job] = _Decoding(spools.enter_context(spool))
                        decoding[job].add(pts, images)
                    case Finished(job, _, problem) if job not in decoding:
                        self._leave_out(path, problem or "it has no frame that can be decoded")
                    case Finished(job, end_seconds, problem):
                        if problem:
                            self._store.partial[content] = problem
                        video = decoding.pop(job)
                        for key, span in spans[content].items():
                            settings = self._store.settings
                            chosen = video.choose(
                                span, end_seconds, settings.max_frames, settings.fps
                            )
                            self._store.add(file, key, video.read(chosen))
                        video.close()
                        self.num_decoded += 1
                    case Failed(job, reason):
                        self._leave_out(path, reason)
                        if job in decoding:
                            decoding.pop(job).close()
                if isinstance(event, Finished | Failed):
                    done += 1
                    self._on_progress(done, len(self._videos))
                    self._store.save(file, every_seconds=_SAVE_SECONDS)
        self._store.save(file)

    def rows(self) -> list[tuple[int, int] | None]:
        """Return the rows of each part; None for those that are left out, which are in `problems`."""
        rows: list[tuple[int, int] | None] = []
        reported: set[str] = set()
        for part in self._parts:
            content = self._contents.get(part.video, "")
            first, count = self._store.parts.get(_key(content, part.span), (0, 0))
            rows.append((first, count) if count else None)
            if content in self._store.partial and content not in reported:
                reported.add(content)
                reason = self._store.partial[content]
                self.problems.append(CacheProblem(part.video, reason, is_left_out=False))
            if not count and _key(content, part.span) in self._store.parts:
                assert part.span is not None, "a whole video has a frame"
                start = part.span.start_seconds
                self._leave_out(part.video, f"it ends before its part from {start:g} s on")
        return rows


def _key(content: str, span: Span | None) -> str:
    return content if span is None else f"{content} {span.start_seconds!r} {span.end_seconds!r}"


class _Decoding:
    """Frames of a video that is being decoded, in a temporary file: an hour at 224 x 224 is half a gigabyte."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._pts: list[NDArray[np.float64]] = []
        self._frame_bytes = 0

    def add(self, pts: NDArray[np.float64], images: NDArray[np.uint8]) -> None:
        self._pts.append(pts)
        self._frame_bytes = images[0].nbytes
        self._spool.write(images.tobytes())

    def choose(
        self, span: Span | None, end_seconds: float, most: int, fps: float
    ) -> NDArray[np.int64]:
        return choose_frames(np.concatenate(self._pts), span, end_seconds, most, fps)

    def read(self, rows: NDArray[np.int64]) -> Iterable[bytes]:
        for row in rows.tolist():
            self._spool.seek(row * self._frame_bytes)
            yield self._spool.read(self._frame_bytes)

    def close(self) -> None:
        self._spool.close()


def choose_frames(
    pts_seconds: NDArray[np.float64], span: Span | None, end_seconds: float, most: int, fps: float
) -> NDArray[np.int64]:
    """Choose the frames of a part: those on screen at its targets, or at ``most`` of them, evenly spread.

    At one target a second, of frames at 0, 1, 2, 3, 4 the part [0.5, 4.0) has those at 1, 2 and 3, with ``most`` 2
    those at 1 and 3. A part between two targets has the frame on screen at the one before it. A frame that is held
    comes once for each target, as in the clips of an index.

    Args:
        pts_seconds: [N] rising, the times from which the frames are on screen, at least one.
        span: span of the part; None: the whole video.
        end_seconds: end of the video.
        most: largest number of frames, at least 1.
        fps: targets per second.

    Returns:
        Rising numbers of frames, at least one; none if the part begins after the end of the video.
    """
    start, end = (span.start_seconds, span.end_seconds) if span else (0.0, end_seconds)
    if span is not None and start >= end_seconds:
        return np.empty(0, np.int64)
    _, inside = shown_at(pts_seconds, fps, start, min(end, end_seconds))
    if len(inside) <= most:
        return inside
    if most == 1:
        return inside[[len(inside) // 2]]
    return inside[np.linspace(0, len(inside) - 1, most).astype(np.int64)]
