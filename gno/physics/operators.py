"""Discrete operators on any mesh, assembled once by scikit-fem, applied by torch.

Rows and columns are nodes; of vectors ``node * dim + component``, so that a vector field (n_nodes, dim) enters as
``operator @ u.reshape(-1)``. A weak operator has a test function in each row, ``(A u)_i = ∫ N_i …``; divide by
:func:`lumped_mass` or solve with :func:`mass` for values at the nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import skfem
import torch
from jaxtyping import Float
from skfem import helpers
from torch import Tensor

from gno.mesh import Mesh, MeshError
from gno.physics.elements import domain_cells, shape_functions
from gno.physics.fem import skfem_basis, skfem_sides
from gno.physics.sparse import Sparse

Coefficient = float | np.ndarray
"""A number, or values per node or per cell (first axis); tensors have two more axes."""


def mass(mesh: Mesh, density: Coefficient = 1.0) -> Sparse:
    """Consistent mass matrix, ``M_ij = ∫ ρ N_i N_j``.

    Args:
        mesh: the mesh.
        density: ρ.

    Returns:
        Matrix (n_nodes, n_nodes); it acts on every column of (n_nodes, c).

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.0], [6.0]]), (CellBlock("line", np.array([[0, 1]])),))
    >>> mass(line).to_scipy().toarray()
    array([[2., 1.],
           [1., 2.]])
    """
    return _assembled(mesh, lambda u, v, w: w.rho * u * v, rho=density)


def lumped_mass(mesh: Mesh) -> Float[Tensor, " n_nodes"]:
    """Diagonal mass matrix with positive entries on every element, ``m_i = Σ_cells |c| ∫N_i² / Σ_j ∫N_j²``.

    On straight simplices these are the row sums of :func:`mass`; row sums of quadratic cells are zero or negative at
    corners.

    Returns:
        Masses, which sum to the volume; 0 at nodes that no cell of the domain touches.

    Source: Hinton, Rock and Zienkiewicz, A note on mass lumping and related processes in the finite element method,
    Earthquake Engineering and Structural Dynamics 4 (1976).

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.0], [6.0]]), (CellBlock("line", np.array([[0, 1]])),))
    >>> lumped_mass(line)
    tensor([3., 3.], dtype=torch.float64)
    """
    total = np.zeros(mesh.n_nodes)
    for basis in skfem_basis(mesh):
        square = np.array([(shape[0] ** 2 * basis.dx).sum(1) for shape in basis.basis])
        share = square / square.sum(0) * basis.dx.sum(1)
        total += np.bincount(basis.element_dofs.ravel(), share.ravel(), minlength=mesh.n_nodes)
    return torch.from_numpy(total)


def stiffness(mesh: Mesh, coefficient: Coefficient = 1.0) -> Sparse:
    """Stiffness matrix, ``K_ij = ∫ ∇N_i · k ∇N_j``; on surfaces in 3-D that of the Laplace–Beltrami operator.

    Args:
        mesh: the mesh.
        coefficient: k, scalar or tensor (…, dim, dim).

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.0], [2.0]]), (CellBlock("line", np.array([[0, 1]])),))
    >>> stiffness(line, 4.0).to_scipy().toarray()
    array([[ 2., -2.],
           [-2.,  2.]])
    """
    if np.ndim(coefficient) > 1:
        return _assembled(mesh, lambda u, v, w: np.einsum("i...,ij...,j...", v.grad, w.k, u.grad), k=coefficient)
    return _assembled(mesh, lambda u, v, w: w.k * helpers.dot(u.grad, v.grad), k=coefficient)


def gradient(mesh: Mesh) -> Sparse:
    """Weak gradient of a scalar, ``(G u)_(i,d) = ∫ N_i ∂u/∂x_d``; tangential on surfaces.

    Returns:
        Matrix (n_nodes * dim, n_nodes); ``(G @ u).reshape(-1, dim) / lumped_mass[:, None]`` is a gradient at the nodes.
    """
    return _assembled(mesh, lambda u, v, w: helpers.dot(u.grad, v), test=mesh.dim)


def divergence(mesh: Mesh) -> Sparse:
    """Weak divergence of a vector field, ``(D u)_i = ∫ N_i ∇·u``; (n_nodes, n_nodes * dim)."""
    return _assembled(mesh, lambda u, v, w: np.einsum("ii...", u.grad) * v, trial=mesh.dim)


def curl(mesh: Mesh) -> Sparse:
    """Weak curl of a vector field, ``∫ N_i (∂u_y/∂x − ∂u_x/∂y)`` in 2-D, ``∫ N_i (∇×u)_d`` in 3-D.

    Returns:
        Matrix (n_nodes, n_nodes * 2) in 2-D, (n_nodes * 3, n_nodes * 3) in 3-D.

    Raises:
        MeshError: the cells do not fill the plane or the space.
    """
    _check_solid(mesh, "curl")
    if mesh.dim == 2:
        return _assembled(mesh, lambda u, v, w: helpers.curl(u) * v, trial=2)
    return _assembled(mesh, lambda u, v, w: helpers.dot(helpers.curl(u), v), trial=3, test=3)


def boundary_flux(mesh: Mesh, name: str = "boundary") -> Sparse:
    """Flux of a vector field out of the boundary, ``(B u)_i = ∫_Γ N_i u·n``; (n_nodes, n_nodes * dim).

    The sum of ``B u`` is ``∫_Γ u·n``, and on all of the boundary the sum of ``divergence @ u``, by the divergence
    theorem.

    Args:
        mesh: the mesh.
        name: the point set whose facets make Γ, those with all their nodes in it; or ``"boundary"`` for all.

    Raises:
        ValueError: the mesh has no such set.
    """
    shape = (mesh.n_nodes, mesh.n_nodes * mesh.dim)
    pairs = zip(skfem_sides(mesh, name, n_components=mesh.dim), skfem_sides(mesh, name), strict=True)
    flux = skfem.BilinearForm(lambda u, v, w: helpers.dot(u, w.n) * v)
    return _sum((flux.coo_data(trial, test) for trial, test in pairs), shape)


def elasticity(mesh: Mesh, young: Coefficient, poisson: Coefficient) -> Sparse:
    """Stiffness of linear elasticity, ``∫ λ ∇·u ∇·v + 2μ ε(u):ε(v)``; plane strain in 2-D.

    Args:
        mesh: the mesh.
        young: Young's modulus E.
        poisson: Poisson's ratio ν, below 1/2.

    Returns:
        Matrix (n_nodes * dim, n_nodes * dim).

    Raises:
        MeshError: the cells do not fill the plane or the space.
    """
    young, poisson = np.asarray(young), np.asarray(poisson)
    return _elasticity(mesh, young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson)))


def plane_stress(mesh: Mesh, young: Coefficient, poisson: Coefficient) -> Sparse:
    """Stiffness of a thin plate in its plane, as :func:`elasticity` with ``λ = E ν / (1 − ν²)``; per thickness.

    Raises:
        MeshError: the mesh is not planar.
    """
    if mesh.dim != 2:
        raise MeshError(f"plane stress: expected a planar mesh, got a {mesh.dim}-D one ({mesh.source})")
    young, poisson = np.asarray(young), np.asarray(poisson)
    return _elasticity(mesh, young * poisson / (1 - poisson**2), young / (2 * (1 + poisson)))


def _elasticity(mesh: Mesh, first: Coefficient, shear: Coefficient) -> Sparse:
    _check_solid(mesh, "elasticity")

    def form(u, v, w):
        strain = helpers.sym_grad(u), helpers.sym_grad(v)
        return w.first * helpers.trace(strain[0]) * helpers.trace(strain[1]) + 2 * w.shear * helpers.ddot(*strain)

    return _assembled(mesh, form, trial=mesh.dim, test=mesh.dim, first=first, shear=shear)


def _assembled(
    mesh: Mesh, form: Callable, *, trial: int | None = None, test: int | None = None, **coefficients: Coefficient
) -> Sparse:
    """A bilinear form over all cells, its coefficients at the quadrature points in ``w``."""
    columns = skfem_basis(mesh, n_components=trial)
    rows = columns if test == trial else skfem_basis(mesh, n_components=test)
    bilinear = skfem.BilinearForm(form)
    values = {name: _at_points(mesh, name, value, columns) for name, value in coefficients.items()}
    parts = (
        bilinear.coo_data(u, v, **{name: found[k] for name, found in values.items()})
        for k, (u, v) in enumerate(zip(columns, rows, strict=True))
    )
    return _sum(parts, (mesh.n_nodes * (test or 1), mesh.n_nodes * (trial or 1)))


def _sum(parts, shape: tuple[int, int]) -> Sparse:
    """One matrix from the entries on all bases."""
    total = sp.csr_array(shape)
    for part in parts:
        total = total + sp.csr_array(sp.coo_array((part.data, tuple(part.indices)), shape=shape))
    return Sparse.from_scipy(total)


def _at_points(mesh: Mesh, name: str, value: Coefficient, bases: list[skfem.CellBasis]) -> list[np.ndarray | float]:
    """A coefficient at the quadrature points of each basis, tensor axes first as scikit-fem has them."""
    values = np.asarray(value, dtype=np.float64)
    if values.ndim == 0:
        return [float(values)] * len(bases)
    if len(values) not in (mesh.n_nodes, mesh.n_cells) or mesh.n_nodes == mesh.n_cells:
        same = f", but as many nodes as cells ({mesh.n_nodes})" if mesh.n_nodes == mesh.n_cells else ""
        expected = f"a number, or values of {mesh.n_nodes} nodes or {mesh.n_cells} cells"
        raise ValueError(f"{name}: expected {expected}, got shape {values.shape}{same} ({mesh.source})")
    found = []
    for cells, basis in zip(domain_cells(mesh), bases, strict=True):
        if len(values) == mesh.n_nodes:
            phi, _ = shape_functions(cells.element, basis.X)
            here = np.einsum("jq,cj...->cq...", phi, values[cells.nodes])
        else:
            here = np.repeat(values[cells.index][:, None], basis.X.shape[1], axis=1)
        found.append(np.moveaxis(here, (0, 1), (-2, -1)))
    return found


def _check_solid(mesh: Mesh, what: str) -> None:
    dim = domain_cells(mesh)[0].element.dim
    if dim != mesh.dim:
        raise MeshError(f"{what}: expected cells that fill {mesh.dim}-D space, got {dim}-D cells ({mesh.source})")
