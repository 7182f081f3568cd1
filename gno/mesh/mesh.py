"""Mesh: what a solver left behind, in one frozen value."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from gno.mesh.lattice import reduced

Period = tuple[float, ...] | tuple[tuple[float, ...], ...]

# Share of a period by which the width of a mesh, and the places of nodes that repeat each other, may be off.
WIDTH_TOLERANCE = 1e-5


# Types of cells that are points: what VTK draws the points of a cloud by.
_POINTS = ("vertex", "poly_vertex")


class MeshError(ValueError):
    """A mesh or a file that cannot be used as it is; the message says where, what was expected and what was got."""


class MeshWarning(UserWarning):
    """Something in a file that was repaired or left out; the message says which file and what."""


@dataclasses.dataclass(frozen=True)
class CellBlock:
    """Cells of one type.

    Args:
        type: meshio's name of the cell type (``"triangle"``, ``"hexahedron20"``, …), with meshio's node order;
            also ``"poly_vertex"``, ``"poly_line"`` and ``"triangle_strip"`` of VTK.
        nodes: node indices, one row per cell.
    """

    type: str
    nodes: Int[np.ndarray, "n_cells n_nodes_per_cell"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", np.asarray(self.nodes))

    def __len__(self) -> int:
        return len(self.nodes)


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Points, cells, fields, and named sets; never changed in place.

    Args:
        points: node coordinates, in the user's unit of length.
        cells: blocks of cells; a point cloud has none, or vertices only. Cells are numbered through the blocks in their
            order.
        point_fields: values at nodes; the first axis is the node.
        cell_fields: values on cells; the first axis is the cell, numbered through all blocks.
        global_fields: values that belong to the whole file.
        point_sets: node indices by name; kept sorted, each once.
        cell_sets: cell indices by name, numbered through all blocks; kept sorted, each once.
        time: time of the fields, if the file has one.
        source: where the mesh came from, for messages.
        period: length after which each coordinate repeats, 0 where it does not; empty if none does. Cells reach from
            side to side, and the nodes on both are the same unknowns; points without cells may lie anywhere. Of these
            in 3-D also the three vectors of a cell that is not rectangular, zero where it does not repeat; the
            shortest vectors of the same lattice are kept.

    Raises:
        MeshError: a shape, an index, a coordinate or a period that does not fit.

    >>> corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),))
    Mesh(4 nodes, 1 quad, 2-D)
    """

    points: Float[np.ndarray, "n_nodes dim"]
    cells: tuple[CellBlock, ...] = ()
    point_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    cell_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    global_fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    point_sets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    cell_sets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    time: float | None = None
    source: str = "mesh"
    period: Period = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _floating(self.points))
        object.__setattr__(self, "cells", tuple(self.cells))
        for name in ("point_fields", "cell_fields", "global_fields"):
            frozen = {str(key): _unmasked(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(frozen))
        for name in ("point_sets", "cell_sets"):
            frozen = {str(key): _index_set(name, key, value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(frozen))
        self._check_points()
        self._check_cells()
        self._check_fields()
        object.__setattr__(self, "period", self._checked_period())

    def _check_points(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] not in (1, 2, 3) or not len(self.points):
            raise MeshError(f"points: expected (n_nodes ≥ 1, 1 to 3), got {self.points.shape} ({self.source})")
        if self.points.dtype.kind != "f":
            raise MeshError(f"points: expected floating point numbers, got {self.points.dtype} ({self.source})")
        bad = np.flatnonzero(~np.isfinite(self.points).all(1))
        if len(bad):
            got = f"{self.points[bad[0]]} at node {bad[0]}, {len(bad)} such nodes in all"
            raise MeshError(f"points: expected finite coordinates, got {got} ({self.source})")

    def _check_cells(self) -> None:
        for block in self.cells:
            what = f"cells '{block.type}'"
            if block.nodes.ndim != 2 or (len(block) and block.nodes.dtype.kind not in "iu"):
                got = f"{block.nodes.dtype} {block.nodes.shape}"
                raise MeshError(f"{what}: expected integers (n_cells, nodes per cell), got {got} ({self.source})")
            if block.nodes.size:
                low, high = block.nodes.min(), block.nodes.max()
                if low < 0 or high >= self.n_nodes:
                    got = low if low < 0 else high
                    raise MeshError(f"{what}: expected nodes 0 to {self.n_nodes - 1}, got {got} ({self.source})")

    def _check_fields(self) -> None:
        for kind, fields, size, what in (
            ("point_fields", self.point_fields, self.n_nodes, "nodes"),
            ("cell_fields", self.cell_fields, self.n_cells, "cells"),
        ):
            for name, values in fields.items():
                if values.ndim == 0 or len(values) != size:
                    got = "a single value" if values.ndim == 0 else len(values)
                    raise MeshError(f"{kind}['{name}']: expected {size} {what}, got {got} ({self.source})")
        for kind, sets, size in (
            ("point_sets", self.point_sets, self.n_nodes),
            ("cell_sets", self.cell_sets, self.n_cells),
        ):
            for name, index in sets.items():
                if len(index) and not (index[0] >= 0 and index[-1] < size):
                    got = f"{index[0]} to {index[-1]}"
                    raise MeshError(f"{kind}['{name}']: expected 0 to {size - 1}, got {got} ({self.source})")

    def _checked_period(self) -> Period:
        period = np.asarray(self.period, dtype=np.float64)
        if not period.size or not period.any():
            return ()
        if not np.isfinite(period).all():
            raise MeshError(f"period: expected finite lengths, got {period.tolist()} ({self.source})")
        if period.ndim == 2:
            period = self._reduced(period)
            if period.ndim == 2:
                return tuple(map(tuple, period.tolist()))
        if period.shape != (self.dim,) or period.min() < 0:
            expected = f"{self.dim} lengths of a rectangular box, 0 for a coordinate that does not repeat"
            raise MeshError(f"period: expected {expected}, got {period.tolist()} ({self.source})")
        width = np.ptp(self.points, axis=0)
        for axis in () if self.is_cloud else np.flatnonzero(period):
            if abs(width[axis] - period[axis]) > WIDTH_TOLERANCE * period[axis]:
                expected = f"{width[axis]:.6g} along {'xyz'[axis]}, which is how far the cells reach"
                raise MeshError(f"period: expected {expected}, got {period[axis]:.6g} ({self.source})")
        return tuple(period.tolist())

    def _reduced(self, cell: np.ndarray) -> np.ndarray:
        if not self.is_cloud or cell.shape != (3, 3) or self.points.shape[1] != 3:
            expected = f"{self.dim} lengths of a rectangular box, or of 3-D points without cells three vectors"
            raise MeshError(f"period: expected {expected}, got {cell.tolist()} ({self.source})")
        try:
            return reduced(cell)
        except ValueError as error:
            raise MeshError(f"period: expected {error}, got {cell.tolist()} ({self.source})") from error

    @property
    def n_nodes(self) -> int:
        return len(self.points)

    @property
    def n_cells(self) -> int:
        return sum(len(block) for block in self.cells)

    @property
    def is_cloud(self) -> bool:
        """Whether these are points only, without cells that join them."""
        return all(block.type in _POINTS or not len(block) for block in self.cells)

    @property
    def dim(self) -> int:
        """Dimension of the space that the nodes fill: a mesh in a plane z = constant is 2-D, particles in a box 3-D."""
        extent = np.ptp(self.points, axis=0)
        boxed = self.is_cloud and len(self.period) == 3
        flat = extent.shape[0] == 3 and extent[2] <= 1e-12 * extent.max() and not boxed
        return 2 if flat else self.points.shape[1]

    def __reduce__(self) -> tuple:
        # read-only views of dictionaries can neither be pickled nor copied
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return type(self), tuple(dict(value) if isinstance(value, Mapping) else value for value in values)

    def replace(self, **changes) -> Mesh:
        """A copy with some parts exchanged, checked anew."""
        return dataclasses.replace(self, **changes)

    def with_point_fields(self, **fields: np.ndarray) -> Mesh:
        """A copy with point fields added or exchanged."""
        return self.replace(point_fields={**self.point_fields, **fields})

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for block in self.cells:
            counts[block.type] = counts.get(block.type, 0) + len(block)
        cells = ", ".join(f"{n} {name}" for name, n in counts.items()) or "no cells"
        return f"Mesh({self.n_nodes} nodes, {cells}, {self.dim}-D)"


def nearly(name: str, known: Iterable[str]) -> str:
    """What to add to an error about a name that is not known: one that is and looks alike, if there is one.

    >>> nearly("vonmises", ["displacement", "von_mises"])
    "; did you mean 'von_mises'?"
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def named_once(names: Sequence[str], what: str, path: object) -> Sequence[str]:
    """The names, if each is there once.

    Raises:
        MeshError: a name that stands for two things in a file.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise MeshError(f"{path}: {what}: expected each name once, got '{twice[0]}' twice")
    return names


def _index_set(kind: str, name: str, index: np.ndarray) -> np.ndarray:
    index = np.asarray(index)
    if index.ndim != 1 or (len(index) and index.dtype.kind not in "iu"):
        raise MeshError(f"{kind}['{name}']: expected a list of indices, got {index.dtype} {index.shape}")
    index = np.sort(index.astype(np.int64))
    return index[np.concatenate([[True], index[1:] != index[:-1]])] if len(index) else index


def _unmasked(values: np.ndarray) -> np.ndarray:
    """The values, NaN where they are masked, as in fields of NetCDF: what lies below a mask is no value."""
    if not np.ma.is_masked(values):
        return np.asarray(values)
    kind = values.dtype if values.dtype.kind in "fc" else np.float64
    return np.ma.filled(np.ma.asarray(values).astype(kind), np.nan)


def _floating(points: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(points)
    return points.astype(np.float64) if points.dtype.kind in "iu" else points
