"""Coordinates that repeat: which nodes are the same place, and how far places are from each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from gno.mesh.mesh import WIDTH_TOLERANCE, Mesh, MeshError


@dataclasses.dataclass(frozen=True)
class Torus:
    """How places lie to each other where coordinates repeat; of arrays or of tensors, (dim,) or (n, dim).

    Args:
        length: after which a coordinate repeats; 0 where it does not.
        wave: 1 / length; 0 where it does not repeat.
        seen: 1, or 0 where places are not told apart: along a coordinate that has room for one of them only.
    """

    length: Any
    wave: Any
    seen: Any

    @staticmethod
    def of(period: Float[np.ndarray, " dim"], seen: Float[np.ndarray, " dim"] | None = None) -> Torus:
        """From lengths, 0 where a coordinate does not repeat."""
        seen = np.ones_like(period) if seen is None else seen
        length = period * seen
        return Torus(length, np.divide(1.0, length, out=np.zeros_like(length), where=length > 0), seen)

    def at(self, index: Any) -> Torus:
        """That of some places, where each has its own."""
        return Torus(self.length[index], self.wave[index], self.seen[index])

    def meet(self, other: Torus) -> Torus:
        """Between places of one and of the other: told apart along what both tell apart."""
        return Torus(self.length * other.seen, self.wave * other.seen, self.seen * other.seen)

    def nearest(self, offset: Any) -> Any:
        """Offset to the nearest image, ``d − L round(d / L)``.

        >>> Torus.of(np.array([2.0, 0.0])).nearest(np.array([[1.9, 1.9], [-1.5, 0.3]])).round(6)
        array([[-0.1,  1.9],
               [ 0.5,  0.3]])
        """
        return (offset - self.length * (offset * self.wave).round()) * self.seen


def nearest_image(offset: Any, torus: Torus | None) -> Any:
    """The offset as it is, or to the nearest image."""
    return offset if torus is None else torus.nearest(offset)


def repeats(mesh: Mesh) -> Int[np.ndarray, " n_nodes"]:
    """Node that each node repeats, itself where it is alone: nodes on the far side repeat those on the near side.

    Raises:
        MeshError: cells whose sides do not match, node by node.

    >>> repeats(Mesh(np.array([[0.0], [1.0], [2.0]]), period=(2.0,))).tolist()
    [0, 1, 0]
    """
    found = np.arange(mesh.n_nodes)
    points = mesh.points[:, : mesh.dim].astype(np.float64)
    for axis, length in enumerate(mesh.period):
        margin = WIDTH_TOLERANCE * length
        place = points[:, axis]
        if not length or np.ptp(place) < length - margin:
            continue
        near = np.flatnonzero(place <= place.min() + margin)
        far = np.flatnonzero(place >= place.min() + length - margin)
        moved = points[far] - length * np.eye(mesh.dim)[axis]
        distance, match = cKDTree(points[near]).query(moved)
        apart = max(distance.max(), cKDTree(moved).query(points[near])[0].max())
        if mesh.cells and apart > margin:
            raise MeshError(
                f"period: expected the sides along {'xyz'[axis]} to match, node by node, got {len(near)} and "
                f"{len(far)} nodes, up to {apart:.3g} apart after the shift ({mesh.source})"
            )
        same = distance <= margin
        found[far[same]] = near[match[same]]
    while (found[found] != found).any():  # a corner repeats along one axis, then along the other
        found = found[found]
    return found


def wrapped(
    points: Float[np.ndarray, "n dim"], low: Float[np.ndarray, " dim"], period: Sequence[float] | np.ndarray | None
) -> Float[np.ndarray, "n dim"]:
    """The images of some places that lie between ``low`` and a period further.

    >>> wrapped(np.array([[2.5, -3.0], [-0.25, 7.0]]), np.zeros(2), (1.0, 0.0))
    array([[ 0.5 , -3.  ],
           [ 0.75,  7.  ]])
    """
    if period is None or not len(period):
        return points
    repeated = np.asarray(period) > 0
    length = np.where(repeated, period, 1.0)
    return np.where(repeated, points - length * np.floor((points - low) / length), points)


def with_copies(
    nodes: Float[np.ndarray, "n dim"], facets: Int[np.ndarray, "f k"], period: Float[np.ndarray, " dim"] | None
) -> tuple[Float[np.ndarray, "m dim"], Int[np.ndarray, "g k"]]:
    """The nodes of some facets with their copies a period away to all sides, and all these facets."""
    if period is None:
        return nodes, facets
    used, local = np.unique(facets, return_inverse=True)
    shifts = np.array(list(itertools.product(*((-x, 0.0, x) if x else (0.0,) for x in period))))
    copies = nodes[used] + shifts[:, None]
    numbers = local.reshape(facets.shape) + len(used) * np.arange(len(shifts))[:, None, None]
    return copies.reshape(-1, nodes.shape[1]), numbers.reshape(-1, facets.shape[1])


def tree(points: Float[np.ndarray, "n dim"], period: Float[np.ndarray, " dim"] | None = None) -> cKDTree:
    """A tree whose distances are those to the nearest images; so is what is asked of it."""
    if period is None:
        return cKDTree(points)
    inside = wrapped(points, np.zeros(len(period)), period)
    return cKDTree(np.where((period > 0) & (inside >= period), 0.0, inside), boxsize=period)


def seam(place: Float[np.ndarray, " n"], length: float) -> float:
    """The middle of the widest gap that places leave on a circle, which moves with them: where to cut it open.

    Of gaps as wide as each other that one counts which follows the node with the lowest number.

    >>> round(seam(np.array([0.1, 0.2, 0.9]), 1.0), 6)
    0.55
    """
    margin = 1e-9 * length
    turned = place - length * np.floor(place / length)
    order = np.argsort(turned, kind="stable")
    gap = np.diff(turned[order], append=turned[order[0]] + length)
    start = 1 + np.flatnonzero(gap > margin)[-1]  # begin behind a gap, so that no column of nodes is cut in two
    order, gap = np.roll(order, -start), np.roll(gap, -start)
    last = np.flatnonzero(gap > margin)  # of each column
    lowest = np.minimum.reduceat(order, np.concatenate([[0], last[:-1] + 1]))
    widest = gap[last] >= gap.max() - margin
    column = np.flatnonzero(widest)[lowest[widest].argmin()]
    return float(turned[order[last[column]]] + gap[last[column]] / 2)
