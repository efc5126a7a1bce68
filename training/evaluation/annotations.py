"""Queries about videos with their correct answers, as benchmarks publish them.

    annotations = read_annotations(Path("charades_sta_test.txt"), "charades")
    annotations[0].text, annotations[0].video, annotations[0].spans
    found, missing = match_names((each.video for each in annotations), Path("Charades_v1_480"))
    queries = as_queries(annotations)

| benchmark | file |
|---|---|
| msrvtt | csv with video_id and sentence, as the 1,000 pairs of split 1k-A come |
| qvhighlights | jsonl: qid, query, vid, duration, relevant_windows |
| charades | Charades-STA's txt, `video start end##sentence`, or jsonl in the form of QVHighlights |
| tvr | jsonl: desc_id, desc, type, vid_name, duration, ts |
| mad | json of the authors, or the txt made from it: `qid | movie | movie_duration | start | end | sentence` |
| ego4d | json of the NLQ challenge (videos, clips, annotations, language_queries), or of its baseline by clip |
| activitynet | json by video: duration, timestamps, sentences |
| didemo | json: annotation_id, description, video, times in pieces of 5 s |
| scanonce | own jsonl or csv, such as the ``ground_truth.jsonl`` of the rendered world: see below |

A row of an own file has video (or path) and query (or caption, text), start_seconds and end_seconds if it is about a
part of the video, and optionally qid, kind and grade. Rows with the same qid are several correct answers to one query.

A few published files have queries that their own evaluation leaves out: without a text, or with a span that ends before
it begins. They are left out here too, and their number is logged.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation.metrics import Relevant
from scanonce.training.evaluation.rows import (
    Row,
    csv_rows,
    json_object,
    jsonl_rows,
    opening,
    optional_span,
    read_json,
    reading,
    seconds_of,
    shortened,
    span_of,
    table_rows,
    text_lines,
    text_of,
)

logger = logging.getLogger(__name__)

VIDEO_NAMES = ("video", "path")
QUERY_NAMES = ("query", "caption", "text")
"""Columns of an own file; the first of these that a row has counts."""

DIDEMO_PIECE_SECONDS = 5.0
"""Length of the pieces that DiDeMo's spans consist of; both ends are included."""

_ENDINGS = IndexerSettings().endings
_POSITIONS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Annotation:
    """A query about a video, and the spans that answer it."""

    id: str
    """Id of the query in the benchmark; the number of the line if it has none."""
    text: str
    video: str
    """Name of the video in the benchmark, without folder and file extension."""
    spans: tuple[Span, ...] = ()
    """All correct answers; empty if the query is about the whole video."""
    duration_seconds: float | None = None
    """Length of the video; None if the benchmark does not give it."""
    kind: str = ""
    """Kind of the query, if the benchmark has kinds (TVR: "v", "t", "vt"; the rendered world: "time")."""
    grade: int = 1
    """Grade of the answer, 1 or more. It differs only between annotations with the same id, which are several answers
    to one query."""


def read_annotations(path: Path, benchmark: str) -> list[Annotation]:
    """Return all annotations of a file, in its order.

    Args:
        path: file as the benchmark publishes it, in one of the forms of the table above.
        benchmark: one of `BENCHMARKS`.

    Raises:
        ConfigError: there is no such benchmark, or the file cannot be read or has another form; the message names the
            line, or the entry of a large JSON object.
    """
    if benchmark not in _READERS:
        raise ConfigError(f"there is no benchmark {benchmark!r}; there are {', '.join(BENCHMARKS)}")
    left_out: list[str] = []
    with opening(path, "the annotations"):
        annotations = list(_READERS[benchmark](path, left_out))
    if left_out:
        logger.warning(
            "%s: %d of %d queries are left out, as in the benchmark's own evaluation: %s",
            path,
            len(left_out),
            len(left_out) + len(annotations),
            "; ".join(left_out[:_POSITIONS_SHOWN])
            + (" ..." if left_out[_POSITIONS_SHOWN:] else ""),
        )
    if not annotations:
        raise ConfigError(f"{path} has no annotations: is it a file of {benchmark}?")
    _check_ids(path, annotations)
    return annotations


