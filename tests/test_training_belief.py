"""Whether answers can be believed: the figures, the fit of a calibration, and the cases they are measured with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.search.bank import bank
from scanonce.search.grades import GOOD
from scanonce.storage.records import Span
from scanonce.training.bundled.cases import (
    QUERIED_FACTS,
    FilmTruth,
    absent_cases,
    fact_cases,
    sentence_cases,
)
from scanonce.training.evaluation.belief import (
    Belief,
    accepted,
    expected_error,
    refused,
    roc_area,
    share_inside,
)
from scanonce.training.evaluation.calibrate import (
    Labelled,
    fit_unlabelled,
    fit_weights,
    logistic_regression,
)
from scanonce.training.world.absent import absent_texts
from scanonce.training.world.films import film_name, random_library
from scanonce.training.world.scene import FRAMES_PER_SECOND

# ---------------------------------------------------------------- figures


def test_refusals_are_of_what_is_there_and_acceptances_of_what_is_not() -> None:
    beliefs = [
        Belief(0.9, True, True),
        Belief(0.2, True, True),
        Belief(0.6, False, False),
        Belief(0.1, False, False),
        Belief(0.2, False, False),
    ]
    assert refused(beliefs).value == pytest.approx(1 / 2)
    assert accepted(beliefs).value == pytest.approx(1 / 3)


def test_the_calibration_error_is_the_gap_in_each_bin() -> None:
    """By hand: in the bin of .1 none of two is right, in that of .9 one of two."""
    error = expected_error(np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 0.0]))
    assert error == pytest.approx((0.2 + 0.8) / 4)
    assert expected_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0


@given(seed=st.integers(0, 50))
def test_the_roc_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = rng.integers(0, 6, 30) / 6, (rng.random(30) < 0.4).astype(np.float64)
    right[:2] = 0, 1
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[right == 1]
        for b in scores[right == 0]
    ]
    assert roc_area(scores, right) == pytest.approx(np.mean(pairs))


def test_the_share_inside_answers() -> None:
    assert share_inside(Span(0, 10), [Span(2, 4), Span(8, 20)]) == pytest.approx(0.4)
    assert share_inside(Span(3, 3), [Span(0, 9)]) == 0.0


# ---------------------------------------------------------------- the fit


def drawn(slopes: tuple[float, float], bias: float, count: int = 6000) -> list[Labelled]:
    rng = np.random.default_rng(0)
    evidence, scores = rng.normal(size=(2, count))
    shares = 1 / (1 + np.exp(-(bias + slopes[0] * evidence + slopes[1] * scores)))
    right = rng.random(count) < shares
    return [
        Labelled(float(e), float(s), 1.0, bool(r), bool(r))
        for e, s, r in zip(evidence, scores, right, strict=True)
    ]


def test_the_fit_finds_the_weights_that_the_truth_was_drawn_with() -> None:
    weights = fit_weights(drawn((2.0, 0.5), -1.0), "evidence", "score", share=float("nan"))
    assert weights.bias == pytest.approx(-1.0, abs=0.15)
    assert weights.evidence == pytest.approx(2.0, abs=0.2)
    assert weights.score == pytest.approx(0.5, abs=0.15)


def test_a_higher_share_of_what_is_there_raises_the_bias_by_its_odds() -> None:
    """The slopes stay: a prior moves odds by a factor, the same for all moments."""
    sample = drawn((2.0, 0.5), -1.0)
    plain = fit_weights(sample, "evidence", "score", share=float("nan"))
    measured = np.mean([each.is_present for each in sample])
    shifted = fit_weights(sample, "evidence", "score", share=0.75)
    moved = np.log(3) - np.log(measured / (1 - measured))
    assert shifted.bias - plain.bias == pytest.approx(moved, abs=0.15)
    assert shifted.evidence == pytest.approx(plain.evidence, abs=0.15)


def test_a_feature_that_would_count_against_a_moment_is_left_out() -> None:
    weights = fit_weights(drawn((2.0, -1.0), 0.0), "evidence", "score")
    assert weights.score == 0.0
    assert weights.evidence > 1.0


def test_a_fit_needs_right_and_wrong_moments() -> None:
    with pytest.raises(ValueError, match="right and wrong"):
        fit_weights([Labelled(1.0, 0.0, 1.0, True, True)] * 5, "evidence")


def test_separable_moments_have_finite_weights() -> None:
    rows = [Labelled(float(k), 0.0, 1.0, k > 5, k > 5) for k in range(12)]
    weights = fit_weights(rows, "evidence", "score", "reading")
    assert 0 < weights.evidence < 1000
    assert np.isfinite([weights.bias, weights.score, weights.reading]).all()


def test_logistic_regression_of_a_constant_is_its_odds() -> None:
    right = np.array([1.0, 1.0, 1.0, 0.0])
    bias, _ = logistic_regression(np.zeros((4, 1)), right, np.ones(4))
    assert bias == pytest.approx(np.log(3))


def test_without_labels_the_line_is_above_what_abstract_texts_reach() -> None:
    chance = np.linspace(0, 2, 101).tolist()
    weights = fit_unlabelled(chance)
    found = weights.probabilities(np.array(chance), np.zeros(101), 1.0)
    assert (found >= GOOD).sum() == pytest.approx(6, abs=1)
    with pytest.raises(ValueError, match="no texts"):
        fit_unlabelled([])


# ---------------------------------------------------------------- the cases


def test_every_fact_is_asked_in_wordings_that_nothing_is_fitted_on() -> None:
    reported, fitted = fact_cases(), fact_cases(for_fit=True)
    assert not {case.text for case in reported} & {case.text for case in fitted}
    for cases in (reported, fitted):
        asked = {fact for case in cases if case.caption for fact in case.caption.facts}
        assert asked == set(QUERIED_FACTS)
    assert {case.text for case in reported} >= {"bird", "dog", "red", "night", "rain", "sea"}


def test_what_is_never_drawn_shares_no_word_of_weight_with_what_is_fitted_on() -> None:
    small = {"a", "an", "the", "in", "on", "at", "of", "during", "and", "with", "by", "to"}
    reported = {word for text in absent_texts(500) for word in text.split()} - small
    nouns = {text.split()[-1] for text in absent_texts(40, for_fit=True)}
    assert not reported & nouns
    assert len({case.text for case in absent_cases(500)}) == 500
    assert len(set(absent_texts(500)) - set(bank())) > 400
    with pytest.raises(ValueError, match="500 texts"):
        absent_texts(501)


def test_a_moment_is_right_if_half_of_it_shows_what_is_asked() -> None:
    films = random_library(5, 3)
    truth = FilmTruth(films)
    film = films[1]
    first, second = (frame / FRAMES_PER_SECOND for frame in film.first_frames[:2])
    about = [
        case
        for case in sentence_cases(films, seed=5)
        if case.caption and truth.is_right(case, film_name(1), Span(first, second))
    ]
    assert about
    length = second - first
    for case in about:
        assert truth.is_present(case)
        assert truth.is_right(case, film_name(1), Span(first, first + length / 3))
    (case, *_) = absent_cases(1)
    assert not truth.is_present(case)
    assert not truth.is_right(case, film_name(1), Span(first, second))


def test_sentences_are_those_of_the_ground_truth_and_can_be_drawn_from() -> None:
    films = random_library(5, 3)
    everything = sentence_cases(films, seed=5)
    some = sentence_cases(films, seed=5, most=10)
    assert len(some) == 10
    assert set(some) <= set(everything)
    assert {case.kind for case in everything} == {"sentence", "sentence in time"}
