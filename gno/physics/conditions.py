"""Boundary conditions from named sets, masks or functions of the position."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gno.mesh import Mesh
from gno.physics.forms import Energy, Law, Parameter, Parameters, dot
from gno.physics.quadrature import Domain

Where = str | Bool[np.ndarray, " n_nodes"] | Callable[[np.ndarray], np.ndarray]
"""A point set by name (``"boundary"`` is all of it), a mask of nodes, or a function of the points that gives one."""


@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Given values, met exactly: ``u = g`` on some nodes, to the bit.

    Args:
        on: point set, mask, or function of the points (n_nodes, dim) that gives a mask.
        value: g: a number for all components, one per component, the name of a point field, values at all nodes
            (n_nodes, …), or a function of the points (n, dim).
        components: which of the unknowns; by default all.

    >>> inflow = Dirichlet(lambda x: x[:, 0] == 0, lambda x: x[:, 1] * (1 - x[:, 1]), components=0)
    """

    on: Where
    value: float | Sequence[float] | np.ndarray | str | Callable[[np.ndarray], np.ndarray] = 0.0
    components: int | Sequence[int] | None = None

    def apply(
        self, mesh: Mesh, domain: Domain, fixed: Bool[np.ndarray, "n c"], values: Float[np.ndarray, "n c"]
    ) -> None:
        """Mark the nodes in ``fixed`` and write g into ``values``; of two conditions at one node the later one holds.

        Raises:
            ValueError: a set, a field, a component or a shape that does not fit.
        """
        c = fixed.shape[1]
        chosen = np.atleast_1d(np.arange(c) if self.components is None else np.asarray(self.components))
        if chosen.min() < 0 or chosen.max() >= c:
            raise ValueError(
                f"Dirichlet on {_called(self.on)}: expected components 0 to {c - 1}, got {self.components}"
            )
        nodes = nodes_on(self.on, mesh, domain)
        given = np.asarray(self._given(mesh, nodes), dtype=values.dtype)
        if given.ndim == 1 and len(given) == len(nodes) != len(chosen):
            given = given[:, None]
        try:
            values[np.ix_(nodes, chosen)] = given
        except ValueError:
            expected = f"({len(nodes)}, {len(chosen)}) values"
            raise ValueError(f"Dirichlet on {_called(self.on)}: expected {expected}, got {given.shape}") from None
        fixed[np.ix_(nodes, chosen)] = True

    def _given(self, mesh: Mesh, nodes: np.ndarray) -> object:
        if isinstance(self.value, str):
            return _field(mesh, self.value)[nodes]
        if callable(self.value):
            return self.value(points_of(mesh)[nodes])
        array = np.asarray(self.value)
        return array[nodes] if array.ndim and len(array) == mesh.n_nodes else array


@dataclasses.dataclass(frozen=True)
class Periodic:
    """One side repeats another: ``u(x) = u(x + shift)``, by making both sides the same unknowns.

    Args:
        on: the side that repeats. to: the side it repeats, the same nodes shifted.
    """

    on: Where
    to: Where

    def pairs(self, mesh: Mesh, domain: Domain) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """Nodes that repeat, and the nodes they repeat.

        Raises:
            ValueError: the two sides do not match, node by node.
        """
        from scipy.spatial import cKDTree

        points = points_of(mesh)
        here, there = nodes_on(self.on, mesh, domain), nodes_on(self.to, mesh, domain)
        moved = points[here] - points[here].mean(0) + points[there].mean(0)
        distance, match = cKDTree(points[there]).query(moved)
        allowed = 1e-6 * np.ptp(points, axis=0).max()
        if len(here) != len(there) or distance.max() > allowed or len(np.unique(match)) != len(here):
            got = f"{len(here)} and {len(there)} nodes, {distance.max():.3g} apart after the shift"
            raise ValueError(f"Periodic {_called(self.on)}, {_called(self.to)}: expected sides that match, got {got}")
        return here, there[match]


