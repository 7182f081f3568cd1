"""Where meshes are graded: how large the cells are in each place, and the spacings that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from gno.graph.box import Box
from gno.mesh import nearest_image, torus_of

# A mesh is graded if its sizes, without the largest and the smallest twentieth, differ by more than this factor.
EVEN = 4.0
# Rounds of averaging over neighbours: what is left is how cells grow, not how they scatter.
ROUNDS = 3
# No spacing grows beyond the domain over this number.
ACROSS = 4


def node_sizes(
    points: Float[np.ndarray, "n dim"],
    edges: Int[np.ndarray, "2 n_edges"],
    period: Float[np.ndarray, "*r dim"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Geometric mean of the lengths of the edges around each node, smoothed.

    Of flat cells, as in a boundary layer, it lies between their sides: an anchor of some such sizes takes a part of one
    column of them.

    Args:
        points: node positions.
        edges: undirected mesh edges, each once; a node without edges is of median size.
        period: length after which coordinates repeat, 0 where they do not.

    >>> x = np.array([0.0, 1.0, 2.0, 3.0, 5.0, 9.0])[:, None]
    >>> node_sizes(x, np.stack([np.arange(5), np.arange(1, 6)])).round(1).tolist()
    [1.0, 1.1, 1.3, 1.7, 2.3, 2.6]
    """
    offset = nearest_image(points[edges[0]] - points[edges[1]], None if period is None else torus_of(period))
    n, length = len(points), np.linalg.norm(offset, axis=1)
    (a, b), log_length = edges[:, length > 0], np.log(length[length > 0])
    degree = np.bincount(a, minlength=n) + np.bincount(b, minlength=n)
    known = degree > 0
    if not known.any():
        return np.ones(n)
    size = (np.bincount(a, log_length, n) + np.bincount(b, log_length, n)) / np.maximum(degree, 1)
    size = np.where(known, size, np.median(size[known]))
    for _ in range(ROUNDS):
        size = (size + np.bincount(a, size[b], n) + np.bincount(b, size[a], n)) / (1 + degree)
    return np.exp(size)


def grading(size: Float[np.ndarray, " n"], mass: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Sizes over their median, of nodes that have mass. Refining a mesh as a whole does not change it, so anchors that
    follow it stay where they are."""
    return size / np.median(size[mass > 0] if mass.any() else size)


def is_graded(sizes: Sequence[Float[np.ndarray, " _"]]) -> bool:
    """Whether cells differ so much, in most of the meshes, that no spacing of anchors suits all of a mesh."""
    ratios = [np.divide(*np.quantile(size, (0.95, 0.05))) for size in sizes]
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
        most = float(box.length.max()) / ACROSS
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
