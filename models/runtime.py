"""Devices, number formats and thread counts of all computation; no other module chooses them.

A machine that indexes has three kinds of workers that would each take every core: decoders, torch and FAISS. Two
OpenMP runtimes that spin against each other cost more than they gain, so the thread counts are explicit.
"""

import os
from typing import Literal

import torch

from scanonce.storage.errors import ConfigError

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]


def num_cores() -> int:
    """Number of cores this process may use (the share of a container, not the whole machine)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def use_one_thread() -> None:
    """Make torch operations on the CPU use only the calling thread, from now on.

    For more cores, call from more threads (`ClipEncoder.max_concurrency`). Threads that share one operation wait for
    each other at its every step: next to decoders, which need the cores too, they are slower than one thread alone, and
    several such groups in one process have deadlocked.
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def pick_device(wanted: str = "auto") -> torch.device:
    """Return the wanted device; for ``auto`` CUDA, else Apple's GPU, else the CPU.

    Raises:
        ConfigError: this machine does not have the wanted device.
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
    """Return the wanted number format of weights.

    ``auto`` is bf16 if the hardware multiplies it, else fp32 on a CPU and fp16 on a GPU.
    ``python -m benchmarks.encoders`` measures the gain of bf16 and its effect on the vectors.
    """
    if wanted != "auto":
        named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        return named[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return torch.bfloat16 if has_bf16 else torch.float32
