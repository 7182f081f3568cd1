"""Particles of molecular dynamics as a mesh: points in a box, kinds as sets, frames of a trajectory by their bytes."""

from __future__ import annotations

import functools
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from gno.mesh.lattice import reduced
from gno.mesh.mesh import Mesh, MeshError, MeshWarning, Period

T = TypeVar("T")
Frames = tuple[tuple[int, int], ...]
"""First byte of each frame of a file, and the one behind it."""

INSTALL = 'pip install "gno[md]"'
"""What brings the libraries that read some of the formats."""
# More kinds than these are names of single particles, and no kinds.
MOST_KINDS = 200
# Share of the longest side by which a box may be off being rectangular.
_SQUARE = 1e-6


def remembered(of_file: Callable[[Path], T]) -> Callable[[Path], T]:
    """A function of a file that is not asked twice as long as the file stays as it is: of the index of a trajectory."""

    @functools.lru_cache(maxsize=64)
    def known(path: Path, size: int, changed: int) -> T:
        return of_file(path)

    @functools.wraps(of_file)
    def ask(path: Path) -> T:
        found = path.stat()
        return known(path, found.st_size, found.st_mtime_ns)

    return ask


def frames_from(path: Path, scan: Callable[[BinaryIO], Iterator[int]]) -> Frames:
    """Where the frames of a file begin and end, which ``scan`` finds."""
    with path.open("rb") as file:
        return tuple(itertools.pairwise((*scan(file), path.stat().st_size)))


def frame_text(path: Path, frame: tuple[int, int]) -> bytes:
    """The bytes of one frame."""
    with path.open("rb") as file:
        file.seek(frame[0])
        return file.read(frame[1] - frame[0])


def counted(file: BinaryIO, title: int) -> Iterator[int]:
    """Where frames begin that have ``title`` lines, a number n, and n + 1 lines: of .gro (1) and .xyz (0).

    Raises:
        MeshError: something else where a number of particles is expected.
    """
    while True:
        start = file.tell()
        head = [file.readline() for _ in range(title + 1)]
        if not any(line.strip() for line in head) and not file.read().strip():
            return
        count = number_of_particles(head[-1], f"frame at byte {start}")
        yield start
        next(itertools.islice(file, count, count + 1), None)


def number_of_particles(word: bytes | str, where: str) -> int:
    """What a file says of how many there are.

    Raises:
        MeshError: no whole number, or one below zero.
    """
    text = word.decode(errors="replace") if isinstance(word, bytes) else word
    if not re.fullmatch(r"\s*\+?\d+\s*", text):
        raise MeshError(f"{where}: expected a number of particles, got '{text[:40].strip()}'")
    return int(text)


def numbers(words: Sequence[Any] | np.ndarray, what: str, kind: type = np.float64) -> np.ndarray:
    """Words of a file as numbers.

    Args:
        words: of any shape, a row for each line.
        what: they are, for messages.
        kind: ``np.float64`` or ``np.int64``.

    Raises:
        MeshError: a word that is no such number; it is named, with its row.

    >>> numbers(["1", "2.5"], "mass").tolist()
    [1.0, 2.5]
    """
    table = np.asarray(words)
    try:
        return table.astype(kind)
    except (ValueError, OverflowError):
        row, word = next((at[0], word) for at, word in np.ndenumerate(table) if not _is_number(word, kind))
        text = word.decode(errors="replace") if isinstance(word, bytes) else word
        expected = "whole numbers" if kind is np.int64 else "numbers"
        raise MeshError(f"{what}: expected {expected}, got '{text}' in row {row + 1}") from None


def _is_number(word: str | bytes, kind: type) -> bool:
    try:
        np.asarray(word).astype(kind)
    except (ValueError, OverflowError):
        return False
    return True


def number_table(rows: bytes, shape: tuple[int, int], what: str) -> np.ndarray:
    """Words of a table with as many rows and columns.

    Raises:
        MeshError: another number of words, as where a file is cut off.
    """
    words = np.array(rows.split())
    if words.size != shape[0] * shape[1]:
        expected = f"{shape[0]} particles with {shape[1]} columns"
        raise MeshError(f"{what}: expected {expected}, got {words.size} values (file cut off?)")
    return words.reshape(shape)


def kinds(labels: Iterable[str], prefix: str = "") -> dict[str, np.ndarray]:
    """A set of nodes for each label, named after it: elements, types, residues.

    >>> {name: nodes.tolist() for name, nodes in kinds(["O", "H", "H"]).items()}
    {'H': [1, 2], 'O': [0]}
    """
    names, which = np.unique(np.asarray(list(labels)), return_inverse=True)
    if len(names) > MOST_KINDS:
        return {}
    return {f"{prefix}{name}": np.flatnonzero(which == k) for k, name in enumerate(names.tolist())}


