"""The limits on the shape of the code. `python -m benchmarks.house` prints where it stands."""

import subprocess
import sys

import pytest

from benchmarks import house

ALL = (*house.PRODUCT, *house.TRAINING)


def test_every_file_can_be_read_in_one_sitting() -> None:
    assert [each for each in house.file_sizes(ALL) if each.lines > house.MAX_FILE_LINES] == []


def test_no_class_does_everything() -> None:
    assert [each for each in house.class_sizes(ALL) if each.lines > house.MAX_CLASS_LINES] == []


def test_no_function_is_longer_than_a_screen_or_two() -> None:
    sizes = house.function_sizes(ALL)
    assert [each for each in sizes if each.lines > house.MAX_FUNCTION_LINES] == []


def test_imports_go_in_no_circle() -> None:
    assert house.import_circles() == []


@pytest.mark.parametrize("habit", house.LANGUAGE)
def test_the_language_stays_plain(habit: str) -> None:
    """At most a tenth of what there was when it was counted first (`benchmarks.house.BEFORE`)."""
    texts = [path.read_text("utf-8") for path in house.python_files(ALL)]
    assert house.language_counts(texts)[habit] <= house.MOST[habit]


def test_no_module_is_loaded_under_two_names() -> None:
    code = (
        "import sys, scanonce.ui.cli, scanonce.library, scanonce.training.bundled.gate\n"
        f"print(sorted({set(ALL)!r} & {{name.split('.')[0] for name in sys.modules}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=house.ROOT
    )
    assert run.stdout.strip() == "[]"


def test_what_is_measured_is_really_there() -> None:
    """The limits are worth something only if they can fail."""
    longest = [sizes(ALL)[0].lines for sizes in (house.file_sizes, house.class_sizes)]
    assert all(lines > 100 for lines in longest)
    assert house.language_counts(["it is told anew where there is none"])["anew"] == 1
