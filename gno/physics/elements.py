"""scikit-fem's elements, rules and mappings on the cells of a mesh, in the numbering of its nodes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import skfem
from jaxtyping import Float, Int
from skfem.mapping import Mapping
from skfem.quadrature import get_quadrature
from skfem.refdom import RefLine, RefPoint, RefQuad, RefTri

from gno.mesh import Mesh, MeshError
from gno.mesh.geometry import alone, domain_dim, groups
from gno.mesh.shapes import cell_dim, family, reference_nodes

ELEMENTS = {
    ("line", 2): skfem.ElementLineP1,
    ("line", 3): skfem.ElementLineP2,
    ("triangle", 3): skfem.ElementTriP1,
    ("triangle", 6): skfem.ElementTriP2,
    ("triangle", 10): skfem.ElementTriP3,
    ("triangle", 15): skfem.ElementTriP4,
    ("quad", 4): skfem.ElementQuad1,
    ("quad", 8): skfem.ElementQuadS2,
    ("quad", 9): skfem.ElementQuad2,
    ("tetra", 4): skfem.ElementTetP1,
    ("tetra", 10): skfem.ElementTetP2,
    ("hexahedron", 8): skfem.ElementHex1,
    ("hexahedron", 20): skfem.ElementHexS2,
    ("hexahedron", 27): skfem.ElementHex2,
    ("wedge", 6): skfem.ElementWedge1,
}
"""scikit-fem's Lagrange and serendipity elements by the form of the cell and its number of nodes."""

