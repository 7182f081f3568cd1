"""Split-conformal calibration of fields: intervals that cover as often as they say, whatever the method behind them.

What is exchangeable is the mesh, not the node; in time the series. So calibration meshes count as wholes:

- pointwise: a node drawn by mass in a new mesh lies inside with the wanted probability. The level of the quantile of
  all scores is the one at which the quantile of all other meshes covers a mesh as often as wanted, on the mean over
  the meshes left out.
- simultaneous: all nodes of a new mesh lie inside at once with at least that probability. The largest score of each
  mesh, the mesh to come with infinity (Diquigiovanni, Fontana & Vantini 2022, Conformal prediction bands for
  multivariate functional data).

A pointwise bound for certain would let the mesh to come take part with infinity too (Lee, Barber & Willett 2023,
Distribution-free inference with hierarchical data). It covers up to 1/(n + 1) more than wanted, and does so unless the
nodes of a mesh are all inside or all outside: 94 of 100 where 24 series and 90 are meant.

The score of a node is ``|y − μ| / (σ + floor)``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from gno.train.checkpoint import load_tensors, save_tensors
from gno.uncertain import Uncertain

# Pointwise factors are kept for this many coverages; others are met from above.
N_KEPT = 2000
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Conformal:
    """Factors by which a standard deviation is multiplied, for any coverage; one field on one scale.

    Args:
        pointwise: for coverages k/n_kept of a node, k = 1 … n_kept.
        largest: largest score of each calibration mesh, ascending.
        floor: added to every standard deviation, in the unit of the field: where a method is all too sure, a score
            would be without bound. Must not depend on the calibration meshes.
    """

    pointwise: Float[np.ndarray, " n_kept"]
    largest: Float[np.ndarray, " n_meshes"]
    floor: float

    @staticmethod
    def fit(
        quantities: Sequence[Uncertain],
        truths: Sequence[np.ndarray],
        masses: Sequence[Float[np.ndarray, " n_nodes"]],
        *,
        floor: float,
    ) -> Conformal:
        """From calibration meshes that took no part in training, nor in choosing the weights.

        Args:
            quantities: predictions, (n_nodes, …) each. truths: the same shapes. masses: of the nodes.
            floor: see above; a thousandth of the field's usual size, say. More than zero.

        Raises:
            ValueError: no mesh, shapes that do not fit, or no floor.
        """
        if not floor > 0:
            raise ValueError(f"floor: expected a standard deviation > 0 in the unit of the field, got {floor}")
        if not quantities:
            raise ValueError("calibration meshes: expected at least one, got none")
        scores, shares = [], []
        for quantity, truth, mass in zip(quantities, truths, masses, strict=True):
            if np.shape(truth) != quantity.shape:
                raise ValueError(f"truth: expected the shape of the prediction {quantity.shape}, got {np.shape(truth)}")
            used = np.asarray(mass) > 0
            score = (np.abs(truth - quantity.mean) / (quantity.std + floor))[used].reshape(used.sum(), -1)
            scores.append(score.ravel())
            shares.append(np.repeat(np.asarray(mass)[used] / score.shape[1] / np.sum(mass), score.shape[1]))
        return Conformal(_pointwise(scores, shares), np.sort([score.max() for score in scores]), float(floor))

    @property
    def n_meshes(self) -> int:
        return len(self.largest)

    def factor(self, coverage: float, *, simultaneous: bool = False) -> float:
        """By how much ``σ + floor`` is multiplied.

        Raises:
            ValueError: a coverage outside (0, 1), or too few calibration meshes for it.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage: expected a number between 0 and 1, got {coverage}")
        n = self.n_meshes
        if coverage * (n + 1) > n * (1 + 1e-12):
            needed = meshes_needed(coverage)
            raise ValueError(f"coverage {coverage:g}: expected at least {needed} calibration meshes, got {n}")
        if simultaneous:
            return float(self.largest[math.ceil(coverage * (n + 1) - 1e-9) - 1])
        return float(self.pointwise[math.ceil(coverage * len(self.pointwise) - 1e-9) - 1])

    def interval(
        self, quantity: Uncertain, coverage: float, *, simultaneous: bool = False
    ) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
        """Lower and upper end, ``μ ∓ factor · (σ + floor)``.

        Args:
            quantity: a prediction of the same field on the same scale, by the same method.
            coverage: probability inside, of a node drawn by mass, or of all nodes at once.
            simultaneous: whether all nodes are meant.

        Raises:
            ValueError: too few calibration meshes for this coverage.
        """
        half = self.factor(coverage, simultaneous=simultaneous) * (quantity.std + self.floor)
        return quantity.mean - half, quantity.mean + half


