"""Exodus II files, through netCDF: blocks, node sets, side sets, and fields of one time step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.mesh import CellBlock, Mesh, MeshError, named_once
from gno.mesh.shapes import cell_dim, family, reference_nodes, shape

SUFFIXES = (".e", ".ex2", ".exo", ".exii", ".g", ".gen")

# Exodus names are written in many ways (HEX, HEX8, hex20 …): the letters and the number of nodes decide.
_FORMS = {
    "SPHERE": "vertex",
    "POINT": "vertex",
    "NODE": "vertex",
    **dict.fromkeys(("BAR", "BEAM", "TRUSS", "EDGE", "LINE", "ROD"), "line"),
    **dict.fromkeys(("TRI", "TRIANGLE", "TRISHELL"), "triangle"),
    **dict.fromkeys(("QUAD", "SHELL"), "quad"),
    **dict.fromkeys(("TET", "TETRA"), "tetra"),
    **dict.fromkeys(("HEX", "HEXAHEDRON"), "hexahedron"),
    **dict.fromkeys(("WEDGE", "PRISM"), "wedge"),
    **dict.fromkeys(("PYR", "PYRAMID"), "pyramid"),
}
_LINEAR = {"vertex": 1, "line": 2, "triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8, "wedge": 6, "pyramid": 5}
# Exodus numbers vertical edges before those of the top, VTK after; face centres differ as well.
_TO_VTK = {
    "hexahedron20": [*range(12), *range(16, 20), *range(12, 16)],
    "hexahedron27": [*range(12), *range(16, 20), *range(12, 16), 23, 24, 25, 26, 21, 22, 20],
    "wedge15": [*range(9), 12, 13, 14, 9, 10, 11],
    "wedge18": [*range(9), 12, 13, 14, 9, 10, 11, 15, 16, 17],
}
# Corners of each side, in Exodus's numbering of sides.
_SIDES = {
    "triangle": ((0, 1), (1, 2), (2, 0)),
    "quad": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "tetra": ((0, 1, 3), (1, 2, 3), (0, 2, 3), (0, 1, 2)),
    "hexahedron": ((0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (0, 3, 7, 4), (0, 1, 2, 3), (4, 5, 6, 7)),
    "wedge": ((0, 1, 4, 3), (1, 2, 5, 4), (0, 2, 5, 3), (0, 1, 2), (3, 4, 5)),
    "pyramid": ((0, 1, 4), (1, 2, 4), (2, 3, 4), (0, 3, 4), (0, 1, 2, 3)),
}


def exodus_times(path: Path) -> list[float]:
    """Times of the steps of a file; none where it has no results."""
    with _open(path) as data:
        return [float(time) for time in data.variables["time_whole"][:]] if "time_whole" in data.variables else []


def read_exodus(path: Path, step: int) -> Mesh:
    """Read the mesh and the fields of one time step.

    Args:
        path: the file.
        step: number of the step; ignored by a file without results.

    Raises:
        MeshError: not an Exodus file, or with elements that cannot be held.
    """
    with _open(path) as data:
        blocks, used = _blocks(data, path)
        first = np.cumsum([0, *map(len, blocks)])
        times = _values(data, "time_whole")
        has_steps = times is not None and len(times) > 0
        point_sets = _node_sets(data)
        for name, nodes in _side_sets(data, blocks, first, path).items():
            same = name in point_sets and np.array_equal(np.unique(point_sets[name]), nodes)
            point_sets[name if name not in point_sets or same else f"{name} (sides)"] = nodes
        return Mesh(
            _points(data, path),
            tuple(blocks),
            _point_fields(data, step, path) if has_steps else {},
            _cell_fields(data, step, used, first, path) if has_steps else {},
            _global_fields(data, step, path) if has_steps else {},
            point_sets,
            {name: np.arange(first[k], first[k + 1]) for k, name in enumerate(_names(data, "eb", used))},
            time=float(times[step]) if times is not None and has_steps else None,
            source=str(path),
        )


def _open(path: Path) -> Any:
    import netCDF4

    try:
        data = netCDF4.Dataset(path)
    except OSError as error:
        raise MeshError(f"{path}: expected an Exodus (netCDF) file, got: {error.strerror or error}") from error
    data.set_auto_mask(False)
    if "num_nodes" not in data.dimensions:
        data.close()
        raise MeshError(f"{path}: expected an Exodus file, got a netCDF file without 'num_nodes'")
    return data


def _values(data: Any, name: str) -> np.ndarray | None:
    return np.asarray(data.variables[name][:]) if name in data.variables else None


def _size(data: Any, name: str) -> int:
    return len(data.dimensions[name]) if name in data.dimensions else 0


def _texts(data: Any, name: str) -> list[str]:
    rows = _values(data, name)
    if rows is None:
        return []
    rows = rows.reshape(len(rows), -1)
    return [b"".join(row.tolist()).split(b"\0")[0].decode("utf-8", "replace").strip() for row in rows]


def _points(data: Any, path: Path) -> np.ndarray:
    together = _values(data, "coord")
    if together is not None:
        return together.T
    columns = [_values(data, f"coord{axis}") for axis in "xyz"[: _size(data, "num_dim")]]
    if not columns or any(column is None for column in columns):
        raise MeshError(f"{path}: expected coordinates in {_size(data, 'num_dim')} dimensions, got less")
    return np.stack(columns, axis=1)  # type: ignore[arg-type]


def _blocks(data: Any, path: Path) -> tuple[list[CellBlock], list[int]]:
    """Cells of each element block, and the numbers of the blocks that have any."""
    blocks, used = [], []
    for k in range(1, _size(data, "num_el_blk") + 1):
        if f"connect{k}" not in data.variables:
            if _size(data, f"num_el_in_blk{k}"):
                raise MeshError(f"{path}: block {k}: expected nodes of its elements, got none (damaged?)")
            continue
        variable = data.variables[f"connect{k}"]
        if variable.ndim != 2:
            raise MeshError(f"{path}: block {k} ({variable.elem_type}): polyhedra are not supported")
        nodes = np.asarray(variable[:]).astype(np.int64) - 1
        cell_type = _cell_type(str(variable.elem_type), nodes.shape[1], path)
        blocks.append(CellBlock(cell_type, nodes[:, _TO_VTK.get(cell_type, slice(None))]))
        used.append(k)
    if sum(map(len, blocks)) != _size(data, "num_elem"):
        found = sum(map(len, blocks))
        raise MeshError(f"{path}: expected {_size(data, 'num_elem')} elements, got {found} (damaged?)")
    return blocks, used


def _cell_type(name: str, n_nodes: int, path: Path) -> str:
    form = _FORMS.get(re.sub(r"\d+$", "", name.strip("\0 ").upper()))
    if form is None:
        raise MeshError(f"{path}: element type '{name}' is not supported")
    if form == "quad" and n_nodes in (3, 6):
        form = "triangle"
    cell_type = form if _LINEAR[form] == n_nodes else f"{form}{n_nodes}"
    try:
        shape(cell_type, n_nodes)
    except MeshError as error:
        raise MeshError(f"{path}: element type '{name}' with {n_nodes} nodes is not supported") from error
    return cell_type


def _names(data: Any, kind: str, numbers: list[int]) -> list[str]:
    """Names of blocks or sets; those without one are called after their id."""
    texts = _texts(data, f"{kind}_names")
    ids = _values(data, f"{kind}_prop1")
    word = {"eb": "block", "ns": "node set", "ss": "side set"}[kind]
    names: list[str] = []
    for k in numbers:
        text = texts[k - 1] if k <= len(texts) else ""
        number = int(ids[k - 1]) if ids is not None and k <= len(ids) else k
        name = text or f"{word} {number}"
        names.append(name if name not in names else f"{name} {number}")
    return names


def _node_sets(data: Any) -> dict[str, np.ndarray]:
    numbers = [k for k in range(1, _size(data, "num_node_sets") + 1) if f"node_ns{k}" in data.variables]
    names = _names(data, "ns", numbers)
    return {n: np.asarray(data.variables[f"node_ns{k}"][:]) - 1 for n, k in zip(names, numbers, strict=True)}


def _side_sets(data: Any, blocks: list[CellBlock], first: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    """Nodes of each side set, mid-side nodes included."""
    numbers = [k for k in range(1, _size(data, "num_side_sets") + 1) if f"elem_ss{k}" in data.variables]
    found = {}
    for name, k in zip(_names(data, "ss", numbers), numbers, strict=True):
        cells = np.asarray(data.variables[f"elem_ss{k}"][:]).astype(np.int64) - 1
        sides = np.asarray(data.variables[f"side_ss{k}"][:]).astype(np.int64) - 1
        if len(cells) and not (cells.min() >= 0 and cells.max() < first[-1] and len(cells) == len(sides)):
            raise MeshError(f"{path}: side set '{name}': expected elements 1 to {first[-1]}, got others")
        nodes = [np.zeros(0, dtype=np.int64)]
        for number, block in enumerate(blocks):
            inside = (cells >= first[number]) & (cells < first[number + 1])
            for side in np.unique(sides[inside]):
                own = block.nodes[cells[inside & (sides == side)] - first[number]]
                place = _side_nodes(block.type, own.shape[1], int(side), _size(data, "num_dim"))
                nodes.append(own[:, place].ravel())
        found[name] = np.unique(np.concatenate(nodes))
    return found


def _side_nodes(cell_type: str, n_nodes: int, side: int, space: int) -> np.ndarray:
    """Places of a side's nodes in the cell, mid-side nodes included; all of them where the side is the cell."""
    dim = cell_dim(cell_type)
    everything = np.arange(n_nodes)
    if dim < 2:
        return everything[side : side + 1] if dim and side < 2 else everything
    # The first two sides of a shell are its faces.
    if dim == 2 and space == 3:
        side -= 2
    sides = _SIDES[family(cell_type)]
    if not 0 <= side < len(sides):
        return everything
    position = reference_nodes(cell_type, n_nodes)
    corners = position[list(sides[side])]
    directions = (corners[1:] - corners[0]).T
    away = (position - corners[0]).T
    inside = directions @ np.linalg.lstsq(directions, away, rcond=None)[0]
    return np.flatnonzero(np.abs(inside - away).max(0) < 1e-9)