SMALLEST = 1e-14
"""Smallest |J| of a usable cell, relative to its extent to the power of its dimension."""
_RULES = {2: RefLine, 3: RefTri, 4: RefQuad}
"""Reference facets by their number of corners."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """The domain's cells of one type, their nodes in the order of scikit-fem's element.

    Args:
        type: meshio's name of the cell type.
        element: scikit-fem's element; its local functions are one at one node each.
        nodes: node indices.
        index: numbers of the cells through all blocks of the mesh.
    """

    type: str
    element: skfem.Element
    nodes: Int[np.ndarray, "n_cells n_local"]
    index: Int[np.ndarray, " n_cells"]

    @property
    def order(self) -> int:
        """Order of a rule that integrates the mass matrix on straight cells (per direction in quads and hexahedra)."""
        degree = round(1 / np.diff(np.unique(self.element.doflocs)).min())
        return 2 * degree + (family(self.type) in ("quad", "hexahedron"))


class NodeMapping(Mapping):
    """Isoparametric map of cells of any dimension in a space of the same or a higher one.

    Where the cell is of lower dimension (a surface in 3-D), ``invDF`` is the pseudo-inverse (JᵀJ)⁻¹Jᵀ, which makes
    gradients tangential, and ``detDF`` is √det(JᵀJ).

    Args:
        points: node coordinates.
        nodes: nodes of the cells, in the order of the element.
        element: scikit-fem's element that maps the reference cell.
    """

    def __init__(
        self, points: Float[np.ndarray, "n_nodes dim"], nodes: Int[np.ndarray, "n n_local"], element: skfem.Element
    ) -> None:
        self.points, self.nodes, self.element = points, nodes, element
        self.dim = points.shape[1]
        self._last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def _corners(self, tind: np.ndarray | None) -> np.ndarray:
        return self.points[self.nodes if tind is None else self.nodes[tind]]

    def _jacobian(self, X: np.ndarray, tind: np.ndarray | None) -> np.ndarray:
        """J (n_cells, n_points or 1, dim, r)."""
        _, dphi = shape_functions(self.element, X)
        rule = "cjd,jrq->cqdr" if X.ndim == 2 else "cjd,jrcq->cqdr"
        return np.einsum(rule, self._corners(tind), dphi, optimize=True)

    def F(self, X: np.ndarray, tind: np.ndarray | None = None) -> np.ndarray:  # noqa: N802
        phi, _ = shape_functions(self.element, X)
        return np.einsum("cjd,jq->dcq" if X.ndim == 2 else "cjd,jcq->dcq", self._corners(tind), phi)

    def DF(self, X: np.ndarray, tind: np.ndarray | None = None) -> np.ndarray:  # noqa: N802
        return np.moveaxis(self._jacobian(X, tind), (-2, -1), (0, 1))

    def detDF(self, X: np.ndarray, tind: np.ndarray | None = None) -> np.ndarray:  # noqa: N802
        J = self._jacobian(distinct_points(self.element, X), tind)
        square = J.shape[-1] == J.shape[-2]
        det = np.linalg.det(J) if square else np.sqrt(np.linalg.det(np.swapaxes(J, -1, -2) @ J))
        return np.broadcast_to(det, (len(J), X.shape[-1]))

    def invDF(self, X: np.ndarray, tind: np.ndarray | None = None) -> np.ndarray:  # noqa: N802
        # scikit-fem asks again for every local function and every component.
        chosen = np.asarray(tind)
        if self._last is not None and np.array_equal(self._last[0], X) and np.array_equal(self._last[1], chosen):
            return self._last[2]
        J = self._jacobian(distinct_points(self.element, X), tind)
        inverse = np.moveaxis(_inverse(J), (-2, -1), (0, 1))
        inverse = np.broadcast_to(inverse, (*inverse.shape[:3], X.shape[-1]))
        self._last = (X.copy(), chosen, inverse)
        return inverse


def shape_functions(element: skfem.Element, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n_local, …) and derivatives (n_local, r, …) of an element's functions at points X (r, …)."""
    found = [element.lbasis(X, j) for j in range(len(element.doflocs))]
    phi = np.stack([np.broadcast_to(value, X.shape[1:]) for value, _ in found])
    dphi = np.stack([np.stack([np.broadcast_to(d, X.shape[1:]) for d in derivative]) for _, derivative in found])
    return phi, dphi


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Cells of one type at points of the reference cell.

    Args:
        shape: N.
        gradient: ∇N in space; one for all points of a straight simplex.
        inverse: J⁻¹, or (JᵀJ)⁻¹Jᵀ where the cell is of lower dimension than the space; likewise.
        measure: det J, or √det(JᵀJ); likewise.
        position: of the points in space.
    """

    shape: Float[np.ndarray, "n_local n_points"]
    gradient: Float[np.ndarray, "n_cells n_points_or_1 n_local dim"]
    inverse: Float[np.ndarray, "n_cells n_points_or_1 r dim"]
    measure: Float[np.ndarray, "n_cells n_points_or_1"]
    position: Float[np.ndarray, "n_cells n_points dim"]


def evaluate(points: np.ndarray, nodes: np.ndarray, element: skfem.Element, X: np.ndarray) -> Evaluation:
    """Shape functions, gradients and sizes of cells at points X (r, n_points) of the reference cell.

    Sizes of 0 are left to the caller, gradients are not finite there.
    """
    mapping = NodeMapping(points, nodes, element)
    phi, dphi = shape_functions(element, X)
    once = distinct_points(element, X)
    inverse = np.moveaxis(mapping.invDF(once), (0, 1), (-2, -1))
    return Evaluation(
        shape=phi,
        gradient=np.einsum("cqrd,jrq->cqjd", inverse, dphi[..., : once.shape[1]]),
        inverse=inverse,
        measure=mapping.detDF(once),
        position=np.ascontiguousarray(np.moveaxis(mapping.F(X), 0, -1)),
    )


def facet_nodes(element: skfem.Element) -> list[np.ndarray]:
    """For each facet of the reference cell, the local nodes on it."""
    corner = element.refdom.p.T
    first = [corner[facet[0]] for facet in element.refdom.facets]
    return [
        np.flatnonzero(np.abs((element.doflocs - origin) @ normal) < 1e-9)
        for origin, normal in zip(first, element.refdom.normals, strict=True)
    ]


def boundary_sides(cells: Sequence[Cells], place: Int[np.ndarray, " n_nodes"]) -> list[list[np.ndarray]]:
    """For each cell type and each facet of its reference cell, the cells that have no neighbour there.

    Args:
        place: node that each node repeats, itself where it is alone.
    """
    keys, owners = [], []
    for k, part in enumerate(cells):
        for side, (loop, _, _) in enumerate(facet_rules(part.element, 1)):
            corners = place[part.nodes[:, loop]]
            keys.append(np.pad(corners, ((0, 0), (0, 4 - len(loop))), constant_values=-1))
            owners.append(np.stack([np.full(len(corners), k), np.full(len(corners), side), np.arange(len(corners))]))
    key, owner = np.concatenate(keys), np.concatenate(owners, axis=1)
    kind, side, cell = owner[:, alone(key)]
    sides = [range(len(part.element.refdom.facets)) for part in cells]
    return [[cell[(kind == k) & (side == s)] for s in sides[k]] for k in range(len(cells))]


def distinct_points(element: skfem.Element, X: np.ndarray) -> np.ndarray:
    """The first of the points X (r, n) where the Jacobian is the same at all of them, on straight simplices; else X."""
    simplex = element.doflocs.shape[0] == element.doflocs.shape[1] + 1
    return X[:, :1] if simplex and X.ndim == 2 else X


def nanson(measure: np.ndarray, inverse: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Size (n_cells, n_points) and unit normal (n_cells, n_points, dim) of facets, ``n da = |det J| J⁻ᵀ N dA``.

    Args:
        measure: det J (n_cells, n_points).
        inverse: J⁻¹ (n_cells, n_points, r, dim).
        normal: N dA of the reference cell (r).
    """
    area = np.abs(measure)[..., None] * np.einsum("cqrd,r->cqd", inverse, normal)
    size = np.linalg.norm(area, axis=-1)
    return size, area / size[..., None]


