"""Solver formats in plain text, small enough to read here: SU2, MFEM, AVS UCD."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gno.mesh.mesh import CellBlock, Mesh, MeshError, MeshWarning, named_once
from gno.mesh.sets import boundary_nodes

_SU2 = {
    "3": ("line", 2),
    "5": ("triangle", 3),
    "9": ("quad", 4),
    "10": ("tetra", 4),
    "12": ("hexahedron", 8),
    "13": ("wedge", 6),
    "14": ("pyramid", 5),
}
_MFEM = {
    "0": ("vertex", 1),
    "1": ("line", 2),
    "2": ("triangle", 3),
    "3": ("quad", 4),
    "4": ("tetra", 4),
    "5": ("hexahedron", 8),
    "6": ("wedge", 6),
    "7": ("pyramid", 5),
}
_UCD: dict[str, tuple[str, list[int]]] = {
    "pt": ("vertex", [0]),
    "line": ("line", [0, 1]),
    "tri": ("triangle", [0, 1, 2]),
    "quad": ("quad", [0, 1, 2, 3]),
    "tet": ("tetra", [0, 1, 3, 2]),
    "pyr": ("pyramid", [1, 2, 3, 4, 0]),
    "prism": ("wedge", [3, 4, 5, 0, 1, 2]),
    "hex": ("hexahedron", [4, 5, 6, 7, 0, 1, 2, 3]),
}
"""Cell types of AVS and where their nodes are in its order: apex first, top before bottom."""
_LINEAR_SPACES = ("Linear", "H1_1D_P1", "H1_2D_P1", "H1_3D_P1")


class _Lines:
    """Lines of a file with their numbers, without comments and blanks."""

    def __init__(self, path: Path, comment: str) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        self.path = path
        self._lines = ((n, line.split(comment)[0].strip()) for n, line in enumerate(text.splitlines(), 1))
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self.number = number
            if line:
                yield line

    def take(self, count: int, what: str) -> list[list[str]]:
        """Words of the next ``count`` lines."""
        found = []
        if count:
            for line in self:
                found.append(line.split())
                if len(found) == count:
                    break
        if len(found) < count:
            raise MeshError(f"{self.path}: {what}: expected {count} lines, got {len(found)} (file cut off?)")
        return found

    def fail(self, message: str) -> MeshError:
        return MeshError(f"{self.path}: line {self.number}: {message}")


def read_su2(path: Path) -> Mesh:
    """Read an SU2 mesh; each marker becomes boundary cells, a cell set and a node set of its name."""
    lines = _Lines(path, "%")
    dim = 0
    points = np.zeros((0, 0))
    cells: list[tuple[str, list[int]]] = []
    markers: dict[str, list[tuple[str, list[int]]]] = {}
    marker = ""
    n_markers = -1
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "NDIME":
            dim = _integer(value, lines)
        elif key == "NZONE" and _integer(value, lines) > 1:
            raise lines.fail(f"expected one zone, got {value}")
        elif key == "NELEM":
            cells = _typed_cells(lines, _integer(value, lines), _SU2, "elements")
        elif key == "NPOIN":
            rows = lines.take(_integer(value.split()[0] if value else "", lines), "points")
            points = _table([row[:dim] for row in rows], dim, lines)
        elif key == "NMARK":
            n_markers = _integer(value, lines)
        elif key == "MARKER_TAG":
            marker = value
            if marker in markers:
                raise lines.fail(f"expected each marker once, got '{marker}' twice")
        elif key == "MARKER_ELEMS":
            markers[marker] = _typed_cells(lines, _integer(value, lines), _SU2, f"marker '{marker}'")
    if dim not in (2, 3) or not len(points) or not cells:
        raise MeshError(f"{path}: expected NDIME, NPOIN and NELEM with points and elements (file cut off?)")
    if len(markers) != n_markers:
        expected = n_markers if n_markers >= 0 else "NMARK and as many"
        raise MeshError(f"{path}: expected {expected} markers, got {len(markers)} (file cut off?)")
    blocks = _runs(cells)
    cell_sets = {}
    for name, facets in markers.items():
        first = sum(map(len, blocks))
        blocks += _runs(facets)
        cell_sets[name] = np.arange(first, first + len(facets))
    mesh = Mesh(points, tuple(blocks), cell_sets=cell_sets, source=str(path))
    return mesh.replace(point_sets=boundary_nodes(mesh, mesh.cell_sets))


def read_mfem(path: Path) -> Mesh:
    """Read an MFEM mesh v1.x with straight sides; attributes become a cell field, boundary attributes sets.

    A curved mesh whose space has the corners first keeps these only, with a warning.
    """
    lines = _Lines(path, "#")
    head = next(iter(lines), "")
    if not head.startswith(("MFEM mesh v1.0", "MFEM mesh v1.2", "MFEM mesh v1.3")):
        raise MeshError(f"{path}: expected 'MFEM mesh v1.0', got '{head}', which is not supported")
    dim = 0
    elements: list[list[str]] = []
    boundary: list[list[str]] = []
    points = np.zeros((0, 0))
    n_vertices = 0
    for line in lines:
        if line == "dimension":
            dim = _integer(lines.take(1, "dimension")[0][0], lines)
        elif line in ("elements", "boundary"):
            rows = lines.take(_integer(lines.take(1, line)[0][0], lines), line)
            elements, boundary = (rows, boundary) if line == "elements" else (elements, rows)
        elif line == "vertices":
            n_vertices = _integer(lines.take(1, line)[0][0], lines)
            width = lines.take(1, line)[0]
            if width == ["nodes"]:
                points = _mfem_nodes(lines, n_vertices)
            else:
                space = _integer(width[0], lines)
                points = _table(lines.take(n_vertices, "vertices"), space, lines)
        elif line == "nodes":
            points = _mfem_nodes(lines, n_vertices)
    if not dim or not elements or not len(points):
        raise MeshError(f"{path}: expected elements and vertices, got less (file cut off?)")
    rows = elements + boundary
    blocks = _runs([_typed_cell(row[1:], _MFEM, lines) for row in rows])
    attribute = np.array([_integer(row[0], lines) for row in rows])
    return _with_tag_sets(points, blocks, {"attribute": attribute}, len(elements), path)


def read_ucd(path: Path) -> Mesh:
    """Read an AVS UCD file in text; materials become a cell field."""
    lines = _Lines(path, "#")
    head = lines.take(1, "header")[0]
    if len(head) != 5:
        raise lines.fail(f"expected five counts, got '{' '.join(head)[:60]}'")
    n_nodes, n_cells, n_point_values, n_cell_values, _ = (_integer(word, lines) for word in head)
    nodes = _table(lines.take(n_nodes, "nodes"), 4, lines)
    number = {int(node): index for index, node in enumerate(nodes[:, 0].tolist())}
    cells = []
    material = []
    for row in lines.take(n_cells, "cells"):
        name, order = _UCD.get(row[2] if len(row) > 2 else "", ("", []))
        if len(row) != 3 + len(order) or not name:
            raise lines.fail(f"expected a cell of AVS, got '{' '.join(row)[:60]}'")
        corners = [number.get(_integer(word, lines), -1) for word in row[3:]]
        if min(corners) < 0:
            raise lines.fail(f"expected nodes of the file, got '{' '.join(row[3:])}'")
        cells.append((name, [corners[k] for k in order]))
        material.append(_integer(row[1], lines))
    point_fields = _ucd_values(lines, n_nodes, "nodes") if n_point_values else {}
    cell_fields = _ucd_values(lines, n_cells, "cells") if n_cell_values else {}
    cell_fields["Material Id"] = np.array(material, dtype=np.int64)
    return Mesh(nodes[:, 1:], tuple(_runs(cells)), point_fields, cell_fields, source=str(path))


def _ucd_values(lines: _Lines, size: int, what: str) -> dict[str, np.ndarray]:
    """Fields behind a line with the components of each and a line with the name of each."""
    widths = [_integer(word, lines) for word in lines.take(1, f"fields of {what}")[0][1:]]
    names = [" ".join(row).split(",")[0].strip() for row in lines.take(len(widths), f"field names of {what}")]
    named_once(names, f"fields of {what}", lines.path)
    table = _table(lines.take(size, f"values of {what}"), 1 + sum(widths), lines)[:, 1:]
    columns = np.split(table, np.cumsum(widths)[:-1], axis=1)
    return {n: c[:, 0] if c.shape[1] == 1 else c for n, c in zip(names, columns, strict=True)}


def _with_tag_sets(
    points: np.ndarray, blocks: list[CellBlock], fields: dict[str, np.ndarray], n_domain: int, path: Path
) -> Mesh:
    """A mesh whose boundary cells, those after the first ``n_domain``, give sets by their tags."""
    (tags,) = fields.values()
    cell_sets = {
        f"boundary {tag}": n_domain + np.flatnonzero(tags[n_domain:] == tag)
        for tag in np.unique(tags[n_domain:]).tolist()
    }
    mesh = Mesh(points, tuple(blocks), cell_fields=fields, cell_sets=cell_sets, source=str(path))
    return mesh.replace(point_sets=boundary_nodes(mesh, mesh.cell_sets))


def _mfem_nodes(lines: _Lines, n_vertices: int) -> np.ndarray:
    """Corners from the nodes of a curved mesh."""
    about: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        about[key.strip()] = value.strip()
        if key.strip() == "Ordering":
            break
    space = about.get("FiniteElementCollection", "")
    if not space.startswith(("H1_", "Linear", "Quadratic", "Cubic")):
        raise MeshError(f"{lines.path}: nodes in the space '{space}', which has no values at corners, cannot be read")
    if space not in _LINEAR_SPACES:
        message = f"{lines.path}: curved sides ('{space}') were replaced by straight ones between the corners"
        warnings.warn(message, MeshWarning, stacklevel=6)
    values = np.array([float(word) for line in lines for word in line.split() if _is_number(word)])
    dim = _integer(about.get("VDim", ""), lines)
    if about.get("Ordering") == "1":
        values = values[: n_vertices * dim].reshape(-1, dim)
    else:
        values = values[: len(values) // dim * dim].reshape(dim, -1).T[:n_vertices]
    if values.shape != (n_vertices, dim):
        raise MeshError(f"{lines.path}: nodes: expected ({n_vertices}, {dim}), got {values.shape} (file cut off?)")
    return np.ascontiguousarray(values)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _integer(text: str, lines: _Lines) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise lines.fail(f"expected a whole number, got '{text[:40]}'") from error


def _table(rows: list[list[str]], width: int, lines: _Lines) -> np.ndarray:
    try:
        table = np.array([[float(word) for word in row] for row in rows])
    except ValueError as error:
        raise lines.fail(f"expected numbers: {error}") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise lines.fail(f"expected {width} numbers in each line, got {table.shape}")
    return table


def _typed_cells(
    lines: _Lines, count: int, table: dict[str, tuple[str, int]], what: str
) -> list[tuple[str, list[int]]]:
    return [_typed_cell(row, table, lines) for row in lines.take(count, what)]


def _typed_cell(row: list[str], table: dict[str, tuple[str, int]], lines: _Lines) -> tuple[str, list[int]]:
    name, width = table.get(row[0], ("", 0)) if row else ("", 0)
    if not name or len(row) < 1 + width:
        raise lines.fail(f"expected a cell type and its nodes, got '{' '.join(row)[:60]}'")
    try:
        return name, [int(word) for word in row[1 : 1 + width]]
    except ValueError as error:
        raise lines.fail(f"expected node numbers: {error}") from error


def _runs(cells: list[tuple[str, list[int]]]) -> list[CellBlock]:
    """Blocks of neighbours of one type."""
    blocks: list[CellBlock] = []
    start = 0
    for end in range(1, len(cells) + 1):
        if end == len(cells) or cells[end][0] != cells[start][0]:
            nodes = np.array([nodes for _, nodes in cells[start:end]], dtype=np.int64)
            blocks.append(CellBlock(cells[start][0], nodes))
            start = end
    return blocks
