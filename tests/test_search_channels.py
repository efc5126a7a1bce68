"""One ranking of images and words: what a query asks, what it finds, and why."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.search import line_moments
from scanonce.search.engine import SearchEngine
from scanonce.search.line_moments import overlap, together
from scanonce.search.meanings import Meanings
from scanonce.search.query import And, Query, Text, parse
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.lines import TrackVectors
from scanonce.storage.catalog.passages import Passages
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Line, MadeTrack, Reason, Span
from tests.colours import write_film
from tests.indexes import build_index, open_engine

TALK = (
    (0.0, 4.0, "Hello and welcome."),
    (4.0, 8.0, "We are people who"),
    (8.0, 12.0, "met on Discord."),
    (12.0, 16.0, "Then we went to the zoo."),
)


def put(layout: IndexLayout, name: str, track: MadeTrack, lines: object = TALK) -> None:
    with Catalog.open(layout.catalog) as catalog:
        video = next(each for each in catalog.videos() if each.path.name == name)
        records = [Line(video.video_id, track, *each) for each in lines]  # type: ignore[attr-defined]
        catalog.lines.put(video.video_id, track, records, source="test")


@pytest.fixture
def layout(tmp_path: Path) -> IndexLayout:
    write_film(tmp_path / "films/talk.mp4", [("red", 10), ("blue", 10)])
    write_film(tmp_path / "films/holiday_zoo.mp4", [("green", 12)])
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    return layout


@pytest.fixture
def engine(layout: IndexLayout) -> Iterator[SearchEngine]:
    put(layout, "talk.mp4", "said")
    written = [(8.0, 20.0, "Zoo tickets"), (8.0, 20.0, "10 euros")]
    put(layout, "holiday_zoo.mp4", "written", written)
    with open_engine(layout) as opened:
        yield opened


def first(engine: SearchEngine, query: str) -> tuple[str, float, float, list[str]]:
    moment = engine.search(query).moments[0]
    channels: list[str] = [reason.channel for reason in moment.reasons]
    return moment.path.name, moment.span.start_seconds, moment.span.end_seconds, channels


def test_without_tracks_a_query_is_answered_by_images_as_before(layout: IndexLayout) -> None:
    with open_engine(layout) as engine:
        plain = engine.search("red blue")
        assert plain.moments
        assert all(moment.reasons == () for moment in plain.moments)
        assert set(plain.timings_ms) == {"text", "judging", "library", "moments", "total"}
        asked = engine.search("said: red")
        assert asked.moments == ()
        assert "scanonce tracks add" in asked.notes[-1]


def test_what_was_said_is_found_with_its_sentence_and_its_words_marked(
    engine: SearchEngine,
) -> None:
    name, start, end, channels = first(engine, "people who met on discord")
    assert (name, start, end, channels[0]) == ("talk.mp4", 4.0, 12.0, "said")
    (moment, *_) = engine.search("met on discord").moments
    reason = next(each for each in moment.reasons if each.channel == "said")
    marked = [reason.text[begin:stop] for begin, stop in reason.marks]
    assert "met on Discord" in marked
    assert moment.probability > 0.8


def test_a_query_of_images_alone_keeps_its_answer(
    layout: IndexLayout, engine: SearchEngine
) -> None:
    with_words = engine.search("red")
    only = engine.search("seen: red")
    assert [moment.span for moment in with_words.moments] == [
        moment.span for moment in only.moments
    ]
    assert [moment.probability for moment in with_words.moments] == [
        moment.probability for moment in only.moments
    ]


def test_a_prefix_restricts_and_several_have_to_be_met_together(engine: SearchEngine) -> None:
    assert first(engine, "written: zoo")[0] == "holiday_zoo.mp4"
    assert first(engine, "said: zoo")[:2] == ("talk.mp4", 12.0)
    assert first(engine, "name: holiday") == ("holiday_zoo.mp4", 0.0, 12.0, ["name"])
    name, start, _, channels = first(engine, "seen: red said: discord")
    assert (name, sorted(channels)) == ("talk.mp4", ["said", "seen"])
    assert start >= 4.0
    assert engine.search("seen: green said: discord").no_good_match


def test_words_in_quotes_are_there_as_they_are(engine: SearchEngine) -> None:
    assert first(engine, '"who met on"')[1] == 4.0  # over two lines
    assert engine.search('"on met"').moments == ()
    assert engine.search('said: "zoo tickets"').moments == ()
    assert first(engine, 'written: "zoo tickets"')[0] == "holiday_zoo.mp4"


def test_texts_that_are_on_screen_together_count_together(engine: SearchEngine) -> None:
    moment = engine.search("written: zoo tickets 10 euros").moments[0]
    assert moment.reasons[0].text == "Zoo tickets 10 euros"
    assert (moment.span.start_seconds, moment.span.end_seconds) == (8.0, 12.0)  # to the end


def test_a_filter_restricts_words_as_it_does_images(engine: SearchEngine) -> None:
    ids = {video.path.name: video.video_id for video in engine.videos.values()}
    assert engine.search("said: zoo", within=[ids["holiday_zoo.mp4"]]).moments == ()
    assert engine.search("said: zoo", within=[ids["talk.mp4"]]).moments
    assert engine.search("name: holiday", within=[ids["talk.mp4"]]).moments == ()


def test_a_search_follows_new_tracks(layout: IndexLayout, engine: SearchEngine) -> None:
    assert engine.search("said: elephant").moments == ()
    put(layout, "holiday_zoo.mp4", "said", [(1.0, 3.0, "An elephant!")])
    assert first(engine, "said: elephant")[0] == "holiday_zoo.mp4"
    lines = engine.lines(engine.search("said: elephant").moments[0].video_id)
    assert [line.track for line in lines] == ["said", "written", "written"]


@pytest.mark.parametrize("query", ["said:", '""', "said: ?!", "name: .", '"'])
def test_queries_of_nothing_but_marks_are_answered(engine: SearchEngine, query: str) -> None:
    engine.search(query)


def test_a_common_word_alone_is_little_evidence_and_rare_ones_are_much(
    layout: IndexLayout, engine: SearchEngine
) -> None:
    put(layout, "holiday_zoo.mp4", "said", [(k / 2, k / 2 + 0.5, "we do") for k in range(20)])
    assert engine.search("said: we").moments[0].probability < 0.5
    assert engine.search("said: people met on discord").moments[0].probability > 0.9


def test_of_equal_words_those_that_were_recognised_for_sure_come_first(
    layout: IndexLayout, engine: SearchEngine
) -> None:
    put(layout, "holiday_zoo.mp4", "said", [(0.0, 4.0, "a kangaroo", 0.4)])
    put(layout, "talk.mp4", "written", [(12.0, 16.0, "a kangaroo", 0.9)])
    assert first(engine, "kangaroo")[0] == "talk.mp4"
    put(layout, "holiday_zoo.mp4", "said", [(0.0, 4.0, "a kangaroo", 0.9)])
    put(layout, "talk.mp4", "written", [(12.0, 16.0, "a kangaroo", 0.4)])
    assert first(engine, "kangaroo")[0] == "holiday_zoo.mp4"


@pytest.mark.parametrize("rare_lines", [0, 2_000])
def test_lines_with_all_words_are_found_among_many_with_some(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch, rare_lines: int
) -> None:
    """With 0, every word counts as common."""
    monkeypatch.setattr(line_moments, "_RARE_LINES", rare_lines)
    some = [(k / 50, k / 50 + 0.02, ("we went", "the zoo")[k % 2]) for k in range(400)]
    put(layout, "talk.mp4", "written", some)
    put(layout, "holiday_zoo.mp4", "written", [(8.0, 12.0, "we went to the zoo")])
    with open_engine(layout) as opened:
        assert first(opened, "we went zoo")[:3] == ("holiday_zoo.mp4", 8.0, 12.0)
        assert first(opened, "written: zoo")[3] == ["written"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("a boat", Text("a boat")),
        ("SAID: a boat", Text("a boat", "said")),
        ("seen: a boat said: no", And((Text("a boat", "seen"), Text("no", "said")))),
        ("it said: no", Text("it said: no")),
        ("unsaid: no", Text("unsaid: no")),
        ("said:", Text("said:")),
    ],
)
def test_a_query_is_split_at_its_prefixes(text: str, query: Query) -> None:
    assert parse(text) == query


def test_subtitles_and_speech_count_once_and_other_channels_add_up() -> None:
    assert together([Reason("said", 0.5), Reason("subtitle", 0.6)]) == pytest.approx(0.6)
    assert together([Reason("said", 0.5), Reason("seen", 0.5)]) == pytest.approx(0.75)
    assert overlap(Span(0.0, 4.0), Span(2.0, 20.0)) == 0.5
    assert overlap(Span(0.0, 3600.0), Span(2.0, 20.0)) == 0.0  # a whole film is no moment


def test_the_nearest_passages_of_many_are_those_of_an_exact_search() -> None:
    rng = np.random.default_rng(0)

    def draw(count: int) -> NDArray[np.float32]:
        rows = rng.standard_normal((count, 64)).astype(np.float32)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    vectors, ones = draw(30_000), np.ones(15_000, np.int64)
    tracks = [
        TrackVectors(k, k, "said", Passages(vectors[15_000 * k :][:15_000], ones)) for k in (0, 1)
    ]
    meanings = Meanings.of(tracks, 64)
    for row in (5, 20_000):
        query = vectors[row] + 0.3 * draw(1)[0]
        query /= np.linalg.norm(query)
        (best, cosine), *_ = meanings.nearest(query, ["said"], None, 5)
        assert best == row
        assert cosine == pytest.approx(float(vectors[row] @ query), abs=0.01)
    assert meanings.nearest(query, ["written"], None, 5) == []
    only = meanings.nearest(query, ["said"], np.array([0]), 5)
    assert all(meanings.video_ids[row] == 0 for row, _ in only)
    assert len(meanings.without([0]).steps) == 15_000