def _inverse(J: np.ndarray) -> np.ndarray:
    transposed = np.swapaxes(J, -1, -2)
    try:
        return np.linalg.inv(J) if J.shape[-1] == J.shape[-2] else np.linalg.solve(transposed @ J, transposed)
    except np.linalg.LinAlgError:
        return np.linalg.pinv(J)  # some cell has no size; whoever needs its gradient checks sizes first


@functools.cache
def node_order(cell_type: str, n_nodes: int) -> tuple[int, ...]:
    """For each local function of scikit-fem's element, the place of its node in meshio's cell.

    >>> node_order("hexahedron", 8)
    (6, 2, 5, 7, 1, 3, 4, 0)
    """
    here = reference_nodes(cell_type, n_nodes)
    there = element_of(cell_type, n_nodes).doflocs
    distance = np.abs(there[:, None] - here[None]).sum(-1)
    return tuple(distance.argmin(1).tolist())


def element_of(cell_type: str, n_nodes: int) -> skfem.Element:
    """scikit-fem's element with one function per node of the cell.

    Raises:
        MeshError: scikit-fem has none (pyramids, wedges with mid-side nodes, polygons, …).
    """
    found = ELEMENTS.get((family(cell_type), n_nodes))
    if found is None:
        have = [n for name, n in ELEMENTS if name == family(cell_type)]
        known = f"{' or '.join(map(str, have))} nodes, as scikit-fem has" if have else "a form that scikit-fem has"
        raise MeshError(f"cells '{cell_type}': expected {known}, got {n_nodes} nodes")
    return found()


def domain_cells(mesh: Mesh) -> list[Cells]:
    """The domain's cells by type, ready for scikit-fem.

    Raises:
        MeshError: the mesh has no cells, or cells without an element.
    """
    dim = domain_dim(mesh)
    if dim == 0:
        raise MeshError(f"cells: expected lines, surfaces or volumes to integrate over, got none ({mesh.source})")
    types = {(b.type, b.nodes.shape[1]): None for b in mesh.cells if len(b) and cell_dim(b.type) == dim}
    found = []
    for (cell_type, n_nodes), (_, nodes, index) in zip(types, groups(mesh, dim), strict=True):
        try:
            element = element_of(cell_type, n_nodes)
        except MeshError as error:
            raise MeshError(f"{error} ({mesh.source})") from None
        found.append(Cells(cell_type, element, nodes[:, node_order(cell_type, n_nodes)], index))
    return found


def cell_rule(element: skfem.Element, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature points (r, n) and weights of the reference cell.

    scikit-fem's rule for wedges (12.0) sums to a quarter instead of a half; here it is the product of its rules for
    triangles and lines.
    """
    if len(element.refdom.p.T) != 6:
        return get_quadrature(element, order)
    (x, v), (z, w) = get_quadrature(RefTri, order), get_quadrature(RefLine, order)
    points = np.vstack([np.tile(x, len(w)), np.repeat(z, len(v), axis=1)])
    return points, np.outer(w, v).ravel()


def facet_rules(element: skfem.Element, order: int) -> Iterator[tuple[tuple[int, ...], np.ndarray, np.ndarray]]:
    """For each facet of the reference cell its corners, quadrature points in the cell (r, n) and weights."""
    corner = element.refdom.p.T
    for facet in element.refdom.facets:
        loop = tuple(dict.fromkeys(facet))
        if len(loop) == 1:
            _, weight = get_quadrature(RefPoint, order)
            yield loop, corner[list(loop)].T, weight
            continue
        local, weight = get_quadrature(_RULES[len(loop)], order)
        sides = corner[[loop[1], loop[-1]][: len(local)]] - corner[loop[0]]
        yield loop, corner[loop[0]][:, None] + sides.T @ local, weight


def check_sizes(cells: Cells, points: np.ndarray, measure: Float[np.ndarray, "n_cells n_points"], source: str) -> None:
    """Refuse cells that nothing can be integrated over.

    Raises:
        MeshError: cells of no size, or folded over so that det J has both signs.
    """
    extent = np.ptp(points[cells.nodes], axis=1).max(1)
    least = SMALLEST * extent**cells.element.dim
    flat = np.flatnonzero(~(np.abs(measure).min(1) > least))
    folded = np.flatnonzero((measure.min(1) < 0) & (measure.max(1) > 0))
    for bad, what in ((flat, "of no size"), (folded, "folded over")):
        if len(bad):
            got = f"{len(bad)} {what}, the first is cell {cells.index[bad[0]]}"
            raise MeshError(f"cells '{cells.type}': expected each with a size, got {got} ({source})")


def points_of(mesh: Mesh) -> Float[np.ndarray, "n_nodes dim"]:
    """Node coordinates in float64, without the third column of a planar mesh."""
    return mesh.points[:, : mesh.dim].astype(np.float64)
