"""Out of range: how far a case is from what the operator was trained on, with a stated rate of false alarms.

Signs, each in units of its usual size on the training meshes: the spread of the samples; the Mahalanobis distance of
the features from which the coarse scales are decoded (Lee et al. 2018, A simple unified framework for detecting
out-of-distribution samples); for the mesh as a whole the distance to its nearest training meshes, by inputs and by
geometry (mean and spread over the nodes) and by shape (size, proportions, boundary and its pieces), which see a new
load, material or outline that the features of a trained operator no longer tell apart; and, where the case has
[physics], the residual of the mean prediction, as the correction of the field that a multilevel preconditioner makes
of it. The score of a mesh is the largest of the root mean squares. The threshold is a conformal quantile over
calibration meshes: a mesh like those is flagged with at most the stated probability.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch

from gno.mesh import Mesh
from gno.nn import Output
from gno.physics.multilevel import correction
from gno.train.checkpoint import load_tensors, save_tensors
from gno.train.physics import collate, unknown_columns, with_physics
from gno.uq.features import with_features
from gno.uq.whole import Neighbours, mean_and_spread, shape_of

if TYPE_CHECKING:
    from gno.uq.sampler import Answered, Sampler

# How far a node, and under the same name the whole mesh, is out of range: above 1 it is. With the name of a sign behind
# it, what this sign alone would say.
NOVELTY = "novelty"
# The signs, in words.
SIGNS = {
    "inputs": "its inputs",
    "geometry": "its geometry",
    "shape": "its shape",
    "distance": "what the operator makes of it",
    "disagreement": "the spread of the samples",
    "residual": "the residual of the equation",
}
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
        signs: what each sign alone would score: ``inputs``, ``geometry`` and ``shape`` of the mesh as a whole,
            ``distance``, ``disagreement`` and ``residual`` by their root mean square.
        distance, disagreement, residual: at the nodes, 1 being usual on the training meshes: distance of the features,
            spread of the samples, and what the equation wants changed; none without [physics].
        map: the largest of all signs at each node, in units of the threshold.
    """

    score: float
    flag: bool
    signs: Mapping[str, float]
    distance: Float[np.ndarray, " n_nodes"]
    disagreement: Float[np.ndarray, " n_nodes"]
    residual: Float[np.ndarray, " n_nodes"] | None
    map: Float[np.ndarray, " n_nodes"]


def cause(signs: Mapping[str, float]) -> str:
    """The largest sign, in words."""
    return SIGNS[max(signs, key=lambda name: signs[name])]


def with_novelty(mesh: Mesh, found: Novelty | None) -> Mesh:
    """The mesh with its map ``novelty``, its score and those of the signs; zeros if nothing is known."""
    zero = np.zeros(mesh.n_nodes)
    scores = (
        {NOVELTY: found.score, **{f"{NOVELTY}_{k}": x for k, x in found.signs.items()}} if found else {NOVELTY: 0.0}
    )
    wholes = {name: np.array(score) for name, score in scores.items()}
    mesh = mesh.with_point_fields(**{NOVELTY: found.map if found else zero})
    return mesh.replace(global_fields={**mesh.global_fields, **wholes})


