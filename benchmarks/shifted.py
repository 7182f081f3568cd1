"""Steady heat conduction on small regions, as a training set has it and as it does not: load, material, geometry, mesh.

−∇·(a∇u) = f, u = 0 on the boundary, about 300 nodes. A kind of problem is a few ranges; the same seed and kind give the
same mesh. The solution is that of gno.physics on the same mesh, so that what `correct` finds is the truth to round-off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from data import CACHE
from diffusion import _random_region, region_mesh

from gno.demo.parallel import map_processes
from gno.demo.plates import random_smooth_field
from gno.demo.shapes import divide, random_star, scatter_stars, triangulate
from gno.mesh import CellBlock, Mesh, read, write

VERSION = 1
SPACING = 0.064
PHYSICS = {
    "equation": "diffusion",
    "parameters": {"conductivity": "conductivity", "source": "source"},
    "dirichlet": {"boundary": 0.0},
}
INPUTS, LOG, TARGET = ["conductivity", "source"], ["conductivity"], "u"


@dataclasses.dataclass(frozen=True)
class Kind:
    """Ranges that a problem is drawn from.

    Args:
        contrast: standard deviation of log conductivity. load: mean source. spot: the same load on a small disc.
        grains: conductivity jumps by a factor of ten. region: outline and holes. spacing: of the nodes.
    """

    contrast: tuple[float, float] = (0.2, 0.8)
    load: tuple[float, float] = (0.5, 2.0)
    spot: bool = False
    grains: bool = False
    region: Callable[[np.random.Generator, float], Mesh] = lambda rng, h: region_mesh(*_random_region(rng), h)
    spacing: float = SPACING


def many_holes(rng: np.random.Generator, spacing: float) -> Mesh:
    """A region with five holes; training knows at most two."""
    outside = random_star(rng, np.zeros(2), 0.5)
    reach = np.full(2, outside.outer_radius)
    box = np.stack([-reach, reach])
    holes = scatter_stars(rng, 5, box=box, radius=(0.05, 0.07), gap=0.045, inside=outside.contains)
    return region_mesh(outside, holes, spacing)


def angle_section(rng: np.random.Generator, spacing: float) -> Mesh:
    """An L with straight edges and a corner that points inward."""
    a, b = rng.uniform(0.25, 0.4, 2)
    corners = np.array([(0, 0), (0.9, 0), (0.9, a), (b, a), (b, 0.9), (0, 0.9)]) - 0.3
    edges = [
        divide(np.linspace(p, q, 500), np.full(499, spacing))[:-1]
        for p, q in zip(corners, np.roll(corners, -1, 0), strict=True)
    ]
    points, triangles = triangulate(np.concatenate(edges), [])
    n = sum(map(len, edges))
    sets = {"outside": np.arange(n), "holes": np.arange(0)}
    return Mesh(points, (CellBlock("triangle", triangles),), point_sets=sets)


def smooth_or_rough(rng: np.random.Generator, spacing: float) -> Mesh:
    """A region without holes."""
    return region_mesh(random_star(rng, np.zeros(2), 0.5, roughness=0.1), (), spacing)


KINDS: dict[str, Kind] = {
    "in range": Kind(),
    "load: four times as large": Kind(load=(4.0, 8.0)),
    "load: on a spot": Kind(spot=True),
    "material: contrast": Kind(contrast=(1.2, 1.6)),
    "material: jumps": Kind(grains=True),
    "geometry: five holes": Kind(region=many_holes),
    "geometry: L": Kind(region=angle_section),
    "mesh: half the size": Kind(spacing=SPACING / 2),
    "mesh: 1.5 times the size": Kind(spacing=1.5 * SPACING),
    # for the choice of runs, where most of what there is is easy
    "plain": Kind(contrast=(0.0, 0.2), load=(0.9, 1.1), region=smooth_or_rough),
    "hard": Kind(contrast=(0.5, 1.0), spot=True),
}


SHIFTS = tuple(name for name in KINDS if ":" in name)


def conduction(kind: str, seed: int) -> Mesh:
    """Problem number `seed` of a kind, solved; point fields `conductivity`, `source`, `u`."""
    ranges = KINDS[kind]
    rng = np.random.default_rng([seed, 0x5417])
    mesh = ranges.region(rng, ranges.spacing)
    spread, load = rng.uniform(*ranges.contrast), np.exp(rng.uniform(*np.log(ranges.load)))
    x = mesh.points
    conductivity = np.exp(spread * random_smooth_field(rng, correlation=0.2)(x))
    source = load * (1 + 0.5 * random_smooth_field(rng, correlation=0.3)(x))
    if ranges.grains:
        conductivity = 10.0 ** np.where(random_smooth_field(rng, correlation=0.12)(x) > 0, 0.5, -0.5)
    if ranges.spot:
        middle = x[rng.integers(len(x))]
        bump = np.exp(-((x - middle) ** 2).sum(1) / (2 * 0.1**2))
        source = load * bump / bump.mean()
    return solved(mesh.with_point_fields(conductivity=conductivity, source=source)).replace(source=f"{kind} {seed}")


def problem(mesh: Mesh):
    """The equation on a mesh, for the solver."""
    from gno.physics import build_problem
    from gno.train.case import Physics
    from gno.train.physics import conditions, law_of

    physics = Physics(**PHYSICS)
    return build_problem(mesh, law_of(physics, Path()), physics.parameters, conditions(physics))


def solved(mesh: Mesh) -> Mesh:
    """The mesh with the solver's field."""
    from gno.physics import solve

    return mesh.with_point_fields(u=solve(problem(mesh)).values.numpy()[:, 0])


def meshes(kind: str, n: int, *, first: int = 0, workers: int = 1) -> list[Mesh]:
    """Problems number `first` to `first + n − 1` of a kind, computed into the cache where they are missing."""
    directory = CACHE / f"conduction-v{VERSION}" / kind.replace(":", "").replace(" ", "_")
    directory.mkdir(parents=True, exist_ok=True)
    paths = {seed: directory / f"{seed:07d}.vtu" for seed in range(first, first + n)}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    map_processes(partial(_compute, kind, directory), missing, workers=workers, description=kind)
    return [read(path) for path in paths.values()]


def _compute(kind: str, directory: Path, seed: int) -> None:
    write(conduction(kind, seed), directory / f"{seed:07d}.vtu")
