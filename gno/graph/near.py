"""The near field of a mesh: the nodes within a radius of each node, told apart by distance, in shells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from gno.graph.hierarchy import Level, images_between
from gno.graph.segment import kept, order
from gno.mesh import nearest_image
from gno.mesh.lattice import Frame
from gno.mesh.periodic import wrapped

# What a particle weighs, to the power of the dimension: as part of a ball of one radius it is a few tenths of that.
PARTICLE = 0.5


def near_field(
    levels: Sequence[Level],
    mass: Float[np.ndarray, " n"],
    n_shells: int,
    *,
    cell_dim: int,
    period: Float[np.ndarray, "*r dim"] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Tensors of the near field of a mesh; its radius is the spacing of level 1, around each node.

    Pairs are those that one can walk between along the mesh, by the anchors of level 1: the two banks of a slit are
    not near each other. A node is near itself, as quadrature wants it.

    Args:
        levels: the hierarchy, in units of the case.
        mass: part of the domain of each node, in the same units; nodes without mass hear and say nothing.
        n_shells: distances that are told apart.
        cell_dim: dimension of the cells, 0 of particles, each of which counts one.
        period: of the coordinates, in units of the case.
        dtype: of real tensors.

    Returns:
        What :class:`gno.graph.MeshData` says of the keys that start with ``near``.
    """
    mesh, anchors = levels[0], levels[1]
    radius = _radius(mesh, anchors)
    sender, receiver = pairs_within(mesh.position, radius, np.flatnonzero(mass > 0), period)
    if cell_dim:
        joined = _joined(mesh, anchors, sender, receiver)
        sender, receiver = sender[joined], receiver[joined]
    index = kept(_in_shells(mesh, sender, receiver, radius, n_shells))
    ball = radius**cell_dim if cell_dim else PARTICLE ** -mesh.position.shape[1]
    return {
        "near_index": index,
        "near_perm": order(index[0]),
        "near_radius": torch.as_tensor(radius, dtype=dtype),
        "near_mass": torch.as_tensor((mass if cell_dim else mass > 0) / ball, dtype=dtype),
    }


def pairs_within(
    points: Float[np.ndarray, "n dim"],
    radius: Float[np.ndarray, " n"],
    senders: Int[np.ndarray, " m"],
    period: Float[np.ndarray, "*r dim"] | None = None,
    *,
    chunk: int = 20_000,
) -> tuple[Int[np.ndarray, " n_pairs"], Int[np.ndarray, " n_pairs"]]:
    """Each sender, itself or an image of it, and each node that has it within its radius; sorted by the latter.

    >>> pairs_within(np.array([[0.1], [0.5], [0.9]]), np.full(3, 0.3), np.arange(2), np.array([1.0]))
    (array([0, 1, 0]), array([0, 1, 2]))
    """
    inside, copies, number = _with_images(points, senders, float(radius.max(initial=0.0)), period)
    tree, found = cKDTree(copies), []
    for rows in _alike(radius, chunk):
        near = cKDTree(inside[rows]).sparse_distance_matrix(tree, radius[rows].max(), output_type="ndarray")
        receiver = rows[near["i"]]
        within = near["v"] <= radius[receiver]
        found.append(receiver[within] * len(points) + number[near["j"][within]])
    both = np.sort(np.concatenate(found))
    both = both[np.diff(both, prepend=-1) > 0]  # of several images one is the nearest
    return both % len(points), both // len(points)


def _alike(radius: np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Nodes whose radii differ little, so that one search by the largest of them finds little more than is wanted."""
    size = np.floor(np.log(radius) / np.log(1.25))
    order = np.argsort(size, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(size[order])) + 1):
        yield from np.split(part, range(chunk, len(part), chunk))


def _with_images(
    points: np.ndarray, senders: np.ndarray, reach: float, period: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All nodes in one cell, the senders with those of their images that lie within reach of it, and whose they are."""
    if period is None:
        return points, points[senders], senders
    frame = Frame.of(np.diag(period) if period.ndim == 1 else period)
    inside = wrapped(points, points.min(0), period)
    place, margin = frame.coordinates(inside), reach / frame.heights
    number, shift = senders, np.zeros((len(senders), points.shape[1]))
    for axis in np.flatnonzero(frame.repeats):  # one after the other: only what is near a side gets images
        turns = np.arange(-np.ceil(margin[axis]), np.ceil(margin[axis]) + 1)
        moved = place[number, axis] + turns[:, None]
        low, high = place[:, axis].min() - margin[axis], place[:, axis].max() + margin[axis]
        turn, node = ((moved >= low) & (moved <= high)).nonzero()
        number, shift = number[node], shift[node] + turns[turn, None] * frame.vectors[axis]
    return inside, inside[number] + shift, number


def _radius(mesh: Level, anchors: Level) -> Float[np.ndarray, " n"]:
    """The spacing of level 1 at each node of the mesh, between those of its anchors where meshes are graded."""
    assert mesh.link is not None and mesh.log_b is not None
    if anchors.size is None:
        return np.full(len(mesh.position), anchors.spacing)
    weight = np.exp(mesh.log_b - mesh.log_b.max(1, keepdims=True))
    return np.exp((weight * np.log(anchors.size[mesh.link])).sum(1) / weight.sum(1))


def _joined(mesh: Level, anchors: Level, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
    """Which pairs lie in the same anchor of level 1, or in neighbours."""
    assert mesh.link is not None
    n = len(anchors.position)
    near = sparse.csr_matrix((np.ones(anchors.edges.shape[1], bool), tuple(anchors.edges)), (n, n))
    own = mesh.link[:, 0]
    a, b = own[sender], own[receiver]
    return (a == b) | np.asarray(near[a, b]).ravel()


def _in_shells(
    mesh: Level, sender: np.ndarray, receiver: np.ndarray, radius: np.ndarray, n_shells: int
) -> Int[np.ndarray, "2 n_entries"]:
    """Sender, and shell of its receiver: each pair is in the two that its distance lies between, or in the last."""
    torus = images_between(mesh.torus, mesh.torus, receiver, sender)
    offset = nearest_image(mesh.position[sender] - mesh.position[receiver], torus)
    inner = np.floor(np.linalg.norm(offset, axis=1) / radius[receiver] * n_shells).astype(np.int64)
    shell = np.stack([inner, inner + 1], axis=1).ravel()
    keep = shell < n_shells
    row, sender = (np.repeat(receiver * n_shells, 2) + shell)[keep], np.repeat(sender, 2)[keep]
    by_row = np.argsort(row, kind="stable")
    return np.stack([sender[by_row], row[by_row]])
