"""Where patterns grow: the plane with holes, the periodic square, and closed surfaces in space.

Every domain is a function of a seed and the spacing of the nodes. The seed fixes the shape, so the same seed at another
spacing is the same domain on another mesh. Areas are about 1 in Pearson's unit of length, where a spot and its gap
take about 0.1.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.spatial.transform import Rotation

from gno.demo.shapes import random_star, scatter_stars, triangulate
from gno.mesh import CellBlock, Mesh, mesh_edges, node_mass, read, repeats

Points = Float[np.ndarray, "n_nodes 3"]
Implicit = Callable[[Points], Float[np.ndarray, " n_nodes"]]
"""A function of points in space that is negative inside and 0 on a surface."""


@dataclasses.dataclass(frozen=True)
class Region:
    """A mesh of triangles; planar ones have two coordinates."""

    mesh: Mesh

    @functools.cached_property
    def unknown(self) -> Int[np.ndarray, " n_nodes"]:
        """Number of the unknown at each node; differs from the node's number only where sides are identified."""
        return np.unique(repeats(self.mesh), return_inverse=True)[1]

    @property
    def period(self) -> float:
        """Length after which coordinates repeat; infinite if they do not."""
        return max(self.mesh.period, default=np.inf)


def region(points: np.ndarray, triangles: np.ndarray, sets: dict[str, np.ndarray] | None = None) -> Region:
    """A region of triangles."""
    return Region(Mesh(points, (CellBlock("triangle", triangles),), point_sets=sets or {}))


