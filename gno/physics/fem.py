"""Mesh ↔ scikit-fem: bases whose degrees of freedom are the mesh's nodes, and whole problems there and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import skfem
from jaxtyping import Float
from skfem.assembly import Dofs
from skfem.element import DiscreteField

from gno.mesh import CellBlock, Mesh, MeshError, repeats
from gno.mesh.shapes import family
from gno.physics.elements import (
    ELEMENTS,
    Cells,
    NodeMapping,
    boundary_sides,
    cell_rule,
    check_sizes,
    domain_cells,
    facet_nodes,
    facet_rules,
    nanson,
    node_order,
    points_of,
)

_STRAIGHT = {
    "line": skfem.MeshLine1,
    "triangle": skfem.MeshTri1,
    "quad": skfem.MeshQuad1,
    "tetra": skfem.MeshTet1,
    "hexahedron": skfem.MeshHex1,
    "wedge": skfem.MeshWedge1,
}
_CURVED = {
    ("triangle", 6): skfem.MeshTri2,
    ("quad", 9): skfem.MeshQuad2,
    ("tetra", 10): skfem.MeshTet2,
    ("hexahedron", 27): skfem.MeshHex2,
}
"""Meshes whose cells scikit-fem curves itself."""


class NodeDofs(Dofs):
    """Degrees of freedom numbered as the mesh's nodes; components of a vector are neighbours, node by node."""

    def __init__(
        self, topo: skfem.Mesh, element: skfem.Element, nodes: np.ndarray, n_nodes: int, n_components: int
    ) -> None:
        self.topo, self.element = topo, element
        local = nodes.T[:, None, :] * n_components + np.arange(n_components)[None, :, None]
        self.element_dofs = local.reshape(-1, len(nodes)).astype(np.int32)
        self.N = n_nodes * n_components


