"""Gmsh's files: the mesh by meshio, fields by their numbers, and what meshio refuses by Gmsh in a process of its own.

meshio takes the values of a field to be those of all nodes or cells in the order of the file, which they need not be;
so it does not see them. It refuses MSH 1, prisms of 15 nodes, nodes with parameters, as MSH 4.0 always has them, and
physical groups of some cells only.
"""

from __future__ import annotations

import dataclasses
import mmap
import re
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gno.mesh.apart import answer, read_apart
from gno.mesh.gmshdata import Bytes, Section, end_of_mesh, numbers, sections
from gno.mesh.mesh import CellBlock, Mesh, MeshError, MeshWarning
from gno.mesh.meshioreader import mesh_from_meshio, read_rare, read_with_meshio
from gno.mesh.ordering import CORNERS
from gno.mesh.plain import split_sets
from gno.mesh.sets import boundary_nodes
from gno.mesh.shapes import reference_nodes

_REFUSED = re.compile(rb"\s*(\$NOD\s|\$MeshFormat\s+4(\.0)?\s)")
_NUMBER, _NONE = "gmsh:number", np.zeros(0, dtype=np.int64)
_FORMS = {
    "Point": "vertex",
    "Line": "line",
    "Triangle": "triangle",
    "Quadrilateral": "quad",
    "Tetrahedron": "tetra",
    "Hexahedron": "hexahedron",
    "Prism": "wedge",
    "Pyramid": "pyramid",
}


@dataclasses.dataclass(frozen=True)
class _Places:
    """Gmsh's numbers of nodes or cells, the place of each in the mesh, and how many the mesh has."""

    numbers: np.ndarray
    place: np.ndarray
    count: int

    def spread(self, field: Section, data: Bytes) -> np.ndarray:
        """The field's values at their places, NaN elsewhere."""
        tags, rows = field.rows(data)
        order = np.argsort(self.numbers)
        index = np.searchsorted(self.numbers, tags, sorter=order).clip(max=len(order) - 1)
        if not np.array_equal(self.numbers[order[index]], tags):
            raise MeshError(f"field '{field.name}': expected values at nodes or cells of the mesh, got others")
        values = np.full((self.count, field.width), np.nan)
        values[self.place[order[index]]] = rows
        return values[:, 0] if field.width == 1 else values


def msh_times(path: Path) -> list[float]:
    """Times of the fields of a file, each once; none where there is one time only."""
    with _mapped(path) as data:
        return _times(data)


def _times(data: Bytes) -> list[float]:
    times = sorted({section.time for section in sections(data)})
    return times if len(times) > 1 else []


def read_msh(path: Path, step: int) -> Mesh:
    """Read a mesh, its physical groups as sets, and its fields of one time step.

    Fields that belong to a part of the nodes or cells are NaN elsewhere.

    Raises:
        MeshError: neither meshio nor Gmsh can read it.
    """
    with _mapped(path) as data:
        if b"$" not in data[:512]:
            return read_rare(path, "ansys")
        end = end_of_mesh(data)
        if b"$ElementNodeData" in data[end:]:
            text = "values at the nodes of each cell ($ElementNodeData) are left out; average them to nodes or cells"
            warnings.warn(f"{path}: {text}", MeshWarning, stacklevel=4)
        mesh, nodes, cells = _numbered(path, data, end)
        mesh, place = _each_cell_once(mesh)
        times = _times(data)
        places = _Places(nodes, np.arange(mesh.n_nodes), mesh.n_nodes), _Places(cells, place, mesh.n_cells)
        return _with_fields(mesh, data, times[step] if times else None, *places)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _numbered(path: Path, data: Bytes, end: int) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """The mesh, and Gmsh's numbers of its nodes and cells."""
    if not _REFUSED.match(data[:64]):
        try:
            mesh = _by_meshio(path, data, end)
            widths = np.concatenate([np.full(len(block), block.nodes.shape[1]) for block in mesh.cells])
            return (mesh, *(numbers(data, widths) if end < len(data) else (_NONE, _NONE)))
        except MeshError as error:
            if not re.search("parametric|KeyError|Incompatible", str(error)):
                raise
    mesh = read_apart("gno.mesh.gmshreader", path)
    points, cells = dict(mesh.point_fields), dict(mesh.cell_fields)
    numbered = points.pop(_NUMBER), cells.pop(_NUMBER)
    return (mesh.replace(point_fields=points, cell_fields=cells), *numbered)


def _by_meshio(path: Path, data: Bytes, end: int) -> Mesh:
    """The mesh without its fields."""
    if end == len(data):
        return read_with_meshio(path, "gmsh")
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / path.name
        bare.write_bytes(data[:end])
        try:
            return read_with_meshio(bare, "gmsh").replace(source=str(path))
        except MeshError as error:
            raise MeshError(str(error).replace(str(bare), str(path))) from error


