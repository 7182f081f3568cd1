"""VTK's legacy files (.vtk), text and binary, versions 1 to 5.1.

Read here and not by VTK, which returns what it has when a file ends early. The format is described in "VTK File
Formats" of the VTK documentation.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.plain import NOTE, TIME, Plain, from_plain
from gno.mesh.structured import grid_cells
from gno.mesh.vtkcells import renumber_old_hexahedra

_TYPES = {
    "unsigned_char": "u1",
    "char": "i1",
    "unsigned_short": "u2",
    "short": "i2",
    "unsigned_int": "u4",
    "int": "i4",
    "unsigned_long": "u8",
    "long": "i8",
    "vtktypeint64": "i8",
    "vtktypeuint64": "u8",
    "vtkidtype": "i4",
    "float": "f4",
    "double": "f8",
}
_POLY = {"VERTICES": (1, 2), "LINES": (3, 4), "POLYGONS": (5, 9, 7), "TRIANGLE_STRIPS": (6,)}
_NEW_HEXAHEDRA = (5, 1)
"""Version of the files from which on Lagrange hexahedra have today's node order."""
_FEWEST = {"VERTICES": 1, "LINES": 2, "POLYGONS": 3, "TRIANGLE_STRIPS": 3}
_VALUES_PER_POINT = {"VECTORS": 3, "NORMALS": 3, "TENSORS": 9, "TENSORS6": 6, "GLOBAL_IDS": 1, "PEDIGREE_IDS": 1}


