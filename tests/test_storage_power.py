"""A power cut at any step leaves generations and files whole, and loses nothing that was reported as written.

An unsynced write is lost, and a rename may be seen before the data (`tests.faults`). The story of `test_crashes.py`
cannot see a generation that is lost, because searches load its videos from the catalogue, at a cost.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.power_tasks import check_published, check_written, publish_until, write_until


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(max_concurrency=1) as lab:
        yield lab


def cut_everywhere(
    lab: Lab, folder: Path, work: Callable[..., None], check: Callable[..., None], kind: str
) -> Iterator[tuple[str, list[list[object]]]]:
    """Yield each point of some work, and what is reported of a power cut there."""
    (points,) = lab.run(work, case=str(folder / "dry"), at=0).values("points")
    for at, point in enumerate(points, start=1):
        if not point.startswith(
            "write "
        ):  # what was written is safe at the next sync at the earliest
            case = str(folder / "case")
            assert lab.run(work, case=case, at=at).killed
            outcome = lab.run(check, case=case, seed=at)
            assert outcome.values("problem") == []
            yield point, outcome.values(kind)
            shutil.rmtree(case)


def test_the_newest_generation_is_whole_whenever_the_power_is_cut(lab: Lab, tmp_path: Path) -> None:
    wrong, num_points = [], 0
    for point, found in cut_everywhere(
        lab, tmp_path, publish_until, check_published, "newest and whole"
    ):
        num_points += 1
        allowed = ([3, 3],) if point.startswith("end ") else ([2, 2], [3, 3])
        wrong += [f"{point}: {each}" for each in found if each not in allowed]
    assert wrong == []
    assert num_points > 10


def test_a_file_is_old_or_new_whenever_the_power_is_cut(lab: Lab, tmp_path: Path) -> None:
    is_replaced, wrong = False, []
    for point, found in cut_everywhere(lab, tmp_path, write_until, check_written, "contents"):
        is_replaced |= point.startswith("replaced ")
        files = ["new"] if is_replaced else ["old", "new"]
        others = ["new"] if point.startswith("end ") else ["none", "new"]
        wrong += [
            f"{point}: {each}" for each in found if each[0] not in files or each[1] not in others
        ]
    assert is_replaced
    assert wrong == []