def meshes_needed(coverage: float) -> int:
    """The fewest calibration meshes that allow a coverage, n/(n + 1) ≥ coverage.

    >>> meshes_needed(0.9), meshes_needed(0.95)
    (9, 19)
    """
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def save_calibration(path: str | Path, parts: Mapping[str, Conformal]) -> None:
    """Keep the calibration of several fields beside a run: one safetensors file."""
    tensors = {
        f"{name}/{part}": torch.as_tensor(getattr(conformal, part))
        for name, conformal in parts.items()
        for part in ("pointwise", "largest")
    }
    floors = {name: conformal.floor for name, conformal in parts.items()}
    save_tensors(path, tensors, {"format": _FORMAT, "floors": floors})


def load_calibration(path: str | Path) -> dict[str, Conformal]:
    """Read what :func:`save_calibration` wrote.

    Raises:
        ValueError: no such file, or not one of ours.
    """
    tensors, document = load_tensors(path)
    if document.get("format") != _FORMAT or "floors" not in document:
        got = f"{document.get('format')}; `gno calibrate` makes it anew"
        raise ValueError(f"{path}: expected a calibration of format {_FORMAT}, got {got}")
    return {
        name: Conformal(tensors[f"{name}/pointwise"].numpy(), tensors[f"{name}/largest"].numpy(), floor)
        for name, floor in document["floors"].items()
    }


def _pointwise(scores: Sequence[np.ndarray], shares: Sequence[np.ndarray]) -> Float[np.ndarray, " n_kept"]:
    """Quantiles of all scores, every mesh counting the same, at the levels that give coverages k/N_KEPT.

    The quantile of n meshes at level q covers a new one on the mean with C_n(q) ≤ q: C_n = q where the nodes of a mesh
    are independent, q n/(n + 1) where all have the same score. C_{n−1} is measured, each mesh against the others, and
    what it lacks falls as 1/n. So with C_{n−1}(q') = c the level is ``q = c + (q' − c)(n − 1)/n``.
    """
    n, wanted = len(scores), np.arange(1, N_KEPT + 1) / N_KEPT
    pooled, weights = np.concatenate(scores), np.concatenate(shares) / n
    if n == 1:
        return _quantiles(pooled, weights, np.minimum(2 * wanted, 1.0))
    # levels k/(n − 1) among them, where the coverage jumps if all nodes of a mesh have the same score
    levels = np.arange(1, (n - 1) * math.ceil(N_KEPT / (n - 1)) + 1) / ((n - 1) * math.ceil(N_KEPT / (n - 1)))
    covered = _covered_left_out(scores, shares, _quantiles(pooled, weights, levels), levels)
    last = np.append(np.diff(covered) > 1e-12, True)  # the largest level of each coverage
    level = np.interp(wanted, np.append(0.0, covered[last]), np.append(0.0, levels[last]))
    return _quantiles(pooled, weights, wanted + (level - wanted) * (n - 1) / n)


def _covered_left_out(
    scores: Sequence[np.ndarray],
    shares: Sequence[np.ndarray],
    factors: Float[np.ndarray, " n_factors"],
    levels: Float[np.ndarray, " n_levels"],
) -> Float[np.ndarray, " n_levels"]:
    """Share of a mesh below the quantile of all others, mean over the meshes, for each level; among given factors."""
    inside = np.stack([_share_below(*part, factors) for part in zip(scores, shares, strict=True)])
    others = (inside.sum(0) - inside) / (len(inside) - 1)
    index = [np.searchsorted(row, levels * (1 - 1e-9)) for row in others]
    return np.mean([row[np.minimum(k, len(row) - 1)] for row, k in zip(inside, index, strict=True)], axis=0)


def _share_below(score: np.ndarray, share: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Share of a mesh whose score is at most each factor."""
    order = np.argsort(score, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(share[order])])
    return (total / total[-1])[np.searchsorted(score[order], factors, side="right")]


def _quantiles(scores: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> Float[np.ndarray, " n_levels"]:
    """The smallest score with at least so much of the weight at or below it."""
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order])
    index = np.searchsorted(share / share[-1], levels * (1 - 1e-9), side="left")
    return scores[order][np.minimum(index, len(scores) - 1)]
