"""The network of two layers that stands at every node and anchor; a linear map of two values at once."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


def mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """``W₂ silu(W₁ x + b₁) + b₂``."""
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))


def side_by_side(
    layer: nn.Linear, first: Float[Tensor, "n c"], second: Float[Tensor, "n d"]
) -> Float[Tensor, "n n_out"]:
    """``layer([first, second])`` without a tensor that holds both.

    >>> import torch
    >>> layer, x, y = nn.Linear(5, 2), torch.rand(4, 3), torch.rand(4, 2)
    >>> torch.allclose(side_by_side(layer, x, y), layer(torch.cat([x, y], dim=1)), atol=1e-6)
    True
    """
    a, b = layer.weight.split([first.shape[1], second.shape[1]], dim=1)
    total = nn.functional.linear(first, a, layer.bias)
    return total.addmm_(second.to(total), b.T.to(total))  # in place: nobody needs the first sum
