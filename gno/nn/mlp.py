"""The network of two layers that stands at every node and anchor."""

from __future__ import annotations

from torch import nn


def mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """``W₂ silu(W₁ x + b₁) + b₂``."""
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))