@dataclass(frozen=True, slots=True)
class Query:
    """A query with all its correct answers."""

    id: str
    text: str
    right: tuple[Relevant, ...]
    """At least one answer; with an empty span at 0 if the query is about whole videos."""
    kinds: tuple[str, ...] = ()
    """Kinds with figures of their own, in addition to those of all queries."""

    @property
    def videos(self) -> frozenset[str]:
        """Names of the correct videos."""
        return frozenset(right.video for right in self.right)

    @property
    def has_spans(self) -> bool:
        """Whether the query is about parts of videos."""
        return any(right.span.duration_seconds > 0 for right in self.right)


def as_queries(annotations: Iterable[Annotation]) -> list[Query]:
    """Return the queries of annotations; annotations with the same id are one query."""
    by_id: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        by_id.setdefault(annotation.id, []).append(annotation)
    return [
        Query(
            identifier,
            same[0].text,
            tuple(
                Relevant(each.video, span, each.grade)
                for each in same
                for span in each.spans or (Span(0.0, 0.0),)
            ),
            (same[0].kind,) if same[0].kind else (),
        )
        for identifier, same in by_id.items()
    ]


def match_names(
    names: Iterable[str], files: Path | Iterable[Path]
) -> tuple[dict[str, Path], list[str]]:
    """Find the files of videos: those whose name without the extension is the video's.

    Args:
        names: names of videos in a benchmark; may repeat.
        files: a folder, which is searched recursively, or paths.

    Returns:
        The file of each video that was found, and the names of the others, both in the order of ``names``.

    Raises:
        ConfigError: the folder does not exist, or two files have the name of one of the videos.
    """
    if isinstance(files, Path):
        if not files.is_dir():
            raise ConfigError(f"{files} is no folder: give the folder of the videos")
        files = (each for each in sorted(files.rglob("*")) if each.suffix.lower() in _ENDINGS)
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.stem, []).append(file)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in dict.fromkeys(names):
        match by_name.get(name, []):
            case []:
                missing.append(name)
            case [file]:
                found[name] = file
            case [first, second, *_]:
                raise ConfigError(
                    f"{first} and {second} both have the name of the annotated video {name}: "
                    "keep only one of them"
                )
    return found, missing


def video_name(name: str) -> str:
    """Return the name of a video without its folder, and without the extension if that is one of videos."""
    path = Path(name)
    return path.stem if path.suffix.lower() in _ENDINGS else path.name


def _check_ids(path: Path, annotations: Sequence[Annotation]) -> None:
    """Check that annotations with the same id have the same text."""
    texts: dict[str, str] = {}
    for annotation in annotations:
        if texts.setdefault(annotation.id, annotation.text) != annotation.text:
            raise ConfigError(
                f"{path}: two queries have the id {annotation.id!r}, {texts[annotation.id]!r} and {annotation.text!r}. "
                "Give each its own id"
            )


# ---------------------------------------------------------------- benchmarks

_LeftOut: TypeAlias = list[str]


