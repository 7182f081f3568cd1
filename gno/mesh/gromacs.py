"""Structures and trajectories of GROMACS in text (.gro): positions in nm, velocities in nm/ps.

The format is described in the GROMACS reference manual, "File formats: gro".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import Frames, counted, frame_text, frames_from, kinds, numbers, particles, remembered

# Where the vectors of the box stand in its line: the diagonal, then the rest, which a rectangular box leaves out.
_BOX = ([0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 0, 2, 0, 1])
_FIRST = 20


@remembered
def gro_times(path: Path) -> list[float]:
    """Time of each frame in ps; its number where the title does not say."""
    frames = _frames(path)
    times = [_time(frame_text(path, (start, min(stop, start + 500)))) for start, stop in frames]
    return [float(k) if time is None else time for k, time in enumerate(times)]


def read_gro(path: Path, step: int) -> Mesh:
    """Read one frame: ``velocity`` where there is one, ``residue`` numbers; residues and names of atoms as point sets.

    Raises:
        MeshError: cut off, or columns that hold no numbers.
    """
    text = frame_text(path, _frames(path)[step])
    lines = text.decode("latin-1").splitlines()
    count = int(lines[1])
    rows, rest = lines[2 : 2 + count], lines[2 + count : 3 + count]
    if len(rows) < count or not rest or not rest[0].strip():
        expected = f"{count} atoms and the line of the box"
        raise MeshError(f"frame {step}: expected {expected}, got {len(lines) - 2} lines (file cut off?)")
    values = _values(rows) if rows else np.empty((0, 3))
    box = _box(rest[0])
    fields = {"residue": numbers([row[:5] for row in rows], "residue", np.int64)}
    if values.shape[1] == 6:
        fields["velocity"] = values[:, 3:]
    sets = kinds(row[10:15].strip() for row in rows)
    sets.update(kinds((row[5:10].strip() for row in rows), "residue "))
    return particles(
        values[:, :3], box=box, source=str(path), point_fields=fields, point_sets=sets, time=_time(text[:500])
    )


@remembered
def _frames(path: Path) -> Frames:
    return frames_from(path, _starts)


def _starts(file: BinaryIO) -> Iterator[int]:
    return counted(file, title=1)


def _time(text: bytes) -> float | None:
    found = re.search(rb"\bt=\s*([-+\d.eE]+)", text.partition(b"\n")[0])
    return float(found[1]) if found else None


def _values(rows: list[str]) -> np.ndarray:
    """Positions, and velocities if there are some; columns are as wide as decimal points are apart."""
    points = [match.start() for match in re.finditer(r"\.", rows[0][_FIRST:])]
    if len(points) < 3:
        raise MeshError(f"atom 0: expected three positions, got '{rows[0][_FIRST:].strip()}'")
    width, n = points[1] - points[0], 6 if len(points) >= 6 else 3
    starts = [_FIRST + width * k for k in range(n)]
    words = [[row[start : start + width].strip() for start in starts] for row in rows]
    return numbers(words, f"positions, in columns {width} wide")


def _box(line: str) -> np.ndarray | None:
    """Vectors of the box, one per row; none where its lengths are zero, as without boundaries."""
    found = numbers(line.split(), "box")
    if len(found) not in (3, 9):
        raise MeshError(f"box: expected 3 or 9 numbers, got '{line.strip()[:60]}'")
    box = np.zeros((3, 3))
    box[_BOX] = np.pad(found, (0, 9 - len(found)))
    return box if box.any() else None
