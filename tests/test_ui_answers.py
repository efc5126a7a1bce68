"""What `scanonce search` says of an answer: good and less certain matches, coverage, notes, an empty index."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from scanonce.models.encoders.reading import Reading
from scanonce.search.engine import SearchEngine
from scanonce.search.notes import notes
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.layout import IndexLayout
from tests.colours import ColourEncoder
from tests.command import scanonce
from tests.ui_library import build_library, empty_index

NOTHING = "a quarterly report"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("answers"))


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())


def search(layout: IndexLayout, *arguments: object, stdin: str = "") -> str:
    run = scanonce("search", *arguments, "--index", layout.root, stdin=stdin, terminal=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def answer(layout: IndexLayout, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(search(layout, *arguments, "--json"))
    return found


def ranks(text: str) -> list[str]:
    """The first words of the lines of the table, below its heading."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:1] == ["#"])
    return [line.split()[0] for line in lines[first + 1 : -1]]


def test_good_matches_come_first_and_the_others_below_a_divider(layout: IndexLayout) -> None:
    text = search(layout, "white")
    assert text.splitlines()[0] == "3 good matches"
    assert ranks(text)[:5] == ["1", "2", "3", "less", "4"]
    found = answer(layout, "white")
    assert found["num_good"] == 3
    assert len(found["moments"]) == len(ranks(text)) - 1, "JSON is complete too"
    assert [each["match"] == "weak" for each in found["moments"][2:4]] == [False, True]


def test_good_alone_leaves_out_the_less_certain_moments(layout: IndexLayout) -> None:
    assert ranks(search(layout, "white", "--good")) == ["1", "2", "3"]
    assert len(answer(layout, "white", "--good")["moments"]) == 3
    text = search(layout, NOTHING, "--good")
    assert text.splitlines()[0] == "No good match."
    assert answer(layout, NOTHING, "--good")["moments"] == []


def test_without_a_good_match_the_nearest_are_all_listed(layout: IndexLayout) -> None:
    text = search(layout, NOTHING)
    assert text.splitlines()[0] == "No good match. The nearest:"
    found = answer(layout, NOTHING)
    assert found["no_good_match"]
    assert len(ranks(text)) == len(found["moments"]) == 4


def test_coverage_is_told_if_all_moments_asked_for_are_good(layout: IndexLayout) -> None:
    first = search(layout, "white", "--top", 2).splitlines()[0]
    assert first == "At least 2 good matches; 3 of 4 videos match"
    covered = answer(layout, "white", "--top", 2)["coverage"]
    assert covered == {"num_matching": 3, "num_judged": 4, "num_videos": 4}


def test_coverage_counts_the_videos_that_pass_the_filter(layout: IndexLayout) -> None:
    only = ("--in", layout.root.parent / "films" / "more")
    first = search(layout, "green", "--top", 1, *only).splitlines()[0]
    assert first == "At least 1 good match; 1 of 1 video matches"


def test_coverage_costs_nothing_if_there_are_less_certain_moments_or_many_queries(
    layout: IndexLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("coverage is computed")

    monkeypatch.setattr(SearchEngine, "coverage", fail)
    assert "coverage" not in answer(layout, "white")
    lines = search(layout, "--queries", "-", "--top", 1, "--json", stdin="red\ngreen\n")
    assert ["coverage" in json.loads(line) for line in lines.splitlines()] == [False, False]


def test_notes_stand_under_the_heading_and_in_json(layout: IndexLayout) -> None:
    note = (
        "“without” is not followed: the sentence is compared with images as a whole; "
        "to follow it, ask: red -green"
    )
    assert search(layout, "red without green").splitlines()[1] == note
    assert answer(layout, "red without green")["notes"] == [note]


def test_a_word_of_logic_that_the_encoder_does_not_know_is_named_once() -> None:
    (line,) = notes("a boat without snow", Reading(unread=("without",)))
    assert "is not followed" in line
    unknown, logic = notes("an elephant or snow", Reading(unread=("elephant", "or")))
    assert "hardly knows “elephant”: try another word" in unknown
    assert logic.startswith("“or” is not followed")


def test_an_empty_index_says_so_and_names_the_next_step(tmp_path: Path) -> None:
    layout = empty_index(tmp_path / "index", "colours", fingerprint=ColourEncoder.fingerprint)
    Catalog.open(layout.catalog).close()
    text = search(layout, "red")
    assert "is empty" in text
    assert f"scanonce index FOLDER --index {layout.root}" in text
    assert "No good match" not in text


def test_the_version_is_printed() -> None:
    run = scanonce("--version")
    assert (run.returncode, run.stdout) == (0, f"scanonce {version('scanonce')}\n")
