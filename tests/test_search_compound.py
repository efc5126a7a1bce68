"""Queries of several parts over a library of flat colours."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scanonce.search.engine import SearchEngine
from scanonce.search.filters import Filter
from scanonce.search.grades import GOOD
from scanonce.storage.errors import QueryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Moment, Span
from tests.colours import write_film
from tests.indexes import build_index, colour_library, open_engine

SURE = 0.995
"""To this encoder, which was never calibrated, black is like every colour, by .99 at most."""

FILMS = {
    "red-green": [("black", 8), ("red", 8), ("green", 8), ("black", 8)],
    "green-red": [("black", 8), ("green", 8), ("red", 8), ("black", 8)],
    "far": [("red", 8), ("black", 60), ("green", 8), ("black", 8)],
    "red": [("black", 8), ("red", 8), ("white", 8)],
    "blue": [("white", 8), ("blue", 8), ("black", 8)],
    "dull": [("black", 12), ("white", 12)],
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return colour_library(tmp_path_factory.mktemp("library"), FILMS)


@pytest.fixture
def engine(layout: IndexLayout) -> Iterator[SearchEngine]:
    with open_engine(layout) as engine:
        yield engine


def sure(engine: SearchEngine, text: str) -> list[Moment]:
    result = engine.search(text, top=10)
    probabilities = [moment.probability for moment in result.moments]
    assert probabilities == sorted(probabilities, reverse=True)
    return [moment for moment in result.moments if moment.probability >= SURE]


def names(moments: list[Moment]) -> set[str]:
    return {moment.path.stem for moment in moments}


def test_or_finds_both(engine: SearchEngine) -> None:
    found = sure(engine, "blue | red")
    assert names(found) == {"blue", "red", "red-green", "green-red", "far"}
    assert names(found) == names(sure(engine, "red OR blue"))
    assert names(found[:2]) != {"dull"}


def test_then_finds_one_after_the_other_as_one_moment(engine: SearchEngine) -> None:
    (only,) = sure(engine, "red > green")
    assert only.path.stem == "red-green"
    assert only.span.tiou(Span(8, 24)) > 0.85
    (only,) = sure(engine, "green then red within 10s")
    assert only.path.stem == "green-red"
    assert names(sure(engine, "red > green within 80s")) == {"red-green", "far"}


def test_not_leaves_out_what_has_it(engine: SearchEngine) -> None:
    both = sure(engine, "(red > green)")
    assert both
    assert names(sure(engine, "red -red")) == set()
    assert names(sure(engine, "(red | blue) -blue")) == {"red", "red-green", "green-red", "far"}
    moments = engine.search("(red | blue) -blue", top=50).moments
    assert all(
        moment.path.stem != "blue" or moment.span.tiou(Span(8, 16)) < 0.3 for moment in moments
    )


def test_and_needs_both_at_the_same_time(engine: SearchEngine) -> None:
    assert names(sure(engine, "red & red")) == {"red", "red-green", "green-red", "far"}
    assert sure(engine, "red & blue") == []


def test_a_weight_changes_the_number_and_not_the_line(engine: SearchEngine) -> None:
    plain, heavy = engine.search("red"), engine.search("(red^2)")
    assert [each.span for each in plain.moments[:4]] == [each.span for each in heavy.moments[:4]]
    for one, other in zip(plain.moments[:4], heavy.moments[:4], strict=True):
        assert (one.probability >= GOOD) == (other.probability >= GOOD)
        assert other.probability > one.probability


def test_an_example_is_a_part_like_any_other(engine: SearchEngine) -> None:
    found = sure(engine, "like:blue.mp4@9-15")
    assert found[0].path.stem == "blue"
    assert found[0].span.tiou(Span(8, 16)) > 0.8
    (first, *_) = sure(engine, "like:red.mp4@9-15 > green")
    assert first.path.stem == "red-green"


def test_the_answer_says_how_it_was_read(engine: SearchEngine) -> None:
    assert engine.search("red   -green").notes[0] == "read as: red & -green"
    (note,) = engine.search("red without green").notes
    assert note.endswith("ask: red -green")
    assert set(engine.search("red | blue").timings_ms) == {"text", "library", "moments", "total"}


def test_a_filter_holds_for_every_part(engine: SearchEngine) -> None:
    (blue,) = [number for number, video in engine.videos.items() if video.path.stem == "blue"]
    result = engine.search("red | blue", within=Filter(videos=frozenset([blue])))
    assert names(list(result.moments)) == {"blue"}
    assert result.num_videos == 1
    assert engine.search("red | blue", within=frozenset()).moments == ()


def test_queries_are_answered_in_their_order_whatever_they_are(engine: SearchEngine) -> None:
    texts = ["red", "red | blue", "green", "blue > red"]
    together = engine.search_many(texts)
    assert [each.query for each in together] == texts
    assert [each.moments for each in together] == [engine.search(text).moments for text in texts]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("like:rad.mp4", "no video of the index is called rad.mp4; the nearest is red.mp4"),
        ("like:mp4", "no video of the index is called mp4"),
        ("like:red.mp4@90-95", "has only 24 seconds"),
        ("red | | blue", "cannot be read at character 7"),
    ],
)
def test_a_part_that_makes_no_sense_is_an_error(engine: SearchEngine, text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        engine.search(text)


def test_an_ambiguous_name_asks_for_more_of_the_path(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_film(
            tmp_path / "films" / folder / "same.mp4", [("red", 4), ("blue", 2 + len(folder))]
        )
    write_film(tmp_path / "films" / "b" / "same.mkv", [("green", 4)])
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    with open_engine(layout) as engine:
        with pytest.raises(QueryError, match=r"could be any of 2 videos.*give more of the path"):
            engine.search("like:same")
        assert engine.search("like:b/same.mkv").moments[0].path.name == "same.mkv"
