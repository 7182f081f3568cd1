"""Fields along lines and on planes, as the shape functions carry them: a probe is a Mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy import sparse

from gno.mesh import CellBlock, Mesh, MeshError
from gno.mesh.locate import containing_cells

if TYPE_CHECKING:
    from gno.physics.elements import NodeMapping

# From the middle of a cell of sensible shape, half as many are enough for all digits.
NEWTON_STEPS = 12


def line(mesh: Mesh, start: Sequence[float], stop: Sequence[float], n: int = 101) -> Mesh:
    """All fields at n equally spaced points from ``start`` to ``stop``.

    Returns:
        A mesh of lines with the point fields of ``mesh``, its cell fields at the points, and ``distance`` from
        ``start``; NaN outside the mesh.

    Raises:
        ValueError: points of another dimension, or no length.
        MeshError: the line does not meet the mesh.

    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> mesh = Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([0.0, 6.0, 1.0])})
    >>> line(mesh, (0, 0), (1, 0), n=3).point_fields["T"].round(12).tolist()
    [0.0, 1.5, 3.0]
    """
    ends = np.stack([_place(mesh, start, "start"), _place(mesh, stop, "stop")])
    if n < 2 or not np.ptp(ends, axis=0).any():
        raise ValueError(f"line: expected two ends and at least 2 points, got {list(start)}, {list(stop)} and {n}")
    share = np.linspace(0, 1, n)[:, None]
    points = (1 - share) * ends[0] + share * ends[1]
    block = CellBlock("line", np.stack([np.arange(n - 1), np.arange(1, n)], axis=1))
    found = _probed(mesh, points, f"line through {mesh.source}")
    distance = share[:, 0] * np.linalg.norm(ends[1] - ends[0])
    return found.replace(cells=(block,)).with_point_fields(distance=distance)


def plane(mesh: Mesh, origin: Sequence[float], normal: Sequence[float], spacing: float) -> Mesh:
    """All fields on a plane through a solid, on a grid of squares.

    Args:
        mesh: a mesh in 3-D.
        origin: a point of the plane, and a node of the grid.
        normal: its normal, of any length.
        spacing: side of the squares, in the mesh's unit of length.

    Returns:
        A mesh of the squares inside the solid, with the point fields of ``mesh`` and its cell fields at the points.

    Raises:
        ValueError: a planar mesh, or no normal.
        MeshError: the plane does not meet the mesh.
    """
    if mesh.dim != 3:
        raise ValueError(f"plane: expected a mesh in 3-D, got one in {mesh.dim}-D ({mesh.source})")
    centre, direction = _place(mesh, origin, "origin"), _place(mesh, normal, "normal")
    if not direction.any() or not spacing > 0:
        raise ValueError(f"plane: expected a normal and a spacing, got {list(normal)} and {spacing:g}")
    axes = _in_plane(direction / np.linalg.norm(direction))
    reach = (mesh.points - centre) @ axes.T
    low, high = np.floor(reach.min(0) / spacing).astype(int), np.ceil(reach.max(0) / spacing).astype(int)
    i, j = np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True)), indexing="ij")
    points = centre + spacing * (i.ravel()[:, None] * axes[0] + j.ravel()[:, None] * axes[1])
    number = np.arange(len(points)).reshape(i.shape)
    corners = [number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]]
    quads = np.stack([corner.ravel() for corner in corners], axis=1)
    inside = containing_cells(mesh, points) >= 0
    quads = quads[inside[quads].all(1)]
    if not len(quads):
        raise MeshError(f"plane: expected squares of {spacing:g} inside the mesh, got none ({mesh.source})")
    used, numbered = np.unique(quads, return_inverse=True)
    found = _probed(mesh, points[used], f"plane through {mesh.source}")
    return found.replace(cells=(CellBlock("quad", numbered.reshape(-1, 4)),))


def probe_matrix(mesh: Mesh, points: Float[np.ndarray, "n dim"]) -> sparse.csr_matrix:
    """Matrix (n, n_nodes) of the shape functions at points; empty rows outside the mesh.

    Unlike `gno.mesh.interpolation`, which is linear between nodes, this is what the elements themselves say.

    Raises:
        MeshError: no point lies in the mesh, or cells without an element.
    """
    from gno.physics.elements import (
        NodeMapping,
        domain_cells,
        points_of,
        shape_functions,
    )  # scikit-fem takes a while to load

    cell = containing_cells(mesh, points)
    if not (cell >= 0).any():
        raise MeshError(f"points: expected some inside the mesh, got {len(points)} outside ({mesh.source})")
    matrix = sparse.csr_matrix((len(points), mesh.n_nodes))
    for part in domain_cells(mesh):
        place = np.full(mesh.n_cells + 1, -1)
        place[part.index] = np.arange(len(part.index))
        here = np.flatnonzero(place[cell] >= 0)
        own = place[cell[here]]
        mapping = NodeMapping(points_of(mesh), part.nodes, part.element)
        local = _local(mapping, points[here, : mesh.dim].T[:, :, None], own, part.element.refdom.p.mean(1))
        phi = shape_functions(part.element, local)[0][:, :, 0].T
        rows = np.repeat(here, part.nodes.shape[1])
        matrix = matrix + sparse.csr_matrix((phi.ravel(), (rows, part.nodes[own].ravel())), matrix.shape)
    return matrix


def _local(mapping: NodeMapping, x: np.ndarray, cell: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Places of points (dim, n, 1) in the reference cell, by Newton's method from its middle."""
    local = np.broadcast_to(middle[:, None, None], (len(middle), x.shape[1], 1)).copy()
    for _ in range(NEWTON_STEPS):
        local += np.einsum("rdcq,dcq->rcq", mapping.invDF(local, cell), x - mapping.F(local, cell))
    return local


def _probed(mesh: Mesh, points: np.ndarray, source: str) -> Mesh:
    """A cloud of points with the fields of the mesh."""
    matrix, cell = probe_matrix(mesh, points), containing_cells(mesh, points)
    outside = cell < 0
    fields = {}
    for name, values in mesh.point_fields.items():
        if values.dtype.kind in "fiub":
            fields[name] = (matrix @ values.reshape(mesh.n_nodes, -1).astype(np.float64)).reshape(-1, *values.shape[1:])
    for name, values in mesh.cell_fields.items():
        if values.dtype.kind in "fiub" and name not in fields:
            fields[name] = values[cell].astype(np.float64)
    for values in fields.values():
        values[outside] = np.nan
    full = np.tile(mesh.points[:1].astype(np.float64), (len(points), 1))  # a planar mesh may lie at any height
    full[:, : points.shape[1]] = points
    return Mesh(full, (), fields, time=mesh.time, source=source)


def _place(mesh: Mesh, values: Sequence[float], what: str) -> Float[np.ndarray, " dim"]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (mesh.dim,):
        raise ValueError(f"{what}: expected {mesh.dim} coordinates, got {array.tolist()} ({mesh.source})")
    return array


def _in_plane(normal: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "2 3"]:
    """Two unit vectors that make a right-handed frame with the normal; along axes where it is one."""
    first = np.eye(3)[(int(np.abs(normal).argmax()) + 1) % 3]
    first = first - (first @ normal) * normal
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])
