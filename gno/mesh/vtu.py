"""VTK's XML files for unstructured meshes (.vtu) and surfaces (.vtp), to the bit."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import lzma
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from gno.mesh.files import atomic
from gno.mesh.mesh import Mesh, MeshError, named_once
from gno.mesh.plain import NOTE, TIME, Plain, from_plain, to_plain
from gno.mesh.vtkcells import blocks_to_vtk, renumber_old_hexahedra
from gno.workers import in_threads

_TYPES = {
    **{f"Int{8 * n}": f"i{n}" for n in (1, 2, 4, 8)},
    **{f"UInt{8 * n}": f"u{n}" for n in (1, 2, 4, 8)},
    "Float32": "f4",
    "Float64": "f8",
    "String": "u1",
}
_NAMES = {code: name for name, code in _TYPES.items() if name != "String"}
_DECOMPRESS = {"vtkZLibDataCompressor": zlib.decompress, "vtkLZMADataCompressor": lzma.decompress}
_BLOCK = 1 << 20
_NEW_HEXAHEDRA = (2, 1)
"""Version of the files from which on Lagrange hexahedra have today's node order."""
_POLY_SECTIONS = (("Verts", (1, 2)), ("Lines", (3, 4)), ("Polys", (5, 9, 7)), ("Strips", (6, 6)))

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _File:
    """How the arrays of one file are coded."""

    source: str
    version: tuple[int, ...]
    order: str
    header: np.dtype
    compressor: str
    appended: bytes
    encoding: str


def read_vtk_xml(path: Path) -> Mesh:
    """Read a .vtu or .vtp file; its pieces become one mesh.

    Raises:
        MeshError: not such a file, cut off, damaged, or with cells that cannot be held.
    """
    root, file = _open(path)
    kind = root.get("type", "")
    if kind not in ("UnstructuredGrid", "PolyData"):
        raise MeshError(f"{path}: expected an UnstructuredGrid or PolyData, got '{kind}'")
    grid = root.find(kind)
    pieces = [] if grid is None else grid.findall("Piece")
    if grid is None or not pieces:
        raise MeshError(f"{path}: expected at least one Piece, got none (file cut off?)")
    read_cells = _vtu_cells if kind == "UnstructuredGrid" else _vtp_cells
    parts = [_piece(piece, file, read_cells) for piece in pieces]
    points, cells, point_arrays, cell_arrays = _join(parts, file)
    global_arrays = _field_data(grid, file)
    note = global_arrays.pop(NOTE, np.array([""]))
    time = global_arrays.pop(TIME, None)
    plain = Plain(point_arrays, cell_arrays, global_arrays, str(note[0]) if len(note) else "")
    when = float(time[-1]) if time is not None and time.size else None
    return from_plain(points, cells, plain, time=when, source=str(path))


def _open(path: Path) -> tuple[ElementTree.Element, _File]:
    data = path.read_bytes()
    # Raw appended data is not XML: cut it out before parsing.
    start = re.search(rb"<AppendedData[^>]*>\s*_", data)
    appended = b""
    encoding = ""
    if start:
        end = data.rfind(b"</AppendedData>")
        if end < start.end():
            raise MeshError(f"{path}: expected </AppendedData>, got the end of the file (cut off?)")
        appended = data[start.end() : end]
        encoding = "base64" if b"base64" in start.group() else "raw"
        data = data[: start.end()] + data[end:]
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise MeshError(f"{path}: expected a VTK XML file, got: {error}") from error
    if root.tag != "VTKFile":
        raise MeshError(f"{path}: expected a VTKFile, got '{root.tag}'")
    order = "<" if root.get("byte_order", "LittleEndian") == "LittleEndian" else ">"
    header = {"UInt32": "u4", "UInt64": "u8"}.get(root.get("header_type", "UInt32"))
    compressor = root.get("compressor", "")
    if header is None or (compressor and compressor not in _DECOMPRESS):
        raise MeshError(f"{path}: expected zlib, LZMA or no compression, got {compressor or root.get('header_type')}")
    version = tuple(int(n) for n in re.findall(r"\d+", root.get("version", "1.0")))
    return root, _File(str(path), version, order, np.dtype(order + header), compressor, appended, encoding)


