"""What the torch side needs of a mesh: shape functions, gradients and weights at quadrature points."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.graph.segment import bag
from gno.mesh import Mesh, repeats

if TYPE_CHECKING:
    from gno.physics.elements import Cells, Evaluation

Q = TypeVar("Q", bound="Quadrature")


@dataclasses.dataclass(frozen=True)
class Quadrature:
    """Cells of one type, or the boundary facets on the same side of cells of one type, with their quadrature points.

    For facets ``shape`` and ``gradient`` are those of the whole adjacent cell, at points of the facet: fields and their
    full gradients can be evaluated there.

    Args:
        type: meshio's cell type; for facets with the number of the side, ``"tetra/2"``.
        nodes: node indices of the mesh, in its own numbering.
        shape: N at the quadrature points of the reference cell.
        gradient: ∇N in space; tangential on surfaces in 3-D.
        weight: quadrature weight times size of the cell or facet, positive.
        position: of the quadrature points.
        cell: number of the mesh cell, through all blocks, that the values belong to.
        graph: number of the mesh in a batch.
        order: places of ``nodes`` (flattened), sorted by node; sums to nodes go through it, in a fixed order.
        ptr: places of node i are ``order[ptr[i]:ptr[i + 1]]``.
    """

    type: str
    nodes: Int[Tensor, "n_cells n_local"]
    shape: Float[Tensor, "n_points n_local"]
    gradient: Float[Tensor, "n_cells n_points n_local dim"]
    weight: Float[Tensor, "n_cells n_points"]
    position: Float[Tensor, "n_cells n_points dim"]
    cell: Int[Tensor, " n_cells"]
    graph: Int[Tensor, " n_cells"]
    order: Int[Tensor, " n_cells_local"]
    ptr: Int[Tensor, " n_nodes_1"]

    def gather(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_cells n_local c"]:
        """Node values cell by cell; its gradient is :meth:`scatter`."""
        return _Gather.apply(u, self.nodes, self.order, self.ptr)

    def scatter(self, values: Float[Tensor, "n_cells n_local c"]) -> Float[Tensor, "n_nodes c"]:
        """Sum of cell-local values at the nodes, in a fixed order; its gradient is :meth:`gather`."""
        return _Scatter.apply(values, self.nodes, self.order, self.ptr)

    def values(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_cells n_points c"]:
        """A node field at the quadrature points."""
        return torch.einsum("qn,knc->kqc", self.shape, self.gather(u))

    def gradients(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_cells n_points c dim"]:
        """Gradient of a node field at the quadrature points; the last axis is the direction."""
        return torch.einsum("kqnd,knc->kqcd", self.gradient, self.gather(u))

    def to(self: Q, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Q:
        """A copy on another device or with another floating point type."""
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                kind = dtype if value.is_floating_point() else None
                changed[field.name] = _by_cell(lambda x, kind=kind: x.to(device=device, dtype=kind), value)
        return dataclasses.replace(self, **changed)


@dataclasses.dataclass(frozen=True)
class FacetQuadrature(Quadrature):
    """Boundary facets; ``cell`` is the adjacent cell.

    Args:
        normal: unit outward normal; on a surface's rim it is tangential to the surface.
        local: which of the cell's nodes lie on the facet, so that these are ``nodes[:, local]``.
    """

    normal: Float[Tensor, "n_cells n_points dim"]
    local: Int[Tensor, " n_on_facet"]


@dataclasses.dataclass(frozen=True)
class Domain:
    """A mesh, or a batch of meshes, as quadrature points.

    Args:
        n_nodes: nodes of the mesh.
        n_cells: cells of the mesh in all blocks, so that fields on cells can be looked up.
        dim: dimension of the space.
        n_graphs: meshes in the batch; 1 for a single one.
        cells: one per cell type of the domain.
        facets: boundary facets by the name of a point set; ``"boundary"`` are all.
    """

    n_nodes: int
    n_cells: int
    dim: int
    n_graphs: int
    cells: tuple[Quadrature, ...]
    facets: Mapping[str, tuple[FacetQuadrature, ...]]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Domain:
        """A copy on another device or with another floating point type."""
        facets = {name: tuple(part.to(device, dtype) for part in parts) for name, parts in self.facets.items()}
        cells = tuple(part.to(device, dtype) for part in self.cells)
        return dataclasses.replace(self, cells=cells, facets=MappingProxyType(facets))

    def values(self, u: Float[Tensor, "n_nodes c"]) -> list[Tensor]:
        """A node field at the quadrature points, per cell type (n_cells, n_points, c)."""
        return [part.values(u) for part in self.cells]

    def gradients(self, u: Float[Tensor, "n_nodes c"]) -> list[Tensor]:
        """Gradient of a node field at the quadrature points, per cell type (n_cells, n_points, c, dim)."""
        return [part.gradients(u) for part in self.cells]

    def at_points(
        self, parameter: float | Tensor | Sequence[Tensor], parts: Sequence[Quadrature] | None = None
    ) -> list[Tensor]:
        """A parameter at the quadrature points, per cell type (n_cells, n_points, …).

        Args:
            parameter: a number; or values per node, per cell of the mesh, or per mesh of the batch (first axis); or
                values at the quadrature points already, one tensor per cell type (as from :meth:`cell_values`).
            parts: where; by default the domain's cells, else for example ``facets["boundary"]``.

        Raises:
            ValueError: the first axis fits nothing; or nodes and cells are equally many.
        """
        parts = self.cells if parts is None else parts
        if isinstance(parameter, (list, tuple)):
            return list(parameter)
        if not isinstance(parameter, Tensor) or parameter.ndim == 0:
            number = torch.as_tensor(parameter, dtype=None if isinstance(parameter, Tensor) else torch.float64)
            return [number.to(part.weight).expand_as(part.weight) for part in parts]
        n = len(parameter)
        if n == self.n_nodes == self.n_cells:
            raise ValueError(
                f"parameter: this mesh has {n} nodes and {n} cells; expected at_points(domain.cell_values(parameter)) "
                "or at_points(domain.node_values(parameter)), got a plain tensor"
            )
        if n == self.n_nodes:
            return self.node_values(parameter, parts)
        if n == self.n_cells:
            return self.cell_values(parameter, parts)
        if n == self.n_graphs:
            return [_along(parameter[part.graph], part) for part in parts]
        raise ValueError(
            f"parameter: expected a number, or values of {self.n_nodes} nodes, {self.n_cells} cells or "
            f"{self.n_graphs} meshes, got shape {tuple(parameter.shape)}"
        )

    def node_values(
        self, field: Float[Tensor, "n_nodes ..."], parts: Sequence[Quadrature] | None = None
    ) -> list[Tensor]:
        """A field at the nodes, of any rank, at the quadrature points."""
        columns = field.reshape(len(field), -1)
        found = []
        for part in self.cells if parts is None else parts:
            value = part.values(columns)
            found.append(value.reshape(*value.shape[:2], *field.shape[1:]))
        return found

    def cell_values(
        self, field: Float[Tensor, "n_cells ..."], parts: Sequence[Quadrature] | None = None
    ) -> list[Tensor]:
        """A field on the mesh's cells, numbered through all blocks, at the quadrature points."""
        return [_along(field[part.cell], part) for part in (self.cells if parts is None else parts)]

    @staticmethod
    def join(domains: Sequence[Domain]) -> Domain:
        """A batch of meshes as one; node, cell and mesh numbers are shifted, cells of one type come together.

        Raises:
            ValueError: there are none, or they lie in spaces of different dimension.
        """
        dims = sorted({domain.dim for domain in domains})
        if len(dims) != 1:
            raise ValueError(f"domains: expected one or more of the same dimension, got dimensions {dims}")
        names = dict.fromkeys(name for domain in domains for name in domain.facets)
        total = sum(domain.n_nodes for domain in domains)
        facets = {name: _join([(d.facets.get(name, ()), *s) for d, s in _shifts(domains)], total) for name in names}
        return Domain(
            n_nodes=total,
            n_cells=sum(domain.n_cells for domain in domains),
            dim=dims[0],
            n_graphs=sum(domain.n_graphs for domain in domains),
            cells=_join([(d.cells, *s) for d, s in _shifts(domains)], total),
            facets=MappingProxyType(facets),
        )


