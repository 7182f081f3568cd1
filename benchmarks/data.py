"""Data sets of the benchmarks: `python benchmarks/data.py NAME N` computes them into benchmarks/.cache.

Each generator is a function (seed, spacing) -> Mesh. The same seed at another spacing is the same problem on another
mesh.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import skfem
from scipy.spatial import cKDTree
from skfem.helpers import dot, grad

from gno.demo.parallel import map_processes
from gno.demo.plates import plate, random_smooth_field, skfem_mesh, solve_with_values
from gno.demo.shapes import Star, random_star, triangulate
from gno.mesh import CellBlock, Mesh

CACHE = Path(__file__).parent / ".cache"
VERSION = 1  # raise it when a generator changes
SPACING = {"plates": 0.055, "diffusion_smooth": 0.032, "diffusion_grains": 0.032}
TEST_SEED = 1_000_000  # training seeds count from 0, test seeds from here


def plates(seed: int, spacing: float = SPACING["plates"]) -> Mesh:
    """A plate with holes and a modulus that varies; see `gno.demo.plates.plate`."""
    return plate(seed, spacing, heterogeneous=True)


def diffusion_smooth(seed: int, spacing: float = SPACING["diffusion_smooth"]) -> Mesh:
    """−∇·(a∇u) = 1, u = 0 on the boundary, a a smooth log-normal field with a contrast of about ten.

    Point fields `conductivity` and `u`; point sets `outside` and `holes`.
    """
    rng = np.random.default_rng([seed, 0xD1F0])
    outside, holes = _random_region(rng)
    logarithm = random_smooth_field(rng, correlation=0.2)
    conductivity = lambda x: np.exp(0.6 * logarithm(x))  # noqa: E731
    mesh = _region_mesh(outside, holes, spacing)
    basis = skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2(), intorder=4)
    x = np.asarray(basis.global_coordinates())
    u, seconds = _solve_diffusion(basis, conductivity(x.reshape(2, -1).T).reshape(x.shape[1:]))
    fields = {"conductivity": conductivity(mesh.points), "u": u}
    return mesh.replace(
        point_fields=fields, global_fields={"solver_seconds": seconds}, source=f"diffusion_smooth {seed}"
    )


def diffusion_grains(seed: int, spacing: float = SPACING["diffusion_grains"]) -> Mesh:
    """−∇·(a∇u) = 1, u = 0 on the boundary, a = 1 or 40 on random Voronoi grains that the cells do not follow.

    Cell field `conductivity` (at the centroid), point field `u`; point sets `outside` and `holes`.
    """
    rng = np.random.default_rng([seed, 0x64A1])
    outside, holes = _random_region(rng)
    centers = _points_inside(rng, outside, int(rng.integers(20, 41)))
    hard = rng.permutation(np.arange(len(centers)) % 2 == 0)
    mesh = _region_mesh(outside, holes, spacing)
    grain = cKDTree(centers).query(mesh.points[mesh.cells[0].nodes].mean(1))[1]
    conductivity = np.where(hard[grain], 40.0, 1.0)
    u, seconds = _solve_diffusion(skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2()), conductivity[:, None])
    return mesh.replace(
        point_fields={"u": u},
        cell_fields={"conductivity": conductivity},
        global_fields={"solver_seconds": seconds},
        source=f"diffusion_grains {seed}",
    )


def _random_region(rng: np.random.Generator) -> tuple[Star, list[Star]]:
    """A star of mean radius 0.5 with up to two holes that keep 0.06 between each other and to the outside."""
    outside = random_star(rng, np.zeros(2), 0.5)
    n, holes = int(rng.integers(0, 3)), []
    while len(holes) < n:
        hole = random_star(rng, _points_inside(rng, outside, 1)[0], rng.uniform(0.05, 0.12))
        circle = hole.center + (hole.outer_radius + 0.06) * np.stack(
            [np.cos(np.linspace(0, 2 * np.pi, 90)), np.sin(np.linspace(0, 2 * np.pi, 90))], axis=1
        )
        apart = [np.linalg.norm(hole.center - other.center) - other.outer_radius for other in holes]
        if outside.contains(circle).all() and min(apart, default=1.0) > hole.outer_radius + 0.06:
            holes.append(hole)
    return outside, holes


def _points_inside(rng: np.random.Generator, star: Star, n: int) -> np.ndarray:
    radius = star.outer_radius
    found = np.empty((0, 2))
    while len(found) < n:
        trial = star.center + rng.uniform(-radius, radius, (4 * n, 2))
        found = np.concatenate([found, trial[star.contains(trial)]])
    return found[:n]


def _region_mesh(outside: Star, holes: list[Star], spacing: float) -> Mesh:
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


def _solve_diffusion(basis: skfem.Basis, conductivity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodal values of quadratic elements, and seconds, for coefficients at quadrature points or one per cell."""
    start = time.perf_counter()
    a = np.broadcast_to(conductivity, basis.dx.shape)
    boundary = basis.get_dofs().all()
    u = solve_with_values(
        _diffusion.assemble(basis, a=a), _unit_source.assemble(basis), boundary, np.zeros(len(boundary))
    )
    return u[basis.nodal_dofs[0]], np.array(time.perf_counter() - start)


