"""A query from its text to its moments, over a library of flat colours."""

import gc
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scanonce.indexer.models import make_manifest
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.protocol import TextFeatures
from scanonce.search.calibration import BY_FRAMES, Calibration, Weights, write_calibration
from scanonce.search.engine import SearchEngine
from scanonce.search.filters import Filter
from scanonce.search.result import SearchResult
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.catalog.entries import ChangeMark, Content, FileStamp, VideoChanges
from scanonce.storage.errors import IndexDirectoryError, ManifestMismatch, QueryError
from scanonce.storage.index import Index
from scanonce.storage.layout import IndexLayout
from scanonce.storage.manifest import create_or_check
from scanonce.storage.records import Span, Video, VideoInfo
from scanonce.storage.stores.features import FeatureStore, FrameFeatures
from scanonce.storage.vectors.publish import open_library
from tests.colours import ColourEncoder, write_film
from tests.indexes import build_index, open_engine, publish_all, random_localiser, replace_index


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "films"
    for number in range(10):
        write_film(folder / f"dull{number}.mp4", [("black", 20 + number), ("white", 12)])
    write_film(
        folder / "two-reds.mp4",
        [("black", 10), ("red", 6), ("white", 12), ("red", 9), ("black", 8)],
    )
    return folder


@pytest.fixture(scope="module")
def layout(films: Path) -> IndexLayout:
    layout = IndexLayout(films.parent / "index")
    build_index(layout, films)
    return layout


@pytest.fixture
def engine(layout: IndexLayout) -> Iterator[SearchEngine]:
    with open_engine(layout) as engine:
        yield engine


def test_both_moments_of_a_video_come_first_and_apart(engine: SearchEngine) -> None:
    result = engine.search("red")
    first, second = result.moments[:2]
    assert {first.path.name, second.path.name} == {"two-reds.mp4"}
    found = sorted([first.span, second.span])
    assert found[0].tiou(Span(10, 16)) > 0.85
    assert found[1].tiou(Span(28, 37)) > 0.85
    assert not result.no_good_match


def test_probabilities_fall_and_scores_are_cosines(engine: SearchEngine) -> None:
    moments = engine.search("red", top=50).moments
    probabilities = [moment.probability for moment in moments]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 < probability < 1 for probability in probabilities)
    assert probabilities[0] > 0.9
    assert all(-1.001 <= moment.score <= 1.001 for moment in moments)
    assert moments[0].score > 0.95


def test_top_limits_the_moments(engine: SearchEngine) -> None:
    assert len(engine.search("white", top=3).moments) == 3
    assert engine.search("white", top=3).moments == engine.search("white", top=9).moments[:3]


def test_nothing_is_hidden_if_there_is_no_good_match(engine: SearchEngine) -> None:
    result = engine.search("a quarterly report")
    assert result.no_good_match
    assert result.num_good == 0
    assert len(result.moments) == len(engine.search("white").moments) > 4


def test_the_number_of_a_moment_is_the_same_in_every_search(engine: SearchEngine) -> None:
    wide = {(each.video_id, each.span): each.probability for each in engine.search("red").moments}
    video_id = engine.search("red").moments[0].video_id
    for narrow in (engine.search("red", top=1), engine.search("red", within=[video_id])):
        for each in narrow.moments:
            assert wide.get((each.video_id, each.span), each.probability) == each.probability


def test_coverage_counts_the_videos_that_match(engine: SearchEngine) -> None:
    reds = {
        each.video_id for each in engine.search("red", top=50).moments if each.probability > 0.5
    }
    found = engine.coverage("red")
    assert (found.num_matching, found.num_judged) == (len(reds), engine.num_videos)
    assert not found.is_estimate
    assert engine.coverage("a quarterly report").num_matching == 0
    within = engine.coverage("red", within=sorted(reds))
    assert within.num_matching == within.num_videos == len(reds)
    assert engine.coverage("red", within=[]).share == 0.0


def test_suggestions_have_a_good_match(engine: SearchEngine) -> None:
    suggested = engine.suggestions()
    assert 0 < len(suggested) <= 3
    assert not any(engine.search(text).no_good_match for text in suggested)
    assert engine.suggestions() == suggested


