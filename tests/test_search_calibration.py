"""Probabilities of moments: the text bank, the calibration, the judge, and the notes beside an answer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scanonce.models.encoders.hub import BUNDLED_FOLDER, BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.encoders.reading import Reading, read_pieces
from scanonce.models.vectors import unit
from scanonce.search import text_bank
from scanonce.search.bank import abstract_texts, bank, first_queries
from scanonce.search.calibration import (
    BY_FRAMES,
    UNCALIBRATED,
    Calibration,
    Weights,
    as_logits,
    find_calibration,
    key_for,
    read_calibration,
    write_calibration,
)
from scanonce.search.grades import GOOD
from scanonce.search.judging import Judge
from scanonce.search.localise import Localiser, Proposal, Query
from scanonce.search.notes import logic_words, notes
from scanonce.search.text_bank import TextBank, bank_digest, has_cached_bank, open_bank
from scanonce.search.training_free import TrainingFree
from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from tests.colours import ColourEncoder

DIM = 12


def random_bank(seed: int = 0) -> TextBank:
    return TextBank(unit(np.random.default_rng(seed).normal(size=(200, DIM))))


def random_units(count: int, seed: int) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(count, DIM)))


# ---------------------------------------------------------------- the bank


def test_the_bank_has_distinct_texts_of_many_kinds() -> None:
    texts = bank()
    assert len(set(texts)) == len(texts) == 2048
    assert set(abstract_texts()) <= set(texts)
    assert not set(abstract_texts()) & set(first_queries())
    assert {1, 2, 5} <= {len(text.split()) for text in texts}


@given(seed=st.integers(0, 50))
def test_evidence_is_the_place_of_the_query_among_the_texts_of_the_bank(seed: int) -> None:
    """Compared with the definition, moment by moment and text by text."""
    texts, moments = random_bank(seed), random_units(5, seed + 1)
    query = random_units(1, seed + 2)[0]
    for moment, found in zip(moments, texts.evidence(query, moments), strict=True):
        cosines = texts.embeddings @ moment
        assert found == pytest.approx((query @ moment - cosines.mean()) / cosines.std(), abs=1e-3)


def test_the_evidence_of_a_moment_does_not_depend_on_what_is_judged_beside_it() -> None:
    texts, moments, query = random_bank(), random_units(40, 1), random_units(1, 2)[0]
    together = texts.evidence(query, moments)
    alone = [texts.evidence(query, moment[None])[0] for moment in moments]
    assert together.tolist() == [float(each) for each in alone]


def test_likeness_is_the_cosine_after_whitening() -> None:
    texts, moments, clips = random_bank(), random_units(6, 1), random_units(50, 3)
    centre = texts.centre(clips)
    np.testing.assert_allclose(
        centre, (clips.sum(axis=0) + 8 * texts.embeddings.mean(axis=0)) / 58, atol=1e-6
    )
    covariance = np.cov(texts.embeddings.T, bias=True)
    values, axes = np.linalg.eigh(covariance)
    white = (moments - centre) @ axes / np.sqrt(values + 0.3 * values[-1])
    found = texts.likeness(texts.direction(moments[0] - centre), moments, centre)
    assert found[0] == pytest.approx(1.0, abs=1e-5)
    for row, value in zip(white, found, strict=True):
        cosine = row @ white[0] / np.linalg.norm(row) / np.linalg.norm(white[0])
        assert value == pytest.approx(cosine, abs=1e-4)


def test_words_beside_an_image_change_what_they_speak_of() -> None:
    judge = a_judge(Calibration())
    image, text = random_units(2, 7)
    alone = judge.composed([(image, 1.0)], [])
    np.testing.assert_allclose(alone, judge.towards(image), atol=1e-5)
    offset = image - judge.centre
    covariance = np.cov(judge.bank.embeddings.T, bias=True)
    greatest = np.linalg.eigvalsh(covariance)[-1]
    precision = np.linalg.inv(covariance / greatest + 0.3 * np.eye(len(covariance)))
    offset = (offset / np.sqrt(offset @ precision @ offset)).astype(np.float32)
    other = offset + 3.0 * judge.bank.text_offset(text)
    np.testing.assert_allclose(
        judge.composed([(image, 0.5)], [(text, 0.5)]), judge.bank.direction(other), atol=1e-5
    )


def test_a_library_of_one_still_clip_has_likenesses() -> None:
    bank = random_bank()
    (clip,) = random_units(1, 4)
    judge = Judge(bank, Calibration(), bank.centre(np.tile(clip, (100, 1))))
    assert judge.alike(judge.towards(clip), clip[None])[0] == pytest.approx(1.0, abs=1e-4)


def test_a_bank_is_embedded_once_per_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(text_bank, "_cache_file", lambda name: tmp_path / f"{name[:4]}.bank")
    encoder = ColourEncoder()
    assert not has_cached_bank(encoder.fingerprint)
    first = open_bank(encoder)
    assert has_cached_bank(encoder.fingerprint)
    monkeypatch.setattr(encoder, "encode_texts", None)
    again = open_bank(encoder)
    np.testing.assert_array_equal(again.embeddings, first.embeddings)


def test_a_damaged_bank_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "bank"
    monkeypatch.setattr(text_bank, "_cache_file", lambda _: path)
    whole = open_bank(ColourEncoder()).embeddings
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"x" * len(content)):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(open_bank(ColourEncoder()).embeddings, whole)
        assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(text_bank, "_cache_file", lambda _: tmp_path / "file" / "bank")
    assert open_bank(ColourEncoder()).embeddings.shape == (2048, 4)
    assert len(bank_digest()) == 12


# ---------------------------------------------------------------- the calibration


@given(
    bias=st.floats(-8, 8),
    evidence=st.floats(0, 5),
    score=st.floats(0, 5),
    seed=st.integers(0, 100),
)
def test_probabilities_rise_with_evidence_and_score_and_are_never_sure(
    bias: float, evidence: float, score: float, seed: int
) -> None:
    weights = Weights(bias, evidence, score)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.normal(scale=4, size=(2, 30)), axis=1)  # both rise
    found = weights.probabilities(rows[0], rows[1], 1.0)
    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()


def test_an_encoder_that_was_never_calibrated_is_judged_by_its_rank_in_the_bank() -> None:
    at = np.array([0.0, 1.64, 4.0])
    low, even, high = UNCALIBRATED.probabilities(at, at, 1.0)
    assert low < 0.05
    assert even == pytest.approx(GOOD, abs=0.01)
    assert high > 0.95


def test_logits_undo_a_sigmoid() -> None:
    logits = np.linspace(-9, 9, 7)
    np.testing.assert_allclose(as_logits(1 / (1 + np.exp(-logits))), logits, rtol=1e-6)
    assert np.isfinite(as_logits(np.array([0.0, 1.0]))).all()


def test_short_queries_have_weights_of_their_own() -> None:
    short, long = Weights(1.0), Weights(2.0)
    calibration = Calibration({key_for("x", short=True): short, "x": long})
    assert calibration.weights("x", "a red car") is short
    assert calibration.weights("x", "a red car at night") is long
    assert Calibration({"x": long}).weights("x", "car") is long
    assert Calibration().weights("x", "car") is None


def test_a_calibration_is_written_and_read_and_that_of_the_index_comes_first(
    tmp_path: Path,
) -> None:
    layout = IndexLayout(tmp_path)
    assert not find_calibration(layout, "f" * 64).is_fitted
    own = Calibration({BY_FRAMES: Weights(-1.25, 2.5)}, 7, "labelled sentences")
    write_calibration(layout.calibration, own)
    assert find_calibration(layout, "f" * 64) == own


def test_the_bundled_encoder_is_calibrated(tmp_path: Path) -> None:
    encoder = load_encoder(BUNDLED_NAME, towers="text")
    calibration = find_calibration(IndexLayout(tmp_path), encoder.fingerprint)
    assert calibration == read_calibration(BUNDLED_FOLDER / "calibration.json")
    assert {BY_FRAMES, key_for(BY_FRAMES, short=True)} <= set(calibration.by_key)
    assert len(calibration.by_key) == 4, "frames and the bundled localiser, short and other queries"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weights": {"frames": {"bias": "x"}}}', '{"weights": 3}']
)
def test_a_damaged_calibration_names_the_next_step(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(IndexDirectoryError, match="scanonce tune --calibrate"):
        read_calibration(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, Calibration({BY_FRAMES: Weights(1.0)}))
    values = json.loads(path.read_text())
    values["weights"][BY_FRAMES]["bias"] = float("nan")
    path.write_text(json.dumps(values))
    with pytest.raises(IndexDirectoryError, match="finite"):
        read_calibration(path)


# ---------------------------------------------------------------- the judge

BY_CURVE = TrainingFree(longest_seconds=60.0, overlap=0.3)


class Trained:
    """A localiser whose scores are sigmoids."""

    name = calibration_key = "trained"
    score_is_sigmoid = True


def proposals(count: int, seed: int = 3) -> list[Proposal]:
    rows = random_units(count, seed)
    scores = np.sort(np.random.default_rng(seed).random(count))[::-1]
    return [
        Proposal(k, Span(0, 1), float(score), row)
        for k, (row, score) in enumerate(zip(rows, scores, strict=True))
    ]


def a_query(text: NDArray[np.float32]) -> Query:
    return Query(text, text, np.empty(0, np.float32))


def a_judge(calibration: Calibration) -> Judge:
    bank = random_bank()
    return Judge(bank, calibration, bank.centre(random_units(30, 5)))


@pytest.mark.parametrize(
    "calibration", [Calibration(), Calibration({"trained": Weights(-1, 0, 1)})]
)
@pytest.mark.parametrize("localiser", [BY_CURVE, Trained()])
def test_probabilities_fall_and_every_moment_is_kept(
    calibration: Calibration, localiser: Localiser
) -> None:
    given, judge = proposals(20), a_judge(calibration)
    query = a_query(random_units(1, 9)[0])
    judged = judge.by_text("a car", query, given, localiser, Reading())
    falling = [each.probability for each in judged]
    assert falling == sorted(falling, reverse=True)
    assert {each.proposal.candidate for each in judged} == set(range(20))
    for each in judged:
        evidence = judge.bank.evidence(query.joint, each.proposal.embedding[None])
        assert each.evidence == float(evidence[0])


def test_the_number_of_a_moment_is_the_same_beside_any_others() -> None:
    given, judge = proposals(20), a_judge(Calibration())
    query = a_query(random_units(1, 9)[0])
    together = judge.by_text("a car", query, given, BY_CURVE, Reading())
    for each in together:
        (alone,) = judge.by_text("a car", query, [each.proposal], BY_CURVE, Reading())
        assert alone == each


def test_a_trained_localiser_without_a_calibration_keeps_its_order() -> None:
    given, judge = proposals(20), a_judge(Calibration())
    judged = judge.by_text("a car", a_query(random_units(1, 9)[0]), given, Trained(), Reading())  # type: ignore[arg-type]
    assert [each.proposal for each in judged] == given
    assert not judge.is_calibrated(Trained())  # type: ignore[arg-type]


def test_words_that_the_encoder_cannot_read_lower_the_probability() -> None:
    judge = a_judge(Calibration({BY_FRAMES: Weights(0, 1, 0, reading=4)}))
    query, given = a_query(random_units(1, 9)[0]), proposals(3)
    whole = judge.by_text("a car", query, given, BY_CURVE, Reading((), False, 2, 2))
    half = judge.by_text("a car", query, given, BY_CURVE, Reading(("car",), False, 2, 2))
    assert all(a.probability > b.probability for a, b in zip(whole, half, strict=True))


def test_an_image_is_most_like_itself() -> None:
    given, judge = proposals(5), a_judge(Calibration())
    judged = judge.by_image(judge.towards(given[3].embedding), given)
    assert judged[0].proposal == given[3]
    assert judged[0].probability == pytest.approx(1.0, abs=1e-5)
    assert judge.by_image(given[0].embedding, []) == []


# ---------------------------------------------------------------- notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no boat on the sea", ("no",)),
        ("a boat without snow or rain", ("without", "or")),
        ("NOT a car, then a dog", ("not", "then")),
        ("a notable orange boat in the north", ()),
    ],
)
def test_logic_is_named(text: str, words: tuple[str, ...]) -> None:
    assert logic_words(text) == words
    assert len(notes(text, Reading())) == (1 if words else 0)


def test_what_cannot_be_read_is_named() -> None:
    reading = Reading(("犬",), is_cut=True, num_words=60, num_read=45)
    unread, cut = notes("犬 and more", reading)
    assert "“犬”" in unread
    assert "45 words" in cut


def test_spelled_and_unknown_words_are_unread() -> None:
    words = ["a", "giraffe", "日本", "dog"]
    reading = read_pieces(words, [1, 6, 6, 1], [False, False, False, False])
    assert reading.unread == ("giraffe", "日本")
    assert reading.share == 0.5
    assert read_pieces(["x"], [1], [True]).unread == ("x",)
    assert Reading().share == 1.0


def test_the_bundled_encoder_reads_its_own_words_only() -> None:
    encoder = load_encoder(BUNDLED_NAME, towers="text")
    assert encoder.read("a red bird in the sunshine").unread == ()
    assert encoder.read("a zebra and spaghetti").unread == ("zebra", "spaghetti")
    assert encoder.read("собака").unread == ("собака",)
    long = encoder.read("a red bird " * 40)
    assert long.is_cut
    assert 20 < long.num_read < 60
    assert replace(long, unread=()).share == 1.0
