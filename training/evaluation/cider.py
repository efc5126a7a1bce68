"""CIDEr-D of captions (arXiv 1411.5726): agreement of a caption with the reference captions of a video.

    scores = cider_d(["a man cuts bread", ...], [["a man is cutting bread", "someone cuts bread"], ...])
    scores.mean()  # the figure of the corpus, 0 to 10; papers print 100 times that

The variant is coco-caption's, which papers quote: n-grams of 1 to 4 words; document frequencies from the references of
the same corpus, each video counted once per n-gram; clipped counts; a Gaussian penalty of sigma 6 on the difference in
length (that code counts bigrams, which differ by the same number as words); times 10. Published figures use the Java
tokeniser of the Penn Treebank. Ours is simpler (`words`); to compare with a published figure, tokenise with that one
and pass ``tokenise=str.split``.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Gram: TypeAlias = tuple[str, ...]

LONGEST = 4
"""Words of the longest n-grams."""
SIGMA = 6.0
"""Standard deviation of the penalty on a difference in length, in bigrams."""
SCALE = 10.0


def words(caption: str) -> list[str]:
    """Split a caption into words in lower case, without punctuation; apostrophes inside words are kept."""
    return re.findall(r"\w+(?:['’]\w+)*", caption.lower())


@dataclass(frozen=True, slots=True)
class _Weighted:
    """tf-idf vectors of a caption, one for each length of n-grams."""

    weights: list[dict[Gram, float]]
    norms: list[float]
    num_bigrams: int


def cider_d(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenise: Callable[[str], list[str]] = words,
) -> NDArray[np.float64]:
    """Return the CIDEr-D of each caption; the mean is the figure of the corpus.

    Args:
        captions: one caption of each video.
        references: one or more captions of each video, written by people.
        tokenise: splits captions and references into words.

    Returns:
        [V], in [0, 10].

    Raises:
        ValueError: the numbers of captions and references differ, a video has no reference, or there is only one video:
            then every n-gram is in every video, has the weight ln 1, and every caption scores 0.
    """
    if len(captions) != len(references) or len(captions) < 2:
        raise ValueError(
            "CIDEr-D needs a corpus of two videos or more, each with a caption and references: with one video every "
            f"score is 0; got {len(captions)} captions and references of {len(references)} videos"
        )
    candidates = [_counts(tokenise(caption)) for caption in captions]
    sources = [[_counts(tokenise(text)) for text in texts] for texts in references]
    without = [number for number, texts in enumerate(sources) if not texts]
    if without:
        raise ValueError(f"video {without[0]} has no reference; each needs one or more")
    videos_with: Counter[Gram] = Counter()
    for texts in sources:
        videos_with.update({gram for text in texts for counts in text for gram in counts})
    log_videos = math.log(len(captions))

    def weigh(text: list[Counter[Gram]]) -> _Weighted:
        weights = [
            {
                gram: count * (log_videos - math.log(max(1, videos_with[gram])))
                for gram, count in counts.items()
            }
            for counts in text
        ]
        norms = [math.sqrt(sum(weight**2 for weight in row.values())) for row in weights]
        return _Weighted(weights, norms, text[1].total())

    scores = np.empty(len(captions))
    for video, (candidate, texts) in enumerate(zip(candidates, sources, strict=True)):
        caption = weigh(candidate)
        scores[video] = np.mean([_similarity(caption, weigh(text)) for text in texts])
    return scores


def _counts(tokens: list[str]) -> list[Counter[Gram]]:
    """Counts of n-grams, by length."""
    return [
        Counter(tuple(tokens[k : k + length]) for k in range(len(tokens) - length + 1))
        for length in range(1, LONGEST + 1)
    ]


def _similarity(caption: _Weighted, reference: _Weighted) -> float:
    """CIDEr-D of a caption with one reference, in [0, 10]."""
    difference = caption.num_bigrams - reference.num_bigrams
    penalty = math.exp(-(difference**2) / (2 * SIGMA**2))
    cosines = 0.0
    for length in range(LONGEST):
        norms = caption.norms[length] * reference.norms[length]
        if norms > 0:
            theirs = reference.weights[length]
            # clipped: repeating a word more often than the reference gains nothing
            product = sum(
                min(weight, theirs[gram]) * theirs[gram]
                for gram, weight in caption.weights[length].items()
                if gram in theirs
            )
            cosines += product / norms
    return SCALE * penalty * cosines / LONGEST
