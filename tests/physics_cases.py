"""Meshes of every element, as the tests of operators need them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import skfem
import torch
from scipy.sparse.linalg import spsolve

from gno.mesh import CellBlock, Mesh
from gno.physics.fem import from_skfem
from gno.physics.quadrature import Domain, build_domain

ELEMENTS = {
    "triangle": (skfem.MeshTri, skfem.ElementTriP1),
    "triangle6": (skfem.MeshTri, skfem.ElementTriP2),
    "quad": (skfem.MeshQuad, skfem.ElementQuad1),
    "quad8": (skfem.MeshQuad, skfem.ElementQuadS2),
    "quad9": (skfem.MeshQuad, skfem.ElementQuad2),
    "tetra": (skfem.MeshTet, skfem.ElementTetP1),
    "tetra10": (skfem.MeshTet, skfem.ElementTetP2),
    "hexahedron": (skfem.MeshHex, skfem.ElementHex1),
    "hexahedron20": (skfem.MeshHex, skfem.ElementHexS2),
    "hexahedron27": (skfem.MeshHex, skfem.ElementHex2),
}
SOLIDS = [*ELEMENTS, "wedge", "mixed"]
QUADRATIC = ["triangle6", "quad8", "quad9", "tetra10", "hexahedron20", "hexahedron27"]


def box(cell_type: str, n: int) -> Mesh:
    """The unit square or cube, n cells along each side; "mixed" has triangles and quadrilaterals."""
    line = np.linspace(0, 1, n + 1)
    if cell_type == "mixed":
        quads = box("quad", n)
        return split_left(quads)
    if cell_type == "wedge":
        return extruded(box("triangle", n), n)
    kind, element = ELEMENTS[cell_type]
    dim = element().dim
    basis = skfem.CellBasis(kind.init_tensor(*[line] * dim), element())
    mesh = from_skfem(basis, np.zeros(basis.N), "u")
    return mesh.replace(point_fields={})


def split_left(quads: Mesh) -> Mesh:
    nodes = quads.cells[0].nodes
    left = quads.points[nodes][..., 0].mean(1) < 0.5
    a, b, c, d = nodes[left].T
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(quads.points, (CellBlock("triangle", triangles), CellBlock("quad", nodes[~left])))


def extruded(flat: Mesh, n: int) -> Mesh:
    size, triangles = flat.n_nodes, flat.cells[0].nodes
    points = np.concatenate([np.column_stack([flat.points, np.full(size, z)]) for z in np.linspace(0, 1, n + 1)])
    wedges = np.concatenate([np.hstack([triangles + k * size, triangles + (k + 1) * size]) for k in range(n)])
    return Mesh(points, (CellBlock("wedge", wedges),))


def bent(mesh: Mesh, size: float = 0.08) -> Mesh:
    """A smooth map of the box, so that cells are skew and quadratic ones curved."""
    x = mesh.points
    shift = np.stack([np.sin(2 * x[:, (d + 1) % x.shape[1]] + d + x[:, d]) for d in range(x.shape[1])], axis=1)
    return mesh.replace(points=x + size * shift)


def sphere(n: int, quadratic: bool = False) -> Mesh:
    """The unit sphere in 3-D: an octahedron, refined n times."""
    corners = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [1, 0, 5], [2, 1, 5], [3, 2, 5], [0, 3, 5]])
    for _ in range(n):
        corners, faces = refined(corners, faces)
    if quadratic:
        corners, mid = with_middles(corners, faces)
        faces = np.hstack([faces, mid])
    points = corners / np.linalg.norm(corners, axis=1)[:, None]
    return Mesh(points, (CellBlock("triangle6" if quadratic else "triangle", faces),))


def with_middles(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    sides, place = np.unique(sides, axis=0, return_inverse=True)
    middle = points[sides].mean(1)
    return np.vstack([points, middle / np.linalg.norm(middle, axis=1)[:, None]]), len(points) + place.reshape(-1, 3)


def refined(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, mid = with_middles(points, faces)
    (a, b, c), (ab, bc, ca) = faces.T, mid.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return points, np.concatenate([np.stack(part, axis=1) for part in parts])


def boundary_nodes(mesh: Mesh) -> np.ndarray:
    parts = build_domain(mesh).facets["boundary"]
    return np.unique(np.concatenate([part.nodes[:, part.local].numpy().ravel() for part in parts]))


def solved(matrix: sp.csr_array, right: np.ndarray, values: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Solution of a linear system with given values at some unknowns."""
    free = np.setdiff1d(np.arange(len(right)), fixed)
    u = values.copy()
    rows = sp.csr_array(matrix)[free]
    u[free] = spsolve(sp.csc_matrix(rows[:, free]), right[free] - rows[:, fixed] @ values[fixed])
    return u


def error(domain: Domain, u: np.ndarray, exact, *, gradients: bool = False) -> float:
    """L2 norm of the difference of a node field, or its gradient, to an exact function of position."""
    columns = torch.from_numpy(u.reshape(domain.n_nodes, -1))
    found = domain.gradients(columns) if gradients else domain.values(columns)
    total = 0.0
    for part, values in zip(domain.cells, found, strict=True):
        difference = values - exact(part.position).reshape(values.shape)
        total += float((part.weight * difference.square().flatten(2).sum(-1)).sum())
    return total**0.5


def rate(errors: list[float]) -> float:
    """Order of convergence at the last halving."""
    return float(np.log2(errors[-2] / errors[-1]))
