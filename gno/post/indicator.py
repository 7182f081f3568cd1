"""How wrong a finite-element field is, cell by cell: estimates of the error in the energy norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh
from gno.post.gauss import GaussValues, Parameter, cell_mean, flux, integral, interpolate, parameter_at
from gno.post.recovery import Recovery, patch_recovery, superconvergent_order
from gno.post.stress import Elastic, compliance, stress


@dataclasses.dataclass(frozen=True)
class ErrorEstimate:
    """An estimate of ‖u − u_h‖ in the energy norm, √(∫ σ(e):ε(e)) or √(∫ k|∇e|²).

    Args:
        cells: η_c, the part of each cell; 0 on cells that are not part of the domain.
        energy: ‖u_h‖ in the same norm.
    """

    cells: Float[np.ndarray, " n_cells"]
    energy: float

    @property
    def total(self) -> float:
        """η = √Σ η_c²."""
        return float(np.sqrt((self.cells**2).sum()))

    @property
    def relative(self) -> float:
        """η / √(‖u_h‖² + η²), the share of the energy norm that is error."""
        return self.total / float(np.hypot(self.energy, self.total)) if self.total else 0.0

    def __str__(self) -> str:
        return f"error of energy norm {100 * self.relative:.3g} % (estimate {self.total:.4g}, norm {self.energy:.4g})"


def stress_error(
    mesh: Mesh, field: str | Sequence[str], material: Elastic, recovery: Recovery = patch_recovery
) -> ErrorEstimate:
    """η_c² = ∫ (σ* − σ_h):C⁻¹(σ* − σ_h), σ* the recovered stress: the estimate of Zienkiewicz and Zhu.

    Args:
        mesh, field, material: see `gno.post.stress.stress`.
        recovery: from integration points to nodes.

    Source: Zienkiewicz and Zhu, A simple error estimator and adaptive procedure (1987); recovery by patches (1992).
    """
    return _recovery_error(
        lambda order: stress(mesh, field, material, order), lambda s: compliance(s, material), recovery, mesh
    )


def flux_error(
    mesh: Mesh, field: str, conductivity: Parameter = 1.0, recovery: Recovery = patch_recovery
) -> ErrorEstimate:
    """η_c² = ∫ |q* − q_h|²/k, q* the recovered flux.

    Args:
        mesh, field, conductivity: see `gno.post.gauss.flux`.
        recovery: from integration points to nodes.

    Source: as `stress_error`.
    """
    return _recovery_error(
        lambda order: flux(mesh, field, conductivity, order), lambda q: resist(q, conductivity), recovery, mesh
    )


def resist(flux: GaussValues, conductivity: Parameter) -> GaussValues:
    """k⁻¹ q."""
    k = GaussValues(flux.mesh, flux.domain, parameter_at(flux.mesh, conductivity, flux.domain))
    return flux.join(k, lambda q, k: np.linalg.solve(k, q[..., None])[..., 0] if k.ndim == 4 else q / k[..., None])


def _recovery_error(
    dual: Callable[[int | None], GaussValues],
    inverse: Callable[[GaussValues], GaussValues],
    recovery: Recovery,
    mesh: Mesh,
) -> ErrorEstimate:
    at_nodes = recovery(dual(superconvergent_order(mesh)))
    raw = dual(None)
    gap = interpolate(mesh, at_nodes, raw.domain).join(raw, np.subtract)
    square = gap.join(inverse(gap), contract)
    volume = np.zeros(mesh.n_cells)
    for cells in raw.domain.cells:
        volume[cells.cell.numpy()] = cells.weight.numpy().sum(1)
    cells = np.sqrt(np.maximum(np.nan_to_num(cell_mean(square)) * volume, 0))
    return ErrorEstimate(cells, float(np.sqrt(integral(raw.join(inverse(raw), contract)))))


def contract(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a·b or a:b at every point."""
    return (a * b).reshape(*a.shape[:2], -1).sum(-1)
