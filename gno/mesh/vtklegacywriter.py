"""Writing of VTK's legacy format, binary, version 5.1."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import numpy as np

from gno.mesh.mesh import Mesh
from gno.mesh.plain import TIME, to_plain
from gno.mesh.vtkcells import blocks_to_vtk

_NAMES = {
    "u1": "unsigned_char",
    "i1": "char",
    "u2": "unsigned_short",
    "i2": "short",
    "u4": "unsigned_int",
    "i4": "int",
    "u8": "vtktypeuint64",
    "i8": "vtktypeint64",
    "f4": "float",
    "f8": "double",
}


def write_vtk_legacy(mesh: Mesh, path: Path) -> None:
    """Write a legacy .vtk file; text and the shapes of tensors have no place in it."""
    plain = to_plain(mesh)
    connectivity, offsets, codes = blocks_to_vtk(mesh.cells, ".vtk", mesh.source)
    points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
    global_arrays = {n: v for n, v in plain.global_arrays.items() if v.dtype.kind != "U" and v.size}
    if mesh.time is not None:
        global_arrays[TIME] = np.array([mesh.time])
    with path.open("wb") as out:
        out.write(b"# vtk DataFile Version 5.1\nmesh\nBINARY\nDATASET UNSTRUCTURED_GRID\n")
        _field(out, global_arrays)
        _array(out, f"POINTS {mesh.n_nodes}", points)
        out.write(f"CELLS {len(codes) + 1} {len(connectivity)}\n".encode())
        _array(out, "OFFSETS", np.concatenate([[0], offsets]))
        _array(out, "CONNECTIVITY", connectivity.astype(np.int64))
        out.write(f"CELL_TYPES {len(codes)}\n".encode() + codes.astype(">i4").tobytes() + b"\n")
        for key, size, arrays in (
            ("POINT_DATA", mesh.n_nodes, plain.point_arrays),
            ("CELL_DATA", mesh.n_cells, plain.cell_arrays),
        ):
            if arrays:
                out.write(f"{key} {size}\n".encode())
                _field(out, arrays)


def _field(out: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    if arrays:
        out.write(f"FIELD FieldData {len(arrays)}\n".encode())
    for name, values in arrays.items():
        components = values.shape[1] if values.ndim == 2 else 1
        _array(out, f"{quote(name)} {components} {len(values)}", values)


def _array(out: BinaryIO, head: str, values: np.ndarray) -> None:
    out.write(f"{head} {_NAMES[values.dtype.str[1:]]}\n".encode())
    out.write(values.astype(values.dtype.newbyteorder(">")).tobytes() + b"\n")
