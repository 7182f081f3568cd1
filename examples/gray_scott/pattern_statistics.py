"""What kind of pattern a field is, told without asking where its spots lie.

Two runs of a chaotic system part from each other, and a stripe that is half a wavelength off counts double in an L2
error. These numbers compare such fields fairly, on any mesh and between meshes: every sum is weighted by node mass.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import j0
from scipy.stats import wasserstein_distance

from gno.mesh import Mesh, mesh_edges, node_mass


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Statistics of one scalar field.

    Args:
        mean: ⟨v⟩.
        variance: ⟨v²⟩ − ⟨v⟩².
        area: share of the domain where v is above the threshold.
        n_spots: connected parts of that region, per area.
        n_gaps: connected parts of the rest, per area; many spots have one gap, a net has one spot.
        wavelength: 2π / q at the peak of the spectrum; infinite for a field without a pattern.
        correlation: C(r) at `PatternStatistics.distance`.
        spectrum: S(q) at `PatternStatistics.wave_number`, as shares that sum to one.
    """

    mean: float
    variance: float
    area: float
    n_spots: float
    n_gaps: float
    wavelength: float
    correlation: Float[np.ndarray, " n_bins"]
    spectrum: Float[np.ndarray, " n_waves"]


class PatternStatistics:
    """Statistics of fields on one mesh; what depends on the mesh alone is computed once.

        C(r) = ⟨ v′(x) v′(y) ⟩ over |x − y| ≈ r, divided by ⟨v′²⟩         v′ = v − ⟨v⟩
        S(q) ∝ q ∫ C(r) J₀(qr) (1 − (r/R)²)² r dr, positive part             the isotropic spectrum, up to r = R

    Distances are straight lines, on surfaces too, so wavelengths there are a little short where the surface bends.

    Args:
        mesh: the mesh.
        unknown: number of the unknown at each node, for a periodic square; see `domains.Region`.
        period: length after which coordinates repeat.
        threshold: value of v that divides spots from gaps.
        reach: largest distance R.
        width: width of the bins of distance.
        n_centers: points x, drawn by mass; y runs over all nodes.
    """

    def __init__(
        self,
        mesh: Mesh,
        *,
        unknown: Int[np.ndarray, " n_nodes"] | None = None,
        period: float = np.inf,
        threshold: float = 0.2,
        reach: float = 0.4,
        width: float = 0.01,
        n_centers: int = 1000,
    ) -> None:
        self.mass = node_mass(mesh)
        self.unknown = np.arange(mesh.n_nodes) if unknown is None else unknown
        self.edges = self.unknown[mesh_edges(mesh)]
        self.threshold, self.period = threshold, period
        self.distance = width * (np.arange(round(reach / width)) + 0.5)
        self.wave_number = 2 * np.pi / np.geomspace(reach, 4 * width, 60)
        share = self.mass / self.mass.sum()
        rng = np.random.default_rng(0)
        size = min(n_centers, int(np.count_nonzero(share)))
        self.center = np.sort(rng.choice(mesh.n_nodes, size, replace=False, p=share))
        self.bin = self._bins(mesh.points, width)

    def _bins(self, points: np.ndarray, width: float) -> Int[np.ndarray, "n_centers n_nodes"]:
        """Bin of the distance of every center and node, the last bin for pairs that are too far apart."""
        square = np.zeros((len(self.center), len(points)))
        for x in points.T:
            offset = np.abs(x[self.center, None] - x)
            square += np.minimum(offset, self.period - offset) ** 2
        return np.minimum(np.sqrt(square) / width, len(self.distance)).astype(np.int16)

    def __call__(self, v: Float[np.ndarray, " n_nodes"]) -> Pattern:
        """Statistics of a field at the nodes."""
        v = np.asarray(v, float)
        share = self.mass / self.mass.sum()
        mean = float(share @ v)
        variance = float(share @ (v - mean) ** 2)
        above = v > self.threshold
        correlation = self._correlation(v - mean, variance)
        spectrum = self._spectrum(correlation)
        peak = 2 * np.pi / self.wave_number[spectrum.argmax()] if spectrum.any() else np.inf
        return Pattern(
            mean=mean,
            variance=variance,
            area=float(share @ above),
            n_spots=self._count(above),
            n_gaps=self._count(~above),
            wavelength=float(peak),
            correlation=correlation,
            spectrum=spectrum,
        )

    def _correlation(self, deviation: np.ndarray, variance: float) -> np.ndarray:
        if variance < 1e-8:
            return np.zeros(len(self.distance))
        n = len(self.distance) + 1
        pairs = np.bincount(self.bin.ravel(), np.broadcast_to(self.mass, self.bin.shape).ravel(), minlength=n)
        product = deviation[self.center, None] * (self.mass * deviation)
        total = np.bincount(self.bin.ravel(), product.ravel(), minlength=n)
        return (total / np.maximum(pairs, 1e-300))[:-1] / variance

    def _spectrum(self, correlation: np.ndarray) -> np.ndarray:
        r, q = self.distance, self.wave_number
        window = (1 - (r / (r[-1] + r[0])) ** 2) ** 2
        power = q * (j0(np.outer(q, r)) @ (correlation * window * r))
        power = np.maximum(power, 0)
        return power / power.sum() if power.any() else power

    def _count(self, inside: np.ndarray) -> float:
        """Connected parts of a set of nodes, per area."""
        n = int(self.unknown.max()) + 1
        member = np.zeros(n, dtype=bool)
        member[self.unknown] = inside
        i, j = self.edges[:, member[self.edges].all(0)]
        graph = coo_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n, n))
        parts = connected_components(graph, directed=False)[1][member]
        return len(np.unique(parts)) / float(self.mass.sum())


def differences(ours: Pattern, truth: Pattern) -> dict[str, float]:
    """How far two patterns are apart, each number 0 for equal ones; the meshes may differ.

    Args:
        ours, truth: statistics with the same bins.

    Returns:
        `correlation` and `spectrum`: √⟨ΔC²⟩ and half of Σ|ΔS|; `mean`, `deviation`, `area`: differences of ⟨v⟩, of
        √variance and of the share of area, the first two relative to the deviation of the truth.
    """
    scale = max(truth.variance**0.5, 1e-4)
    return {
        "correlation": float(np.sqrt(np.mean((ours.correlation - truth.correlation) ** 2))),
        "spectrum": float(np.abs(ours.spectrum - truth.spectrum).sum() / 2),
        "mean": abs(ours.mean - truth.mean) / scale,
        "deviation": abs(ours.variance**0.5 - truth.variance**0.5) / scale,
        "area": abs(ours.area - truth.area),
    }


def distribution_distance(
    v: Float[np.ndarray, " n"], mass: Float[np.ndarray, " n"], other: Float[np.ndarray, " m"], other_mass: np.ndarray
) -> float:
    """Wasserstein distance of the distributions of values, ∫ |P(v ≤ z) − P(v′ ≤ z)| dz; the meshes may differ.

    >>> distribution_distance(np.zeros(2), np.ones(2), np.ones(3), np.ones(3))
    1.0
    """
    return float(wasserstein_distance(v, other, mass, other_mass))
