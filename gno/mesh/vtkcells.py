"""VTK's cell codes and node orders, to and from blocks of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from gno.mesh.mesh import CellBlock, MeshError
from gno.mesh.ordering import lattice
from gno.mesh.shapes import family

_NAMES = {
    1: "vertex",
    2: "poly_vertex",
    3: "line",
    4: "poly_line",
    5: "triangle",
    6: "triangle_strip",
    7: "polygon",
    9: "quad",
    10: "tetra",
    12: "hexahedron",
    13: "wedge",
    14: "pyramid",
    15: "penta_prism",
    16: "hexa_prism",
    21: "line3",
    22: "triangle6",
    23: "quad8",
    24: "tetra10",
    25: "hexahedron20",
    26: "wedge15",
    27: "pyramid13",
    28: "quad9",
    29: "hexahedron27",
    30: "quad6",
    31: "wedge12",
    32: "wedge18",
    33: "hexahedron24",
    34: "triangle7",
    35: "line4",
    68: "VTK_LAGRANGE_CURVE",
    69: "VTK_LAGRANGE_TRIANGLE",
    70: "VTK_LAGRANGE_QUADRILATERAL",
    71: "VTK_LAGRANGE_TETRAHEDRON",
    72: "VTK_LAGRANGE_HEXAHEDRON",
    73: "VTK_LAGRANGE_WEDGE",
}
_CODES = {name: code for code, name in _NAMES.items()}
_LAGRANGE_CODES = {"line": 68, "triangle": 69, "quad": 70, "tetra": 71, "hexahedron": 72, "wedge": 73}

# Axis-aligned cells are general ones with two corners exchanged.
_AXIS_ALIGNED = {8: ("quad", [0, 1, 3, 2]), 11: ("hexahedron", [0, 1, 3, 2, 4, 5, 7, 6])}
# meshio keeps the linear wedge in the order of most solvers, mirrored with respect to VTK's.
_WEDGE = [0, 2, 1, 3, 5, 4]
_WHY_NOT = {
    0: "an empty cell has no nodes",
    36: "a convex point set has no faces of its own",
    41: "a convex point set has no faces of its own",
    42: "polyhedra are not supported",
    **dict.fromkeys(range(75, 82), "the control points of Bézier cells are not nodes"),
}


def code_of(cell_type: str) -> int | None:
    """VTK's number of a cell type, or None where VTK has no such cell."""
    return _CODES.get(cell_type) or _LAGRANGE_CODES.get(family(cell_type))


def vtk_order(cell_type: str, n_nodes: int) -> Int[np.ndarray, " n_nodes"]:
    """For each node in VTK's order its place in the order of ``cell_type``."""
    if cell_type == "wedge":
        return np.array(_WEDGE)
    if cell_type in _CODES:
        return np.arange(n_nodes)
    name = family(cell_type)
    here = {tuple(row): k for k, row in enumerate(lattice(name, n_nodes, vtk=False).tolist())}
    return np.array([here[tuple(row)] for row in lattice(name, n_nodes, vtk=True).tolist()])


def _to_vtk(block: CellBlock) -> np.ndarray:
    return block.nodes[:, vtk_order(block.type, block.nodes.shape[1])]


def _from_vtk(cell_type: str, nodes: np.ndarray) -> CellBlock:
    return CellBlock(cell_type, nodes[:, np.argsort(vtk_order(cell_type, nodes.shape[1]))])


