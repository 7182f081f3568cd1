"""Where meshes are graded: how large the cells are in each place, beside those of the median."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from gno.graph.box import Box

# A mesh is graded if its sizes, without the largest and the smallest twentieth, differ by more than this factor.
EVEN = 4.0
# Rounds of averaging over neighbours: what is left is how cells grow, not how they scatter.
ROUNDS = 3
# No spacing grows beyond the domain over this number.
ACROSS = 4


def grading(points: Float[np.ndarray, "n dim"], edges: Int[np.ndarray, "2 n_edges"]) -> Float[np.ndarray, " n"]:
    """Mean length of the edges around each node over its median, smoothed in its logarithm.

    Refining a mesh as a whole does not change it, so anchors that follow it stay where they are.

    Args:
        points: node positions.
        edges: undirected mesh edges, each once; a node without edges is of median size.

    >>> x = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 9.0])[:, None]
    >>> grading(x, np.stack([np.arange(5), np.arange(1, 6)])).round(1).tolist()
    [0.8, 0.8, 0.9, 1.1, 1.5, 1.8]
    """
    n, (a, b) = len(points), edges
    degree = np.bincount(edges.ravel(), minlength=n)
    length = np.linalg.norm(points[a] - points[b], axis=1)
    total = np.bincount(a, length, n) + np.bincount(b, length, n)
    known = total > 0
    if not known.any():
        return np.ones(n)
    size = np.log(np.where(known, total, 1.0) / np.maximum(degree, 1))
    size = np.where(known, size, np.median(size[known]))
    for _ in range(ROUNDS):
        size = (size + np.bincount(a, size[b], n) + np.bincount(b, size[a], n)) / (1 + degree)
    return np.exp(size - np.median(size))


def is_graded(gradings: Sequence[Float[np.ndarray, " _"]]) -> bool:
    """Whether cells differ so much, in most of the meshes, that no spacing of anchors suits all of a mesh."""
    ratios = [np.divide(*np.quantile(grade, (0.95, 0.05))) for grade in gradings]
    return bool(np.median(ratios) > EVEN)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The spacing wanted at each node of a level.

    Args:
        grade: spacing over that of the level, powers of two; None where it is one everywhere.
        most: no spacing that is not the level's own grows beyond this.
        cell_dim: dimension of the cells.
    """

    grade: Float[np.ndarray, " n"] | None
    most: float
    cell_dim: int

    @staticmethod
    def of(grade: Float[np.ndarray, " n"] | None, box: Box, cell_dim: int) -> Sizes:
        most = float((box.high - box.low).max()) / ACROSS
        return Sizes(None if grade is None else _power(np.log2(grade)), most, cell_dim)

    def at(self, spacing: float) -> float | Float[np.ndarray, " n"]:
        """Of anchors of a level with that spacing, at each node."""
        return spacing if self.grade is None else np.minimum(spacing * self.grade, max(spacing, self.most))

    def density(self, spacing: float) -> float | Float[np.ndarray, " n"]:
        """``(spacing / size)^d``."""
        return 1.0 if self.grade is None else (spacing / self.at(spacing)) ** self.cell_dim

    def row(self, spacing: float, mass: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Size and normalised density of the nodes of a level with that spacing."""
        size, density = self.at(spacing), self.density(spacing)
        if not (isinstance(size, np.ndarray) and isinstance(density, np.ndarray)):
            return None, None
        return size, density / (density @ mass)

    def of_anchors(self, owner: Int[np.ndarray, " n"], mass: Float[np.ndarray, " n"]) -> Sizes:
        """The usual one of the nodes of each anchor."""
        if self.grade is None:
            return self
        weight = np.where(np.bincount(owner, mass)[owner] > 0, mass, 1.0)
        mean = np.bincount(owner, weight * np.log2(self.grade)) / np.bincount(owner, weight)
        return dataclasses.replace(self, grade=_power(mean))


def _power(exponent: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 2.0 ** np.round(np.round(exponent, 9))  # halves fall on one side in spite of round-off