def build_domain(mesh: Mesh, *, order: int | None = None, sets: Sequence[str] = ()) -> Domain:
    """Quadrature points of a mesh, in float64.

    scikit-fem supplies elements and rules. Cells are isoparametric; the size of an inverted cell is positive.

    Args:
        mesh: triangles, quadrilaterals, tetrahedra, hexahedra, wedges, lines; linear or quadratic; mixed; also
            surfaces and curves in a higher space.
        order: polynomial order that the rule is exact for; by default that of the mass matrix on straight cells.
        sets: point sets to have boundary facets of; a facet belongs to a set if all its nodes do.

    Raises:
        MeshError: no cells, cells without an element, or cells of no size or folded over.
        ValueError: a set that is missing or holds no facet of the boundary.

    >>> from gno.mesh import CellBlock
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    >>> square = Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))
    >>> domain = build_domain(square)
    >>> float(domain.cells[0].weight.sum()), float(sum(part.weight.sum() for part in domain.facets["boundary"]))
    (2.0, 6.0)
    """
    from gno.physics.elements import cell_rule, domain_cells, points_of

    _check_sets(mesh, sets)
    points, cells = points_of(mesh), domain_cells(mesh)
    parts = []
    for part in cells:
        rule = cell_rule(part.element, part.order if order is None else order)
        parts.append(_quadrature(mesh, points, part, rule))
    facets = _facets(mesh, points, cells, order)
    named = {"boundary": facets, **{name: _within(mesh, name, facets) for name in sets if name != "boundary"}}
    return Domain(mesh.n_nodes, mesh.n_cells, points.shape[1], 1, tuple(parts), MappingProxyType(named))


