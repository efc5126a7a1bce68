"""Videos with their captions, as `scanonce train clip` takes them: own files or a benchmark's.

    captioned = read_captions(Path("captions.csv"), videos=Path("films"))
    part = captioned.parts[0]
    part.video, part.span, part.captions  # Path("films/a.mp4"), Span(2.0, 7.5), ("a red car ...",)
    captioned.missing                     # names of videos that are not in the folder

An own file is CSV with a line of names, or JSON Lines. Each row has ``video`` (or ``path``), ``caption`` (or ``query``,
``text``), and where the caption is about a part only ``start_seconds`` and ``end_seconds``; other columns are left
alone. The ``ground_truth.jsonl`` of the rendered world is such a file. Benchmarks are those that
`training.evaluation.annotations` reads, and MSR-VTT's own JSON, whose ``sentences`` are of training too: of it all
videos count that lie in the folder, so that those of a test must not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation import annotations as benchmarks
from scanonce.training.evaluation.annotations import QUERY_NAMES, VIDEO_NAMES, match_names
from scanonce.training.evaluation.rows import (
    csv_rows,
    json_object,
    jsonl_rows,
    reading,
    span_of,
    text_of,
)


@dataclass(frozen=True, slots=True)
class CaptionedPart:
    """A video, or a part of it, and all that is said of it."""

    video: Path
    span: Span | None
    """None: the captions are about the whole video."""
    captions: tuple[str, ...]
    """At least one, none twice."""


@dataclass(frozen=True, slots=True)
class MissingVideo:
    """A video that captions name and that is nowhere."""

    name: str
    """As the captions have it."""
    num_captions: int
    """That are left out with it."""


@dataclass(frozen=True, slots=True)
class CaptionedVideos:
    """Everything that a file of captions says about videos which are there."""

    parts: tuple[CaptionedPart, ...]
    """In the order of the file; each (video, span) once."""
    missing: tuple[MissingVideo, ...]
    """Videos that were not found, in the order of the file; empty where all is well."""

    @property
    def num_captions(self) -> int:
        """Of all parts."""
        return sum(len(part.captions) for part in self.parts)


def read_captions(
    path: Path, *, videos: Path | None, benchmark: str = "scanonce"
) -> CaptionedVideos:
    """Captions with their videos, those of one (video, span) together.

    Args:
        path: ``.csv`` or ``.jsonl`` of one's own, or what the benchmark publishes.
        videos: folder the videos lie in. An own file gives paths relative to it, or names; None: it is the file's own
            folder. Benchmarks give names: a file of any depth whose name without its ending is the video's.
        benchmark: "scanonce" for an own file, or another of `training.evaluation.annotations.BENCHMARKS`.

    Returns:
        Parts of videos that are there, and the names of those that are not. A sentence with several right spans
        belongs to each of them.

    Raises:
        ConfigError: the file cannot be read or is not what it should be (with its line), no video is there, or two
            files have the name of one.
    """
    if videos is None and benchmark != "scanonce":
        raise ConfigError(
            f"{path} ({benchmark}) names videos without their folder: say where they lie (--videos FOLDER)"
        )
    folder = videos or path.parent
    try:
        rows = list(_rows(path, benchmark))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error}): check the name"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    if not rows:
        raise ConfigError(f"{path} has no captions: at least one is needed")
    captioned = _group(rows, _find_videos((row.video for row in rows), folder))
    if not captioned.parts:
        raise ConfigError(
            f"none of the {len(captioned.missing)} videos that {path} names is in {folder}, such as "
            f"{captioned.missing[0].name}: give the folder they lie in (--videos FOLDER)"
        )
    return captioned


@dataclass(frozen=True, slots=True)
class _Row:
    """One caption as a file has it."""

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
    reader = {".csv": csv_rows, ".jsonl": jsonl_rows}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path}: own captions come as .csv or .jsonl; name the benchmark (--benchmark) where it is one's"
        )
    expected = (
        "video (or path), caption (or query, text), and optional start_seconds with end_seconds"
    )
    for line, row in reader(path):
        with reading(path, f"line {line}", expected):
            # an empty field of a csv is one that is not there
            times = [
                row[name]
                for name in ("start_seconds", "end_seconds")
                if row.get(name) not in (None, "")
            ]
            if len(times) == 1:
                raise ValueError("start_seconds and end_seconds come together or not at all")
            span = span_of(*times) if times else None
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
    """The files of those videos that are there: by path, else by name without the ending."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder: give the one the videos lie in (--videos FOLDER)"
        )
    unique = list(dict.fromkeys(names))
    found = {name: folder / name for name in unique if (folder / name).is_file()}
    by_name, _ = match_names((name for name in unique if name not in found), folder)
    return found | by_name


def _group(rows: Iterable[_Row], files: dict[str, Path]) -> CaptionedVideos:
    grouped: dict[tuple[Path, Span | None], dict[str, None]] = {}  # keys in order, none twice
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
