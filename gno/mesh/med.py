"""MED, the files of Salome and Code_Aster (HDF5): a mesh, its groups, and the fields of one time step.

The format: https://docs.salome-platform.org/latest/dev/MEDCoupling/developer/med-file.html
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.mesh import CellBlock, Mesh, MeshError, MeshWarning
from gno.mesh.plain import split_sets
from gno.mesh.sets import boundary_nodes

SUFFIX = ".med"
_TYPES = {
    "PO1": "vertex",
    "SE2": "line",
    "SE3": "line3",
    "TR3": "triangle",
    "TR6": "triangle6",
    "QU4": "quad",
    "QU8": "quad8",
    "QU9": "quad9",
    "TE4": "tetra",
    "T10": "tetra10",
    "HE8": "hexahedron",
    "H20": "hexahedron20",
    "PY5": "pyramid",
    "P13": "pyramid13",
    "PE6": "wedge",
    "P15": "wedge15",
}
"""Cell type by MED's name."""

# A field at its times: where the file has it.
Steps = dict[float, Any]


def med_times(path: Path) -> list[float]:
    """Times of the fields that have several; empty if none has."""
    import h5py

    with h5py.File(path, "r") as file:
        return _times(_fields(file, _mesh_name(file, path)))


def read_med(path: Path, step: int) -> Mesh:
    """Read the mesh with the fields of one time step; those that have a single time are part of every step.

    Of several meshes in a file that with the most fields is read. Values at several points of each cell are averaged.

    Raises:
        MeshError: not such a file, structured grids, or cells of an unknown type.

    Warns:
        MeshWarning: other meshes of the file; fields with values at several points of a cell.
    """
    import h5py

    with h5py.File(path, "r") as file:
        name = _mesh_name(file, path)
        others = sorted(set(file["ENS_MAA"]) - {name})
        if others:
            warnings.warn(
                f"{path}: of several meshes '{name}' is read, not {', '.join(others)}", MeshWarning, stacklevel=4
            )
        fields = _fields(file, name)
        times = _times(fields)
        now = [(n, next(iter(s.values())) if len(s) == 1 else s.get(times[step])) for n, s in fields.items()]
        return _mesh(file, name, {n: at for n, at in now if at is not None}, times[step] if times else None, path)


def _mesh_name(file: Any, path: Path) -> str:
    if not file.get("ENS_MAA"):
        raise MeshError(f"{path}: expected a mesh (ENS_MAA), got none")
    return max(file["ENS_MAA"], key=lambda name: len(_fields(file, name)))


def _fields(file: Any, mesh: str) -> dict[str, Steps]:
    """The fields of a mesh by name."""
    found = {}
    for name, field in file.get("CHA", {}).items():
        if len(field) and _text(field.attrs.get("MAI", mesh)) == mesh:  # one that was never written says nothing
            steps = sorted(field.values(), key=lambda at: (at.attrs.get("NDT", 0), at.attrs.get("NOR", 0)))
            times = [float(at.attrs.get("PDT", 0.0)) for at in steps]
            if len(set(times)) < len(times):  # modes of one frequency, or no times at all
                times = [float(k) for k in range(len(times))]
            found[name] = dict(zip(times, steps, strict=True))
    return found


def _times(fields: Mapping[str, Steps]) -> list[float]:
    return sorted({time for steps in fields.values() if len(steps) > 1 for time in steps})


