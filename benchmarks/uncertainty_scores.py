"""What benchmarks/uncertainty.py measures of a sampler: calibration over many splits, correlations, deferral."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from gno.mesh import Mesh
from gno.uncertain import gaussian_factor
from gno.uq import Conformal, Detector, Scores, Spread, Uncertain
from gno.uq.deferral import doubt_of, relative_error, threshold_of
from gno.uq.metrics import Values, auroc, coverage, gaussian_crps, gaussian_nll, pearson, reliability, spearman
from gno.uq.sampler import Sampler

N_SPLITS = 100  # of the meshes not trained on, into calibration and test
N_DEALS = 10  # the same, where every sample is looked at
COVERAGE = 0.9


@dataclasses.dataclass(frozen=True)
class Case:
    """One mesh: prediction and truth of one field, shares of mass, and the patch (anchor of level 2) of each node."""

    quantity: Uncertain
    truth: np.ndarray
    mass: np.ndarray
    patch: np.ndarray

    @property
    def error(self) -> float:
        """Relative."""
        return relative_error(self.quantity.mean, self.truth, self.mass)

    @property
    def doubt(self) -> float:
        """Relative error that is expected."""
        return doubt_of(self.quantity, self.mass)


def cases(sampler: Sampler, meshes: Sequence) -> list[Case]:
    """Predictions of one field."""
    found = []
    for mesh in meshes:
        levels = sampler.levels(sampler.sample(mesh))
        level, coarse = levels[0], levels[min(2, len(levels) - 1)]
        assert level.truth is not None
        patch = cKDTree(coarse.position).query(level.position)[1]
        found.append(Case(level.quantity, level.truth, level.mass / level.mass.sum(), patch))
    return found


def scores(found: Sequence[Case]) -> dict:
    """Metrics of all nodes together, each mesh with the same weight, before any calibration."""
    together = Uncertain.concatenate([c.quantity for c in found])
    s = Scores.of(together, np.concatenate([c.truth for c in found]), np.concatenate([c.mass for c in found]))
    return {
        "error": statistics.fmean(c.error for c in found),
        "rms": s.error,
        "nll": s.nll,
        "crps": s.crps,
        "ece": s.ece,
        "inside": s.coverage[COVERAGE],
        "width": s.width[COVERAGE],
        "ause": s.ause,
    }


def widening(found: Sequence[Case], meshes: Sequence, n_calibration: int, floor: float) -> dict:
    """What is said before and after the spread is fitted, of fields and of what follows from them: means over deals."""
    rng, rows, factors = np.random.default_rng(0), {"before": [], "after": []}, []
    for _ in range(N_DEALS):
        known, new = np.split(rng.permutation(len(found)), [n_calibration])
        some = [found[k] for k in known]
        spread = Spread.fit(*zip(*((c.quantity, c.truth, c.mass) for c in some), strict=True), floor=floor)
        factors.append((spread.samples, spread.noise))
        for name, used in (("before", Spread()), ("after", spread)):
            test = [dataclasses.replace(found[k], quantity=used.widen(found[k].quantity)) for k in new]
            rows[name].append({**calibration(test), **goals(test, [meshes[k] for k in new])})
    return {
        "factors": np.median(factors, axis=0).tolist(),
        **{name: {key: statistics.fmean(row[key] for row in some) for key in some[0]} for name, some in rows.items()},
    }


def calibration(found: Sequence[Case]) -> dict[str, float]:
    """Of all nodes together, each mesh with the same weight."""
    columns = (
        np.concatenate(c) for c in zip(*((c.truth, c.quantity.mean, c.quantity.std) for c in found), strict=True)
    )
    truth, mean, std = (column[:, 0] for column in columns)
    mass = np.concatenate([c.mass for c in found])
    inside = {f"in {c:.0%}": gaussian_factor(c) for c in (0.68, COVERAGE, 0.95)}
    return {
        "nll": gaussian_nll(truth, mean, std, mass),
        "crps": gaussian_crps(truth, mean, std, mass),
        "ece": reliability(truth, mean, std, mass).calibration_error,
        **{name: coverage(truth, mean - f * std, mean + f * std, mass) for name, f in inside.items()},
    }


def goals(found: Sequence[Case], meshes: Sequence) -> dict[str, float]:
    """How often Gaussian intervals for 90 % hold what follows from a field; a flux at the cells, by their area."""
    rows = []
    for case, mesh in zip(found, meshes, strict=True):
        known = follows(mesh, case.quantity.samples[..., 0])
        truth = follows(mesh, case.truth.T)
        row = {}
        for name, values in known.items():
            low, high = Uncertain(values).interval(COVERAGE)
            inside = (truth[name][0] >= low) & (truth[name][0] <= high)
            row[name] = float(np.average(inside, weights=areas(mesh)) if inside.ndim else inside)
        rows.append(row)
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def areas(mesh: Mesh) -> np.ndarray:
    """Of the triangles."""
    a, b, c = mesh.points[mesh.cells[0].nodes.T]
    return np.abs(np.linalg.det(np.stack([b - a, c - a], axis=1))) / 2


def follows(mesh: Mesh, fields: np.ndarray) -> dict[str, np.ndarray]:
    """From fields on linear triangles, (k, n_nodes): mean, energy, heat through half of the boundary, flux."""
    nodes, area = mesh.cells[0].nodes, areas(mesh)
    conductivity, source = (mesh.point_fields[name][nodes] for name in ("conductivity", "source"))
    corners = np.concatenate([np.ones((len(nodes), 3, 1)), mesh.points[nodes]], axis=2)
    slopes = np.linalg.inv(corners)[:, 1:]  # (n_cells, 2, 3)
    flux = -conductivity.mean(1)[:, None] * np.einsum("cdn,kcn->kcd", slopes, fields[:, nodes])
    energy = ((flux**2).sum(2) / conductivity.mean(1)) @ area / 2
    made = area[:, None] / 12 * (source.sum(1, keepdims=True) + source)
    half = np.isin(nodes, mesh.point_sets["outside"]) & (mesh.points[nodes][..., 0] > 0)
    leaving = np.einsum("kcd,cdn->kcn", flux, slopes) * area[:, None] + made
    return {
        "mean": fields[:, nodes].mean(2) @ area / area.sum(),
        "energy": energy,
        "heat through half": (leaving * half).sum((1, 2)),
        "flux, RMS": np.sqrt((flux**2).sum(2) @ area / area.sum()),
        "flux at cells": np.linalg.norm(flux, axis=2),
    }


def conformal(found: Sequence[Case], n_calibration: int, floor: float) -> dict:
    """Coverage and width over many splits into calibration and test: their mean, and 5 and 95 % over the splits."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(N_SPLITS):
        order = rng.permutation(len(found))
        known, new = ([found[k] for k in part] for part in np.split(order, [n_calibration]))
        fitted = Conformal.fit(*zip(*((c.quantity, c.truth, c.mass) for c in known), strict=True), floor=floor)
        row = []
        for simultaneous in (False, True):
            factor = fitted.factor(COVERAGE, simultaneous=simultaneous)
            half = [factor * (c.quantity.std + floor) for c in new]
            inside = [np.abs(c.truth - c.quantity.mean) <= h for c, h in zip(new, half, strict=True)]
            share = [float(i.all() if simultaneous else (c.mass @ i)[0]) for c, i in zip(new, inside, strict=True)]
            width = statistics.fmean(2 * float((c.mass @ h)[0]) for c, h in zip(new, half, strict=True))
            row += [statistics.fmean(share), width]
        rows.append(row)
    names = ("pointwise", "pointwise width", "simultaneous", "simultaneous width")
    mean = dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
    spread = {f"{names[k]} 5, 95": np.quantile(np.array(rows)[:, k], [0.05, 0.95]).tolist() for k in (0, 2)}
    return {**mean, **spread}


