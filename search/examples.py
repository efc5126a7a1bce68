"""Examples as queries: an image, a clip, or a piece of a video of the library, as one vector.

    query, given = with_examples("at night", [Example("car.jpg"), Example("drive.mp4", span=(3.0, 8.0))])
    vectors = {part: tower.embed(snapshot, example) for part, example in given.items()}

A file from outside is decoded in a guarded child (`media.workers`), at the sampling of the index and with the
preprocessing of its encoder, and pooled as its clips are, so an example of a stored clip is that clip.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scanonce.media.answers import Event, Failed, Finished, Frames
from scanonce.media.child import DecodeRequest
from scanonce.media.messages import printable
from scanonce.media.sampling import Sampling
from scanonce.media.still import is_still
from scanonce.media.windows import windowed
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.protocol import ClipEncoder, window_of
from scanonce.search.query import MAX_WEIGHT, And, Given, Like, Query, Weighted, parse
from scanonce.search.query_text import query_text
from scanonce.search.snapshot import Snapshot
from scanonce.storage.catalog.known import nearest
from scanonce.storage.errors import EncoderError, QueryError
from scanonce.storage.files import expanded
from scanonce.storage.manifest import Manifest, check_encoder
from scanonce.storage.records import Span, Video

MAX_EXAMPLES = 16
"""Examples of one query; each is decoded when it is asked."""
MAX_SECONDS = 600.0
"""Longest clip of an example: the mean of more shows nothing in particular."""

_STALL_SECONDS, _CPU_SECONDS = 30.0, 600
_HEAD_BYTES = 12

Vector = NDArray[np.float32]
"""``[1, dim]`` of length 1."""


@dataclass(frozen=True, slots=True)
class Example:
    """An image or a clip outside of the library, for which something alike is looked for."""

    path: str | os.PathLike[str]
    span: tuple[float, float] | None = None
    """Begin and end of a piece of a clip, seconds; None: all of it, at most `MAX_SECONDS`."""
    weight: float = 1.0
    """As ``^`` in a query: over 0, at most `search.query.MAX_WEIGHT`."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the part of the image that counts, as shares of it from 0 to 1; None: all."""
    kind: Literal["any", "image", "clip"] = "any"
    """The kind of file; "any": its first bytes say whether it is an image."""
    name: str = ""
    """Name of it in the answer. Default: that of the file."""

    def __post_init__(self) -> None:
        """Raise QueryError if a value is not allowed."""
        shown = self.shown_name
        if not 0 < self.weight <= MAX_WEIGHT:
            raise QueryError(
                f"{shown}: a weight is over 0 and at most {MAX_WEIGHT:g}; got {self.weight}"
            )
        if self.span is not None and not 0 <= self.span[0] < self.span[1] < inf:
            raise QueryError(
                f"{shown}: a piece is two times in seconds, its begin before its end; got {self.span}"
            )
        if self.box is not None and not _is_box(*self.box):
            raise QueryError(
                f"{shown}: a crop is left, top, right, bottom as shares of the picture, such as 0.1,0.2,0.5,0.6; "
                f"got {self.box}"
            )

    @property
    def shown_name(self) -> str:
        """Its name, in printable characters."""
        return printable(self.name or os.path.basename(os.fspath(self.path)))


def _is_box(left: float, top: float, right: float, bottom: float) -> bool:
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def with_examples(text: str, examples: Sequence[Example]) -> tuple[Query, dict[Given, Example]]:
    """Return the query that asks for a text and examples at the same time.

    Args:
        text: a query, or nothing. It may say only what must not be there.
        examples: at least one.

    Returns:
        The query, and the example of each `Given` in it.

    Raises:
        QueryError: the text cannot be read, or there are more than `MAX_EXAMPLES`.
    """
    if len(examples) > MAX_EXAMPLES:
        raise QueryError(f"a query has at most {MAX_EXAMPLES} examples; got {len(examples)}")
    given = {Given(number, each.shown_name): each for number, each in enumerate(examples, 1)}
    parts: list[Query] = []
    if text.strip():
        query = parse(query_text(text), has_examples=True)
        parts = list(query.parts) if isinstance(query, And) else [query]
    for part, example in given.items():
        parts.append(part if example.weight == 1.0 else Weighted(part, example.weight))
    return parts[0] if len(parts) == 1 else And(tuple(parts)), given


