"""Spread: how much too narrow the samples are, and the noise too large, by the errors of held-out meshes.

Members that have learned too little are wrong alike, and a posterior of the last layer knows nothing of the others. So
samples are mostly too narrow. Their deviations are widened by one factor per field, and the noise by another,

    u_k ← ū + s (u_k − ū),    σ_k² ← t² σ_k²,    s, t = argmax ⟨log N(y; ū, s² Var_k(u_k) + t² ⟨σ_k²⟩)⟩

the likelihood of the held-out fields on all scales, each mesh and scale counting the same and nodes by mass. Noise is
independent from node to node and averages out on the way to coarser scales. Doubt that neighbours share does not, and
is what a reaction or a stress inherits. So the scales tell one from the other, also where noise that was learned at the
nodes could explain all errors there. Of samples without noise it is, on one scale, the factor of Levi et al. 2022
(Evaluating and calibrating uncertainty prediction in regression tasks) and Laves et al. 2020 (Well-calibrated
regression uncertainty in medical imaging with deep learning): s² is the mean of (y − ū)²/Var. Few samples leave that
without bound, so it has one.

Deviations are widened alike at all nodes and on all scales: a sample that obeys a linear law, as its coarse fields are
averages of the fine one, still does. A factor cannot know where all samples are wrong in the same way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.nn import NoisyOutput, Output
from gno.train.normalise import columns_of
from gno.train.run import Run
from gno.train.time_metrics import RolloutEvaluation, RolloutRow
from gno.uncertain import Uncertain
from gno.uq.metrics import flatten
from gno.uq.sampler import Sampler
from gno.uq.scales import averaged_noise

# Factors lie between the inverse of this and itself.
LARGEST = 1e3
# Nor are they larger than this times what makes mean squares equal. Errors over the deviation of n perfect samples are
# Student's, whose mean square is (n − 1)/(n − 3): five ask for a factor of √2, of three and four it has no end.
OVER_MEAN_SQUARES = 1.5


@dataclasses.dataclass(frozen=True)
class Spread:
    """Factors of one field.

    Args:
        samples: s, of the deviations of the samples from their mean. noise: t, of the standard deviation of the noise.
    """

    samples: float = 1.0
    noise: float = 1.0

    @staticmethod
    def fit(
        quantities: Sequence[Uncertain],
        truths: Sequence[np.ndarray],
        masses: Sequence[Float[np.ndarray, " n_nodes"]],
        *,
        floor: float,
    ) -> Spread:
        """The most likely factors; one where there is nothing to widen.

        Args:
            quantities: predictions of held-out meshes, (n_nodes, …) each. truths: the same shapes.
            masses: of the nodes.
            floor: standard deviation that is added in squares, so that nodes where a method is all too sure do not
                decide alone; a thousandth of the field's usual size, say.

        Raises:
            ValueError: no mesh, or shapes that do not fit.
        """
        if not quantities:
            raise ValueError("held-out meshes: expected at least one, got none")
        parts = [_squares(*part) for part in zip(quantities, truths, masses, strict=True)]
        error, *variances, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        there = [k for k, variance in enumerate(variances) if variance.any()]
        found = [1.0, 1.0]
        if there:
            some = _most_likely(error, np.stack([variances[k] for k in there]), weight / weight.sum(), floor**2)
            for k, variance in zip(there, some, strict=True):
                found[k] = math.sqrt(variance)
        return Spread(*found)

    def widen(self, quantity: Uncertain) -> Uncertain:
        """The quantity with this spread."""
        return quantity.widened(self.samples, self.noise)


def _squares(quantity: Uncertain, truth: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, ...]:
    """Squared errors, variance of the samples and of the noise, and weights, one in sum."""
    flat = flatten(quantity, truth, mass)
    epistemic, aleatoric = (np.ravel(x)[flat.used] for x in (quantity.epistemic, quantity.aleatoric))
    return (flat.truth - flat.mean) ** 2, epistemic, aleatoric, flat.weight / flat.weight.sum()


def _most_likely(
    error: Float[np.ndarray, " n"], variances: Float[np.ndarray, "k n"], weight: Float[np.ndarray, " n"], floor: float
) -> Float[np.ndarray, " k"]:
    """Multiples a of the variances that make the errors most likely: argmin ⟨log v + e²/v⟩, v = Σ_k a_k v_k + floor.

    Args:
        error: squares.
    """

    def cost(logarithm: np.ndarray) -> tuple[float, np.ndarray]:
        each = np.exp(logarithm)[:, None] * variances
        total = each.sum(0) + floor
        value = weight @ (np.log(total) + error / total)
        return float(value), (each * (1 / total - error / total**2)) @ weight

    start = np.log(np.clip((weight @ error) / (variances @ weight), LARGEST**-2, LARGEST**2))
    starts = [start]
    if len(start) > 1:  # there may be a maximum where one of them explains nearly all
        starts += [start - [0.0, 6.0], start - [6.0, 0.0]]
    limits = [(-2 * math.log(LARGEST), ratio + 2 * math.log(OVER_MEAN_SQUARES)) for ratio in start]
    found = [minimize(cost, x, jac=True, bounds=limits, method="L-BFGS-B") for x in starts]
    return np.exp(min(found, key=lambda result: result.fun).x)


@dataclasses.dataclass(frozen=True)
class Widened(Sampler):
    """A sampler whose samples are widened: what it predicts, and all that follows from it, has an honest spread.

    Args:
        sampler: as it was trained; operator, weights and rollouts are its own.
        spreads: by field, as ``u``, the same on all scales; in time by field and step, as ``u#12``, the last one known
            for all steps after it.
    """

    sampler: Sampler
    spreads: Mapping[str, Spread]

    @property
    def operator(self) -> Run:
        return self.sampler.operator

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return self.sampler.models

    def outputs(self, batch: Batch, *, attention: bool = False) -> Iterator[Output]:
        return self.sampler.outputs(batch, attention=attention)

    def noise(self, outputs: Sequence[Output]) -> Sequence[Sequence[Float[Tensor, "n_s n_targets"]]] | None:
        """Of several samples that of the nodes, averaged: what anchors have in common is for the samples to say."""
        noisy = [output for output in outputs if isinstance(output, NoisyOutput)]
        return averaged_noise(noisy) if len(noisy) > 1 else self.sampler.noise(outputs)

    def widened(self, quantity: Uncertain, step: int | None = None) -> Uncertain:
        factors = np.ones((2, quantity.shape[-1]))
        for columns, field in columns_of(self.operator.blueprint.spec.targets):
            spread = self._spread(field.name, step)
            factors[:, columns] = [[spread.samples], [spread.noise]]
        return quantity.widened(factors[0], factors[1])

    def evaluate_rollouts(self, series: Iterable[Sequence[Mesh] | str | Path]) -> RolloutEvaluation:
        found = self.sampler.evaluate_rollouts(series)
        return RolloutEvaluation(tuple(dataclasses.replace(row, metrics=self._metrics(row)) for row in found.rows))

    def _metrics(self, row: RolloutRow) -> dict[str, dict[str, list[float]]]:
        """With the spread of the widened samples, where there are several."""
        if "spread" not in row.metrics:
            return row.metrics
        wide = {
            name: [size * self._spread(name, k).samples for k, size in enumerate(sizes, start=1)]
            for name, sizes in row.metrics["spread"].items()
        }
        return {**row.metrics, "spread": wide}

    def _spread(self, name: str, step: int | None) -> Spread:
        if step is None:
            return self.spreads.get(name, Spread())
        known = [k for n, _, k in (key.rpartition("#") for key in self.spreads) if n == name]
        last = min(step, max(map(int, known), default=0))
        return self.spreads.get(f"{name}#{last}", Spread())


def as_trained(sampler: Sampler) -> Sampler:
    """Without a widening."""
    return sampler.sampler if isinstance(sampler, Widened) else sampler
