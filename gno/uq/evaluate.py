"""Evaluation and calibration of a sampler on meshes whose fields are known."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh import Mesh, node_mass
from gno.train.normalise import columns_of
from gno.uncertain import Uncertain
from gno.uq.conformal import Conformal
from gno.uq.metrics import COVERAGES, Reliability, Scores, average, flatten, pearson, reliability, spearman
from gno.uq.sampler import Answered, Sampler
from gno.uq.scales import ScaleVariance, scale_variances
from gno.uq.spread import Spread, Widened, as_trained

# Floor of the standard deviation in calibration, in usual sizes of the field.
FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Known:
    """One field on one scale, with the truth, for each of several meshes."""

    quantities: list[Uncertain]
    truths: list[np.ndarray]
    masses: list[np.ndarray]

    @staticmethod
    def of(parts: Iterable[Known]) -> Known:
        """Several together, such as one field on all scales."""
        some = [(part.quantities, part.truths, part.masses) for part in parts]
        return Known(*(list(itertools.chain(*column)) for column in zip(*some, strict=True)))

    def spread(self, floor: float) -> Spread:
        """By how much it is to be widened."""
        return Spread.fit(self.quantities, self.truths, self.masses, floor=floor)

    def widened(self, spread: Spread) -> Known:
        """The same with another spread."""
        return Known([spread.widen(quantity) for quantity in self.quantities], self.truths, self.masses)

    def conformal(self, floor: float) -> Conformal:
        """Intervals from it."""
        return Conformal.fit(self.quantities, self.truths, self.masses, floor=floor)


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
class Judged:
    """All that is said of one field on one scale, or after one step; ``calibrated`` where it was."""

    scores: Scores
    reliability: Reliability
    across: AcrossMeshes
    calibrated: CalibratedScores | None

    @staticmethod
    def of(known: Known, conformal: Conformal | None) -> Judged:
        """Every mesh counts the same, nodes by mass."""
        together = Uncertain.concatenate(known.quantities)
        truth = np.concatenate(known.truths)
        mass = np.concatenate([m / m.sum() for m in known.masses])
        flat = flatten(together, truth, mass)
        return Judged(
            Scores.of(together, truth, mass),
            reliability(flat.truth, flat.mean, flat.std, flat.weight),
            _across(known),
            _calibrated(conformal, known) if conformal else None,
        )


@dataclasses.dataclass(frozen=True)
class UncertaintyEvaluation:
    """Metrics by field, as ``u`` on the mesh and ``u@1`` on level 1; every mesh counts the same, nodes by mass.

    ``scales`` follows the field of the mesh through averaging, by field.
    """

    n_meshes: int
    scores: dict[str, Scores]
    reliability: dict[str, Reliability]
    across: dict[str, AcrossMeshes]
    calibrated: dict[str, CalibratedScores]
    scales: dict[str, list[ScaleVariance]]

    def to_json(self) -> str:
        """Everything but the diagrams, for machines."""
        document: dict[str, Any] = {"meshes": self.n_meshes}
        for part in ("scores", "across", "calibrated"):
            document[part] = {name: dataclasses.asdict(value) for name, value in getattr(self, part).items()}
        document["scales"] = {name: [dataclasses.asdict(x) for x in scales] for name, scales in self.scales.items()}
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        parts = score_tables("field", self.scores, self.calibrated)
        whole = {name: [x.simultaneous.get(c) for c in COVERAGES] for name, x in self.calibrated.items()}
        if whole:
            title = "meshes wholly inside bands of"
            parts.append(text_table(title, [f"{c:.0%}" for c in COVERAGES], whole, "{:.1%}"))
        if self.n_meshes > 2:  # of two it is one or minus one
            across = {name: (x.pearson, x.spearman) for name, x in self.across.items()}
            parts.append(text_table("std against error, over meshes", ("Pearson", "Spearman"), across))
        parts += [_scale_table(name, scales) for name, scales in self.scales.items()]
        return "\n\n".join(parts)


def score_tables(title: str, scores: Mapping[str, Scores], calibrated: Mapping[str, CalibratedScores]) -> list[str]:
    """Scores of several fields as text, then how often their intervals cover and how wide they are."""
    columns = ("error", "sharpness", "CRPS", "NLL", "ECE", "Pearson", "Spearman", "AUSE")
    rows = {
        name: (x.error, x.sharpness, x.crps, x.nll, x.ece, x.pearson, x.spearman, x.ause) for name, x in scores.items()
    }
    intervals = {f"{name}, as Gaussian": (x.coverage, x.width) for name, x in scores.items()}
    intervals |= {f"{name}, calibrated": (x.coverage, x.width) for name, x in calibrated.items()}
    covered = {name: [x.get(c) for c in COVERAGES] for name, (x, _) in intervals.items()}
    wide = {name: [x.get(c) for c in COVERAGES] for name, (_, x) in intervals.items()}
    nominal = [f"{c:.0%}" for c in COVERAGES]
    return [
        text_table(title, columns, rows),
        text_table("share of the truth in intervals of", nominal, covered, "{:.1%}"),
        text_table("mean width of intervals of", nominal, wide),
    ]


def text_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float | None]], form: str = "{:.3g}"
) -> str:
    """Numbers by name, in columns."""
    width = max(len(title), *(len(name) for name in rows))
    lines = [f"{title:{width}} " + " ".join(f"{name:>9}" for name in columns)]
    for name, values in rows.items():
        cells = ("-" if value is None else form.format(value) for value in values)
        lines.append(f"{name:{width}} " + " ".join(f"{cell:>9}" for cell in cells))
    return "\n".join(lines)


def _scale_table(field: str, scales: Sequence[ScaleVariance]) -> str:
    """Root mean squares on each scale, and shares of the variance that are lost between it and the next."""
    columns = ("nodes", "varies by", "predicted", "lost", "lost pred.", "error", "std")
    rows: dict[str, list[float | None]] = {}
    for s, scale in enumerate(scales):
        shares: list[float | None] = [None, None]
        if s + 1 < len(scales) and scales[0].reference:
            lost = scale.minus(scales[s + 1])
            shares = [lost.reference / scales[0].reference, lost.samples / scales[0].reference]
        rows[f"{field}, scale {s}" if s else f"{field}, mesh"] = [
            scale.nodes,
            math.sqrt(scale.reference),
            math.sqrt(scale.samples),
            *shares,
            math.sqrt(scale.error),
            math.sqrt(scale.doubt),
        ]
    return text_table("averaged to", columns, rows, "{:.4g}")


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
    through: dict[str, list[list[ScaleVariance]]] = {}

    def followed() -> Iterator[Answered]:
        for answered in sampler.answers_with_truth(meshes):
            for name, scales in scale_variances(sampler, answered).items():
                through.setdefault(name, []).append(scales)
            yield answered

    fields = _known(sampler, followed())
    judged = {name: Judged.of(known, calibration.get(name)) for name, known in fields.items()}
    scales = {
        name: [ScaleVariance.average(parts) for parts in zip(*rows, strict=True)] for name, rows in through.items()
    }
    return UncertaintyEvaluation(
        n_meshes=len(next(iter(fields.values())).quantities),
        scores={name: x.scores for name, x in judged.items()},
        reliability={name: x.reliability for name, x in judged.items()},
        across={name: x.across for name, x in judged.items()},
        calibrated={name: x.calibrated for name, x in judged.items() if x.calibrated},
        scales=scales,
    )


def calibrate(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> dict[str, Conformal]:
    """Conformal calibration of every field on every scale, by the names of :class:`UncertaintyEvaluation`.

    Args:
        sampler: what predicts.
        meshes: with all targets; neither trained on nor used to choose the weights.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    return _intervals(known_fields(sampler, meshes), floors_of(sampler))