def _join(parts: list, file: _File) -> tuple[np.ndarray, Cells, dict, dict]:
    """Pieces of a file as one; nodes that pieces share stay double, as they are in the file."""
    if len(parts) == 1:
        return parts[0]
    points = np.concatenate([part[0] for part in parts])
    nodes = ends = 0
    moved = []
    for part_points, (connectivity, offsets, codes), _, _ in parts:
        moved.append((connectivity + nodes, offsets + ends, codes))
        nodes += len(part_points)
        ends += len(connectivity)
    cells = tuple(np.concatenate(column) for column in zip(*moved, strict=True))
    fields = []
    for k in (2, 3):
        filled = [part for part in parts if len(part[0] if k == 2 else part[1][2])] or parts[:1]
        if len({tuple(sorted(part[k])) for part in filled}) > 1:
            raise MeshError(f"{file.source}: expected the same fields in all pieces, got different ones")
        fields.append({name: np.concatenate([part[k][name] for part in filled]) for name in filled[0][k]})
    return points, cells, fields[0], fields[1]  # type: ignore[return-value]


def _piece(piece: ElementTree.Element, file: _File, read_cells) -> tuple:
    n_points = _count(piece, "NumberOfPoints", file)
    where = piece.find("Points/DataArray")
    if where is None and n_points:
        raise MeshError(f"{file.source}: expected coordinates of {n_points} points, got none")
    points = np.zeros((0, 3)) if where is None else _array(where, file)
    if points.ndim != 2 or len(points) != n_points:
        raise MeshError(f"{file.source}: points: expected ({n_points}, 3), got {points.shape}")
    cells = read_cells(piece, file)
    point_arrays = _section(piece, "PointData", n_points, file)
    return points, cells, point_arrays, _section(piece, "CellData", len(cells[2]), file)


def _count(element: ElementTree.Element, name: str, file: _File) -> int:
    try:
        return int(element.get(name, "0"))
    except ValueError as error:
        raise MeshError(f"{file.source}: {name}: expected a number, got '{element.get(name)}'") from error


def _section(piece: ElementTree.Element, tag: str, size: int, file: _File) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    elements = piece.findall(f"{tag}/DataArray") + piece.findall(f"{tag}/Array")
    names = named_once([element.get("Name", "") for element in elements], tag, file.source)
    for name, element in zip(names, elements, strict=True):
        found[name] = _array(element, file)
        if len(found[name]) != size:
            raise MeshError(f"{file.source}: {tag} '{name}': expected {size} values, got {len(found[name])}")
    return found


def _field_data(grid: ElementTree.Element, file: _File) -> dict[str, np.ndarray]:
    elements = grid.findall("FieldData/DataArray") + grid.findall("FieldData/Array")
    names = named_once([element.get("Name", "") for element in elements], "FieldData", file.source)
    return {name: _array(element, file) for name, element in zip(names, elements, strict=True)}


def _vtu_cells(piece: ElementTree.Element, file: _File) -> Cells:
    n_cells = _count(piece, "NumberOfCells", file)
    arrays = {element.get("Name", ""): element for element in piece.findall("Cells/DataArray")}
    missing = {"connectivity", "offsets", "types"} - set(arrays)
    if missing:
        if not n_cells:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
        raise MeshError(f"{file.source}: cells: expected '{min(missing)}', got none")
    connectivity, offsets, codes = (_array(arrays[n], file) for n in ("connectivity", "offsets", "types"))
    if len(codes) != n_cells:
        raise MeshError(f"{file.source}: cells: expected {n_cells}, got {len(codes)}")
    if file.version < _NEW_HEXAHEDRA:
        connectivity = renumber_old_hexahedra(connectivity, offsets, codes)
    return connectivity, offsets, codes


