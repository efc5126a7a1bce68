"""The faults of `benchmarks.broken` follow the code."""

import shutil
from pathlib import Path

import pytest

from benchmarks.broken import FAULTS, Fault
from tests.command import ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_put_into_the_code_of_today(fault: Fault, tmp_path: Path) -> None:
    copy = tmp_path / fault.path
    copy.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / fault.path, copy)
    fault.put_into(tmp_path)
    assert copy.read_text() != (ROOT / fault.path).read_text()
    compile(copy.read_text(), fault.path, "exec")


@pytest.mark.parametrize("test", sorted({fault.test for fault in FAULTS}))
def test_a_named_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_a_fault_that_no_longer_applies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("one one")
    with pytest.raises(ValueError, match="2 times 'one'"):
        Fault("f", "x.py", (("one", "two"),), "").put_into(tmp_path)