@dataclasses.dataclass(frozen=True)
class BoundaryTerm:
    """A law integrated over boundary facets, for example a pressure load:

    >>> def pressure(u, grad, x, p):
    ...     return p["pressure"] * dot(p["normal"], u)
    >>> term = BoundaryTerm("hole", Energy(pressure, components=None), {"pressure": 2.0})

    Args:
        on: point set; its facets are those all of whose nodes are in it. ``"boundary"`` is the whole boundary.
        law: what is integrated, added to the equation.
        parameters: its own, as those of a problem.
    """

    on: str
    law: Law
    parameters: Mapping[str, Any]


def _inflow(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    return -dot(p.vector("flux", u), u)


def _exchange(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    difference = u - p.vector("ambient", u)
    return p["coefficient"] / 2 * dot(difference, difference)


def Neumann(on: str, flux: Parameter | str | np.ndarray) -> BoundaryTerm:  # noqa: N802 - stands beside Dirichlet
    """Given flux into the domain (k ∂u/∂n) or traction (σ n), one per component of the unknowns.

    >>> Neumann("right", (1.0, 0.0)).on
    'right'
    """
    return BoundaryTerm(on, Energy(_inflow, None), {"flux": flux})


def Robin(  # noqa: N802 - stands beside Dirichlet
    on: str, coefficient: Parameter | str | np.ndarray, ambient: Parameter | str | np.ndarray
) -> BoundaryTerm:
    """Exchange with the surroundings, ``k ∂u/∂n = α (u∞ − u)``: α the coefficient, u∞ ambient, one per component."""
    return BoundaryTerm(on, Energy(_exchange, None), {"coefficient": coefficient, "ambient": ambient})


def points_of(mesh: Mesh) -> Float[np.ndarray, "n_nodes dim"]:
    """Node coordinates in float64, without the third column of a planar mesh."""
    from gno.physics import elements  # which loads scikit-fem

    return elements.points_of(mesh)


def nodes_on(on: Where, mesh: Mesh, domain: Domain) -> Int[np.ndarray, " n"]:
    """Nodes of a point set, a mask, or a function of the points.

    Raises:
        ValueError: no such set, a mask of another length, or no node at all.
    """
    if isinstance(on, str):
        if on in mesh.point_sets:
            nodes = mesh.point_sets[on]
        elif on == "boundary":
            nodes = boundary_nodes(domain)
        else:
            known = ", ".join(["boundary", *mesh.point_sets])
            raise ValueError(f"point_sets['{on}']: expected one of {known} ({mesh.source})")
    else:
        mask = np.asarray(on(points_of(mesh)) if callable(on) else on)
        if mask.shape != (mesh.n_nodes,) or mask.dtype != bool:
            got = f"{mask.dtype} {mask.shape}"
            raise ValueError(f"condition: expected a mask of {mesh.n_nodes} nodes, got {got} ({mesh.source})")
        nodes = np.flatnonzero(mask)
    if not len(nodes):
        raise ValueError(f"condition on {_called(on)}: expected nodes, got none ({mesh.source})")
    return nodes


def boundary_nodes(domain: Domain) -> Int[np.ndarray, " n"]:
    """Nodes of the boundary's facets, mid-side nodes too."""
    # A facet knows all nodes of its cell; those at ``local`` are its own.
    parts = domain.facets["boundary"]
    nodes = [p.nodes[:, p.local].cpu().numpy().ravel() for p in parts]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *nodes]))


def _field(mesh: Mesh, name: str) -> np.ndarray:
    if name not in mesh.point_fields:
        known = ", ".join(mesh.point_fields) or "none"
        raise ValueError(f"point_fields['{name}']: expected one of {known} ({mesh.source})")
    return mesh.point_fields[name]


def _called(on: Where) -> str:
    return f"'{on}'" if isinstance(on, str) else getattr(on, "__name__", "a mask")
