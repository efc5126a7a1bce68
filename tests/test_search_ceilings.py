"""The highest probability of a query in a video: the arithmetic, and that no match is lost by it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.search import engine as engine_module
from scanonce.search.ceilings import KeptTexts, ceiling_of, windows
from scanonce.search.engine import SearchEngine, ceilings_of, good_matches
from scanonce.search.grades import GOOD
from scanonce.search.localise import Localiser
from scanonce.search.query import leaves, parse
from scanonce.search.text_bank import TextBank
from tests.colours import ColourEncoder
from tests.indexes import colour_library

NOTHING = "a thing that no film shows"
TEXTS = [
    "red", "blue", "green", "white", NOTHING, "red | green", "red & blue",
    "black > red", "white > red", "black -red", "red^2", "not white & black", "like:red.mp4@8-14",
]  # fmt: skip


# ---------------------------------------------------------------- arithmetic


@given(st.floats(0.1, 500.0), st.sampled_from([0.5, 1.0, 2.0]))
def test_windows_are_inside_and_any_span_is_near_one(seconds: float, fps: float) -> None:
    spans = windows(seconds, fps)
    assert spans.min() == 0.0
    assert spans[:, 1].max() == np.ceil(max(1.0, seconds * fps)) / fps or seconds * fps < 1
    assert (spans[:, 1] > spans[:, 0]).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, end = np.sort(rng.uniform(0, max(seconds, 1 / fps), 2))
        inside = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], start)
        either = np.maximum(spans[:, 1], end) - np.minimum(spans[:, 0], start)
        if end - start >= 4 / fps:
            assert (inside / either).max() > 0.5


@pytest.mark.parametrize(
    ("text", "highest"),
    [
        ("a & b", 0.2), ("a | b", 0.7), ("a > b", 0.2), ("a -b", 0.7), ("b^2", 1 / 17),
        ("(a | b) & b", 0.2), ("not b & a", 0.7),
    ],
)  # fmt: skip
def test_a_query_is_no_surer_than_its_parts_allow(text: str, highest: float) -> None:
    query = parse(text)
    values = {leaf: {"a": 0.7, "b": 0.2}[str(leaf)] for leaf in leaves(query)}
    assert ceiling_of(query, values) == pytest.approx(highest)


def test_evidence_of_many_is_that_of_each() -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(number, 6)).astype(np.float32) for number in (40, 5, 9)]
    bank, queries, moments = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows)
    found = TextBank(bank).evidence_of_each(queries, moments)
    for k, query in enumerate(queries):
        np.testing.assert_allclose(found[:, k], TextBank(bank).evidence(query, moments), rtol=1e-4)


def test_texts_are_encoded_once_by_each_encoder() -> None:
    encoder, asked = ColourEncoder(), []

    def encode(texts: Sequence[str]) -> TextFeatures:
        asked.append(list(texts))
        return encoder.encode_text_features(texts)

    def known(*texts: str) -> dict[str, object]:
        read = [encoder.read(each) for each in texts]
        return dict(kept.of(encoder, texts, encode, lambda new: read[: len(new)]))

    kept = KeptTexts()
    assert set(known("red", "blue", "red")) == {"red", "blue"}
    known("blue", "green")
    known("green", "red")
    assert asked == [["red", "blue"], ["green"]]
    encoder.fingerprint = "d" * 64
    known("red")
    assert asked[2:] == [["red"]]


# ---------------------------------------------------------------- a library


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SearchEngine]:
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    layout = colour_library(
        tmp_path,
        {
            "red": [("black", 8), ("red", 6), ("white", 10)],
            "blue": [("black", 8), ("blue", 6), ("white", 10)],
            "mixed": [("red", 1), ("green", 2), ("red", 1), ("blue", 2), ("white", 9), ("red", 1)],
        },
    )
    with SearchEngine.open(layout.root) as opened:
        yield opened


def test_no_good_match_is_lost(engine: SearchEngine) -> None:
    num_good = 0
    for video_id in engine.videos:
        within = frozenset({video_id})
        results = engine.search_many(TEXTS, within=within)
        good = {k: each.moments for k, each in enumerate(results) if each.num_good}
        found = good_matches(engine, TEXTS, within=within)
        assert {k: each.moments for k, each in found.items()} == good
        num_good += len(good)
    assert num_good >= 10


def test_what_cannot_match_is_not_located(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (blue,) = (each.video_id for each in engine.videos.values() if each.path.name == "blue.mp4")
    within = frozenset({blue})
    assert (ceilings_of(engine, [NOTHING, "blue"], within=within) >= GOOD).tolist() == [False, True]
    located: list[int] = []
    localiser = type(engine.localiser)
    locate = localiser.locate

    def counted(self: Localiser, *args: Any, **more: Any) -> Any:
        located.append(1)
        return locate(self, *args, **more)

    monkeypatch.setattr(localiser, "locate", counted)
    assert set(good_matches(engine, [NOTHING] * 20 + ["blue"], within=within)) == {20}
    assert len(located) == 1


def test_in_many_videos_every_query_is_located(
    engine: SearchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MOST_VIDEOS", 2)
    assert ceilings_of(engine, [NOTHING]).tolist() == [1.0]
    assert 0 in good_matches(engine, ["red"])
