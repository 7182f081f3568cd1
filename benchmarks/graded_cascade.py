"""Potential flow without circulation through rows of bodies, on triangles that grow some twentyfold away from them."""

from __future__ import annotations

import itertools

import numpy as np
import skfem
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from skfem.helpers import dot, grad

from gno.demo.plates import skfem_mesh
from gno.demo.shapes import divide, random_star, triangulate
from gno.mesh import CellBlock, Mesh

LENGTH, PITCH = 3.0, 1.0  # of the passage
COARSE, FINE = 0.12, 0.006  # cells at its ends and at the body


def cascade(seed: int) -> Mesh:
    """One body of random shape in a passage that repeats in y, in a flow of unit speed and random angle far away.

    Global field `inflow` (2); point fields `velocity` (n, 2) and `pressure`, 1 − |u|²; point sets `body`, `in`, `out`.
    """
    rng = np.random.default_rng([seed, 0xCA5C])
    star = random_star(rng, np.array([0.0, rng.uniform(-0.2, 0.2)]), rng.uniform(0.07, 0.16))
    angle = rng.uniform(-0.5, 0.5)
    inflow = np.array([np.cos(angle), np.sin(angle)])
    body = star.polygon(FINE)
    points, triangles = triangulate(_passage(), [body[::-1]])
    velocity = flow(Mesh(points, (CellBlock("triangle", triangles),)), inflow, PITCH)
    sets = {"body": np.arange(len(_passage()), len(_passage()) + len(body))}
    sets |= {name: np.flatnonzero(points[:, 0] == x) for name, x in (("in", -LENGTH / 2), ("out", LENGTH / 2))}
    fields = {"velocity": velocity, "pressure": 1 - (velocity**2).sum(1)}
    return Mesh(
        points,
        (CellBlock("triangle", triangles),),
        fields,
        global_fields={"inflow": inflow},
        point_sets=sets,
        period=(0.0, PITCH),
        source=f"cascade {seed}",
    )


def _passage() -> np.ndarray:
    """Corners of the outline, the same above as below."""
    corners = np.array([[-LENGTH, -PITCH], [LENGTH, -PITCH], [LENGTH, PITCH], [-LENGTH, PITCH], [-LENGTH, -PITCH]]) / 2
    sides = itertools.pairwise(corners)
    return np.concatenate([divide(np.stack(side), np.full(1, COARSE))[:-1] for side in sides])


def flow(mesh: Mesh, inflow: np.ndarray, pitch: float) -> np.ndarray:
    """U + ∇χ at the nodes, of −∇²χ = 0, ∂χ/∂n = −U·n at the body and 0 at both ends, χ of period `pitch` in y.

    Quadratic elements; the gradient is projected on them, too.
    """
    basis = skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2(), intorder=4)
    x, y = basis.doflocs
    merge = _merged(x, y, pitch)
    inside = lambda x: (np.abs(x[0]) < LENGTH / 2 - 1e-9) & (np.abs(x[1]) < pitch / 2 - 1e-9)  # noqa: E731
    wall = skfem.FacetBasis(basis.mesh, basis.elem, facets=basis.mesh.facets_satisfying(inside, boundaries_only=True))
    stiffness = skfem.BilinearForm(lambda u, v, w: dot(grad(u), grad(v))).assemble(basis)
    load = skfem.LinearForm(lambda v, w: -(inflow[0] * w.n[0] + inflow[1] * w.n[1]) * v).assemble(wall)
    matrix = (merge.T @ stiffness @ merge).tocsc()
    chi = np.zeros(matrix.shape[0])
    chi[1:] = splu(matrix[1:, 1:]).solve((merge.T @ load)[1:])
    mass = splu((merge.T @ skfem.BilinearForm(lambda u, v, w: u * v).assemble(basis) @ merge).tocsc())
    slope = basis.interpolate(merge @ chi).grad
    parts = [skfem.LinearForm(lambda v, w, k=k: slope[k] * v).assemble(basis) for k in range(2)]
    nodes = basis.nodal_dofs[0]
    return inflow + np.stack([(merge @ mass.solve(merge.T @ part))[nodes] for part in parts], axis=1)


def _merged(x: np.ndarray, y: np.ndarray, pitch: float) -> csr_matrix:
    """From the unknowns to all degrees of freedom: those above are those below."""
    place = np.stack([x, np.where(y > pitch / 2 - 1e-9, y - pitch, y)], axis=1).round(9)
    _, which = np.unique(place + 0.0, axis=0, return_inverse=True)
    return csr_matrix((np.ones(len(x)), (np.arange(len(x)), which.ravel())))