GENERATORS: dict[str, Callable[..., Mesh]] = {
    "plates": plates,
    "diffusion_smooth": diffusion_smooth,
    "diffusion_grains": diffusion_grains,
}


def dataset(name: str, split: str, n: int, spacing: float | None = None, *, workers: int = 2) -> list[Mesh]:
    """The first `n` meshes of a split, from the cache or computed into it.

    Args:
        name: a key of `GENERATORS`.
        split: "train" or "test"; their seeds never meet.
        n: number of meshes.
        spacing: of the nodes; `SPACING[name]` if not given.
        workers: processes that compute what is missing.

    Raises:
        ValueError: unknown name or split.
    """
    if name not in GENERATORS or split not in ("train", "test"):
        raise ValueError(f"expected one of {', '.join(GENERATORS)} and 'train' or 'test', got {name!r} and {split!r}")
    spacing = SPACING[name] if spacing is None else spacing
    first = TEST_SEED if split == "test" else 0
    paths = {seed: _cache_path(name, seed, spacing) for seed in range(first, first + n)}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    description = f"{name} {split} {spacing:g}"
    map_processes(partial(_compute, name, spacing), missing, workers=workers, description=description)
    return [_load(path) for path in paths.values()]


def _cache_path(name: str, seed: int, spacing: float) -> Path:
    return CACHE / f"{name}-v{VERSION}-{spacing:g}" / f"{seed:07d}.npz"


def _compute(name: str, spacing: float, seed: int) -> None:
    path = _cache_path(name, seed, spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(GENERATORS[name](seed, spacing), path)


_KINDS = ("point_fields", "cell_fields", "global_fields", "point_sets")


def _save(mesh: Mesh, path: Path) -> None:
    arrays = {f"{kind}/{key}": value for kind in _KINDS for key, value in getattr(mesh, kind).items()}
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    np.savez(temporary, points=mesh.points, triangles=mesh.cells[0].nodes, **arrays)
    temporary.replace(path)


def _load(path: Path) -> Mesh:
    parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in _KINDS}
    with np.load(path) as file:
        for key in file.files:
            kind, _, name = key.partition("/")
            if name:
                parts[kind][name] = file[key]
        return Mesh(file["points"], (CellBlock("triangle", file["triangles"]),), source=str(path), **parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute a data set into benchmarks/.cache.")
    parser.add_argument("name", choices=GENERATORS)
    parser.add_argument("n", type=int)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    start = time.perf_counter()
    meshes = dataset(options.name, options.split, options.n, options.spacing, workers=options.workers)
    nodes = [mesh.n_nodes for mesh in meshes]
    solver = np.mean([mesh.global_fields["solver_seconds"] for mesh in meshes])
    print(
        f"{options.name} {options.split}: {len(meshes)} meshes, {min(nodes)} to {max(nodes)} nodes, "
        f"mean {np.mean(nodes):.0f}, solver {solver:.3f} s each, {time.perf_counter() - start:.1f} s in all"
    )


if __name__ == "__main__":
    main()
