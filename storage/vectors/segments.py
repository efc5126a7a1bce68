"""Immutable files of clips, which generations of the vector index share by hard links.

    0000000007.f16           [num_clips, dim] float16
    0000000007_videos.npy    [num_videos, 2] int64: a video's id and its number of clips

A segment is named after the generation that wrote it. New clips become a new segment; the newest segments that they
outweigh are joined with them in the same file. So segments are few, and a clip is copied seldom: 50,000 clips that come
60 at a time are in at most 7 segments, and each has been written 6 times.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from scanonce.storage.records import ORDINAL_BITS
from scanonce.storage.settings import GpuUse
from scanonce.storage.untrusted import DamagedFile, check_regular
from scanonce.storage.vectors.arrays import read_array
from scanonce.storage.vectors.codes import read_codes
from scanonce.storage.vectors.flat import FlatIndex
from scanonce.storage.vectors.gpu import GpuCodes, load_on_gpu
from scanonce.storage.vectors.rows import ClipRows, Ids

FileIdentity: TypeAlias = tuple[int, int, int, int]
"""Device, inode, bytes and time of change: the same for all hard links of a file, and different for every later
file."""

_TABLE_BITS = np.array([63 - ORDINAL_BITS, ORDINAL_BITS + 1])  # of a video's id and number of clips

JOIN_RATIO = 2
"""A segment is joined with what comes after it if it is at most this many times as large."""


@dataclass(frozen=True, eq=False)
class Segment:
    """The clips of some videos, mapped from the disk."""

    name: str
    identity: FileIdentity
    rows: ClipRows

    @cached_property
    def index(self) -> FlatIndex:
        """Exact index of its clips; the first use copies the rows to memory."""
        return FlatIndex(self.rows)


@dataclass(frozen=True, eq=False)
class Codes:
    """A FAISS index of some segments' clips, open for searching."""

    identity: FileIdentity
    faiss: Any
    _on_gpu: dict[GpuUse, GpuCodes | None] = field(default_factory=dict)

    def on_gpu(self, use: GpuUse) -> GpuCodes | None:
        """Return a copy on a GPU, made at the first call; ``None`` if they stay on the CPU."""
        if use not in self._on_gpu:
            self._on_gpu[use] = load_on_gpu(self.faiss, use)
        return self._on_gpu[use]


@dataclass(frozen=True, eq=False)
class OpenFiles:
    """The open files of a generation; the next generation shares most of them."""

    segments: tuple[Segment, ...] = ()
    codes: Codes | None = None

    def open(self, folder: Path, names: Iterable[str], codes: Path | None, dim: int) -> "OpenFiles":
        """Open segments and codes; a file that is open here already is not opened again.

        Raises:
            OSError, DamagedFile, ValueError, IndexDirectoryError: a file is missing, or was not written by
                `write_rows` or `write_codes`.
        """
        segments = tuple(self._segment(folder, name, dim) for name in names)
        return OpenFiles(segments, None if codes is None else self._codes(codes))

    def _segment(self, folder: Path, name: str, dim: int) -> Segment:
        # An open file keeps its inode number, so no later file can be mistaken for it.
        identity = _identity(folder / f"{name}.f16")
        for segment in self.segments:
            if segment.identity == identity:
                return segment
        return Segment(name, identity, _map_rows(folder, name, dim))

    def _codes(self, path: Path) -> Codes:
        identity = _identity(path)
        if self.codes and self.codes.identity == identity:
            return self.codes
        return Codes(identity, read_codes(str(path)))


NOTHING_OPEN = OpenFiles()


def write_rows(folder: Path, name: str, parts: Iterable[ClipRows], dim: int) -> ClipRows:
    """Write the rows of all parts into one segment's files, and map these."""
    tables = [np.empty((0, 2), np.int64)]
    with open(folder / f"{name}.f16", "wb") as file:
        for part in parts:
            for piece in part.pieces:
                file.write(np.ascontiguousarray(piece).data)
            tables.append(np.stack([part.videos, part.counts], axis=1))
    np.save(folder / f"{name}_videos.npy", np.concatenate(tables))
    return _map_rows(folder, name, dim)


def link_segment(source: Path, name: str, folder: Path) -> None:
    """Link the files of a segment under the same names into another folder."""
    link_file(source / f"{name}.f16", folder)
    link_file(source / f"{name}_videos.npy", folder)


def link_file(source: Path, folder: Path) -> None:
    """Link a file under the same name, or copy it if the file system refuses links."""
    try:
        os.link(source, folder / source.name)
    except OSError:
        shutil.copyfile(source, folder / source.name)


def live_rows(rows: ClipRows, live: Ids) -> ClipRows:
    """Return the rows of the live videos, nothing copied; ``rows`` must be one piece."""
    alive = rows.alive(live)
    if alive.all():
        return rows
    (matrix,) = rows.pieces
    # begin and end of each run of live videos, in turn
    edges = np.flatnonzero(np.diff(alive, prepend=False, append=False))
    runs = rows.starts[edges].reshape(-1, 2).tolist()
    pieces = tuple(matrix[begin:end] for begin, end in runs)
    return ClipRows(pieces or (matrix[:0],), rows.videos[alive], rows.counts[alive])


def num_kept(segments: Sequence[Segment], num_new: int) -> int:
    """Return the number of segments, from the first, that stay unchanged when ``num_new`` clips come.

    The other segments are joined with the new clips. A segment is then more than twice as large as the next, so there
    are few; and a clip that is joined ends in a segment at least half as large again, so that happens to it rarely.

    Clips in the segments, new clips, and the segments that stay: [900, 200] + 60 -> [900, 200];
    [900, 100] + 60 -> [900]; [300, 100] + 60 -> [].
    """
    keep, total = len(segments), num_new
    while keep and len(segments[keep - 1].rows) <= JOIN_RATIO * total:
        keep -= 1
        total += len(segments[keep].rows)
    return keep


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> FileIdentity:
    stat = check_regular(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _map_rows(folder: Path, name: str, dim: int) -> ClipRows:
    table = read_array(folder / f"{name}_videos.npy", np.int64)
    if table.shape[1] != 2 or (table < 0).any() or (table >> _TABLE_BITS).any():
        raise DamagedFile(f"{name}_videos.npy is no table of videos and their numbers of clips")
    videos, counts = table.T.copy()
    num_rows = int(counts.sum())
    path = folder / f"{name}.f16"
    if check_regular(path).st_size != num_rows * dim * np.dtype(np.float16).itemsize:
        raise DamagedFile(f"{path.name} does not have {num_rows} rows of {dim} numbers")
    if not num_rows:  # an empty file cannot be mapped
        return ClipRows((np.empty((0, dim), np.float16),), videos, counts)
    matrix = np.memmap(path, np.float16, "r", shape=(num_rows, dim))
    return ClipRows((np.asarray(matrix),), videos, counts)
