"""The processes of one training: a single one, or several that `torchrun` or `accelerate launch` started.

Hugging Face Accelerate finds their number, devices and means of communication; it is imported only if there are
several.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch

from scanonce.models.runtime import pick_device
from scanonce.storage.errors import ConfigError

_PATIENCE = timedelta(hours=12)
"""Longest wait for another process: in the first run one process decodes all videos while the others wait."""

_NUMBERS_AT_ONCE = 32_000_000
"""Numbers of gradients that are added up in one call: few calls, and little extra memory."""


class Processes(Protocol):
    """The processes that train together; all of them call the same methods in the same order."""

    @property
    def device(self) -> torch.device:
        """Device of this process."""

    @property
    def index(self) -> int:
        """Index of this process; the one of index 0 writes and reports."""

    @property
    def count(self) -> int:
        """Number of processes."""

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Concatenate the tensors of all processes along the first axis; shapes must be equal. Without a graph."""

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""

    def gather_rows(self, rows: list[Any]) -> list[Any]:
        """Concatenate the lists of all processes, which may differ in length."""

    def agree(self, value: float) -> float:
        """Return the value of the first process."""

    def wait(self) -> None:
        """Wait until all processes have called this."""

    def close(self) -> None:
        """Leave the group."""


class OneProcess:
    """A single process."""

    index, count = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy, so that changes in place of one do not change the other."""
        return tensor.detach().clone()

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Do nothing: the tensors are the sums."""

    def gather_rows(self, rows: list[Any]) -> list[Any]:
        """Return the rows."""
        return rows

    def agree(self, value: float) -> float:
        """Return the value."""
        return value

    def wait(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class SeveralProcesses:
    """The processes that a launcher started, through Accelerate."""

    def __init__(self, device: str) -> None:
        """Join the other processes.

        Args:
            device: "auto", "cpu" or "cuda"; the launcher decides which GPU each process has.

        Raises:
            ConfigError: Accelerate is not installed, or the device does not exist here.
        """
        try:
            accelerate: Any = importlib.import_module("accelerate")
        except ImportError as error:
            raise ConfigError(
                'training in several processes needs Accelerate: pip install -e ".[train]"'
            ) from error
        patience = accelerate.InitProcessGroupKwargs(timeout=_PATIENCE)
        on_cpu = pick_device(device).type == "cpu"
        self._accelerate = accelerate
        self._accelerator = accelerate.Accelerator(cpu=on_cpu, kwargs_handlers=[patience])
        self.device: torch.device = self._accelerator.device
        self.index: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Concatenate the tensors of all processes along the first axis."""
        if tensor.dtype == torch.bool:  # not every backend can send bool
            return self.gather(tensor.to(torch.uint8)).bool()
        gathered: torch.Tensor = self._accelerator.gather(tensor.detach().contiguous())
        return gathered

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes, many of them in one message."""
        bundle: list[torch.Tensor] = []
        size = 0
        for number, tensor in enumerate(tensors, start=1):
            bundle.append(tensor)
            size += tensor.numel()
            if size >= _NUMBERS_AT_ONCE or number == len(tensors):
                self._add_up_bundle(bundle)
                bundle, size = [], 0

    def _add_up_bundle(self, bundle: Sequence[torch.Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in bundle])
        total: torch.Tensor = self._accelerator.reduce(flat, reduction="sum")
        sums_of_each = torch.split(total, [tensor.numel() for tensor in bundle])
        for tensor, sums in zip(bundle, sums_of_each, strict=True):
            tensor.copy_(sums.view_as(tensor))

    def gather_rows(self, rows: list[Any]) -> list[Any]:
        """Concatenate the lists of all processes."""
        gathered: list[Any] = self._accelerate.utils.gather_object(rows)
        return gathered

    def agree(self, value: float) -> float:
        """Return the value of the first process."""
        own = torch.tensor([value], dtype=torch.float32, device=self.device)
        return float(self.gather(own)[0])

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the group."""
        self._accelerator.end_training()


def meet_processes(device: str = "auto") -> Processes:
    """Return the processes that this one was started with.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: the device does not exist here; or there are several processes and Accelerate is not installed.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        return SeveralProcesses(device)
    return OneProcess(pick_device(device))
