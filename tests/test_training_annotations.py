"""Published annotations of videos: small files of each form, and the real files if they are on this machine."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.evaluation.annotations import (
    Annotation,
    as_queries,
    match_names,
    read_annotations,
)
from scanonce.training.evaluation.metrics import Relevant
from tests.training_kit import published

QUERIES_NLQ = [
    {"query": None, "clip_start_sec": 1.0, "clip_end_sec": 2.0},
    {"query": "Where was the saw?", "template": "Objects", "clip_start_sec": 28.5, "clip_end_sec": 29.0},
]  # fmt: skip
CLIP_NLQ = {
    "clip_uid": "c1", "video_start_sec": 10.0, "video_end_sec": 490.0,
    "annotations": [{"annotation_uid": "u", "language_queries": QUERIES_NLQ}],
}  # fmt: skip
NLQ = {"videos": [{"clips": [CLIP_NLQ]}]}
NLQ_BY_CLIP = {
    "c1": {
        "fps": 2.0, "num_frames": 960, "sentences": ["Where was the saw?"], "exact_times": [[28.5, 29.0]],
        "annotation_uids": ["u"], "query_idx": [1],
    }
}  # fmt: skip
MAD_ENTRY = {"movie": "m", "movie_duration": 100.0, "timestamps": [4, 5], "sentence": "He runs."}
FORMS: list[tuple[str, str, str, Annotation]] = [
    ("msrvtt", "a.csv", 'key,vid_key,video_id,sentence\nret0,msr7,video7,"a dog, a cat"\n',
     Annotation("ret0", "a dog, a cat", "video7")),
    ("qvhighlights", "a.jsonl",
     '{"qid": 9, "query": "a dog", "vid": "x_60.0_210.0", "duration": 150, "relevant_windows": [[2, 4], [8, 20]]}',
     Annotation("9", "a dog", "x_60.0_210.0", (Span(2, 4), Span(8, 20)), 150)),
    ("charades", "a.txt", "3MSZA 24.3 30.4##person turns a light on.\n",
     Annotation("1", "person turns a light on.", "3MSZA", (Span(24.3, 30.4),))),
    ("charades", "a.jsonl",
     '{"qid": 4, "query": "a light", "vid": "3MSZA", "duration": 30.9, "relevant_windows": [[24.3, 30.4]]}',
     Annotation("4", "a light", "3MSZA", (Span(24.3, 30.4),), 30.9)),
    ("tvr", "a.jsonl",
     '{"vid_name": "s1", "duration": 61.5, "ts": [0, 2.29], "desc": "Ross talks.", "type": "vt", "desc_id": 90}',
     Annotation("90", "Ross talks.", "s1", (Span(0, 2.29),), 61.5, "vt")),
    ("mad", "a.json", json.dumps({"17": {**MAD_ENTRY, "ext_timestamps": [3.5, 101.0]}}),
     Annotation("17", "He runs.", "m", (Span(3.5, 100.0),), 100.0)),
    ("mad", "a.txt", "17 | m | 100.0 | 3.5 | 6.0 | He runs | and falls.\n",
     Annotation("17", "He runs | and falls.", "m", (Span(3.5, 6.0),), 100.0)),
    ("ego4d", "a.json", json.dumps(NLQ),
     Annotation("u_1", "Where was the saw?", "c1", (Span(28.5, 29.0),), 480.0, "Objects")),
    ("ego4d", "a.json", json.dumps(NLQ_BY_CLIP),
     Annotation("u_1", "Where was the saw?", "c1", (Span(28.5, 29.0),), 480.0)),
    ("activitynet", "a.json",
     '{"v_x": {"duration": 60.0, "timestamps": [[9, 8], [50, 70]], "sentences": ["a", "A dog."]}}',
     Annotation("v_x_1", "A dog.", "v_x", (Span(50, 60),), 60.0)),
    ("didemo", "a.json",
     '[{"annotation_id": 3, "description": "a dog", "video": "5@N00_274c.7.avi", "times": [[0, 0], [1, 2]]}]',
     Annotation("3", "a dog", "5@N00_274c.7", (Span(0, 5), Span(5, 15)))),
    ("scanonce", "a.csv", "\ufeffpath,caption,start_seconds,end_seconds\nfilms/x.MP4,a dog,,\n",
     Annotation("2", "a dog", "x")),
    ("scanonce", "a.jsonl",
     '{"path": "x.mp4", "query": "it rains", "start_seconds": 0.0, "end_seconds": 5.2, "needs_time": true}',
     Annotation("1", "it rains", "x", (Span(0, 5.2),), kind="time")),
]  # fmt: skip


@pytest.mark.parametrize(("benchmark", "name", "content", "expected"), FORMS)
def test_each_published_form_is_read(
    benchmark: str, name: str, content: str, expected: Annotation, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_annotations(tmp_path / name, benchmark) == [expected]


def test_queries_that_a_benchmark_leaves_out_are_left_out_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(NLQ), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        read_annotations(path, "ego4d")
    assert "1 of 2 queries are left out" in caplog.text
    assert "annotation u, query 0 has no text" in caplog.text


@pytest.mark.parametrize(
    ("benchmark", "name", "content", "message"),
    [
        ("charades", "a.txt", "A 1 2##x\nB 1 2 no sentence\n", r"line 2: .*Expected is video start end##sentence"),
        ("charades", "a.txt", "A 5 2##x\n", r"line 1: a span needs 0 <= start <= end"),
        ("tvr", "a.jsonl", "\n{}\n", r"line 2: 'desc_id' is missing\. Expected is"),
        ("tvr", "a.jsonl", "{\n", r"line 1: no JSON"),
        ("qvhighlights", "a.jsonl", '{"qid": 1, "query": "", "relevant_windows": []}', r"line 1: query must be text"),
        ("msrvtt", "a.csv", "key,video_id,sentence\na,v,x,y\n", r"line 2: not as many fields as the 3 names"),
        ("mad", "a.json", '{"17": {"movie": "m"}}', r"query 17: 'movie_duration' is missing"),
        ("mad", "a.txt", "17 | m | long | 1 | 2 | He runs.\n", r"line 1: a number of seconds is needed, got 'long'"),
        ("activitynet", "a.json", '{"v": {"duration": 1, "timestamps": [], "sentences": ["x"]}}', r"have 0, 1 entries"),
        ("didemo", "a.json", '{"a":\n1', r"line 2: no JSON"),
        ("scanonce", "a.jsonl", '{"video": "a", "text": "x", "end_seconds": 1}', r"line 1: .*come together or not"),
        ("scanonce", "a.csv", "video,text,grade\na,x,0\n", r"line 2: a grade is an integer from 1 on"),
        ("scanonce", "a.txt", "x", r"own annotations come as \.csv or \.jsonl"),
        ("tvr", "a.jsonl", "", r"has no annotations: is it a file of tvr\?"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_what_is_expected(
    benchmark: str, name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        read_annotations(tmp_path / name, benchmark)
    assert str(tmp_path / name) in str(error.value)


def test_two_queries_cannot_have_the_same_id(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("qid,video,text\n1,a,x\n1,b,y\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="two queries have the id '1'"):
        read_annotations(path, "scanonce")


def test_an_unknown_benchmark_is_refused_with_a_list_of_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no benchmark 'tacos'; there are msrvtt, "):
        read_annotations(tmp_path / "a.csv", "tacos")


def test_rows_with_the_same_id_are_several_answers_to_one_query() -> None:
    annotations = [
        Annotation("1", "a dog", "x", (Span(0, 2), Span(4, 6)), grade=2),
        Annotation("1", "a dog", "y"),
    ]
    (query,) = as_queries(annotations)
    empty = Span(0, 0)
    assert query.right == (
        Relevant("x", Span(0, 2), 2),
        Relevant("x", Span(4, 6), 2),
        Relevant("y", empty, 1),
    )
    assert query.videos == {"x", "y"}
    assert query.has_spans


def test_videos_are_found_by_name_and_those_missing_are_named(tmp_path: Path) -> None:
    names = ["a_1.0_2.0", "b", "a_1.0_2.0", "c"]
    for name in ("deep/a_1.0_2.0.mkv", "c.txt", "other.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, missing = match_names(names, tmp_path)
    assert found == {"a_1.0_2.0": tmp_path / "deep/a_1.0_2.0.mkv"}
    assert missing == ["b", "c"]
    with pytest.raises(ConfigError, match="both have the name of the annotated video b"):
        match_names(names, [Path("x/b.mp4"), Path("y/b.avi")])


@pytest.mark.parametrize(
    ("benchmark", "file", "queries", "videos", "some"),
    [
        ("msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv", 1000, 1000, {"video": "video9770"}),
        ("qvhighlights", "qvhighlights/highlight_val_release.jsonl", 1550, 1519, {"id": "2579"}),
        ("charades", "charades/charades_sta_test.txt", 3720, 1334, {"video": "3MSZA"}),
        ("charades", "charades/charades_test_release.jsonl", 3720, 1334, {"id": "12404"}),
        ("tvr", "tvr/tvr_val_release.jsonl", 10895, 2179, {"id": "90200", "kind": "v"}),
        ("ego4d", "ego4d/nlq_val_unitime.json", 4552, 415, {"kind": "Place: Where did I put X?"}),
    ],
)
def test_published_files_are_read_whole(
    benchmark: str, file: str, queries: int, videos: int, some: dict[str, Any]
) -> None:
    """The number of queries is the one that the benchmark publishes."""
    annotations = read_annotations(published(file), benchmark)
    assert len(annotations) == queries
    assert len({annotation.video for annotation in annotations}) == videos
    assert {name: getattr(annotations[0], name) for name in some} == some
