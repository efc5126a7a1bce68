"""CIDEr-D of captions (arXiv 1411.5726): how much of what people said of a video, and of nothing else, a caption says.

    scores = cider_d(["a man cuts bread", ...], [["a man is cutting bread", "someone cuts bread"], ...])
    scores.mean()  # the figure of the corpus, 0 to 10; papers print it times 100

The variant is coco-caption's, which papers quote: n-grams of 1 to 4 words; document frequencies from the references of
this very corpus, a video counted once however often its references repeat an n-gram; clipped counts; a Gaussian penalty
of sigma 6 on the difference in length (that code counts bigrams, of which captions differ by as many as of words);
times 10. Published figures cut words with the Java tokeniser of the Penn Treebank. Ours is simpler (`words`); for a
figure to put beside a published one, tokenise with that one, and pass ``tokenise=str.split``.
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
"""Of the penalty on a difference in length, in bigrams."""
SCALE = 10.0


def words(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation; an apostrophe stays inside its word."""
    return re.findall(r"\w+(?:['’]\w+)*", caption.lower())


@dataclass(frozen=True, slots=True)
class _Weighted:
    """A caption as tf-idf vectors, one for each length of n-grams."""

    weights: list[dict[Gram, float]]
    norms: list[float]
    num_bigrams: int


def cider_d(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenise: Callable[[str], list[str]] = words,
) -> NDArray[np.float64]:
    """CIDEr-D of each caption; the mean is the figure of the corpus.

    Args:
        captions: of each video, one.
        references: of each video, one or more that people wrote.
        tokenise: a caption to its words, for both.

    Returns:
        [V], in [0, 10].

    Raises:
        ValueError: not as many captions as videos with references, a video has none, or there is one video only: every
            n-gram is then in every video, which weighs it with ln 1, and any caption scores 0.
    """
    if len(captions) != len(references) or len(captions) < 2:
        raise ValueError(
            "CIDEr-D needs a corpus of two videos or more, each with a caption and references: of one video alone "
            f"every score is 0; got {len(captions)} captions and references of {len(references)} videos"
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
    """How often each n-gram occurs, by length."""
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
            # clipped: saying a word more often than the reference does gains nothing
            product = sum(
                min(weight, theirs[gram]) * theirs[gram]
                for gram, weight in caption.weights[length].items()
                if gram in theirs
            )
            cosines += product / norms
    return SCALE * penalty * cosines / LONGEST
