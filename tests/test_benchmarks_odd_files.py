"""The zoo of odd files: a row that is right, one that is wrong, and one that raises."""

from pathlib import Path

import pytest

from benchmarks.odd_files import ROWS, Row, attempt


def test_a_wrong_value_and_an_error_are_told_and_leave_nothing() -> None:
    made: list[Path] = []

    def fail(folder: Path) -> str:
        made.append(folder)
        raise KeyError("no such thing")

    tried = attempt(Row("fails", "5", fail))
    assert (tried.got, tried.is_right) == ("KeyError: 'no such thing'", False)
    assert not made[0].exists()
    assert not attempt(Row("is wrong", "5", lambda _: "6")).is_right
    assert attempt(Row("is right", "5", lambda _: "5")).is_right


@pytest.mark.parametrize("words", ["HDR", "crop", "interlaced", "jumps back", "late", "v.vob"])
def test_pictures_and_times_of_the_zoo_are_right(words: str) -> None:
    rows = [row for row in ROWS if words in row.what]
    assert rows
    for row in rows:
        tried = attempt(row)
        assert tried.is_right, tried
