"""Whether the answers of the encoder "concepts" about real videos can be believed; its calibration.

    python -m benchmarks.concepts_belief INDEX          # prints the table of docs/encoders.md, for half of the videos
    python -m benchmarks.concepts_belief INDEX --fit    # fits the bundled calibration.json to the other half

INDEX is that of `python -m benchmarks.concepts`. The halves are the videos with even and with odd numbers in the order
of their names. A query is asked of one half; it counts as present if one of its videos is in that half. Every query is
asked once more of the half without its videos, where all answers are wrong. Texts that no image can show are asked too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from benchmarks.concepts import VIDEOS, read_sentences
from benchmarks.material import console
from scanonce.models.encoders.concepts_recipe import CONCEPTS_FOLDER
from scanonce.search.bank import abstract_texts
from scanonce.search.calibration import (
    BY_FRAMES,
    FILE_NAME,
    Calibration,
    is_short,
    key_for,
    write_calibration,
)
from scanonce.search.engine import SearchEngine
from scanonce.training.evaluation.belief import (
    Belief,
    accepted,
    calibration_error,
    refused,
    separation,
)
from scanonce.training.evaluation.calibrate import Labelled, fit_weights

Half = Literal["fitted", "reported"]

_NASA = "torchcodec_nasa_13013_multistream.mp4 torchcodec_nasa_hdr.mp4"
_TOYS = "mdn_frog.webm mdn_pig.mp4 sam2_03_blocks.mp4"
_TABLES = (
    "intel_bottle_detection.mp4 intel_one_by_one_person.mp4 mdn_frog.webm mdn_pig.mp4 "
    "sam2_02_cups.mp4 sam2_04_coffee.mp4"
)
_BOTTLES = "intel_bottle_detection.mp4 videoprism_water_bottle_drumming.mp4"
_PEOPLE = (
    "intel_one_by_one_person.mp4 decord_flipping_a_pancake.mkv mdn_friday.mp4 sam2_01_dog.mp4 sam2_04_coffee.mp4 "
    f"videoprism_water_bottle_drumming.mp4 {_NASA}"
)
_IN_NONE = (
    "elephant, violin, snow, ship, pizza, guitar, horse, beach, aeroplane, castle, train, sheep, umbrella, bicycle, "
    "lion, piano, church, tractor, helicopter, whale, giraffe, spider, waterfall, football, soldier, bed, bridge"
)
WORDS: Mapping[str, str] = {
    "dog": "pe_dog.mp4 sam2_01_dog.mp4",
    "puppy": "sam2_01_dog.mp4",
    "a dog on grass": "sam2_01_dog.mp4",
    "frog": "mdn_frog.webm",
    "toy": _TOYS,
    "pig": "mdn_pig.mp4",
    "flower": "mdn_flower.mp4",
    "a red flower": "mdn_flower.mp4",
    "bottle": _BOTTLES,
    "water": _BOTTLES,
    "plastic bottles": _BOTTLES,
    "car": "intel_car_detection.mp4",
    "road": "intel_car_detection.mp4",
    "keyboard": "decord_rot90.mov",
    "bird": "chthomos_bbb_480p_30s.mp4",
    "cartoon": "chthomos_bbb_480p_30s.mp4",
    "meadow": "chthomos_bbb_480p_30s.mp4",
    "pancake": "decord_flipping_a_pancake.mkv",
    "frying pan": "decord_flipping_a_pancake.mkv",
    "kitchen": "decord_flipping_a_pancake.mkv",
    "cooking": "decord_flipping_a_pancake.mkv",
    "earth": "gradio_world.mp4",
    "planet": "gradio_world.mp4",
    "cup": "sam2_02_cups.mp4 sam2_04_coffee.mp4",
    "coffee": "sam2_04_coffee.mp4",
    "mug": "sam2_04_coffee.mp4",
    "kettle": "sam2_04_coffee.mp4",
    "table": _TABLES,
    "office": "intel_one_by_one_person.mp4",
    "person": _PEOPLE,
    "an old film": "mdn_friday.mp4",
    "hat": "mdn_friday.mp4",
    "telescope": _NASA,
    "laboratory": _NASA,
    "slides": "video2dataset_test_video.mp4",
    "text on a screen": "video2dataset_test_video.mp4",
    "child": "videoprism_water_bottle_drumming.mp4",
    "letter blocks": "sam2_03_blocks.mp4",
    **dict.fromkeys(_IN_NONE.split(", "), ""),
}
"""Words and short phrases with the videos that show them, by the descriptions in MANIFEST.tsv; the last are in none."""


@dataclass(frozen=True, slots=True)
class Case:
    """A query with the names of the videos that show it."""

    text: str
    videos: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """The first moment of a query, with the truth."""

    text: str
    evidence: float
    belief: Belief


def all_cases(folder: Path) -> list[Case]:
    """Return the words, and the sentences of SEEN.tsv and MOMENTS.tsv."""
    right: dict[str, set[str]] = {text: set(names.split()) for text, names in WORDS.items()}
    for each in read_sentences(folder / "SEEN.tsv") + read_sentences(folder / "MOMENTS.tsv"):
        twin = set(_NASA.split()) if each.video in _NASA else set()  # the same scene in two files
        right.setdefault(each.text, set()).update({each.video}, twin)
    return [Case(text, frozenset(videos)) for text, videos in right.items()]


def half_of(engine: SearchEngine, half: Half) -> dict[str, int]:
    """Return the ids of half of the videos, by name."""
    ids = {each.path.name: each.video_id for each in engine.videos.values()}
    names = sorted(ids)[0 if half == "fitted" else 1 :: 2]
    return {name: ids[name] for name in names}


def ask(engine: SearchEngine, cases: Sequence[Case], half: Half) -> Iterator[Asked]:
    """Yield the first moments of all queries in a half of the videos."""
    ids = half_of(engine, half)
    for case in cases:
        yield _ask(engine, case, ids)
        if case.videos & ids.keys():
            others = {name: number for name, number in ids.items() if name not in case.videos}
            yield _ask(engine, case, others)
    for text in abstract_texts():
        yield _ask(engine, Case(text, frozenset()), ids)


def _ask(engine: SearchEngine, case: Case, ids: Mapping[str, int]) -> Asked:
    first = engine.search(case.text, top=1, within=set(ids.values())).moments[0]
    is_right = first.path.name in case.videos
    belief = Belief(first.probability, is_right, not case.videos.isdisjoint(ids))
    return Asked(case.text, first.evidence, belief)


def fit(asked: Sequence[Asked]) -> Calibration:
    """Fit weights for short queries and for the others, by evidence alone."""
    weights = {}
    for short in (True, False):
        labelled = [
            Labelled(each.evidence, 0.0, 1.0, each.belief.is_right, each.belief.is_present)
            for each in asked
            if is_short(each.text) == short
        ]
        weights[key_for(BY_FRAMES, short=short)] = fit_weights(labelled, "evidence")
    num_queries = len({each.text for each in asked})
    return Calibration(weights, num_queries, "half of 25 real videos")


def results(asked: Sequence[Asked]) -> Table:
    """Return the table of figures."""
    table = Table(title="queries asked of the half that nothing was fitted to", box=None)
    table.add_column("queries")
    columns = ("number", "false refusals", "false acceptances", "calibration error", "ROC area")
    for column in columns:
        table.add_column(column, justify="right")
    groups = {
        "up to four words": [each.belief for each in asked if is_short(each.text)],
        "longer": [each.belief for each in asked if not is_short(each.text)],
        "all": [each.belief for each in asked],
    }
    for name, beliefs in groups.items():
        figures = [
            figure(beliefs).value for figure in (refused, accepted, calibration_error, separation)
        ]
        table.add_row(name, f"{len(beliefs)}", *(f"{value:.2f}" for value in figures))
    return table


def main(
    index: Annotated[Path, typer.Argument(help="Index of the videos with the encoder concepts.")],
    videos: Annotated[Path, typer.Option(help="Folder of SEEN.tsv and MOMENTS.tsv.")] = VIDEOS,
    fits: Annotated[bool, typer.Option("--fit", help="Fit the calibration.")] = False,
) -> None:
    """Print what the probabilities are worth, or fit them."""
    cases = all_cases(videos)
    with SearchEngine.open(index) as engine:
        asked = list(ask(engine, cases, "fitted" if fits else "reported"))
    if not fits:
        console.print(results(asked))
        return
    path = CONCEPTS_FOLDER / FILE_NAME
    write_calibration(path, fit(asked))
    console.print(f"{path} is fitted; the same command without --fit says what it is worth")


if __name__ == "__main__":
    typer.run(main)
