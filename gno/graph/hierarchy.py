"""From a mesh to its hierarchy of anchors: voxels, split where the mesh is not connected.

Topology only: what is built here depends on the mesh alone, once. Which anchor a node leans on is learned later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gno.graph.box import Box
from gno.graph.grading import Sizes, grading
from gno.mesh import nearest_image
from gno.mesh.geometry import pair_keys, pairs_of
from gno.mesh.periodic import Images

# A piece of a voxel lighter than this share of the median piece joins its heaviest neighbour.
FRAGMENT = 0.3
# Anchors interact with those nearer than this many spacings.
REACH = 1.75
# Width of the geometric weights: b = exp(−SHARPNESS (|p − y| / spacing)²).
SHARPNESS = 2.0
# log b of an empty place in a list of candidates: its weight is exactly zero.
NEVER = -1e4


@dataclasses.dataclass(frozen=True)
class Level:
    """One scale.

    Args:
        position: positions, in units of the case.
        mass: masses under the geometric weights.
        edges: directed edges [sender, receiver], sorted by receiver.
        spacing: distance between anchors; of level 0 the median edge length.
        link: candidate anchors in the next level (absent on the last).
        log_b: logarithm of their geometric weights; :data:`NEVER` where there are fewer candidates than places.
        torus: how offsets to and among its nodes are measured, where coordinates repeat; a row for each where meshes
            are graded.
        size: where meshes are graded, the spacing at each node; None where it is ``spacing`` everywhere.
        density: then, what makes masses count nodes instead of volumes, ``∝ size^−d``; with masses it sums to one.
    """

    position: Float[np.ndarray, "n dim"]
    mass: Float[np.ndarray, " n"]
    edges: Int[np.ndarray, "2 n_edges"]
    spacing: float
    link: Int[np.ndarray, "n k"] | None = None
    log_b: Float[np.ndarray, "n k"] | None = None
    torus: Images | None = None
    size: Float[np.ndarray, " n"] | None = None
    density: Float[np.ndarray, " n"] | None = None

    def scaled(self, unit: float) -> Level:
        """The level with its spacing in another unit."""
        size = None if self.size is None else self.size * unit
        return dataclasses.replace(self, spacing=self.spacing * unit, size=size)

    def copied(self, place: Int[np.ndarray, " n_nodes"], first: Int[np.ndarray, " n"]) -> Level:
        """The level with a node for each of ``place``: copies hear what the node ``first`` of their place hears, and
        nobody hears them; they have no mass."""
        mass, n = np.zeros(len(place)), len(first)
        mass[first] = self.mass
        heard = sparse.csr_matrix((np.ones(self.edges.shape[1], np.int8), self.edges[::-1]), (n, n))[place]
        receiver, sender = heard.nonzero()
        return dataclasses.replace(
            self,
            position=self.position[place],
            mass=mass,
            edges=np.stack([first[sender], receiver]).astype(np.int64),
            link=None if self.link is None else self.link[place],
            log_b=None if self.log_b is None else self.log_b[place],
            torus=self.torus.at(place) if self.torus is not None and self.size is not None else self.torus,
            size=None if self.size is None else self.size[place],
            density=None if self.density is None else self.density[place],
        )


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """Levels from the mesh (0) to the coarsest; printing it shows the table of sizes."""

    levels: tuple[Level, ...]

    def rows(self) -> list[dict[str, int | float]]:
        """Per level: nodes, edges, links to the next level, spacing (usual, finest, largest), and nodes relative to
        level 0."""
        return [
            {
                "level": s,
                "nodes": len(level.position),
                "edges": level.edges.shape[1],
                "links": 0 if level.log_b is None else int((level.log_b > NEVER).sum()),
                "spacing": level.spacing,
                "finest": level.spacing if level.size is None else float(level.size.min()),
                "largest": level.spacing if level.size is None else float(level.size.max()),
                "share": len(level.position) / len(self.levels[0].position),
            }
            for s, level in enumerate(self.levels)
        ]

    @property
    def complexity(self) -> float:
        """Nodes of all levels over the nodes of level 0."""
        return sum(len(level.position) for level in self.levels) / len(self.levels[0].position)

    def __str__(self) -> str:
        lines = ["level     nodes      edges      links   spacing"]
        for r in self.rows():
            differ = f"  ({r['finest']:.3g} … {r['largest']:.3g})" if r["finest"] < r["largest"] else ""
            row = f"{r['level']:5d} {r['nodes']:9,d} {r['edges']:10,d} {r['links']:10,d} {r['spacing']:9.4g}"
            lines.append(row + differ)
        return "\n".join([*lines, f"complexity {self.complexity:.3f}"])


def build_hierarchy(
    points: Float[np.ndarray, "n dim"],
    mass: Float[np.ndarray, " n"],
    edges: Int[np.ndarray, "2 n_edges"],
    spacings: Sequence[float],
    *,
    n_candidates: int = 5,
    period: Float[np.ndarray, "*r dim"] | None = None,
    size: Float[np.ndarray, " n"] | None = None,
    cell_dim: int = 0,
) -> Hierarchy:
    """Levels of anchors at the given spacings; O(N) in time and memory.

    Args:
        points: node positions.
        mass: node masses; nodes of zero mass are carried, and weigh nothing.
        edges: undirected mesh edges, each once.
        spacings: spacing of levels 1, 2, …, in the unit of ``points``, ascending.
        n_candidates: anchors of the next level that a node can lean on.
        period: length after which coordinates repeat, 0 where they do not; or the vectors of a cell.
        size: of the cells around each node. Spacings are multiplied by it over its median, rounded to powers of two;
            none grows beyond a quarter of the domain. The same everywhere by default.
        cell_dim: with it, the dimension of the cells; by default that of space.

    Raises:
        ValueError: spacings that are not positive and ascending.

    >>> x = np.linspace(0, 1, 101)[:, None]
    >>> chain = np.stack([np.arange(100), np.arange(1, 101)])
    >>> [len(level.mass) for level in build_hierarchy(x, np.full(101, 0.01), chain, [0.1, 0.5]).levels]
    [101, 10, 2]
    """
    if np.any(np.diff([0.0, *spacings]) <= 0):
        raise ValueError(f"spacings: expected positive and ascending, got {list(spacings)}")
    # The box of the domain, on all levels: that of the anchors differs a little from mesh to mesh, and where it is half
    # a voxel more than a whole number, a finer mesh would get another number of anchors.
    box = Box.of(points, mass, period)
    offset = nearest_image(points[edges[0]] - points[edges[1]], box.torus())
    length = np.linalg.norm(offset, axis=1)[mass[edges].all(0)]
    levels, spacing = [], float(np.median(length)) if len(length) else float(spacings[0])
    directed = _directed(edges)
    directed = directed[:, mass[directed[0]] > 0]  # a node without mass listens, and says nothing
    grade = None if size is None else grading(size, mass)
    spacing = spacing if grade is None else float(np.median(size / grade))
    sizes = Sizes.of(grade, box, cell_dim or points.shape[1])
    for next_spacing in spacings:
        box = box if size is None else dataclasses.replace(box, step=float(next_spacing))
        owner = cluster(points, mass, edges, sizes.at(next_spacing), box, sizes.density(spacing))
        anchor, anchor_mass = centroids(points, mass, owner, box)
        coarse = sizes.of_anchors(owner, mass)
        neighbours, apart = _contract(edges, owner, len(anchor)), coarse.at(next_spacing)
        here, torus = box.torus(sizes.at(spacing)), box.torus(apart)
        near = _near(neighbours, anchor, apart, torus)
        link, log_b = _candidates(points, owner, anchor, near, apart, n_candidates, here, torus)
        levels.append(Level(points, mass, directed, spacing, link, log_b, here, *sizes.row(spacing, mass)))
        points, mass, spacing, sizes = anchor, anchor_mass, float(next_spacing), coarse
        edges, directed = _pairs(sparse.triu(neighbours, 1)), _pairs(near)[::-1].copy()
    here = box.torus(sizes.at(spacing))
    last = Level(points, mass, directed, spacing, None, None, here, *sizes.row(spacing, mass))
    return Hierarchy((*levels, last))


def cluster(
    points: np.ndarray,
    mass: np.ndarray,
    edges: np.ndarray,
    size: float | np.ndarray,
    box: Box | None = None,
    density: float | np.ndarray = 1.0,
) -> Int[np.ndarray, " n"]:
    """Anchor that owns each node: connected pieces of voxels, light fragments joined to a neighbour on the mesh.

    The voxels, of one size or of that at each node, fill ``box``, that of the nodes by default. Pieces are weighed by
    mass times ``density``.
    """
    box = box or Box.of(points, mass)
    voxel = box.voxels(points, size)
    inside = edges[:, voxel[edges[0]] == voxel[edges[1]]]
    n = len(points)
    graph = sparse.coo_matrix((np.ones(inside.shape[1], bool), (inside[0], inside[1])), (n, n))
    _, owner = connected_components(graph, directed=False)
    owner = _number_by_place(owner, voxel, points, mass, box)
    for _ in range(3):  # a fragment may hang on a fragment; three rounds settle all but slivers of slivers
        joined = _join_fragments(owner, mass * density, edges)
        if joined is None:
            break
        owner = joined
    return owner


def centroids(
    points: np.ndarray, mass: np.ndarray, owner: np.ndarray, box: Box | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Centres of mass and masses of the clusters; a cluster without mass has its plain centre."""
    n = owner.max() + 1
    total = np.bincount(owner, mass, n)
    weight = np.where(total[owner] > 0, mass, 1.0)
    norm = np.bincount(owner, weight, n)
    torus = None if box is None else box.torus()
    if torus is None:
        return _means(points, weight, norm, owner), total
    one = np.zeros((n, points.shape[1]))
    one[owner] = points  # of each cluster; the others are where they are nearest to it
    return one + _means(torus.nearest(points - one[owner]), weight, norm, owner), total


