"""From integration points to nodes: continuous stresses and gradients, more accurate than those they come from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.linalg import cg

from gno.mesh import Mesh, Torus, boundary_facets, nearest_image, repeats
from gno.mesh.geometry import domain_dim
from gno.mesh.ordering import CORNERS
from gno.mesh.shapes import cell_dim, family
from gno.post.gauss import GaussValues

Recovery = Callable[[GaussValues], Float[np.ndarray, "n_nodes ..."]]

# A patch whose moments span a larger range than this has too few points, or all in one plane, for its polynomial.
LARGEST_CONDITION = 1e6
# Nodes evaluated at once; bounds the memory of the temporaries.
CHUNK = 50_000


def patch_recovery(values: GaussValues) -> Float[np.ndarray, "n_nodes ..."]:
    """Superconvergent patch recovery: a polynomial fitted to the values in the cells around each vertex.

    min_a Σ_q |p(x_q)·a − σ_q|² over the integration points q of the patch, p complete of the cells' degree; the node's
    value is p(x)·a. A linear cell gives one point, its middle with the mean. Nodes on the boundary and between vertices
    take the mean of the polynomials of the patches inside that they belong to, as the source advises. Best with values
    at the points of `superconvergent_order`. A patch does not know of materials: across an interface a stress that
    jumps is smeared; cell means are not. Nodes that repeat each other have one patch, of the cells at both sides.

    Args:
        values: at integration points.

    Returns:
        Values on nodes, with the shape of the given ones; NaN where no cell touches a node.

    Source: Zienkiewicz and Zhu, The superconvergent patch recovery and a posteriori error estimates, part 1 (1992).

    >>> from gno.mesh import CellBlock
    >>> from gno.post.gauss import gradient
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> mesh = Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([0.0, 6.0, 1.0])})
    >>> patch_recovery(gradient(mesh, "T")).round(12)[0].tolist()
    [3.0, 1.0]
    """
    mesh = values.mesh
    flat = values.map(lambda v: v.reshape(*v.shape[:2], -1))
    place, torus = repeats(mesh), Torus.of(np.array(mesh.period)) if mesh.period else None
    centre, length = _patch_frames(flat, place)
    powers = _exponents(centre.shape[1], cell_degree(mesh))
    fit, adequate = _fit(flat, place, centre, length, powers)
    inside = adequate.copy()
    inside[place[np.unique(boundary_facets(mesh))]] = False
    result = np.full((mesh.n_nodes, fit.shape[2]), np.nan)
    result[inside] = fit[inside, 0]
    near = _shared_cells(flat, place)
    # The best patches that a node belongs to; a cell in a corner of the domain has none inside, its neighbours have.
    for around, trusted in ((near, inside), (near @ near, inside), (near, adequate), (near, length > 0)):
        _fill(result, around.tocsr(), trusted, (centre, length, fit), powers, torus)
    return result[place].reshape(mesh.n_nodes, *values.values[0].shape[2:])


def l2_recovery(values: GaussValues) -> Float[np.ndarray, "n_nodes ..."]:
    """L2 projection onto the shape functions: Σ_j ∫N_i N_j σ_j = ∫N_i σ, so that ∫σ is kept.

    Nodes that repeat each other are one.

    Args:
        values: at integration points that integrate a mass matrix, as by default.

    Returns:
        Values on nodes; NaN where no cell touches a node.
    """
    n, place = values.mesh.n_nodes, repeats(values.mesh)
    mass, load = sparse.csr_matrix((n, n)), np.zeros((n, int(np.prod(values.values[0].shape[2:], dtype=int))))
    for cells, here in zip(values.domain.cells, values.values, strict=True):
        nodes, shape, weight = place[cells.nodes.numpy()], cells.shape.numpy(), cells.weight.numpy()
        rows, columns = np.broadcast_arrays(nodes[:, :, None], nodes[:, None, :])
        blocks = np.einsum("cq,qi,qj->cij", weight, shape, shape, optimize=True)
        mass = mass + sparse.csr_matrix((blocks.ravel(), (rows.ravel(), columns.ravel())), (n, n))
        rest = np.einsum("cq,qi,cqk->cik", weight, shape, here.reshape(*here.shape[:2], -1), optimize=True)
        load += _to_nodes(nodes, rest, n)
    result = np.full(load.shape, np.nan)
    diagonal = mass.diagonal()
    used = np.flatnonzero(diagonal > 0)
    inner, scale = mass[used][:, used], sparse.diags(1 / diagonal[used])
    for column in range(load.shape[1]):
        result[used, column] = cg(inner, load[used, column], rtol=1e-13, atol=0.0, M=scale)[0]
    return result[place].reshape(n, *values.values[0].shape[2:])


def cell_degree(mesh: Mesh) -> int:
    """1 if all cells of the domain are linear, 2 if any has nodes between its corners."""
    domain = [block for block in mesh.cells if len(block) and cell_dim(block.type) == domain_dim(mesh)]
    return 1 + any(block.nodes.shape[1] > len(CORNERS[family(block.type)]) for block in domain)


def superconvergent_order(mesh: Mesh) -> int:
    """Order of integration whose points are those where derivatives converge faster than elsewhere (Barlow's points):
    for quadratic cells two per direction. Of linear cells `patch_recovery` takes the mean, whatever the points."""
    return cell_degree(mesh)


def _exponents(dim: int, degree: int) -> list[tuple[int, ...]]:
    """Powers of the monomials of a complete polynomial, the constant first."""
    found = [powers for powers in itertools.product(range(degree + 1), repeat=dim) if sum(powers) <= degree]
    return sorted(found, key=sum)


def _monomials(offset: np.ndarray, powers: list[tuple[int, ...]]) -> np.ndarray:
    return np.stack([np.prod(offset ** np.array(power), axis=-1) for power in powers], axis=-1)


def _corners(values: GaussValues) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Nodes of the cells, those that are corners, positions and values at integration points; one cell type each."""
    for cells, here in zip(values.domain.cells, values.values, strict=True):
        nodes, position = cells.nodes.numpy(), cells.position.numpy()
        n_corners = len(CORNERS[family(cells.type)])
        if nodes.shape[1] == n_corners:  # scikit-fem has no rule of one point for quadrilaterals and hexahedra
            share = cells.weight.numpy() / cells.weight.numpy().sum(1, keepdims=True)
            position, here = (np.einsum("cq,cqk->ck", share, rows)[:, None] for rows in (position, here))
        yield nodes, nodes[:, :n_corners], position, here


def _to_nodes(nodes: Int[np.ndarray, "n_cells k"], values: np.ndarray, n_nodes: int) -> np.ndarray:
    """Sum over cells of values (n_cells, k, columns) at their nodes."""
    flat = nodes.ravel()
    gather = sparse.csr_matrix((np.ones(len(flat)), (flat, np.arange(len(flat)))), (n_nodes, len(flat)))
    return gather @ values.reshape(len(flat), -1)


def _patch_frames(values: GaussValues, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each patch, which is its vertex, and the root mean square distance of its points; 0 without cells."""
    dim = values.domain.cells[0].position.shape[-1]
    centre = values.mesh.points[:, :dim].astype(np.float64)
    square, count = np.zeros(len(centre)), np.zeros(len(centre))
    for _, corners, position, _ in _corners(values):
        offset = position[:, None] - centre[corners][:, :, None]
        distance = (offset**2).sum(-1).mean(-1)
        square += _to_nodes(place[corners], distance, len(centre))[:, 0]
        count += _to_nodes(place[corners], np.ones_like(distance), len(centre))[:, 0]
    return centre, np.sqrt(square / np.maximum(count, 1))


def _fit(
    values: GaussValues, place: np.ndarray, centre: np.ndarray, length: np.ndarray, powers: list[tuple[int, ...]]
) -> tuple[Float[np.ndarray, "n_nodes m k"], Bool[np.ndarray, " n_nodes"]]:
    """Coefficients of each patch's polynomial, and whether its points determine it."""
    n, m = len(centre), len(powers)
    matrix, right = np.zeros((n, m * m)), np.zeros((n, m * values.values[0].shape[2]))
    for _, corners, position, here in _corners(values):
        for vertex in corners.T:
            at = place[vertex]  # cells at the far side count from the node there, and belong to the patch of this one
            p = _monomials((position - centre[vertex][:, None]) / length[at][:, None, None], powers)
            matrix += _to_nodes(at[:, None], np.einsum("cqi,cqj->cij", p, p), n)
            right += _to_nodes(at[:, None], np.einsum("cqi,cqk->cik", p, here), n)
    return _least_squares(matrix.reshape(n, m, m), right.reshape(n, m, -1))


def _least_squares(
    matrix: Float[np.ndarray, "n m m"], right: Float[np.ndarray, "n m k"]
) -> tuple[Float[np.ndarray, "n m k"], Bool[np.ndarray, " n"]]:
    """Coefficients from Σ p pᵀ and Σ p σᵀ of each patch, p_0 = 1, and whether they are determined.

    The constant is eliminated first: what is left are moments about the mean, so that a constant σ comes back to
    round-off, and a slope that the points leave open, as across a surface, is zero.
    """
    count = np.maximum(matrix[:, :1, :1], 1)
    mean, value = matrix[:, :1, 1:] / count, right[:, :1] / count
    sums = matrix[:, 1:, :1]
    size, vectors = np.linalg.eigh(matrix[:, 1:, 1:] - sums * mean)
    known = size * LARGEST_CONDITION > np.trace(matrix, axis1=1, axis2=2)[:, None]
    inverse = np.divide(1, size, out=np.zeros_like(size), where=known)
    slope = vectors @ (inverse[:, :, None] * (vectors.transpose(0, 2, 1) @ (right[:, 1:] - sums * value)))
    return np.concatenate([value - mean @ slope, slope], axis=1), known.all(1)


def _shared_cells(values: GaussValues, place: np.ndarray) -> sparse.csr_matrix:
    """Non-zero in (i, j) where node i and vertex j have a cell in common."""
    n = values.mesh.n_nodes
    found = sparse.csr_matrix((n, n))
    for nodes, corners, _, _ in _corners(values):
        rows, columns = np.broadcast_arrays(place[nodes][:, :, None], place[corners][:, None, :])
        found = found + sparse.csr_matrix((np.ones(rows.size), (rows.ravel(), columns.ravel())), (n, n))
    return found


def _fill(
    result: np.ndarray,
    around: sparse.csr_matrix,
    trusted: np.ndarray,
    patches: tuple[np.ndarray, np.ndarray, np.ndarray],
    powers: list[tuple[int, ...]],
    torus: Torus | None,
) -> None:
    """The mean of the polynomials of the trusted patches around each node that has no value yet."""
    centre, length, fit = patches
    missing = np.flatnonzero(np.isnan(result[:, 0]))
    for some in np.array_split(missing, 1 + len(missing) // CHUNK):
        pairs = around[some][:, trusted].tocoo()
        vertex = np.flatnonzero(trusted)[pairs.col]
        offset = nearest_image(centre[some[pairs.row]] - centre[vertex], torus) / length[vertex][:, None]
        here = np.einsum("ni,nik->nk", _monomials(offset, powers), fit[vertex])
        gather = sparse.csr_matrix(
            (np.ones(len(vertex)), (pairs.row, np.arange(len(vertex)))), (len(some), len(vertex))
        )
        count = np.bincount(pairs.row, minlength=len(some))
        result[some[count > 0]] = ((gather @ here) / np.maximum(count, 1)[:, None])[count > 0]
