"""Out of range: how far a case is from what the operator was trained on, with a stated rate of false alarms.

Two signs, each in units of its usual size on the training meshes: the spread of the samples, and the Mahalanobis
distance of the features from which the coarse scales are decoded (Lee et al. 2018, A simple unified framework for
detecting out-of-distribution samples). The score of a mesh is the larger of the two root mean squares. The threshold is
a conformal quantile over calibration meshes: a mesh like those is flagged with at most the stated probability.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gno.graph import MeshData
from gno.mesh import Mesh
from gno.nn import Output
from gno.train.checkpoint import load_tensors, save_tensors
from gno.train.sources import mesh_of
from gno.uq.features import with_features
from gno.uq.sampler import Sampler

# Share of the mean variance of the features that is added to each: directions that never varied in training.
SHRINKAGE = 1e-2


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Features of one scale on the training meshes.

    Args:
        mean: (width,). whiten: L⁻ᵀ of the covariance LLᵀ, so that the distance is ``|(x − mean) whiten|``.
    """

    mean: Float[Tensor, " width"]
    whiten: Float[Tensor, "width width"]

    @staticmethod
    def fit(features: Sequence[Float[Tensor, "n width"]], masses: Sequence[Float[Tensor, " n"]]) -> Gaussian:
        """Weighted mean and covariance, every mesh counting the same."""
        x = torch.cat(list(features)).double()
        w = torch.cat([m.double() / m.double().sum() for m in masses])[:, None] / len(masses)
        mean = (w * x).sum(0)
        covariance = ((x - mean) * w).T @ (x - mean)
        size = covariance.diagonal().mean().clamp_min(1e-30)
        covariance = covariance + SHRINKAGE * size * torch.eye(len(mean), dtype=torch.float64, device=mean.device)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        return Gaussian(mean, whiten)

    def square(self, features: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
        """Squared Mahalanobis distance over the width: about 1 where the training meshes lie."""
        return ((features.double() - self.mean) @ self.whiten).square().mean(1)


@dataclasses.dataclass(frozen=True)
class Novelty:
    """How new a mesh is.

    Args:
        score: of the mesh, in units of the threshold. flag: whether it is above 1.
        distance, disagreement: at the nodes, 1 being usual on the training meshes: distance of the features, and spread
            of the samples.
    """

    score: float
    flag: bool
    distance: Float[np.ndarray, " n_nodes"]
    disagreement: Float[np.ndarray, " n_nodes"]


@dataclasses.dataclass(frozen=True)
class Detector:
    """Says whether a mesh is out of range.

    Args:
        sampler: what predicts.
        gaussians: of the features of each coarse scale (of the mesh, if it is the only one).
        usual_distance, usual_spread: root mean squares over the training meshes.
        threshold: of the score. false_alarms: rate that it stands for.
    """

    sampler: Sampler
    gaussians: tuple[Gaussian, ...]
    usual_distance: float
    usual_spread: float
    threshold: float
    false_alarms: float

    @classmethod
    def fit(
        cls,
        sampler: Sampler,
        training: Iterable[Mesh | str | Path],
        calibration: Iterable[Mesh | str | Path],
        *,
        false_alarms: float = 0.05,
    ) -> Detector:
        """What is usual from the training meshes, the threshold from others like them; targets are not needed.

        Args:
            sampler: what predicts; without spread (a single operator) only the features count.
            training: meshes the sampler was trained on.
            calibration: meshes it was not trained on. At least ``1/false_alarms − 1`` of them.
            false_alarms: largest probability that a mesh like these is flagged.

        Raises:
            ValueError: no mesh, or too few for this rate.
        """
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms: expected a rate between 0 and 1, got {false_alarms}")
        samples = [sampler.sample(mesh_of(source)) for source in training]
        if not samples:
            raise ValueError("training meshes: expected at least one, got none")
        seen = [_look(sampler, sample) for sample in samples]
        gaussians = tuple(
            Gaussian.fit([look.features[s] for look in seen], [look.output.mass[s] for look in seen])
            for s in _scales(seen[0].output)
        )
        spread = math.sqrt(np.mean([float(look.mass @ look.spread) for look in seen]))
        distance = math.sqrt(np.mean([float(look.mass @ _distance(look, gaussians)) for look in seen]))
        usual = cls(sampler, gaussians, distance, spread or 1.0, 1.0, false_alarms)
        scores = np.sort([usual(source).score for source in calibration])
        return dataclasses.replace(usual, threshold=_threshold(scores, false_alarms))

    def __call__(self, mesh: Mesh | str | Path) -> Novelty:
        """Assess one mesh or file."""
        look = _look(self.sampler, self.sampler.sample(mesh_of(mesh)))
        distance = _distance(look, self.gaussians).sqrt() / self.usual_distance
        disagreement = look.spread.sqrt() / self.usual_spread
        score = max(math.sqrt(float(look.mass @ x.square())) for x in (distance, disagreement)) / self.threshold
        return Novelty(score, score > 1, distance.cpu().numpy(), disagreement.cpu().numpy())

    def save(self, path: str | Path) -> None:
        """Keep everything but the sampler."""
        tensors = {
            f"{name}.{k}": getattr(gaussian, name)
            for k, gaussian in enumerate(self.gaussians)
            for name in ("mean", "whiten")
        }
        names = ("usual_distance", "usual_spread", "threshold", "false_alarms")
        save_tensors(path, tensors, {"n_scales": len(self.gaussians), **{n: getattr(self, n) for n in names}})

    @classmethod
    def load(cls, path: str | Path, sampler: Sampler) -> Detector:
        """Read what :meth:`save` wrote, for the same sampler.

        Raises:
            ValueError: no such file, or not one of ours.
        """
        tensors, document = load_tensors(path)
        if "n_scales" not in document:
            raise ValueError(f"{path}: expected a detector, got keys {', '.join(sorted(document))}")
        n_scales = document.pop("n_scales")
        gaussians = (Gaussian(tensors[f"mean.{k}"], tensors[f"whiten.{k}"]) for k in range(n_scales))
        return cls(sampler, tuple(gaussians), **document)


@dataclasses.dataclass(frozen=True)
class _Look:
    """What the detector looks at in one mesh: masses, features, and normalised variance of the samples."""

    output: Output
    features: list[Tensor]
    mass: Float[Tensor, " n_nodes"]
    spread: Float[Tensor, " n_nodes"]


@torch.no_grad()
def _look(sampler: Sampler, sample: MeshData) -> _Look:
    batch = sampler.batch(sample)
    output, features = with_features(sampler.operator.model.eval(), batch)
    samples = torch.stack([o.fields[0] for o in sampler.outputs(batch)]).double()
    spread = samples.var(0).mean(1) if len(samples) > 1 else torch.zeros_like(samples[0, :, 0])
    mass = batch.mass_0.double()
    return _Look(output, features, mass / mass.sum(), spread)


def _distance(look: _Look, gaussians: Sequence[Gaussian]) -> Float[Tensor, " n_nodes"]:
    """Mean over the scales of the squared distances, brought to the nodes."""
    total = torch.zeros_like(look.mass)
    for s, gaussian in zip(_scales(look.output), gaussians, strict=True):
        square = gaussian.square(look.features[s])[:, None]
        for transfer in look.output.transfers[:s][::-1]:
            square = transfer.prolong(square.to(transfer.weights.dtype)).double()
        total = total + square[:, 0] / len(gaussians)
    return total


def _scales(output: Output) -> range:
    """The coarse scales; the mesh itself where there is no other."""
    n_levels = len(output.fields)
    return range(1, n_levels) if n_levels > 1 else range(1)


def _threshold(scores: Float[np.ndarray, " n"], false_alarms: float) -> float:
    """The smallest score of a calibration mesh that a new one exceeds with at most this probability."""
    n = len(scores)
    rank = math.ceil((1 - false_alarms) * (n + 1) - 1e-9)
    if rank > n:
        needed = math.ceil(1 / false_alarms - 1 - 1e-9)
        raise ValueError(f"false_alarms {false_alarms:g}: expected at least {needed} calibration meshes, got {n}")
    return float(scores[rank - 1])
