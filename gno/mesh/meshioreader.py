"""Formats that meshio knows best; its way out of the program and its talk on the console stay inside."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.apart import answer, read_apart
from gno.mesh.mesh import CellBlock, Mesh, MeshError, MeshWarning
from gno.mesh.ordering import lattice
from gno.mesh.plain import split_sets
from gno.mesh.sets import boundary_nodes
from gno.mesh.shapes import cell_dim, shape

FORMATS = {
    ".msh": "gmsh",
    ".inp": "abaqus",
    ".bdf": "nastran",
    ".fem": "nastran",
    ".nas": "nastran",
    ".mesh": "medit",
    ".meshb": "medit",
    ".stl": "stl",
    ".ply": "ply",
    ".obj": "obj",
    ".off": "off",
}
"""What meshio calls the format of each extension."""
RARE = {
    ".h5m": "h5m",
    ".ugrid": "ugrid",
    ".f3grid": "flac3d",
    ".post": "permas",
    ".dato": "permas",
    ".tec": "tecplot",
    ".node": "tetgen",
    ".ele": "tetgen",
    ".wkt": "wkt",
}
"""Formats of which meshio's readers wait for ever on a file that was cut off; they get a process of their own."""

_CLOUDS = ("ply", "obj", "off", "wkt")
"""Formats in which points without cells are a point cloud, not half a file."""

# meshio's notes to itself, which are no fields of the file.
_NOT_FIELDS = ("gmsh:dim_tags", "gmsh:bounding_entities")


def read_with_meshio(path: Path, file_format: str) -> Mesh:
    """Read a file with meshio.

    Raises:
        MeshError: meshio cannot read it, or found no points.
    """
    import meshio

    _check_frame(path, file_format)
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = meshio.read(_bulk(path) if file_format == "nastran" else path, file_format)
    except (Exception, SystemExit) as error:
        # meshio raises whatever its parsers trip over, and leaves the program where no reader fits.
        raise MeshError(f"{path}: not a readable {file_format} file: {_reason(error, talk.getvalue())}") from error
    lost = [line for line in talk.getvalue().splitlines() if "kip" in line or "cannot" in line or "not support" in line]
    if lost:
        warnings.warn(f"{path}: {' '.join(lost[0].split())}", MeshWarning, stacklevel=4)
    return mesh_from_meshio(raw, path, file_format)


def read_rare(path: Path, file_format: str) -> Mesh:
    """Read a file with meshio in a process of its own."""
    return read_apart("gno.mesh.meshioreader", path, file_format)


def _check_frame(path: Path, file_format: str) -> None:
    """Lines without which meshio's reader waits for ever.

    Raises:
        MeshError: such a line is missing.
    """
    if file_format == "ply" and not re.search(rb"(?m)^\s*end_header\s*$", path.read_bytes()):
        raise MeshError(f"{path}: expected a line 'end_header', got none (file cut off?)")
    if file_format == "off" and not re.search(rb"(?m)^\s*\d+\s+\d+", path.read_bytes()):
        raise MeshError(f"{path}: expected a line with the numbers of nodes and faces, got none (file cut off?)")


class _Ending(io.StringIO):
    """Text that says so when it is read past its end again and again."""

    _past_end = 0

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        line = super().readline(-1 if size is None else size)
        self._past_end = 0 if line else self._past_end + 1
        if self._past_end > 8:
            raise EOFError("the file ends too early")
        return line


