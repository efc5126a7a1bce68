"""More like this, less like this: the arithmetic, and answers over a library of flat colours."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scanonce.search.engine import SearchEngine
from scanonce.search.feedback import MOST_JUDGED, pieces_of, rocchio
from scanonce.search.query import Like
from scanonce.storage.errors import QueryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from tests.indexes import colour_library, open_engine

NOTHING = np.empty((0, 3))


def test_without_a_judgement_nothing_changes() -> None:
    probabilities = np.array([0.9, 0.5, 0.1])
    np.testing.assert_allclose(rocchio(probabilities, NOTHING, NOTHING), probabilities)


def test_what_is_alike_rises_and_what_is_dismissed_falls() -> None:
    level = np.full(3, 0.5)
    likeness = np.array([[0.9, 0.5, 0.1]])
    up, down = rocchio(level, likeness, NOTHING), rocchio(level, NOTHING, likeness)
    assert up[0] > up[1] > up[2]
    assert down[0] < down[1] < down[2]
    assert (up[1], down[1]) == pytest.approx((0.5, 0.5))
    assert up[0] - 0.5 > 0.5 - down[0], "what is right says more than what is wrong"


def test_the_mean_counts_and_not_the_number() -> None:
    level, row = np.full(3, 0.3), np.array([[0.8, 0.4, 0.2]])
    once, thrice = rocchio(level, row, NOTHING), rocchio(level, np.repeat(row, 3, 0), NOTHING)
    np.testing.assert_allclose(once, thrice)


def test_probabilities_stay_inside_their_bounds() -> None:
    edges = np.array([0.0, 0.5, 1.0])
    found = rocchio(edges, edges[None], 1.0 - edges[None])
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert found.min() >= 1e-4
    assert found.max() <= 1 - 1e-4


def test_one_moment_is_not_right_and_wrong() -> None:
    with pytest.raises(QueryError, match="picked and dismissed"):
        pieces_of([Like("a.mp4", 1, 2)], [Like("a.mp4", 1, 2)])
    with pytest.raises(QueryError, match=f"at most {MOST_JUDGED} moments"):
        pieces_of([Like(f"{number}.mp4") for number in range(MOST_JUDGED)], [Like("a.mp4")])


FILMS = {
    "red": [("black", 8), ("red", 8), ("white", 8)],
    "blue": [("white", 8), ("blue", 8), ("black", 8)],
    "green-red": [("black", 8), ("green", 8), ("red", 8)],
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return colour_library(tmp_path_factory.mktemp("library"), FILMS)


@pytest.fixture
def engine(layout: IndexLayout) -> Iterator[SearchEngine]:
    with open_engine(layout) as engine:
        yield engine


def test_more_like_a_moment_brings_its_like_first(engine: SearchEngine) -> None:
    plain = engine.search("something").moments  # a text that is like no colour
    blue = engine.search("blue").moments[0]
    again = engine.search("something", more_like=[blue]).moments
    assert again[0].path.stem == "blue"
    assert again[0].span.tiou(Span(8, 16)) > 0.8
    assert again[0].probability > max(each.probability for each in plain)
    probabilities = [each.probability for each in again]
    assert probabilities == sorted(probabilities, reverse=True)


def test_less_like_a_moment_leaves_it_out(engine: SearchEngine) -> None:
    first, second, *_ = engine.search("red").moments
    again = engine.search("red", less_like=[first]).moments
    assert all(
        each.video_id != first.video_id or each.span.tiou(first.span) < 0.5 for each in again
    )
    (same,) = [each for each in again if each.video_id == second.video_id][:1]
    assert same.probability < second.probability, "it looks like what was dismissed"


def test_a_moment_is_enough_to_ask_by(engine: SearchEngine) -> None:
    result = engine.search("", more_like=[Like("red.mp4", 9, 15)], less_like=[Like("blue.mp4")])
    assert {each.path.stem for each in result.moments[:2]} == {"red", "green-red"}
    with pytest.raises(QueryError, match="or a moment to find more like"):
        engine.search(" ", less_like=[Like("red.mp4", 9, 15)])


def test_a_query_of_several_parts_takes_feedback(engine: SearchEngine) -> None:
    plain = engine.search("red | blue")
    again = engine.search("red | blue", more_like=[Like("blue.mp4", 9, 15)])
    assert again.moments[0].path.stem == "blue"
    assert again.notes == plain.notes
    assert len(engine.search("red | blue", more_like=[Like("blue.mp4")], top=1).moments) == 1


def test_a_filter_holds_for_feedback(engine: SearchEngine) -> None:
    (red,) = [number for number, video in engine.videos.items() if video.path.stem == "red"]
    for text in ("red", ""):
        found = engine.search(text, more_like=[Like("blue.mp4", 9, 15)], within=[red]).moments
        assert {each.video_id for each in found} == {red}


def test_a_piece_of_no_video_is_an_error(engine: SearchEngine, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"no video of the index is called rad.mp4"):
        engine.search("red", more_like=[Like("rad.mp4")])
    with pytest.raises(QueryError, match="has only 24 seconds"):
        engine.search("red", less_like=[Like("red.mp4", 90, 95)])
