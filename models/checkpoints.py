"""Checkpoints of our own networks (CLIP4Clip heads, SOONet): a file of tensors with a JSON configuration.

    write_checkpoint(folder / "model.safetensors", model.state_dict(), folder / "config.json", asdict(config))
    find_differences(model.state_dict(), tensors)      # ["missing: fc.bias", "fc.weight: shape [3], should be [4]"]

Each network names the differences in an error of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor


def write_checkpoint(
    weights: Path, tensors: Mapping[str, Tensor], config: Path, values: Mapping[str, Any]
) -> None:
    """Write tensors, each in its own number format, and their configuration; the folder is made if necessary.

    Args:
        weights: path of the safetensors file.
        tensors: tensors by name, on any device.
        config: path of the JSON file.
        values: what decides the shapes and the arithmetic of the tensors.
    """
    weights.parent.mkdir(parents=True, exist_ok=True)
    # renamed when complete: an interrupted run leaves the earlier file
    unfinished = weights.with_name(f"{weights.name}.part")
    unfinished.write_bytes(save({name: each.contiguous().cpu() for name, each in tensors.items()}))
    unfinished.replace(weights)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def find_differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Describe the tensors that are missing, unknown or of another shape; empty if there are none."""
    differences = [f"missing: {name}" for name in wanted if name not in given]
    differences += [f"unknown: {name}" for name in given if name not in wanted]
    differences += [
        f"{name}: shape {list(given[name].shape)}, should be {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    return differences
