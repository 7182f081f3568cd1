"""Meshes and solved problems that the tests of post-processing share; scikit-fem alone solves them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import skfem
from skfem.helpers import ddot, eye, sym_grad, trace

from gno.mesh import CellBlock, Mesh
from gno.mesh.shapes import reference_nodes

Field = Callable[[np.ndarray], np.ndarray]

# Cell type: a mesh and an element of scikit-fem, and the order that its rules need for a mass matrix.
ELEMENTS = {
    "triangle": (skfem.MeshTri().refined(2), skfem.ElementTriP1(), 2),
    "triangle6": (skfem.MeshTri().refined(1), skfem.ElementTriP2(), 4),
    "quad": (skfem.MeshQuad().refined(2), skfem.ElementQuad1(), 3),
    "quad8": (skfem.MeshQuad().refined(1), skfem.ElementQuadS2(), 5),
    "quad9": (skfem.MeshQuad().refined(1), skfem.ElementQuad2(), 5),
    "tetra": (skfem.MeshTet().refined(1), skfem.ElementTetP1(), 2),
    "tetra10": (skfem.MeshTet().refined(1), skfem.ElementTetP2(), 4),
    "hexahedron": (skfem.MeshHex().refined(1), skfem.ElementHex1(), 3),
    "hexahedron20": (skfem.MeshHex().refined(1), skfem.ElementHexS2(), 5),
    "hexahedron27": (skfem.MeshHex().refined(1), skfem.ElementHex2(), 5),
}


@dataclasses.dataclass(frozen=True)
class Twin:
    """The same field twice: on a Mesh, and as scikit-fem's coefficients; straight cells, moved nodes.

    Args:
        mesh: with a random vector field ``u`` and a random scalar ``T``.
        scalar, vector: bases of scikit-fem's own numbering, which the mesh's nodes have too.
        number: degree of freedom of node and component in the vector basis.
        u: coefficients of ``u`` in the vector basis.
    """

    mesh: Mesh
    scalar: skfem.Basis
    vector: skfem.Basis
    number: np.ndarray
    u: np.ndarray


def twin(cell_type: str, seed: int = 0) -> Twin:
    """Random fields on cells of one type."""
    rng = np.random.default_rng(seed)
    grid, element, order = ELEMENTS[cell_type]
    bulk = np.prod(grid.p * (1 - grid.p), axis=0)
    grid = type(grid)(grid.p + 0.5 * bulk * rng.normal(size=grid.p.shape), grid.t)
    scalar = skfem.Basis(grid, element, intorder=order)
    vector = skfem.Basis(grid, skfem.ElementVector(element), intorder=order)
    dim, n = grid.dim(), scalar.N
    number = np.zeros((n, dim), dtype=int)
    for k in range(dim):
        number[scalar.element_dofs, k] = vector.element_dofs[k::dim]
    distance = np.abs(reference_nodes(cell_type, scalar.Nbfun)[:, None] - element.doflocs[None]).sum(-1)
    block = CellBlock(cell_type, scalar.element_dofs[distance.argmin(1)].T.astype(np.int64))
    u, temperature = rng.normal(size=(n, dim)), rng.normal(size=n)
    coefficients = np.zeros(vector.N)
    coefficients[number] = u
    points = scalar.doflocs.T
    sets = {"left": np.flatnonzero(points[:, 0] == 0), "right": np.flatnonzero(points[:, 0] == 1)}
    mesh = Mesh(points, (block,), {"u": u, "T": temperature}, point_sets=sets, source=cell_type)
    return Twin(mesh, scalar, vector, number, coefficients)


def lame(young: float, poisson: float, plane: str | None) -> tuple[float, float]:
    """λ and μ, with the λ of plane stress where that is meant."""
    mu = young / (2 * (1 + poisson))
    lam = young * poisson / ((1 + poisson) * (1 - 2 * poisson))
    return (2 * lam * mu / (lam + 2 * mu) if plane == "stress" else lam), mu


def stress_form(lam: float, mu: float):
    """The bilinear form of linear elasticity, as scikit-fem's users write it."""

    @skfem.BilinearForm
    def form(u, v, w):
        strain = sym_grad(u)
        return ddot(lam * eye(trace(strain), strain.shape[0]) + 2 * mu * strain, sym_grad(v))

    return form


def traction_load(basis: skfem.Basis, facets: np.ndarray, traction) -> np.ndarray:
    """∫ t·v over facets; ``traction`` takes positions and normals, (dim, …) each."""
    edge = skfem.FacetBasis(basis.mesh, basis.elem, facets=facets, intorder=6)
    return skfem.LinearForm(lambda v, w: sum(t * c for t, c in zip(traction(w.x, w.n), v, strict=True))).assemble(edge)


def grid(n_x: int, n_y: int, place: Field, cell_type: str) -> Mesh:
    """The unit square's grid of cells, its nodes moved by ``place`` from (n, 2) to (n, 2); counter-clockwise."""
    step = 2 if cell_type in ("triangle6", "quad8", "quad9") else 1
    x, y = np.meshgrid(np.linspace(0, 1, step * n_x + 1), np.linspace(0, 1, step * n_y + 1), indexing="ij")
    number = np.arange(x.size).reshape(x.shape)
    at = [
        [number[i : i + step * n_x : step, j : j + step * n_y : step].ravel() for j in range(step + 1)]
        for i in range(step + 1)
    ]
    if cell_type == "triangle":
        cells = [(at[0][0], at[1][0], at[1][1]), (at[0][0], at[1][1], at[0][1])]
    elif cell_type == "quad":
        cells = [(at[0][0], at[1][0], at[1][1], at[0][1])]
    elif cell_type == "triangle6":
        cells = [
            (at[0][0], at[2][0], at[2][2], at[1][0], at[2][1], at[1][1]),
            (at[0][0], at[2][2], at[0][2], at[1][1], at[1][2], at[0][1]),
        ]
    else:
        corners = (at[0][0], at[2][0], at[2][2], at[0][2], at[1][0], at[2][1], at[1][2], at[0][1])
        cells = [corners + ((at[1][1],) if cell_type == "quad9" else ())]
    nodes = np.concatenate([np.stack(cell, axis=1) for cell in cells])
    sides = {"left": number[0], "right": number[-1], "bottom": number[:, 0], "top": number[:, -1]}
    used, numbered = np.unique(nodes, return_inverse=True)  # the middle of a serendipity cell has no node
    points = place(np.stack([x.ravel(), y.ravel()], axis=1))[used]
    sets = {name: np.flatnonzero(np.isin(used, side)) for name, side in sides.items()}
    return Mesh(
        points, (CellBlock(cell_type, numbered.reshape(nodes.shape)),), point_sets=sets, source=f"{cell_type} grid"
    )