def refined(coarse: Region) -> Region:
    """Every triangle divided in four; the first nodes are those of the coarse mesh, the others halve its edges."""
    mesh = coarse.mesh
    i, j = mesh_edges(mesh)
    triangles = np.concatenate([block.nodes for block in mesh.cells])
    sides = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)]), axis=0)
    middle = mesh.n_nodes + np.searchsorted(i * mesh.n_nodes + j, sides[0] * mesh.n_nodes + sides[1])
    a, b, c, ab, bc, ca = *triangles.T, *middle.T
    parts = [np.stack(corners, axis=1) for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    points = np.concatenate([mesh.points, (mesh.points[i] + mesh.points[j]) / 2])
    return Region(Mesh(points, (CellBlock("triangle", np.concatenate(parts)),), period=mesh.period))


def holes(seed: int, spacing: float) -> Region:
    """A random smooth region of the plane with one to three holes; sets `outside` and `holes`."""
    rng = np.random.default_rng([seed, 0x401E5])
    outside = random_star(rng, np.zeros(2), 0.55, roughness=0.2)
    reach = np.full(2, outside.outer_radius)
    inner = scatter_stars(
        rng,
        int(rng.integers(1, 4)),
        box=np.stack([-reach, reach]),
        radius=(0.05, 0.12),
        gap=0.08,
        inside=outside.contains,
    )
    edges = [star.polygon(spacing, sharpest=1.5) for star in (outside, *inner)]
    points, triangles = triangulate(edges[0], edges[1:])
    n, n_holes = len(edges[0]), sum(map(len, edges[1:]))
    return region(points, triangles, {"outside": np.arange(n), "holes": np.arange(n, n + n_holes)})


def periodic_square(seed: int, spacing: float, side: float = 1.0) -> Region:
    """A square with opposite sides identified, on a grid of triangles; the seed does not matter.

    Node (i, j) has number i (n + 1) + j and lies at (i, j) side / n. The last row and column repeat the first, so that
    the mesh closes in pictures; without them the state is an n × n grid, as `finite_difference.py` has it.
    """
    return Region(square(seed, spacing, side).mesh.replace(period=(side, side)))


def square(seed: int, spacing: float, side: float = 0.6) -> Region:
    """A square with walls on the same grid of triangles, whose diagonals alternate; the seed does not matter."""
    lattice, triangles = alternating(n := round(side / spacing))
    return region(lattice * (side / n), triangles)


def alternating(n: int) -> tuple[Int[np.ndarray, "n_nodes 2"], Int[np.ndarray, "n_triangles 3"]]:
    """The nodes (i, j) of n × n squares, and two triangles in each, whose diagonals alternate."""
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    number = i * (n + 1) + j
    a, b, c, d = (x.ravel() for x in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    rising = ((i + j)[:-1, :-1] % 2 == 0).ravel()[:, None]
    first = np.where(rising, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(rising, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return np.stack([i, j], -1).reshape(-1, 2), np.concatenate([first, second])


def plane(seed: int, spacing: float) -> Region:
    """The square with walls, turned at random in space: what an operator for surfaces can learn from."""
    flat = square(seed, spacing)
    points = np.pad(flat.mesh.points, ((0, 0), (0, 1)))
    turn = Rotation.random(rng=np.random.default_rng([seed, 0x709]))
    return Region(flat.mesh.replace(points=turn.apply(points - points.mean(0))))


def sphere(seed: int, spacing: float) -> Region:
    """A sphere of radius 0.29; the seed does not matter."""
    return closed_surface(lambda x: np.linalg.norm(x, axis=1) - 0.29, 0.3, spacing)


def torus(seed: int, spacing: float) -> Region:
    """A torus of radii 0.25 and 0.1; the seed does not matter."""
    return closed_surface(lambda x: np.hypot(np.hypot(x[:, 0], x[:, 1]) - 0.25, x[:, 2]) - 0.1, 0.36, spacing)


def blob(seed: int, spacing: float) -> Region:
    """A random smooth body: six balls in a chain that have flowed into one."""
    rng = np.random.default_rng([seed, 0xB10B])
    direction = rng.normal(size=(6, 3))
    centers = np.cumsum(0.13 * direction / np.linalg.norm(direction, axis=1)[:, None], axis=0)
    radii = rng.uniform(0.1, 0.17, 6)
    return closed_surface(smooth_union(centers - centers.mean(0), radii), 0.75, spacing)


def surface_file(path: Path) -> Callable[[int, float], Region]:
    """A domain that is a file: its largest part is the mesh as it is, scaled to the area 1; the seed and the spacing
    do not matter."""
    return partial(_from_file, path)


def _from_file(path: Path, seed: int, spacing: float) -> Region:
    mesh = read(path)
    used = node_mass(mesh) > 0
    number = np.cumsum(used) - 1
    triangles = np.concatenate([block.nodes for block in mesh.cells if block.type == "triangle"])
    points = mesh.points[used, : mesh.dim] - mesh.points[used, : mesh.dim].mean(0)
    return region(points / np.sqrt(node_mass(mesh).sum()), number[triangles])


def smooth_union(centers: Float[np.ndarray, "n 3"], radii: Float[np.ndarray, " n"], blend: float = 0.04) -> Implicit:
    """Balls that flow into each other: −b log Σ_k exp(−(|x − c_k| − r_k) / b), close to the smallest distance.

    Args:
        centers: centres of the balls.
        radii: radii of the balls.
        blend: length b over which they flow together.
    """

    def value(x: Points) -> Float[np.ndarray, " n_nodes"]:
        distance = np.linalg.norm(x[:, None] - centers, axis=-1) - radii
        return -blend * np.log(np.exp(-distance / blend).sum(1))

    return value


def closed_surface(value: Implicit, reach: float, spacing: float, n_sweeps: int = 50) -> Region:
    """Nearly equilateral triangles on the surface where a function is 0.

    Marching cubes give the connections. Then nodes move along the surface, half way to the mean of their neighbours in
    each sweep, and back onto it.

    Args:
        value: the function, with a slope that does not vanish near the surface.
        reach: half the side of a cube around the origin that holds the surface.
        spacing: mean length of an edge.
        n_sweeps: how often nodes move.
    """
    side = spacing / 0.92  # measured: edges are that much shorter than a voxel
    n = int(np.ceil(2 * reach / side)) + 3
    origin = np.full(3, -n * side / 2) + side * np.array([0.123, 0.231, 0.312])  # no node of the grid on the surface
    import pyvista as pv

    grid = pv.ImageData(dimensions=(n + 1,) * 3, spacing=(side,) * 3, origin=origin)
    grid["value"] = value(np.asarray(grid.points, float))
    contour = grid.contour([0.0], scalars="value")
    triangles = contour.regular_faces.astype(np.int64)
    points = onto(value, np.asarray(contour.points, float), n_steps=3)[0]
    return region(spread(value, points, triangles, n_sweeps), triangles)


def onto(value: Implicit, points: Points, n_steps: int = 1) -> tuple[Points, Points]:
    """Points moved onto a surface by Newton's method along the slope, and unit normals there."""
    width = 1e-5
    for _ in range(n_steps):
        ends = [(value(points + width * e) - value(points - width * e)) / (2 * width) for e in np.eye(3)]
        slope = np.stack(ends, axis=1)
        square = (slope**2).sum(1, keepdims=True)
        points = points - value(points)[:, None] * slope / square
    return points, slope / np.sqrt(square)


def spread(value: Implicit, points: Points, triangles: Int[np.ndarray, "n 3"], n_sweeps: int) -> Points:
    """Nodes moved along a surface until they lie between their neighbours."""
    i, j = mesh_edges(Mesh(points, (CellBlock("triangle", triangles),)))
    ones = np.ones(2 * len(i))
    adjacent = coo_matrix((ones, (np.r_[i, j], np.r_[j, i])), shape=(len(points),) * 2).tocsr()
    degree = np.asarray(adjacent.sum(1))
    points, normal = onto(value, points)
    for _ in range(n_sweeps):
        shift = adjacent @ points / degree - points
        shift -= (shift * normal).sum(1, keepdims=True) * normal
        points, normal = onto(value, points + shift / 2)
    return onto(value, points, n_steps=2)[0]


DOMAINS: dict[str, Callable[[int, float], Region]] = {
    "holes": holes,
    "square": square,
    "periodic": periodic_square,
    "plane": plane,
    "sphere": sphere,
    "torus": torus,
    "blob": blob,
}


def random_start(
    seed: int, points: Float[np.ndarray, "n_nodes dim"], *, period: float = np.inf, correlation: float = 0.07
) -> Float[np.ndarray, "n_nodes 2"]:
    """u and v at the start: islands of (1/2, 1/4) in a sea of (1, 0), with smooth shores.

    s = 1 / (1 + exp(−6 (g − 1))),  u = 1 − s/2,  v = s/4,  g a Gaussian random field of variance 1

    Args:
        seed: number of the field; the same seed is the same function of the coordinates on every mesh.
        points: where.
        period: length after which the field repeats.
        correlation: length l of the covariance exp(−|x−y|²/2l²).

    >>> u, v = random_start(0, np.zeros((1, 2))).T
    >>> bool(u[0] + 2 * v[0] == 1)
    True
    """
    rng = np.random.default_rng([seed, 0x57A47])
    waves = rng.normal(size=(96, 3))[:, : points.shape[1]] / correlation
    if np.isfinite(period):
        waves = np.round(waves * period / (2 * np.pi)) * (2 * np.pi / period)
    phase = rng.uniform(0, 2 * np.pi, len(waves))
    field = np.sqrt(2 / len(waves)) * np.cos(points @ waves.T + phase).sum(1)
    island = 1 / (1 + np.exp(-6 * (field - 1)))
    return np.stack([1 - island / 2, island / 4], axis=1)