def _vtp_cells(piece: ElementTree.Element, file: _File) -> Cells:
    parts = []
    ends = 0
    for section, codes in _POLY_SECTIONS:
        n_cells = _count(piece, f"NumberOf{section}", file)
        if not n_cells:
            continue
        arrays = {element.get("Name", ""): element for element in piece.findall(f"{section}/DataArray")}
        if not {"connectivity", "offsets"} <= set(arrays):
            raise MeshError(f"{file.source}: {section}: expected connectivity and offsets, got {sorted(arrays)}")
        connectivity, offsets = _array(arrays["connectivity"], file), _array(arrays["offsets"], file)
        if len(offsets) != n_cells:
            raise MeshError(f"{file.source}: {section}: expected {n_cells} cells, got {len(offsets)}")
        widths = np.diff(np.concatenate([[0], offsets]))
        parts.append((connectivity, offsets + ends, _poly_codes(section, codes, widths)))
        ends += len(connectivity)
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    connectivity, offsets, kinds = (np.concatenate(column) for column in zip(*parts, strict=True))
    return connectivity, offsets, kinds


def _poly_codes(section: str, codes: tuple[int, ...], widths: np.ndarray) -> np.ndarray:
    """Cell types of the cells of a surface file, which says only how many corners each has."""
    first = {"Verts": 1, "Lines": 2, "Polys": 3, "Strips": 3}[section]
    return np.array(codes, dtype=np.uint8)[np.clip(widths - first, 0, len(codes) - 1)]


def _array(element: ElementTree.Element, file: _File) -> np.ndarray:
    """Values of one DataArray, (n,) or (n, components), in the machine's byte order."""
    name = element.get("Name", "")
    what = f"{file.source}: array '{name}'"
    kind = element.get("type", "")
    if kind not in _TYPES:
        raise MeshError(f"{what}: expected a number type, got '{kind}'")
    dtype = np.dtype(file.order + _TYPES[kind])
    try:
        flat = _decode(element, file, dtype)
    except (ValueError, binascii.Error, zlib.error, lzma.LZMAError, IndexError, OverflowError) as error:
        raise MeshError(f"{what}: expected {kind} values, got damaged or cut off data ({error})") from error
    if kind == "String":
        return np.array(flat.tobytes().decode("utf-8", "replace").split("\0")[:-1] or [""])
    flat = flat.astype(dtype.newbyteorder("="), copy=False)
    components = _count(element, "NumberOfComponents", file) or 1
    if len(flat) % components:
        raise MeshError(f"{what}: expected a multiple of {components} values, got {len(flat)}")
    explicit = components > 1 or (name == "Points" and len(flat) % 3 == 0)
    return flat.reshape(-1, components) if explicit else flat


def _decode(element: ElementTree.Element, file: _File, dtype: np.dtype) -> np.ndarray:
    form = element.get("format", "ascii")
    if form == "ascii":
        words = (element.text or "").split()
        if dtype.kind == "f":
            return np.array(words, dtype=np.float64).astype(dtype)
        return np.array([int(word) for word in words], dtype=dtype)
    if form == "appended":
        data = file.appended[int(element.get("offset", "0")) :]
        encoding = file.encoding
        if not file.appended:
            raise ValueError("there is no appended data")
    else:
        data = "".join((element.text or "").split()).encode()
        encoding = "base64"
    if not data:
        return np.zeros(0, dtype)
    return np.frombuffer(_payload(data, encoding, file), dtype)