def _quadrature(mesh: Mesh, points: np.ndarray, cells: Cells, rule: tuple[np.ndarray, np.ndarray]) -> Quadrature:
    from gno.physics.elements import check_sizes, evaluate

    X, W = rule
    at = evaluate(points, cells.nodes, cells.element, X)
    check_sizes(cells, points, at.measure, mesh.source)
    return _tensors(mesh, cells.type, cells.nodes, cells.index, at, np.abs(at.measure) * W)


def _facets(mesh: Mesh, points: np.ndarray, cells: Sequence[Cells], order: int | None) -> tuple[FacetQuadrature, ...]:
    """Boundary facets, grouped by cell type and side of the cell."""
    from gno.physics.elements import boundary_sides, evaluate, facet_nodes, facet_rules, nanson

    found = []
    for part, sides in zip(cells, boundary_sides(cells, repeats(mesh)), strict=True):
        nodes_of = facet_nodes(part.element)
        rules = facet_rules(part.element, part.order if order is None else order)
        for side, ((_, X, W), here, normal) in enumerate(zip(rules, sides, part.element.refdom.normals, strict=True)):
            if not len(here):
                continue
            at = evaluate(points, part.nodes[here], part.element, X)
            size, unit = nanson(at.measure, at.inverse, normal)
            plain = _tensors(mesh, f"{part.type}/{side}", part.nodes[here], part.index[here], at, size * W)
            unit = np.broadcast_to(unit, (*plain.weight.shape, unit.shape[-1])).copy()
            local = torch.from_numpy(nodes_of[side])
            found.append(FacetQuadrature(**_fields(plain), normal=torch.from_numpy(unit), local=local))
    return tuple(found)


def _tensors(
    mesh: Mesh, name: str, nodes: np.ndarray, index: np.ndarray, at: Evaluation, weight: np.ndarray
) -> Quadrature:
    cell = torch.from_numpy(index.astype(np.int64))
    local = torch.from_numpy(np.ascontiguousarray(nodes, dtype=np.int64))
    return Quadrature(
        type=name,
        nodes=local,
        shape=torch.from_numpy(np.ascontiguousarray(at.shape.T)),
        gradient=torch.from_numpy(at.gradient).expand(-1, weight.shape[1], -1, -1),
        weight=torch.from_numpy(weight),
        position=torch.from_numpy(at.position),
        cell=cell,
        graph=torch.zeros_like(cell),
        **_sums(local, mesh.n_nodes),
    )


def _sums(nodes: Tensor, n_nodes: int) -> dict[str, Tensor]:
    flat = nodes.reshape(-1)
    count = torch.bincount(flat, minlength=n_nodes)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return {"order": torch.argsort(flat, stable=True), "ptr": ptr}