def blocks_from_vtk(
    connectivity: np.ndarray,
    offsets: np.ndarray,
    codes: np.ndarray,
    source: str,
    layout: list[tuple[str, int]] | None = None,
) -> tuple[CellBlock, ...]:
    """Blocks of equal cells in their order, from VTK's flat arrays.

    Args:
        connectivity: node numbers of all cells, one after the other.
        offsets: end of each cell in ``connectivity``.
        codes: VTK's cell type numbers.
        source: the file, for messages.
        layout: type and number of cells of each block, used if it fits the arrays.

    Raises:
        MeshError: the arrays do not fit together, or a cell type cannot be held.
    """
    if len(offsets) != len(codes):
        raise MeshError(f"{source}: cells: expected as many types as offsets ({len(offsets)}), got {len(codes)}")
    if not len(codes):
        return ()
    first = np.concatenate([[0], offsets.astype(np.int64)])
    widths = np.diff(first)
    if widths.min() < 0 or first[-1] != len(connectivity):
        raise MeshError(f"{source}: cells: expected offsets rising to {len(connectivity)}, got {offsets.max()}")
    if layout is None or not _fits(layout, codes, widths):
        change = np.flatnonzero((codes[1:] != codes[:-1]) | (widths[1:] != widths[:-1])) + 1
        sizes = np.diff(np.concatenate([[0], change, [len(codes)]]))
        starts = np.cumsum(sizes) - sizes
        layout = [(_name(int(codes[s]), source), int(n)) for s, n in zip(starts, sizes, strict=True)]
    blocks = []
    start = 0
    for name, size in layout:
        width = widths[start] if size else 0
        nodes = connectivity[first[start] : first[start + size]].reshape(size, width)
        blocks.append(_block(int(codes[min(start, len(codes) - 1)]), name, nodes))
        start += size
    return tuple(blocks)


def _fits(layout: list[tuple[str, int]], codes: np.ndarray, widths: np.ndarray) -> bool:
    if sum(size for _, size in layout) != len(codes):
        return False
    start = 0
    for name, size in layout:
        part = slice(start, start + size)
        if np.any(codes[part] != code_of(name)) or np.any(widths[part] != widths[start : start + 1]):
            return False
        start += size
    return True


def _name(code: int, source: str) -> str:
    if code in _AXIS_ALIGNED:
        return _AXIS_ALIGNED[code][0]
    if code not in _NAMES:
        raise MeshError(f"{source}: VTK cell type {code}: {_WHY_NOT.get(code, 'not supported')}")
    return _NAMES[code]


def _block(code: int, name: str, nodes: np.ndarray) -> CellBlock:
    if code in _AXIS_ALIGNED and len(nodes):
        return CellBlock(name, nodes[:, _AXIS_ALIGNED[code][1]])
    return _from_vtk(name, nodes) if len(nodes) else CellBlock(name, nodes)


def renumber_old_hexahedra(connectivity: np.ndarray, offsets: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Connectivity in today's order, from files before VTK 9.1 that exchange two edges of Lagrange hexahedra."""
    ends = offsets.astype(np.int64)
    widths = np.diff(ends, prepend=0)
    result = connectivity.copy()
    for cell in np.flatnonzero((codes == _LAGRANGE_CODES["hexahedron"]) & (widths > 8)).tolist():
        per_edge = round(int(widths[cell]) ** (1 / 3)) - 2
        a = int(ends[cell] - widths[cell]) + 8 + 10 * per_edge
        b, c = a + per_edge, a + 2 * per_edge
        result[a:c] = np.concatenate([connectivity[b:c], connectivity[a:b]])
    return result


def natural_layout(blocks: Sequence[CellBlock]) -> list[tuple[str, int]]:
    """Blocks that the flat arrays alone would give back: neighbours of one type joined, empty ones gone."""
    layout: list[tuple[str, int]] = []
    width = 0
    for block in blocks:
        if not len(block):
            continue
        name = _NAMES.get(code_of(block.type) or 0, block.type)
        if layout and layout[-1][0] == name and width == block.nodes.shape[1]:
            layout[-1] = (name, layout[-1][1] + len(block))
        else:
            layout.append((name, len(block)))
        width = block.nodes.shape[1]
    return layout


def blocks_to_vtk(blocks: Sequence[CellBlock], what: str, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flat connectivity, end offsets and type codes of blocks.

    Raises:
        MeshError: VTK has no such cell type; ``what`` names the file format.
    """
    for block in blocks:
        if code_of(block.type) is None:
            raise MeshError(f"cells '{block.type}': {what} has no such cell type ({source})")
    full = [block for block in blocks if len(block)]
    if not full:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    connectivity = np.concatenate([_to_vtk(block).ravel() for block in full])
    widths = np.concatenate([np.full(len(block), block.nodes.shape[1], np.int64) for block in full])
    codes = np.concatenate([np.full(len(block), code_of(block.type), np.uint8) for block in full])
    return connectivity, np.cumsum(widths), codes
