"""Sizes, masses, edges and boundaries of any mesh, in O(N log N)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse.csgraph import connected_components

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.periodic import repeats
from gno.mesh.shapes import Shape, cell_dim, shape

_CHUNK = 400_000
"""Simplices handled at once; bounds the memory of the temporaries to some 100 MB."""

_HALF = 31
"""Bits of a node number in the number of a pair."""

Group = tuple[Shape, np.ndarray, np.ndarray]
"""Shape, nodes (one row per cell) and cell numbers of all cells of one type."""


def domain_dim(mesh: Mesh) -> int:
    """Topological dimension of the domain's cells, the highest there is: 3 volume, 2 surface, 1 curve, 0 points."""
    return max((cell_dim(block.type) for block in mesh.cells if len(block)), default=0)


def of_domain(mesh: Mesh) -> Bool[np.ndarray, " n_cells"]:
    """Whether a cell has the domain's dimension; the others are its boundary, or lie in it."""
    dim = domain_dim(mesh)
    parts = (np.full(len(block), cell_dim(block.type) == dim) for block in mesh.cells)
    return np.concatenate([np.zeros(0, bool), *parts])


def bounds(mesh: Mesh) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]:
    """Lowest and highest coordinates of the domain; nodes that no cell of it has, as points of reference, are left out.

    >>> from gno.mesh import CellBlock
    >>> line = Mesh(np.array([[0.0], [1.0], [9.0]]), (CellBlock("line", np.array([[0, 1]])),))
    >>> [end.tolist() for end in bounds(line)]
    [[0.0], [1.0]]
    """
    points = mesh.points[:, : mesh.dim].astype(np.float64)
    if not mesh.is_cloud:
        of_cells = np.zeros(mesh.n_nodes, bool)
        for _, nodes, _ in groups(mesh, domain_dim(mesh)):
            of_cells[nodes] = True
        points = points[of_cells]
    return points.min(0), points.max(0)


def cell_volume(mesh: Mesh) -> Float[np.ndarray, " n_cells"]:
    """Volume of each cell; area of surface cells, length of lines, 0 for vertices.

    Cells with mid-side nodes are measured as the linear pieces between their nodes. The size of an inverted cell
    is positive too; ``quality`` counts those.

    >>> from gno.mesh import CellBlock, Mesh
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    >>> cell_volume(Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),)))
    array([2.])
    """
    return np.abs(signed_volume(mesh))


def signed_volume(mesh: Mesh) -> Float[np.ndarray, " n_cells"]:
    """Volume of each cell, negative for inverted cells where the cell fills the space that it lies in."""
    volume = np.zeros(mesh.n_cells)
    for kind, nodes, index in groups(mesh):
        if kind.dim:
            volume[index] = np.concatenate([part.sum(1) for _, part in simplex_volumes(mesh, kind, nodes)])
    return volume


def node_mass(mesh: Mesh) -> Float[np.ndarray, " n_nodes"]:
    """Part of the domain that belongs to each node, Σᵢ mᵢ = |Ω| and Σᵢ mᵢ xᵢ = ∫ x (convex cells).

    Every simplex of a cell's linear pieces gives equal parts to its corners, so the masses of mid-side nodes
    are positive as well. Only cells of the highest dimension carry mass. A node that no such cell of non-zero
    size touches has mass 0; in a point cloud each node has 1/n.

    Raises:
        MeshError: the cells of the domain have no size at all.

    >>> from gno.mesh import CellBlock, Mesh
    >>> line = Mesh(np.array([[0.], [1.], [3.]]), (CellBlock("line", np.array([[0, 1], [1, 2]])),))
    >>> node_mass(line)
    array([0.5, 1.5, 1. ])
    """
    if domain_dim(mesh) == 0:
        return np.full(mesh.n_nodes, 1 / mesh.n_nodes)
    mass = np.zeros(mesh.n_nodes)
    for nodes, _, share in _node_shares(mesh):
        mass += np.bincount(nodes.ravel(), share.ravel(), minlength=mesh.n_nodes)
    if not mass.any():
        raise MeshError(f"cells: expected a domain with a size, got {mesh.n_cells} cells of size 0 ({mesh.source})")
    return mass


