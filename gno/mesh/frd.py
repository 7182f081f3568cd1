"""CalculiX results (.frd, text): mesh and nodal fields of one time step.

The format is described in the CalculiX CGX manual, section "Result Format".
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from gno.mesh.mesh import CellBlock, Mesh, MeshError, named_once

_SOLID = [*range(12), *range(16, 20), *range(12, 16)]
_WEDGE = [*range(9), 12, 13, 14, 9, 10, 11]
_TYPES: dict[int, tuple[str, int, list[int] | None]] = {
    1: ("hexahedron", 8, None),
    2: ("wedge", 6, None),
    3: ("tetra", 4, None),
    4: ("hexahedron20", 20, _SOLID),
    5: ("wedge15", 15, _WEDGE),
    6: ("tetra10", 10, None),
    7: ("triangle", 3, None),
    8: ("triangle6", 6, None),
    9: ("quad", 4, None),
    10: ("quad8", 8, None),
    11: ("line", 2, None),
    12: ("line3", 3, None),
}
"""Cell type, nodes, and where each node is in the file: as in Exodus, vertical edges come before the top's."""


@dataclasses.dataclass(frozen=True)
class _Result:
    """One field of one step: where its lines are. Modes of one frequency differ in the step's number only."""

    name: str
    n_components: int
    step: tuple[str, float]
    first: int
    last: int


def frd_times(path: Path) -> list[float]:
    """Times of the steps of a file; empty if it has a mesh only."""
    return [time for _, time in _steps(_results(_lines(path), path))]


def read_frd(path: Path, step: int) -> Mesh:
    """Read the mesh and the nodal fields of one time step; material and group are cell fields.

    Raises:
        MeshError: not such a file, binary, cut off, or with an unknown element.
    """
    lines = _lines(path)
    numbers, points = _nodes(lines, path)
    blocks, about = _elements(lines, numbers, path)
    results = _results(lines, path)
    steps = _steps(results)
    chosen = [result for result in results if result.step == steps[step]]
    named_once([result.name for result in chosen], "results of one step", path)
    fields = {result.name: _values(lines[result.first : result.last], result, numbers, path) for result in chosen}
    cell_fields = {"group": about[:, 0], "material": about[:, 1]}
    time = steps[step][1] if steps else None
    return Mesh(points, tuple(blocks), fields, cell_fields, time=time, source=str(path))


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    if b"\0" in data[:4096] or not data.lstrip()[:2] == b"1C":
        raise MeshError(f"{path}: expected a CalculiX result file in text, got something else")
    lines = data.decode("latin-1").splitlines()
    if not any(line.startswith(" 9999") for line in lines[-3:]):
        raise MeshError(f"{path}: expected 9999 in the last line, got '{lines[-1][:40]}' (file cut off?)")
    return lines


def _block(lines: list[str], key: str, path: Path) -> tuple[int, int, int]:
    """First and last line of a block and the format that its header names."""
    for start, line in enumerate(lines):
        if line.startswith(f"    {key}"):
            form = int(line[70:].strip() or "0") if line[70:].strip().isdigit() else 0
            if form > 1:
                raise MeshError(f"{path}: binary blocks are not supported; write the file in text")
            for end in range(start + 1, len(lines)):
                if lines[end].startswith(" -3"):
                    return start + 1, end, form
            break
    raise MeshError(f"{path}: expected a block '{key}' that ends with -3, got none (file cut off?)")


