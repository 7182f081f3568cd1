"""What may be wrong with a mesh: turned over, flat, torn, double, unused."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int
from scipy.spatial import KDTree

from gno.mesh.geometry import Group, cell_volume, components, domain_dim, groups, mesh_edges, simplex_volumes
from gno.mesh.mesh import Mesh

_FLAT = 1e-10
"""Size below which a cell counts as flat, as part of its longest extent to the power of its dimension."""
_CLOSE = 1e-6
"""Distance below which nodes count as one, as part of the median edge."""
_COARSE = 0.01
"""Rounding of coordinates that is told of, as part of the median edge."""


@dataclasses.dataclass(frozen=True, eq=False)
class Quality:
    """Findings about a mesh. Nothing is repaired.

    Args:
        inverted: cells turned over against the rest, or folded so that a part of them is.
        zero_size: cells without a size.
        duplicate_nodes: nodes at the place of one with a lower number.
        unreferenced_nodes: nodes that no cell has; none in a point cloud.
        massless_nodes: nodes with cells, but none of the domain's dimension and with a size; their mass is 0.
        n_parts: connected parts of the domain.
        volume: size of the domain.
        cell_size: smallest, median and largest size of the domain's cells.
        edge_length: shortest, median and longest edge.
        rounding: step between numbers of the coordinates' type at the largest coordinate.
    """

    inverted: Int[np.ndarray, " n_inverted"]
    zero_size: Int[np.ndarray, " n_zero"]
    duplicate_nodes: Int[np.ndarray, " n_duplicate"]
    unreferenced_nodes: Int[np.ndarray, " n_unreferenced"]
    massless_nodes: Int[np.ndarray, " n_massless"]
    n_parts: int
    volume: float
    cell_size: tuple[float, float, float]
    edge_length: tuple[float, float, float]
    rounding: float

    def problems(self) -> tuple[str, ...]:
        """One line for each kind of finding; none for a sound mesh in one part."""
        lines = []
        for name, what in (
            ("inverted", "cells are turned over or folded"),
            ("zero_size", "cells have no size"),
            ("duplicate_nodes", "nodes lie on another"),
            ("unreferenced_nodes", "nodes belong to no cell"),
            ("massless_nodes", "nodes belong to no cell of the domain with a size"),
        ):
            index = getattr(self, name)
            if len(index):
                lines.append(f"{len(index)} {what}, the first is {index[0]}")
        if self.rounding > _COARSE * self.edge_length[1] > 0:
            lines.append(
                f"coordinates are rounded to {self.rounding:.2g}: store doubles, or move the mesh to the origin"
            )
        if self.n_parts > 1:
            lines.append(f"the domain is in {self.n_parts} parts")
        return tuple(lines)


def quality(mesh: Mesh) -> Quality:
    """Look for cells and nodes that a solver or a network would stumble over.

    Args:
        mesh: any mesh; a point cloud has no cells to find fault with.

    Returns:
        numbers of cells and nodes, numbered as in the mesh.

    >>> from gno.mesh import CellBlock
    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    >>> quality(Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2], [0, 1, 1]])),))).problems()
    ('1 cells have no size, the first is 1', '1 nodes belong to no cell, the first is 3')
    """
    dim = domain_dim(mesh)
    domain = list(groups(mesh, dim)) if dim else []
    index = np.concatenate([cells for _, _, cells in domain] or [np.zeros(0, np.int64)])
    size = cell_volume(mesh)[index]
    edges = mesh_edges(mesh)
    length = np.linalg.norm(np.diff(mesh.points[edges], axis=0)[0], axis=1)
    zero = np.sort(np.concatenate([_flat(mesh, group) for group in domain] or [np.zeros(0, np.int64)]))
    used = _nodes_of(mesh)
    massive = np.zeros(mesh.n_nodes, dtype=bool)
    for _, nodes, cells in domain:
        massive[nodes[~np.isin(cells, zero)]] = True
    in_domain = np.unique(components(mesh)[massive])
    return Quality(
        inverted=np.setdiff1d(_inverted(mesh, domain), zero),
        zero_size=zero,
        duplicate_nodes=_duplicates(mesh, length),
        unreferenced_nodes=np.flatnonzero(~used) if mesh.n_cells else np.zeros(0, np.int64),
        massless_nodes=np.flatnonzero(used & ~massive) if dim else np.zeros(0, np.int64),
        n_parts=len(in_domain) if dim else 1,
        volume=float(size.sum()),
        cell_size=_spread(size),
        edge_length=_spread(length),
        rounding=float(np.spacing(np.abs(mesh.points).max())),
    )


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    if not len(values):
        return (0.0, 0.0, 0.0)
    return float(values.min()), float(np.median(values)), float(values.max())


def _nodes_of(mesh: Mesh) -> np.ndarray:
    used = np.zeros(mesh.n_nodes, dtype=bool)
    for block in mesh.cells:
        used[block.nodes] = True
    return used


def _flat(mesh: Mesh, group: Group) -> np.ndarray:
    """Cells of a group without a size, measured by their own extent."""
    kind, nodes, cells = group
    extent = np.ptp(mesh.points[nodes].astype(np.float64), axis=1).max(1)
    total = np.concatenate([np.abs(part.sum(1)) for _, part in simplex_volumes(mesh, kind, nodes)])
    return cells[total <= _FLAT * extent**kind.dim]


def _inverted(mesh: Mesh, domain: list[Group]) -> np.ndarray:
    """Cells with a simplex that is turned against the rest; a plane mesh may be seen from behind as a whole."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for kind, nodes, cells in domain:
        parts = [(v.min(1), v.max(1)) for _, v in simplex_volumes(mesh, kind, nodes)]
        found.append((np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), cells))
    if not found or domain[0][0].dim < mesh.dim:
        # Surfaces and curves in space have no side that is the right one.
        return np.zeros(0, dtype=np.int64)
    low, high, cells = (np.concatenate(column) for column in zip(*found, strict=True))
    behind = mesh.dim == 2 and np.count_nonzero(high < 0) > len(cells) / 2
    return np.sort(cells[high > 0] if behind else cells[low < 0])


def _duplicates(mesh: Mesh, length: np.ndarray) -> np.ndarray:
    reach = _CLOSE * float(np.median(length)) if len(length) else 0.0
    pairs = KDTree(mesh.points).query_pairs(reach, output_type="ndarray")
    return np.unique(pairs.max(1)) if len(pairs) else np.zeros(0, dtype=np.int64)
