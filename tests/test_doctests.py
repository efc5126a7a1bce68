"""The examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scanonce"
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(
        PACKAGE.glob("*/**/*.py")
    )  # the parts of the package are links: not of ** alone
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_some_modules_have_examples() -> None:
    assert "scanonce.models.soonet.grid" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_examples_have_the_output_they_show(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.failed == 0
