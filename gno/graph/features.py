"""What a node knows of the shape around it, in units of the case: computed once per mesh, in O(N log N)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from gno.mesh import Mesh, boundary_facets
from gno.mesh.geometry import bounds, pair_keys
from gno.mesh.periodic import around, with_copies, wrapped
from gno.workers import threads

# Wave numbers of the Fourier features of the coordinates, in half turns per unit.
WAVES = (1.0, 2.0)
# Points in a leaf of the tree of boundary nodes. From deep inside many are about equally far, and a search that visits
# few large leaves is three times as fast as one through many small ones (half a million nodes of a cube).
LEAF = 64
# Points whose nearest place is sought at once: what is computed for them stays in the cache.
CHUNK = 16_384
# Places nearer to each other than this, in units of the case, are one.
SAME = 1e-9


def geometry_features(
    mesh: Mesh,
    points: Float[np.ndarray, "n dim"],
    unit: float,
    reach: float,
    sets: tuple[str, ...],
    *,
    coordinates: bool = True,
    grade: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "n n_geometry"]:
    """Coordinates with Fourier features; nearness, distance, direction and normal of the boundary; the same for sets.

    Nothing here depends on the size of the cells: being on the boundary is nearness 1, which fades over ``reach``, and
    not a flag that fewer and fewer nodes carry as the mesh is refined.

    Args:
        mesh: the mesh whose boundary and sets are meant.
        points: nodes or any other places, in units of the case.
        unit: the case's unit of length.
        reach: length over which nearness fades, in units of the case.
        sets: names of point sets; one that the mesh lacks is infinitely far (distance 1 after saturation).
        coordinates: whether nodes know where they are; without, all features are relative and the operator is the same
            wherever the mesh lies. Along a coordinate that repeats no place is special, and its columns are zero.
        grade: where meshes are graded, what ``reach`` is multiplied by at each point. Distances and offsets then are
            told in that length too, and so is it.

    Returns:
        Dimensionless features. Distances saturate smoothly, d/(1+d), so that a far wall is simply far.
    """
    dim = points.shape[1]
    nodes = in_units(mesh, unit)
    facets = np.empty((0, dim), np.int64) if mesh.is_cloud else boundary_facets(mesh)
    columns = [points] if coordinates else []
    for wave in WAVES if coordinates else ():
        columns += [np.sin(np.pi * wave * points), np.cos(np.pi * wave * points)]
    period = np.array(mesh.period) / unit if mesh.period else None
    if period is not None:
        columns = [np.where(around(period), 0.0, column) for column in columns]
        points = wrapped(points, nodes.min(0), period)
    offset, normal = nearest_on_facets(points, *with_copies(nodes, facets, period))
    fade = reach if grade is None else reach * grade[:, None]
    near, *where = _place(offset, fade)
    columns += [near, *where, near * normal]  # the nearest facet changes abruptly far away, where its normal has faded
    for name in sets:
        members = np.asarray(mesh.point_sets.get(name, ()), dtype=np.int64)
        columns += _place(_offset_to_set(points, nodes, facets, members, period), fade)
    columns += [] if grade is None else [np.log(grade)[:, None]]
    return np.concatenate(columns, axis=1)


def axes_of_columns(dim: int, n_sets: int, *, coordinates: bool, graded: bool) -> list[int | None]:
    """Of each column of :func:`geometry_features` the axis that turns its sign when it is reversed, None of most.

    >>> axes_of_columns(2, 0, coordinates=False, graded=False)  # nearness, distance, offset, normal
    [None, None, 0, 1, 0, 1]
    """
    along: list[int | None] = list(range(dim))
    place = [None, *([None, *along] * (2 if graded else 1))]
    columns = along + (along + [None] * dim) * len(WAVES) if coordinates else []
    return [*columns, *place, *along, *(place * n_sets), *([None] if graded else [])]


def in_units(mesh: Mesh, unit: float, points: Float[np.ndarray, "n dim"] | None = None) -> Float[np.ndarray, "n dim"]:
    """Positions (of the nodes, or of other points) relative to the middle of the domain's bounding box, in units."""
    low, high = bounds(mesh)
    places = np.asarray(mesh.points if points is None else points)[:, : mesh.dim].astype(np.float64)
    return (places - (low + high) / 2) / unit


