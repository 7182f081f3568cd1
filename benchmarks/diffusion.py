"""Steady diffusion on random regions, with a conductivity that is smooth or jumps between grains."""

from __future__ import annotations

import time

import numpy as np
import skfem
from scipy.spatial import cKDTree
from skfem.helpers import dot, grad

from gno.demo.plates import random_smooth_field, skfem_mesh, solve_with_values
from gno.demo.shapes import Star, random_star, scatter_stars, triangulate
from gno.mesh import CellBlock, Mesh

SPACING = 0.032  # about 1,200 nodes


def diffusion_smooth(seed: int, spacing: float = SPACING) -> Mesh:
    """−∇·(a∇u) = 1, u = 0 on the boundary, a a smooth log-normal field with a contrast of about ten.

    Point fields `conductivity` and `u`; point sets `outside` and `holes`.
    """
    rng = np.random.default_rng([seed, 0xD1F0])
    outside, holes = _random_region(rng)
    logarithm = random_smooth_field(rng, correlation=0.2)
    conductivity = lambda x: np.exp(0.6 * logarithm(x))  # noqa: E731
    mesh = region_mesh(outside, holes, spacing)
    basis = skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2(), intorder=4)
    x = np.asarray(basis.global_coordinates())
    u, seconds = solve_diffusion(basis, conductivity(x.reshape(2, -1).T).reshape(x.shape[1:]))
    fields = {"conductivity": conductivity(mesh.points), "u": u}
    return mesh.replace(
        point_fields=fields, global_fields={"solver_seconds": seconds}, source=f"diffusion_smooth {seed}"
    )


def diffusion_grains(seed: int, spacing: float = SPACING) -> Mesh:
    """−∇·(a∇u) = 1, u = 0 on the boundary, a = 1 or 40 on random Voronoi grains that the cells do not follow.

    Cell field `conductivity` (at the centroid), point field `u`; point sets `outside` and `holes`.
    """
    rng = np.random.default_rng([seed, 0x64A1])
    outside, holes = _random_region(rng)
    centers = _points_inside(rng, outside, int(rng.integers(20, 41)))
    hard = rng.permutation(np.arange(len(centers)) % 2 == 0)
    mesh = region_mesh(outside, holes, spacing)
    grain = cKDTree(centers).query(mesh.points[mesh.cells[0].nodes].mean(1))[1]
    conductivity = np.where(hard[grain], 40.0, 1.0)
    u, seconds = solve_diffusion(skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2()), conductivity[:, None])
    return mesh.replace(
        point_fields={"u": u},
        cell_fields={"conductivity": conductivity},
        global_fields={"solver_seconds": seconds},
        source=f"diffusion_grains {seed}",
    )


def _random_region(rng: np.random.Generator) -> tuple[Star, tuple[Star, ...]]:
    """A star of mean radius 0.5 with up to two holes."""
    outside = random_star(rng, np.zeros(2), 0.5)
    reach = np.full(2, outside.outer_radius)
    holes = scatter_stars(
        rng,
        int(rng.integers(0, 3)),
        box=np.stack([-reach, reach]),
        radius=(0.05, 0.12),
        gap=0.06,
        inside=outside.contains,
    )
    return outside, holes


def _points_inside(rng: np.random.Generator, star: Star, n: int) -> np.ndarray:
    radius = star.outer_radius
    found = np.empty((0, 2))
    while len(found) < n:
        trial = star.center + rng.uniform(-radius, radius, (4 * n, 2))
        found = np.concatenate([found, trial[star.contains(trial)]])
    return found[:n]


def region_mesh(outside: Star, holes: tuple[Star, ...], spacing: float) -> Mesh:
    outline = outside.polygon(spacing, sharpest=1)
    edges = [hole.polygon(0.7 * spacing, sharpest=1.5) for hole in holes]
    points, triangles = triangulate(outline, edges)
    n, n_holes = len(outline), sum(map(len, edges))
    sets = {"outside": np.arange(n), "holes": np.arange(n, n + n_holes)}
    return Mesh(points, (CellBlock("triangle", triangles),), point_sets=sets)


@skfem.BilinearForm
def _diffusion(u, v, w):
    return w.a * dot(grad(u), grad(v))


@skfem.LinearForm
def _unit_source(v, _):
    return 1.0 * v


def solve_diffusion(basis: skfem.Basis, conductivity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodal values of quadratic elements, and seconds, for coefficients at quadrature points or one per cell."""
    start = time.process_time()
    a = np.broadcast_to(conductivity, basis.dx.shape)
    boundary = basis.get_dofs().all()
    u = solve_with_values(
        _diffusion.assemble(basis, a=a), _unit_source.assemble(basis), boundary, np.zeros(len(boundary))
    )
    return u[basis.nodal_dofs[0]], np.array(time.process_time() - start)
