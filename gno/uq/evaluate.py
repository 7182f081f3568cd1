"""Evaluation and calibration of a sampler on meshes whose fields are known."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh import Mesh
from gno.train.normalise import columns_of
from gno.train.run import mesh_of
from gno.uncertain import Uncertain
from gno.uq.conformal import Conformal
from gno.uq.metrics import COVERAGES, Reliability, Scores, average, flatten, pearson, reliability, spearman
from gno.uq.sampler import Level, Sampler

# Floor of the standard deviation in calibration, in usual sizes of the field.
FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Known:
    """One field on one scale, with the truth, for each of several meshes."""

    quantities: list[Uncertain]
    truths: list[np.ndarray]
    masses: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class AcrossMeshes:
    """Correlation of RMS standard deviation and RMS error over meshes: does it know which case it gets wrong?"""

    pearson: float
    spearman: float


@dataclasses.dataclass(frozen=True)
class CalibratedScores:
    """After conformal calibration: by nominal coverage, for those that the calibration meshes allow.

    Args:
        coverage: share of the mass inside. width: mean width. simultaneous: share of meshes inside as a whole.
    """

    coverage: dict[float, float]
    width: dict[float, float]
    simultaneous: dict[float, float]


@dataclasses.dataclass(frozen=True)
class UncertaintyEvaluation:
    """Metrics by field, as ``u`` on the mesh and ``u@1`` on level 1; every mesh counts the same, nodes by mass."""

    n_meshes: int
    scores: dict[str, Scores]
    reliability: dict[str, Reliability]
    across: dict[str, AcrossMeshes]
    calibrated: dict[str, CalibratedScores]

    def to_json(self) -> str:
        """Everything but the diagrams, for machines."""
        document: dict[str, Any] = {"meshes": self.n_meshes}
        for part in ("scores", "across", "calibrated"):
            document[part] = {name: dataclasses.asdict(value) for name, value in getattr(self, part).items()}
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        width = max(5, *(len(name) for name in self.scores))
        columns = ("error", "sharpness", "CRPS", "NLL", "ECE", *(f"in {c:.0%}" for c in COVERAGES), "ρ", "AUSE")
        lines = [f"{'field':{width}} " + " ".join(f"{name:>9}" for name in columns)]
        for name, s in self.scores.items():
            numbers = (s.error, s.sharpness, s.crps, s.nll, s.ece, *s.coverage.values(), s.spearman, s.ause)
            lines.append(f"{name:{width}} " + " ".join(f"{number:9.3g}" for number in numbers))
        for name, c in self.calibrated.items():
            inside = ", ".join(f"{share:.1%} in {nominal:.0%}" for nominal, share in c.coverage.items())
            whole = ", ".join(f"{share:.1%} in {nominal:.0%}" for nominal, share in c.simultaneous.items())
            lines.append(f"{name:{width}} calibrated: {inside or 'too few meshes'}; whole meshes: {whole or 'none'}")
        return "\n".join(lines)


def evaluate(
    sampler: Sampler,
    meshes: Iterable[Mesh | str | Path],
    *,
    calibration: Mapping[str, Conformal] | None = None,
) -> UncertaintyEvaluation:
    """All metrics against the fields in the meshes or files.

    Args:
        sampler: what predicts.
        meshes: with all targets.
        calibration: of the same sampler, on other meshes.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    calibration = calibration or {}
    scores, diagrams, across, calibrated, n_meshes = {}, {}, {}, {}, 0
    for name, known in known_fields(sampler, meshes).items():
        n_meshes = len(known.quantities)
        together = Uncertain.concatenate(known.quantities)
        truth = np.concatenate(known.truths)
        mass = np.concatenate([m / m.sum() for m in known.masses])
        scores[name] = Scores.of(together, truth, mass)
        flat = flatten(together, truth, mass)
        diagrams[name] = reliability(flat.truth, flat.mean, flat.std, flat.weight)
        across[name] = _across(known)
        if name in calibration:
            calibrated[name] = _calibrated(calibration[name], known)
    return UncertaintyEvaluation(n_meshes, scores, diagrams, across, calibrated)


def calibrate(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> dict[str, Conformal]:
    """Conformal calibration of every field on every scale, by the names of :class:`UncertaintyEvaluation`.

    Args:
        sampler: what predicts.
        meshes: with all targets; neither trained on nor used to choose the weights.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    blueprint = sampler.operator.blueprint
    usual = {f.name: float(blueprint.normalisation.targets.rms[c][0]) for c, f in columns_of(blueprint.spec.targets)}
    return {
        name: Conformal.fit(known.quantities, known.truths, known.masses, floor=FLOOR * usual[name.partition("@")[0]])
        for name, known in known_fields(sampler, meshes).items()
    }


def known_fields(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> dict[str, Known]:
    """Predictions and truths by field and scale.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    found: dict[str, Known] = {}
    for levels in all_levels(sampler, meshes):
        for s, level in enumerate(levels):
            for columns, field in columns_of(sampler.operator.blueprint.spec.targets):
                known = found.setdefault(f"{field.name}@{s}" if s else field.name, Known([], [], []))
                assert level.truth is not None  # all_levels has raised otherwise
                known.quantities.append(level.quantity[:, columns])
                known.truths.append(level.truth[:, columns])
                known.masses.append(level.mass)
    return found


def all_levels(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> Iterator[list[Level]]:
    """Samples and truth on every scale, mesh after mesh."""
    spec, mesh = sampler.operator.blueprint.spec, None
    for source in meshes:
        mesh = mesh_of(source)
        sample = sampler.sample(mesh)
        if sample.y is None:
            for field in spec.targets:
                field.values(mesh)  # raises, and says what is there
        yield sampler.levels(sample)
    if mesh is None:
        raise ValueError("meshes: expected at least one, got none")


def _across(known: Known) -> AcrossMeshes:
    rms = np.array(
        [
            [math.sqrt(average(values, flat.weight)) for values in (flat.std**2, (flat.truth - flat.mean) ** 2)]
            for flat in (flatten(*parts) for parts in zip(known.quantities, known.truths, known.masses, strict=True))
        ]
    )
    return AcrossMeshes(*(f(rms[:, 0], rms[:, 1], np.ones(len(rms))) for f in (pearson, spearman)))


def _calibrated(conformal: Conformal, known: Known) -> CalibratedScores:
    possible = [c for c in COVERAGES if c * (conformal.n_meshes + 1) <= conformal.n_meshes]
    coverage, width, whole = {}, {}, {}
    for nominal in possible:
        rows = [_inside(conformal, nominal, *p) for p in zip(known.quantities, known.truths, known.masses, strict=True)]
        coverage[nominal], width[nominal], whole[nominal] = (float(np.mean(x)) for x in zip(*rows, strict=True))
    return CalibratedScores(coverage, width, whole)


def _inside(
    conformal: Conformal, nominal: float, quantity: Uncertain, truth: np.ndarray, mass: np.ndarray
) -> Sequence[float]:
    """Share of the mass inside, mean width, and whether all of it is inside the simultaneous interval."""
    weight = np.repeat(mass / mass.sum() / truth.shape[1], truth.shape[1])
    low, high = conformal.interval(quantity, nominal)
    inside = ((truth >= low) & (truth <= high)).ravel()
    low_all, high_all = conformal.interval(quantity, nominal, simultaneous=True)
    whole = ((truth >= low_all) & (truth <= high_all))[mass > 0].all()
    return float(inside @ weight), float((high - low).ravel() @ weight), float(whole)
