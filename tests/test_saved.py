"""Saved searches: their table, what is new, and the commands."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanonce.library import Library
from scanonce.search.filters import Filter, filter_json, filter_of
from scanonce.search.standing import Standing
from scanonce.storage.catalog.catalog import Catalog
from scanonce.storage.errors import IndexDirectoryError, QueryError
from scanonce.storage.layout import IndexLayout
from tests.catalogs import sql
from tests.colours import ColourEncoder, write_film
from tests.command import scanonce
from tests.indexes import build_index, replace_index

# ---------------------------------------------------------------- the table


def test_a_search_is_saved_once_under_any_case_of_its_name(catalog: Catalog) -> None:
    assert catalog.saved.add("Boats", "a boat", "{}")
    assert not catalog.saved.add("boats", "a ship", "{}")
    (row,) = catalog.saved.all()
    assert (row.name, row.query, row.looked_at, row.seen_video_id) == ("Boats", "a boat", None, 0)
    assert catalog.saved.remove("BOATS")
    assert not catalog.saved.remove("boats")
    assert catalog.saved.all() == []


def test_a_look_never_makes_seen_videos_new_again(catalog: Catalog) -> None:
    catalog.saved.add("boats", "a boat", "{}")
    assert catalog.saved.look("boats", 7)
    assert catalog.saved.look("BOATS", 5)
    (row,) = catalog.saved.all()
    assert row.seen_video_id == 7
    assert row.looked_at is not None
    assert not catalog.saved.look("ships", 9)


def test_a_new_index_takes_over_the_saved_searches(catalog: Catalog, tmp_path: Path) -> None:
    catalog.saved.add("gone", "a", "{}")
    catalog.copy_to(tmp_path / "staging.sqlite")
    catalog.saved.remove("gone")
    catalog.saved.add("late", "b", '{"labels": ["x"]}')
    with Catalog.open(tmp_path / "staging.sqlite") as staging:
        assert [row.name for row in staging.saved.all()] == ["gone"]
        staging.saved.take_over(catalog.saved)
        assert staging.saved.all() == catalog.saved.all()


# ---------------------------------------------------------------- filters as JSON

_LABELS = st.frozensets(st.sampled_from(["a", "b", "über"]), max_size=2)


@given(
    st.builds(
        Filter,
        videos=st.none() | st.frozensets(st.integers(1, 9)),
        folders=st.sampled_from([(), (Path("/films"),), (Path("/a"), Path("/b"))]),
        labels=_LABELS,
        without_labels=st.just(frozenset({"other"})),
        recorded_after=st.none() | st.dates(date(2000, 1, 1), date(2020, 1, 1)),
        indexed_before=st.none() | st.dates(date(2000, 1, 1), date(2020, 1, 1)),
        min_seconds=st.none() | st.floats(0, 9),
        max_seconds=st.none() | st.floats(10, 99),
    )
)
def test_a_filter_is_the_same_after_json(only: Filter) -> None:
    read = filter_of(json.dumps(filter_json(only)))
    # "no video" is a condition too, but is not one that can be saved
    assert read == only or only.videos == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "3", '{"labels": 3}', '{"min_seconds": "long"}', '{"colour": "red"}',
        '{"min_seconds": -1}', '{"folders": ["relative"]}', '{"recorded_after": "soon"}',
        "[" * 5000,
    ],
)  # fmt: skip
def test_a_text_that_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        filter_of(text)


# ---------------------------------------------------------------- what is new


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexLayout:
    """An index of two films, one with a red scene."""
    monkeypatch.setattr("scanonce.search.engine.load_encoder", lambda *_, **__: ColourEncoder())
    write_film(tmp_path / "films" / "red.mp4", [("black", 8), ("red", 6), ("white", 10)])
    write_film(tmp_path / "films" / "blue.mp4", [("black", 8), ("blue", 6), ("white", 10)])
    layout = IndexLayout(tmp_path / "index")
    build_index(layout, tmp_path / "films")
    return layout


Add = Callable[[str], None]


@pytest.fixture
def add_film(layout: IndexLayout) -> Add:
    def add(colour: str) -> None:
        films = layout.root.parent / "films"
        number = len(list(films.iterdir()))
        write_film(films / f"{number}.mp4", [("black", 7 + number), (colour, 6), ("white", 9)])
        build_index(layout, films)

    return add


def test_matches_are_new_until_the_search_is_run(layout: IndexLayout, add_film: Add) -> None:
    with Library(layout.root) as library:
        saved = library.saved
        saved.add("reds", "red")

        def num_new() -> int:
            return saved.num_new(saved.get("reds"))

        before = num_new()
        assert before == saved.run("reds").num_good >= 1
        assert num_new() == 0
        add_film("blue")
        blue = num_new()
        add_film("red")
        assert num_new() > blue
        new = saved.new(saved.get("reds"))
        assert new is not None
        assert new.moments[0].path.name == "3.mp4"
        assert {moment.path.name for moment in new.moments} <= {"2.mp4", "3.mp4"}
        saved.run("reds")
        assert num_new() == 0


def test_a_saved_filter_holds_for_what_is_new(layout: IndexLayout, add_film: Add) -> None:
    with Library(layout.root) as library:
        saved = library.saved
        added = saved.add("long reds", "red", Filter(min_seconds=60.0))
        assert saved.get("LONG REDS") == added
        add_film("red")
        assert saved.num_new(added) == 0
        result = saved.within(added, frozenset({1, 2, 3}))
        assert result is not None
        assert result.num_videos == 0


def test_a_search_that_cannot_be_saved_is_refused(layout: IndexLayout) -> None:
    with Library(layout.root) as library:
        saved = library.saved
        saved.add("reds", "red")
        for name, text, reason in [
            ("Reds", "red", "there is a saved search"),
            ("  ", "red", "1 to 100 characters"),
            ("other", " ", "empty"),
            ("other", "(red | ", "allowed"),
        ]:
            with pytest.raises(QueryError, match=reason):
                saved.add(name, text)
        with pytest.raises(QueryError, match="the nearest is 'reds'"):
            saved.run("red")
        with pytest.raises(QueryError, match="the nearest is 'reds'"):
            saved.remove("red")
        assert [each.name for each in saved.all()] == ["reds"]
    with pytest.raises(IndexDirectoryError):
        Library(layout.root.parent / "nothing").saved.add("a", "b")


def test_saved_searches_outlast_a_replaced_index(layout: IndexLayout) -> None:
    with Library(layout.root) as library:
        library.saved.add("reds", "red")
        library.saved.run("reds")
        replace_index(layout)
        (saved,) = library.saved.all()
        assert saved.name == "reds"
        assert library.saved.num_new(saved) == 0


# ---------------------------------------------------------------- commands


def lines(layout: IndexLayout, *arguments: object) -> Any:
    ran = scanonce("saved", *arguments, "--index", layout.root)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_commands_add_list_run_and_remove(layout: IndexLayout) -> None:
    films = layout.root.parent / "films"
    lines(layout, "add", "reds", "red", "--in", films, "--longer", 5)
    (row,) = json.loads(lines(layout, "list", "--json"))["saved"]
    assert row["new"] >= 1
    assert row["last_looked"] is None
    assert (row["name"], row["query"]) == ("reds", "red")
    assert row["filter"] == {"folders": [str(films)], "min_seconds": 5.0}
    answer = json.loads(lines(layout, "run", "reds", "--json", "--top", 3))
    assert answer["query"] == "red"
    assert answer["filter"] == row["filter"]
    assert Path(answer["moments"][0]["path"]).name == "red.mp4"
    (row,) = json.loads(lines(layout, "list", "--json"))["saved"]
    assert row["new"] == 0
    assert row["last_looked"] is not None
    assert "reds" in lines(layout, "list")
    lines(layout, "remove", "reds")
    assert json.loads(lines(layout, "list", "--json")) == {"saved": []}
    assert "scanonce saved add NAME QUERY" in lines(layout, "list")


def test_a_damaged_filter_is_an_error_that_names_the_search(layout: IndexLayout) -> None:
    lines(layout, "add", "reds", "red")
    sql(layout.catalog, "UPDATE saved_searches SET filter = '{\"x\": 1}'")
    ran = scanonce("saved", "run", "reds", "--index", layout.root)
    assert ran.returncode == 1
    assert "'reds'" in ran.stderr
    assert "scanonce saved remove" in ran.stderr
    lines(layout, "remove", "reds")


def test_a_search_that_cannot_be_asked_costs_no_other(layout: IndexLayout, add_film: Add) -> None:
    """A folder, label or video that a search names may leave the index, or come later."""
    gone = {
        "folder": Filter(folders=(layout.root.parent / "gone",)),
        "label": Filter(labels=frozenset({"gone"})),
    }
    with Library(layout.root) as library:
        for name, only in gone.items():
            library.saved.add(name, "red", only)
        library.saved.add("video", "red like:99@0-1")
        library.saved.add("reds", "red")
        standing = Standing(library.saved, lambda: library.engine)
        add_film("red")
        counted = {each.name: library.saved.count_new(each) for each in library.saved.all()}
        assert counted["reds"][0] > 0
        assert counted["reds"][1] is None
        assert [each.saved.name for each in standing.ask()] == ["reds"]
        assert set(standing.problems) == {"folder", "label", "video"}
        for name in standing.problems:
            num_new, problem = counted[name]
            assert num_new == 0
            assert problem == standing.problems[name]
    listed = json.loads(lines(layout, "list", "--json"))["saved"]
    assert {row["name"] for row in listed if row["problem"]} == {"folder", "label", "video"}
    assert lines(layout, "list").count("cannot be asked") == 3
