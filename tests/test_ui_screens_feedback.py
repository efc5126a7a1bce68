"""More and less like a moment on the search page, without a browser."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from scanonce.storage.layout import IndexLayout
from scanonce.ui.pages import finding
from scanonce.ui.pages.judged import judged
from tests.ui_library import NASTY, build_library, open_page, shown_index


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> IndexLayout:
    return build_library(tmp_path_factory.mktemp("feedback"))


@pytest.fixture(autouse=True)
def pages(layout: IndexLayout, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shown_index(layout.root, monkeypatch)


def grid(app: AppTest) -> dict[str, Any]:
    (component,) = [each for each in app.get("bidi_component") if each.key == "grid"]
    data: dict[str, Any] = json.loads(component.proto.json)
    return data


def chips(app: AppTest) -> list[str]:
    return [each.key for each in app.button if each.key and each.key.startswith("judged-")]


def key_of(query: str) -> str:
    found = finding.search(query, None, 5, finding.index_stamp()).moments[0]
    start, end = found.span.start_seconds, found.span.end_seconds
    return f"{found.video_id}-{round(1000 * start)}-{round(1000 * end)}"


def test_a_moment_in_the_address_is_a_chip_that_can_be_taken_away() -> None:
    key = key_of("green")
    app = open_page("search", q="something", more=key)
    assert grid(app)["cards"][0]["name"] == NASTY
    assert grid(app)["can_judge"]
    assert chips(app) == [f"judged-more-{key}"]
    assert NASTY not in app.button(key=f"judged-more-{key}").label, "Markdown of a name is escaped"
    app.button(key=f"judged-more-{key}").click().run()
    assert chips(app) == []
    assert "more" not in app.query_params
    assert app.query_params["q"] == "something"


def test_what_is_dismissed_is_left_out() -> None:
    first = grid(open_page("search", q="red"))["cards"][0]
    app = open_page("search", q="red", less=first["key"])
    assert first["key"] not in [card["key"] for card in grid(app)["cards"]]
    assert chips(app) == [f"judged-less-{first['key']}"]


def test_another_query_forgets_the_judgements() -> None:
    app = open_page("search", q="red", more=key_of("green"))
    app.text_input[0].set_value("white").run()
    assert chips(app) == []
    assert "more" not in app.query_params


def test_a_moment_is_enough_to_ask_by() -> None:
    key = key_of("green")
    card = grid(open_page("search", more=key))["cards"][0]
    assert (card["name"], "q=" in card["href"]) == (NASTY, False)
    assert card["match"].endswith("alike")


@pytest.mark.parametrize("key", ["", "1", "99-1-2", "1-2-1", "1-999999999-9999999999", "x-1-2"])
def test_an_address_that_names_no_moment_is_ignored(key: str) -> None:
    app = open_page("search", q="red", more=key)
    assert chips(app) == []
    assert grid(app)["cards"]


def test_a_moment_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_of("green")
    app = open_page("search", q="red", more=key, less=key)
    assert chips(app) == [f"judged-more-{key}"]
    assert not judged({})
