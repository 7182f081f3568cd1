"""Aleatoric noise: a head that says how large it is, and the β-NLL that trains it."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.nn import NeuroScale, Output
from gno.uq.features import last_layers, with_features
from gno.uq.sampler import NoisyOutput

# log σ² is kept within these bounds, in units of the normalised targets: beyond them is round-off, or no information.
LOG_VARIANCE = (-18.0, 6.0)
# log σ² at the start: a third of the spread of the targets, everywhere.
START = -2.2


class Heteroscedastic(nn.Module):
    """An operator with one more linear head per scale, on the features of its own heads: log σ².

    The output is a :class:`NoisyOutput`.

    Args:
        operator: gives the mean; trained together with the new heads.
    """

    def __init__(self, operator: NeuroScale) -> None:
        super().__init__()
        self.operator = operator
        self.log_variance = nn.ModuleList(_log_variance(x) for x in last_layers(operator))

    @property
    def heads(self) -> nn.ModuleList:
        """Those of the mean."""
        return self.operator.heads

    def forward(self, batch: Batch) -> NoisyOutput:
        output, features = with_features(self.operator, batch)
        variance = tuple(
            head(x).clamp(*LOG_VARIANCE).exp() for head, x in zip(self.log_variance, features, strict=True)
        )
        parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(Output)}
        return NoisyOutput(**parts, variance=variance)


def _log_variance(mean: nn.Linear) -> nn.Linear:
    head = nn.Linear(mean.in_features, mean.out_features)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, START)
    return head


class BetaNll:
    """``⟨ sg(σ²)^β (½ log σ² + (u − y)²/2σ²) ⟩``: likelihood whose gradient does not vanish where σ is large.

    β = 0 is the Gaussian likelihood, β = 1 gives the mean the gradient of least squares (Seitzer et al. 2022, On the
    pitfalls of heteroscedastic uncertainty estimation, eq. 6). Weighted by mass on every scale. A loss for
    :class:`gno.train.losses.Term`.

    Args:
        columns: of the targets. beta: between 0 and 1. coarse_weight: of the coarse scales together, against 1.
    """

    def __init__(self, columns: slice, *, beta: float = 0.5, coarse_weight: float = 0.3) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta: expected a number from 0 to 1, got {beta}")
        self.columns, self.beta, self.coarse_weight = columns, beta, coarse_weight

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        if not isinstance(output, NoisyOutput):
            raise ValueError(f"output: expected one with a variance (Heteroscedastic), got {type(output).__name__}")
        targets = output.restrict(batch.y[:, self.columns])
        total = targets[0].new_zeros(())
        for s, target in enumerate(targets):
            weight = 1.0 if s == 0 else self.coarse_weight / (len(targets) - 1)
            variance = output.variance[s][:, self.columns].to(target.dtype)
            error2 = (output.fields[s][:, self.columns].to(target.dtype) - target).square()
            each = 0.5 * variance.detach() ** self.beta * (variance.log() + error2 / variance)
            total = total + weight * _mean(each, output, s, batch.num_graphs)
        return total


def _mean(values: Tensor, output: Output, s: int, n_graphs: int) -> Tensor:
    """Mean over components, nodes by mass, and meshes; of values of either sign."""
    mass = output.mass[s].detach().to(values.dtype)
    zero = values.new_zeros(n_graphs)
    sums = zero.index_add(0, output.batch[s], mass * values.mean(1))
    return (sums / zero.index_add(0, output.batch[s], mass)).mean()
