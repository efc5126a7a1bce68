"""Images and clips on the command line, as examples of the moments to find."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scanonce.storage.errors import QueryError

if TYPE_CHECKING:
    from scanonce.search.examples import Example
    from scanonce.search.query import Like

_ENDING = re.compile(
    r"(?P<path>.+?)(?:@(?P<begin>[\d:.]+)-(?P<end>[\d:.]+))?(?:\^(?P<weight>[\d.]+))?"
)

_PIECE = re.compile(r"(?P<video>.+)@(?P<begin>[\d:.]+)-(?P<end>[\d:.]+)")


def read_examples(images: Sequence[str], clips: Sequence[str], crop: str | None) -> "list[Example]":
    """Return the examples of a command line.

    Args:
        images: ``FILE`` or ``FILE^2``.
        clips: ``FILE``, ``FILE@1:20-1:30`` or ``FILE^2``; a file of just that name comes first.
        crop: ``LEFT,TOP,RIGHT,BOTTOM`` of the only image.

    Raises:
        QueryError: one of them is no example.
    """
    box = None if crop is None else _box(crop)
    if box is not None and len(images) != 1:
        raise QueryError(f"--crop is of the one --image; given are {len(images)}")
    return [
        *(_example(text, "image", box) for text in images),
        *(_example(text, "clip", None) for text in clips),
    ]


def read_piece(text: str) -> "Like":
    """Return the piece of a video of the library that ``VIDEO@1:20-1:30`` names; without times, all of it.

    Raises:
        QueryError: its begin is not before its end.
    """
    from scanonce.search.query import Like, seconds_of

    found = _PIECE.fullmatch(text)
    if found is None:
        return Like(text)
    first, last = seconds_of(found["begin"]), seconds_of(found["end"])
    if first is None or last is None or first >= last:
        raise QueryError(f"{text}: a moment is such as VIDEO@1:20-1:30, its begin before its end")
    return Like(found["video"], first, last)


def _example(
    text: str, kind: Literal["image", "clip"], box: tuple[float, float, float, float] | None
) -> "Example":
    from scanonce.search.examples import Example
    from scanonce.search.query import seconds_of

    found = _ENDING.fullmatch(text)
    if found is None or _exists(text):
        return Example(text, box=box, kind=kind)
    path, begin, end, weight = found.groups()
    span = None
    if begin is not None:
        first, last = seconds_of(begin), seconds_of(end)
        if kind == "image" or first is None or last is None:
            raise QueryError(f"{text}: only a clip has a piece, such as --clip FILE@1:20-1:30")
        span = first, last
    return Example(path, span, _number(weight or "1", text), box, kind)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # no file has such a name
        return False


def _number(text: str, given: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise QueryError(f"{given}: {text} is no number") from None


def _box(crop: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = map(float, crop.split(","))
    except ValueError:
        raise QueryError(
            f"--crop is LEFT,TOP,RIGHT,BOTTOM as shares of the picture, such as 0.1,0.2,0.5,0.6; got {crop}"
        ) from None
    return left, top, right, bottom
