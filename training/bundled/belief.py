"""Whether the answers of the bundled checkpoints can be believed, measured on rendered films.

    python -m scanonce.training.bundled.belief          # prints the table of docs/evaluation.md
    python -m scanonce.training.bundled.belief --fit    # fits models/bundled/clip/calibration.json

The table is of films and wordings that the calibration was not fitted on: the library of the gate, libraries of one
subject, and libraries of 5, 50 and 500 clips. Films are kept and used again as long as the world draws the same ones.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from scanonce.models.encoders.hub import BUNDLED_FOLDER
from scanonce.models.runtime import num_cores
from scanonce.search.calibration import (
    BY_FRAMES,
    FILE_NAME,
    Calibration,
    is_short,
    key_for,
    write_calibration,
)
from scanonce.search.engine import SearchEngine
from scanonce.search.settings import SearchSettings
from scanonce.training.bundled.cases import (
    NUM_ABSENT,
    NUM_ABSENT_TO_FIT,
    Case,
    CaseKind,
    FilmTruth,
    absent_cases,
    fact_cases,
    sentence_cases,
)
from scanonce.training.bundled.questions import FULL, index_films
from scanonce.training.evaluation.belief import (
    Belief,
    accepted,
    calibration_error,
    refused,
    separation,
)
from scanonce.training.evaluation.calibrate import Feature, fit_weights, label_moments
from scanonce.training.evaluation.intervals import Figure
from scanonce.training.world.films import FilmSpec, Library, ensure_rendered

TO_FIT = Library("belief-fit", seed=21, num_films=40, held_out=False)
"""Films of the pairs of training; the figures are of other films, most of them of other pairs."""
SUBJECTS = tuple(
    Library(f"belief-{thing}", 40 + k, 23, held_out=True, thing=thing, scenes_each=(1, 1))
    for k, thing in enumerate(("bird", "dog", "house", "fish", "flower"))
)
"""Libraries of 23 clips that all show the same thing, as a fixed camera or an editor's single subject does."""
SIZES = (5, 50, 500)
CLIPS = Library("belief-clips", seed=31, num_films=SIZES[-1], held_out=False, scenes_each=(1, 1))
"""Clips of one scene each; its smaller libraries are its first clips."""

_SENTENCES = 200
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """A case with the belief in its first moment."""

    case: Case
    belief: Belief


def believe(
    index_dir: Path,
    films: Sequence[FilmSpec],
    cases: Sequence[Case],
    settings: SearchSettings | None = None,
) -> list[Asked]:
    """Ask an index of some films all cases, and compare each first moment with the truth."""
    truth = FilmTruth(films)
    asked = []
    with SearchEngine.open(index_dir, settings=settings) as engine:
        for batch in _batches(cases):
            for case, result in zip(
                batch, engine.search_many([case.text for case in batch]), strict=True
            ):
                first = result.moments[0] if result.moments else None
                asked.append(
                    Asked(
                        case,
                        Belief(
                            first.probability if first else 0.0,
                            bool(first and truth.is_right(case, first.path.name, first.span)),
                            truth.is_present(case),
                        ),
                    )
                )
    return asked


def of_kinds(asked: Iterable[Asked], *kinds: CaseKind) -> list[Belief]:
    """Return the beliefs of some kinds of queries."""
    return [each.belief for each in asked if each.case.kind in kinds]


def report_cases(films: Sequence[FilmSpec], *, seed: int, most: int | None = None) -> list[Case]:
    """Return the queries of the report about a library: facts, sentences, and things that are never drawn."""
    return [
        *fact_cases(),
        *sentence_cases(films, seed=seed, most=most),
        *absent_cases(NUM_ABSENT),
    ]


# ---------------------------------------------------------------- fitting

_FEATURES: dict[str, dict[bool, tuple[Feature, ...]]] = {
    "frames": {True: ("evidence", "reading"), False: ("evidence", "score", "reading")},
    # A trained localiser orders sentences better than any mix of its score with the frames; it has learnt no words.
    "trained": {True: ("evidence", "reading"), False: ("score", "reading")},
}
"""Features of a moment, by the kind of localiser and whether the query is short."""


def fit_calibration(index_dir: Path, films: Sequence[FilmSpec], *, seed: int) -> Calibration:
    """Fit the weights of both localisers on an index of some films."""
    cases = [
        *fact_cases(for_fit=True),
        *sentence_cases(films, seed=seed),
        *absent_cases(NUM_ABSENT_TO_FIT, for_fit=True),
    ]
    by_key, truth = {}, FilmTruth(films)
    for kind, features in _FEATURES.items():
        settings = SearchSettings(localiser="training-free" if kind == "frames" else "auto")
        with SearchEngine.open(index_dir, settings=settings) as engine:
            key = engine.localiser.calibration_key
            rows = label_moments(
                engine,
                [case.text for case in cases],
                [truth.is_present(case) for case in cases],
                lambda number, moment: truth.is_right(cases[number], moment.path.name, moment.span),
            )
            labelled = list(zip(cases, rows, strict=True))
        if (key == BY_FRAMES) != (kind == "frames"):
            raise RuntimeError(f"the index has no trained localiser: {index_dir}")
        for short, names in features.items():
            chosen = [
                row for case, rows in labelled if is_short(case.text) is short for row in rows
            ]
            by_key[key_for(key, short=short)] = fit_weights(chosen, *names)
    return Calibration(by_key, len(cases), "rendered films")