def _place(offset: Float[np.ndarray, "n dim"], reach: float | Float[np.ndarray, "n 1"]) -> list[np.ndarray]:
    """Nearness exp(−d/reach), distance d/(1+d), and the offset shortened alike, which is smooth where d = 0; where the
    reach differs from point to point, the last two also in units of it."""
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    finite = np.isfinite(distance)
    columns = [np.exp(-distance / reach)]
    for length in (1.0, reach) if isinstance(reach, np.ndarray) else (1.0,):
        short = length / (length + np.where(finite, distance, 0.0))
        columns += [np.where(finite, 1 - short, 1.0), np.where(finite, offset, 0.0) * short / length]
    return columns


def _offset_to_set(
    points: np.ndarray, nodes: np.ndarray, facets: np.ndarray, members: np.ndarray, period: np.ndarray | None
) -> np.ndarray:
    """To the nearest place of a set: on the facets that it covers, else at its nodes; infinite if it is empty."""
    inside = np.zeros(len(nodes), bool)
    inside[members] = True
    covered = facets[inside[facets].all(1)]
    if len(covered):
        return nearest_on_facets(points, *with_copies(nodes, covered, period), normals=False)[0]
    if len(members):
        there = with_copies(nodes[members], np.arange(len(members))[:, None], period)[0]
        return there[_nearest_of(there, points, 1)[:, 0]] - points
    return np.full(points.shape, np.inf)


def nearest_on_facets(
    points: Float[np.ndarray, "n dim"],
    nodes: Float[np.ndarray, "m dim"],
    facets: Int[np.ndarray, "f k"],
    *,
    normals: bool = True,
) -> tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "n dim"]]:
    """Vector from each point to the nearest place on the facets, and the outward normal there (zero if not wanted).

    On an edge or at a corner the normal is the mean of those of the facets that meet, weighted by their angles
    (Bærentzen & Aanæs 2005): it does not depend on how faces are cut into triangles, and the sharper the shorter it is.
    The nearest place is sought on the facets around the two nearest facet nodes. Without facets: infinite, no normal.
    """
    if not len(facets):
        return np.full(points.shape, np.inf), np.zeros(points.shape)
    corners = np.unique(facets)
    near = corners[_nearest_of(nodes[corners], points, 2)]
    own = corners[corners < len(points)]
    own = own[(points[own] == nodes[own]).all(1)]
    near[own, 0] = own  # of the two nodes of a slit, each has its own side
    first, around = _facets_around(facets, len(nodes))
    normal_at = _normals_on(nodes, facets) if normals else None
    offset, normal = np.empty(points.shape), np.zeros(points.shape)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        offset[rows], facet = _nearest(points[rows], nodes, facets, near[rows], first, around)
        if normal_at is not None:
            normal[rows] = normal_at(points[rows] + offset[rows], facet)
    return offset, normal


def _nearest_of(places: np.ndarray, points: np.ndarray, k: int) -> Int[np.ndarray, "n k"]:
    """The k places that are nearest to each point, or as many as there are."""
    tree = cKDTree(places, leafsize=LEAF)
    return tree.query(points, k=range(1, min(k, len(places)) + 1), workers=threads())[1]


