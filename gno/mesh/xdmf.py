"""XDMF with its HDF5 file: one mesh or a series of time steps, to the bit.

The XML is read here and only the arrays of the step asked for are loaded. A file is never given to a library that
would end the process on a missing or damaged part.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.plain import NOTE, Plain, from_plain
from gno.mesh.vtkcells import code_of, vtk_order

HEAVY = (".h5", ".hdf5")
SUFFIXES = (".xdmf", ".xmf", ".xdmf3")

CODES = {
    1: ("vertex", 1),
    2: ("line", 2),
    3: ("polygon", 0),
    4: ("triangle", 3),
    5: ("quad", 4),
    6: ("tetra", 4),
    7: ("pyramid", 5),
    8: ("wedge", 6),
    9: ("hexahedron", 8),
    0x22: ("line3", 3),
    0x23: ("quad9", 9),
    0x24: ("triangle6", 6),
    0x25: ("quad8", 8),
    0x26: ("tetra10", 10),
    0x27: ("pyramid13", 13),
    0x28: ("wedge15", 15),
    0x29: ("wedge18", 18),
    0x30: ("hexahedron20", 20),
    0x31: ("hexahedron24", 24),
    0x32: ("hexahedron27", 27),
}
"""Cell types and nodes per cell by XDMF's number; 1 to 3 are followed by the number of nodes."""
NAMES = {
    "polyvertex": 1,
    "polyline": 2,
    "polygon": 3,
    "triangle": 4,
    "quadrilateral": 5,
    "tetrahedron": 6,
    "pyramid": 7,
    "wedge": 8,
    "hexahedron": 9,
    "edge_3": 0x22,
    "quadrilateral_9": 0x23,
    "quad_9": 0x23,
    "triangle_6": 0x24,
    "tri_6": 0x24,
    "quadrilateral_8": 0x25,
    "quad_8": 0x25,
    "tetrahedron_10": 0x26,
    "tet_10": 0x26,
    "pyramid_13": 0x27,
    "wedge_15": 0x28,
    "wedge_18": 0x29,
    "hexahedron_20": 0x30,
    "hex_20": 0x30,
    "hexahedron_24": 0x31,
    "hex_24": 0x31,
    "hexahedron_27": 0x32,
    "hex_27": 0x32,
}
_MANY = {1: "poly_vertex", 2: "poly_line", 3: "polygon"}
_KINDS = {"float": "f", "int": "i", "uint": "u", "char": "i", "uchar": "u"}

Flat = tuple[np.ndarray, np.ndarray, np.ndarray]


def xdmf_times(path: Path) -> list[float]:
    """Times of the steps of a file; those without one are numbered. Empty for a file that is no series."""
    steps = _steps(_parse(path), path)
    if len(steps) == 1 and steps[0].find("Time") is None:
        return []
    return [time if (time := _time(grid, path)) is not None else float(k) for k, grid in enumerate(steps)]


def read_xdmf(path: Path, step: int) -> Mesh:
    """Read one time step of an XDMF file.

    Raises:
        MeshError: not XDMF, cut off, or an array that is missing or does not fit.
    """
    root = _parse(path)
    grid = _steps(root, path)[step]
    topology, geometry = (_part(root, grid, tag, path) for tag in ("Topology", "Geometry"))
    points = _points(root, geometry, path)
    cells = _cells(root, topology, path)
    arrays: dict[str, dict[str, np.ndarray]] = {"node": {}, "cell": {}, "grid": {}}
    for attribute in grid.findall("Attribute"):
        centre = attribute.get("Center", "Node").lower()
        name = attribute.get("Name", "")
        item = attribute.find("DataItem")
        if centre not in arrays or item is None:
            raise MeshError(f"{path}: attribute '{name}': expected values on Node, Cell or Grid, got {centre}")
        if name in arrays[centre]:
            raise MeshError(f"{path}: attributes: expected each name once, got '{name}' twice")
        arrays[centre][name] = _column(_data(root, item, path))
    text = grid.find(f"Information[@Name='{NOTE}']")
    note = "" if text is None else text.get("Value", "")
    plain = Plain(arrays["node"], arrays["cell"], arrays["grid"], note)
    return from_plain(points, cells, plain, time=_time(grid, path), source=str(path))


def _parse(path: Path) -> Element:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MeshError(f"{path}: expected an XDMF file, got: {error}") from error
    if root.tag != "Xdmf":
        raise MeshError(f"{path}: expected an Xdmf file, got '{root.tag}'")
    return root