class _Cursor:
    """Walks through a file: lines of words, and arrays in text or big-endian binary."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.place = 0
        self.binary = False
        self.version: tuple[int, ...] = (1, 0)
        self._ahead: list[bytes] = []

    def line(self) -> list[str] | None:
        """Words of the next line that has any; None at the end."""
        if self._ahead:
            words, self._ahead = self._ahead, []
            return [word.decode("latin-1") for word in words]
        while self.place < len(self.data):
            end = self.data.find(b"\n", self.place)
            end = len(self.data) if end < 0 else end
            text = self.data[self.place : end]
            self.place = end + 1
            if text.strip():
                return text.decode("latin-1").split()
        return None

    def give_back(self, words: list[str]) -> None:
        """Data that stands in the line of its keyword."""
        self._ahead = [word.encode("latin-1") for word in words]

    def array(self, count: int, type_name: str) -> np.ndarray:
        """The next ``count`` values."""
        name = type_name.lower()
        if name == "bit":
            return self._bits(count)
        if name not in _TYPES:
            raise self.fail(f"expected a number type, got '{type_name}'")
        dtype = np.dtype(_TYPES[name])
        if not self.binary:
            return _numbers(self._words(count), dtype)
        size = count * dtype.itemsize
        raw = self.data[self.place : self.place + size]
        if len(raw) < size:
            raise self.fail(f"expected {count} values, got {len(raw) // dtype.itemsize} (file cut off?)")
        self.place += size
        return np.frombuffer(raw, dtype.newbyteorder(">")).astype(dtype)

    def _bits(self, count: int) -> np.ndarray:
        if not self.binary:
            return _numbers(self._words(count), np.dtype("u1"))
        size = (count + 7) // 8
        raw = np.frombuffer(self.data[self.place : self.place + size], np.uint8)
        if len(raw) < size:
            raise self.fail(f"expected {count} bits, got {8 * len(raw)} (file cut off?)")
        self.place += size
        return np.unpackbits(raw)[:count]

    def strings(self, count: int) -> np.ndarray:
        """The next ``count`` texts, one in each line."""
        if self.binary:
            raise self.fail("binary text arrays are not supported")
        return np.array([unquote(" ".join(self.line() or [])) for _ in range(count)] or [""])

    def _words(self, count: int) -> list[bytes]:
        words, self._ahead = self._ahead, []
        while len(words) < count:
            if self.place >= len(self.data):
                raise self.fail(f"expected {count} values, got {len(words)} (file cut off?)")
            # A few thousand lines at once; whatever is too much waits for the next call.
            end = self.place
            for _ in range(min(count - len(words), 4096)):
                end = self.data.find(b"\n", end) + 1
                if not end:
                    end = len(self.data)
                    break
            chunk = self.data[self.place : end].split()
            needed = count - len(words)
            if len(chunk) > needed:
                end = self._end_of_word(needed)
                chunk = chunk[:needed]
            words += chunk
            self.place = end
        return words

    def _end_of_word(self, number: int) -> int:
        """Place behind the ``number``-th word from here."""
        end = self.place
        for k, match in enumerate(re.finditer(rb"\S+", self.data[self.place :]), 1):
            if k == number:
                end = self.place + match.end()
                break
        return end

    def fail(self, message: str) -> MeshError:
        number = self.data.count(b"\n", 0, self.place) + 1
        return MeshError(f"{self.path}: line {number}: {message}")


def _numbers(words: list[bytes], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return np.array(words).astype(np.float64).astype(dtype) if words else np.zeros(0, dtype)
    return np.array([int(word) for word in words], dtype=dtype)


class _State:
    """What has been read so far."""

    def __init__(self) -> None:
        self.kind = ""
        self.points: np.ndarray | None = None
        self.cells: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.pending: tuple[np.ndarray, np.ndarray] | None = None
        self.dimensions: list[int] = []
        self.axes: dict[str, np.ndarray] = {}
        self.origin = np.zeros(3)
        self.spacing = np.ones(3)
        self.arrays: dict[str, dict[str, np.ndarray]] = {"POINT_DATA": {}, "CELL_DATA": {}, "FIELD": {}}
        self.where = "FIELD"
        self.count = 0


def read_vtk_legacy(path: Path) -> Mesh:
    """Read a legacy .vtk file of any data set type; structured grids become cells.

    Raises:
        MeshError: not such a file, cut off, or with cells that cannot be held.
    """
    cursor = _Cursor(path)
    head = cursor.data[:64].split(b"\n")[0].strip()
    if not head.lower().startswith(b"# vtk datafile"):
        raise MeshError(f"{path}: expected '# vtk DataFile Version', got '{head[:30].decode('latin-1')}'")
    cursor.version = tuple(int(n) for n in re.findall(r"\d+", head.decode("latin-1"))[:2])
    for _ in range(2):
        cursor.place = cursor.data.find(b"\n", cursor.place) + 1
    form = cursor.line() or [""]
    if form[0].upper() not in ("ASCII", "BINARY"):
        raise cursor.fail(f"expected ASCII or BINARY, got '{form[0][:20]}'")
    cursor.binary = form[0].upper() == "BINARY"
    state = _State()
    while words := cursor.line():
        try:
            _keyword(words[0].upper(), words[1:], cursor, state)
        except (ValueError, IndexError, OverflowError) as error:
            if isinstance(error, MeshError):
                raise
            raise cursor.fail(f"'{' '.join(words)[:40]}': {error} (damaged or cut off?)") from error
    return _finish(state, cursor)


def _keyword(key: str, rest: list[str], cursor: _Cursor, state: _State) -> None:
    if key == "DATASET":
        kinds = ("UNSTRUCTURED_GRID", "POLYDATA", "STRUCTURED_POINTS", "STRUCTURED_GRID", "RECTILINEAR_GRID")
        if rest[0].upper() not in kinds:
            raise cursor.fail(f"expected a mesh, got a data set '{rest[0]}'")
        state.kind = rest[0].upper()
    elif key == "POINTS":
        cursor.give_back(rest[2:])
        state.points = cursor.array(3 * int(rest[0]), rest[1]).reshape(-1, 3)
    elif key == "CELLS":
        state.pending = _cell_array(rest, cursor)
    elif key == "CELL_TYPES":
        if state.pending is None:
            raise cursor.fail("expected CELLS before CELL_TYPES")
        cursor.give_back(rest[1:])
        state.cells.append((*state.pending, cursor.array(int(rest[0]), "int")))
        if cursor.version < _NEW_HEXAHEDRA:
            connectivity, offsets, codes = state.cells[-1]
            state.cells[-1] = (renumber_old_hexahedra(connectivity, offsets, codes), offsets, codes)
        state.pending = None
    elif key in _POLY:
        connectivity, offsets = _cell_array(rest, cursor)
        widths = np.diff(offsets, prepend=0)
        codes = np.array(_POLY[key])[np.clip(widths - _FEWEST[key], 0, len(_POLY[key]) - 1)]
        state.cells.append((connectivity, offsets, codes))
    elif key in ("DIMENSIONS", "ORIGIN", "SPACING", "ASPECT_RATIO"):
        _grid_line(key, rest, state)
    elif key in ("X_COORDINATES", "Y_COORDINATES", "Z_COORDINATES"):
        state.axes[key[0]] = cursor.array(int(rest[0]), rest[1])
    elif key in ("POINT_DATA", "CELL_DATA"):
        state.where, state.count = key, int(rest[0])
    elif key == "METADATA":
        _skip_metadata(cursor)
    else:
        _attribute(key, rest, cursor, state)


def _grid_line(key: str, rest: list[str], state: _State) -> None:
    if key == "DIMENSIONS":
        state.dimensions = [int(word) for word in rest[:3]]
    elif key == "ORIGIN":
        state.origin = np.array([float(word) for word in rest[:3]])
    else:
        state.spacing = np.array([float(word) for word in rest[:3]])


def _cell_array(rest: list[str], cursor: _Cursor) -> tuple[np.ndarray, np.ndarray]:
    """Connectivity and end offsets, from counts among the nodes or from two arrays (version 5)."""
    first, second = int(rest[0]), int(rest[1])
    cursor.give_back(rest[2:])
    before, ahead = cursor.place, None if rest[2:] else cursor.line()
    if ahead and ahead[0].upper() == "OFFSETS":
        offsets = cursor.array(first, ahead[1])
        line = cursor.line() or [""]
        if line[0].upper() != "CONNECTIVITY":
            raise cursor.fail(f"expected CONNECTIVITY, got '{line[0][:20]}'")
        return cursor.array(second, line[1]).astype(np.int64), offsets[1:].astype(np.int64)
    cursor.place = before
    stream = cursor.array(second, "int")
    widths = np.zeros(first, dtype=np.int64)
    place = 0
    for k in range(first):
        if place >= second:
            raise cursor.fail(f"expected {first} cells, got {k}")
        widths[k] = stream[place]
        place += 1 + int(widths[k])
    if (widths < 1).any():
        raise cursor.fail("expected at least one node in each cell")
    heads = np.cumsum(widths + 1) - widths - 1
    # Some writers count one more cell than there is and leave the rest of the stream empty.
    stream = stream[: int((widths + 1).sum())].astype(np.int64)
    return np.delete(stream, heads), np.cumsum(widths)


def _skip_metadata(cursor: _Cursor) -> None:
    """Notes on the last array; a blank line ends them."""
    end = re.compile(rb"\n[ \t\r]*\n").search(cursor.data, cursor.place)
    cursor.place = len(cursor.data) if end is None else end.end()


def _attribute(key: str, rest: list[str], cursor: _Cursor, state: _State) -> None:
    if key == "FIELD":
        for _ in range(int(rest[1])):
            _field_array(cursor, state)
    elif key == "SCALARS":
        components = int(rest[2]) if len(rest) > 2 else 1
        before = cursor.place
        line = cursor.line()
        if not line or line[0].upper() != "LOOKUP_TABLE":
            cursor.place = before
        _put(rest[0], cursor.array(state.count * components, rest[1]), components, cursor, state)
    elif key == "COLOR_SCALARS":
        components = int(rest[1])
        kind = "unsigned_char" if cursor.binary else "float"
        _put(rest[0], cursor.array(state.count * components, kind), components, cursor, state)
    elif key == "LOOKUP_TABLE":
        cursor.array(4 * int(rest[1]), "unsigned_char" if cursor.binary else "float")
    elif key == "TEXTURE_COORDINATES":
        components = int(rest[1])
        _put(rest[0], cursor.array(state.count * components, rest[2]), components, cursor, state)
    elif key in _VALUES_PER_POINT:
        components = _VALUES_PER_POINT[key]
        _put(rest[0], cursor.array(state.count * components, rest[1]), components, cursor, state)
    else:
        raise cursor.fail(f"expected a keyword of the format, got '{key[:30]}'")


def _field_array(cursor: _Cursor, state: _State) -> None:
    words = cursor.line() or []
    while words and words[0] == "METADATA":
        _skip_metadata(cursor)
        words = cursor.line() or []
    if len(words) < 4:
        raise cursor.fail(f"expected a field's name, sizes and type, got '{' '.join(words)[:40]}' (file cut off?)")
    components, tuples = int(words[1]), int(words[2])
    if words[3].lower() == "string":
        values = cursor.strings(components * tuples)
    else:
        values = cursor.array(components * tuples, words[3])
    _put(words[0], values, components, cursor, state)


def _put(name: str, values: np.ndarray, components: int, cursor: _Cursor, state: _State) -> None:
    name = unquote(name)
    arrays = state.arrays[state.where]
    if name in arrays:
        raise cursor.fail(f"{state.where}: expected each name once, got '{name}' twice")
    values = values.reshape(-1, components) if components > 1 else values
    if state.where != "FIELD" and len(values) != state.count:
        raise cursor.fail(f"{state.where} '{name}': expected {state.count} values, got {len(values)}")
    arrays[name] = values


def _finish(state: _State, cursor: _Cursor) -> Mesh:
    if state.pending is not None or (state.kind == "UNSTRUCTURED_GRID" and not state.cells):
        raise MeshError(f"{cursor.path}: expected CELLS and CELL_TYPES, got none (file cut off?)")
    if state.dimensions:
        points, cells = _structured(state, cursor)
    else:
        if state.points is None or not len(state.points):
            raise MeshError(f"{cursor.path}: expected points, got none (file cut off?)")
        points, cells = state.points, _joined(state.cells)
    arrays = state.arrays
    note = arrays["FIELD"].pop(NOTE, np.array([""]))
    time = arrays["FIELD"].pop(TIME, arrays["FIELD"].pop("TIME", np.zeros(0)))
    plain = Plain(arrays["POINT_DATA"], arrays["CELL_DATA"], arrays["FIELD"], str(note.reshape(-1)[0]))
    when = float(time.reshape(-1)[-1]) if time.size and time.dtype.kind in "fiu" else None
    return from_plain(points, cells, plain, time=when, source=str(cursor.path))


def _joined(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    starts = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part[2] for part in parts]),
    )


def _structured(state: _State, cursor: _Cursor) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    dimensions = state.dimensions
    points = state.points
    if points is None and state.axes:
        axes = [state.axes.get(name, np.zeros(1)) for name in "XYZ"]
    else:
        axes = [o + s * np.arange(n) for o, s, n in zip(state.origin, state.spacing, dimensions, strict=True)]
    if points is None:
        # The first axis runs fastest.
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    if min(dimensions) < 1 or len(points) != np.prod(dimensions):
        raise MeshError(f"{cursor.path}: expected {dimensions} points, got {len(points)} (file cut off?)")
    return points, grid_cells(dimensions)