def _means(values: np.ndarray, weight: np.ndarray, norm: np.ndarray, owner: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(owner, weight * x, len(norm)) / norm for x in values.T], axis=1)


def _number_by_place(
    owner: np.ndarray, voxel: np.ndarray, points: np.ndarray, mass: np.ndarray, box: Box
) -> np.ndarray:
    """Number clusters by voxel and then by place, so that the numbering does not depend on the order of nodes."""
    centre, _ = centroids(points, np.ones_like(mass), owner, box)
    first = np.full(len(centre), 0, dtype=np.int64)
    first[owner] = voxel
    order = np.lexsort((*centre.T[::-1], first))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[owner]


def _join_fragments(owner: np.ndarray, mass: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """Join light clusters to their heaviest neighbour; None when there is nothing to join."""
    n = owner.max() + 1
    total = np.bincount(owner, mass, n)
    a, b = owner[edges[0]], owner[edges[1]]
    cross = a != b
    a, b = np.concatenate([a[cross], b[cross]]), np.concatenate([b[cross], a[cross]])
    if not len(a):
        return None
    # Masses are compared after rounding: sums in another order of nodes must decide the same.
    weight = np.round(total / total.max(), 9) if total.any() else total
    order = np.lexsort((b, -weight[b], a))
    a, b = a[order], b[order]
    first = np.flatnonzero(np.r_[True, a[1:] != a[:-1]])
    heaviest = np.arange(n)
    heaviest[a[first]] = b[first]
    fragment = weight < FRAGMENT * np.median(weight[weight > 0])
    fragment &= (heaviest != np.arange(n)) & ~fragment[heaviest]  # its neighbour stays; this one moves
    if not fragment.any():
        return None
    target = np.where(fragment, heaviest, np.arange(n))
    return np.unique(target[owner], return_inverse=True)[1]


def _directed(edges: np.ndarray) -> np.ndarray:
    key = np.sort(np.concatenate([pair_keys(*edges), pair_keys(*edges[::-1])]))  # by receiver, then by sender
    return np.stack(pairs_of(key)[::-1])


def _pairs(pattern: sparse.spmatrix) -> np.ndarray:
    return np.stack(pattern.nonzero()).astype(np.int64)


def _contract(edges: np.ndarray, owner: np.ndarray, n: int) -> sparse.csr_matrix:
    """Which anchors touch along a mesh edge."""
    a, b = owner[edges[0]], owner[edges[1]]
    cross = a != b
    pair = np.unique(np.concatenate([pair_keys(a[cross], b[cross]), pair_keys(b[cross], a[cross])]))
    return sparse.csr_matrix((np.ones(len(pair), np.int8), pairs_of(pair)), (n, n))


def _near(
    neighbours: sparse.csr_matrix, anchor: np.ndarray, size: float | np.ndarray, torus: Images | None
) -> sparse.csr_matrix:
    """Anchors that touch, and those two steps away within :data:`REACH` spacings, the mean of both where they differ.

    Two steps along the mesh, never through empty space: the two banks of a slit stay strangers.
    """
    if not neighbours.nnz:
        return neighbours
    pattern = neighbours.astype(np.int64)
    marked = 1 << 40  # more than there are paths of two steps
    two = (pattern @ pattern + marked * pattern).tocoo()
    between = images_between(torus, torus, two.row, two.col)
    distance = np.linalg.norm(nearest_image(anchor[two.row] - anchor[two.col], between), axis=1)
    touch = two.data >= marked
    spacing = (size[two.row] + size[two.col]) / 2 if isinstance(size, np.ndarray) else size
    keep = (two.row != two.col) & (touch | (distance <= REACH * spacing))
    near = sparse.csr_matrix((np.ones(keep.sum(), np.int8), (two.row[keep], two.col[keep])), two.shape)
    near.sort_indices()
    return near


def _candidates(
    points: np.ndarray,
    owner: np.ndarray,
    anchor: np.ndarray,
    near: sparse.csr_matrix,
    size: float | np.ndarray,
    k: int,
    here: Images | None,
    there: Images | None,
    *,
    chunk: int = 100_000,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each node's own anchor and that anchor's neighbours, nearest first, with their log weights."""
    table = _padded(near)
    link = np.empty((len(points), k), np.int64)
    log_b = np.empty((len(points), k))
    for start in range(0, len(points), chunk):
        rows = slice(start, start + chunk)
        choice = table[owner[rows]]
        between = images_between(here, there, (rows, None), choice)
        distance = np.linalg.norm(nearest_image(points[rows, None] - anchor[choice], between), axis=2)
        distance /= size[choice] if isinstance(size, np.ndarray) else size
        distance[choice < 0] = np.inf
        choice[choice < 0] = 0
        if choice.shape[1] < k:
            pad = ((0, 0), (0, k - choice.shape[1]))
            choice, distance = np.pad(choice, pad), np.pad(distance, pad, constant_values=np.inf)
        best = np.argsort(np.round(distance, 9), axis=1, kind="stable")[:, :k]
        link[rows] = np.take_along_axis(choice, best, 1)
        squared = np.take_along_axis(distance, best, 1) ** 2
        with np.errstate(invalid="ignore"):
            log_b[rows] = np.where(np.isfinite(squared), -SHARPNESS * squared, NEVER)
    # An empty place points at the nearest candidate: its weight is zero, and its index is valid.
    link = np.where(log_b > NEVER, link, link[:, :1])
    return link, log_b


def images_between(here: Images | None, there: Images | None, fine: Any, coarse: Any) -> Images | None:
    """How offsets from places of one level to those of the next are measured, where each has its own way."""
    if here is None or there is None or there.seen.ndim == 1:
        return there
    return there.at(coarse).meet(here.at(fine))  # type: ignore[arg-type]  # of one mesh, so of one kind


def _padded(near: sparse.csr_matrix) -> np.ndarray:
    """Row per anchor: itself, then its neighbours, then −1."""
    degree = np.diff(near.indptr)
    table = np.full((near.shape[0], 1 + (degree.max() if len(degree) else 0)), -1, np.int64)
    table[:, 0] = np.arange(near.shape[0])
    row = np.repeat(np.arange(near.shape[0]), degree)
    table[row, 1 + np.arange(near.nnz) - near.indptr[row]] = near.indices
    return table