def _nodes(lines: list[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
    first, last, form = _block(lines, "2C", path)
    width = 10 if form else 5
    try:
        numbers = np.array([int(line[3 : 3 + width]) for line in lines[first:last]])
        rows = [[float(line[k : k + 12]) for k in _columns(width, 3)] for line in lines[first:last]]
    except ValueError as error:
        raise MeshError(f"{path}: nodes: {error}") from error
    if not len(numbers) or len(np.unique(numbers)) < len(numbers):
        raise MeshError(f"{path}: nodes: expected each number once, got {len(numbers)} lines")
    return numbers, np.array(rows)


def _columns(width: int, count: int) -> list[int]:
    return [3 + width + 12 * k for k in range(count)]


def _elements(lines: list[str], numbers: np.ndarray, path: Path) -> tuple[list[CellBlock], np.ndarray]:
    first, last, form = _block(lines, "3C", path)
    width = 10 if form else 5
    heads: list[list[int]] = []
    nodes: list[list[int]] = []
    try:
        for line in lines[first:last]:
            if line.startswith(" -1"):
                start = 3 + width
                heads.append([int(line[start + 5 * k : start + 5 * k + 5]) for k in range(3)])
                nodes.append([])
            else:
                nodes[-1] += [int(line[k : k + width]) for k in range(3, len(line.rstrip()), width)]
    except (ValueError, IndexError) as error:
        raise MeshError(f"{path}: elements: {error}") from error
    about = np.array(heads, dtype=np.int64).reshape(-1, 3)
    order = np.argsort(numbers)
    blocks = []
    starts = [k for k in range(len(heads)) if k == 0 or heads[k][0] != heads[k - 1][0]]
    for start, end in zip(starts, [*starts[1:], len(heads)], strict=True):
        blocks.append(_cells(heads[start][0], nodes[start:end], numbers, order, path))
    return blocks, about[:, 1:]


def _cells(code: int, rows: list[list[int]], numbers: np.ndarray, order: np.ndarray, path: Path) -> CellBlock:
    if code not in _TYPES:
        raise MeshError(f"{path}: elements: expected a type from 1 to 12, got {code}")
    name, n_nodes, permutation = _TYPES[code]
    if any(len(row) != n_nodes for row in rows):
        raise MeshError(f"{path}: elements '{name}': expected {n_nodes} nodes each, got others")
    wanted = np.array(rows)
    place = np.searchsorted(numbers, wanted, sorter=order).clip(max=len(numbers) - 1)
    index = order[place]
    missing = wanted[numbers[index] != wanted]
    if len(missing):
        raise MeshError(f"{path}: elements '{name}': expected nodes of the file, got number {missing[0]}")
    return CellBlock(name, index[:, permutation] if permutation else index)


def _results(lines: list[str], path: Path) -> list[_Result]:
    found = []
    step = ("", 0.0)
    name = ""
    count = first = 0
    for k, line in enumerate(lines):
        if line.startswith("  100C"):
            try:
                step = (line[7:12], float(line[12:24]))
            except ValueError as error:
                raise MeshError(f"{path}: line {k + 1}: expected a time: {error}") from error
        elif line.startswith(" -4"):
            name, count = line[5:13].strip(), 0
        elif line.startswith(" -5"):
            # A component that CGX computes itself (the length of a vector) has no values in the file.
            count += line[33:38].strip() != "1"
            first = k + 1
        elif line.startswith(" -3") and name:
            found.append(_Result(name, count, step, first, k))
            name = ""
    return found


def _steps(results: list[_Result]) -> list[tuple[str, float]]:
    return list(dict.fromkeys(result.step for result in results))


def _values(lines: list[str], result: _Result, numbers: np.ndarray, path: Path) -> np.ndarray:
    """Values at all nodes; NaN where the file has none."""
    rows: dict[int, list[float]] = {}
    number = -1
    try:
        for line in lines:
            # The number of a node takes as many columns as are left of a whole number of values.
            width = (len(line.rstrip()) - 3) % 12 or 12
            if line.startswith(" -1"):
                number = int(line[3 : 3 + width])
                rows[number] = []
            rows[number] += [float(line[k : k + 12]) for k in range(3 + width, len(line.rstrip()), 12)]
    except (ValueError, KeyError) as error:
        raise MeshError(f"{path}: field '{result.name}': {error}") from error
    values = np.full((len(numbers), result.n_components), np.nan)
    for place, number in enumerate(numbers.tolist()):
        row = rows.get(number)
        if row is not None and len(row) != result.n_components:
            raise MeshError(
                f"{path}: field '{result.name}': expected {result.n_components} values, got {len(row)} at node {number}"
            )
        if row is not None:
            values[place] = row
    return values[:, 0] if result.n_components == 1 else values
