"""What benchmarks/uncertainty.py measures of a sampler: calibration over many splits, correlations, deferral."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from uncertainty_goals import Goal, Goals

from gno.uncertain import gaussian_factor
from gno.uq import Conformal, Detector, Scores, Spread, Uncertain
from gno.uq.deferral import doubt_of, relative_error, threshold_of
from gno.uq.metrics import Values, auroc, coverage, gaussian_crps, gaussian_nll, pearson, reliability, spearman
from gno.uq.sampler import Level, Sampler

N_SPLITS = 100  # of the meshes not trained on, into calibration and test
N_DEALS = 10  # the same, where every sample is looked at
COVERAGE = 0.9
TINY = 1e-12  # floor of what follows from a field, which is never sure


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


def widening(
    levels: Sequence[Sequence[Level]], goals: Sequence[Goals], n_calibration: int, floor: float
) -> dict[str, Any]:
    """What is said before and after the spread is fitted, of fields and of what follows from them: means over deals.

    Args:
        levels: one field of each mesh on all scales, as the samples are. goals: what follows from it, of each mesh.
    """
    rng, rows, factors = np.random.default_rng(0), {"before": [], "after": [], "calibrated": []}, []
    for _ in range(N_DEALS):
        known, new = np.split(rng.permutation(len(levels)), [n_calibration])
        parts = [(level.quantity, level.truth, level.mass) for k in known for level in levels[k]]
        spread = Spread.fit(*zip(*parts, strict=True), floor=floor)
        factors.append((spread.samples, spread.noise))
        for name, used in (("before", Spread()), ("after", spread)):
            row = calibration([levels[k][0] for k in new], used)
            wide = [goal.widened(used) for goal in goals]
            row |= {what: statistics.fmean(inside(wide[k], what) for k in new) for what in wide[0]}
            rows[name].append(row)
        own = {what: Conformal.fit(*_columns([wide[k][what] for k in known]), floor=TINY) for what in wide[0]}
        rows["calibrated"].append(
            {what: statistics.fmean(inside(wide[k], what, known) for k in new) for what, known in own.items()}
        )
    return {
        "factors": np.median(factors, axis=0).tolist(),
        **{name: {key: statistics.fmean(row[key] for row in some) for key in some[0]} for name, some in rows.items()},
    }


def _columns(found: Sequence[Goal]) -> tuple[list[Uncertain], list[np.ndarray], list[np.ndarray]]:
    return [g.quantity for g in found], [g.truth for g in found], [g.weight for g in found]


def inside(goals: dict[str, Goal], name: str, known: Conformal | None = None) -> float:
    """Share of what follows inside 90 % intervals, Gaussian or calibrated ones."""
    goal = goals[name]
    low, high = known.interval(goal.quantity, COVERAGE) if known else goal.quantity.interval(COVERAGE)
    return float(np.average((goal.truth >= low) & (goal.truth <= high), weights=goal.weight))


def calibration(found: Sequence[Level], spread: Spread) -> dict[str, float]:
    """Of all nodes and components together, each mesh with the same weight."""
    wide = [spread.widen(level.quantity) for level in found]
    columns = zip(*((c.truth, q.mean, q.std) for c, q in zip(found, wide, strict=True)), strict=True)
    truth, mean, std = (np.concatenate([np.ravel(part) for part in column]) for column in columns)
    mass = np.concatenate([np.repeat(c.mass / c.mass.sum(), c.truth.shape[1]) for c in found])
    inside = {f"in {c:.0%}": gaussian_factor(c) for c in (0.68, COVERAGE, 0.95)}
    return {
        "nll": gaussian_nll(truth, mean, std, mass),
        "crps": gaussian_crps(truth, mean, std, mass),
        "ece": reliability(truth, mean, std, mass).calibration_error,
        **{name: coverage(truth, mean - f * std, mean + f * std, mass) for name, f in inside.items()},
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