def _steps(root: Element, path: Path) -> list[Element]:
    grids = root.findall("Domain/Grid")
    series = [grid for grid in grids if _grid_type(grid) == "collection"]
    if len(series) == 1 and series[0].get("CollectionType", "Temporal").lower() == "temporal":
        steps = series[0].findall("Grid")
        if not steps:
            raise MeshError(f"{path}: expected time steps, got an empty collection")
        return steps
    if len(grids) == 1 and _grid_type(grids[0]) == "uniform":
        return grids
    raise MeshError(f"{path}: expected one grid or one series in time, got {[_grid_type(grid) for grid in grids]}")


def _grid_type(grid: Element) -> str:
    return grid.get("GridType", grid.get("Type", "Uniform")).lower()


def _time(grid: Element, path: Path) -> float | None:
    element = grid.find("Time")
    if element is None:
        return None
    try:
        return float(element.get("Value", ""))
    except ValueError as error:
        raise MeshError(f"{path}: expected a time, got '{element.get('Value')}'") from error


def _part(root: Element, grid: Element, tag: str, path: Path) -> Element:
    """Topology or geometry of a grid: its own, a reference, or another grid's that it includes."""
    found = grid.find(tag)
    if found is None:
        for include in grid:
            pointer = include.get("xpointer", "")
            name = re.search(r"@Name=[\"']([^\"']*)[\"']", pointer)
            if include.tag.endswith("include") and name:
                other = next((g for g in root.iter("Grid") if g.get("Name") == name.group(1)), None)
                inner = other.find("Grid") if other is not None and _grid_type(other) == "collection" else other
                found = inner.find(tag) if inner is not None and inner is not grid else None
            if found is not None:
                break
    if found is None:
        raise MeshError(f"{path}: expected a {tag} in each grid, got none")
    return _follow(root, found, path)


def _follow(root: Element, element: Element, path: Path) -> Element:
    for _ in range(8):
        reference = element.get("Reference")
        if reference is None:
            return element
        where = (element.text or "").strip() if reference == "XML" else reference
        found = root.find(where.removeprefix("/Xdmf/"))
        if found is None:
            raise MeshError(f"{path}: expected an element at '{where}', got none")
        element = found
    raise MeshError(f"{path}: expected a reference that ends, got a circle")


def _points(root: Element, geometry: Element, path: Path) -> np.ndarray:
    kind = geometry.get("GeometryType", geometry.get("Type", "XYZ")).upper()
    items = [_data(root, item, path) for item in geometry.findall("DataItem")]
    if kind in ("X_Y_Z", "X_Y", "XYZ", "XY") and items:
        if "_" in kind and len(items) == kind.count("_") + 1 and len({item.size for item in items}) == 1:
            return np.stack([item.ravel() for item in items], axis=1)
        columns = len(kind)
        if "_" not in kind and items[0].size % columns == 0:
            return items[0].reshape(-1, columns)
    raise MeshError(f"{path}: geometry: expected coordinates as XYZ, XY, X_Y_Z or X_Y, got {kind} that does not fit")


def _cells(root: Element, topology: Element, path: Path) -> Flat:
    kind = topology.get("TopologyType", topology.get("Type", "")).lower()
    item = topology.find("DataItem")
    if kind == "mixed" and item is not None:
        return _mixed(_data(root, item, path).ravel(), path)
    code = NAMES.get(kind)
    if code is None:
        raise MeshError(f"{path}: topology '{kind}' is not supported")
    name, width = CODES[code]
    width = int(topology.get("NodesPerElement", width or 0))
    if item is None:
        size = int((topology.get("NumberOfElements") or topology.get("Dimensions") or "0").split()[0])
        nodes = np.arange(size)[:, None]
    else:
        nodes = _data(root, item, path)
        width = nodes.shape[1] if nodes.ndim == 2 and code in _MANY else width
        if not width or nodes.size % width or nodes.dtype.kind not in "iu":
            raise MeshError(f"{path}: topology '{kind}': expected {width or 'some'} nodes per cell, got {nodes.shape}")
        nodes = nodes.reshape(-1, width)
    if code in _MANY and width > 1:
        name = "line" if (code, width) == (2, 2) else _MANY[code]
    return _flat(name, nodes)