def cells_to_nodes(mesh: Mesh, values: Shaped[np.ndarray, "n_cells ..."]) -> Float[np.ndarray, "n_nodes ..."]:
    """Move cell values to nodes and keep the integral: vᵢ = Σ_c m_ic v_c / mᵢ, so Σᵢ mᵢ vᵢ = Σ_c |c| v_c.

    Values on cells of lower dimension than the domain's do not count; nodes without mass get 0. Nodes that repeat each
    other get the same value, from the cells of both.

    Args:
        mesh: the mesh.
        values: scalars, vectors or tensors, one per cell, numbered through all blocks.

    Raises:
        MeshError: there is not one value per cell.
    """
    values = np.asarray(values)
    if values.ndim == 0 or len(values) != mesh.n_cells:
        raise MeshError(f"cell values: expected {mesh.n_cells} cells, got shape {values.shape} ({mesh.source})")
    columns = values.reshape(mesh.n_cells, -1).astype(np.float64)
    total = np.zeros((mesh.n_nodes, columns.shape[1]))
    mass = np.zeros(mesh.n_nodes)
    for nodes, index, share in _node_shares(mesh):
        rows = np.repeat(np.arange(len(index)), nodes.shape[1])
        carry = sp.csr_matrix((share.ravel(), (nodes.ravel(), rows)), shape=(mesh.n_nodes, len(index)))
        total += carry @ columns[index]
        mass += np.bincount(nodes.ravel(), share.ravel(), minlength=mesh.n_nodes)
    if mesh.period:
        place = repeats(mesh)
        mass = np.bincount(place, mass, mesh.n_nodes)[place]
        total = np.stack([np.bincount(place, column, mesh.n_nodes) for column in total.T], axis=1)[place]
    result = np.divide(total, mass[:, None], out=np.zeros_like(total), where=mass[:, None] > 0)
    return result.reshape(mesh.n_nodes, *values.shape[1:])


def mesh_edges(mesh: Mesh) -> Int[np.ndarray, "2 n_edges"]:
    """Undirected edges of the domain's cells, each once with i < j, sorted.

    Mid-side nodes are joined to their neighbours along the sides of the cell's linear pieces.

    >>> from gno.mesh import CellBlock, Mesh
    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> mesh_edges(Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))).tolist()
    [[0, 0, 1, 2], [1, 3, 2, 3]]
    """
    keys = [np.zeros(0, dtype=np.int64)]
    for kind, nodes, _ in groups(mesh, domain_dim(mesh)):
        first, second = (nodes[:, side].ravel() for side in np.transpose(kind.edges))
        keys.append(_distinct(pair_keys(np.minimum(first, second), np.maximum(first, second))[first != second]))
    return np.stack(pairs_of(_distinct(np.concatenate(keys))))


