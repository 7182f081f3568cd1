"""Split-conformal calibration of fields: intervals that cover as often as they say, whatever the method behind them.

What is exchangeable is the mesh, not the node. So calibration meshes count as wholes, and the mesh to come takes part
with a score of infinity:

- pointwise: a node drawn by mass in a new mesh lies inside with at least the wanted probability. Scores of all nodes,
  each mesh with weight 1/(n + 1) (Lee, Barber & Willett 2023, Distribution-free inference with hierarchical data).
- simultaneous: all nodes of a new mesh lie inside at once with at least that probability. The largest score of each
  mesh (Diquigiovanni, Fontana & Vantini 2022, Conformal prediction bands for multivariate functional data).

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

# The distribution of pointwise scores is kept at this many levels or a few more, a multiple of the number of meshes:
# then coverages k/(n + 1) are met exactly, and others from above, by at most 1/2000.
N_KEPT = 2000
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Conformal:
    """Factors by which a standard deviation is multiplied, for any coverage; one field on one scale.

    Args:
        pointwise: quantiles k/n_kept, k = 1 … n_kept, of the scores of all nodes, every mesh counting the same.
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
        scores, weights = [], []
        for quantity, truth, mass in zip(quantities, truths, masses, strict=True):
            if np.shape(truth) != quantity.shape:
                raise ValueError(f"truth: expected the shape of the prediction {quantity.shape}, got {np.shape(truth)}")
            used = np.asarray(mass) > 0
            score = (np.abs(truth - quantity.mean) / (quantity.std + floor))[used].reshape(used.sum(), -1)
            scores.append(score.ravel())
            weights.append(np.repeat(np.asarray(mass)[used] / score.shape[1] / np.sum(mass), score.shape[1]))
        largest = np.sort([score.max() for score in scores])
        n_kept = len(largest) * math.ceil(N_KEPT / len(largest))
        kept = _quantiles(np.concatenate(scores), np.concatenate(weights), n_kept)
        return Conformal(kept, largest, float(floor))

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
        levels = self.largest if simultaneous else self.pointwise
        return float(levels[math.ceil(coverage * (n + 1) * len(levels) / n - 1e-9) - 1])

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
        raise ValueError(f"{path}: expected a calibration of format {_FORMAT}, got {document.get('format')}")
    return {
        name: Conformal(tensors[f"{name}/pointwise"].numpy(), tensors[f"{name}/largest"].numpy(), floor)
        for name, floor in document["floors"].items()
    }


def _quantiles(scores: np.ndarray, weights: np.ndarray, n_kept: int) -> Float[np.ndarray, " n_kept"]:
    """The smallest score with at least k/n_kept of the weight at or below it."""
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(weights[order])
    wanted = np.arange(1, n_kept + 1) / n_kept
    index = np.searchsorted(share / share[-1], wanted * (1 - 1e-12), side="left")
    return scores[order][np.minimum(index, len(scores) - 1)]
