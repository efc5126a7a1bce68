"""`scanonce label`, and `scanonce search` with a filter."""

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scanonce.indexer.pipeline import index_library
from scanonce.indexer.settings import IndexerSettings
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, QueryError, ScanonceError
from scanonce.storage.index import change_labels
from scanonce.storage.layout import IndexLayout
from scanonce.storage.settings import StorageSettings
from scanonce.storage.writer import writing
from scanonce.ui.cli import app
from tests.colours import ColourEncoder
from tests.ui_library import NASTY, build_library


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    root = tmp_path_factory.mktemp("labels")
    build_library(root)
    at = datetime(2020, 5, 17, 12).timestamp()
    os.utime(root / "films" / "two-reds.mp4", (at, at))
    layout = IndexLayout(root / "index")
    index_library(  # the scan that notices the new time
        [root / "films"],
        layout=layout,
        encoder=ColourEncoder(),
        settings=IndexerSettings(decode_workers=1),
        storage=StorageSettings(),
    )
    return layout


@pytest.fixture(autouse=True)
def without_labels(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    yield
    with Catalog.open(layout.catalog) as catalog:
        catalog.labels.remove(catalog.live_video_ids(), catalog.labels.counts())


def run(layout: IndexLayout, *arguments: object) -> Result:
    result = CliRunner().invoke(app, [*map(str, arguments), "--index", str(layout.root)])
    if isinstance(result.exception, ScanonceError):
        raise result.exception
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def found(layout: IndexLayout, *arguments: object) -> set[str]:
    """Names of the videos that a search with these options finds."""
    (answer,) = lines(run(layout, "search", "black", "--top", 50, "--json", *arguments))
    assert answer["videos"] == len({moment["video_id"] for moment in answer["moments"]})
    return {Path(moment["path"]).name for moment in answer["moments"]}


DULL = {"dull0.mp4", "dull1.mp4"}


def test_a_search_finds_only_what_passes_its_options(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    run(layout, "label", films / "dull0.mp4", films / "more", "--add", "Mine")
    assert found(layout, "--in", films / "more") == {NASTY}
    assert found(layout, "--in", films / "more", "--in", films / "dull1.mp4") == {
        NASTY,
        "dull1.mp4",
    }
    assert found(layout, "--label", "mine") == {"dull0.mp4", NASTY}
    assert found(layout, "--exclude-label", "MINE") == {"dull1.mp4", "two-reds.mp4"}
    assert found(layout, "--longer", 60) == DULL
    assert found(layout, "--longer", 20, "--shorter", 60) == {"two-reds.mp4"}
    assert found(layout, "--before", "2020-05-17") == {"two-reds.mp4"}
    assert found(layout, "--after", "2020-05-18") == {*DULL, NASTY}
    assert found(layout, "--label", "mine", "--longer", 60) == {"dull0.mp4"}


def test_the_answer_names_its_filter(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    run(layout, "label", films / "more", "--add", "a", "--add", "b")
    options = [
        "--in",
        films,
        "--exclude-label",
        "b",
        "--exclude-label",
        "a",
        "--after",
        "2020-05-17",
    ]
    (answer,) = lines(run(layout, "search", "red", "--json", *options, "--shorter", 600))
    assert list(answer) == [
        "query",
        "filter",
        "videos",
        "no_good_match",
        "num_good",
        "notes",
        "moments",
        "timings_ms",
    ]
    assert answer["filter"] == {
        "folders": [str(films)],
        "without_labels": ["a", "b"],
        "recorded_after": "2020-05-17",
        "max_seconds": 600.0,
    }
    (plain,) = lines(run(layout, "search", "red", "--json"))
    assert "filter" not in plain


def test_a_folder_may_be_relative(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(layout.root.parent)
    assert found(layout, "--in", "films/../films/more") == {NASTY}


def test_a_filter_that_no_video_passes_is_reported(layout: IndexLayout) -> None:
    result = run(layout, "search", "red", "--longer", 10_000)
    assert result.exit_code == 0
    assert "No video passes this filter" in result.stderr
    assert not result.stdout
    (answer,) = lines(run(layout, "search", "red", "--json", "--longer", 10_000))
    assert (answer["videos"], answer["moments"]) == (0, [])


@pytest.mark.parametrize(
    "options",
    [["--after", "tomorrow"], ["--before", "2024-13-01"], ["--longer", "-1"], ["--shorter", "x"]],
)
def test_an_invalid_day_or_length_is_wrong_usage(layout: IndexLayout, options: list[str]) -> None:
    assert run(layout, "search", "red", *options).exit_code == 2


def test_a_filter_that_nothing_can_pass_is_an_error(layout: IndexLayout) -> None:
    with pytest.raises(QueryError, match="swap them"):
        run(layout, "search", "red", "--after", "2024-02-01", "--before", "2024-01-01")


def test_labels_are_added_shown_and_removed(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    assert "No video has a label yet" in run(layout, "label").stdout
    given = run(layout, "label", films, "--add", "Mine", "--add", "[red]")
    assert "8 labels added, 0 removed." in given.stdout
    assert lines(run(layout, "label", "--json")) == [{"labels": {"[red]": 4, "Mine": 4}}]
    shown = run(layout, "label").stdout
    assert "[red]" in shown
    assert "Mine" in shown
    (line,) = lines(run(layout, "label", films / "more", "--remove", "mine", "--json"))
    assert line["labels"] == ["[red]"]
    assert line["path"] == str(films / "more" / NASTY)
    assert "[red]" in run(layout, "label", films / "more").stdout


def test_a_label_to_remove_that_no_video_has_is_an_error_that_names_the_nearest(
    layout: IndexLayout,
) -> None:
    films = layout.root.parent / "films"
    with pytest.raises(QueryError, match=r"has the label 'Hoilday': no video has a label yet"):
        run(layout, "label", films, "--remove", "Hoilday")
    run(layout, "label", films, "--add", "Holiday", "--add", "work")
    with pytest.raises(QueryError, match=r"has the label 'Hoilday': the nearest is 'Holiday'"):
        run(layout, "label", films, "--add", "x", "--remove", "Hoilday")
    assert lines(run(layout, "label", "--json")) == [{"labels": {"Holiday": 4, "work": 4}}]


def test_a_path_that_is_not_indexed_is_an_error_that_names_the_nearest(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    words = f"the nearest that is in it is {re.escape(str(films / 'more'))};"
    for command in (["forget"], ["label", "--add", "x"]):
        with pytest.raises(IndexDirectoryError, match=words):
            run(layout, *command, films / "moore")


def test_labels_without_a_video_are_wrong_usage(layout: IndexLayout) -> None:
    assert run(layout, "label", "--add", "x").exit_code == 2


def test_a_path_that_is_not_indexed_is_an_error_and_nothing_is_labelled(
    layout: IndexLayout,
) -> None:
    films = layout.root.parent / "films"
    with pytest.raises(IndexDirectoryError, match="nothing searchable at /nowhere"):
        run(layout, "label", films, "/nowhere", "--add", "x")
    assert lines(run(layout, "label", "--json")) == [{"labels": {}}]
    with pytest.raises(QueryError, match="control character"):
        run(layout, "label", films, "--add", "a\nb")


def test_labelling_makes_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexDirectoryError, match="scanonce index"):
        run(IndexLayout(tmp_path), "label")
    assert list(tmp_path.iterdir()) == []


def test_videos_can_be_labelled_while_a_run_writes_the_index(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    with writing(layout, "a run of hours"):
        assert "4 labels added" in run(layout, "label", films, "--add", "x").stdout


def test_an_index_that_takes_the_place_of_the_other_meanwhile_is_labelled_too(
    layout: IndexLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = layout.root.parent / "films"
    other = layout.staging
    layouts = iter([layout, other, other, other])
    other.catalog.parent.mkdir(parents=True)
    with Catalog.open(layout.catalog) as catalog:
        catalog.copy_to(other.catalog)
    other.manifest.write_bytes(layout.manifest.read_bytes())
    monkeypatch.setattr(IndexLayout, "of", lambda _: next(layouts))
    assert change_labels(layout.root, [films], add=["x"]) == (4, 0)
    with Catalog.open(other.catalog) as catalog:
        assert catalog.labels.counts() == {"x": 4}
