"""Which points of a mesh are neighbours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from gno.mesh import Mesh, mesh_edges, repeats
from gno.mesh.geometry import pair_keys, pairs_of
from gno.mesh.periodic import nearest_nodes


def edges_of(mesh: Mesh) -> Int[np.ndarray, "2 n_edges"]:
    """Undirected edges: the mesh's own, or nearest neighbours in a point cloud.

    Of nodes that repeat each other, only the one that is repeated has edges, also those of the others.
    """
    points = mesh.points[:, : mesh.dim]
    if not mesh.period:
        return nearest_edges(points) if mesh.is_cloud else mesh_edges(mesh)
    place = repeats(mesh)
    if mesh.is_cloud:
        alone = np.unique(place)
        return alone[nearest_edges(points[alone].astype(np.float64), period=np.array(mesh.period))]
    pair = np.sort(place[mesh_edges(mesh)], axis=0)
    return np.unique(pair[:, pair[0] != pair[1]], axis=1)


def nearest_edges(
    points: Float[np.ndarray, "n dim"], k: int | None = None, period: Float[np.ndarray, "*r dim"] | None = None
) -> Int[np.ndarray, "2 n_edges"]:
    """Pairs in which one point, or an image of it, is among the k nearest of the other (default 3·dim), each once."""
    n, dim = points.shape
    k = min(k or 3 * dim, n - 1)
    if k < 1:
        return np.empty((2, 0), np.int64)
    near = nearest_nodes(points, k + 1, period)
    first, second = np.repeat(np.arange(n), k + 1), near.ravel()
    key = np.sort(pair_keys(np.minimum(first, second), np.maximum(first, second))[first != second])
    return np.stack(pairs_of(key[np.concatenate([[True], key[1:] != key[:-1]])]))