def test_an_empty_index_says_so(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    layout = IndexLayout.of(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    with open_engine(layout) as engine:
        result = engine.search("red")
        assert (result.moments, result.num_searchable) == ((), 0)
        assert result.no_good_match
        assert engine.suggestions() == ()
        assert engine.coverage("red").num_videos == 0


def test_what_the_encoder_does_not_follow_is_noted(engine: SearchEngine) -> None:
    (note,) = engine.search("red without blue").notes
    assert "“without”" in note
    assert engine.search("red").notes == ()


def test_an_open_engine_follows_a_new_calibration(layout: IndexLayout, tmp_path: Path) -> None:
    shutil.copytree(layout.root, tmp_path / "index")
    own = IndexLayout.of(tmp_path / "index")
    with open_engine(own) as engine:
        before = engine.search("red").moments[0].probability
        write_calibration(own.calibration, Calibration({BY_FRAMES: Weights(-2.0, 0.01)}))
        own.manifest.touch()
        assert engine.search("red").moments[0].probability < 0.5 < before


def test_queries_answered_together_have_the_same_answers_as_alone(engine: SearchEngine) -> None:
    texts = ["red", "white", "a quarterly report", "red"]
    together = engine.search_many(texts)
    assert [result.query for result in together] == texts
    for text, result in zip(texts, together, strict=True):
        alone = engine.search(text)
        assert alone.no_good_match == result.no_good_match
        assert len(alone.moments) == len(result.moments)
        assert alone.moments == result.moments
    assert engine.search_many([]) == []


def test_timings_name_every_stage_and_add_up(engine: SearchEngine) -> None:
    timings = engine.search("red").timings_ms
    assert set(timings) == {"text", "library", "moments", "judging", "total"}
    assert timings["total"] == pytest.approx(sum(timings.values()) - timings["total"])


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_query_is_refused(engine: SearchEngine, text: str) -> None:
    with pytest.raises(QueryError, match="query 2 is empty"):
        engine.search_many(["red", text])


def test_nothing_is_decoded_and_only_the_text_tower_runs(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TextOnly(ColourEncoder):
        calls = 0

        def encode_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise AssertionError("a query encodes no frame")

        def encode_text_features(self, texts: Sequence[str]) -> TextFeatures:
            TextOnly.calls += 1
            return super().encode_text_features(texts)

    monkeypatch.setattr("scanonce.media.open.open_video", None)
    with open_engine(layout, TextOnly()) as engine:
        opened = TextOnly.calls
        engine.search_many(["red", "white"])
        assert TextOnly.calls == opened + 1


def test_only_the_stretches_near_candidates_are_read(layout: IndexLayout) -> None:
    with open_engine(layout, candidate_clips=2, context_seconds=2.0) as engine:
        moments = engine.search("red", top=1).moments
    (moment,) = moments
    assert moment.path.name == "two-reds.mp4"


def test_a_running_engine_follows_added_and_forgotten_videos(films: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write_film(folder / "first.mp4", [("red", 5), ("black", 9)])
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, folder)
    with open_engine(layout) as engine:
        assert engine.num_videos == 1
        write_film(folder / "second.mp4", [("white", 6), ("green", 7)])
        build_index(layout, folder)
        best = engine.search("green").moments[0]
        assert (best.path.name, engine.num_videos) == ("second.mp4", 2)
        (folder / "second.mp4").unlink()
        build_index(layout, folder)
        assert {moment.path.name for moment in engine.search("green").moments} == {"first.mp4"}


@pytest.fixture
def drawn(tmp_path: Path) -> "DrawnLibrary":
    return DrawnLibrary(IndexLayout(tmp_path / "drawn"))


class DrawnLibrary:
    """An index of random features, changed as a running indexer changes it."""

    def __init__(self, layout: IndexLayout) -> None:
        self.layout = layout
        create_or_check(layout, make_manifest(ColourEncoder(), IndexerSettings()))
        self.store = FeatureStore(layout.features)
        self.rng = np.random.default_rng(5)
        self.number = 0
        with Catalog.open(layout.catalog) as catalog:
            catalog.add_library(Path("/films"))

    def record(self, catalog: Catalog, path: str, replaces: int | None = None) -> None:
        self.number += 1
        uid, length = f"{self.number:032x}", int(self.rng.integers(10, 30))
        frames = self.rng.standard_normal((length, 4)) + 2 * self.rng.standard_normal(4)
        self.store.write(uid, FrameFeatures(frames.astype(np.float16), np.arange(length) / 2, 2.0))
        catalog.record_indexed(
            Content(uid, uid, self.number),
            [FileStamp(Path(path), self.number, self.number)],
            state="indexed",
            duration_seconds=length / 2,
            num_frames=length,
            info=VideoInfo(length / 2, 64, 48, 25.0, "h264"),
            replaces=replaces,
        )

    def change(self, catalog: Catalog) -> None:
        """Make a random commit, or publish."""
        videos = catalog.videos()
        some = videos[self.rng.integers(len(videos))] if videos else None
        step = self.rng.integers(8) if some is not None else 0
        new = f"/films/{self.number % 2}/{self.rng.integers(10**9)}.mp4"
        if step < 3 or some is None:
            self.record(catalog, new)
        elif step == 3:
            catalog.attach_file(some.video_id, FileStamp(Path(new), 1, 1))
            catalog.forget_files([some.path])
        elif step == 4:
            catalog.forget_files(some.paths)
        elif step == 5:
            catalog.labels.add([some.video_id], ["keep"])
        elif step == 6:
            self.record(catalog, str(some.path), replaces=some.video_id)
        else:
            publish_all(self.layout)


def _answer(engine: SearchEngine, within: Filter | None) -> SearchResult | str:
    """Return the answer without its times, or the error about a folder or label that is not in use now."""
    try:
        return replace(engine.search("red", top=50, within=within), timings_ms={})
    except QueryError as error:
        return str(error)


def test_an_engine_that_follows_answers_like_a_new_one(drawn: DrawnLibrary) -> None:
    everywhere, labelled = None, Filter(labels=frozenset({"keep"}))
    first = Filter(folders=(Path("/films/0"),))
    with Catalog.open(drawn.layout.catalog) as catalog, open_engine(drawn.layout) as following:
        for step in range(30):
            drawn.change(catalog)
            if step % 3 == 1:
                continue  # two commits at once
            with open_engine(drawn.layout) as fresh:
                for within in (everywhere, labelled, first):
                    one, other = (_answer(engine, within) for engine in (following, fresh))
                    assert one == other, step
                assert following.videos == fresh.videos
        assert following.num_videos > 2


def test_only_changed_videos_are_read_again(
    drawn: DrawnLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    with Catalog.open(drawn.layout.catalog) as catalog:
        for number in range(5):
            drawn.record(catalog, f"/films/{number}.mp4")
        with open_engine(drawn.layout) as engine:
            embed = Index.embed_clips

            def counted(index: Index, video: Video) -> NDArray[np.float32]:
                embedded.append(video.video_id)
                return embed(index, video)

            monkeypatch.setattr(Index, "embed_clips", counted)
            monkeypatch.setattr("scanonce.storage.derived.open_library", pytest.fail)
            catalog.labels.add([2], ["keep"])
            assert engine.search("red", within=Filter(labels=frozenset({"keep"}))).num_videos == 1
            catalog.attach_file(3, FileStamp(Path("/films/moved/3.mp4"), 1, 1))
            assert (
                engine.search("red", within=Filter(folders=(Path("/films/moved"),))).num_videos == 1
            )
            monkeypatch.setattr("scanonce.storage.derived.open_library", open_library)
            drawn.record(catalog, "/films/5.mp4")
            engine.search("red")
    assert embedded == [6], "those that wait to be published are kept"


def test_changes_that_could_not_be_taken_in_are_taken_in_by_the_next_query(
    drawn: DrawnLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexDirectoryError("the disk is gone")

    with Catalog.open(drawn.layout.catalog) as catalog, open_engine(drawn.layout) as engine:
        drawn.record(catalog, "/films/a.mp4")
        monkeypatch.setattr("scanonce.storage.derived.open_library", broken)
        with pytest.raises(IndexDirectoryError, match="disk"):
            engine.search("red")
        monkeypatch.setattr("scanonce.storage.derived.open_library", open_library)
        assert engine.search("red").moments


def test_a_video_that_is_forgotten_while_it_is_read_is_no_error(
    drawn: DrawnLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Catalog.open(drawn.layout.catalog) as catalog, open_engine(drawn.layout) as engine:
        drawn.record(catalog, "/films/a.mp4")
        drawn.record(catalog, "/films/b.mp4")
        read = Catalog.searchable_changes

        def overtaken(self: Catalog, since: ChangeMark | None = None) -> VideoChanges:
            changes = read(self, since)
            for video in catalog.forget_files([Path("/films/b.mp4")]):
                drawn.store.delete(video.uid)
            return changes

        monkeypatch.setattr(Catalog, "searchable_changes", overtaken)
        moments = engine.search("red").moments
    assert {moment.path.name for moment in moments} == {"a.mp4"}


def open_files(layout: IndexLayout) -> set[str]:
    """Names of the files that this process has open or mapped, but for features, of which the last few stay mapped."""
    opened = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split(maxsplit=5)[-1] for line in maps}
    paths = {Path(path.removesuffix(" (deleted)")) for path in opened | mapped}
    inside = [path.relative_to(layout.folder) for path in paths if layout.folder in path.parents]
    return {
        path.name for path in inside if path.parts[0] != "data-1" and path.suffix != ".safetensors"
    }


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists open files")
def test_a_replaced_index_is_closed_when_its_last_reader_is_done(drawn: DrawnLibrary) -> None:
    old = drawn.layout
    with Catalog.open(old.catalog) as catalog:
        drawn.record(catalog, "/films/a.mp4")
        catalog.labels.add([1], ["keep"])
    publish_all(old)
    labelled = Filter(labels=frozenset({"keep"}))
    with open_engine(old) as engine:
        with engine.reading() as before:
            new = replace_index(old)
            assert engine.search("red", within=labelled).num_videos == 1
            with engine.reading() as after:
                assert (before.index.layout, after.index.layout) == (old, new)
            assert before.filters.apply(labelled) is not None, "its catalogue can be read"
            assert "catalog.sqlite" in open_files(old)
        del before, after
        gc.collect()
        assert open_files(old) == set()
        assert "catalog.sqlite" in open_files(new)
    assert "catalog.sqlite" not in open_files(new)
    with pytest.raises(ValueError, match="closed"):
        engine.search("red")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists open files")
def test_a_closed_engine_ends_the_call_that_runs_and_no_other(drawn: DrawnLibrary) -> None:
    with Catalog.open(drawn.layout.catalog) as catalog:
        drawn.record(catalog, "/films/a.mp4")
    engine = open_engine(drawn.layout)
    with engine.reading() as snapshot:
        engine.close()
        engine.close()
        assert snapshot.index.catalog.totals().indexed == 1
        assert "catalog.sqlite" in open_files(drawn.layout)
    assert "catalog.sqlite" not in open_files(drawn.layout)


def test_following_to_an_index_of_the_same_encoder_leaves_the_text_tower_alone(
    drawn: DrawnLibrary,
) -> None:
    """Another thread may be using it, and tokenizers are not thread-safe."""
    encoded: list[str] = []

    class Counting(ColourEncoder):
        def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
            encoded.extend(texts)
            return super().encode_texts(texts)

    with open_engine(drawn.layout, Counting()) as engine:
        encoded.clear()
        new = replace_index(drawn.layout)
        with engine.reading() as snapshot:
            assert snapshot.index.layout == new
    assert encoded == []


def test_a_catalogue_that_lost_all_its_videos_has_no_moments(
    drawn: DrawnLibrary, tmp_path: Path
) -> None:
    with Catalog.open(drawn.layout.catalog) as catalog, open_engine(drawn.layout) as engine:
        drawn.record(catalog, "/films/a.mp4")
        assert engine.search("red").moments
        Catalog.open(tmp_path / "empty.sqlite").close()
        catalog.replace_by(tmp_path / "empty.sqlite")
        assert engine.search("red").moments == ()
        assert engine.num_videos == 0


@pytest.mark.parametrize("call", ["search", "similar", "curve"])
def test_a_call_whose_index_is_replaced_meanwhile_answers_from_the_new_one(
    drawn: DrawnLibrary, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    calls: dict[str, Callable[[SearchEngine], object]] = {
        "search": lambda engine: engine.search("red").moments,
        "similar": lambda engine: engine.similar(1, Span(0, 5)).moments,
        "curve": lambda engine: engine.curve("red", 1).scores.tolist(),
    }
    with Catalog.open(drawn.layout.catalog) as catalog:
        drawn.record(catalog, "/films/a.mp4")
    with open_engine(drawn.layout) as engine:
        expected = calls[call](engine)
        read_between = FeatureStore.read_between

        def overtaken(store: FeatureStore, uid: str, spans: Any) -> list[FrameFeatures]:
            if IndexLayout.of(drawn.layout.root) == drawn.layout:
                replace_index(drawn.layout)
            return read_between(store, uid, spans)

        monkeypatch.setattr(FeatureStore, "read_between", overtaken)
        assert calls[call](engine) == expected
        assert IndexLayout.of(drawn.layout.root) != drawn.layout


def test_a_video_that_cannot_be_read_hides_no_other(
    drawn: DrawnLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    """This holds when a library is opened and when it is followed. The video is found once it can be read."""
    with Catalog.open(drawn.layout.catalog) as catalog:
        drawn.record(catalog, "/films/a.mp4")
        drawn.record(catalog, "/films/b.mp4")
        hidden = drawn.store.path(f"{2:032x}")
        whole = hidden.read_bytes()
        hidden.write_bytes(whole[:40])
        with (
            caplog.at_level(logging.WARNING),
            open_engine(drawn.layout) as engine,
        ):
            drawn.record(catalog, "/films/c.mp4")
            assert {moment.path.name for moment in engine.search("red", top=50).moments} == {
                "a.mp4",
                "c.mp4",
            }
            assert "scanonce verify" in caplog.text
            hidden.write_bytes(whole)
            drawn.record(catalog, "/films/d.mp4")
            found = {moment.path.name for moment in engine.search("red", top=50).moments}
    assert found == {"a.mp4", "b.mp4", "c.mp4", "d.mp4"}


def test_a_committed_video_is_found_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "films" / "a.mp4", [("red", 5), ("green", 5)])
    layout = IndexLayout(tmp_path / "index")
    monkeypatch.setattr(Index, "publish", lambda *_: None)
    build_index(layout, tmp_path / "films")
    assert not layout.vectors.exists()
    with open_engine(layout) as engine:
        assert engine.search("green").moments[0].span.tiou(Span(5, 10)) > 0.85


def test_an_empty_library_has_no_good_match_and_no_moments(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    with open_engine(layout) as engine:
        result = engine.search("red")
    assert result.no_good_match
    assert result.moments == ()


def test_other_weights_than_the_indexs_are_refused(layout: IndexLayout) -> None:
    class Other(ColourEncoder):
        name = "others"
        fingerprint = "d" * 64

    with pytest.raises(
        ManifestMismatch, match=r"made with encoder colours \(c+\), loaded is others"
    ):
        open_engine(layout, Other())


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="scanonce index"):
        SearchEngine.open(tmp_path / "nowhere")


def test_a_search_within_some_videos_finds_nothing_elsewhere(engine: SearchEngine) -> None:
    by_name = {video.path.name: video.video_id for video in engine.videos.values()}
    dull = [by_name["dull0.mp4"], by_name["dull3.mp4"]]
    found = engine.search("red", top=20, within=dull)
    assert {moment.video_id for moment in found.moments} <= set(dull)
    assert {moment.video_id for moment in engine.search("red", top=20).moments} > set(dull)
    assert engine.search("red", within=[]).moments == ()


FILTERS = {
    "folder": Filter(folders=(Path("/"),)),
    "length": Filter(min_seconds=33.0, max_seconds=40.0),
    "from a length": Filter(min_seconds=40.0),
    "ids": Filter(videos=frozenset({1, 2, 5, 77})),
    "days": Filter(recorded_after=date.today() - timedelta(days=1), max_seconds=37.5),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("text", ["red", "white", "a quarterly report"])
def test_a_filtered_search_is_the_full_search_without_other_videos(
    layout: IndexLayout, name: str, text: str
) -> None:
    with (
        open_engine(layout, candidate_clips=10_000) as engine,
        Catalog.open(layout.catalog, read_only=True) as catalog,
    ):
        passing = FILTERS[name].matching(catalog).tolist()
        everything = engine.search(text, top=1000)
        filtered = engine.search(text, top=1000, within=FILTERS[name])
    assert passing
    expected = [moment for moment in everything.moments if moment.video_id in passing]
    assert list(filtered.moments) == expected
    assert (filtered.num_videos, everything.num_videos) == (len(passing), None)


def test_clips_that_do_not_pass_do_not_count_as_candidates(layout: IndexLayout) -> None:
    with open_engine(layout, candidate_clips=1) as engine:
        (reds,) = (video for video in engine.videos.values() if video.path.stem == "two-reds")
        found = engine.search("white", top=1, within=Filter(videos=frozenset({reds.video_id})))
    assert found.moments[0].span.tiou(Span(16, 28)) > 0.85
    assert not found.no_good_match


def test_the_verdict_on_a_moment_is_the_same_whatever_passes(engine: SearchEngine) -> None:
    best = engine.search("red").moments[0]
    alone = engine.search("red", within=[best.video_id])
    assert alone.moments[0] == best
    assert not alone.no_good_match
    assert engine.search("a quarterly report", within=[best.video_id]).no_good_match


def test_a_filter_that_nothing_passes_gives_an_empty_answer(engine: SearchEngine) -> None:
    nothing = Filter(min_seconds=1e6)
    results = [*engine.search_many(["red", "white"], within=nothing)]
    results.append(engine.similar(1, Span(0, 5), within=nothing))
    for result in results:
        assert (result.num_videos, result.moments, result.no_good_match) == (0, (), True)
        assert set(result.timings_ms) == {"text", "library", "moments", "judging", "total"}


def test_similar_moments_are_searched_within_the_filter(engine: SearchEngine) -> None:
    first = engine.search("white").moments[0]
    others = Filter(videos=frozenset(engine.videos) - {first.video_id})
    like = engine.similar(first.video_id, first.span, within=others)
    assert like.moments
    assert first.video_id not in {moment.video_id for moment in like.moments}


def test_a_trained_localiser_finds_only_videos_that_pass(tmp_path: Path) -> None:
    for number in range(4):
        write_film(tmp_path / "films" / f"{number}.mp4", [("red", 6 + number), ("blue", 5)])
    layout = IndexLayout(tmp_path / "index")
    localiser = random_localiser(tmp_path / "localiser", 1)
    build_index(layout, tmp_path / "films", localiser=localiser)
    with open_engine(layout, candidate_clips=10_000) as engine:
        everything = engine.search("red", top=1000).moments
        found = engine.search("red", top=1000, within=Filter(min_seconds=12.5)).moments
        assert engine.search("red", within=Filter(min_seconds=99.0)).moments == ()
    assert {moment.path.stem for moment in found} == {"2", "3"}
    assert list(found) == [each for each in everything if each.path.stem in ("2", "3")]


def test_a_running_engine_follows_labels(layout: IndexLayout) -> None:
    only = Filter(labels=frozenset({"Keep"}))
    with open_engine(layout) as engine, Catalog.open(layout.catalog) as catalog:
        with pytest.raises(QueryError, match="no video has the label 'Keep'"):
            engine.search("white", within=only)
        catalog.labels.add([2, 3], ["keep"])
        assert engine.search("white", within=only).num_videos == 2
        catalog.labels.remove([3], ["KEEP"])
        assert engine.search("white", within=only).num_videos == 1


def test_similar_moments_are_found_by_the_frames_of_a_moment(engine: SearchEngine) -> None:
    first = engine.search("red").moments[0]
    like = engine.similar(first.video_id, first.span)
    assert [moment.path.name for moment in like.moments[:2]] == ["two-reds.mp4"] * 2
    assert max(moment.span.tiou(first.span) for moment in like.moments[:2]) > 0.85
    with pytest.raises(QueryError, match="no video 999"):
        engine.similar(999, first.span)


def test_the_curve_of_a_query_is_high_at_its_moments(engine: SearchEngine) -> None:
    moment = engine.search("red").moments[0]
    curve = engine.curve("red", moment.video_id)
    assert curve.edges_seconds[-1] == pytest.approx(45.0)
    inside = (curve.edges_seconds[:-1] >= moment.span.start_seconds + 1) & (
        curve.edges_seconds[1:] <= moment.span.end_seconds - 1
    )
    assert curve.scores[inside].min() > curve.scores[curve.edges_seconds[:-1] < 9].max()
    with pytest.raises(QueryError, match="no video 999"):
        engine.curve("red", 999)
