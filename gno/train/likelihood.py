"""Losses that know of doubt: scores of a field with a variance around it, and the divergence of Gaussian weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import FieldSpec, MeshData
from gno.graph.batch import measure
from gno.graph.segment import segment_sum
from gno.nn import NoisyOutput, Output
from gno.nn.stochastic import divergence
from gno.train.losses import Term, mean_of_labelled
from gno.train.normalise import columns_of
from gno.train.trajectory import Trajectory

# Score of (u, σ², y), entry by entry.
Score = Callable[[Tensor, Tensor, Tensor], Tensor]


def beta_nll(
    u: Float[Tensor, "n c"], variance: Float[Tensor, "n c"], y: Float[Tensor, "n c"], *, beta: float = 0.5
) -> Float[Tensor, "n c"]:
    """``sg(σ²)^β (½ log σ² + (u − y)²/2σ²)``: likelihood whose gradient does not vanish where σ is large.

    β = 0 is the Gaussian likelihood, β = 1 gives the mean the gradient of least squares (Seitzer et al. 2022, On the
    pitfalls of heteroscedastic uncertainty estimation, eq. 6).
    """
    return 0.5 * variance.detach() ** beta * (variance.log() + (u - y).square() / variance)


def crps(u: Float[Tensor, "n c"], variance: Float[Tensor, "n c"], y: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """Continuous ranked probability score of N(u, σ²), ``σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π)``, z = (y − u)/σ.

    In the unit of y, and less shaken by a node far off than a likelihood (Gneiting & Raftery 2007, eq. 21).

    >>> one = torch.ones(1, 1)
    >>> crps(0 * one, 2.0**-60 * one, 2 * one).item()  # without noise, the distance
    2.0
    """
    std = variance.sqrt()
    z = (y - u) / std
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


SCORES: dict[str, Score] = {"beta_nll": beta_nll, "crps": crps}


class NoiseLoss:
    """Mean score of one field over components, nodes by mass, meshes, and scales: a loss for :class:`Term`.

    Args:
        columns: of the field. score: of field, variance and truth. coarse_weight: of the coarse scales together,
            against 1 for the mesh.
    """

    def __init__(self, columns: slice, score: Score, coarse_weight: float) -> None:
        self.columns, self.score, self.coarse_weight = columns, score, coarse_weight

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        if not isinstance(output, NoisyOutput):
            raise ValueError(f"output: expected one with a variance (noise_head), got {type(output).__name__}")
        targets = output.restrict(batch.y[:, self.columns])
        total = targets[0].new_zeros(())
        for s, y in enumerate(targets):
            weight = 1.0 if s == 0 else self.coarse_weight / (len(targets) - 1)
            u, variance = (x[s][:, self.columns].to(y.dtype) for x in (output.fields, output.variance))
            each = mesh_means(self.score(u, variance, y).mean(1), batch, output, s)
            total = total + weight * mean_of_labelled(each, batch)
        return total


def mesh_means(values: Float[Tensor, " n_s"], batch: Batch, output: Output, s: int) -> Float[Tensor, " n_graphs"]:
    """Mean over the nodes of each mesh by their measure, summed in a fixed order; of values of either sign."""
    mass, graph = measure(batch, s, output.mass[s]).detach().to(values.dtype), output.batch[s]
    ptr = torch.searchsorted(graph, torch.arange(batch.num_graphs + 1, device=graph.device))
    total, summed = segment_sum(torch.stack([mass, mass * values], dim=1), ptr).unbind(1)
    return summed / total


def noise_terms(fields: Sequence[FieldSpec], score: str, *, coarse_weight: float = 0.3) -> list[Term]:
    """One term per target field, for an operator with a ``noise_head``."""
    return [Term(f.name, NoiseLoss(columns, SCORES[score], coarse_weight)) for columns, f in columns_of(fields)]


class Divergence:
    """Evidence lower bound of Gaussian weights: KL(q ‖ p) over the number of observations, beside losses of the data.

    A loss ℓ that is no log-likelihood is taken as one of the largest evidence: with the density ∝ exp(−ℓ/b)/b of an
    observation, b = ⟨ℓ⟩ is the best, and the bound's gradient is that of ``ℓ + sg(ℓ) KL/n``. For :func:`beta_nll` the
    factor is ``⟨σ^2β⟩``, by which it multiplies the likelihood.

    Args:
        model: with Gaussian weights.
        terms: losses of the data, one per field.
        n: number of observations, over all meshes and outputs; see :func:`n_observations`.
    """

    def __init__(self, model: nn.Module, terms: Sequence[Term], n: float) -> None:
        self.model, self.terms, self.n = model, tuple(terms), n

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        with torch.no_grad():
            factor = torch.stack([_temperature(term.loss, batch, output) for term in self.terms]).sum()
        return factor * divergence(self.model) / self.n


def _temperature(loss: Any, batch: Batch, output: Output) -> Tensor:
    if isinstance(loss, NoiseLoss) and loss.score is beta_nll:
        return output.variance[0][:, loss.columns].sqrt().mean()  # type: ignore[attr-defined]
    return loss(batch, output)


def n_observations(samples: Sequence[Any], n_outputs: int) -> float:
    """What training meshes, or transitions in time, are worth as independent observations of all outputs together.

    Errors at the nodes of one mesh are not independent, and a finer mesh holds no more information: a mesh counts as
    many observations as it has anchors on level 1.
    """
    meshes = [(s, 1) for s in samples if isinstance(s, MeshData)]
    meshes += [(t.samples[0], len(t) - 1) for t in samples if isinstance(t, Trajectory)]
    return n_outputs * float(sum(count * n_anchors(sample) for sample, count in meshes))


def n_anchors(sample: MeshData) -> int:
    """Anchors on level 1; nodes, if there is no such level."""
    return len(sample[f"pos_{min(1, sample.n_levels - 1)}"])
