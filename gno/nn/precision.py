"""Which numbers may be short under autocast: features, as wide as they are, but no positions, masses or sums.

A position counts spacings, hundreds of them across a large mesh, and what matters is the difference of two: with the 8
bits of bfloat16 it would be gone. Features travel in the short type, and every sum over them is taken in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def working_type(values: Tensor) -> torch.dtype:
    """What matrix products of these values are computed in: the short type under autocast, else their own."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype


def shortened(values: Tensor) -> Tensor:
    """Features as they go into a product or a sum; half the memory to gather under autocast, else unchanged."""
    return values.to(working_type(values))


def in_full(layer: nn.Module, values: Tensor) -> Tensor:
    """The layer in the precision of its weights, autocast or not: for positions."""
    with torch.autocast(values.device.type, enabled=False):
        return layer(values)


def halves(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two short numbers whose sum is the long one, to about twice as many digits as one of them has.

    >>> x = torch.tensor([1.2345678])
    >>> high, low = halves(x, torch.bfloat16)
    >>> ((high.float() - x).abs() > 1e-4).item(), ((high.float() + low.float() - x).abs() < 1e-5).item()
    (True, True)
    """
    high = values.to(dtype)
    return high, (values - high).to(dtype)
