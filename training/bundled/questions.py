"""Rendered films as an index, and their queries with the answers.

questions = read_questions(Path("films/ground_truth.jsonl"))
index_films(Path("films"), Path("index"))
with SearchEngine.open(Path("index")) as engine:
    ask(engine, [question.text for question in questions])[0]       # [Located("film_003.mp4", Span(3.5, 9.0)), ...]
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.models.encoders.hub import BUNDLED_NAME
from scanonce.models.encoders.load import load_encoder
from scanonce.models.soonet.trained import choose_localiser
from scanonce.search.engine import SearchEngine
from scanonce.storage.layout import IndexLayout
from scanonce.storage.records import Span
from scanonce.storage.settings import StorageSettings
from scanonce.training.evaluation.metrics import Located
from scanonce.training.world.films import Library

Kind = Literal["need no time", "need time", "left or right"]
KINDS: tuple[Kind, ...] = ("need no time", "need time", "left or right")
Sampling = Literal["uniform", "keyframes"]
FULL = Library("full", seed=1, num_films=40, held_out=True)
"""The library of the gate (`training.bundled.gate`)."""
SMALL = Library("small", seed=11, num_films=8, held_out=True)
"""The library of CI."""

NUM_ANSWERS = 10
"""Answers to each query."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query with its only answer."""

    text: str
    truth: Located
    needs_time: bool

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of the query, the wider one first."""
        if not self.needs_time:
            return ("need no time",)
        asks_direction = not {"left", "right"}.isdisjoint(self.text.split())
        return ("need time", "left or right") if asks_direction else ("need time",)


def read_questions(ground_truth: Path) -> list[Question]:
    """Read the queries of a rendered library from its ``ground_truth.jsonl``."""
    questions = []
    for line in ground_truth.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        span = Span(values["start_seconds"], values["end_seconds"])
        questions.append(
            Question(values["query"], Located(values["path"], span), values["needs_time"])
        )
    return questions


def index_films(
    films: Path,
    index_dir: Path,
    *,
    encoder_name: str = BUNDLED_NAME,
    sampling: Sampling = "uniform",
) -> None:
    """Index rendered films by users' pipeline, with the localiser that fits the encoder, if there is one."""
    encoder = load_encoder(encoder_name, towers="vision")
    settings = IndexerSettings(sampling=sampling)
    report = index_library(
        [films],
        layout=IndexLayout(index_dir),
        encoder=encoder,
        settings=settings,
        storage=StorageSettings(),
        localiser=choose_localiser(
            "auto",
            fingerprint=encoder.fingerprint,
            dim=encoder.dim,
            sampling=sampling,
            fps=settings.sample_fps,
        ),
    )
    if report.problems:
        raise RuntimeError(f"rendered films must index without a problem: {report.problems}")


def ask(engine: SearchEngine, texts: Sequence[str]) -> list[list[Located]]:
    """Return the first answers to each text, best first, by file name."""
    return [
        [Located(moment.path.name, moment.span) for moment in result.moments]
        for result in engine.search_many(texts, top=NUM_ANSWERS)
    ]
