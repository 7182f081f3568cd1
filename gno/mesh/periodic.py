"""Coordinates that repeat: which nodes are the same place, and how far places are from each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from gno.mesh.lattice import ROWS, Frame, Lattice
from gno.mesh.mesh import WIDTH_TOLERANCE, Mesh, MeshError, Period


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

    def stacked(self) -> Float[np.ndarray, "n 3 dim"]:
        """Everything as one array."""
        rows = np.stack([self.length, self.wave, self.seen], axis=-2)
        return rows.reshape(-1, *rows.shape[-2:])

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


Images = Torus | Lattice
"""How places lie to each other where coordinates repeat."""


def torus_of(period: Float[np.ndarray, "*r dim"], seen: Float[np.ndarray, "*n dim"] | None = None) -> Images:
    """From a period of :class:`~gno.mesh.Mesh`, in any unit of length."""
    return Torus.of(period, seen) if period.ndim == 1 else Lattice.of(period, seen)


def from_rows(rows: Any) -> Images:
    """The inverse of ``stacked``, of tensors too."""
    return Lattice(rows[:, :-1], rows[:, -1]) if rows.shape[1] == ROWS else Torus(rows[:, 0], rows[:, 1], rows[:, 2])


def around(period: Float[np.ndarray, "*r dim"]) -> Bool[np.ndarray, " dim"]:
    """Along which axes places repeat."""
    return period > 0 if period.ndim == 1 else Frame.of(period).along


def said(period: Period) -> list[str]:
    """After which lengths, or by which vectors, coordinates repeat, in words."""
    lengths = np.asarray(period)
    if lengths.ndim == 1:
        return [f"{axis} after {x:.4g}" for axis, x in zip("xyz", lengths, strict=False) if x]
    return [f"by ({', '.join(f'{x:.4g}' for x in vector)})" for vector in lengths if vector.any()]


def nearest_image(offset: Any, torus: Images | None) -> Any:
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
    if np.ndim(mesh.period) == 2:
        return found  # particles, none of which is another's image
    points = mesh.points[:, : mesh.dim].astype(np.float64)
    for axis, length in enumerate(np.asarray(mesh.period, dtype=np.float64)):
        margin = WIDTH_TOLERANCE * length
        place = points[:, axis]
        if not length or np.ptp(place) < length - margin:
            continue
        near = np.flatnonzero(place <= place.min() + margin)
        far = np.flatnonzero(place >= place.min() + length - margin)
        moved = points[far] - length * np.eye(mesh.dim)[axis]
        distance, match = cKDTree(points[near]).query(moved)
        apart = max(distance.max(), cKDTree(moved).query(points[near])[0].max())
        if apart > margin and not mesh.is_cloud:
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
    points: Float[np.ndarray, "n dim"], low: Float[np.ndarray, " dim"], period: Period | np.ndarray | None
) -> Float[np.ndarray, "n dim"]:
    """The images of some places that lie between ``low`` and a period further.

    >>> wrapped(np.array([[2.5, -3.0], [-0.25, 7.0]]), np.zeros(2), (1.0, 0.0))
    array([[ 0.5 , -3.  ],
           [ 0.75,  7.  ]])
    """
    if period is None or not len(period):
        return points
    if np.ndim(period) == 2:
        frame = Frame.of(np.asarray(period))
        turns = np.where(frame.repeats, np.floor(frame.coordinates(points - low)), 0.0)
        return points - turns @ frame.vectors
    repeated = np.asarray(period) > 0
    length = np.where(repeated, period, 1.0)
    return np.where(repeated, points - length * np.floor((points - low) / length), points)


def beside(
    points: Float[np.ndarray, "n dim"], nodes: Float[np.ndarray, "m dim"], period: Period
) -> Float[np.ndarray, "n dim"]:
    """The images of some places that are where nodes are: in the box that begins at the lowest node, or in a cell that
    is not rectangular those nearest to a node, as atoms may fill any of its shapes."""
    if np.ndim(period) < 2:
        return wrapped(points, nodes.min(0), period)
    cell, middle = np.asarray(period), (nodes.min(0) + nodes.max(0)) / 2
    images = middle + Lattice.of(cell).nearest(points - middle) + Frame.of(cell).shifts()[:, None]
    distance, _ = cKDTree(nodes).query(images)
    return images[distance.argmin(0), np.arange(len(points))]


def with_copies(
    nodes: Float[np.ndarray, "n dim"], facets: Int[np.ndarray, "f k"], period: Float[np.ndarray, " dim"] | None
) -> tuple[Float[np.ndarray, "m dim"], Int[np.ndarray, "g k"]]:
    """The nodes of some facets with their copies a period away to all sides, and all these facets."""
    if period is None:
        return nodes, facets
    used, local = np.unique(facets, return_inverse=True)
    shifts = Frame.of(np.diag(period) if period.ndim == 1 else period).shifts()
    copies = nodes[used] + shifts[:, None]
    numbers = local.reshape(facets.shape) + len(used) * np.arange(len(shifts))[:, None, None]
    return copies.reshape(-1, nodes.shape[1]), numbers.reshape(-1, facets.shape[1])


def nearest_nodes(
    points: Float[np.ndarray, "n dim"], k: int, period: Float[np.ndarray, "*r dim"] | None = None
) -> Int[np.ndarray, "n k"]:
    """The k nodes that are nearest to each node, itself among them, by their nearest images."""
    if period is None:
        return cKDTree(points).query(points, k=k)[1]
    if period.ndim == 2:
        return _nearest_in(Frame.of(period), points, k)
    inside = wrapped(points, np.zeros(len(period)), period)
    inside = np.where((period > 0) & (inside >= period), 0.0, inside)
    return cKDTree(inside, boxsize=period).query(inside, k=k)[1]


def _nearest_in(frame: Frame, points: Float[np.ndarray, "n 3"], k: int) -> Int[np.ndarray, "n k"]:
    """In a cell that is not rectangular: of the nodes and those of their images which lie near enough to it. A node
    counts once, although in a thin cell many of its images are nearer than the next node."""
    inside = wrapped(points, np.zeros(3), np.where(frame.repeats[:, None], frame.vectors, 0.0))
    place = frame.coordinates(inside)
    room = np.where(frame.repeats, 1.0, np.maximum(np.ptp(place, axis=0), 1e-300))
    reach = 2 * (abs(np.linalg.det(frame.vectors)) * room.prod() * k / len(points)) ** (1 / 3)
    many = k
    while True:
        margin = np.where(frame.repeats, reach / frame.heights, np.inf)
        shifts = frame.shifts(int(np.ceil(margin[frame.repeats].max())))
        moved = place + frame.coordinates(shifts)[:, None]
        near = ((moved >= -margin) & (moved <= 1 + margin)).all(2)
        shift, node = near.nonzero()
        distance, found = cKDTree(inside[node] + shifts[shift]).query(inside, k=range(1, min(many, len(node)) + 1))
        new = _first_in_row(node[found])
        count = new.cumsum(1)
        taken = new & (count <= k)
        if count[:, -1].min() < k and many < len(node):
            many *= 2
        elif count[:, -1].min() < k or distance[taken].max() > reach:  # a nearer one may lie further from the cell
            reach *= 2
        else:
            return node[found][taken].reshape(-1, k)


def _first_in_row(numbers: Int[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """Where a number is in its row for the first time."""
    order = numbers.argsort(1, kind="stable")
    new = np.empty(numbers.shape, bool)
    ordered = np.take_along_axis(numbers, order, 1)
    again = np.zeros(numbers.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    np.put_along_axis(new, order, ~again, 1)
    return new


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
