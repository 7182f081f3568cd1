"""What a finite-element field leaves of its equation: jumps of the flux between cells, and the rest inside them.

The flux of a cell is taken as a field of the cell's own shape functions, the one nearest to its values at integration
points. For straight-sided triangles, tetrahedra and parallelograms of degree one and two this is the flux itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from gno.mesh import Mesh, repeats
from gno.mesh.geometry import cell_volume, domain_dim, matched, signed_volume
from gno.mesh.shapes import Shape, shape
from gno.post.gauss import GaussValues, Parameter, cell_mean, flux, integral, parameter_at
from gno.post.indicator import ErrorEstimate, contract, resist
from gno.post.reactions import nodes_of
from gno.post.recovery import cell_degree
from gno.post.stress import Elastic, compliance, stress

Load = Float[np.ndarray, "*n_nodes k"] | float
"""A constant, or one value per node."""


@dataclasses.dataclass(frozen=True)
class Facets:
    """Linear pieces of the facets of all cells, each once per cell that has it.

    Args:
        nodes: corners, ascending by the node that they repeat, themselves where they are alone.
        flux: the cell's flux at them.
        cell: the cell.
        normal: outward, as long as the piece is large.
    """

    nodes: Int[np.ndarray, "n_pieces corners"]
    flux: Float[np.ndarray, "n_pieces corners ..."]
    cell: Int[np.ndarray, " n_pieces"]
    normal: Float[np.ndarray, "n_pieces dim"]


def stress_residual(
    mesh: Mesh,
    field: str | Sequence[str],
    material: Elastic,
    *,
    fixed: Sequence[str],
    body_force: Load = 0.0,
    tractions: Mapping[str, Load] | None = None,
) -> ErrorEstimate:
    """η_c² = h²/(24p²E) ∫|∇·σ + f|² + h/(24pE) ∮ |J|², J the jump of the traction σn or what it lacks of a load.

    Args:
        mesh, field, material: see `gno.post.stress.stress`.
        fixed: point sets where the displacement is prescribed.
        body_force: f, per volume.
        tractions: loads by point set; the rest of the boundary is free.

    Raises:
        ValueError: no such set.

    Source: Kelly, Gago, Zienkiewicz and Babuška, A posteriori error analysis and adaptive processes (1983).
    """
    sigma = stress(mesh, field, material)
    cut = sigma.map(lambda s: s[..., : mesh.dim, : mesh.dim])
    energy = float(integral(sigma.join(compliance(sigma, material), contract)))
    return _estimate(cut, material.young, energy, fixed, body_force, tractions or {})


def flux_residual(
    mesh: Mesh,
    field: str,
    conductivity: Parameter = 1.0,
    *,
    fixed: Sequence[str],
    source: Load = 0.0,
    inflow: Mapping[str, Load] | None = None,
) -> ErrorEstimate:
    """η_c² = h²/(24p²k) ∫|∇·(k∇u) + f|² + h/(24pk) ∮ |J|², J the jump of k∂u/∂n or what it lacks of an inflow.

    Args:
        mesh, field, conductivity: see `gno.post.gauss.flux`; k is a scalar.
        fixed: point sets where the field is prescribed.
        source: f, per volume.
        inflow: k∂u/∂n by point set; the rest of the boundary is insulated.

    Raises, Source: as `stress_residual`.
    """
    q = flux(mesh, field, conductivity)
    inward = q.map(lambda v: -v[..., None, :])
    energy = float(integral(q.join(resist(q, conductivity), contract)))
    return _estimate(inward, conductivity, energy, fixed, source, inflow or {})


def _estimate(
    dual: GaussValues,
    stiffness: Parameter,
    energy: float,
    fixed: Sequence[str],
    source: Load,
    loads: Mapping[str, Load],
) -> ErrorEstimate:
    """The indicator for −∇·σ = f, σ (…, k, dim)."""
    mesh = dual.mesh
    if domain_dim(mesh) != mesh.dim or mesh.dim < 2:
        got = f"cells of dimension {domain_dim(mesh)} in {mesh.dim}-D"
        raise ValueError(f"residual: expected cells that fill the plane or the space, got {got} ({mesh.source})")
    local = _in_cells(dual)
    inside = _inside(dual, local, _node_values(mesh, source, dual.values[0].shape[2]))
    facets = _facets(dual, local)
    jumps = _jumps(mesh, facets, fixed, loads)
    stiff = cell_mean(GaussValues(mesh, dual.domain, _full(dual, parameter_at(mesh, stiffness, dual.domain))))
    size, degree = cell_volume(mesh) ** (1 / mesh.dim), cell_degree(mesh)
    square = size**2 / (24 * degree**2) * inside + size / (24 * degree) * jumps
    return ErrorEstimate(np.sqrt(np.nan_to_num(square / stiff)), float(np.sqrt(energy)))


def _full(like: GaussValues, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.broadcast_to(v, cells.weight.shape) for v, cells in zip(values, like.domain.cells, strict=True))


def _node_values(mesh: Mesh, load: Load, k: int) -> Float[np.ndarray, "n_nodes k"]:
    values = np.asarray(load, dtype=np.float64)
    if values.ndim == 1 and values.shape != (k,):
        values = values[:, None]
    try:
        return np.broadcast_to(values, (mesh.n_nodes, k))
    except ValueError:
        expected = f"({k},) or ({mesh.n_nodes}, {k})"
        raise ValueError(f"load: expected shape {expected}, got {values.shape} ({mesh.source})") from None


def _in_cells(dual: GaussValues) -> list[Float[np.ndarray, "n_cells n_local ..."]]:
    """The flux of each cell as values at its own nodes, by least squares."""
    found = []
    for cells, here in zip(dual.domain.cells, dual.values, strict=True):
        n, weight = cells.shape.numpy(), cells.weight.numpy()
        mass = np.einsum("cq,qi,qj->cij", weight, n, n, optimize=True)
        load = np.einsum("cq,qi,cqk->cik", weight, n, here.reshape(*here.shape[:2], -1), optimize=True)
        found.append(np.linalg.solve(mass, load).reshape(*load.shape[:2], *here.shape[2:]))
    return found


def _inside(
    dual: GaussValues, local: list[np.ndarray], source: Float[np.ndarray, "n_nodes k"]
) -> Float[np.ndarray, " n_cells"]:
    """∫ |∇·σ + f|² over each cell."""
    found = np.zeros(dual.mesh.n_cells)
    for cells, sigma in zip(dual.domain.cells, local, strict=True):
        rest = np.einsum("cnij,cqnj->cqi", sigma, cells.gradient.numpy(), optimize=True)
        rest += np.einsum("qn,cni->cqi", cells.shape.numpy(), source[cells.nodes.numpy()])
        found[cells.cell.numpy()] = np.einsum("cq,cqi,cqi->c", cells.weight.numpy(), rest, rest)
    return found


def _facets(dual: GaussValues, local: list[np.ndarray]) -> Facets:
    from gno.physics.elements import node_order  # scikit-fem takes a while to load

    sign, place = np.sign(signed_volume(dual.mesh)), repeats(dual.mesh)
    parts = []
    for cells, sigma in zip(dual.domain.cells, local, strict=True):
        order = np.argsort(node_order(cells.type, cells.nodes.shape[1]))  # facets are listed in meshio's order of nodes
        nodes, cell = cells.nodes.numpy()[:, order], cells.cell.numpy()
        for loop in _pieces(shape(cells.type, nodes.shape[1]), place[nodes]):
            parts.append(_oriented(dual.mesh, nodes, place, sigma[:, order], cell, loop, sign[cell]))
    return Facets(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _pieces(kind: Shape, nodes: np.ndarray) -> list[Int[np.ndarray, "n_cells corners"]]:
    """Local numbers of the corners of each piece; polygons are split through their lowest node, alike on both sides."""
    found = []
    for loop in kind.facets:
        corner, n = np.array(loop), len(loop)
        turn = (nodes[:, corner].argmin(1)[:, None] + np.arange(n)) % n if n > kind.dim else np.arange(n)[None]
        turned = np.broadcast_to(corner[turn], (len(nodes), n))
        fans = [turned] if n == kind.dim else [turned[:, [0, k, k + 1]] for k in range(1, n - 1)]
        found += fans
    return found


def _oriented(
    mesh: Mesh,
    nodes: np.ndarray,
    place: np.ndarray,
    sigma: np.ndarray,
    cell: np.ndarray,
    loop: np.ndarray,
    sign: np.ndarray,
) -> tuple[np.ndarray, ...]:
    row = np.arange(len(nodes))[:, None]
    corner = nodes[row, loop]
    x = mesh.points[corner, : mesh.dim].astype(np.float64)
    side = x[:, 1:] - x[:, :1]
    if mesh.dim == 2:
        normal = np.stack([side[:, 0, 1], -side[:, 0, 0]], axis=1)
    else:
        normal = np.cross(side[:, 0], side[:, 1]) / 2
    order = np.argsort(place[corner], axis=1)
    values = sigma[row, np.take_along_axis(loop, order, axis=1)]
    return np.take_along_axis(corner, order, axis=1), values, cell, normal * sign[:, None]


def _jumps(
    mesh: Mesh, facets: Facets, fixed: Sequence[str], loads: Mapping[str, Load]
) -> Float[np.ndarray, " n_cells"]:
    """∮ |J|² around each cell."""
    order, same = matched(repeats(mesh)[facets.nodes])
    first, second = order[:-1][same], order[1:][same]
    alone = np.ones(len(order), dtype=bool)
    alone[first] = alone[second] = False
    edge = np.flatnonzero(alone)
    traction = np.einsum("fc...j,fj->fc...", facets.flux, facets.normal)
    gap = traction[first] + traction[second]
    missing = traction[edge] - _loads(mesh, facets, edge, loads, traction.shape[2])
    missing[_held(mesh, facets, edge, fixed)] = 0
    found = np.zeros(mesh.n_cells)
    for who, jump, piece in ((first, gap, first), (second, gap, second), (edge, missing, edge)):
        found += np.bincount(facets.cell[who], _square(jump, facets.normal[piece]), minlength=mesh.n_cells)
    return found


def _square(jump: Float[np.ndarray, "n corners k"], normal: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
    """∫ |J|² over a simplex where J is linear; ``jump`` is J times the simplex's size."""
    n = jump.shape[1]
    whole = (jump.sum(1) ** 2).sum(1) + (jump**2).sum((1, 2))
    return whole / (n * (n + 1) * np.linalg.norm(normal, axis=1))


def _held(mesh: Mesh, facets: Facets, edge: np.ndarray, fixed: Sequence[str]) -> np.ndarray:
    """Boundary pieces whose nodes all lie in one of the sets."""
    held = np.zeros(len(edge), dtype=bool)
    for name in fixed:
        held |= np.isin(facets.nodes[edge], nodes_of(mesh, name)).all(1)
    return held


def _loads(
    mesh: Mesh, facets: Facets, edge: np.ndarray, loads: Mapping[str, Load], k: int
) -> Float[np.ndarray, "n_edge corners k"]:
    """Applied loads at the corners of boundary pieces, times the size of the piece."""
    nodes = facets.nodes[edge]
    applied = np.zeros((*nodes.shape, k))
    for name, load in loads.items():
        rows = np.isin(nodes, nodes_of(mesh, name)).all(1)
        applied[rows] += _node_values(mesh, load, k)[nodes[rows]]
    return applied * np.linalg.norm(facets.normal[edge], axis=1)[:, None, None]
