"""Which points of a mesh are neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from gno.mesh import Mesh, mesh_edges


def edges_of(mesh: Mesh) -> Int[np.ndarray, "2 n_edges"]:
    """Undirected edges: the mesh's own, or nearest neighbours in a point cloud."""
    return mesh_edges(mesh) if mesh.cells else nearest_edges(mesh.points[:, : mesh.dim])


def nearest_edges(points: Float[np.ndarray, "n dim"], k: int | None = None) -> Int[np.ndarray, "2 n_edges"]:
    """Pairs in which one point is among the k nearest of the other (default 3·dim), each once."""
    n, dim = points.shape
    k = min(k or 3 * dim, n - 1)
    if k < 1:
        return np.empty((2, 0), np.int64)
    _, near = cKDTree(points).query(points, k=k + 1)
    pair = np.stack([np.repeat(np.arange(n), k + 1), near.ravel()])
    pair = np.sort(pair[:, pair[0] != pair[1]], axis=0)
    return np.unique(pair, axis=1)