def pair_keys(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """A whole number for each pair of node numbers, in the order of the pairs: numpy sorts numbers much faster.

    >>> pairs_of(np.sort(pair_keys(np.array([2, 1, 1]), np.array([0, 7, 3]))))
    (array([1, 1, 2]), array([3, 7, 0]))
    """
    return first << _HALF | second


def pairs_of(key: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The pairs of :func:`pair_keys`."""
    return key >> _HALF, key & (1 << _HALF) - 1


def boundary_facets(mesh: Mesh) -> Int[np.ndarray, "n_facets corners"]:
    """Segments (2-D) or triangles (3-D) of the domain's boundary, node indices, outward oriented.

    A facet is on the boundary if exactly one cell has it; sides that repeat each other are none. In 2-D the domain lies
    to the left of a segment; in 3-D the corners run counter-clockwise seen from outside. Quadrilaterals are split
    through their lowest node number. The boundary of a surface in 3-D is its rim, in segments; that of a curve is its
    ends, in single nodes.
    """
    dim = domain_dim(mesh)
    if dim == 0:
        return np.zeros((0, 0), dtype=np.int64)
    parts = list(groups(mesh, dim))
    sides = [_sides(kind, nodes) for kind, nodes, _ in parts]
    width = max(part.shape[1] for part in sides)
    facets = np.concatenate([np.pad(f, ((0, 0), (0, width - f.shape[1])), constant_values=-1) for f in sides])
    outer = alone(np.where(facets < 0, -1, repeats(mesh)[facets]) if mesh.period else facets)
    cell = np.concatenate([np.repeat(index, len(kind.facets)) for kind, _, index in parts])[outer]
    return _split_quads(_turned(facets[outer], signed_volume(mesh)[cell] < 0), dim)


def matched(nodes: Int[np.ndarray, "n k"]) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n_1"]]:
    """An order in which rows of the same nodes, in any sequence, follow one another, and where the next row has the
    same as the one before. −1 fills up shorter rows.

    >>> order, same = matched(np.array([[3, 1], [2, 1], [1, 3]]))
    >>> order.tolist(), same.tolist()
    ([1, 0, 2], [False, True])
    """
    columns = np.sort(nodes, axis=1).T + 1
    bits = int(nodes.max(initial=0) + 1).bit_length()
    words, at_once = [], max(1, 63 // bits)  # as few numbers as hold a row: numpy sorts one much faster than several
    for start in range(0, len(columns), at_once):
        word = columns[start]
        for column in columns[start + 1 : start + at_once]:
            word = word << bits | column
        words.append(word)
    order = np.argsort(words[0]) if len(words) == 1 else np.lexsort(words)
    return order, np.all([word[order[1:]] == word[order[:-1]] for word in words], axis=0)


def alone(nodes: Int[np.ndarray, "n k"]) -> Int[np.ndarray, " n_alone"]:
    """Rows whose nodes no other row has, ascending; see :func:`matched`."""
    order, same = matched(nodes)
    return np.sort(order[~np.concatenate([[False], same]) & ~np.concatenate([same, [False]])])


def components(mesh: Mesh) -> Int[np.ndarray, " n_nodes"]:
    """Number of the connected part of each node; a node that no domain cell touches is a part of its own."""
    i, j = mesh_edges(mesh)
    graph = sp.coo_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(mesh.n_nodes, mesh.n_nodes))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def groups(mesh: Mesh, dim: int | None = None) -> Iterator[Group]:
    """Cells by type, all or of one dimension, so that interleaved blocks cost no more than one."""
    by_type: dict[tuple[str, int], list[tuple[int, np.ndarray]]] = {}
    first = 0
    for block in mesh.cells:
        if len(block) and dim in (None, cell_dim(block.type)):
            by_type.setdefault((block.type, block.nodes.shape[1]), []).append((first, block.nodes))
        first += len(block)
    for (cell_type, n_nodes), parts in by_type.items():
        index = np.concatenate([np.arange(start, start + len(nodes)) for start, nodes in parts])
        yield shape(cell_type, n_nodes), np.concatenate([nodes for _, nodes in parts]).astype(np.int64), index


def _distinct(key: np.ndarray) -> np.ndarray:
    """Sorted distinct keys; ``np.unique`` hashes integers and takes a hundred times as long."""
    key = np.sort(key)
    return key[np.concatenate([[True], key[1:] != key[:-1]])] if len(key) else key


def simplex_volumes(
    mesh: Mesh, kind: Shape, nodes: Int[np.ndarray, "n_cells n_nodes"]
) -> Iterator[tuple[int, Float[np.ndarray, "chunk n_simplices"]]]:
    """Volumes of the simplices of cells of one type, chunk after chunk, each with the place of its first cell."""
    points = mesh.points[:, : mesh.dim].astype(np.float64)
    step = max(1, _CHUNK // len(kind.simplices))
    for start in range(0, len(nodes), step):
        corners = points[nodes[start : start + step]]
        if len(kind.centres):
            corners = np.concatenate([corners, np.einsum("vn,cnd->cvd", kind.centres, corners)], axis=1)
        origin = corners[:, kind.simplices[:, 0]]
        sides = [corners[:, kind.simplices[:, k]] - origin for k in range(1, kind.dim + 1)]
        yield start, _measure(sides)


def _node_shares(mesh: Mesh) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Nodes, cell numbers and the part of each cell's volume that each of its nodes gets; of a cloud's vertices one."""
    for kind, nodes, index in groups(mesh, domain_dim(mesh)):
        if not kind.dim:  # points of a cloud, all alike
            yield nodes, index, np.ones(nodes.shape)
            continue
        for start, volumes in simplex_volumes(mesh, kind, nodes):
            part = slice(start, start + len(volumes))
            size = np.abs(volumes)
            # A simplex that folds over in a non-convex cell has a negative volume; masses stay positive.
            whole = size.sum(1)
            scale = np.divide(np.abs(volumes.sum(1)), whole, out=np.zeros_like(whole), where=whole > 0)
            yield nodes[part], index[part], (size @ kind.share) * scale[:, None]


def _measure(sides: list[np.ndarray]) -> np.ndarray:
    """Volume of simplices from their sides (cells, simplices, space): signed where they fill the space."""
    space = sides[0].shape[-1]
    if len(sides) == 1:
        return sides[0][..., 0] if space == 1 else np.linalg.norm(sides[0], axis=-1)
    a, b = sides[:2]
    if space == 2:
        return (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) / 2
    normal = np.stack([a[..., i] * b[..., j] - a[..., j] * b[..., i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
    if len(sides) == 3:
        return np.einsum("csd,csd->cs", normal, sides[2]) / 6
    # A triangle that folds over against the rest of its cell counts negative, as it would in the plane.
    upright = np.einsum("csd,cd->cs", normal, normal.sum(1)) >= 0
    return np.where(upright, 0.5, -0.5) * np.linalg.norm(normal, axis=-1)


def _sides(kind: Shape, nodes: np.ndarray) -> np.ndarray:
    """All facets of cells of one type, cell after cell, outward oriented but of inverted cells, padded with -1."""
    width = max(map(len, kind.facets))
    parts = [np.pad(nodes[:, f], ((0, 0), (0, width - len(f))), constant_values=-1) for f in kind.facets]
    return np.stack(parts, axis=1).reshape(-1, width)


def _turned(facets: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Some of the facets the other way round; -1 stays at their ends."""
    column = (facets[which] >= 0).sum(1, keepdims=True) - 1 - np.arange(facets.shape[1])
    facets[which] = np.take_along_axis(facets[which], np.where(column < 0, np.arange(facets.shape[1]), column), axis=1)
    return facets


def _split_quads(facets: np.ndarray, dim: int) -> np.ndarray:
    """Triangles from triangles and polygons that are padded with -1: a fan around the lowest node."""
    if facets.shape[1] <= dim:
        return facets
    parts = [facets[(facets >= 0).sum(1) == dim, :dim]]
    for n in range(dim + 1, facets.shape[1] + 1):
        loop = facets[(facets >= 0).sum(1) == n, :n]
        turn = (loop.argmin(1)[:, None] + np.arange(n)) % n
        loop = np.take_along_axis(loop, turn, axis=1)
        parts += [np.stack([loop[:, 0], loop[:, k], loop[:, k + 1]], axis=1) for k in range(1, n - 1)]
    return np.concatenate(parts)
