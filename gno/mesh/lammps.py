"""Dumps of LAMMPS (.lammpstrj, .dump, text): particles with every column, in the units of the file.

The format is described in the LAMMPS manual, "dump command" and "How to treat triclinic simulation boxes".
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gno.mesh.mesh import Mesh, MeshError, named_once
from gno.mesh.particles import (
    Frames,
    frame_text,
    frames_from,
    kinds,
    number_of_particles,
    number_table,
    numbers,
    particles,
    remembered,
    vectors,
)

SUFFIXES = (".dump", ".lammpstrj")
_START = b"ITEM: TIMESTEP"
# The positions are the first of these that a dump has; s: in units of the box, u: not put back into it.
_PLACES = (("x", "y", "z"), ("xs", "ys", "zs"), ("xu", "yu", "zu"), ("xsu", "ysu", "zsu"))
_WHOLE = re.compile(r"id|type|mol|proc|procp1|i[xyz]|i2?_.*")
_TEXT = ("element", "typelabel")


@remembered
def dump_times(path: Path) -> list[float]:
    """Time of each frame; the number of its step where the dump does not have times."""
    times = []
    with path.open("rb") as file:
        for start, stop in _frames(path):
            file.seek(max(0, start - 200))
            before = file.read(min(200, start))
            known = re.search(rb"ITEM: TIME\s+(\S+)\s+$", before)
            step = file.read(min(100, stop - start)).split()
            words = [known[1]] if known else step[2:3]
            times.append(float(numbers(words, "TIME" if known else "TIMESTEP")[0]))
    return times


def read_dump(path: Path, step: int) -> Mesh:
    """Read one frame, sorted by ``id``.

    Every column is a point field, components together (``fx fy fz`` as ``f``); ``type 1``, …, and the elements where
    the dump has them, are point sets.

    Raises:
        MeshError: cut off, a column twice, or no positions.
    """
    frame = _frames(path)[step]
    sections, names, rows = _sections(frame_text(path, frame))
    named_once(names, "columns", path)
    count = number_of_particles(sections["NUMBER OF ATOMS"][0], f"frame {step}")
    table = dict(zip(names, number_table(rows, (count, len(names)), f"frame {step}").T, strict=True))
    table = {name: words if name in _TEXT else _column(name, words) for name, words in table.items()}
    if "id" in table:
        order = np.argsort(table["id"], kind="stable")
        table = {name: column[order] for name, column in table.items()}
    box, origin, repeats = _box(sections)
    points, used = _positions(table, box, origin)
    columns = {name: column for name, column in table.items() if name not in (*used, *_TEXT)}
    return particles(
        points,
        box=box,
        repeats=repeats,
        source=str(path),
        point_fields=vectors(columns),
        point_sets=type_sets(table),
        time=dump_times(path)[step],
    )


@remembered
def _frames(path: Path) -> Frames:
    return frames_from(path, _starts)


def _starts(file: BinaryIO) -> Iterator[int]:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_START)
        if start < 0:
            raise MeshError("expected a dump of LAMMPS in text, got no 'ITEM: TIMESTEP'")
        while start >= 0:
            yield start
            start = data.find(_START, start + len(_START))


def _sections(text: bytes) -> tuple[dict[str, list[str]], list[str], bytes]:
    """What stands before the particles, the names of their columns, and their rows."""
    head, found, body = text.partition(b"ITEM: ATOMS")
    parts = (part.splitlines() for part in head.decode("latin-1").split("ITEM: ")[1:])
    sections = {title.strip(): lines for title, *lines in parts}
    if not found or "NUMBER OF ATOMS" not in sections:
        missing = "ITEM: ATOMS" if not found else "ITEM: NUMBER OF ATOMS"
        raise MeshError(f"expected '{missing}' in each frame, got none (file cut off?)")
    names, _, rows = body.partition(b"\n")
    return sections, names.decode("latin-1").split(), rows.partition(b"ITEM:")[0]


def _column(name: str, words: np.ndarray) -> np.ndarray:
    return numbers(words, f"column '{name}'", np.int64 if _WHOLE.fullmatch(name) else np.float64)


def type_sets(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sets by the columns that say what particles are."""
    sets = {}
    for name, prefix in (("type", "type "), ("element", ""), ("typelabel", "")):
        if name in table:
            sets.update(kinds(table[name].astype(str), prefix))
    return sets


def _positions(columns: dict[str, np.ndarray], box: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, tuple]:
    for names in _PLACES:
        if all(name in columns for name in names):
            points = np.stack([columns[name] for name in names], axis=1)
            return points @ box + origin if "s" in names[0] else points, names
    raise MeshError(f"expected columns x y z, xs ys zs, xu yu zu or xsu ysu zsu, got {' '.join(columns)}")


def _box(sections: dict[str, list[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of the box, one per row, its corner, and along which of them it repeats."""
    title = next((title for title in sections if title.startswith("BOX BOUNDS")), None)
    if title is None:
        raise MeshError("expected 'ITEM: BOX BOUNDS' in each frame, got none (file cut off?)")
    words = title.split()[2:]
    repeats = np.array([flag == "pp" for flag in words[-3:]] if len(words) >= 3 else [False] * 3)
    try:
        bounds = np.array([[float(word) for word in line.split()] for line in sections[title][:3]])
        if len(bounds) < 3:
            raise ValueError(f"{len(bounds)} lines")
        if "abc" in words:
            return bounds[:, :3], bounds[:, 3], repeats
        low, high = bounds[:, 0], bounds[:, 1]
        xy, xz, yz = bounds[:, 2] if bounds.shape[1] > 2 else (0.0, 0.0, 0.0)
    except (ValueError, IndexError) as error:
        raise MeshError("BOX BOUNDS: expected three lines of two to four numbers, got others") from error
    # Bounds are those of the smallest upright box around the tilted one.
    low = low - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = high - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    x, y, z = high - low
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]), low, repeats
