"""The Laplacian of linear elements on any mesh, for what needs it without a solver."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from gno.mesh.geometry import domain_dim, groups, node_mass, simplex_volumes
from gno.mesh.mesh import Mesh
from gno.mesh.periodic import repeats
from gno.mesh.shapes import Shape

# Circumcentric masses vanish where triangles are obtuse; no node gets less than this share of its ordinary mass.
LEAST = 0.3
# Rows of the Laplacian that explicit steps are made with, against the median row of the mesh.
STEEPEST = 1.5


def laplacian(mesh: Mesh) -> sp.csr_matrix:
    """``L = −M⁻¹K``, K_ij = ∫ ∇φ_i·∇φ_j with linear elements on the pieces of the cells.

    The masses are ``m_i = Σ_j −K_ij |x_j − x_i|² / 2d``, with which L is right for |x|² inside the domain; on triangles
    these are the circumcentric dual cells. On a surface in space L is that of Laplace and Beltrami. Nothing flows
    through a boundary. Rows of nodes without mass, and of point clouds, are empty. Nodes that repeat each other have
    the same row, with the cells of both, and only the one that is repeated has a column.

    Returns:
        (n_nodes, n_nodes), in one over the square of the user's unit of length; constants are in its kernel.

    Source: Pinkall and Polthier, Computing discrete minimal surfaces and their conjugates (1993), the cotangents.

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.0], [1.0], [2.0]]), (CellBlock("line", np.array([[0, 1], [1, 2]])),))
    >>> laplacian(line).toarray()[1].tolist()
    [1.0, -2.0, 1.0]
    """
    n, mass = mesh.n_nodes, node_mass(mesh)
    stiffness = sp.csr_matrix((n, n))
    for kind, nodes, _ in groups(mesh, domain_dim(mesh)) if domain_dim(mesh) else ():
        local = _stiffness(mesh, kind, nodes)
        row, column = (np.broadcast_to(x, local.shape) for x in (nodes[:, :, None], nodes[:, None, :]))
        stiffness += sp.coo_matrix((local.ravel(), (row.ravel(), column.ravel())), shape=(n, n)).tocsr()
    pairs, points = stiffness.tocoo(), mesh.points[:, : mesh.dim].astype(np.float64)
    square = ((points[pairs.row] - points[pairs.col]) ** 2).sum(1)
    dual = np.bincount(pairs.row, -pairs.data * square, minlength=n) / (2 * max(1, domain_dim(mesh)))
    dual = np.maximum(dual, LEAST * mass)
    if mesh.period:
        place = repeats(mesh)
        fold = sp.csr_matrix((np.ones(n), (np.arange(n), place)), shape=(n, n))
        stiffness, dual, mass = (fold.T @ stiffness @ fold)[place], (fold.T @ dual)[place], (fold.T @ mass)[place]
    inverse = np.divide(1.0, dual, out=np.zeros(n), where=mass > 0)
    found = sp.csr_matrix(sp.diags(-inverse) @ stiffness)
    # Right angles give entries that are zero but for round-off.
    found.data[np.abs(found.data) < 1e-12 * np.abs(found.data).max(initial=0.0)] = 0.0
    found.eliminate_zeros()
    return found


def _stiffness(mesh: Mesh, kind: Shape, nodes: np.ndarray) -> np.ndarray:
    """Matrices of cells of one type, (n_cells, n_nodes, n_nodes): sums over their simplices."""
    volume = np.abs(np.concatenate([part for _, part in simplex_volumes(mesh, kind, nodes)]))
    corner = mesh.points[:, : mesh.dim].astype(np.float64)[nodes]
    values = np.concatenate([np.eye(kind.n_nodes), kind.centres])  # of the cell's nodes at the corners of simplices
    corner = np.einsum("vn,cnd->cvd", values, corner)
    total = np.zeros((len(nodes), kind.n_nodes, kind.n_nodes))
    for k, simplex in enumerate(kind.simplices):
        sides = corner[:, simplex[1:]] - corner[:, simplex[:1]]
        slope = np.linalg.pinv(sides)  # columns: the gradients of all shape functions but the first
        slope = np.concatenate([-slope.sum(2, keepdims=True), slope], axis=2) @ values[simplex]
        total += volume[:, k, None, None] * (slope.transpose(0, 2, 1) @ slope)
    return total


def even(operator: sp.csr_matrix) -> sp.csr_matrix:
    """A Laplacian whose rows are at most :data:`STEEPEST` times as large as usual on this mesh.

    Explicit steps are stable up to a size that the smallest cells decide. A node of such cells follows its neighbours
    at once in any case; with a row that is scaled down it does so a little later, and steps may be as large as the
    usual cells allow.
    """
    size = -operator.diagonal()
    usual = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    return (sp.diags(np.minimum(1.0, STEEPEST * usual / np.maximum(size, usual))) @ operator).tocsr()


def steepest(operator: sp.csr_matrix) -> float:
    """The largest row, as its diagonal measures it, in one over the square of the user's unit of length."""
    return float(-operator.diagonal().min(initial=0.0))