def _batches(cases: Sequence[Case]) -> Iterable[Sequence[Case]]:
    return (cases[start : start + _BATCH] for start in range(0, len(cases), _BATCH))


# ---------------------------------------------------------------- the command


def main(
    fit: Annotated[bool, typer.Option("--fit", help="Fit the bundled calibration.")] = False,
    keep: Annotated[Path, typer.Option(help="Folder of films and indexes; reused.")] = Path(
        "bench/held-out"
    ),
) -> None:
    """Print whether the answers of the bundled checkpoints can be believed, or fit their calibration."""
    console = Console(width=160)
    if fit:
        index_dir = _index(TO_FIT, keep)
        calibration = fit_calibration(index_dir, TO_FIT.films(), seed=TO_FIT.seed)
        write_calibration(BUNDLED_FOLDER / FILE_NAME, calibration)
        for key, weights in calibration.by_key.items():
            console.print(f"{key}: {weights}", highlight=False, soft_wrap=True)
        return
    table = Table(title="answers of libraries that nothing was fitted on", box=None)
    for column in ("library", "queries"):
        table.add_column(column)
    for column in ("n", "refused", "accepted", "calibration error", "ROC area"):
        table.add_column(column, justify="right")
    _add_rows(table, FULL, keep, trained=True)
    _add_rows(table, FULL, keep, trained=False)
    for library in SUBJECTS:
        _add_subject(table, library, keep)
    for size in SIZES:
        _add_rows(table, CLIPS, keep, trained=True, size=size)
    console.print(table)


def _index(library: Library, keep: Path, size: int | None = None) -> Path:
    """Render and index a library, or its first clips."""
    truth = ensure_rendered(library, keep, workers=num_cores())
    films, folder = truth.parent, truth.parents[1]
    if size is not None and size < library.num_films:
        films = folder / f"first-{size}"
        films.mkdir(exist_ok=True)
        for path in sorted(truth.parent.glob("*.mp4"))[:size]:
            if not (films / path.name).exists():
                (films / path.name).hardlink_to(path)
    index_dir = folder / f"index-belief-{size or 'all'}"
    shutil.rmtree(index_dir, ignore_errors=True)
    index_films(films, index_dir)
    return index_dir


def _add_rows(
    table: Table, library: Library, keep: Path, *, trained: bool, size: int | None = None
) -> None:
    films = library.films()[:size]
    settings = SearchSettings(localiser="auto" if trained else "training-free")
    cases = report_cases(films, seed=library.seed, most=_SENTENCES if size else None)
    asked = believe(_index(library, keep, size), films, cases, settings)
    name = (
        f"{len(films)} {'clips' if size else 'films'}, {'SOONet' if trained else 'training-free'}"
    )
    rows: tuple[tuple[CaseKind, ...], ...] = (
        ("word",),
        ("phrase",),
        ("sentence",),
        ("sentence in time",),
        ("never drawn",),
    )
    for kinds in rows:
        _add_row(table, name, ", ".join(kinds), of_kinds(asked, *kinds))
    everything = [each.belief for each in asked]
    _add_row(table, name, "all", everything, calibration=True)


def _add_subject(table: Table, library: Library, keep: Path) -> None:
    films = library.films()
    cases = report_cases(films, seed=library.seed)
    asked = believe(_index(library, keep), films, cases)
    about = [each for each in asked if _is_about(each.case, str(library.thing))]
    name = f"{len(films)} clips of a {library.thing}"
    _add_row(table, name, "the subject", [each.belief for each in about])
    others = of_kinds((each for each in asked if each not in about), "word", "phrase", "sentence")
    _add_row(table, name, "words, phrases, sentences", others)
    _add_row(table, name, "never drawn", of_kinds(asked, "never drawn"))


def _is_about(case: Case, thing: str) -> bool:
    return case.caption is not None and case.caption.facts == {f"thing:{thing}"}


def _add_row(
    table: Table, name: str, queries: str, beliefs: Sequence[Belief], *, calibration: bool = False
) -> None:
    present = [each for each in beliefs if each.is_present]
    absent = [each for each in beliefs if not each.is_present]
    table.add_row(
        name,
        queries,
        str(len(beliefs)),
        f"{_share_text(refused(present))} of {len(present)}" if present else "",
        f"{_share_text(accepted(absent))} of {len(absent)}" if absent else "",
        _number_text(calibration_error(beliefs)) if calibration else "",
        _number_text(separation(beliefs)) if calibration else "",
    )


def _share_text(figure: Figure) -> str:
    low, high = (f"{100 * each:.1f}" for each in (figure.low, figure.high))
    return f"{figure.value:.1%} ({low}-{high})"


def _number_text(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


if __name__ == "__main__":
    typer.run(main)
