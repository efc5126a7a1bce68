"""CIDEr-D compared with a value published with its sample, and by hand."""

import math

import pytest

from scanonce.training.evaluation.cider import cider_d, words
from tests.training_kit import published


def test_the_sample_has_the_published_score() -> None:
    captions, *references = (
        (published("cider") / name).read_text(encoding="utf-8").splitlines()
        for name in ("hyp.txt", "ref1.txt", "ref2.txt")
    )
    scores = cider_d(captions, list(zip(*references, strict=True)))
    assert round(float(scores.mean()), 6) == 1.242192


def test_the_reference_itself_scores_ten_and_words_of_all_videos_nothing() -> None:
    references = [["a red car drives past"], ["a blue boat sails away"]]
    assert cider_d([row[0] for row in references], references) == pytest.approx([10, 10])
    assert cider_d(["a", ""], references).tolist() == [0, 0]


def test_a_score_by_hand() -> None:
    # unigrams: cosine of (red, car) with (red, boat), each with ln 2; bigrams: nothing in common; no longer ones
    scores = cider_d(["red car", "sun"], [["red boat"], ["sun"]])
    assert scores == pytest.approx([10 * 0.5 / 4, 10 * 1 / 4])


def test_several_references_are_averaged_and_a_video_counts_once() -> None:
    # "red" is in one video of two, though in two references: its weight stays ln 2
    scores = cider_d(["red", "sun"], [["red", "boat"], ["sun"]])
    assert scores == pytest.approx([(10 / 4 + 0) / 2, 10 / 4])


def test_repeating_a_word_gains_nothing_and_another_length_has_a_penalty() -> None:
    # the cosine of (2 red) with (1 red) is 1, and half of it clipped; a bigram more
    scores = cider_d(["red red", "sun"], [["red"], ["sun"]])
    assert scores[0] == pytest.approx(10 / 4 * 0.5 * math.exp(-1 / (2 * 6**2)))


def test_words_are_in_lower_case_without_punctuation() -> None:
    assert words("A man's dog, half-asleep; runs!") == [
        "a",
        "man's",
        "dog",
        "half",
        "asleep",
        "runs",
    ]
    pair = cider_d(["Red car.", "sun"], [["red car"], ["sun"]])
    assert pair[0] == pytest.approx(5)
    assert cider_d(["Red car.", "sun"], [["red car"], ["sun"]], tokenise=str.split)[0] == 0


def test_one_video_alone_or_one_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two videos or more.* got 1 captions"):
        cider_d(["a"], [["a"]])
    with pytest.raises(ValueError, match="got 2 captions and references of 3 videos"):
        cider_d(["a", "b"], [["a"], ["b"], ["c"]])
    with pytest.raises(ValueError, match="video 1 has no reference"):
        cider_d(["a", "b"], [["a"], []])