def _check_sets(mesh: Mesh, sets: Sequence[str]) -> None:
    for name in sets:
        if name != "boundary" and name not in mesh.point_sets:
            known = ", ".join(map(repr, mesh.point_sets)) or "none"
            raise ValueError(f"sets: expected point sets of the mesh ({known}), got '{name}' ({mesh.source})")


def _within(mesh: Mesh, name: str, facets: Sequence[FacetQuadrature]) -> tuple[FacetQuadrature, ...]:
    """Facets whose nodes are all in a point set."""
    inside = torch.zeros(mesh.n_nodes, dtype=torch.bool)
    inside[torch.from_numpy(mesh.point_sets[name])] = True
    found = []
    for part in facets:
        keep = inside[part.nodes[:, part.local]].all(1)
        if keep.any():
            found.append(_selected(part, keep, mesh.n_nodes))
    if not found:
        raise ValueError(f"sets['{name}']: expected all nodes of one boundary facet or more, got none ({mesh.source})")
    return tuple(found)


def _selected(part: FacetQuadrature, keep: Tensor, n_nodes: int) -> FacetQuadrature:
    rows = ("nodes", "gradient", "weight", "position", "cell", "graph", "normal")
    changed: dict[str, Any] = {name: _by_cell(lambda x: x[keep], getattr(part, name)) for name in rows}
    return dataclasses.replace(part, **(changed | _sums(changed["nodes"], n_nodes)))


def _fields(value: Quadrature) -> dict:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _shifts(domains: Sequence[Domain]) -> list[tuple[Domain, tuple[int, int, int]]]:
    """Each domain with the number of nodes, cells and meshes before it."""
    found, node, cell, graph = [], 0, 0, 0
    for domain in domains:
        found.append((domain, (node, cell, graph)))
        node, cell, graph = node + domain.n_nodes, cell + domain.n_cells, graph + domain.n_graphs
    return found


def _join(found: Sequence[tuple[Sequence[Q], int, int, int]], n_nodes: int) -> tuple[Q, ...]:
    """Parts of one type put together, their node, cell and mesh numbers shifted."""
    groups: dict[tuple[str, int], list[Q]] = {}
    for parts, node, cell, graph in found:
        for part in parts:
            moved: dict[str, Any] = {"nodes": part.nodes + node, "cell": part.cell + cell, "graph": part.graph + graph}
            groups.setdefault((part.type, len(part.shape)), []).append(dataclasses.replace(part, **moved))
    return tuple(_merged(parts, n_nodes) for parts in groups.values())


def _merged(parts: list[Q], n_nodes: int) -> Q:
    kept = ("type", "shape", "order", "ptr", "local")
    rows = [field.name for field in dataclasses.fields(parts[0]) if field.name not in kept]
    changed: dict[str, Any] = {
        name: _by_cell(lambda *x: torch.cat(x), *(getattr(part, name) for part in parts)) for name in rows
    }
    return dataclasses.replace(parts[0], **(changed | _sums(changed["nodes"], n_nodes)))


def _along(values: Tensor, part: Quadrature) -> Tensor:
    """One value per cell, repeated at its points."""
    return values[:, None].expand(len(values), part.weight.shape[1], *values.shape[1:])


def _by_cell(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """Apply to values per cell; gradients on straight simplices are stored once per cell, not per point."""
    if all(value.ndim == 4 and value.stride(1) == 0 for value in values):
        size = values[0].shape[1]
        return function(*(value[:, :1] for value in values)).expand(-1, size, -1, -1)
    return function(*values)


def _sum_at_nodes(values: Tensor, order: Tensor, ptr: Tensor) -> Tensor:
    return bag(values.reshape(len(order), -1), order, ptr)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(u, nodes, order, ptr):
        return u.index_select(0, nodes.reshape(-1)).reshape(*nodes.shape, -1)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        return _Scatter.apply(grad, *ctx.saved_tensors), None, None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(values, nodes, order, ptr):
        return _sum_at_nodes(values, order, ptr)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx, grad):
        return _Gather.apply(grad, *ctx.saved_tensors), None, None, None
