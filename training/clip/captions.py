"""Videos with their captions, read from users' own files or a benchmark's, for `scanonce train clip`.

    captioned = read_captions(Path("captions.csv"), videos=Path("films"))
    part = captioned.parts[0]
    part.video, part.span, part.captions  # Path("films/a.mp4"), Span(2.0, 7.5), ("a red car ...",)
    captioned.missing                     # names of videos that are not in the folder

Own files are CSV with a line of names, or JSON Lines. Each row has ``video`` (or ``path``) and ``caption`` (or
``query``, ``text``), and if the caption is about a part of the video ``start_seconds`` and ``end_seconds``; other
columns are ignored. The ``ground_truth.jsonl`` of the rendered world is such a file. Benchmarks are those of
`training.evaluation.annotations`, and MSR-VTT's own JSON, whose ``sentences`` include the training split. All videos of
that file that are in the folder are used, so the videos of a test must not be in it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation import annotations as benchmarks
from scanonce.training.evaluation.annotations import QUERY_NAMES, VIDEO_NAMES, match_names
from scanonce.training.evaluation.rows import (
    json_object,
    opening,
    optional_span,
    reading,
    table_rows,
    text_of,
)


@dataclass(frozen=True, slots=True)
class CaptionedPart:
    """A video, or a part of it, and all its captions."""

    video: Path
    span: Span | None
    """None: the captions are about the whole video."""
    captions: tuple[str, ...]
    """At least one, all different."""


@dataclass(frozen=True, slots=True)
class MissingVideo:
    """A video with captions that was not found."""

    name: str
    """Name in the file of captions."""
    num_captions: int
    """Captions that are left out with it."""


@dataclass(frozen=True, slots=True)
class CaptionedVideos:
    """The captions of a file whose videos were found."""

    parts: tuple[CaptionedPart, ...]
    """Parts in the order of the file; each (video, span) once."""
    missing: tuple[MissingVideo, ...]
    """Videos that were not found, in the order of the file."""

    @property
    def num_captions(self) -> int:
        """Number of captions of all parts."""
        return sum(len(part.captions) for part in self.parts)


def read_captions(
    path: Path, *, videos: Path | None, benchmark: str = "scanonce"
) -> CaptionedVideos:
    """Read captions and find their videos; captions of the same (video, span) are grouped.

    Args:
        path: own ``.csv`` or ``.jsonl`` file, or the file that the benchmark publishes.
        videos: folder of the videos. An own file has paths relative to it, or names; None: the folder of that file.
            Benchmarks have names: the names of files, without their extensions, anywhere below the folder.
        benchmark: "scanonce" for an own file, or another of `training.evaluation.annotations.BENCHMARKS`.

    Returns:
        Parts of videos that were found, and the names of the others. A query with several correct spans is a caption of
        each of them.

    Raises:
        ConfigError: the file cannot be read or has another form (with the line), no video was found, or two files have
            the name of a video.
    """
    if videos is None and benchmark != "scanonce":
        raise ConfigError(
            f"{path} ({benchmark}) names videos without their folder: give it (--videos FOLDER)"
        )
    folder = videos or path.parent
    with opening(path):
        rows = list(_rows(path, benchmark))
    if not rows:
        raise ConfigError(f"{path} has no captions: at least one is needed")
    captioned = _group(rows, _find_videos((row.video for row in rows), folder))
    if not captioned.parts:
        raise ConfigError(
            f"none of the {len(captioned.missing)} videos that {path} names is in {folder}, such as "
            f"{captioned.missing[0].name}: give their folder (--videos FOLDER)"
        )
    return captioned


@dataclass(frozen=True, slots=True)
class _Row:
    """One caption of a file."""

    video: str
    caption: str
    span: Span | None


def _rows(path: Path, benchmark: str) -> Iterator[_Row]:
    if benchmark == "scanonce":
        yield from _own_rows(path)
    elif benchmark == "msrvtt" and path.suffix.lower() == ".json":
        yield from _msrvtt_rows(path)
    else:
        for annotation in benchmarks.read_annotations(path, benchmark):
            for span in annotation.spans or (None,):
                yield _Row(annotation.video, annotation.text, span)


def _own_rows(path: Path) -> Iterator[_Row]:
    expected = (
        "video (or path), caption (or query, text), and optional start_seconds with end_seconds"
    )
    for line, row in table_rows(path, "captions"):
        with reading(path, f"line {line}", expected):
            span = optional_span(row)
            yield _Row(text_of(row, *VIDEO_NAMES), text_of(row, *QUERY_NAMES), span)


def _msrvtt_rows(path: Path) -> Iterator[_Row]:
    content = json_object(path)
    expected = '"sentences": [{"video_id": "video0", "caption": "..."}, ...]'
    with reading(path, "the whole file", expected):
        sentences = list(content["sentences"])
    for number, row in enumerate(sentences, start=1):
        with reading(path, f"sentence {number}", expected):
            yield _Row(text_of(row, "video_id"), text_of(row, "caption"), None)


def _find_videos(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """Find videos by path, or else by name without the extension."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give the folder of the videos (--videos FOLDER)")
    unique = list(dict.fromkeys(names))
    found = {name: folder / name for name in unique if (folder / name).is_file()}
    by_name, _ = match_names((name for name in unique if name not in found), folder)
    return found | by_name


def _group(rows: Iterable[_Row], files: dict[str, Path]) -> CaptionedVideos:
    grouped: dict[tuple[Path, Span | None], dict[str, None]] = {}  # keys: unique, in order
    missing: dict[str, int] = {}
    for row in rows:
        if row.video in files:
            grouped.setdefault((files[row.video], row.span), {})[row.caption] = None
        else:
            missing[row.video] = missing.get(row.video, 0) + 1
    return CaptionedVideos(
        tuple(CaptionedPart(*key, tuple(captions)) for key, captions in grouped.items()),
        tuple(MissingVideo(*each) for each in missing.items()),
    )