def correlations(found: Sequence[Case]) -> dict[str, float]:
    """Pearson and Spearman of predicted and true error: over nodes, patches and meshes (RMS in each), and relative."""
    rows = [_pairs(c) for c in found]
    named = {}
    for name in rows[0]:
        doubt, error, weight = (np.concatenate([row[name][k] for row in rows]) for k in range(3))
        named[name] = pearson(doubt, error, weight)
        named[f"{name}, ranks"] = spearman(doubt, error, weight)
    return named


def ceiling(found: Sequence[Case]) -> dict[str, float]:
    """The same if one sample were the truth and the others the prediction: what a calibrated method would reach."""
    if found[0].quantity.n_samples < 3:
        return {}
    rows = []
    for k in range(min(8, found[0].quantity.n_samples)):
        others = [np.delete(c.quantity.samples, k, 0) for c in found]
        held = [
            dataclasses.replace(c, quantity=Uncertain(rest), truth=c.quantity.samples[k])
            for c, rest in zip(found, others, strict=True)
        ]
        rows.append(correlations(held))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _pairs(case: Case) -> dict[str, tuple[Values, Values, Values]]:
    variance, square = case.quantity.variance[:, 0], (case.truth - case.quantity.mean)[:, 0] ** 2
    mass = np.bincount(case.patch, case.mass)
    used = mass > 0
    patches = [np.sqrt(np.bincount(case.patch, case.mass * v)[used] / mass[used]) for v in (variance, square)]
    whole = [np.sqrt([case.mass @ v]) for v in (variance, square)]
    return {
        "nodes": (np.sqrt(variance), np.sqrt(square), case.mass),
        "patches": (patches[0], patches[1], mass[used]),
        "meshes": (whole[0], whole[1], np.ones(1)),
        "relative": (np.array([case.doubt]), np.array([case.error]), np.ones(1)),
    }