def _msrvtt(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    for line, row in csv_rows(path):
        with reading(path, f"line {line}", "the columns key, video_id and sentence"):
            yield Annotation(str(row["key"]), text_of(row, "sentence"), text_of(row, "video_id"))


def _qvhighlights(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    expected = (
        '{"qid": 1, "query": "...", "vid": "...", "duration": 150, "relevant_windows": [[82, 150]]}'
    )
    for line, row in jsonl_rows(path):
        with reading(path, f"line {line}", expected):
            spans = tuple(span_of(*window) for window in row["relevant_windows"])
            yield Annotation(
                str(row["qid"]),
                text_of(row, "query"),
                text_of(row, "vid"),
                _some(spans, "relevant_windows"),
                seconds_of(row["duration"]),
            )


def _charades(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    if path.suffix.lower() == ".jsonl":
        yield from _qvhighlights(path, left_out)
        return
    for line, text in text_lines(path):
        with reading(path, f"line {line}", "video start end##sentence"):
            where, _, sentence = text.partition("##")
            video, start, end = where.split()
            if not sentence.strip():
                raise ValueError("there is no text behind ##")
            yield Annotation(str(line), sentence.strip(), video, (span_of(start, end),))


def _tvr(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    expected = '{"desc_id": 1, "desc": "...", "type": "v", "vid_name": "...", "duration": 60.5, "ts": [1.5, 9]}'
    for line, row in jsonl_rows(path):
        with reading(path, f"line {line}", expected):
            yield Annotation(
                str(row["desc_id"]),
                text_of(row, "desc"),
                text_of(row, "vid_name"),
                (span_of(*row["ts"]),),
                seconds_of(row["duration"]),
                text_of(row, "type"),
            )


def _mad(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    rows = _mad_json(path) if path.suffix.lower() == ".json" else _mad_txt(path)
    for position, expected, identifier, row in rows:
        with reading(path, position, expected):
            movie, duration = text_of(row, "movie"), seconds_of(row["movie_duration"])
            span = _span_within(row["ext_timestamps"], duration)
            if span is None:
                left_out.append(f"{position} ends before it begins")
            else:
                yield Annotation(identifier, text_of(row, "sentence"), movie, (span,), duration)


_MadRow: TypeAlias = tuple[str, str, str, Row]
"""Position in the file, expected values, id, values."""


def _mad_json(path: Path) -> Iterator[_MadRow]:
    expected = '"movie", "movie_duration", "ext_timestamps": [start, end] and "sentence" of each id'
    for identifier, row in json_object(path).items():
        yield f"query {identifier}", expected, identifier, row


def _mad_txt(path: Path) -> Iterator[_MadRow]:
    expected = "qid | movie | movie_duration | start | end | sentence"
    for line, text in text_lines(path):
        with reading(path, f"line {line}", expected):
            identifier, movie, duration, start, end, sentence = map(str.strip, text.split("|", 5))
        row = {"movie": movie, "movie_duration": duration, "sentence": sentence}
        yield f"line {line}", expected, identifier, {**row, "ext_timestamps": (start, end)}


def _ego4d(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    content = json_object(path)
    if "videos" not in content:
        yield from _ego4d_by_clip(path, content, left_out)
        return
    expected = '"videos" with "clips" with "annotations" with "language_queries"'
    with reading(path, "the whole file", expected):
        clips = [clip for video in content["videos"] for clip in video["clips"]]
    for clip in clips:
        with reading(path, f"clip {shortened(clip)}", expected):
            duration = clip["video_end_sec"] - clip["video_start_sec"]
            queries = [
                (annotation["annotation_uid"], number, query)
                for annotation in clip["annotations"]
                for number, query in enumerate(annotation["language_queries"])
            ]
        for uid, number, query in queries:
            position = f"clip {clip.get('clip_uid')}, annotation {uid}, query {number}"
            with reading(path, position, '"query", "clip_start_sec" and "clip_end_sec"'):
                if not (query.get("query") or "").strip():
                    left_out.append(f"{position} has no text")
                    continue
                span = span_of(query["clip_start_sec"], query["clip_end_sec"])
                kind = query.get("template") or ""
                name = text_of(clip, "clip_uid")
                yield Annotation(
                    f"{uid}_{number}", text_of(query, "query"), name, (span,), duration, kind
                )


def _ego4d_by_clip(
    path: Path, content: Mapping[str, Any], left_out: _LeftOut
) -> Iterator[Annotation]:
    """The form that the baseline of the challenge prepares."""
    expected = 'lists "sentences", "exact_times", "annotation_uids", "query_idx" of one length, "num_frames" and "fps"'
    for clip, entry in content.items():
        with reading(path, f"clip {clip}", expected):
            duration = seconds_of(entry["num_frames"] / entry["fps"])
            rows = _together(entry, "sentences", "exact_times", "annotation_uids", "query_idx")
        for text, times, uid, number in rows:
            with reading(path, f"clip {clip}, annotation {uid}, query {number}", expected):
                sentence = text_of({"sentences": text}, "sentences")
                yield Annotation(f"{uid}_{number}", sentence, clip, (span_of(*times),), duration)


def _activitynet(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    expected = '"duration", and "timestamps" [[start, end], ...] and "sentences" of one length'
    for video, entry in json_object(path).items():
        with reading(path, f"video {video}", expected):
            duration = seconds_of(entry["duration"])
            pairs = _together(entry, "timestamps", "sentences")
        for number, (times, text) in enumerate(pairs):
            position = f"video {video}, sentence {number + 1}"
            with reading(path, position, expected):
                span = _span_within(times, duration)
                if span is None:
                    left_out.append(f"{position} ends before it begins")
                    continue
                sentence = text_of({"sentences": text}, "sentences")
                yield Annotation(f"{video}_{number}", sentence, video, (span,), duration)


def _didemo(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    expected = (
        '{"annotation_id": 1, "description": "...", "video": "...", "times": [[0, 0], [1, 2]]}'
    )
    content = read_json(path)
    with reading(path, "the whole file", "a list of such objects: " + expected):
        if not isinstance(content, list):
            raise TypeError(f"it is {shortened(content)}")
    for number, entry in enumerate(content):
        with reading(path, f"entry {number + 1}", expected):
            spans = tuple(
                span_of(first * DIDEMO_PIECE_SECONDS, (last + 1) * DIDEMO_PIECE_SECONDS)
                for first, last in entry["times"]
            )
            yield Annotation(
                str(entry["annotation_id"]),
                text_of(entry, "description"),
                video_name(text_of(entry, "video")),
                _some(spans, "times"),
            )


def _scanonce(path: Path, left_out: _LeftOut) -> Iterator[Annotation]:
    expected = (
        "video (or path), query (or caption, text), and optional start_seconds with end_seconds, "
        "qid, kind, grade"
    )
    for line, row in table_rows(path, "annotations"):
        with reading(path, f"line {line}", expected):
            # an empty field of a CSV counts as missing
            values = {name: value for name, value in row.items() if value not in (None, "")}
            span = optional_span(values)
            kind = values.get("kind", "")
            if "needs_time" in values:
                kind = "time" if values["needs_time"] in (True, "true", "True", "1") else "no time"
            yield Annotation(
                str(values.get("qid", line)),
                text_of(values, *QUERY_NAMES),
                video_name(text_of(values, *VIDEO_NAMES)),
                (span,) if span else (),
                kind=str(kind),
                grade=_grade(values.get("grade", 1)),
            )


_READERS: dict[str, Callable[[Path, _LeftOut], Iterator[Annotation]]] = {
    "msrvtt": _msrvtt,
    "qvhighlights": _qvhighlights,
    "charades": _charades,
    "tvr": _tvr,
    "mad": _mad,
    "ego4d": _ego4d,
    "activitynet": _activitynet,
    "didemo": _didemo,
    "scanonce": _scanonce,
}

BENCHMARKS = tuple(_READERS)
"""Names of the benchmarks; "scanonce" for an own file."""


# ---------------------------------------------------------------- values


def _span_within(times: Sequence[object], duration: float) -> Span | None:
    """The part of a span within its video; None if the span ends before it begins."""
    start, end = map(seconds_of, times)
    start, end = max(start, 0.0), min(end, duration)
    return Span(start, end) if start < end else None


def _together(entry: Row, *names: str) -> list[tuple[Any, ...]]:
    """Zip lists, which must be of one length."""
    lists = [entry[name] for name in names]
    if len({len(each) for each in lists}) > 1:
        counts = ", ".join(str(len(each)) for each in lists)
        raise ValueError(f"{', '.join(names)} have {counts} entries")
    return list(zip(*lists, strict=True))


def _some(spans: tuple[Span, ...], name: str) -> tuple[Span, ...]:
    if not spans:
        raise ValueError(f"{name} is empty: a query without an answer cannot be evaluated")
    return spans


def _grade(value: object) -> int:
    grade = seconds_of(value)
    if grade < 1 or grade != int(grade):
        raise ValueError(f"a grade is an integer from 1 on, got {value!r}")
    return int(grade)
