"""Devices by the names that cases and commands give them."""

from __future__ import annotations

import torch


def device_of(name: str) -> torch.device:
    """A device of this machine; ``auto`` is a GPU where there is one.

    Raises:
        ValueError: no such name, or no such device here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    kind, _, number = name.partition(":")
    if name == "auto":
        return torch.device(next(kind for kind, count in there.items() if count))
    if kind not in there or (number and not number.isdigit()):
        raise ValueError(f"device: expected auto, cpu, cuda, cuda:1 or mps, got '{name}'")
    if int(number or 0) >= there[kind]:
        known = [key for key, count in there.items() if count]
        raise ValueError(f"device: expected one of this machine ({', '.join(known)}), got '{name}'")
    return torch.device(name)