def flags(detector: Detector, inside: Sequence, shifted: dict[str, Sequence]) -> dict:
    """By shift: AUROC against meshes in range, the share that is flagged, and the same of large errors.

    An error is large above the 95 % quantile of those in range. Their AUROC is that of large against others among the
    meshes of the shift and those in range: where a shift does no harm a score should not rise.
    """
    usual, small = _scored(detector, inside)
    limit = float(np.quantile(small, 0.95))
    found = {"in range": {"flagged": float((usual > 1).mean())}}
    every = [(usual, small)]
    for name, meshes in shifted.items():
        new, errors = _scored(detector, meshes)
        every.append((new, errors))
        score, error = (np.concatenate(pair) for pair in zip((usual, small), (new, errors), strict=True))
        found[name] = {
            "auroc": auroc(score, np.arange(len(score)) >= len(usual)),
            "flagged": float((new > 1).mean()),
            "large": float((errors > limit).mean()),
            "auroc of large": auroc(score, error > limit),
        }
    score, error = (np.concatenate(parts) for parts in zip(*every, strict=True))
    return {**found, "all": {"auroc of large": auroc(score, error > limit), "large": float((error > limit).mean())}}


def _scored(detector: Detector, meshes: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Scores and relative errors."""
    scores = [detector(mesh).score for mesh in meshes]
    return np.array(scores), np.array([case.error for case in cases(detector.sampler, meshes)])


def deferral(found: Sequence[Case], n_calibration: int, tolerance: float, risk: float) -> dict:
    """Means over splits: share solved, share delivered unsolved and worse than the tolerance, errors left."""
    doubt, error = (np.array([getattr(c, name) for c in found]) for name in ("doubt", "error"))
    rng, rows = np.random.default_rng(0), []
    for _ in range(N_SPLITS):
        known, new = np.split(rng.permutation(len(found)), [n_calibration])
        solve = doubt[new] >= threshold_of(doubt[known], error[known] > tolerance, risk)
        left = np.where(solve, 0.0, error[new])
        rows.append([solve.mean(), (left > tolerance).mean(), left.mean(), left.max()])
    solved, bad, mean, worst = np.mean(rows, axis=0).tolist()
    share = float((error > tolerance).mean())
    return {
        "tolerance": tolerance,
        "worse": share,
        "solved": solved,
        "delivered worse": bad,
        "mean error": mean,
        "largest error": worst,
        "solved at random": max(0.0, 1 - risk / share) if share else 0.0,  # for the same risk
    }