def _bulk(path: Path) -> Any:
    """A Nastran file for meshio, which wants the words around the bulk data that mesh generators leave out."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return _Ending(text if "BEGIN BULK" in text.upper() else f"BEGIN BULK\n{text}\nENDDATA\n")


def _reason(error: BaseException, talk: str) -> str:
    text = " ".join((str(error) if not isinstance(error, SystemExit) else talk).split())
    return f"{type(error).__name__}: {text}"[:200] if text else f"{type(error).__name__} (file cut off?)"


def mesh_from_meshio(raw: Any, path: Path, file_format: str) -> Mesh:
    """The mesh that meshio holds; tags and groups become sets.

    Raises:
        MeshError: no points or elements, or cells that cannot be held.
    """
    points = np.asarray(raw.points)
    if points.ndim != 2 or not len(points):
        raise MeshError(f"{path}: expected points, got none (file cut off, or not {file_format}?)")
    blocks = tuple(_block(block, path, file_format) for block in raw.cells)
    if not sum(map(len, blocks)) and file_format not in _CLOUDS:
        raise MeshError(f"{path}: expected elements, got {len(points)} nodes only (file cut off?)")
    cell_fields = {
        name: np.concatenate([np.asarray(part) for part in parts])
        for name, parts in raw.cell_data.items()
        if name not in _NOT_FIELDS and parts
    }
    point_fields = {name: values for name, values in raw.point_data.items() if name not in _NOT_FIELDS}
    tags = cell_fields.get("gmsh:physical", cell_fields.get("medit:ref"))
    cell_sets = _tag_groups(tags, blocks, raw) | _cell_sets(raw, blocks)
    point_fields, stored_point_sets = split_sets(point_fields, {})
    cell_fields, stored_cell_sets = split_sets(cell_fields, {})
    cell_sets |= stored_cell_sets
    mesh = Mesh(points, blocks, point_fields, cell_fields, cell_sets=cell_sets, source=str(path))
    point_sets = {name: np.asarray(index, dtype=np.int64) for name, index in raw.point_sets.items()}
    point_sets |= stored_point_sets
    boundary = {name: index for name, index in mesh.cell_sets.items() if name not in point_sets}
    return mesh.replace(point_sets=point_sets | boundary_nodes(mesh, boundary))


def _block(block: Any, path: Path, file_format: str) -> CellBlock:
    nodes = np.asarray(block.data)
    if block.type.startswith("polyhedron") or nodes.dtype == object:
        raise MeshError(f"{path}: cells '{block.type}': polyhedra are not supported")
    if file_format == "gmsh" and block.type == "wedge18":
        # meshio leaves this type in Gmsh's order, unlike the other quadratic ones.
        mine = {tuple(row): k for k, row in enumerate(lattice("wedge", 18, vtk=False, gmsh=True).tolist())}
        nodes = nodes[:, [mine[tuple(row)] for row in lattice("wedge", 18, vtk=False).tolist()]]
    if len(nodes):
        shape(block.type, nodes.shape[1])
    return CellBlock(block.type, nodes.reshape(len(nodes), -1))


def _cell_sets(raw: Any, blocks: tuple[CellBlock, ...]) -> dict[str, np.ndarray]:
    """Sets that meshio keeps per block, numbered through all blocks."""
    first = np.cumsum([0, *map(len, blocks)])
    found = {}
    for name, parts in raw.cell_sets.items():
        if name in _NOT_FIELDS:
            continue
        index = [
            np.asarray(part, dtype=np.int64) + start
            for part, start in zip(parts, first, strict=False)
            if part is not None and len(part)
        ]
        found[name] = np.concatenate(index) if index else np.zeros(0, dtype=np.int64)
    return found


def _tag_groups(tags: np.ndarray | None, blocks: tuple[CellBlock, ...], raw: Any) -> dict[str, np.ndarray]:
    """Cells by tag: Gmsh's physical groups, and boundary tags without a name, called after dimension and number."""
    if tags is None:
        return {}
    dims = np.concatenate([np.full(len(block), cell_dim(block.type)) for block in blocks])
    names = {(int(value[1]), int(value[0])): name for name, value in raw.field_data.items() if len(value) == 2}
    found = {}
    for dim in range(dims.max() + 1):
        for tag in np.unique(tags[dims == dim]).tolist():
            if (dim, tag) in names:
                found[names[dim, tag]] = np.flatnonzero((dims == dim) & (tags == tag))
            elif tag > 0 and dim < dims.max():
                found[f"{('point', 'curve', 'surface')[dim]} {tag}"] = np.flatnonzero((dims == dim) & (tags == tag))
    return found


if __name__ == "__main__":
    raise SystemExit(answer(lambda: read_with_meshio(Path(sys.argv[1]), sys.argv[3]), sys.argv[2]))
