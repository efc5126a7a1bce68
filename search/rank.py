"""Whether anything was found at all, judged against the library's own background.

A cosine alone says little: its level differs between encoders, sentences and libraries. So two backgrounds are used.
A query's *margin* is how far its best clip rises above its mean score over clips drawn from the library. And the
margin it must beat is that of sentences which no picture can show: whatever the encoder and the library, the best of
those is chance. It is a conformal test: an unanswerable query passes about once in as many times as there are
background sentences (Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

import numpy as np
from numpy.typing import NDArray

BACKGROUND_SENTENCES = (
    "the square root of seven is irrational",
    "an amendment to the second paragraph",
    "yesterday's opinion was overruled",
    "inflation expectations remain anchored",
    "the meaning of this word has changed",
    "a theorem follows from the axioms",
    "they disagreed about the definition",
    "interest accrues at the end of the term",
    "nothing can be concluded from this",
    "an obligation that cannot be transferred",
    "her argument rests on a false premise",
    "the committee postponed its decision",
    "a rumour without any foundation",
    "the exception proves the rule",
    "his patience was exhausted",
    "a promise made under pressure",
    "the deadline was moved again",
    "an error in the third equation",
    "loyalty matters more than talent",
    "the warranty does not cover this",
    "a change of mind",
    "the average of the last four quarters",
    "it depends on the interpretation",
    "a question of principle",
    "the password has expired",
    "memory fades with age",
    "an apology was never offered",
    "the limit exists and is unique",
    "a clause about liability",
    "regret came too late",
    "probability of a rare event",
    "the grammar of an extinct language",
)
"""Sentences that no picture can show."""


def background_level(scores: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of a query's scores over a sample of the library.

    Args:
        scores: ``[num_clips]`` cosines of the query with clips drawn at random; may be empty.

    Returns:
        ``(0.0, 1.0)`` for fewer than two clips, where nothing can be said.
    """
    if len(scores) < 2:
        return 0.0, 1.0
    return float(scores.mean()), float(scores.std())


def margins(best: NDArray[np.float32], backgrounds: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far the best clip of each query rises above the query's mean over the library.

    Args:
        best: ``[num_queries]`` cosine of the best clip.
        backgrounds: ``[num_queries, num_clips]`` cosines over a sample of the library.

    Returns:
        ``[num_queries]``, 0 or more but for rounding and chance in the sample.
    """
    means = [background_level(scores)[0] for scores in backgrounds]
    above: NDArray[np.float64] = best.astype(np.float64) - np.array(means)
    return above
