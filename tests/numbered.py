"""Videos that are numbers: files, decoders, an encoder and a localiser without any video or model.

The file of video 17 has the text "video 17". The decoders return frames with that number, the encoder gives each number
its own direction, and a query for "video 17" has the same direction.
"""

import random
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from scanonce.indexer.hashing import fast_hash
from scanonce.media.answers import Event, FactsRead, Finished, Frames, NewThumbnails, Opened
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.soonet.trained import TrainedLocaliser
from scanonce.storage.facts import NO_FACTS
from scanonce.storage.records import VideoInfo
from scanonce.storage.stores.thumbnails import Thumbnails


class NumberEncoder:
    """Embeds frames and texts by the number in them; each number has its own direction."""

    name = "numbers"
    fingerprint = "n" * 64
    dim = 64
    head_files = ()
    batch_frames = 4
    max_concurrency = 1
    preprocessing = Preprocessing(None, (2, 2), None, "bicubic", (0.5,) * 3, (0.5,) * 3)

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = frames[:, 0, 0].astype(np.int64) @ (1, 1 << 8, 1 << 16)
        return np.stack([direction(number) for number in numbers.tolist()])

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [text.partition("video ")[2] for text in texts]
        numbers = [
            int(row) if row.isdecimal() else 1 << 40 | zlib.crc32(text.encode())
            for row, text in zip(rows, texts, strict=True)
        ]
        return np.array([direction(number) for number in numbers]).reshape(-1, self.dim)

    def read(self, text: str) -> Reading:
        return Reading()

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        joint = self.encode_texts(texts)
        return TextFeatures(joint, joint)


@cache
def direction(number: int) -> NDArray[np.float32]:
    """Return the embedding of a number."""
    return np.random.default_rng(number).standard_normal(NumberEncoder.dim, np.float32)


class NumberLocaliser:
    """Replaces a trained localiser; its anchors are a part of the features."""

    name = "numbers"
    fingerprint = "a" * 64
    folder = fingerprint[:12]
    width = 8

    def scan(
        self, frames: NDArray[np.float16], pts_seconds: NDArray[np.float64], duration_seconds: float
    ) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        return frames[:4, : self.width], np.ones(len(frames[:4]), np.float32)


ENCODER: ClipEncoder = NumberEncoder()
LOCALISER = cast(TrainedLocaliser, NumberLocaliser())


class GeneratedDecoders:
    """Replaces `DecodePool`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Sequence[Path]) -> Iterator[Event]:
        for job, path in enumerate(paths):
            yield from generated_events(job, number_in(path))


def generated_events(job: int, number: int) -> Iterator[Event]:
    """Yield the events of a video of 4 to 12 seconds; every other video has thumbnails."""
    seconds = 4.0 + 4 * (number % 3)
    pts = np.arange(0.0, seconds, 0.5)
    yield FactsRead(job, NO_FACTS)
    yield Opened(job, VideoInfo(seconds, 2, 2, 2.0, "generated"))
    pixel = np.array([number & 255, number >> 8 & 255, number >> 16], np.uint8)
    yield Frames(job, pts, np.broadcast_to(pixel, (len(pts), 2, 2, 3)))
    if has_thumbnails(number):
        yield NewThumbnails(job, Thumbnails(np.zeros(1), (b"\xff\xd8 video %d" % number,)))
    yield Finished(job, seconds, None)


def has_thumbnails(number: int) -> bool:
    """Whether a generated video has thumbnails."""
    return number % 2 == 0


def write_video(path: Path, number: int) -> None:
    """Write the file of a video, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = random.Random(number).randbytes(500)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(b"video %d\n" % number + rest)
    unfinished.rename(path)


def number_in(path: Path) -> int:
    """Return the number of the video in a file."""
    return int(path.read_bytes().partition(b"\n")[0].removeprefix(b"video "))


@cache
def uid_of(number: int) -> str:
    """Return the uid of a video that is scanned for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        write_video(path, number)
        return fast_hash(path)


def films_in(folder: Path) -> dict[str, int]:
    """Return the numbers of the video files in a library, by relative path."""
    paths = sorted(path for path in folder.rglob("*.mp4") if not path.name.startswith("."))
    return {str(path.relative_to(folder)): number_in(path) for path in paths}


def arrange(folder: Path, films: Mapping[str, int]) -> None:
    """Make a library hold exactly these videos: move those it has elsewhere, write new ones, delete the others."""
    there = films_in(folder)
    for name, number in films.items():
        if there.get(name) == number:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        old = next((n for n, k in there.items() if k == number and films.get(n) != k), None)
        if old is None:
            write_video(target, number)
        else:
            (folder / old).rename(target)
            del there[old]
    for name in there.keys() - films.keys():
        (folder / name).unlink()
