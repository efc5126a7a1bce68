"""Indexes with random features: large libraries in minutes, without decoding, written by the parts of the pipeline."""

import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.material import SAMPLE_FPS, console
from scanonce.indexer.models import make_manifest
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.clip4clip.pooling import open_pooling
from scanonce.models.encoders.preprocess import Preprocessing
from scanonce.models.encoders.protocol import ClipEncoder, TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import unit
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.storage.catalog.entries import Content, FileStamp
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import VideoInfo
from scanonce.storage.settings import StorageSettings
from scanonce.storage.stores.features import FrameFeatures

_DIM = 512
_TOPICS = 400


@dataclass(frozen=True, slots=True)
class Drawn:
    """A video with random features."""

    path: Path
    frames: NDArray[np.float16]
    size: int = 1
    info: VideoInfo = field(default=VideoInfo(60.0, 640, 360, 25.0, "h264"))


class SeededEncoder:
    """A `ClipEncoder` with random embeddings: its texts are vectors near scenes of the simulated library.

    It takes almost no time, so the stage ``text`` means nothing with it.
    """

    name = "simulated"
    fingerprint = "simulated-1"
    dim = _DIM
    head_files = ()
    batch_frames = 32
    max_concurrency = 1
    preprocessing = Preprocessing(
        short_side=224,
        exact_size=None,
        crop=(224, 224),
        resample="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )

    def __init__(self) -> None:
        """Draw the topics."""
        rng = np.random.default_rng(5)
        # The images of a real encoder are in a narrow cone: they share a large part.
        common = unit(rng.standard_normal(_DIM))
        self.topics = unit(common + 0.9 * unit(rng.standard_normal((_TOPICS, _DIM))))

    def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Never called: features come from `frames`."""
        raise NotImplementedError(f"nothing is decoded here; got {frames.shape}")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a vector between a topic and noise, the same for the same text."""
        return np.stack([self._text(text) for text in texts])

    def read(self, text: str) -> Reading:
        """Every text is read whole."""
        return Reading()

    def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
        """Return the same vectors as joint embeddings and as states."""
        joint = self.encode_texts(texts)
        return TextFeatures(joint, joint)

    def _text(self, text: str) -> NDArray[np.float32]:
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        topic = self.topics[rng.integers(_TOPICS)]
        return unit(topic + 0.7 * unit(rng.standard_normal(_DIM)))

    def frames(self, num_frames: int, rng: np.random.Generator) -> NDArray[np.float16]:
        """Draw the features of a video: scenes of 3 to 12 s, each near a topic of the video, and frames near them."""
        lengths = rng.integers(6, 24, num_frames // 6 + 1)
        scene_of = np.repeat(np.arange(len(lengths)), lengths)[:num_frames]
        own_topics = rng.integers(_TOPICS, size=6)
        centres = self.topics[rng.choice(own_topics, len(lengths))]
        noise = rng.standard_normal((len(lengths), _DIM), np.float32)
        scenes = centres + 0.5 * unit(noise)
        jitter = rng.standard_normal((num_frames, _DIM), np.float32) * (0.3 / np.sqrt(_DIM))
        features: NDArray[np.float16] = (10 * (scenes[scene_of] + jitter)).astype(np.float16)
        return features


def write_drawn_index(
    root: Path, videos: Iterable[Drawn], count: int, encoder: ClipEncoder
) -> IndexLayout:
    """Return the index in a folder; write it if there is none.

    Args:
        root: the index directory.
        videos: read only if there is no index; a file that exists is recorded with its size and time.
        count: number of videos.
        encoder: the encoder named by the manifest.
    """
    if root.exists():
        Index.open(IndexLayout(root)).close()  # updates the catalogue of an earlier version
        return IndexLayout(root)
    unfinished = root.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    layout = IndexLayout(unfinished)
    wanted = make_manifest(encoder, IndexerSettings())
    with Index.create(layout, wanted, (), open_pooling, writing="benchmark") as index:
        catalog, store = index.catalog, index.features
        label = f"drawing {count:,} videos"
        for number, video in enumerate(track(videos, label, total=count, console=console)):
            if number == 0:
                catalog.add_library(Path(video.path.anchor) / video.path.parts[1])
            uid = f"{zlib.crc32(str(number).encode()):08x}{number:024x}"
            store.write(
                uid,
                FrameFeatures(video.frames, np.arange(len(video.frames)) / SAMPLE_FPS, SAMPLE_FPS),
            )
            status = video.path.stat() if video.path.exists() else None
            catalog.record_indexed(
                Content(uid, uid, video.size),
                [FileStamp(video.path, video.size, status.st_mtime_ns if status else number)],
                state="indexed",
                duration_seconds=video.info.duration_seconds,
                num_frames=len(video.frames),
                info=video.info,
            )
        with console.status("publishing"):
            index.publish(StorageSettings())
    unfinished.rename(root)
    return IndexLayout(root)


def open_engine(layout: IndexLayout, encoder: ClipEncoder) -> SearchEngine:
    """Open an index for searching, with an encoder that is loaded already."""
    index = Index.open(layout, open_pooling, read_only=True)
    return SearchEngine(index, encoder, SearchSettings())