def calibrate_derived(
    sampler: Sampler, meshes: Iterable[Mesh | str | Path], function: Callable[[Mesh], np.ndarray]
) -> Conformal:
    """Conformal calibration of what follows from the fields, for ``conformal.interval(prediction.map(function), 0.9)``.

    Values at the nodes count by mass, any others the same.

    Args:
        sampler: what predicts, widened or not: the intervals are for predictions of the same.
        meshes: with all targets; neither trained on nor used to choose the weights.
        function: as for :meth:`gno.train.Prediction.map`, to a number or several of one unit.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    parts = []
    for answered in sampler.answers_with_truth(meshes):
        known, truth = sampler.prediction(answered).map(function), np.asarray(function(answered.mesh), dtype=np.float64)
        mass = node_mass(answered.mesh) if truth.shape[:1] == (answered.mesh.n_nodes,) else np.ones(len(truth.flat))
        parts.append((known if truth.ndim > 1 else known.reshape(-1), np.atleast_1d(truth), mass))
    quantities, truths, masses = (list(column) for column in zip(*parts, strict=True))
    usual = math.sqrt(
        np.mean([np.average(y**2, weights=m, axis=0).mean() for y, m in zip(truths, masses, strict=True)])
    )
    return Conformal.fit(quantities, truths, masses, floor=FLOOR * (usual or 1.0))


def widen(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> Sampler:
    """The sampler with the spread that held-out meshes find honest, :class:`gno.uq.Widened`; none without doubt.

    Args:
        sampler: what predicts.
        meshes: with all targets; neither trained on nor used to choose the weights.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    return widen_and_calibrate(sampler, meshes)[0]


