"""Values at the integration points of cells, where the derivatives of a finite-element field live."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh

if TYPE_CHECKING:
    from gno.physics.quadrature import Domain

Parameter = float | str
"""A number for the whole domain, or the name of a field on nodes or cells."""


@dataclasses.dataclass(frozen=True)
class GaussValues:
    """Scalars, vectors or tensors at the integration points of every cell.

    Args:
        mesh: the mesh.
        domain: its cells with integration points, weights, shape functions and their gradients.
        values: one array (n_cells, n_points, …) per cell type, in the order of ``domain.cells``.
    """

    mesh: Mesh
    domain: Domain
    values: tuple[Float[np.ndarray, "n_cells n_points ..."], ...]

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> GaussValues:
        """The values of ``function``, which takes and gives arrays (n_cells, n_points, …)."""
        return dataclasses.replace(self, values=tuple(map(function, self.values)))

    def join(self, other: GaussValues, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> GaussValues:
        """The values of a function of these values and others at the same points."""
        pairs = zip(self.values, other.values, strict=True)
        return dataclasses.replace(self, values=tuple(function(a, b) for a, b in pairs))


def point_values(mesh: Mesh, field: str | Sequence[str]) -> Float[np.ndarray, "n_nodes n_components"]:
    """The field in float64, one row of components per node; several scalar fields make one vector.

    Raises:
        ValueError: no such field on nodes, or no real numbers.

    >>> cloud = Mesh(np.zeros((1, 2)), point_fields={"u_x": np.array([1]), "u_y": np.array([2])})
    >>> point_values(cloud, ["u_x", "u_y"])
    array([[1., 2.]])
    """
    names = [field] if isinstance(field, str) else list(field)
    columns = []
    for name in names:
        values = mesh.point_fields.get(name)
        if values is None:
            known = ", ".join(mesh.point_fields) or "(no fields)"
            raise ValueError(f"field '{name}': expected a field on nodes, one of {known}, got none ({mesh.source})")
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            got = str(values.dtype) if values.dtype.kind not in "fiub" else "values that are not finite"
            raise ValueError(f"field '{name}': expected finite real numbers, got {got} ({mesh.source})")
        columns.append(values.reshape(mesh.n_nodes, -1).astype(np.float64))
    return np.concatenate(columns, axis=1)


def gradient(mesh: Mesh, field: str | Sequence[str], order: int | None = None) -> GaussValues:
    """∇u at the integration points, with ∂u_i/∂x_j in [i, j]; on a surface in 3-D the tangential gradient.

    Args:
        mesh: a mesh with cells.
        field: name of a field on nodes, or of scalar fields that make a vector.
        order: polynomial degree that the integration points integrate exactly; by default that of a mass matrix.

    Returns:
        (n_cells, n_points, dim) for a scalar, (n_cells, n_points, n_components, dim) otherwise.

    >>> from gno.mesh import CellBlock
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> mesh = Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([0.0, 6.0, 1.0])})
    >>> cell_mean(gradient(mesh, "T")).round(12).tolist()
    [[3.0, 1.0]]
    """
    return gradient_of(mesh, point_values(mesh, field), domain_of(mesh, order))


def gradient_of(mesh: Mesh, u: Float[np.ndarray, "n_nodes n_components"], domain: Domain) -> GaussValues:
    """The gradient of node values; scalars lose their axis of components."""
    values = []
    for cells in domain.cells:
        slope = np.einsum("cqnd,cni->cqid", cells.gradient.numpy(), u[cells.nodes.numpy()], optimize=True)
        values.append(slope[:, :, 0] if u.shape[1] == 1 else slope)
    return GaussValues(mesh, domain, tuple(values))


def interpolate(mesh: Mesh, u: Float[np.ndarray, "n_nodes ..."], domain: Domain) -> GaussValues:
    """Node values, as shape functions carry them to the integration points."""
    values = (np.tensordot(u[cells.nodes.numpy()], cells.shape.numpy(), axes=(1, 1)) for cells in domain.cells)
    return GaussValues(mesh, domain, tuple(np.moveaxis(value, -1, 1) for value in values))


def parameter_at(mesh: Mesh, parameter: Parameter, domain: Domain) -> tuple[np.ndarray, ...]:
    """A parameter at the integration points: (1, 1) for a number, (n_cells, n_points, …) for a field.

    Raises:
        ValueError: no such field.
    """
    if not isinstance(parameter, str):
        return tuple(np.full((1, 1), float(parameter)) for _ in domain.cells)
    if parameter in mesh.point_fields:
        return interpolate(mesh, mesh.point_fields[parameter].astype(np.float64), domain).values
    if parameter in mesh.cell_fields:
        field = mesh.cell_fields[parameter].astype(np.float64)
        return tuple(field[cells.cell.numpy()][:, None] for cells in domain.cells)
    known = ", ".join([*mesh.point_fields, *mesh.cell_fields]) or "(no fields)"
    raise ValueError(f"parameter '{parameter}': expected a number or a field, one of {known}, got none ({mesh.source})")


def flux(mesh: Mesh, field: str, conductivity: Parameter = 1.0, order: int | None = None) -> GaussValues:
    """q = −k ∇u: heat flux, Darcy velocity.

    Args:
        mesh, field, order: see `gradient`; the field is a scalar.
        conductivity: k, a number or a field, scalar or (dim, dim).

    Raises:
        ValueError: a vector field.
    """
    slope = gradient(mesh, field, order)
    if slope.values[0].ndim != 3:
        raise ValueError(f"field '{field}': expected a scalar for a flux, got {slope.values[0].shape[2]} components")
    k = GaussValues(mesh, slope.domain, parameter_at(mesh, conductivity, slope.domain))
    return slope.join(k, _conduct)


def _conduct(slope: np.ndarray, k: np.ndarray) -> np.ndarray:
    return -np.einsum("cqij,cqj->cqi", k, slope) if k.ndim == 4 else -k[..., None] * slope


def cell_mean(values: GaussValues) -> Float[np.ndarray, "n_cells ..."]:
    """Mean over each cell; NaN on cells that are not part of the domain, such as lines around a surface."""
    tail = values.values[0].shape[2:]
    mean = np.full((values.mesh.n_cells, *tail), np.nan)
    for cells, here in zip(values.domain.cells, values.values, strict=True):
        weight = cells.weight.numpy()
        mean[cells.cell.numpy()] = np.einsum("cq,cq...->c...", weight / weight.sum(1, keepdims=True), here)
    return mean


def integral(values: GaussValues) -> np.ndarray:
    """∫ over the domain."""
    pairs = zip(values.domain.cells, values.values, strict=True)
    return np.sum([np.einsum("cq,cq...->...", cells.weight.numpy(), here) for cells, here in pairs], axis=0)


def domain_of(mesh: Mesh, order: int | None = None) -> Domain:
    """The cells of a mesh with integration points, in float64 on the CPU."""
    from gno.physics.quadrature import build_domain  # torch and scikit-fem take seconds to load

    return build_domain(mesh, order=order)
