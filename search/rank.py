"""Whether a query has a good match, measured against the background of the library.

A cosine alone says little: its level differs between encoders, queries and libraries. Two backgrounds replace it. The
*margin* of a query is the distance from its mean score over a sample of the library up to the score of its best clip.
It must exceed the margins of sentences that no image can show: with any encoder and any library, their best clips are
chance. This is a conformal test: with n background sentences, an unanswerable query passes about once in n times (Vovk
et al., Algorithmic Learning in a Random World, 2005).
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
"""Sentences that no image can show."""


def background_level(scores: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean and standard deviation of a query's scores over a sample of the library.

    Args:
        scores: ``[num_clips]`` cosines of the query with clips drawn at random; may be empty.

    Returns:
        ``(0.0, 1.0)`` for fewer than two clips, which give no estimate.
    """
    if len(scores) < 2:
        return 0.0, 1.0
    return float(scores.mean()), float(scores.std())


def margins(best: NDArray[np.float32], backgrounds: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distance from the mean score of each query over the library up to the score of its best clip.

    Args:
        best: ``[num_queries]`` cosine of the best clip.
        backgrounds: ``[num_queries, num_clips]`` cosines over a sample of the library.

    Returns:
        ``[num_queries]``, 0 or more apart from rounding and chance in the sample.
    """
    means = [background_level(scores)[0] for scores in backgrounds]
    above: NDArray[np.float64] = best.astype(np.float64) - np.array(means)
    return above
