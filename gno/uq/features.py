"""What the heads of an operator see: the last features at every scale, in which its output is linear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.nn import Output
from gno.nn.pooling import Transfer


def last_layers(model: nn.Module) -> list[nn.Linear]:
    """The last linear map of every head, finest scale first.

    Raises:
        ValueError: a model without heads.
    """
    heads = getattr(model, "heads", None)
    if heads is None:
        raise ValueError(f"model: expected an operator with heads, got {type(model).__name__}")
    return [[layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1] for head in heads]


def with_features(
    model: nn.Module, batch: Batch, *, attention: bool = False
) -> tuple[Output, list[Float[Tensor, "n_s width"]]]:
    """The output for a batch, if wanted with attention shares, and what the last layer of each head was given."""
    layers = last_layers(model)
    seen: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, s=s: seen.__setitem__(s, inputs[0]))
        for s, layer in enumerate(layers)
    ]
    try:
        output = model(batch, return_attention=attention)
    finally:
        for hook in hooks:
            hook.remove()
    return output, [seen[s] for s in range(len(layers))]


def compose(free: Sequence[Float[Tensor, "n_s c"]], transfers: Sequence[Transfer]) -> list[Float[Tensor, "n_s c"]]:
    """Fields at every scale from what the heads say, ``u_s = P u_{s+1} + (I − PR) w_s``: linear, column by column."""
    fields = [free[-1]]
    for own, transfer in zip(free[-2::-1], transfers[::-1], strict=True):
        fields.insert(0, own + transfer.prolong(fields[0] - transfer.restrict(own)))
    return fields


def with_bias(features: Float[Tensor, "n width"]) -> Float[Tensor, "n width_1"]:
    """Features and a column of ones."""
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