def _variable(data: Any, name: str, old: str, k: int, step: int) -> np.ndarray:
    """Values of one variable at one step; old files keep all variables in one array."""
    if name in data.variables:
        return np.asarray(data.variables[name][step])
    return np.asarray(data.variables[old][step, k])


def _point_fields(data: Any, step: int, path: Path) -> dict[str, np.ndarray]:
    names = named_once(_texts(data, "name_nod_var"), "node variables", path)
    return {name: _variable(data, f"vals_nod_var{k + 1}", "vals_nod_var", k, step) for k, name in enumerate(names)}


def _cell_fields(data: Any, step: int, used: list[int], first: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    """Element variables; NaN on blocks that do not have them."""
    fields = {}
    for k, name in enumerate(named_once(_texts(data, "name_elem_var"), "element variables", path)):
        values = np.full(first[-1], np.nan)
        for number, block in enumerate(used):
            stored = f"vals_elem_var{k + 1}eb{block}"
            if stored in data.variables:
                values[first[number] : first[number + 1]] = data.variables[stored][step]
        fields[name] = values
    return fields


def _global_fields(data: Any, step: int, path: Path) -> dict[str, np.ndarray]:
    values = _values(data, "vals_glo_var")
    names = named_once(_texts(data, "name_glo_var"), "global variables", path)
    return {} if values is None else {name: values[step, k : k + 1] for k, name in enumerate(names)}