class SideBasis(skfem.CellBasis):
    """Cells next to a boundary, at quadrature points of one of their sides; in forms ``w.n`` is the outward normal."""

    def __init__(self, normal: np.ndarray, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        measure, inverse = self.mapping.detDF(self.X, self.tind), self.mapping.invDF(self.X, self.tind)
        size, unit = nanson(measure, np.moveaxis(inverse, (0, 1), (-2, -1)), normal)
        self.dx = size * self.W
        self.normals = DiscreteField(np.moveaxis(unit, -1, 0))

    def default_parameters(self) -> dict:
        return {**super().default_parameters(), "n": self.normals}


def skfem_basis(mesh: Mesh, *, n_components: int | None = None, order: int | None = None) -> list[skfem.CellBasis]:
    """One scikit-fem basis per cell type; degree of freedom ``node * n_components + component``.

    Matrices assembled on the bases of a mixed mesh have one numbering and can be added. The bases serve assembly; to
    go on in scikit-fem with boundaries and refinement take :func:`to_skfem`.

    Args:
        mesh: the mesh; quadratic cells are curved as their nodes say.
        n_components: components of the field, for an ``ElementVector``; by default the field is a scalar.
        order: polynomial order that the quadrature is exact for; by default that of the mass matrix.

    Raises:
        MeshError: the mesh has no cells, or cells without an element, of no size or folded over.

    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> square = Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))
    >>> skfem_basis(square, n_components=2)[0].N
    8
    """
    points, bases = points_of(mesh), []
    for cells in domain_cells(mesh):
        rule = cell_rule(cells.element, cells.order if order is None else order)
        common = _common(mesh, points, cells, n_components)
        check_sizes(cells, points, common["mapping"].detDF(rule[0]), mesh.source)
        bases.append(skfem.CellBasis(quadrature=rule, **common))
    return bases


def skfem_sides(
    mesh: Mesh, name: str = "boundary", *, n_components: int | None = None, order: int | None = None
) -> list[SideBasis]:
    """Bases on the boundary, one per cell type and side of its cells; numbered as those of :func:`skfem_basis`.

    Args:
        mesh: the mesh.
        name: a point set, of which a facet is part if all its nodes are; or ``"boundary"`` for all of it.
        n_components: as of :func:`skfem_basis`.
        order: polynomial order that the quadrature is exact for.

    Raises:
        ValueError: the mesh has no such set.
        MeshError: as :func:`skfem_basis`.
    """
    if name != "boundary" and name not in mesh.point_sets:
        known = ", ".join(map(repr, mesh.point_sets)) or "none"
        raise ValueError(f"sets: expected point sets of the mesh ({known}), got '{name}' ({mesh.source})")
    inside = np.full(mesh.n_nodes, name == "boundary")
    inside[mesh.point_sets.get(name, [])] = True
    points, kinds, found = points_of(mesh), domain_cells(mesh), []
    for cells, sides in zip(kinds, boundary_sides(kinds, repeats(mesh)), strict=True):
        element, common = cells.element, _common(mesh, points, cells, n_components)
        rules = facet_rules(element, cells.order if order is None else order)
        parts = zip(rules, sides, element.refdom.normals, facet_nodes(element), strict=True)
        for (_, X, W), here, normal, local in parts:
            chosen = here[inside[cells.nodes[here][:, local]].all(1)]
            if len(chosen):
                found.append(SideBasis(normal, quadrature=(X, W), elements=chosen, **common))
    return found


def to_skfem(mesh: Mesh, field: Float[np.ndarray, "n_nodes ..."]) -> tuple[skfem.CellBasis, np.ndarray]:
    """A field as scikit-fem's own: a basis in its numbering, and the coefficients of the field.

    Point sets become boundaries, cell sets subdomains.

    Args:
        mesh: a mesh whose cells are all of one type.
        field: node values, scalars or vectors.

    Raises:
        MeshError: cells of several types, or nodes that cells do not share as scikit-fem's elements would.
        ValueError: the field is not on the nodes, or has a number of components that scikit-fem has no vectors of.

    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> square = Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))
    >>> basis, coefficients = to_skfem(square, square.points[:, 0])
    >>> float(basis.interpolator(coefficients)(np.array([[0.25], [0.5]]))[0])
    0.25
    """
    kinds = domain_cells(mesh)
    if len(kinds) != 1:
        raise MeshError(f"cells: expected one type, got {', '.join(cells.type for cells in kinds)} ({mesh.source})")
    if np.ndim(field) not in (1, 2) or len(field) != mesh.n_nodes:
        raise ValueError(f"field: expected ({mesh.n_nodes} nodes[, components]), got {np.shape(field)} ({mesh.source})")
    cells, columns = kinds[0], np.asarray(field).reshape(mesh.n_nodes, -1)
    topology, mapping = _topology(mesh, cells)
    n_components = columns.shape[1]
    element = cells.element if np.ndim(field) == 1 else skfem.ElementVector(cells.element, n_components)
    rule = cell_rule(cells.element, cells.order)
    basis = skfem.CellBasis(topology, element, mapping=mapping, quadrature=rule)
    if len(basis.element_dofs) != cells.nodes.shape[1] * n_components:  # scikit-fem 12 forgets unknowns on edges
        dim = cells.element.dim
        raise ValueError(f"field: expected a scalar or {dim} components on '{cells.type}', got {n_components}")
    coefficients = np.zeros(basis.N, dtype=columns.dtype)
    place = np.zeros(basis.N, dtype=np.int64)
    for k in range(n_components):
        coefficients[basis.element_dofs[k::n_components]] = columns[cells.nodes.T, k]
        place[basis.element_dofs[k::n_components]] = cells.nodes.T
        if np.any(place[basis.element_dofs[k::n_components]] != cells.nodes.T):
            raise MeshError(f"cells '{cells.type}': expected neighbours with common nodes, got others ({mesh.source})")
    return basis, coefficients


def from_skfem(basis: skfem.CellBasis, coefficients: Float[np.ndarray, " n_dofs"], name: str) -> Mesh:
    """Mesh with a node field from a basis of scikit-fem; a node is where a degree of freedom is.

    The element may be of higher order than the mesh: its nodes become nodes of quadratic cells. Boundaries become point
    sets, subdomains cell sets.

    Args:
        basis: with a Lagrange or serendipity element, or a vector of those.
        coefficients: of the field.
        name: of the point field.

    Raises:
        ValueError: the element has no nodes, or the coefficients are not the basis's.
    """
    vector = isinstance(basis.elem, skfem.ElementVector)
    element, n_components = (basis.elem.elem, basis.elem.dim) if vector else (basis.elem, 1)
    if type(element) not in ELEMENTS.values():
        known = ", ".join(kind.__name__ for kind in ELEMENTS.values())
        raise ValueError(f"basis: expected an element with nodes ({known}), got {type(element).__name__}")
    if np.shape(coefficients) != (basis.N,):
        raise ValueError(f"coefficients: expected ({basis.N},), got {np.shape(coefficients)}")
    form, n_local = next(key for key, kind in ELEMENTS.items() if kind is type(element))
    cell_type = form if n_local == element.refdom.nnodes else f"{form}{n_local}"
    used, local = np.unique(basis.element_dofs[::n_components], return_inverse=True)
    local = local.reshape(n_local, -1)
    position = basis.mapping.F(element.doflocs.T, tind=basis.tind)
    points = np.zeros((len(used), len(position)))
    points[local.T] = np.moveaxis(position, 0, -1)
    values = np.zeros((len(used), n_components), dtype=np.asarray(coefficients).dtype)
    for k in range(n_components):
        values[local, k] = np.asarray(coefficients)[basis.element_dofs[k::n_components]]
    nodes = np.empty(local.T.shape, dtype=np.int64)
    nodes[:, node_order(cell_type, n_local)] = local.T
    fields = {name: values if vector else values[:, 0]}
    point_sets, cell_sets = _sets(basis, used)
    return Mesh(points, (CellBlock(cell_type, nodes),), fields, point_sets=point_sets, cell_sets=cell_sets)


def _common(mesh: Mesh, points: np.ndarray, cells: Cells, n_components: int | None) -> dict:
    corners = cells.nodes[:, : cells.element.refdom.nnodes].T.copy()
    topology = _STRAIGHT[family(cells.type)](np.ascontiguousarray(points.T), corners, sort_t=False, validate=False)
    element = cells.element if n_components is None else skfem.ElementVector(cells.element, n_components)
    return {
        "mesh": topology,
        "elem": element,
        "mapping": NodeMapping(points, cells.nodes, cells.element),
        "dofs": NodeDofs(topology, element, cells.nodes, mesh.n_nodes, n_components or 1),
        "disable_doflocs": True,
    }


def _topology(mesh: Mesh, cells: Cells) -> tuple[skfem.Mesh, NodeMapping | None]:
    """scikit-fem's mesh with named boundaries and subdomains, and a mapping where its own would not do."""
    points = points_of(mesh)
    n_local, n_corners = cells.nodes.shape[1], cells.element.refdom.nnodes
    solid = points.shape[1] == cells.element.dim
    curved = _CURVED.get((family(cells.type), n_local)) if solid else None
    used, corners = np.unique(cells.nodes[:, :n_corners], return_inverse=True)
    if curved is not None:
        topology = curved(points.T, cells.nodes.T, sort_t=False)
    else:
        topology = _STRAIGHT[family(cells.type)](points[used].T, corners.reshape(-1, n_corners).T, sort_t=False)
    own = solid and (curved is not None or n_local == n_corners)
    mapping = None if own else NodeMapping(points, cells.nodes, cells.element)
    place = np.full(mesh.n_cells, -1)
    place[cells.index] = np.arange(len(cells.index))
    subdomains = {name: place[index][place[index] >= 0] for name, index in mesh.cell_sets.items()}
    boundaries = {}
    outer = topology.boundary_facets()
    for name, index in mesh.point_sets.items():
        inside = np.isin(used, index)
        boundaries[name] = outer[inside[topology.facets[:, outer]].all(0)]
    chosen = [{name: index for name, index in sets.items() if len(index)} for sets in (boundaries, subdomains)]
    return dataclasses.replace(topology.with_boundaries(chosen[0]), _subdomains=chosen[1] or None), mapping


def _sets(basis: skfem.CellBasis, used: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Nodes of the named boundaries, cells of the named subdomains."""
    points, cells = {}, {}
    for name in basis.mesh.boundaries or {}:
        points[name] = np.flatnonzero(np.isin(used, basis.get_dofs(name).all()))
    index = np.arange(basis.mesh.nelements) if basis.tind is None else basis.tind
    for name, chosen in (basis.mesh.subdomains or {}).items():
        cells[name] = np.flatnonzero(np.isin(index, chosen))
    return points, cells