@dataclasses.dataclass(frozen=True)
class Detector:
    """Says whether a mesh is out of range.

    Args:
        sampler: what predicts.
        gaussians: of the features of each coarse scale (of the mesh, if it is the only one).
        wholes: the training meshes as wholes, by ``inputs``, ``geometry`` and ``shape``.
        usual: of each sign at the nodes, its root mean square over the training meshes.
        threshold: of the score. false_alarms: rate that it stands for.
    """

    sampler: Sampler
    gaussians: tuple[Gaussian, ...]
    wholes: Mapping[str, Neighbours]
    usual: Mapping[str, float]
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
            sampler: what predicts; without spread (a single operator) only the other signs count.
            training: meshes the sampler was trained on.
            calibration: meshes it was not trained on. At least ``1/false_alarms − 1`` of them.
            false_alarms: largest probability that a mesh like these is flagged.

        Raises:
            ValueError: no mesh, or too few for this rate.
        """
        bare = cls.of(sampler, [look_at(sampler, sampler.answer(source)) for source in training])
        return bare.with_threshold([bare(source).score for source in calibration], false_alarms)

    @classmethod
    def of(cls, sampler: Sampler, seen: Sequence[Look], owner: Sequence[int] | None = None) -> Detector:
        """What is usual, without a threshold yet.

        Args:
            seen: looks at training meshes.
            owner: of each look, number of the series that it belongs to; by default each stands for itself.

        Raises:
            ValueError: no look.
        """
        if not seen:
            raise ValueError("training meshes: expected at least one, got none")
        gaussians = tuple(
            Gaussian.fit([look.features[s] for look in seen], [look.output.mass[s] for look in seen])
            for s in _scales(seen[0].output)
        )
        wholes = {name: Neighbours.fit([look.whole[name] for look in seen], owner) for name in seen[0].whole}
        squares = [look.at_nodes(gaussians) for look in seen]
        usual = {
            name: math.sqrt(np.mean([float(look.mass @ q[name]) for look, q in zip(seen, squares, strict=True)])) or 1.0
            for name in squares[0]
        }
        return cls(sampler, gaussians, wholes, usual, 1.0, 1.0)

    def with_threshold(self, scores: Sequence[float], false_alarms: float) -> Detector:
        """With the threshold that the scores of calibration cases give for a rate of false alarms.

        Raises:
            ValueError: a rate outside (0, 1), or too few scores for it.
        """
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms: expected a rate between 0 and 1, got {false_alarms}")
        threshold = self.threshold * _threshold(np.sort(scores), false_alarms)
        return dataclasses.replace(self, threshold=threshold, false_alarms=false_alarms)

    def __call__(self, mesh: Mesh | str | Path) -> Novelty:
        """Assess one mesh or file."""
        return self.assess(self.sampler.answer(mesh))

    def assess(self, answered: Answered) -> Novelty:
        """Assess a mesh that the sampler has answered."""
        return self.judge(self.squares(look_at(self.sampler, answered)))

    def squares(self, look: Look) -> Squares:
        """What a look shows, in units of what is usual."""
        at_nodes = look.at_nodes(self.gaussians)
        found = {name: square / self.usual[name] ** 2 for name, square in at_nodes.items()}
        return Squares(look.mass, found, {name: known.square(look.whole[name]) for name, known in self.wholes.items()})

    def judge(self, squares: Squares) -> Novelty:
        """Compare with the threshold."""
        found, mass = {name: square.sqrt() for name, square in squares.at_nodes.items()}, squares.mass
        whole = [square.sqrt().expand_as(mass) for square in squares.whole.values()]
        everywhere = torch.stack([*found.values(), *whole])
        scores = (everywhere.square() @ mass).sqrt() / self.threshold
        signs = dict(zip((*found, *squares.whole), scores.tolist(), strict=True))
        score = max(signs.values())
        maps = {name: values.cpu().numpy() for name, values in found.items()}
        worst = (everywhere.amax(0) / self.threshold).cpu().numpy()
        return Novelty(score, score > 1, signs, maps["distance"], maps["disagreement"], maps.get("residual"), worst)

    def save(self, path: str | Path) -> None:
        """Keep everything but the sampler."""
        tensors = {
            f"{name}.{k}": value
            for k, part in (*enumerate(self.gaussians), *self.wholes.items())
            for name, value in vars(part).items()
            if isinstance(value, Tensor)
        }
        document = {name: getattr(self, name) for name in ("usual", "threshold", "false_alarms")}
        wholes = {name: whole.usual for name, whole in self.wholes.items()}
        save_tensors(path, tensors, {**document, "n_scales": len(self.gaussians), "wholes": wholes})

    @classmethod
    def load(cls, path: str | Path, sampler: Sampler) -> Detector:
        """Read what :meth:`save` wrote, for the same sampler.

        Raises:
            ValueError: no such file, or not one of ours.
        """
        tensors, document = load_tensors(path)
        if not isinstance(document.get("wholes"), dict):
            got = f"keys {', '.join(sorted(document))}"
            raise ValueError(f"{path}: expected a detector of this version, got {got}; `gno calibrate` makes it anew")
        gaussians = [Gaussian(tensors[f"mean.{k}"], tensors[f"whiten.{k}"]) for k in range(document["n_scales"])]
        wholes = {
            name: Neighbours(tensors[f"rows.{name}"], tensors[f"spread.{name}"], usual)
            for name, usual in document["wholes"].items()
        }
        rest = (document[name] for name in ("usual", "threshold", "false_alarms"))
        return cls(sampler, tuple(gaussians), wholes, *rest)


@dataclasses.dataclass(frozen=True)
class Squares:
    """Squares of all signs of one mesh, 1 being usual: at its nodes, and of it as a whole; and shares of mass."""

    mass: Float[Tensor, " n_nodes"]
    at_nodes: Mapping[str, Float[Tensor, " n_nodes"]]
    whole: Mapping[str, Float[Tensor, 1]]

    def disagreeing(self, square: Float[Tensor, " n_nodes"], usual: Mapping[str, float]) -> Squares:
        """With a spread of the samples that is known only now."""
        own = {"disagreement": square.to(self.mass) / usual["disagreement"] ** 2}
        return dataclasses.replace(self, at_nodes={**self.at_nodes, **own})


@dataclasses.dataclass(frozen=True)
class Look:
    """What the detector looks at in one mesh: features, it as a whole, and at the nodes the squares of other signs."""

    output: Output
    features: list[Tensor]
    whole: Mapping[str, Float[Tensor, "1 width"]]
    mass: Float[Tensor, " n_nodes"]
    disagreement: Float[Tensor, " n_nodes"]
    residual: Float[Tensor, " n_nodes"] | None

    @staticmethod
    def of(
        batch: Batch,
        output: Output,
        features: list[Tensor],
        shape: Float[Tensor, "1 width"],
        disagreement: Float[Tensor, " n_nodes"],
        residual: Float[Tensor, " n_nodes"] | None = None,
    ) -> Look:
        """From what the operator was given and made of it."""
        mass = batch.mass_0.double() / batch.mass_0.double().sum()
        known = {"inputs": batch.x, "geometry": batch.geometry}
        whole = {name: mean_and_spread(values.double(), mass) for name, values in known.items() if values.shape[1]}
        whole["shape"] = shape.to(mass.device)
        return Look(output, features, whole, mass, disagreement, residual)

    def at_nodes(self, gaussians: Sequence[Gaussian]) -> dict[str, Float[Tensor, " n_nodes"]]:
        """Squares of the signs that differ from node to node, by name."""
        found = {"distance": _distance(self, gaussians), "disagreement": self.disagreement, "residual": self.residual}
        return {name: square for name, square in found.items() if square is not None}


@torch.no_grad()
def look_at(sampler: Sampler, answered: Answered) -> Look:
    """What the detector sees of a mesh that the sampler has answered."""
    output, features = with_features(sampler.operator.model.eval(), answered.batch)
    samples = torch.stack([o.fields[0] for o in answered.outputs]).double()
    spread = samples.var(0).mean(1) if len(samples) > 1 else torch.zeros_like(samples[0, :, 0])
    residual = _residual(sampler, answered, samples.mean(0)) if sampler.operator.blueprint.case.physics else None
    shape = shape_of(answered.mesh, sampler.operator.blueprint.spec)
    return Look.of(answered.batch, output, features, shape, spread, residual)


def _residual(
    sampler: Sampler, answered: Answered, normalised: Float[Tensor, "n_nodes n_targets"]
) -> Float[Tensor, " n_nodes"]:
    """Square of the correction B⁻¹r that the equation asks for, in normalised units, mean over the unknowns."""
    blueprint = sampler.operator.blueprint
    case, spec, scale = blueprint.case, blueprint.spec, blueprint.normalisation.targets
    bare = copy.copy(answered.sample)
    bare.y = None  # nothing is known of the answer, and if it is, it does not count
    batch = collate([with_physics(bare, answered.mesh, case, spec)])
    columns = unknown_columns(case, spec)
    problem = batch.physics.problem
    u = problem.lift(scale.decode(normalised.cpu().clone())[:, columns])
    wanted = correction(batch.physics, problem.reduce(problem.residual(u)), batch) / scale.std[columns]
    return torch.where(problem.fixed, 0.0, wanted).square().mean(1).to(normalised.device)


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
