"""Where computing happens: device, number format and thread counts, decided here and nowhere else.

A machine that indexes has three kinds of workers that would each like every core: decoders, torch and FAISS. Two
OpenMP runtimes that spin against each other cost more than they bring, so counts are set on purpose.
"""

import os
from typing import Literal

import torch

from scanonce.storage.errors import ConfigError

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


def num_cores() -> int:
    """Cores this process may use (a container's share, not the whole machine's)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def use_one_thread() -> None:
    """From here on, a torch operation on the CPU uses the thread that calls it and no other.

    Whoever wants more cores calls from more threads (`ClipEncoder.lanes`). Threads that share one operation wait for
    each other at its every step: beside decoders that want the cores too they are slower than one alone, and several
    such groups in one process have been seen to wait for ever.
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def pick_device(wanted: str = "auto") -> torch.device:
    """The device to compute on: CUDA, else Apple's, else the CPU.

    Raises:
        ConfigError: the wanted device is not on this machine.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f'device "{wanted}" cannot be used here ({str(error).splitlines()[0]}); '
            'set models.device to "auto", "cpu", "cuda" or "cuda:N"'
        ) from error
    return device


def pick_dtype(device: torch.device, wanted: DtypeName = "auto") -> torch.dtype:
    """The number format of an encoder's weights: bf16 where the hardware multiplies it, else fp32 (GPUs: fp16).

    What bf16 gains and how little it changes: ``python -m benchmarks.encoders``.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            wanted
        ]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return torch.bfloat16 if has_bf16 else torch.float32
