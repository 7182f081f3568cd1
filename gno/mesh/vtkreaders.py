"""Formats that only VTK reads: CGNS, and VTK's structured, parallel and multi-block XML files.

VTK and the libraries below it may end the process on a damaged file, so they get one of their own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.apart import answer, read_apart
from gno.mesh.cgns import SUFFIX, boundaries, cgns_times, interfaces, joined
from gno.mesh.mesh import CellBlock, Mesh, MeshError
from gno.mesh.plain import NOTE, TIME, Plain, from_plain
from gno.mesh.sets import boundary_nodes
from gno.mesh.vtkcells import blocks_from_vtk

_READERS = {
    SUFFIX: ("vtkIOCGNSReader", "vtkCGNSReader"),
    ".vti": ("vtkIOXML", "vtkXMLImageDataReader"),
    ".vtr": ("vtkIOXML", "vtkXMLRectilinearGridReader"),
    ".vts": ("vtkIOXML", "vtkXMLStructuredGridReader"),
    ".pvtu": ("vtkIOXML", "vtkXMLPUnstructuredGridReader"),
    ".vtm": ("vtkIOXML", "vtkXMLMultiBlockDataReader"),
    ".vtu": ("vtkIOXML", "vtkXMLUnstructuredGridReader"),
}
"""Module and class of VTK's reader; ``.vtu`` comes here only if it is packed with LZ4."""
SUFFIXES = tuple(suffix for suffix in _READERS if suffix != ".vtu")


def read_with_vtk(path: Path, step: int = 0) -> Mesh:
    """Read a file with VTK, in a process of its own; of a CGNS file one step.

    Raises:
        MeshError: VTK reported an error, found no points, died or took too long.
    """
    return read_apart("gno.mesh.vtkreaders", path, str(step))


def _read_here(path: Path, step: int) -> Mesh:
    module, name = _READERS[path.suffix.lower()]
    reader = getattr(importlib.import_module(f"vtkmodules.{module}"), name)()
    reader.SetFileName(str(path))
    times = cgns_times(path) if path.suffix.lower() == SUFFIX else []
    data = _run(reader, path, times[step] if times else None)
    if path.suffix.lower() == SUFFIX:
        return _from_zones(data, path).replace(time=times[step] if times else None)
    leaves = [leaf for _, leaf in _leaves(data) if leaf.GetNumberOfPoints()]
    if not leaves:
        raise MeshError(f"{path}: expected a mesh, got no points (file cut off?)")
    return _to_mesh(_as_grid(leaves), path)


def _run(reader: Any, path: Path, time: float | None) -> Any:
    from vtkmodules.vtkCommonCore import vtkObject

    errors: list[str] = []

    def collect(_object: Any, _event: str, message: str) -> None:
        errors.append(" ".join(str(message).split()))

    collect.CallDataType = "string0"  # type: ignore[attr-defined]
    reader.AddObserver("ErrorEvent", collect)
    reader.AddObserver("WarningEvent", collect)
    loud = vtkObject.GetGlobalWarningDisplay()
    vtkObject.GlobalWarningDisplayOff()
    try:
        if path.suffix.lower() == SUFFIX:
            reader.UpdateInformation()
            reader.LoadBndPatchOn()
            for kind in ("Bases", "Families", "PointArrays", "CellArrays"):
                getattr(reader, f"EnableAll{kind}")()
        reader.Update() if time is None else reader.UpdateTimeStep(time)
        data = reader.GetOutputDataObject(0)
    finally:
        vtkObject.SetGlobalWarningDisplay(loud)
    if errors or data is None:
        raise MeshError(f"{path}: {errors[0] if errors else 'no data that VTK knows'}")
    return data


