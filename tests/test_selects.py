"""The selects of an index: what people do with them, and their file."""

import json
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.facts import NO_FACTS, facts_values
from scanonce.storage.layout import IndexLayout
from scanonce.storage.recorded import day_in_name, with_name
from scanonce.storage.records import Recording, Span, Video
from scanonce.storage.selects import (
    LONGEST_TEXT,
    MOST_SELECTS,
    Select,
    SelectsFile,
    added,
    moved,
    noted,
    removed,
    renamed,
)
from scanonce.ui.folding import fold_alike
from scanonce.ui.recorded import wall_clock


def select(number: int, name: str = "film.mp4") -> Select:
    return Select(number, Span(1.0, 2.5), name, query="a car", probability=0.5, score=0.25)


def ids(selects: tuple[Select, ...]) -> list[int]:
    return [each.video_id for each in selects]


def test_selects_are_added_once_moved_renamed_and_removed() -> None:
    kept = added(added(added((), select(1)), select(2)), select(3))
    assert added(kept, select(2, "other.mp4")) == kept
    key = kept[2].key
    assert key == "3-1000-2500"
    assert ids(moved(kept, key, 0)) == [3, 1, 2]
    assert ids(moved(kept, kept[0].key, 99)) == [2, 3, 1]
    assert moved(kept, key, 2) == kept
    assert moved(kept, "9-0-1", 0) == kept
    assert renamed(kept, key, "  the\n car ")[2].name == "the car"
    assert renamed(kept, key, " ") == kept
    assert noted(kept, key, "x" * 999)[2].note == "x" * LONGEST_TEXT
    assert noted(noted(kept, key, "x"), key, "")[2].note == ""
    assert ids(removed(kept, key)) == [1, 2]


def test_there_is_room_for_a_limited_number() -> None:
    full = tuple(select(number) for number in range(1, MOST_SELECTS + 1))
    assert added(full, select(MOST_SELECTS + 1)) == full


def test_the_file_has_what_was_kept_and_threads_lose_nothing(tmp_path: Path) -> None:
    file = SelectsFile(IndexLayout(tmp_path))
    assert file.read() == ()

    def keep(number: int) -> None:
        file.change(lambda kept: added(kept, select(number, "\u00e9 <b>\udcff")))

    threads = [threading.Thread(target=keep, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = SelectsFile(IndexLayout(tmp_path)).read()
    assert sorted(ids(kept)) == list(range(1, 9))
    assert (kept[0].span, kept[0].probability, kept[0].score) == (Span(1.0, 2.5), 0.5, 0.25)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "x",
        '{"selects": [{}]}',
        '{"selects": [{"video_id": 1, "start_seconds": 2, "end_seconds": 1, "name": "", "note": "", '
        '"query": "", "probability": null, "score": null}]}',
    ],
)
def test_a_damaged_file_is_named_and_never_overwritten(tmp_path: Path, content: str) -> None:
    layout = IndexLayout(tmp_path)
    layout.selects.write_text(content)
    with pytest.raises(IndexDirectoryError, match=r"selects\.json cannot be read"):
        SelectsFile(layout).change(lambda kept: added(kept, select(1)))
    assert layout.selects.read_text() == content


LOOKS = [np.random.default_rng(seed).standard_normal((18, 32)) for seed in (1, 2)]


def test_neighbours_that_look_alike_share_a_card_on_their_side_of_the_divider() -> None:
    one, other = (((each - each.mean()) / each.std()).astype(np.float32) for each in LOOKS)
    near = (0.99 * one + 0.1 * other).astype(np.float32)
    looks = [one, near, None, one, other, other, other]
    assert fold_alike(looks) == [None, 0, None, None, None, 4, 4]
    assert fold_alike(looks, divider=5) == [None, 0, None, None, None, None, 5]
    assert fold_alike([]) == []


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("VID_20240131_174501.mp4", "2024-01-31"),
        ("2023-12-24 market.mov", "2023-12-24"),
        ("cam1_2023.02.31.mp4", None),
        ("C0009.MP4", None),
        ("120231224.mp4", None),
    ],
)
def test_names_state_days(name: str, day: str | None) -> None:
    assert day_in_name(name) == day


def test_the_last_change_stands_in_for_a_day_in_the_name() -> None:
    changed = Video(1, "a", "indexed", 1.0, 1, (), changed_ns=1_700_000_000_000_000_000)
    assert wall_clock(changed.recording, 0.0).startswith("file of 2023-11-1")
    named = json.dumps(facts_values(with_name(NO_FACTS, "20240131.mp4")))
    assert wall_clock(replace(changed, stated=named).recording, 0.0) == "2024-01-31"


def test_a_time_in_utc_is_shown_by_the_clock_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "UTC-9")  # nine hours before Greenwich, as in Tokyo
    time.tzset()
    try:
        at = datetime.fromisoformat("2024-01-31T22:10:00+00:00")
        assert wall_clock(Recording(at, "name"), 61.5) == "2024-02-01 07:11:01"
        assert wall_clock(Recording(at, "camera"), 61.5) == "2024-01-31 22:11:01"
    finally:
        monkeypatch.undo()
        time.tzset()
    last = datetime.fromisoformat("9999-12-31T12:00:00+00:00")
    assert wall_clock(Recording(last, "camera"), 1e6) == "9999-12-31"
