"""How good an uncertainty is: calibration, sharpness, and whether it knows where the error is; weighted by node mass.

Every function takes flat arrays with one weight per entry (node mass times anything), so that a finer mesh does not
count more. scipy has these statistics without weights, torchmetrics and properscoring without node masses either; the
formulas are one line each, and the tests compare them with scipy where weights are equal.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri

from gno.uncertain import Uncertain, gaussian_factor

# Where interval widths and coverages are reported.
COVERAGES = (0.5, 0.8, 0.9, 0.95)
# Levels of the reliability diagram and of the calibration error.
N_LEVELS = 99
# Shares of the mesh that the sparsification curve leaves out.
N_SHARES = 100

Values = Float[np.ndarray, " n"]


def average(values: Values, weight: Values) -> float:
    """Σ w v / Σ w."""
    return float(np.dot(values, weight) / weight.sum())


def gaussian_nll(truth: Values, mean: Values, std: Values, weight: Values) -> float:
    """Mean of ``½ log 2πσ² + (y − μ)²/2σ²``; infinite where σ = 0 and there is an error.

    Entries that are certain and right (prescribed values) have no density and are left out.
    """
    known = (std == 0) & (truth == mean)
    if known.all():
        return float("nan")
    y, mu, sigma, w = (values[~known] for values in (truth, mean, std, weight))
    with np.errstate(divide="ignore", invalid="ignore"):
        each = 0.5 * np.log(2 * np.pi * sigma**2) + 0.5 * ((y - mu) / sigma) ** 2
    return average(np.where(sigma > 0, each, np.inf), w)


def gaussian_crps(truth: Values, mean: Values, std: Values, weight: Values) -> float:
    """Continuous ranked probability score ∫(F(x) − 1[x ≥ y])² dx of a Gaussian, in the unit of y.

    ``σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π)``, z = (y − μ)/σ; |y − μ| where σ = 0 (Gneiting & Raftery 2007, eq. 21).
    """
    error = truth - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        z = error / std
        each = std * (z * (2 * ndtr(z) - 1) + 2 * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi))
    return average(np.where(std > 0, each, np.abs(error)), weight)


def sample_crps(truth: Values, samples: Float[np.ndarray, "n_samples n"], weight: Values) -> float:
    """The same score of samples, ``⟨|x_k − y|⟩ − ½ ⟨|x_k − x_l|⟩``, the second mean over pairs k ≠ l.

    Unbiased in the number of samples ("fair", Ferro 2014); sorting makes it O(n log n) in them.
    """
    n = len(samples)
    first = np.abs(samples - truth).mean(0)
    if n == 1:
        return average(first, weight)
    rank = 2 * np.arange(1, n + 1) - n - 1
    return average(first - rank @ np.sort(samples, axis=0) / (n * (n - 1)), weight)


def coverage(truth: Values, low: Values, high: Values, weight: Values) -> float:
    """Share of the mass inside the interval."""
    return average(((truth >= low) & (truth <= high)).astype(np.float64), weight)


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Reliability diagram of quantiles: how often the truth lies below the quantile p, against p.

    Args:
        expected: p. observed: share of the mass whose truth lies below it.
    """

    expected: Values
    observed: Values

    @property
    def calibration_error(self) -> float:
        """Mean |observed − p| over p: 0 when calibrated, 0.25 for σ = 0 without bias (Kuleshov et al. 2018)."""
        return float(np.abs(self.observed - self.expected).mean())


def reliability(truth: Values, mean: Values, std: Values, weight: Values, *, n_levels: int = N_LEVELS) -> Reliability:
    """The diagram of Gaussian quantiles: the weighted distribution of Φ((y − μ)/σ).

    >>> y = np.linspace(-1, 1, 2001)
    >>> round(reliability(y, np.zeros(2001), np.zeros(2001), np.ones(2001)).calibration_error, 2)
    0.25
    """
    expected = np.arange(1, n_levels + 1) / (n_levels + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (truth - mean) / std
    z = np.where(np.isnan(z), 0.0, z)  # no doubt and no error: the median
    order = np.argsort(z, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weight[order])])
    return Reliability(expected, total[np.searchsorted(z[order], ndtri(expected), side="right")] / total[-1])


def pearson(x: Values, y: Values, weight: Values) -> float:
    """Weighted linear correlation; NaN where one of them is constant.

    The error of a perfectly calibrated Gaussian is |e| = σ|z|, which bounds its correlation with σ by √(2/π) ≈ 0.80 at
    single nodes, however much σ varies. Averages over cases or coarse nodes are not bounded so.
    """
    x, y = x - average(x, weight), y - average(y, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.dot(weight, x * y) / np.sqrt(np.dot(weight, x**2) * np.dot(weight, y**2)))


def spearman(x: Values, y: Values, weight: Values) -> float:
    """Weighted rank correlation: Pearson of the mass below each value, ties in the middle."""
    return pearson(_rank(x, weight), _rank(y, weight), weight)


def _rank(x: Values, weight: Values) -> Values:
    _, inverse = np.unique(x, return_inverse=True)
    mass = np.bincount(inverse, weight)
    return (np.cumsum(mass) - mass / 2)[inverse]


