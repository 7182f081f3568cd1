"""Which cell a point lies in, and the values of fields there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.spatial import cKDTree

from gno.mesh.geometry import Group, domain_dim, groups
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.periodic import wrapped

# Pieces around a point that are tried: the one that holds it is hardly ever further down the list of nearest centres.
NEAREST = 24


def interpolation(mesh: Mesh, points: Float[np.ndarray, "n dim"]) -> sparse.csr_matrix:
    """Matrix that takes node values to values at ``points``; rows sum to one.

    Linear on the simplices that a cell is cut into, hence exact for linear fields. A point outside the mesh gets the
    value at about the nearest place of the piece next to it: negative barycentric coordinates are cut off. Where
    coordinates repeat, so does the mesh.

    Args:
        mesh: a mesh with cells.
        points: any places, in the mesh's unit of length; a third column of a planar mesh is ignored.

    Returns:
        Sparse matrix of shape (n, n_nodes).

    Raises:
        MeshError: a mesh without cells, or points of another dimension.

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.], [1.], [3.]]), (CellBlock("line", np.array([[0, 1], [1, 2]])),))
    >>> interpolation(line, np.array([[0.5], [2.5]])).toarray()
    array([[0.5 , 0.5 , 0.  ],
           [0.  , 0.25, 0.75]])
    """
    dim, top = mesh.dim, domain_dim(mesh)
    if top == 0:
        raise MeshError(f"points: expected a mesh with cells to look them up in, got a point cloud ({mesh.source})")
    if points.ndim != 2 or points.shape[1] < dim:
        raise MeshError(f"points: expected shape (n, {dim}), got {points.shape} ({mesh.source})")
    points = wrapped(points[:, :dim].astype(np.float64), mesh.points.min(0)[:dim], mesh.period)
    inside = np.full(len(points), -np.inf)
    rows = sparse.csr_matrix((len(points), mesh.n_nodes))
    for group in groups(mesh, top):
        found, score = _in_group(mesh, group, points)
        better = score > inside
        inside = np.where(better, score, inside)
        rows = sparse.diags((~better).astype(float)) @ rows + sparse.diags(better.astype(float)) @ found
    rows.eliminate_zeros()
    return rows.tocsr()


def containing_cells(mesh: Mesh, points: Float[np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
    """Number of the domain's cell that each point lies in, −1 outside; on a facet, either of its cells.

    Curved cells are taken as the simplices between their nodes, with a margin of 1e-9 of their size.

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.], [1.], [3.]]), (CellBlock("line", np.array([[0, 1], [1, 2]])),))
    >>> containing_cells(line, np.array([[0.5], [2.5], [4.0]])).tolist()
    [0, 1, -1]
    """
    found, inside = np.full(len(points), -1), np.full(len(points), -1e-9)
    points = wrapped(points[:, : mesh.dim].astype(np.float64), mesh.points.min(0)[: mesh.dim], mesh.period)
    for group in groups(mesh, domain_dim(mesh)):
        piece, weight, corner_weights = _nearest_pieces(mesh, group, points)
        score = weight.min(1)
        better = score > inside
        found[better] = group[2][piece[better] // len(corner_weights)]
        inside[better] = score[better]
    return found


def _in_group(mesh: Mesh, group: Group, points: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Interpolation from cells of one type, and how far inside each point is (its least barycentric coordinate)."""
    kind, nodes, _ = group
    piece, weight, corner_weights = _nearest_pieces(mesh, group, points)
    score, n_pieces = weight.min(1), len(corner_weights)
    weight = np.where(weight > 1e-9, weight, 0.0)  # cut off outside; and a point on a node is that node, not nearly so
    weight /= weight.sum(1, keepdims=True)
    values = np.einsum("nk,nkv->nv", weight, corner_weights[piece % n_pieces])
    columns = nodes[piece // n_pieces]
    row = np.repeat(np.arange(len(points)), kind.n_nodes)
    matrix = sparse.csr_matrix((values.ravel(), (row, columns.ravel())), (len(points), mesh.n_nodes))
    return matrix, score


def _nearest_pieces(mesh: Mesh, group: Group, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The piece each point is deepest inside, its barycentric coordinates there, and the weights of pieces' corners."""
    kind, nodes, _ = group
    # Corners of the pieces as weights of the cell's nodes: nodes themselves, then the centres that were added.
    corner_weights = np.concatenate([np.eye(kind.n_nodes), kind.centres])[kind.simplices]
    corners = np.einsum("skv,cvd->cskd", corner_weights, mesh.points[nodes][..., : points.shape[1]].astype(np.float64))
    corners = corners.reshape(-1, *corners.shape[2:])
    _, near = cKDTree(corners.mean(1)).query(points, k=min(NEAREST, len(corners)))
    near = near.reshape(len(points), -1)
    weights = np.stack([_barycentric(points, corners[piece]) for piece in near.T], axis=1)
    best, row = weights.min(2).argmax(1), np.arange(len(points))
    return near[row, best], weights[row, best], corner_weights


def _barycentric(points: np.ndarray, corner: np.ndarray) -> Float[np.ndarray, "n corners"]:
    sides = corner[:, 1:] - corner[:, :1]
    # Least squares, so that a point off a curved surface is measured at its foot.
    gram = np.einsum("nid,njd->nij", sides, sides)
    right = np.einsum("nid,nd->ni", sides, points - corner[:, 0])
    rest = np.einsum("nij,nj->ni", np.linalg.pinv(gram, rcond=1e-13, hermitian=True), right)
    return np.concatenate([1 - rest.sum(1, keepdims=True), rest], axis=1)
