"""Meshes with derived fields beside their own: at nodes recovered, under the same name on cells the mean.

The names of what derives from ``predicted_u`` begin with ``predicted_`` too, so that `gno.post.show` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gno.mesh import Mesh
from gno.post.gauss import Parameter, cell_mean, flux, gradient
from gno.post.indicator import ErrorEstimate
from gno.post.recovery import Recovery, patch_recovery, superconvergent_order
from gno.post.stress import Elastic, strain, stress
from gno.post.tensors import components, principal, tresca, von_mises

PREFIX = "predicted_"
INVARIANTS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "von_mises": von_mises,
    "tresca": tresca,
    "principal_stress": principal,
}


def with_gradient(mesh: Mesh, field: str, recovery: Recovery = patch_recovery) -> Mesh:
    """A copy with ``<field>_gradient``: ∂u_i/∂x_j, the axis of components first.

    Args:
        mesh: a mesh with cells.
        field: a field on nodes.
        recovery: from integration points to nodes.

    Raises:
        ValueError: no such field.
    """
    low, full = (gradient(mesh, field, order) for order in (superconvergent_order(mesh), None))
    return _with(mesh, {f"{field}_gradient": (recovery(low), cell_mean(full))})


def with_flux(mesh: Mesh, field: str, conductivity: Parameter = 1.0, recovery: Recovery = patch_recovery) -> Mesh:
    """A copy with ``<field>_flux``: −k∇u.

    Args:
        mesh, field, recovery: see `with_gradient`.
        conductivity: see `gno.post.gauss.flux`.

    Raises:
        ValueError: no such field, or a vector.
    """
    low, full = (flux(mesh, field, conductivity, order) for order in (superconvergent_order(mesh), None))
    return _with(mesh, {f"{field}_flux": (recovery(low), cell_mean(full))})


def with_stress(mesh: Mesh, field: str | Sequence[str], material: Elastic, recovery: Recovery = patch_recovery) -> Mesh:
    """A copy with ``strain`` and ``stress`` (xx, yy, zz, xy, yz, xz), ``von_mises``, ``tresca``, ``principal_stress``.

    Invariants at nodes are those of the recovered stress, on cells those of the mean stress. Fields of these names that
    the mesh has already are replaced.

    Args:
        mesh, field, material: see `gno.post.stress.stress`.
        recovery: from integration points to nodes.

    Raises:
        ValueError: as `gno.post.stress.stress`.
    """
    low, full = (stress(mesh, field, material, order) for order in (superconvergent_order(mesh), None))
    bent = [strain(mesh, field, material, order) for order in (superconvergent_order(mesh), None)]
    at_nodes, on_cells = recovery(low), cell_mean(full)
    prefix = prefix_of(field)
    derived = {
        f"{prefix}strain": (components(recovery(bent[0])), components(cell_mean(bent[1]))),
        f"{prefix}stress": (components(at_nodes), components(on_cells)),
    }
    for name, invariant in INVARIANTS.items():
        derived[prefix + name] = (_where_finite(invariant, at_nodes), _where_finite(invariant, on_cells))
    return _with(mesh, derived)


def with_error(mesh: Mesh, estimate: ErrorEstimate, name: str = "error_estimate") -> Mesh:
    """A copy with the part of each cell in the error of the energy norm as a cell field, for `gno show` to draw."""
    return mesh.replace(cell_fields={**mesh.cell_fields, name: estimate.cells})


def prefix_of(field: str | Sequence[str]) -> str:
    """``predicted_`` for what an operator predicted.

    >>> prefix_of("predicted_displacement"), prefix_of("displacement")
    ('predicted_', '')
    """
    first = field if isinstance(field, str) else field[0]
    return PREFIX if first.startswith(PREFIX) else ""


def _with(mesh: Mesh, derived: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Mesh:
    points = {name: values for name, (values, _) in derived.items()}
    cells = {name: values for name, (_, values) in derived.items()}
    return mesh.replace(point_fields={**mesh.point_fields, **points}, cell_fields={**mesh.cell_fields, **cells})


def _where_finite(invariant: Callable[[np.ndarray], np.ndarray], tensor: np.ndarray) -> np.ndarray:
    """The invariant, NaN where the tensor is: eigenvalues of NaN would be an error."""
    known = np.isfinite(tensor).all((1, 2))
    found = invariant(np.where(known[:, None, None], tensor, 0.0))
    found[~known] = np.nan
    return found
