"""Fields in Gmsh's files, MSH 2 and 4.1, by the numbers of the nodes and cells that their values belong to.

The format is described in the Gmsh reference manual, section "MSH file format".
"""

from __future__ import annotations

import dataclasses
import mmap
import re
from collections.abc import Iterator

import numpy as np

from gno.mesh.mesh import MeshError

Bytes = bytes | mmap.mmap
_BEGIN = re.compile(rb"\$(NodeData|ElementData)[ \t]*\r?\n")
_NONE = np.zeros(0, dtype=np.int64)
# With any of these the mesh is over, and what meshio is to see of a file.
_AFTER = re.compile(rb"\$(NodeData|ElementData|ElementNodeData|InterpolationScheme)[ \t]*\r?\n")


@dataclasses.dataclass(frozen=True)
class Section:
    """One field at one time: where it lives, its name, the numbers of its nodes or cells, and a row for each."""

    at_nodes: bool
    name: str
    time: float
    width: int
    n_rows: int
    start: int
    binary: bool

    def rows(self, data: Bytes) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of nodes or cells, and values (n, width)."""
        body = _Words(_until_end(data, self.start, self.binary), self.binary)
        return body.rows(self.n_rows, 1, "<i4", self.width)


def end_of_mesh(data: Bytes) -> int:
    """Where the fields of a file begin; its length where there are none."""
    found = _AFTER.search(data)
    return found.start() if found else len(data)


def sections(data: Bytes) -> Iterator[Section]:
    """The fields of a file in their order.

    Raises:
        MeshError: one that was cut off.
    """
    binary = version(data)[1]
    for found in _BEGIN.finditer(data):
        at, said = found.end(), []
        for _ in range(3):  # texts, numbers, whole numbers: how many, and each on a line of its own
            lines = []
            for _ in range(1 + (int(_line(data, at)[0]))):
                text, at = _line(data, at)
                lines.append(text)
            said.append(lines[1:])
        (name, *_), (time, *_), (_, width, n_rows, *_) = said
        name = name.strip('"')
        yield Section(found[1] == b"NodeData", name, float(time), int(width), int(n_rows), at, binary)


def version(data: Bytes) -> tuple[str, bool]:
    """The version of the format, and whether it is binary."""
    found = re.search(rb"\$MeshFormat\s+(\S+)\s+(\d)", data)
    return (found[1].decode("latin-1"), found[2] == b"1") if found else ("", False)


def numbers(data: Bytes, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gmsh's numbers of the nodes and of the cells, in the order of the file.

    Args:
        data: the file. widths: how many nodes each cell has.
    """
    name, binary = version(data)
    nodes, cells = (_nodes_2, _cells_2) if name.startswith("2") else (_nodes_4, _cells_4)
    return nodes(_body(data, b"Nodes", binary), binary), cells(_body(data, b"Elements", binary), binary, widths)


class _Words:
    """Rows of numbers, text or binary, one group after the other."""

    def __init__(self, body: bytes, binary: bool) -> None:
        self.body, self.words, self.at = body, [] if binary else body.split(), 0
        self.binary = binary

    def rows(self, n: int, whole: int, kind: str, real: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Of ``n`` rows the whole numbers, without their axis if it is one, and the real ones."""
        if self.binary:
            table = np.frombuffer(self.body, [("w", kind, (whole,)), ("r", "<f8", (real,))], n, self.at)
            self.at += table.nbytes
            integers, floats = table["w"].astype(np.int64), table["r"]
        else:
            words = np.array(self.words[self.at : self.at + n * (whole + real)], dtype="S").reshape(n, whole + real)
            self.at += words.size
            integers, floats = words[:, :whole].astype(np.int64), words[:, whole:].astype(np.float64)
        return integers[:, 0] if whole == 1 else integers, floats


def _line(data: Bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\n", at)
    if end < 0:
        raise MeshError("expected the head of a field, got the end of the file (cut off?)")
    return data[at:end].decode("utf-8", "replace").strip(), end + 1


def _until_end(data: Bytes, start: int, binary: bool) -> bytes:
    """From ``start`` on; of a text to the end of its section."""
    end = len(data) if binary else data.find(b"$End", start)
    if end < 0:
        raise MeshError("expected the end of a field, got the end of the file (cut off?)")
    return data[start:end]


def _body(data: Bytes, name: bytes, binary: bool) -> bytes:
    found = re.search(rb"\$" + name + rb"[ \t]*\r?\n", data)
    if found is None:
        raise MeshError(f"expected a section ${name.decode()}, got none")
    return _until_end(data, found.end(), binary)


def _nodes_2(body: bytes, binary: bool) -> np.ndarray:
    count, start = _line(body, 0)
    return _Words(body[start:], binary).rows(int(count), 1, "<i4", 3)[0]


def _cells_2(body: bytes, binary: bool, widths: np.ndarray) -> np.ndarray:
    start = _line(body, 0)[1]
    if not binary:
        return np.array(
            [int(row.split(None, 1)[0]) for row in body[start:].splitlines() if row.strip()], dtype=np.int64
        )
    words, found, done = _Words(body[start:], True), [_NONE], 0
    while done < len(widths):
        _, n, n_tags = words.rows(1, 3, "<i4")[0][0].tolist()
        found.append(words.rows(n, 1 + n_tags + int(widths[done]), "<i4")[0][:, 0])
        done += n
    return np.concatenate(found)


def _nodes_4(body: bytes, binary: bool) -> np.ndarray:
    words, found = _Words(body, binary), [_NONE]
    for _ in range(words.rows(1, 4, "<u8")[0][0, 0]):
        words.rows(1, 3, "<i4")
        n = int(words.rows(1, 1, "<u8")[0][0])
        found.append(words.rows(n, 1, "<u8")[0])
        words.rows(n, 0, "<u8", 3)
    return np.concatenate(found)


def _cells_4(body: bytes, binary: bool, widths: np.ndarray) -> np.ndarray:
    words, found, done = _Words(body, binary), [_NONE], 0
    for _ in range(words.rows(1, 4, "<u8")[0][0, 0]):
        words.rows(1, 3, "<i4")
        n = int(words.rows(1, 1, "<u8")[0][0])
        found.append(words.rows(n, 1 + int(widths[done]), "<u8")[0][:, 0])
        done += n
    return np.concatenate(found)
