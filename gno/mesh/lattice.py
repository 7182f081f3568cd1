"""Cells whose vectors are not square on each other: their reduced vectors, and how places lie to each other there.

A lattice has many cells. All that is computed here follows from vectors which belong to the lattice alone: the shortest
ones (Minkowski), and Selling's obtuse superbase, four vectors of sum zero none of which point the same way. The vectors
that decide which image is the nearest are its seven sums, and |x|² = Σₖ rₖ² (qₖ·x)² with six waves qₖ of the lattice
and rₖ² = −bᵢ·bⱼ ≥ 0 (Conway and Sloane 1992, Low-dimensional lattices VI).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

# Share of the longest vector below which a component is none.
NONE = 1e-6
# Rows of a lattice as one array: vectors that decide, these over their squares, vectors, duals, waves, their lengths.
_PARTS = (7, 7, 3, 3, 6, 2)
ROWS = sum(_PARTS) + 1
_ENDS = tuple(itertools.accumulate(_PARTS))
_PAIRS = tuple(itertools.combinations(range(4), 2))


@dataclasses.dataclass(frozen=True)
class Frame:
    """Coordinates along the vectors of a cell, 0 … 1 where they repeat; lengths along an axis that does not repeat.

    Args:
        vectors: of the cell, one per row, those of axes that do not repeat of length one.
        repeats: which of them repeat.
    """

    vectors: Float[np.ndarray, "dim dim"]
    repeats: Bool[np.ndarray, " dim"]

    @staticmethod
    def of(period: Float[np.ndarray, "dim dim"]) -> Frame:
        """From the vectors of :class:`~gno.mesh.Mesh.period`, zero for an axis that does not repeat."""
        repeats = np.abs(period).max(1) > 0
        return Frame(np.where(repeats[:, None], period, np.eye(len(period))), repeats)

    @property
    def heights(self) -> Float[np.ndarray, " 3"]:
        """Distance of opposite faces; one for an axis that does not repeat."""
        return 1 / np.linalg.norm(np.linalg.inv(self.vectors), axis=0)

    @property
    def along(self) -> Bool[np.ndarray, " 3"]:
        """Axes of space in the span of what repeats."""
        return np.abs(self.vectors[self.repeats]).max(0) > 0

    @property
    def joined(self) -> Bool[np.ndarray, " dim"]:
        """Vectors that repeat and are not along an axis which no other vector has a part in."""
        parts = self.vectors != 0
        alone = (parts.sum(1) == 1) & (parts & (parts.sum(0) == 1)).any(1)
        return self.repeats & ~alone

    def coordinates(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return points @ np.linalg.inv(self.vectors)

    def shifts(self, reach: int = 1) -> Float[np.ndarray, "m 3"]:
        """To the images up to so many cells away."""
        ranges = (range(-reach, reach + 1) if repeated else (0,) for repeated in self.repeats)
        return np.array(list(itertools.product(*ranges))) @ self.vectors


@dataclasses.dataclass(frozen=True)
class Lattice:
    """What :class:`~gno.mesh.Torus` is for rectangular boxes; of arrays or of tensors.

    Args:
        rows: the parts of a lattice, (rows, 3), or (n, rows, 3) of the lattice of each place.
        seen: 1, or 0 along axes where places are not told apart; (3,) or (n, 3).
    """

    rows: Any
    seen: Any

    @staticmethod
    def of(period: Float[np.ndarray, "3 3"], seen: Float[np.ndarray, "*n 3"] | None = None) -> Lattice:
        """From the vectors of a cell, zero for an axis that does not repeat."""
        frame = Frame.of(period)
        base = _superbase(_completed(period[frame.repeats]))
        sums = np.array([*base, base[0] + base[1], base[0] + base[2], base[1] + base[2]])
        decide = np.where(np.abs(sums[:, ~frame.along]).max(1, initial=0.0, keepdims=True) > 0, 0.0, sums)
        squares = (decide**2).sum(1, keepdims=True)
        dual = np.where(frame.repeats[:, None], np.linalg.inv(frame.vectors).T, 0.0)
        wave, radius = _waves(base)
        across = np.abs(wave[:, ~frame.along]).max(1, initial=0.0) > NONE * np.abs(wave).max()
        wave, radius = np.where(across[:, None], 0.0, wave), np.where(across, 0.0, radius)
        scaled = np.divide(decide, squares, out=np.zeros_like(decide), where=squares > 0)
        rows = np.concatenate([decide, scaled, period, dual, wave, radius.reshape(2, 3)])
        return Lattice(rows, np.ones(3) if seen is None else seen)

    def at(self, index: Any) -> Lattice:
        """That of some places, where each has its own."""
        return Lattice(self.rows if self.rows.ndim == 2 else self.rows[index], self.seen[index])

    def meet(self, other: Lattice) -> Lattice:
        """Between places of one and of the other: told apart along what both tell apart."""
        return dataclasses.replace(self, seen=self.seen * other.seen)

    def part(self, k: int) -> Any:
        return self.rows[..., _ENDS[k] - _PARTS[k] : _ENDS[k], :]

    def nearest(self, offset: Any) -> Any:
        """Offset to the nearest image: into the reduced cell, then by those vectors that decide, twice.

        >>> Lattice.of(np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])).nearest(np.array([0.9, 0.8, 7.0]))
        array([ 0.4, -0.2,  7. ])
        """
        vectors, duals = (_each(self.part(k)) for k in (2, 3))
        turns = [_dot(offset, dual).round() for dual in duals]
        for turn, vector in zip(turns, vectors, strict=True):
            offset = offset - turn * vector
        for vector, scaled in [*zip(_each(self.part(0)), _each(self.part(1)), strict=True)] * 2:
            offset = offset - _dot(offset, scaled).round() * vector
        return offset * self.seen

    def stacked(self) -> Float[np.ndarray, "n rows 3"]:
        """Everything as one array; waves along which places are not told apart have no length."""
        seen = np.atleast_2d(self.seen)
        rows = np.repeat(self.rows[None], len(seen), axis=0)
        told = np.abs(self.part(4) @ seen.T).T > 0
        rows[:, -_PARTS[-1] :] *= told.reshape(-1, 2, 3)
        return np.concatenate([rows, seen[:, None]], axis=1)


def _each(rows: Any) -> list[Any]:
    return [rows[..., k, :] for k in range(rows.shape[-2])]


def _dot(a: Any, b: Any) -> Any:
    return (a * b).sum(-1)[..., None]


def reduced(box: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"] | Float[np.ndarray, " 3"]:
    """The cell with the shortest vectors, which all cells of a lattice have in common; lengths if it is rectangular.

    Of vectors as long as each other those count that come first by their components.

    Args:
        box: vectors of a cell, one per row; zero where nothing repeats.

    Raises:
        ValueError: vectors in one plane, or fewer than three that are not in that of two axes; what was expected.

    >>> reduced(np.array([[2.0, 0.0, 0.0], [4.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist()
    [2.0, 1.0, 0.0]
    """
    given = box[box.any(1)]
    scale = np.abs(given).max()
    base = _superbase(_completed(given))
    sums = np.array([*base, base[0] + base[1], base[0] + base[2], base[1] + base[2]])
    along = (np.abs(given) > NONE * scale).any(0)
    sums = sums[(np.abs(sums[:, ~along]) <= NONE * scale).all(1)]
    # The sign by which the first component that is not zero is positive, and rounding, so that ties are ties.
    rounded = np.round(sums / scale / NONE)
    first = np.take_along_axis(rounded, (rounded != 0).argmax(1)[:, None], 1)
    sums, rounded = sums * np.sign(first), rounded * np.sign(first)
    length = np.round(np.linalg.norm(sums, axis=1) / scale / NONE)
    found: list[np.ndarray] = []
    for vector in sums[np.lexsort((*-rounded.T[::-1], length))]:
        gram = np.array([*found, vector]) / scale
        if np.linalg.det(gram @ gram.T) > NONE**2 and len(found) < len(given):
            found.append(vector)
    cell = np.zeros((3, 3))
    # Whole numbers of the vectors given, so that a reduced cell stays as it is to the bit.
    cell[np.flatnonzero(along)] = np.round(np.array(found) @ np.linalg.pinv(given)) @ given
    cell[np.abs(cell) <= NONE * scale] = 0.0
    return cell if Frame.of(cell).joined.any() else np.abs(cell).max(0)


def _completed(vectors: Float[np.ndarray, "r 3"]) -> Float[np.ndarray, "3 3"]:
    """Three vectors: those given and the axes square on them."""
    scale = np.abs(vectors).max()
    free = np.flatnonzero((np.abs(vectors) <= NONE * scale).all(0))
    full = np.concatenate([vectors, scale * np.eye(3)[free]])
    if len(full) != 3 or abs(np.linalg.det(full / scale)) < NONE:
        raise ValueError("three vectors that span a volume, or fewer in the span of as many axes")
    return full


def _superbase(vectors: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 3"]:
    """Selling's reduction: while two of the four vectors point the same way, one of them is turned round."""
    base = np.concatenate([vectors, -vectors.sum(0, keepdims=True)])
    margin = 1e-12 * (vectors**2).sum(1).min()
    for _ in range(10_000):
        gram = np.triu(base @ base.T, 1)
        i, j = np.unravel_index(gram.argmax(), gram.shape)
        if gram[i, j] <= margin:
            break
        others = [k for k in range(4) if k not in (i, j)]
        base[others] += base[i]
        base[i] *= -1
    return base


def _waves(base: Float[np.ndarray, "4 3"]) -> tuple[Float[np.ndarray, "6 3"], Float[np.ndarray, " 6"]]:
    """Waves of the lattice and lengths with |x|² = Σ r² (q·x)²: one for each pair of the superbase."""
    dual = np.concatenate([np.linalg.inv(base[:3]).T, np.zeros((1, 3))])
    wave = np.array([dual[i] - dual[j] for i, j in _PAIRS])
    radius = np.sqrt([max(0.0, -base[i] @ base[j]) for i, j in _PAIRS])
    return wave, radius
