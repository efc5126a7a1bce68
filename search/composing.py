"""Examples and the words with them, as one image to look for.

    asked, parts = composed(snapshot.judge, parse("a red car & like:drive.mp4@0-5"), parts)

Words next to an example say how the moment differs from it: "red", with a picture of a blue car in a street, asks for a
red car in a street. So no moment need be like the example and show the words, each by itself: one image is looked for
(`search.judging.Judge.composed`). Words that are to be said or written stay a part of their own, and so does all that
is denied.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanonce.models.encoders.protocol import TextFeatures
from scanonce.models.encoders.reading import Reading
from scanonce.models.vectors import unit
from scanonce.search.judging import Judge
from scanonce.search.query import And, Atom, Given, Like, Query, Text, Weighted, atoms

_NUMBER = 0  # those of examples begin at 1
_NO_STATES = np.empty((1, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """A part of a query that is looked for in images."""

    part: Atom
    vectors: TextFeatures
    """One row."""
    reading: Reading | None
    """How the encoder reads the words; None for an example."""


def joins_examples(query: And) -> bool:
    """Whether a query has an example that may be made one image with words."""
    return any(isinstance(_weighed(each)[0], Like | Given) for each in query.parts)


def composed(judge: Judge, query: Query, parts: Sequence[Sought]) -> tuple[Query, list[Sought]]:
    """Put one image in the place of examples and their words.

    Args:
        judge: of the library.
        query: the query.
        parts: all its parts that are looked for in images.

    Returns:
        The query with the image and its parts; the query unchanged if it has no examples with words. The vectors of
        an example are the direction to look in (`Judge.towards`).
    """
    sought = {each.part: each for each in parts}
    images, texts = [], []
    rest: list[Query] = []
    for each in query.parts if isinstance(query, And) else ():
        part, weight = _weighed(each)
        if isinstance(part, Text) and part in sought:
            texts.append((unit(sought[part].vectors.joint[0]), weight))
        elif isinstance(part, Like | Given):
            images.append((sought[part].vectors.joint[0], weight))
        else:
            rest.append(each)
    if not images or not texts:
        return query, [_directed(judge, each) for each in parts]
    image = Given(_NUMBER, "examples and words")
    joint = judge.composed(images, texts)[None]
    vectors = TextFeatures(joint, _NO_STATES)
    others = {part for each in rest for part in atoms(each)}
    return (
        And((image, *rest)) if rest else image,
        [
            Sought(image, vectors, None),
            *(_directed(judge, each) for each in parts if each.part in others),
        ],
    )


def _weighed(part: Query) -> tuple[Query, float]:
    return (part.query, part.weight) if isinstance(part, Weighted) else (part, 1.0)


def _directed(judge: Judge, sought: Sought) -> Sought:
    if isinstance(sought.part, Text):
        return sought
    joint = judge.towards(sought.vectors.joint[0])[None]
    return replace(sought, vectors=TextFeatures(joint, _NO_STATES))