def _flat(name: str, nodes: np.ndarray) -> Flat:
    size, width = nodes.shape
    nodes = nodes[:, vtk_order(name, width)]
    return nodes.ravel(), width * np.arange(1, size + 1), np.full(size, code_of(name), np.uint8)


def _mixed(stream: np.ndarray, path: Path) -> Flat:
    """Cells from a stream of type numbers, each followed by its nodes."""
    values = stream.tolist()
    runs: list[tuple[str, list[list[int]]]] = []
    place = 0
    while place < len(values):
        code = values[place]
        if code not in CODES:
            raise MeshError(f"{path}: topology: expected an XDMF cell type, got {code} at {place}")
        name, width = CODES[code]
        place += 1
        if code in _MANY:
            if place >= len(values):
                break
            width = values[place]
            place += 1
            name = CODES[code][0] if width == CODES[code][1] else _MANY[code]
        cell = values[place : place + width]
        place += width
        if len(cell) != width or width < 1:
            raise MeshError(f"{path}: topology: expected {width} nodes of a cell, got {len(cell)} (cut off?)")
        if not runs or runs[-1][0] != name or len(runs[-1][1][0]) != width:
            runs.append((name, []))
        runs[-1][1].append(cell)
    parts = [_flat(name, np.array(cells, dtype=stream.dtype)) for name, cells in runs]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    ends = np.cumsum([0, *(len(part[0]) for part in parts)])
    moved = [offsets + end for (_, offsets, _), end in zip(parts, ends, strict=False)]
    return np.concatenate([p[0] for p in parts]), np.concatenate(moved), np.concatenate([p[2] for p in parts])


def _column(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values


def _data(root: Element, item: Element, path: Path) -> np.ndarray:
    """Array of a DataItem, in the shape that the item gives."""
    item = _follow(root, item, path)
    if item.get("ItemType", "Uniform").lower() == "hyperslab":
        return _hyperslab(root, item, path)
    if item.get("ItemType", "Uniform").lower() != "uniform":
        raise MeshError(f"{path}: data items of type '{item.get('ItemType')}' are not supported")
    form = item.get("Format", "XML").upper()
    text = (item.text or "").strip()
    try:
        shape = [int(n) for n in item.get("Dimensions", "").split()]
        kind = _KINDS[item.get("NumberType", item.get("DataType", "Float")).lower()]
        dtype = np.dtype(f"{kind}{1 if 'char' in item.get('NumberType', '').lower() else item.get('Precision', '4')}")
        if form == "HDF":
            values = _hdf(text, path)
        elif form == "XML":
            words = text.split()
            values = (
                np.array(words, dtype=np.float64).astype(dtype) if kind == "f" else np.array([*map(int, words)], dtype)
            )
        else:
            order = ">" if item.get("Endian", "Native").lower() == "big" else "<"
            seek = int(item.get("Seek", "0"))
            raw = (path.parent / text).read_bytes()[seek : seek + math.prod(shape) * dtype.itemsize]
            values = np.frombuffer(raw, np.dtype(order + dtype.str[1:])).astype(dtype)
    except (KeyError, ValueError, TypeError, OSError, OverflowError) as error:
        raise MeshError(f"{path}: data item '{text[:60]}': {error}") from error
    if shape and values.size != math.prod(shape):
        raise MeshError(f"{path}: data item '{text[:60]}': expected {shape} values, got {values.shape}")
    return values.reshape(shape) if shape else values


def _hyperslab(root: Element, item: Element, path: Path) -> np.ndarray:
    parts = item.findall("DataItem")
    if len(parts) != 2:
        raise MeshError(f"{path}: hyperslab: expected a selection and an array, got {len(parts)} items")
    start, stride, count = _data(root, parts[0], path).reshape(3, -1).astype(int)
    values = _data(root, parts[1], path)
    return values[tuple(slice(a, a + s * n, s) for a, s, n in zip(start, stride, count, strict=True))]


def _hdf(text: str, path: Path) -> np.ndarray:
    import h5py

    name, _, inside = text.partition(":")
    file = path.parent / name.strip()
    if not file.is_file():
        raise OSError(f"expected the file {file} next to it, got none")
    with h5py.File(file, "r") as data:
        found = data.get(inside.strip())
        if not isinstance(found, h5py.Dataset):
            raise OSError(f"expected an array '{inside}' in {name}, got none")
        return np.asarray(found[()])
