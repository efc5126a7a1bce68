"""Queries of every length about rendered films, with the truth about every moment.

    films = Library("belief", seed=5, num_films=40, held_out=True).films()
    cases = library_cases(films, seed=5)
    truth = FilmTruth(films)
    truth.is_right(cases[0], "film_003.mp4", Span(3.5, 9.0))

Two halves of the wordings exist: one is asked when figures are reported, the other when a calibration is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from scanonce.storage.records import Span
from scanonce.training.bundled.moment_examples import may_answer
from scanonce.training.evaluation.belief import MIN_INSIDE, share_inside
from scanonce.training.world.absent import absent_texts
from scanonce.training.world.films import FilmSpec, film_name
from scanonce.training.world.scene import FRAMES_PER_SECOND, SceneSpec
from scanonce.training.world.words import (
    ASKED_ALONE,
    FACTS,
    Caption,
    fact_phrases,
    scene_captions,
)

CaseKind = Literal["word", "phrase", "sentence", "sentence in time", "never drawn"]
CASE_KINDS: tuple[CaseKind, ...] = (
    "word",
    "phrase",
    "sentence",
    "sentence in time",
    "never drawn",
)
NUM_ABSENT, NUM_ABSENT_TO_FIT = 500, 300
QUERIED_FACTS = tuple(
    fact for fact in FACTS if fact.partition(":")[0] in ASKED_ALONE and fact != "happening:nothing"
)
"""Facts that are asked alone, as a word or a short phrase."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query and the facts it states; no facts: the world never draws it."""

    text: str
    kind: CaseKind
    caption: Caption | None


def fact_cases(*, for_fit: bool = False) -> list[Case]:
    """Return every fact as a word and as short phrases, in one half of its wordings."""
    cases = {}
    for fact in QUERIED_FACTS:
        for text in fact_phrases(fact)[1 if for_fit else 0 :: 2]:
            kind: CaseKind = "phrase" if " " in text else "word"
            cases[text] = Case(text, kind, Caption(text, frozenset({fact})))
    return list(cases.values())


def sentence_cases(films: Sequence[FilmSpec], *, seed: int, most: int | None = None) -> list[Case]:
    """Return full sentences about the scenes of films.

    Args:
        films: the films.
        seed: seed of the wording.
        most: the largest number, chosen at random; None: all.
    """
    cases = {}
    for film_number, film in enumerate(films):
        for index, scene in enumerate(film.scenes):
            rng = np.random.default_rng((seed, film_number, index, 29))  # as the ground truth
            for caption in scene_captions(scene, rng):
                kind: CaseKind = "sentence in time" if caption.needs_time else "sentence"
                cases[caption.text] = Case(caption.text, kind, caption)
    found = list(cases.values())
    if most is None or len(found) <= most:
        return found
    chosen = np.sort(np.random.default_rng(seed).choice(len(found), most, replace=False))
    return [found[k] for k in chosen.tolist()]


def absent_cases(number: int, *, for_fit: bool = False) -> list[Case]:
    """Return queries about what the world never draws."""
    return [Case(text, "never drawn", None) for text in absent_texts(number, for_fit=for_fit)]


class FilmTruth:
    """The truth about the moments of some films."""

    def __init__(self, films: Sequence[FilmSpec]) -> None:
        """Lay out the scenes of the films by their names."""
        self._scenes: dict[str, list[tuple[SceneSpec, Span]]] = {}
        for number, film in enumerate(films):
            bounds = [frame / FRAMES_PER_SECOND for frame in film.first_frames]
            spans = [Span(start, end) for start, end in pairwise(bounds)]
            self._scenes[film_name(number)] = list(zip(film.scenes, spans, strict=True))

    def is_present(self, case: Case) -> bool:
        """Whether any scene answers the query."""
        caption = case.caption
        return caption is not None and any(
            may_answer(scene, caption) for scenes in self._scenes.values() for scene, _ in scenes
        )

    def is_right(self, case: Case, film: str, span: Span) -> bool:
        """Whether at least half of a moment lies in scenes that answer the query."""
        if case.caption is None:
            return False
        showing = [each for scene, each in self._scenes[film] if may_answer(scene, case.caption)]
        return share_inside(span, showing) >= MIN_INSIDE
