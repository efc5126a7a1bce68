"""The processes that train together: one, or several that `torchrun` or `accelerate launch` started.

Hugging Face Accelerate finds out who they are, on which device each computes and how they talk; it is imported only
where there are several.
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
"""How long a process waits for another one: the first run decodes all videos while the others wait."""

_NUMBERS_AT_ONCE = 32_000_000
"""Of gradients that are added up in one go: few calls, and little memory beside."""


class Processes(Protocol):
    """Who trains together. Every process calls the same methods in the same order."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    @property
    def index(self) -> int:
        """Of this process; the one of index 0 writes and prints."""

    @property
    def count(self) -> int:
        """How many there are."""

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Those of all processes, one after another along the first axis; shapes must be equal. Without a graph."""

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Puts the sum over all processes into each tensor."""

    def gather_rows(self, rows: list[Any]) -> list[Any]:
        """The lists of all processes, one after another; of any lengths."""

    def agree(self, value: float) -> float:
        """The value that the first process has."""

    def wait(self) -> None:
        """Returns when all have come here."""

    def close(self) -> None:
        """Lets the others go."""


class OneProcess:
    """Nobody else."""

    index, count = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of its own with the same numbers: what is done to one is not done to the other."""
        return tensor.detach().clone()

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Nothing is to be added."""

    def gather_rows(self, rows: list[Any]) -> list[Any]:
        """The rows themselves."""
        return rows

    def agree(self, value: float) -> float:
        """The value itself."""
        return value

    def wait(self) -> None:
        """Nobody is waited for."""

    def close(self) -> None:
        """Nobody is let go."""


class SeveralProcesses:
    """Those that a launcher started, through Accelerate."""

    def __init__(self, device: str) -> None:
        """Meets the others.

        Args:
            device: "auto", "cpu" or "cuda"; which GPU is each process's own is the launcher's business.

        Raises:
            ConfigError: Accelerate is not installed, or the device is not here.
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
        """Those of all processes along the first axis."""
        if tensor.dtype == torch.bool:  # not every way of talking knows truth values
            return self.gather(tensor.to(torch.uint8)).bool()
        gathered: torch.Tensor = self._accelerator.gather(tensor.detach().contiguous())
        return gathered

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Puts the sum over all processes into each tensor, many of them in one message."""
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
        """The lists of all processes, one after another."""
        gathered: list[Any] = self._accelerate.utils.gather_object(rows)
        return gathered

    def agree(self, value: float) -> float:
        """The value that the first process has."""
        own = torch.tensor([value], dtype=torch.float32, device=self.device)
        return float(self.gather(own)[0])

    def wait(self) -> None:
        """Returns when all have come here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Ends the group."""
        self._accelerator.end_training()


def meet_processes(device: str = "auto") -> Processes:
    """The processes that this one was started with.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: the device is not here; or there are several processes and Accelerate is not installed.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        return SeveralProcesses(device)
    return OneProcess(pick_device(device))
