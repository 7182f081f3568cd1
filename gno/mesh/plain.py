"""What a file format with plain arrays only cannot say of a Mesh, said with arrays and one line of JSON.

Sets become ``uint8`` fields named ``set:<name>``, 1 inside the set, so that they survive other tools' filters and can
be looked at. Shapes and types that a format has not (tensors, bool, the number of coordinate columns, adjacent
blocks of one cell type) go into a JSON text that a reader of Meshes applies where it still fits and ignores
where another program changed the mesh.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.vtkcells import blocks_from_vtk, natural_layout

SET_PREFIX = "set:"
NOTE = "gno"
"""Name of the JSON text among a file's global values."""
TIME = "TimeValue"
"""Name of the time among a file's global values."""

_STORED_AS = {"bool": "uint8", "float16": "float32", "complex64": "float32", "complex128": "float64"}


@dataclasses.dataclass(frozen=True)
class Plain:
    """A mesh as arrays of at most two axes, plus a note on what they were.

    Args:
        point_arrays: fields at nodes and indicator arrays of the node sets.
        cell_arrays: fields on cells and indicator arrays of the cell sets.
        global_arrays: global values.
        note: JSON text, empty if the arrays say it all.
    """

    point_arrays: dict[str, np.ndarray]
    cell_arrays: dict[str, np.ndarray]
    global_arrays: dict[str, np.ndarray]
    note: str = ""


def to_plain(mesh: Mesh, columns: int = 3) -> Plain:
    """Arrays and note of a mesh.

    Args:
        mesh: the mesh.
        columns: how many columns of coordinates the file stores.

    Raises:
        MeshError: a field that no numeric array can hold, or that has a set's reserved name.
    """
    note: dict = {}
    if mesh.points.shape[1] != columns:
        note["columns"] = mesh.points.shape[1]
    if mesh.period:
        note["period"] = mesh.period
    layout = [(block.type, len(block)) for block in mesh.cells]
    if layout != natural_layout(mesh.cells):
        note["blocks"] = layout
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for kind in ("point_fields", "cell_fields", "global_fields"):
        fields = getattr(mesh, kind)
        arrays[kind] = {n: _store(v, f"{kind}['{n}']", n, mesh.source) for n, v in fields.items()}
        lost = {n: [v.dtype.str, v.shape] for n, v in fields.items() if not _speaks_for_itself(v)}
        if lost:
            note[kind] = lost
    points = arrays["point_fields"] | _indicators(mesh.point_sets, mesh.n_nodes)
    cells = arrays["cell_fields"] | _indicators(mesh.cell_sets, mesh.n_cells)
    return Plain(points, cells, arrays["global_fields"], json.dumps(note) if note else "")


def _indicators(sets: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    inside = {}
    for name, index in sets.items():
        inside[SET_PREFIX + name] = np.zeros(size, dtype=np.uint8)
        inside[SET_PREFIX + name][index] = 1
    return inside


def _store(values: np.ndarray, what: str, name: str, source: str) -> np.ndarray:
    if name.startswith(SET_PREFIX) or name in (NOTE, TIME) or not name:
        raise MeshError(
            f"{what}: the empty name, '{NOTE}', '{TIME}' and names from '{SET_PREFIX}' on are reserved ({source})"
        )
    if values.dtype.kind == "U" and what.startswith("global"):
        return values.reshape(-1)
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    stored = _STORED_AS.get(values.dtype.name)
    if stored is None and (values.dtype.kind not in "iuf" or values.dtype.itemsize > 8):
        raise MeshError(f"{what}: expected numbers, got {values.dtype} ({source})")
    if stored:
        values = values[..., None].view(stored) if values.dtype.kind == "c" else values.astype(stored)
    return values.reshape(len(values), -1) if values.ndim > 1 and len(values) else values.reshape(-1)


def _speaks_for_itself(values: np.ndarray) -> bool:
    plain_shape = values.ndim == 1 or (values.ndim == 2 and values.shape[1] > 1 and len(values))
    return bool(plain_shape) and values.dtype.name not in _STORED_AS


def from_plain(
    points: np.ndarray,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
    plain: Plain,
    *,
    time: float | None = None,
    source: str,
) -> Mesh:
    """The mesh that ``to_plain`` was given, or as much of it as the arrays still say.

    Args:
        points: coordinates; columns that the note says are not there must be zero to be dropped.
        cells: VTK's connectivity, offsets and type codes.
        plain: arrays and note of the file.
        time: time of the fields.
        source: the file.
    """
    note = _parse(plain.note)
    columns = note.get("columns")
    if columns in (1, 2) and not points[:, columns:].any():
        points = points[:, :columns]
    layout = [(str(name), int(size)) for name, size in note["blocks"]] if "blocks" in note else None
    point_fields, point_sets = split_sets(plain.point_arrays, note.get("point_fields", {}))
    cell_fields, cell_sets = split_sets(plain.cell_arrays, note.get("cell_fields", {}))
    mesh = Mesh(
        points,
        blocks_from_vtk(*cells, source, layout),
        point_fields,
        cell_fields,
        split_sets(plain.global_arrays, note.get("global_fields", {}))[0],
        point_sets,
        cell_sets,
        time=time,
        source=source,
    )
    try:
        return mesh.replace(period=note["period"]) if "period" in note else mesh
    except MeshError:  # cut by another program
        return mesh


def _parse(text: str) -> dict:
    try:
        note = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return note if isinstance(note, dict) else {}


def split_sets(arrays: dict[str, np.ndarray], was: dict) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Fields and sets, from a file's arrays and what its note says of them."""
    fields = {}
    sets = {}
    for name, values in arrays.items():
        if name.startswith(SET_PREFIX) and values.ndim == 1:
            sets[name.removeprefix(SET_PREFIX)] = np.flatnonzero(values)
        else:
            fields[name] = _restore(values, *was[name]) if name in was else values
    return fields, sets


def _restore(values: np.ndarray, dtype: str, shape: list[int]) -> np.ndarray:
    """Values in the type and shape they had; another program may have changed how many there are."""
    kind = np.dtype(dtype)
    if kind.kind == "U":
        return values.reshape(shape) if values.size == math.prod(shape) else values
    if kind.kind == "c" and values.dtype.name == _STORED_AS.get(kind.name):
        values = np.ascontiguousarray(values).reshape(-1).view(kind)
    elif values.dtype.name == _STORED_AS.get(kind.name):
        values = values.astype(kind)
    if values.size == math.prod(shape):
        return values.reshape(shape)
    per_value = math.prod(shape[1:])
    return values.reshape(-1, *shape[1:]) if shape and per_value and values.size % per_value == 0 else values
