"""Guarded decoding of a few files, as the tests of `media` use it."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanonce.media import child, guard
from scanonce.media.answers import Event, Frames
from scanonce.media.child import DecodeRequest
from scanonce.media.sampling import Sampling
from scanonce.media.thumbnails import ThumbnailRequest
from scanonce.media.workers import DecodePool
from scanonce.models.encoders.preprocess import Preprocessing
from tests.videos import read_number

STEPS = Preprocessing(None, (48, 64), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Frames become 48 x 64 x 3."""
THUMBNAILS = ThumbnailRequest(every_seconds=0.5, width=96)

Misbehaviour = Callable[..., None]
"""Takes the connection of a child, its request, the path of a file and the number of threads."""


def make_request(
    stall_seconds: float = 30.0,
    thumbnails: ThumbnailRequest | None = THUMBNAILS,
    sampling: Sampling | None = None,
    backend: str = "pyav",
    **limits: Any,
) -> DecodeRequest:
    """Return a request, by default for 10 frames a second."""
    sampling = sampling or Sampling("uniform", 10.0)
    return DecodeRequest(sampling, backend, STEPS, stall_seconds, thumbnails, **limits)


def decode(
    *paths: Path, request: DecodeRequest | None = None, workers: int = 1
) -> list[list[Event]]:
    """Return the events of each file."""
    files: list[list[Event]] = [[] for _ in paths]
    with DecodePool(request or make_request(), workers=workers) as pool:
        for event in pool.decode(paths):
            files[event.job].append(event)
    return files


def numbers_in(events: list[Event]) -> list[int]:
    """Return the numbers of the frames in the events of a file."""
    images = [image for each in events if isinstance(each, Frames) for image in each.images]
    return [read_number(image) for image in images]


def times_in(events: list[Event]) -> list[float]:
    """Return the times of the frames in the events of a file."""
    times = [each.pts_seconds for each in events if isinstance(each, Frames)]
    return [float(pts) for pts in np.concatenate([np.empty(0), *times])]


def misbehave_on(monkeypatch: pytest.MonkeyPatch, misbehaviours: dict[str, Misbehaviour]) -> None:
    """From here on, children that receive a file of one of these names do something else than decode it."""
    decode_one = child._decode_one

    def hostile(connection: Any, request: DecodeRequest, path: Path, threads: int) -> None:
        act: Misbehaviour = misbehaviours.get(path.name, decode_one)
        act(connection, request, path, threads)

    monkeypatch.setattr(child, "_decode_one", hostile)
    fork_children(monkeypatch)


def fork_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let children inherit the patches of a test; usually they are forked from a clean server."""
    monkeypatch.setattr(guard, "process_context", lambda _: multiprocessing.get_context("fork"))