def vectors(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns that are components of one field, put together: ``fx fy fz`` as ``f``, ``c_s[1] c_s[2]`` as ``c_s``.

    >>> table = {name: np.zeros(5) for name in ("q", "vx", "vy", "vz", "c_s[1]", "c_s[2]", "v_x")}
    >>> {name: values.shape for name, values in vectors(table).items()}
    {'q': (5,), 'v': (5, 3), 'c_s': (5, 2), 'v_x': (5,)}
    """
    found: dict[str, np.ndarray] = {}
    taken: set[str] = set()
    for name, values in columns.items():
        if name in taken:
            continue
        stem, parts = _components(name, columns)
        if len(parts) > 1 and stem not in columns and stem not in found:
            found[stem] = np.stack([columns[part] for part in parts], axis=1)
            taken |= set(parts)
        else:
            found[name] = values
    return found


def _components(name: str, columns: Mapping[str, np.ndarray]) -> tuple[str, list[str]]:
    if match := re.fullmatch(r"(.+)\[1\]", name):
        numbered = (f"{match[1]}[{k}]" for k in itertools.count(1))
        return match[1], list(itertools.takewhile(columns.__contains__, numbered))
    stem = name[:-1]
    axes = [f"{stem}{axis}" for axis in "xyz"]
    # v_x, f_y, … are users' own variables and fixes, named x and y
    whole = name.endswith("x") and stem and not stem.endswith("_") and all(axis in columns for axis in axes)
    return stem, axes if whole else []


def particles(
    points: Float[np.ndarray, "n 3"],
    *,
    box: Float[np.ndarray, "3 3"] | None = None,
    repeats: Bool[np.ndarray, " 3"] | Sequence[bool] = (True, True, True),
    source: str,
    **parts,
) -> Mesh:
    """Particles as a mesh without cells.

    Args:
        points: positions, in the unit of the file.
        box: its three vectors, one per row; no box if absent.
        repeats: along which of them particles repeat.
        source: file, for messages.
        **parts: fields, sets and time of :class:`Mesh`.

    Raises:
        MeshError: no particles, or positions that are not finite.
    """
    if not len(points):
        raise MeshError(f"{source}: expected particles, got none")
    period = () if box is None else _period(np.asarray(box, dtype=np.float64), np.asarray(repeats, bool), source)
    return Mesh(points, source=source, period=period, **parts)


def decimal(single: float) -> float:
    """A number that a file has in single precision, as it was meant.

    >>> decimal(0.10000000149011612)
    0.1
    """
    return float(str(np.float32(single)))


def upright(lengths: Float[np.ndarray, " 3"], cosines: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Vectors of a cell, one per row: the first along x, the second in the plane of x and y.

    Args:
        lengths: of the three vectors.
        cosines: of the angles between the second and third, first and third, first and second.

    Raises:
        MeshError: there is no such cell.

    >>> upright(np.array([2.0, 1.0, 3.0]), np.array([0.0, 0.0, 0.6])).round(6).tolist()
    [[2.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 3.0]]
    """
    gram = np.ones((3, 3))
    gram[[1, 0, 0], [2, 2, 1]] = gram[[2, 2, 1], [1, 0, 0]] = np.where(np.abs(cosines) < 1e-12, 0.0, cosines)
    try:
        return np.linalg.cholesky(gram) * lengths[:, None]
    except np.linalg.LinAlgError:
        got = f"lengths {lengths.tolist()} and cosines {cosines.tolist()}"
        raise MeshError(f"cell: expected one with a volume, got {got}") from None


def _period(box: np.ndarray, repeats: np.ndarray, source: str) -> Period:
    """Lengths of the axes that repeat, or the vectors of a cell that is not rectangular. Of a cell with vectors that do
    not repeat and are not square on the others only what can be said by lengths is kept; a warning names the rest."""
    lengths = np.diag(box)
    skew = np.abs(box - np.diag(lengths)) > _SQUARE * np.abs(box).max()
    oblique = repeats & (skew.any(0) | skew.any(1))
    if not oblique.any():
        return tuple(np.where(repeats, np.abs(lengths), 0.0).tolist())
    cell = np.where(repeats[:, None], box, 0.0)
    try:
        reduced(cell)
    except ValueError:
        axes = " and ".join("xyz"[axis] for axis in np.flatnonzero(oblique))
        text = "expected a cell that repeats in the span of as many axes, got another: read without its period along"
        warnings.warn(f"{source}: {text} {axes}, so particles at opposite sides are no neighbours", MeshWarning, 2)
        return tuple(np.where(repeats & ~oblique, np.abs(lengths), 0.0).tolist())
    return tuple(map(tuple, cell.tolist()))
