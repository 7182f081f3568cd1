"""Uncertain: a quantity with its doubt, as equally likely samples and the noise expected around each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

# Halvings of a bracket until a quantile of a mixture is known to the last bits.
_HALVINGS = 60


@dataclasses.dataclass(frozen=True)
class Uncertain:
    """A quantity of any shape, as samples u_k of its expected value, each with the variance σ_k² of noise around it.

    ``Var(y) = ⟨σ_k²⟩ + Var_k(u_k)``: aleatoric plus epistemic, the law of total variance. Samples come from any method
    (members of an ensemble, draws of weights); all entries of one sample belong together, so that what is derived from
    a sample keeps the correlations between nodes.

    Args:
        samples: u_k, (n_samples, …), physical units.
        noise: σ_k², the same shape; none if absent.

    Raises:
        ValueError: no sample, or noise of another shape or below zero.

    >>> u = Uncertain(np.array([[1.0, 5.0], [3.0, 5.0]]), noise=np.array([[1.0, 4.0], [1.0, 4.0]]))
    >>> u.mean, u.epistemic, u.aleatoric, u.std
    (array([2., 5.]), array([2., 0.]), array([1., 4.]), array([1.73205081, 2.        ]))
    """

    samples: Float[np.ndarray, "n_samples ..."]
    noise: Float[np.ndarray, "n_samples ..."] | None = None

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples, dtype=np.float64)
        if samples.ndim == 0 or not len(samples):
            raise ValueError(f"samples: expected (n_samples ≥ 1, …), got shape {samples.shape}")
        object.__setattr__(self, "samples", samples)
        if self.noise is not None:
            noise = np.asarray(self.noise, dtype=np.float64)
            if noise.shape != samples.shape:
                raise ValueError(f"noise: expected the shape of the samples {samples.shape}, got {noise.shape}")
            if (noise < 0).any():
                raise ValueError(f"noise: expected variances ≥ 0, got {noise.min():g}")
            object.__setattr__(self, "noise", noise)

    @property
    def n_samples(self) -> int:
        return len(self.samples)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the quantity itself."""
        return self.samples.shape[1:]

    @property
    def mean(self) -> Float[np.ndarray, " ..."]:
        return self.samples[0] + self._deviations.mean(0)

    @property
    def epistemic(self) -> Float[np.ndarray, " ..."]:
        """Variance between the samples, Σ_k (u_k − ū)² / (n − 1): what more data would remove. Zero for one sample."""
        if self.n_samples == 1:
            return np.zeros(self.shape)
        return self._deviations.var(0, ddof=1)

    @property
    def aleatoric(self) -> Float[np.ndarray, " ..."]:
        """Mean variance of the noise: what no data would remove."""
        return np.zeros(self.shape) if self.noise is None else self.noise.mean(0)

    @property
    def variance(self) -> Float[np.ndarray, " ..."]:
        return self.epistemic + self.aleatoric

    @property
    def std(self) -> Float[np.ndarray, " ..."]:
        return np.sqrt(self.variance)

    @property
    def _deviations(self) -> Float[np.ndarray, "n_samples ..."]:
        # where all samples say the same, as at given values, the mean is that to the bit and there is no doubt
        return self.samples - self.samples[0]

    @property
    def has_doubt(self) -> bool:
        """Whether anything is known of how sure it is: a single sample without noise says nothing of it."""
        return self.n_samples > 1 or self.noise is not None

    def interval(self, coverage: float) -> tuple[Float[np.ndarray, " ..."], Float[np.ndarray, " ..."]]:
        """Central interval of the Gaussian with this mean and variance.

        Args:
            coverage: probability inside, between 0 and 1.

        Raises:
            ValueError: a coverage outside (0, 1).
        """
        half = gaussian_factor(coverage) * self.std
        return self.mean - half, self.mean + half

    def quantile(self, p: float) -> Float[np.ndarray, " ..."]:
        """Quantile of the mixture ``1/n Σ_k N(u_k, σ_k²)``; without noise, of the samples, linear between them.

        n samples without noise say nothing beyond the smallest and the largest: for tails use :meth:`interval`, or
        intervals calibrated on data (:class:`gno.uq.Conformal`).

        Raises:
            ValueError: p outside (0, 1).
        """
        _check_probability("quantile", p)
        if self.noise is None:
            return np.quantile(self.samples, p, axis=0)
        spread = np.sqrt(self.noise)
        each = self.samples + ndtri(p) * spread  # the mixture's quantile lies between those of its parts
        low, high = each.min(0), each.max(0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = _mixture_cdf(middle, self.samples, spread) < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Uncertain:
        """What follows from the quantity (a stress, a resultant), from each sample as a whole: ``f(u_k)``, moved to
        have ``f(ū)`` for their mean.

        What is quadratic, as an energy, is too large on the mean of samples that were widened. Noise is known entry by
        entry and not jointly, so it does not pass: the result carries the epistemic part.

        Args:
            function: one sample, of the quantity's shape, to whatever follows from it.

        >>> Uncertain(np.array([[1.0, 2.0], [2.0, 3.0]])).map(np.diff).std  # both entries rise together
        array([0.])
        >>> Uncertain(np.array([1.0, 3.0])).map(np.square).samples
        array([0., 8.])
        """
        found = Uncertain(np.stack([np.asarray(function(sample), dtype=np.float64) for sample in self.samples]))
        return found.centred(np.asarray(function(self.mean), dtype=np.float64))

    def centred(self, middle: Float[np.ndarray, " ..."]) -> Uncertain:
        """Samples with another mean, and the same deviations from it."""
        return Uncertain(middle + (self.samples - self.mean), self.noise)

    def widened(
        self, samples: float | Float[np.ndarray, " ..."], noise: float | Float[np.ndarray, " ..."]
    ) -> Uncertain:
        """Samples further from their mean, ``u_k ← ū + s (u_k − ū)``, and noise ``σ_k² ← t² σ_k²``; the mean stays.

        What is linear in the quantity and holds for each sample (a balance, a mean over anchors, a given value) still
        does.

        Args:
            samples: s, a factor, or one for each entry. noise: t, alike.
        """
        middle = self.mean
        wide = None if self.noise is None else noise**2 * self.noise
        return Uncertain(middle + samples * (self.samples - middle), wide)

    def averaged(self, average: Callable[[np.ndarray], np.ndarray]) -> Uncertain:
        """A mean over some entries, such as over the nodes of a cell; noise is taken as common to them all."""
        noise = None if self.noise is None else np.stack([average(part) for part in self.noise])
        return Uncertain(np.stack([average(part) for part in self.samples]), noise)

    def reshape(self, *shape: int) -> Uncertain:
        """The quantity in another shape."""
        noise = None if self.noise is None else self.noise.reshape(self.n_samples, *shape)
        return Uncertain(self.samples.reshape(self.n_samples, *shape), noise)

    def __getitem__(self, index) -> Uncertain:
        """Part of the quantity: ``u[:, 0]`` is its first component at every node."""
        rows = index if isinstance(index, tuple) else (index,)
        part = (slice(None), *rows)
        return Uncertain(self.samples[part], None if self.noise is None else self.noise[part])

    @staticmethod
    def concatenate(parts: Sequence[Uncertain]) -> Uncertain:
        """Quantities of several meshes as one, along their first axis.

        Raises:
            ValueError: different numbers of samples, or noise in some only.
        """
        counts = {part.n_samples for part in parts}
        noisy = {part.noise is not None for part in parts}
        if len(counts) != 1 or len(noisy) != 1:
            raise ValueError(
                f"parts: expected equally many samples, all with noise or none, got {sorted(counts)} samples, "
                f"noise in {sum(part.noise is not None for part in parts)} of {len(parts)}"
            )
        noise = np.concatenate([p.noise for p in parts if p.noise is not None], axis=1) if noisy.pop() else None
        return Uncertain(np.concatenate([part.samples for part in parts], axis=1), noise)

    def __repr__(self) -> str:
        kind = "samples" if self.noise is None else "samples with noise"
        return f"Uncertain(shape {self.shape}, {self.n_samples} {kind})"


def gaussian_factor(coverage: float) -> float:
    """Half the width of the central interval of a standard normal.

    >>> round(gaussian_factor(0.95), 3)
    1.96
    """
    _check_probability("coverage", coverage)
    return float(ndtri((1 + coverage) / 2))


def _check_probability(name: str, p: float) -> None:
    if not 0 < p < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {p}")


def _mixture_cdf(x: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (x - mean) / spread
    # a sample without noise is a step: nothing below it, all of it from there on
    return ndtr(np.where(spread > 0, z, np.where(x >= mean, np.inf, -np.inf))).mean(0)
