"""Goal functionals: one number that a simulation was made for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh, MeshError
from gno.post.gauss import GaussValues, domain_of, gradient_of, integral, interpolate, point_values


@dataclasses.dataclass(frozen=True)
class Extreme:
    """The largest value of a field and where it is.

    Args:
        value: the value.
        node: index of the node.
        position: its coordinates.
    """

    value: float
    node: int
    position: Float[np.ndarray, " dim"]


def goal(
    mesh: Mesh,
    field: str | Sequence[str],
    density: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    order: int | None = None,
) -> np.ndarray:
    """J(u) = ∫ j(u, ∇u, x) over the domain.

    Args:
        mesh, field, order: see `gno.post.gauss.gradient`.
        density: j, from u (…, n_components), ∇u (…, n_components, dim) and x (…, dim) to (…) or (…, k).

    Returns:
        A number, or k of them.

    >>> from gno.mesh import CellBlock
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> mesh = Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([3.0, 3.0, 3.0])})
    >>> round(float(goal(mesh, "T", lambda T, slope, x: T[..., 0] ** 2)), 12)
    9.0
    """
    u, domain = point_values(mesh, field), domain_of(mesh, order)
    slopes = gradient_of(mesh, u, domain).values
    if u.shape[1] == 1:
        slopes = tuple(slope[:, :, None] for slope in slopes)
    parts = zip(interpolate(mesh, u, domain).values, slopes, domain.cells, strict=True)
    return integral(GaussValues(mesh, domain, tuple(density(v, g, c.position.numpy()) for v, g, c in parts)))


def boundary_goal(
    mesh: Mesh,
    field: str | Sequence[str],
    set: str,
    density: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    order: int | None = None,
) -> np.ndarray:
    """J(u) = ∫ j(u, n, x) over the boundary facets of a set, n the outward normal.

    Args:
        mesh, field, order: see `gno.post.gauss.gradient`.
        set: name of a point set, or ``"boundary"`` for all of it.
        density: j, from u (…, n_components), n (…, dim) and x (…, dim) to (…) or (…, k).

    Raises:
        MeshError: no facet of the boundary has all its nodes in the set.
    """
    from gno.physics.quadrature import build_domain  # torch and scikit-fem take seconds to load

    u = point_values(mesh, field)
    facets = build_domain(mesh, order=order, sets=(set,)).facets[set]
    if not sum(len(part.nodes) for part in facets):
        raise MeshError(f"set '{set}': expected whole facets of the boundary, got single nodes ({mesh.source})")
    total: np.ndarray = np.zeros(())
    for part in facets:
        here = np.einsum("qn,cnk->cqk", part.shape.numpy(), u[part.nodes.numpy()])
        values = density(here, part.normal.numpy(), part.position.numpy())
        total = total + np.einsum("cq,cq...->...", part.weight.numpy(), values)
    return total


def largest(mesh: Mesh, field: str, measure: Callable[[np.ndarray], np.ndarray] = np.abs) -> Extreme:
    """Where a field on nodes is largest.

    Args:
        mesh, field: a field on nodes; the magnitude of a vector.
        measure: what is compared; the absolute value by default.
    """
    values = point_values(mesh, field)
    size = np.linalg.norm(values, axis=1) if values.shape[1] > 1 else values[:, 0]
    node = int(np.argmax(measure(size)))
    return Extreme(float(size[node]), node, mesh.points[node])