def _each_cell_once(mesh: Mesh) -> tuple[Mesh, np.ndarray]:
    """Without the copies of cells that MSH 2 holds, one for each physical group that a cell is in; and what became of
    each cell."""
    blocks: list[CellBlock] = []
    kept: list[np.ndarray] = []
    place, start = [_NONE], 0
    for block in mesh.cells:
        _, first, which = np.unique(block.nodes, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        blocks.append(CellBlock(block.type, block.nodes[first[order]]))
        place.append(np.argsort(order)[which.ravel()] + sum(map(len, kept)))
        kept.append(first[order] + start)
        start += len(block)
    new = np.concatenate(place)
    if sum(map(len, kept)) == start:
        return mesh, new
    rows = np.concatenate(kept)
    fields = {name: values[rows] for name, values in mesh.cell_fields.items()}
    sets = {name: np.unique(new[index]) for name, index in mesh.cell_sets.items()}
    return mesh.replace(cells=tuple(blocks), cell_fields=fields, cell_sets=sets), new


def _with_fields(mesh: Mesh, data: Bytes, time: float | None, points: _Places, cells: _Places) -> Mesh:
    """The mesh with the values of one time, and with those of fields that have one time only."""
    found = list(sections(data))
    often = [field.name for field in found]
    at_nodes, on_cells = dict(mesh.point_fields), dict(mesh.cell_fields)
    for field in found:
        if time is None or field.time == time or often.count(field.name) == 1:
            values = (points if field.at_nodes else cells).spread(field, data)
            (at_nodes if field.at_nodes else on_cells)[field.name] = values
    at_nodes, point_sets = split_sets(at_nodes, {})
    on_cells, cell_sets = split_sets(on_cells, {})
    cell_sets, point_sets = {**mesh.cell_sets, **cell_sets}, {**mesh.point_sets, **point_sets}
    mesh = mesh.replace(point_fields=at_nodes, cell_fields=on_cells, cell_sets=cell_sets, time=time)
    boundary = {name: index for name, index in cell_sets.items() if name not in point_sets}
    return mesh.replace(point_sets=point_sets | boundary_nodes(mesh, boundary))


def _read_here(path: Path) -> Mesh:
    try:
        import gmsh
    except (ImportError, OSError) as error:
        raise MeshError(f"{path}: only gmsh reads such a file, and it cannot be loaded: {error}") from error
    gmsh.initialize(readConfigFiles=False)
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.logger.start()
    try:
        gmsh.open(str(path))
    except Exception as error:  # gmsh raises nothing else
        raise MeshError(f"{path}: not a readable gmsh file: {' '.join(str(error).split())[:200]}") from error
    if wrong := [line for line in gmsh.logger.get() if line.startswith("Error")]:
        raise MeshError(f"{path}: not a readable gmsh file: {' '.join(wrong[0].split())[:200]}")
    return _by_gmsh(gmsh, path)


def _by_gmsh(gmsh: Any, path: Path) -> Mesh:
    """What gmsh holds, in the way of meshio (whose own class knows no prisms of 15 nodes), with numbers as fields."""
    tags, points, _ = gmsh.model.mesh.getNodes()
    place = np.zeros(int(tags.max(initial=0)) + 1, dtype=np.int64)
    place[tags] = np.arange(len(tags))
    cells: list[SimpleNamespace] = []
    groups: list[set[tuple[int, int]]] = []
    fields: dict[str, list[np.ndarray]] = {_NUMBER: [], "gmsh:physical": [], "gmsh:geometrical": []}
    for dim, entity in gmsh.model.getEntities():
        mine = [int(tag) for tag in gmsh.model.getPhysicalGroupsForEntity(dim, entity)]
        for kind, own, nodes in zip(*gmsh.model.mesh.getElements(dim, entity), strict=True):
            cell_type, order = _form(gmsh, kind, path)
            cells.append(SimpleNamespace(type=cell_type, data=place[nodes].reshape(len(own), -1)[:, order]))
            groups.append({(dim, tag) for tag in mine})
            for name, value in zip(fields, (own, min(mine, default=0), entity), strict=True):
                fields[name].append(np.broadcast_to(np.asarray(value, dtype=np.int64), len(own)))
    names = {gmsh.model.getPhysicalName(*group): group for group in gmsh.model.getPhysicalGroups()}
    sets: dict[str, list] = {
        name: [np.arange(len(block.data)) if group in mine else [] for block, mine in zip(cells, groups, strict=True)]
        for name, group in names.items()
        if name
    }
    known = {name: np.array([tag, dim]) for name, (dim, tag) in names.items() if name}
    numbered = {_NUMBER: tags.astype(np.int64)}
    raw = SimpleNamespace(
        points=points.reshape(-1, 3),
        cells=cells,
        point_data=numbered,
        cell_data=fields,
        field_data=known,
        cell_sets=sets,
        point_sets={},
    )
    return mesh_from_meshio(raw, path, "msh")


def _form(gmsh: Any, kind: int, path: Path) -> tuple[str, np.ndarray]:
    """Name of a type of cells, and the places of its nodes in Gmsh's order: those at the same positions."""
    title, dim, _, n_nodes, local, _ = gmsh.model.mesh.getElementProperties(kind)
    form = _FORMS.get(title.split()[0])
    if form is None:
        raise MeshError(f"{path}: cells '{title}' are not supported")
    if form == "vertex":
        return form, np.zeros(1, dtype=np.int64)
    n_corners = len(CORNERS[form])
    cell_type = form if n_nodes == n_corners else f"{form}{n_nodes}"
    mine, theirs = reference_nodes(cell_type, n_nodes), np.c_[local.reshape(n_nodes, dim), np.ones(n_nodes)]
    theirs = theirs @ np.linalg.lstsq(theirs[:n_corners], mine[:n_corners], rcond=None)[0]
    distance = np.abs(mine[:, None] - theirs[None]).max(-1)
    if distance.min(1).max() > 1e-6:
        raise MeshError(f"{path}: cells '{title}' are not supported")
    return cell_type, distance.argmin(1)


if __name__ == "__main__":
    raise SystemExit(answer(lambda: _read_here(Path(sys.argv[1])), sys.argv[2]))
