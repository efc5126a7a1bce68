"""Captions with their videos: own files and benchmarks', missing videos, and errors of wrong lines."""

import json
from pathlib import Path

import pytest

from scanonce.storage.errors import ConfigError
from scanonce.storage.records import Span
from scanonce.training.clip.captions import CaptionedPart, MissingVideo, read_captions
from scanonce.training.evaluation import annotations
from scanonce.training.evaluation.annotations import Annotation


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with a.mp4 and deep/b.mkv."""
    folder = tmp_path / "films"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.mp4").touch()
    (folder / "deep" / "b.mkv").touch()
    return folder


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_captions_are_grouped_by_part(films: Path) -> None:
    path = write(
        films,
        "captions.csv",
        "video,caption,start_seconds,end_seconds,rating\n"
        'a.mp4,"a car, red",,,5\n'
        "a.mp4,it goes away,2,7.5,4\n"
        "deep/b.mkv,a dog,,,1\n"
        "a.mp4,a red car,,,3\n"
        "a.mp4,a red car,,,3\n",
    )
    captioned = read_captions(path, videos=None)
    assert captioned.parts == (
        CaptionedPart(films / "a.mp4", None, ("a car, red", "a red car")),
        CaptionedPart(films / "a.mp4", Span(2.0, 7.5), ("it goes away",)),
        CaptionedPart(films / "deep" / "b.mkv", None, ("a dog",)),
    )
    assert captioned.num_captions == 4
    assert captioned.missing == ()


def test_the_ground_truth_of_the_rendered_world_is_a_file_of_captions(
    films: Path, tmp_path: Path
) -> None:
    line = {"path": "a.mp4", "query": "a star", "start_seconds": 0.0, "end_seconds": 3.2}
    path = write(tmp_path, "ground_truth.jsonl", json.dumps({**line, "needs_time": False}) + "\n\n")
    (part,) = read_captions(path, videos=films).parts
    assert part == CaptionedPart(films / "a.mp4", Span(0.0, 3.2), ("a star",))


def test_missing_videos_are_listed_with_the_number_of_their_captions(films: Path) -> None:
    path = write(films, "c.csv", "path,text\nno.mp4,one\na.mp4,two\nno.mp4,three\nc,four\nb,five\n")
    captioned = read_captions(path, videos=films)
    assert [part.captions for part in captioned.parts] == [("two",), ("five",)]
    assert captioned.missing == (MissingVideo("no.mp4", 2), MissingVideo("c", 1))


def test_a_benchmarks_videos_are_found_by_name_in_any_folder(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Annotation("1", "a dog", "b", spans=(Span(0, 1), Span(4, 5))),
        Annotation("2", "a cat", "gone"),
        Annotation("3", "a car", "a"),
    ]
    monkeypatch.setattr(annotations, "read_annotations", lambda path, name: rows, raising=False)
    captioned = read_captions(tmp_path / "x.json", videos=films, benchmark="charades")
    deep = films / "deep" / "b.mkv"
    assert [(part.video, part.span) for part in captioned.parts] == [
        (deep, Span(0, 1)),
        (deep, Span(4, 5)),
        (films / "a.mp4", None),
    ]
    assert captioned.missing == (MissingVideo("gone", 1),)
    (films / "b.mp4").touch()
    with pytest.raises(ConfigError, match="both have the name"):
        read_captions(tmp_path / "x.json", videos=films, benchmark="charades")
    with pytest.raises(ConfigError, match="--videos FOLDER"):
        read_captions(tmp_path / "x.json", videos=None, benchmark="charades")


def test_msrvtts_own_json_has_many_captions_of_a_video(films: Path) -> None:
    sentences = [("a", "a car"), ("b", "a dog"), ("a", "it is red"), ("video7", "a cat")]
    rows = [{"video_id": video, "caption": caption, "sen_id": 0} for video, caption in sentences]
    path = write(films, "train_val.json", json.dumps({"videos": [], "sentences": rows}))
    captioned = read_captions(path, videos=films, benchmark="msrvtt")
    assert [part.captions for part in captioned.parts] == [("a car", "it is red"), ("a dog",)]
    assert captioned.missing == (MissingVideo("video7", 1),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "video,caption\na.mp4,a car, red\n", "line 2: not as many fields"),
        ("c.csv", "video,words\na.mp4,a car\n", "line 2: .*caption.* is missing. Expected is"),
        ("c.csv", "video,caption\na.mp4,one\n ,two\n", "line 3: video must be text"),
        ("c.csv", "video,caption,start_seconds\na.mp4,one,2\n", "together or not at all"),
        (
            "c.csv",
            "video,caption,start_seconds,end_seconds\na.mp4,one,2,2\n",
            "line 2: a span must end after it begins, got 2 to 2",
        ),
        ("c.csv", "video,caption\n", "has no captions"),
        ("c.csv", "video,caption\nno.mp4,one\n", r"none of the 1 videos .* such as no\.mp4"),
        ("c.jsonl", '{"video": "a.mp4"\n', "line 1: no JSON"),
        ("c.jsonl", '\n["a.mp4"]\n', "line 2: a JSON object"),
        ("c.jsonl", '{"video": "a.mp4", "caption": 3}\n', "caption must be text, not empty; got 3"),
        ("c.txt", "a.mp4 a car\n", r"come as \.csv or \.jsonl"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_the_expected_form(
    films: Path, name: str, text: str, message: str
) -> None:
    path = write(films, name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_captions(path, videos=films)
    assert str(path) in str(caught.value)


def test_a_file_that_is_missing_or_not_text_is_refused(films: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_captions(films / "none.csv", videos=films)
    (films / "c.csv").write_bytes(b"video,caption\na.mp4,caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_captions(films / "c.csv", videos=films)
    with pytest.raises(ConfigError, match="is no folder"):
        read_captions(write(films, "d.csv", "video,caption\na,b\n"), videos=films / "none")
