"""Set-up and comparisons that the tests of training share."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def published(name: str) -> Path:
    """Return a published file of a benchmark, or skip the test if it is not on this machine."""
    path = ROOT.parent / "shared" / "data" / "groundtruth" / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    return path


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Use one torch thread: several only wait for each other with models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def copy_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights of a model, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Assert that tensors are equal to the bit."""
    assert got.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(got[name], expected[name])]


def assert_near(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Assert that tensors are equal up to rounding."""
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=2e-6, msg=name)


def run_until_killed(code: str, *arguments: object) -> None:
    """Run Python code that kills its own process, with these arguments."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    killed = subprocess.run(command, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