def widen_and_calibrate(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> tuple[Sampler, dict[str, Conformal]]:
    """The same, and :func:`calibrate` of what it gives, from one prediction of each mesh."""
    sampler, floors = as_trained(sampler), floors_of(sampler)
    known = known_fields(Widened(sampler, {}), meshes)
    scales = {n: Known.of(part for name, part in known.items() if _field(name, floors) == n) for n in floors}
    spreads = {n: part.spread(floors[n]) for n, part in scales.items() if part.quantities[0].has_doubt}
    if not spreads:
        return sampler, _intervals(known, floors)
    wide = {name: part.widened(spreads[_field(name, floors)]) for name, part in known.items()}
    return Widened(sampler, spreads), _intervals(wide, floors)


def _intervals(known: Mapping[str, Known], floors: Mapping[str, float]) -> dict[str, Conformal]:
    return {name: part.conformal(floors[_field(name, floors)]) for name, part in known.items()}


def _field(name: str, fields: Iterable[str]) -> str:
    """The field of ``u@2``, its values on scale 2."""
    return name if name in fields else name.rpartition("@")[0]


def floors_of(sampler: Sampler) -> dict[str, float]:
    """The least standard deviation that counts, by field."""
    blueprint = sampler.operator.blueprint
    scale = blueprint.normalisation.targets
    return {f.name: FLOOR * float(scale.rms[columns][0]) for columns, f in columns_of(blueprint.spec.targets)}


def known_fields(sampler: Sampler, meshes: Iterable[Mesh | str | Path]) -> dict[str, Known]:
    """Predictions and truths by field and scale.

    Raises:
        ValueError: a mesh without a target, or no mesh at all.
    """
    return _known(sampler, sampler.answers_with_truth(meshes))


def _known(sampler: Sampler, answers: Iterable[Answered]) -> dict[str, Known]:
    found: dict[str, Known] = {}
    for answered in answers:
        for s, level in enumerate(sampler.levels_of(answered)):
            for columns, field in columns_of(sampler.operator.blueprint.spec.targets):
                known = found.setdefault(f"{field.name}@{s}" if s else field.name, Known([], [], []))
                assert level.truth is not None  # there would be no answer otherwise
                known.quantities.append(level.quantity[:, columns])
                known.truths.append(level.truth[:, columns])
                known.masses.append(level.mass)
    return found


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