def _nearest(
    points: np.ndarray, nodes: np.ndarray, facets: np.ndarray, near: np.ndarray, first: np.ndarray, around: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """To the nearest place on the facets around the nodes ``near`` of each point, and on which facet it is."""
    best, distance, on = np.zeros(points.T.shape), np.full(len(points), np.inf), np.zeros(len(points), int)
    for corner in near.T:
        degree = first[corner + 1] - first[corner]
        for k in range(degree.max()):
            rows = np.flatnonzero(degree > k)
            facet = around[first[corner[rows]] + k]
            place = points[rows].T
            offset = _closest(place, [nodes[corner].T for corner in facets[facet].T]) - place
            found = np.sqrt(_dot(offset, offset))
            closer = (found < distance[rows]) & (distance[rows] > SAME)  # on a slit, not on its other side
            rows = rows[closer]
            best[:, rows], distance[rows], on[rows] = offset[:, closer], found[closer], facet[closer]
    return best.T, on


def _facets_around(facets: np.ndarray, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Facets at each node, those of node i from ``first[i]`` to ``first[i + 1]``."""
    order = np.argsort(facets.ravel(), kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(facets.ravel(), minlength=n_nodes))])
    return first, order // facets.shape[1]


def _normals_on(nodes: np.ndarray, facets: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Normals at places (n, dim) on given facets (n): theirs inside, means on their sides and at their corners."""
    corner, own = nodes[facets], _normals(nodes, facets)
    at_node = _means_by(facets, own, _angles(corner))
    if facets.shape[1] == 3:
        following = np.roll(facets, -1, axis=1)
        key = pair_keys(np.minimum(facets, following), np.maximum(facets, following))
        side = np.unique(key, return_inverse=True)[1].reshape(facets.shape)
        on_side = _means_by(side, own, np.ones(facets.shape))

    def normal_at(place: np.ndarray, facet: np.ndarray) -> np.ndarray:
        ends, normal = [corner[facet, k].T for k in range(facets.shape[1])], own[facet]
        for k in range(3 if facets.shape[1] == 3 else 0):
            there = _closest_on_segment(place.T, ends[k], ends[(k + 1) % 3])
            near = np.abs(there - place.T).max(0) < SAME
            normal[near] = on_side[side[facet[near], k]]
        for k, end in enumerate(ends):
            near = np.abs(end - place.T).max(0) < SAME
            normal[near] = at_node[facets[facet[near], k]]
        return normal

    return normal_at


def _means_by(index: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of a value of each row of ``index`` over all places that have one number there."""
    total = np.bincount(index.ravel(), weights.ravel())
    spread = [np.bincount(index.ravel(), (weights * column[:, None]).ravel()) for column in values.T]
    return np.stack(spread, axis=1) / np.maximum(total, 1e-300)[:, None]


def _angles(corner: Float[np.ndarray, "f k dim"]) -> Float[np.ndarray, "f k"]:
    """Angles at the corners of triangles, over π; 1 at the ends of segments and points."""
    if corner.shape[1] < 3:
        return np.ones(corner.shape[:2])
    side = np.roll(corner, -1, axis=1) - corner
    side /= np.maximum(np.linalg.norm(side, axis=2, keepdims=True), 1e-300)
    return np.arccos(np.clip(-np.einsum("fkd,fkd->fk", side, np.roll(side, 1, axis=1)), -1, 1)) / np.pi


def _normals(nodes: np.ndarray, facets: np.ndarray) -> np.ndarray:
    corner = nodes[facets]
    if facets.shape[1] == 2 and nodes.shape[1] == 2:
        along = corner[:, 1] - corner[:, 0]
        normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
    elif facets.shape[1] == 3:
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    else:  # the rim of a surface in space has no single normal
        return np.zeros((len(facets), nodes.shape[1]))
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)


def _closest(point: np.ndarray, corner: Sequence[np.ndarray]) -> np.ndarray:
    """Place on an end, a segment or a triangle (one to three corners) nearest to each point; all are (dim, n)."""
    if len(corner) == 1:
        return corner[0]
    if len(corner) == 2:
        return _closest_on_segment(point, *corner)
    best, best_squared = point, np.full(point.shape[1], np.inf)
    for a, b in zip(corner, (*corner[1:], corner[0]), strict=True):
        place = _closest_on_segment(point, a, b)
        squared = _dot(place - point, place - point)
        best, best_squared = np.where(squared < best_squared, place, best), np.minimum(squared, best_squared)
    u, v, w = corner[1] - corner[0], corner[2] - corner[0], point - corner[0]
    uu, uv, vv, wu, wv = (_dot(a, b) for a, b in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    area = np.where(uu * vv - uv**2 > 0, uu * vv - uv**2, np.inf)
    s, t = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    inside = (s > 0) & (t > 0) & (s + t < 1)
    return np.where(inside, corner[0] + s * u + t * v, best)


def _closest_on_segment(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = b - a
    length = np.maximum(_dot(along, along), 1e-300)
    return a + np.clip(_dot(point - a, along) / length, 0, 1) * along


def _dot(a: Float[np.ndarray, "dim n"], b: Float[np.ndarray, "dim n"]) -> Float[np.ndarray, " n"]:
    return np.einsum("dn,dn->n", a, b)