def _payload(data: bytes, encoding: str, file: _File) -> bytes:
    """Bytes of one array behind its header of lengths."""
    size = file.header.itemsize

    def take(start: int, n_bytes: int) -> bytes:
        """``n_bytes`` of the coded stream that starts at coded position ``start``."""
        part = data[start : start + (_coded(n_bytes) if encoding == "base64" else n_bytes)]
        part = base64.b64decode(part) if encoding == "base64" else part
        if len(part) < n_bytes:
            raise ValueError(f"{n_bytes} bytes announced, {len(part)} there")
        return part[:n_bytes]

    first = int(np.frombuffer(take(0, size), file.header)[0])
    if not file.compressor:
        return take(0, size + first)[size:]
    if first > len(data):
        raise ValueError(f"{first} blocks announced in {len(data)} bytes")
    header = take(0, size * (3 + first))
    lengths = np.frombuffer(header, file.header)[3:].astype(int)
    start = _coded(len(header)) if encoding == "base64" else len(header)
    blocks = take(start, int(lengths.sum()))
    stops = np.cumsum(lengths)
    unpack: Callable[[bytes], bytes] = _DECOMPRESS[file.compressor]  # type: ignore[assignment]
    return b"".join(in_threads(unpack, [blocks[stop - n : stop] for n, stop in zip(lengths, stops, strict=True)]))


def _coded(n_bytes: int) -> int:
    return 4 * ((n_bytes + 2) // 3)


def write_vtu(mesh: Mesh, path: Path) -> None:
    """Write a .vtu file (appended binary, zlib) that loses nothing of the mesh.

    Raises:
        MeshError: a cell type that VTK has not, or a field that is not numbers.
    """
    plain = to_plain(mesh)
    connectivity, offsets, codes = blocks_to_vtk(mesh.cells, ".vtu", mesh.source)
    points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
    body = io.BytesIO()

    def array(name: str, values: np.ndarray, *, tuples: bool = False) -> str:
        return _array_xml(name, values, body, tuples=tuples)

    global_arrays = dict(plain.global_arrays)
    if plain.note:
        global_arrays[NOTE] = np.array([plain.note])
    if mesh.time is not None:
        global_arrays[TIME] = np.array([mesh.time])
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="UnstructuredGrid" version="2.2" byte_order="LittleEndian" header_type="UInt64" '
        'compressor="vtkZLibDataCompressor">',
        "<UnstructuredGrid>",
        *_group("FieldData", [array(n, v, tuples=True) for n, v in global_arrays.items()]),
        f'<Piece NumberOfPoints="{mesh.n_nodes}" NumberOfCells="{mesh.n_cells}">',
        *_group("PointData", [array(n, v) for n, v in plain.point_arrays.items()]),
        *_group("CellData", [array(n, v) for n, v in plain.cell_arrays.items()]),
        *_group("Points", [array("Points", points)]),
        *_group(
            "Cells",
            [array("connectivity", connectivity), array("offsets", offsets), array("types", codes)],
        ),
        "</Piece>",
        "</UnstructuredGrid>",
        '<AppendedData encoding="raw">',
    ]
    with atomic(path) as temporary, temporary.open("wb") as out:
        out.write("\n".join(lines).encode())
        out.write(b"\n_" + body.getvalue() + b"\n</AppendedData>\n</VTKFile>\n")


def _group(tag: str, arrays: list[str]) -> list[str]:
    return [f"<{tag}>", *arrays, f"</{tag}>"]


def _array_xml(name: str, values: np.ndarray, body: io.BytesIO, *, tuples: bool) -> str:
    """The element of one array, whose data goes to the end of ``body``."""
    if values.dtype.kind == "U":
        data = "".join(f"{text}\0" for text in values.tolist()).encode()
        kind = "String"
    else:
        data = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        kind = _NAMES[values.dtype.str[1:]]
    components = values.shape[1] if values.ndim == 2 else 1
    number = f' NumberOfTuples="{len(values)}"' if tuples else ""
    offset = body.tell()
    blocks = [data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK)]
    packed = in_threads(partial(zlib.compress, level=1), blocks)
    last = len(blocks[-1]) % _BLOCK if blocks else 0
    header = [len(blocks), _BLOCK, last, *map(len, packed)]
    body.write(np.array(header, dtype="<u8").tobytes() + b"".join(packed))
    return (
        f'<DataArray type="{kind}" Name={quoteattr(name)} NumberOfComponents="{components}"{number} '
        f'format="appended" offset="{offset}"/>'
    )
