"""Checkpoints: one safetensors file each, tensors by name and everything else as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gno.mesh.files import atomic


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a file that is either the old one or the new one, whenever the process is killed.

    Args:
        path: the file; its folder is made.
        tensors: by name; moved to the CPU.
        document: anything that JSON holds; kept in the header of the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic(path) as temporary, temporary.open("wb") as handle:
        handle.write(save(plain, metadata={"document": json.dumps(document)}))
        handle.flush()
        os.fsync(handle.fileno())


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a checkpoint, got no such file")
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, json.loads(handle.metadata()["document"])
    except (SafetensorError, KeyError, TypeError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a checkpoint, got {type(error).__name__}: {error}") from None


def pack(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Several dictionaries of tensors in one.

    >>> sorted(pack(a={"x": torch.ones(1)}, b={"x": torch.ones(1)}))
    ['a/x', 'b/x']
    """
    return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def unpack(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """One dictionary back out of :func:`pack`."""
    start = f"{part}/"
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The tensors of any optimiser, by parameter number and name; numbers become tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, slots in state.items()
        for name, value in slots.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimiser_state`; rates and other settings stay those of ``optimiser``."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