def _mesh(file: Any, name: str, fields: Mapping[str, Any], time: float | None, path: Path) -> Mesh:
    group = file["ENS_MAA"][name]
    state = group if "NOE" in group or not len(group) else group[sorted(group)[-1]]
    if "COO" not in state.get("NOE", {}):
        raise MeshError(f"{path}: mesh '{name}': expected nodes with coordinates, got none or a structured grid")
    points = _columns(state["NOE"]["COO"][()], int(group.attrs["ESP"]))
    blocks, tags = _cells(state, path)
    first = dict(zip(blocks, np.cumsum([0, *map(len, blocks.values())]), strict=False))
    n_cells = sum(map(len, blocks.values()))
    at_nodes: dict[str, np.ndarray] = {}
    on_cells: dict[str, np.ndarray] = {}
    for key, at in fields.items():
        nodes, cells = [], []
        for support, index, values in _parts(file, at, int(file["CHA"][key].attrs["NCO"]), f"{path}: field '{key}'"):
            if support == "NOE":
                nodes.append((index, values))
            elif support in blocks:
                index = np.arange(len(blocks[support])) if index is None else index
                cells.append((first[support] + index, values))
        if nodes:
            at_nodes[key] = _whole(nodes, len(points))
        if cells:
            on_cells[key] = _whole(cells, n_cells)
    families = group["FAS"] if "FAS" in group else file.get("FAS", {}).get(name, {})
    at_nodes, point_sets = split_sets(at_nodes, {})
    on_cells, cell_sets = split_sets(on_cells, {})
    cell_sets |= _groups(families.get("ELEME", {}), tags)
    if "FAM" in state["NOE"]:
        point_sets |= _groups(families.get("NOEUD", {}), state["NOE"]["FAM"][()])
    cell_blocks = tuple(CellBlock(_TYPES[kind], nodes) for kind, nodes in blocks.items())
    mesh = Mesh(points, cell_blocks, at_nodes, on_cells, cell_sets=cell_sets, time=time, source=str(path))
    boundary = {key: index for key, index in cell_sets.items() if key not in point_sets}
    return mesh.replace(point_sets=point_sets | boundary_nodes(mesh, boundary))


def _cells(state: Any, path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Nodes of the cells by MED's type, and the family of each cell."""
    blocks, tags = {}, [np.zeros(0, np.int64)]
    for kind, cells in state.get("MAI", {}).items():
        if kind not in _TYPES:
            raise MeshError(f"{path}: cells '{kind}': expected one of {', '.join(_TYPES)}, got another")
        blocks[kind] = _columns(cells["NOD"][()], cells["NOD"].attrs["NBR"], rows=True) - 1
        tags.append(cells["FAM"][()] if "FAM" in cells else np.zeros(len(blocks[kind]), np.int64))
    if not blocks:
        raise MeshError(f"{path}: expected cells, got nodes only")
    return blocks, np.concatenate(tags)


def _parts(file: Any, at: Any, n_components: int, what: str) -> Iterator[tuple[str, np.ndarray | None, np.ndarray]]:
    """Where a field lives (``NOE`` or a type of cells), which of those it has values for (None: all), and these."""
    for support, profiles in at.items():
        for profile, data in profiles.items():
            n_points = max(1, int(data.attrs.get("NGA", 1)))
            values = data["CO"][()].reshape(n_components, -1, n_points).transpose(1, 2, 0)
            if n_points > 1:
                said = f"values at {n_points} points of each cell: their mean is taken"
                warnings.warn(f"{what}: {said}", MeshWarning, stacklevel=6)
            values = values.mean(1) if n_points > 1 else values[:, 0]
            known = file["PROFILS"][profile]["PFL"][()] - 1 if profile in file.get("PROFILS", {}) else None
            yield support.rpartition(".")[2], known, values if n_components > 1 else values[:, 0]


def _whole(parts: list[tuple[np.ndarray | None, np.ndarray]], n: int) -> np.ndarray:
    """One value for each of n, NaN where there is none."""
    (index, values), *rest = parts
    if index is None and not rest:
        return np.ascontiguousarray(values)
    numbers = np.concatenate([index if index is not None else np.arange(n) for index, _ in parts])
    values = np.concatenate([values for _, values in parts])
    kind = values.dtype if len(np.unique(numbers)) == n else np.result_type(values.dtype, np.float32)
    whole = np.full((n, *values.shape[1:]), np.nan if kind.kind == "f" else 0, kind)
    whole[numbers] = values
    return whole


def _groups(families: Any, tags: np.ndarray) -> dict[str, np.ndarray]:
    """Groups by name: a number marks a family, which may be in several groups, or in none."""
    found: dict[str, list[np.ndarray]] = {}
    for family in families.values():
        for name in family["GRO"]["NOM"][()] if "GRO" in family else ():
            found.setdefault(_text(bytes(np.asarray(name, np.uint8))), []).append(
                np.flatnonzero(tags == family.attrs["NUM"])
            )
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def _columns(flat: np.ndarray, n: int, *, rows: bool = False) -> np.ndarray:
    """MED keeps one component after the other; n is the number of components, or of ``rows``."""
    table = flat.reshape(-1, n) if rows else flat.reshape(n, -1)
    return np.ascontiguousarray(table.T)


def _text(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\x00 ")