def _leaves(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Data sets of a tree of blocks, with their names."""
    if not data.IsA("vtkMultiBlockDataSet"):
        if data.IsA("vtkDataSet"):
            yield name, data
        return
    for k in range(data.GetNumberOfBlocks()):
        child = data.GetBlock(k)
        if child is not None:
            about = data.GetMetaData(k)
            named = about is not None and about.Has(data.NAME())
            yield from _leaves(child, about.Get(data.NAME()) if named else f"block {k}")


def _as_grid(leaves: list[Any]) -> Any:
    """One unstructured grid of all data sets; nodes that they share stay double."""
    if len(leaves) == 1 and leaves[0].IsA("vtkUnstructuredGrid"):
        return leaves[0]
    from vtkmodules.vtkFiltersCore import vtkAppendFilter

    append = vtkAppendFilter()
    append.MergePointsOff()
    append.SetOutputPointsPrecision(2 if any(_is_double(leaf) for leaf in leaves) else 0)
    for leaf in leaves:
        append.AddInputData(leaf)
    append.Update()
    grid = append.GetOutput()
    if len(leaves) == 1:
        grid.SetFieldData(leaves[0].GetFieldData())
    return grid


def _is_double(leaf: Any) -> bool:
    points = leaf.GetPoints() if hasattr(leaf, "GetPoints") else None
    return points is None or points.GetDataType() != 10


def _arrays(attributes: Any) -> dict[str, np.ndarray]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    found: dict[str, np.ndarray] = {}
    for k in range(attributes.GetNumberOfArrays()):
        array = attributes.GetAbstractArray(k)
        if array is None:
            continue
        name = array.GetName() or f"array {k}"
        if array.IsA("vtkStringArray"):
            found[name] = np.array([array.GetValue(i) for i in range(array.GetNumberOfValues())] or [""])
        elif array.IsA("vtkDataArray"):
            found[name] = np.array(vtk_to_numpy(array))
    return found


def _flat_cells(grid: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkVersion

    if not grid.GetNumberOfCells():
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    cells = grid.GetCells()
    # VTK 9.6 renamed the getter of the types.
    codes = grid.GetCellTypes() if vtkVersion().GetVTKMinorVersion() >= 6 else grid.GetCellTypesArray()
    arrays = (cells.GetConnectivityArray(), cells.GetOffsetsArray(), codes)
    connectivity, offsets, codes = (np.array(vtk_to_numpy(array)) for array in arrays)
    return connectivity, offsets[1:], codes


def _points(grid: Any) -> np.ndarray:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return np.array(vtk_to_numpy(grid.GetPoints().GetData()))


def _to_mesh(grid: Any, path: Path) -> Mesh:
    global_arrays = _arrays(grid.GetFieldData())
    note = global_arrays.pop(NOTE, np.array([""]))
    time = global_arrays.pop(TIME, np.zeros(0))
    plain = Plain(_arrays(grid.GetPointData()), _arrays(grid.GetCellData()), global_arrays, str(note.reshape(-1)[0]))
    when = float(time.reshape(-1)[-1]) if time.size else None
    return from_plain(_points(grid), _flat_cells(grid), plain, time=when, source=str(path))


def _from_zones(data: Any, path: Path) -> Mesh:
    """CGNS: zones one after the other, each followed by its boundary patches as named cells on the zone's nodes."""
    points: list[np.ndarray] = []
    blocks: list[CellBlock] = []
    fields: list[tuple[Any, int, int]] = []
    sets: dict[str, list[np.ndarray]] = {}
    point_sets: dict[str, list[np.ndarray]] = {}
    conditions, joints, listed = boundaries(path), interfaces(path), [np.zeros(0, np.int64)]
    for zone_name, zone, patches in _zones(data):
        grid = _as_grid([zone])
        first_node = sum(map(len, points))
        zone_points = _points(grid)
        points.append(zone_points)
        fields.append((grid, len(zone_points), sum(map(len, blocks))))
        blocks += _shifted(grid, np.arange(len(zone_points)) + first_node, path)
        for name, patch in patches:
            patch_grid = _as_grid([patch])
            own = first_node + _same_nodes(zone_points, _points(patch_grid), f"{path}: patch '{name}'")
            start = sum(map(len, blocks))
            blocks += _shifted(patch_grid, own, path)
            sets.setdefault(name, []).append(np.arange(start, sum(map(len, blocks))))
        for name, nodes in conditions.get(zone_name or "", {}).items():
            point_sets.setdefault(name, []).append(nodes + first_node)
        listed += [nodes + first_node for nodes in joints.get(zone_name or "", {}).values()]
    if not points:
        raise MeshError(f"{path}: expected a zone with points, got none")
    n_cells = sum(map(len, blocks))
    cell_sets = {name: np.concatenate(parts) for name, parts in sets.items()}
    mesh = Mesh(
        np.concatenate(points),
        tuple(blocks),
        _zone_fields(fields, n_cells, cells=False),
        _zone_fields(fields, n_cells, cells=True),
        cell_sets=cell_sets,
        source=str(path),
    )
    named = {name: np.concatenate(parts) for name, parts in point_sets.items()}
    mesh = mesh.replace(point_sets=named | boundary_nodes(mesh, mesh.cell_sets))
    shared = np.unique(np.concatenate(listed))
    return joined(mesh, shared) if len(shared) else mesh


def _zones(data: Any, name: str | None = None) -> Iterator[tuple[str | None, Any, list[tuple[str, Any]]]]:
    """Name, cells and boundary patches of each zone."""
    if not data.IsA("vtkMultiBlockDataSet"):
        if data.IsA("vtkDataSet") and data.GetNumberOfPoints():
            yield name, data, []
        return
    children = [data.GetBlock(k) for k in range(data.GetNumberOfBlocks())]
    names = [
        data.GetMetaData(k).Get(data.NAME()) if data.GetMetaData(k) is not None else None for k in range(len(children))
    ]
    if "Internal" in names:
        patches = [child for child, own in zip(children, names, strict=True) if own == "Patches" and child is not None]
        found = [leaf for patch in patches for leaf in _leaves(patch) if leaf[1].GetNumberOfCells()]
        yield name, children[names.index("Internal")], found
        return
    for child, own in zip(children, names, strict=True):
        if child is not None:
            yield from _zones(child, own)


def _shifted(grid: Any, numbers: np.ndarray, path: Path) -> list[CellBlock]:
    blocks = blocks_from_vtk(*_flat_cells(grid), str(path))
    return [CellBlock(block.type, numbers[block.nodes]) for block in blocks]


def _same_nodes(zone: np.ndarray, patch: np.ndarray, what: str) -> np.ndarray:
    """Numbers in the zone of a patch's nodes, which are copies of the zone's."""
    if np.array_equal(zone, patch):
        return np.arange(len(zone))
    from scipy.spatial import KDTree

    distance, index = KDTree(zone).query(patch)
    if distance.any():
        raise MeshError(f"{what}: expected nodes of its zone, got one that is {distance.max()} away from all")
    return index


def _zone_fields(zones: list[tuple[Any, int, int]], n_cells: int, *, cells: bool) -> dict[str, np.ndarray]:
    """Fields that all zones have; cells of patches have none, so their values are NaN."""
    arrays = [_arrays(grid.GetCellData() if cells else grid.GetPointData()) for grid, _, _ in zones]
    shared = [name for name in arrays[0] if all(name in other for other in arrays)]
    if not cells:
        return {name: np.concatenate([fields[name] for fields in arrays]) for name in shared}
    result = {}
    for name in shared:
        values = np.full((n_cells, *arrays[0][name].shape[1:]), np.nan)
        for fields, (_, _, start) in zip(arrays, zones, strict=True):
            values[start : start + len(fields[name])] = fields[name]
        result[name] = values
    return result


if __name__ == "__main__":
    raise SystemExit(answer(lambda: _read_here(Path(sys.argv[1]), int(sys.argv[3])), sys.argv[2]))