def sparsification(error: Values, doubt: Values, weight: Values) -> tuple[Values, Values]:
    """Shares of mass left out, the most doubtful first, and the RMS error of what is left, relative to all of it.

    Ilg et al. 2018, Uncertainty estimates and multi-hypotheses networks for optical flow, §4.
    """
    order = np.argsort(-doubt, kind="stable")
    w, square = weight[order], (weight * error**2)[order]
    # what starts in an entry is left out with it; the remainder of the mass behind each entry
    left, rest = w[::-1].cumsum()[::-1], square[::-1].cumsum()[::-1]
    out = 1 - left / left[0]
    rms = np.sqrt(rest / left)
    shares = np.arange(N_SHARES) / N_SHARES
    scale = rms[0] if rms[0] > 0 else 1.0
    return shares, np.interp(shares, out, rms) / scale


def ause(error: Values, doubt: Values, weight: Values) -> float:
    """Area between the sparsification curves by doubt and by the error itself; 0 when they agree.

    >>> ause(np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 6, 8]), np.ones(4))
    0.0
    """
    by_doubt, by_error = sparsification(error, doubt, weight)[1], sparsification(error, np.abs(error), weight)[1]
    return float((by_doubt - by_error).mean())


def auroc(score: Values, positive: Bool[np.ndarray, " n"], weight: Values | None = None) -> float:
    """Probability that a positive scores above a negative, ties half: area under the ROC curve.

    Raises:
        ValueError: positives or negatives only.

    >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    w = np.ones(len(score)) if weight is None else weight
    if positive.all() or not positive.any():
        raise ValueError(f"positive: expected some positives and some negatives, got {int(positive.sum())} of {len(w)}")
    _, inverse = np.unique(score, return_inverse=True)
    negative = np.bincount(inverse, w * ~positive)
    below = (np.cumsum(negative) - negative / 2)[inverse]
    return float(np.dot(w * positive, below) / (np.dot(w, positive) * negative.sum()))


@dataclasses.dataclass(frozen=True)
class Scores:
    """All of it for one field on one scale.

    Args:
        error: RMS error; and all others in the unit of the field where they have one.
        sharpness: RMS predicted standard deviation.
        nll, crps: of the Gaussian with mean and variance. sample_crps: of the samples alone, without noise.
        ece: mean distance of the reliability diagram from its diagonal.
        coverage, width: by nominal coverage: share of the mass inside, and mean width, of Gaussian intervals.
        pearson, spearman: correlation of std and |error| over nodes.
        ause: area under the sparsification error, relative to the RMS error.
    """

    error: float
    sharpness: float
    nll: float
    crps: float
    sample_crps: float
    ece: float
    coverage: dict[float, float]
    width: dict[float, float]
    pearson: float
    spearman: float
    ause: float

    @staticmethod
    def of(quantity: Uncertain, truth: np.ndarray, mass: Values) -> Scores:
        """Of a field against its truth.

        Args:
            quantity: (n_nodes, …). truth: the same shape. mass: per node; each component counts by it.

        Raises:
            ValueError: shapes that do not fit, or no mass.
        """
        flat = flatten(quantity, truth, mass)
        y, mean, std, weight = flat.truth, flat.mean, flat.std, flat.weight
        error = np.abs(y - mean)
        intervals = {c: (mean - gaussian_factor(c) * std, mean + gaussian_factor(c) * std) for c in COVERAGES}
        return Scores(
            error=math.sqrt(average(error**2, weight)),
            sharpness=math.sqrt(average(std**2, weight)),
            nll=gaussian_nll(y, mean, std, weight),
            crps=gaussian_crps(y, mean, std, weight),
            sample_crps=sample_crps(y, quantity.samples.reshape(quantity.n_samples, -1)[:, flat.used], weight),
            ece=reliability(y, mean, std, weight).calibration_error,
            coverage={c: coverage(y, *ends, weight) for c, ends in intervals.items()},
            width={c: average(high - low, weight) for c, (low, high) in intervals.items()},
            pearson=pearson(std, error, weight),
            spearman=spearman(std, error, weight),
            ause=ause(error, std, weight),
        )


@dataclasses.dataclass(frozen=True)
class Flat:
    """Entries of a field that carry mass, in one row."""

    truth: Values
    mean: Values
    std: Values
    weight: Values
    used: Bool[np.ndarray, " n_all"]


def flatten(quantity: Uncertain, truth: np.ndarray, mass: Values) -> Flat:
    """A field of any number of components as flat arrays, the mass repeated; nodes without mass are left out.

    Raises:
        ValueError: shapes that do not fit, or no mass.
    """
    truth, mass = np.asarray(truth, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    if truth.shape != quantity.shape:
        raise ValueError(f"truth: expected the shape of the prediction {quantity.shape}, got {truth.shape}")
    if mass.shape != truth.shape[:1] or not (mass >= 0).all() or not mass.any():
        raise ValueError(f"mass: expected {truth.shape[:1]} masses ≥ 0, not all zero, got shape {mass.shape}")
    weight = np.broadcast_to(mass.reshape(-1, *(1,) * (truth.ndim - 1)), truth.shape).ravel()
    used = weight > 0
    return Flat(truth.ravel()[used], quantity.mean.ravel()[used], quantity.std.ravel()[used], weight[used], used)
