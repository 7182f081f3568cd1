"""XYZ files, plain and extended (.xyz, .extxyz): particles, and what the line of comment says of each frame.

ASE reads the line of comment of the extended format, whose rules for quotes, arrays and JSON are its own. The columns
are read here: ASE knows chemical elements only and renames some fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import (
    INSTALL,
    Frames,
    counted,
    frame_text,
    frames_from,
    kinds,
    number_table,
    numbers,
    particles,
    remembered,
)

SUFFIXES = (".extxyz", ".xyz")
_PLAIN = "species:S:1:pos:R:3"
_TYPES = {"R": np.float64, "I": np.int64}
_SPECIES = ("species", "element", "elements", "symbols")


@remembered
def xyz_times(path: Path) -> list[float]:
    """Time of each frame; its number where the line of comment does not say."""
    frames = _frames(path)
    times = [_time(_comment(frame_text(path, (start, min(stop, start + 20_000))))) for start, stop in frames]
    return [float(k) if time is None else time for k, time in enumerate(times)]


def read_xyz(path: Path, step: int) -> Mesh:
    """Read one frame: columns as point fields, species as point sets, the line of comment as global fields.

    Raises:
        MeshError: cut off, no positions, or an extended file and no ASE.
    """
    text = frame_text(path, _frames(path)[step])
    head, comment, rows = (*text.split(b"\n", 2), b"", b"")[:3]
    info = _comment(text)
    wanted = _properties(str(info.pop("Properties", _PLAIN)))
    words = _rows(rows, int(head), wanted, plain="Properties" not in comment.decode("latin-1"), step=step)
    ends = np.cumsum([width for _, _, width in wanted])
    parts = np.split(words, ends, axis=1)[:-1] if len(ends) else []
    columns, sets = {}, {}
    for (name, letter, width), values in zip(wanted, parts, strict=True):
        if letter == "S":
            sets.update(kinds((" ".join(row) for row in values.astype(str)), "" if name in _SPECIES else f"{name} "))
        else:
            columns[name] = _column(name, letter, values[:, 0] if width == 1 else values)
    points = next((columns.pop(name) for name in ("pos", "positions") if name in columns), None)
    if points is None or points.shape[1:] != (3,):
        raise MeshError(f"Properties: expected pos:R:3 among the columns, got {[name for name, _, _ in wanted]}")
    box, repeats = info.pop("Lattice", None), info.pop("pbc", [True] * 3)
    return particles(
        points,
        box=None if box is None else np.asarray(box).T,  # ASE gives vectors as columns
        repeats=repeats,
        source=str(path),
        point_fields=columns,
        point_sets=sets,
        global_fields=_globals(info),
        time=_time(info),
    )


@remembered
def _frames(path: Path) -> Frames:
    return frames_from(path, _starts)


def _starts(file: BinaryIO) -> Iterator[int]:
    return counted(file, title=0)


def _comment(text: bytes) -> dict[str, Any]:
    """What the line of comment says; nothing in a plain file, whose comment is free text."""
    line = (*text.split(b"\n", 2), b"")[1].decode("utf-8", "replace").strip()
    if not any(key in line for key in ("Properties=", "Lattice=")):
        return {}
    try:
        from ase.io.extxyz import key_val_str_to_dict
    except ImportError as error:
        raise MeshError(f"extended XYZ is read with ASE, which is not installed: {INSTALL}") from error
    try:
        info = dict(key_val_str_to_dict(line))
    except ValueError as error:
        raise MeshError(f"line of comment: {error}") from error
    if np.shape(info.get("pbc", [True] * 3)) != (3,) or np.asarray(info.get("pbc", True)).dtype.kind not in "bi":
        raise MeshError(f"pbc: expected three of T and F, got '{info['pbc']}'")
    return info


def _time(info: Mapping[str, Any]) -> float | None:
    value = next((info[key] for key in ("time", "Time") if key in info), None)
    return float(value) if isinstance(value, (int, float)) else None


def _properties(text: str) -> list[tuple[str, str, int]]:
    """Name, letter of the type and number of columns of each property."""
    words = text.split(":")
    try:
        found = [(name, letter, int(n)) for name, letter, n in zip(*[iter(words)] * 3, strict=True)]
    except ValueError as error:
        raise MeshError(f"Properties: expected name:type:columns and so on, got '{text[:80]}'") from error
    if odd := [letter for _, letter, _ in found if letter not in "RISL"]:
        raise MeshError(f"Properties: expected a type of R, I, S or L, got '{odd[0]}'")
    return found


def _rows(rows: bytes, count: int, wanted: list[tuple[str, str, int]], *, plain: bool, step: int) -> np.ndarray:
    """The words of all rows; a plain file may have more columns than a name and a position, which are left out."""
    lines = rows.splitlines()[:count]
    if plain and len(lines) == count and count:
        rows, width = b"\n".join(b" ".join(line.split()[:4]) for line in lines), 4
    else:
        rows, width = b"\n".join(lines), sum(n for _, _, n in wanted)
    return number_table(rows, (count, width), f"frame {step}")


def _column(name: str, letter: str, words: np.ndarray) -> np.ndarray:
    if letter == "L":
        return np.isin(words, [b"T", b"True", b"true", b".TRUE.", b"1"])
    return numbers(words, f"column '{name}'", _TYPES[letter])


def _globals(info: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Numbers and truths of a frame; words are left out."""
    found = {key: np.asarray(value) for key, value in info.items()}
    return {key: value for key, value in found.items() if value.dtype.kind in "fiub"}