class VisionTower:
    """The vision tower of an index, loaded by the first example and kept. May be shared by threads."""

    def __init__(self) -> None:
        self._encoder: ClipEncoder | None = None
        self._lock = Lock()

    def embed(self, snapshot: Snapshot, example: Example) -> Vector:
        """Pool the frames of an example as those of a clip.

        Raises:
            QueryError: there is no such file, it is no image or clip, or its span is outside of it.
            EncoderError: the vision tower of the index cannot be loaded.
            ManifestMismatch: its weights have changed since indexing.
        """
        path = _file_of(example)
        shows_still = example.kind == "image" or (
            example.kind == "any" and example.span is None and _is_still(path)
        )
        with self._lock:
            encoder = self._loaded(snapshot)
        manifest = snapshot.index.manifest
        request = _request(manifest, encoder, example, shows_still)
        with DecodePool(request, workers=1) as pool:
            features, pts, end = self._encode(
                pool.decode([path]), encoder, example, manifest.sample_fps
            )
        span = _piece(example, end, manifest.sample_fps, shows_still)
        embedding: Vector = snapshot.index.pooling.embed_spans(
            features, pts, np.array([span]), manifest.sample_fps
        )
        return embedding

    def _loaded(self, snapshot: Snapshot) -> ClipEncoder:
        manifest = snapshot.index.manifest
        if self._encoder is None or self._encoder.fingerprint != manifest.fingerprint:
            try:
                encoder = load_encoder(manifest.encoder, snapshot.models, towers="vision")
            except EncoderError as error:
                raise EncoderError(
                    f"an example needs the vision tower of {manifest.encoder}, which cannot be loaded: {error}"
                ) from error
            check_encoder(snapshot.index.layout, manifest, encoder.name, encoder.fingerprint)
            self._encoder = encoder
        return self._encoder

    def _encode(
        self, events: Iterable[Event], encoder: ClipEncoder, example: Example, fps: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float64], float]:
        """Encode the frames of an example from the begin of its span.

        Returns:
            ``[num_frames, dim]`` raw features as the index stores them, ``[num_frames]`` their times, and the end of
            the last frame in seconds.
        """
        begin = example.span[0] if example.span else 0.0
        if window := window_of(encoder):
            events = windowed(events, window, fps)
        features: list[NDArray[np.float16]] = []
        times: list[NDArray[np.float64]] = []
        end = 0.0
        for event in events:
            match event:
                case Frames(_, pts, images):
                    # of the frames before the span the last may be on screen at its begin
                    first = max(0, int(np.searchsorted(pts, begin, "right")) - 1)
                    times.append(pts[first:])
                    for at in range(first, len(images), encoder.batch_frames):
                        batch = images[at : at + encoder.batch_frames]
                        # not while a file is decoded: a slow one holds up nobody else
                        with self._lock:
                            found = encoder.encode_frames(batch)
                        features.append(found.astype(np.float16))
                case Failed(_, reason):
                    raise QueryError(f"{example.shown_name}: {reason}")
                case Finished(_, end_seconds, problem):
                    end = end_seconds
                    if not features:
                        raise QueryError(f"{example.shown_name}: {problem or 'it has no frame'}")
        return np.concatenate(features), np.concatenate(times), end


def _file_of(example: Example) -> Path:
    path = Path(expanded(example.path))
    try:
        is_file = path.is_file()
    except OSError:  # no file has such a name
        is_file = False
    if not is_file:
        raise QueryError(
            f"there is no file {printable(str(path))}: give the path of an image or a clip"
        )
    return path


def _is_still(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_still(file.read(_HEAD_BYTES))
    except OSError as error:
        raise QueryError(
            f"{path} cannot be opened ({error.strerror}): check its permissions"
        ) from error


def _request(
    manifest: Manifest, encoder: ClipEncoder, example: Example, shows_still: bool
) -> DecodeRequest:
    # one target beyond the end: the frame before it is then known to be the last one
    end = MAX_SECONDS if example.span is None else example.span[1]
    return DecodeRequest(
        Sampling(
            "keyframes" if manifest.sampling == "keyframes" else "uniform", manifest.sample_fps
        ),
        "pyav",
        encoder.preprocessing,
        _STALL_SECONDS,
        cpu_seconds=_CPU_SECONDS,
        longest_seconds=end + 1 / manifest.sample_fps,
        is_still=shows_still,
        box=example.box,
    )


def _piece(example: Example, end: float, fps: float, shows_still: bool) -> tuple[float, float]:
    """Return the span of an example inside of its file."""
    if shows_still:
        return 0.0, 1 / fps
    begin, last = example.span or (0.0, end)
    if begin >= end:
        raise QueryError(
            f"{example.shown_name} has only {end:.1f} seconds; the piece {begin:g}-{last:g} begins later"
        )
    last = min(last, end)
    if last - begin > MAX_SECONDS:
        raise QueryError(
            f"{example.shown_name}: a clip to search by has at most {MAX_SECONDS / 60:.0f} minutes; "
            f"name a piece of it, such as {example.shown_name}@0-10"
        )
    return begin, last


# --- Pieces of videos of the library ---


def stored_example(snapshot: Snapshot, part: Like) -> Vector:
    """Pool the stored frames of a piece of a video of the library.

    Raises:
        QueryError: no video has the name, more than one has it, or the piece begins after its end.
    """
    video, span = stored_piece(snapshot, part)
    bounds = np.array([(span.start_seconds, span.end_seconds)])
    embedding: Vector = snapshot.index.embed(video, bounds)
    return embedding


def stored_piece(snapshot: Snapshot, part: Like) -> tuple[Video, Span]:
    """Find a video of the library, and the piece inside of it; raises as `stored_example`."""
    video = _video_named(snapshot, part.video)
    start = part.start_seconds or 0.0
    end = video.duration_seconds if part.end_seconds is None else part.end_seconds
    if start >= video.duration_seconds:
        raise QueryError(
            f"{video.path.name} has only {video.duration_seconds:.0f} seconds; {part} begins later"
        )
    return video, Span(start, min(end, video.duration_seconds))


def _video_named(snapshot: Snapshot, name: str) -> Video:
    """Find the video of an example by its path, the end of its path, or its name without the ending.

    Raises:
        QueryError: there is none, or more than one.
    """
    fits = [
        video
        for video in snapshot.videos.values()
        if any(
            str(path) == name or str(path).endswith(f"/{name}") or path.stem == name
            for path in video.paths
        )
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise QueryError(
            f"like:{name} could be any of {len(fits)} videos, such as {fits[0].path} and {fits[1].path}; "
            "give more of the path"
        )
    names = {path.name for video in snapshot.videos.values() for path in video.paths}
    near = nearest(name, sorted(names))
    hint = "the index has no video" if near is None else f"the nearest is {near}"
    raise QueryError(f"no video of the index is called {name}; {hint}")
