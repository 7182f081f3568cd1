"""Periodic cells of a two-phase polycrystal, and their homogenisation: `python benchmarks/microstructure_cells.py`.

Grains are Voronoi cells of random centres, soft (a = 1) or hard (a = c). Of a unit macroscopic gradient e_k the
potential is x_k + χ_k, χ_k periodic and without mean, and

    ∇·(a (e_k + ∇χ_k)) = 0,     A_jk = ⟨(e_j + ∇χ_j)·a (e_k + ∇χ_k)⟩.

A is the effective conductivity. Meshes follow the grains; the reference is solved on the mesh refined twice, 16
triangles in place of one, through `gno.physics`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import Delaunay, Voronoi, cKDTree
from torch import Tensor

from gno.demo.parallel import map_processes
from gno.demo.plates import skfem_mesh
from gno.mesh import CellBlock, Mesh, node_mass, read, write
from gno.physics import Dirichlet, Energy, build_problem, direct, inner, solve

CACHE = Path(__file__).parent / ".cache" / "microstructure-v1"
SPACING = 1 / 32  # about 1,300 nodes in a cell of side 1
GRAINS = 20  # in a square of side 1
REFINEMENTS = 2


@dataclasses.dataclass(frozen=True)
class Regime:
    """What cells are drawn from.

    Args:
        first: seed of the first cell; the same seed with other numbers is another cell, but for `spacing`.
        share: of the hard grains, from and to.
        contrast: conductivity of the hard phase, from and to; its logarithm is uniform.
        side: of the cell. spacing: of the nodes.
    """

    first: int
    share: tuple[float, float] = (0.2, 0.5)
    contrast: tuple[float, float] = (5.0, 50.0)
    side: float = 1.0
    spacing: float = SPACING


REGIMES = {
    "train": Regime(0),
    "validation": Regime(1_000_000),
    "test": Regime(2_000_000),
    "more hard grains": Regime(3_000_000, share=(0.6, 0.8)),
    "higher contrast": Regime(4_000_000, contrast=(100.0, 200.0)),
    "larger cells": Regime(5_000_000, side=2.0),
    "finer meshes": Regime(2_000_000, spacing=SPACING / 2),
}


@dataclasses.dataclass(frozen=True)
class Grains:
    """A cell without its mesh: the phase of every point is that of the nearest centre.

    Args:
        centres: on a torus of width `side`.
        conductivity: of each grain.
    """

    side: float
    centres: Float[np.ndarray, "n 2"]
    conductivity: Float[np.ndarray, " n"]

    def at(self, points: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
        """Conductivity at points."""
        return self.conductivity[cKDTree(self.centres, boxsize=self.side).query(points % self.side)[1]]

    @staticmethod
    def of(mesh: Mesh) -> Grains:
        """Those that a mesh was made of, which it carries."""
        fields = mesh.global_fields
        return Grains(float(mesh.period[0]), fields["centres"].reshape(-1, 2), fields["grains"].ravel())


def random_grains(regime: Regime, number: int) -> Grains:
    """Centres anywhere, but not too near to each other; hard ones chosen at random."""
    rng = np.random.default_rng([regime.first + number, 0x3C7])
    n = round(GRAINS * regime.side**2)
    centres = rng.uniform(0, regime.side, (1, 2))
    while len(centres) < n:
        trial = rng.uniform(0, regime.side, (1, 2))
        if cKDTree(centres, boxsize=regime.side).query(trial)[0][0] > 0.6 * GRAINS**-0.5:
            centres = np.concatenate([centres, trial])
    share, contrast = rng.uniform(*regime.share), np.exp(rng.uniform(*np.log(regime.contrast)))
    return Grains(regime.side, centres, np.where(np.arange(n) < round(share * n), contrast, 1.0))


# ── meshes that follow the grains ──


def boundaries(grains: Grains) -> Float[np.ndarray, "n 2 2"]:
    """Sides of the grains inside the cell, cut off where they leave it."""
    shifts = grains.side * np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    diagram = Voronoi((grains.centres + shifts[:, None]).reshape(-1, 2))
    ends = diagram.vertices[[ridge for ridge in diagram.ridge_vertices if min(ridge) >= 0]]
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = np.stack([(0 - start) / along, (grains.side - start) / along])
    first = np.fmax(hits.min(0).max(1), 0)
    last = np.fmin(hits.max(0).min(1), 1)
    inside = last > first
    start, along, first, last = start[inside], along[inside], first[inside, None], last[inside, None]
    return np.stack([start + first * along, start + last * along], axis=1)


def rim(crossings: Float[np.ndarray, " n"], side: float, spacing: float) -> Float[np.ndarray, " m"]:
    """Places along a side of the cell from 0 to its end, where grains cross it and evenly between."""
    places = [0.0]
    for place in np.sort(crossings):
        if place - places[-1] > 0.4 * spacing and side - place > 0.4 * spacing:
            places.append(float(place))
    places.append(side)
    pairs = itertools.pairwise(places)
    parts = [np.linspace(a, b, max(1, round((b - a) / spacing)), endpoint=False) for a, b in pairs]
    return np.concatenate([*parts, [side]])


def triangulate(grains: Grains, spacing: float) -> Mesh:
    """Triangles whose sides follow those of the grains, with the same nodes on opposite sides of the cell."""
    side, segments = grains.side, boundaries(grains)
    ends = segments.reshape(-1, 2)
    u, v = (rim(ends[ends[:, k] < 1e-9 * side, 1 - k], side, spacing) for k in (1, 0))
    border = [np.stack([u, 0 * u + y], 1) for y in (0.0, side)]
    border += [np.stack([0 * v[1:-1] + x, v[1:-1]], 1) for x in (0.0, side)]
    points = np.concatenate(border)
    fills = [np.linspace(a, b, 1 + max(1, round(np.linalg.norm(b - a) / spacing))) for a, b in segments]
    points = thinned(points, ends, 0.4 * spacing)
    points = thinned(points, np.concatenate(fills), 0.45 * spacing)
    points = thinned(points, lattice(side, spacing), 0.72 * spacing)
    triangles = Delaunay(points).simplices
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    areas = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    triangles = triangles[areas > 1e-9 * spacing**2].astype(np.int64)
    return Mesh(
        points,
        (CellBlock("triangle", triangles),),
        cell_fields={"conductivity": grains.at(points[triangles].mean(1))},
        global_fields={"centres": grains.centres.ravel(), "grains": grains.conductivity},
        period=(side, side),
    )


def thinned(
    points: Float[np.ndarray, "n 2"], more: Float[np.ndarray, "m 2"], distance: float
) -> Float[np.ndarray, "k 2"]:
    """The points, and those others that keep a distance from these and from each other, earlier ones first."""
    free = more[cKDTree(points).query(more)[0] > distance]
    pairs = cKDTree(free).query_pairs(distance, output_type="ndarray")
    keep = np.ones(len(free), dtype=bool)
    for i, j in pairs[np.lexsort(pairs.T[::-1])]:
        if keep[i]:
            keep[j] = False
    return np.concatenate([points, free[keep]])


def lattice(side: float, spacing: float) -> Float[np.ndarray, "n 2"]:
    """Corners of equilateral triangles inside a square."""
    rows = np.arange(spacing / 2, side, spacing * 3**0.5 / 2)
    x = [np.arange(spacing * (0.25 + 0.5 * (k % 2)), side, spacing) for k in range(len(rows))]
    points = np.concatenate([np.stack([row, 0 * row + y], 1) for row, y in zip(x, rows, strict=True)])
    return points[(points > 0.5 * spacing).all(1) & (points < side - 0.5 * spacing).all(1)]


# ── what is solved ──


def _density(u: Tensor, grad: Tensor, x: Tensor, p: dict[str, Tensor]) -> Tensor:
    total = grad + torch.eye(2, dtype=grad.dtype, device=grad.device)
    return p["conductivity"] / 2 * inner(total, total)


law = Energy(_density, 2)
"""``∇·(a (e_k + ∇χ_k)) = 0`` of both unit gradients, k = 1, 2: the unknowns are χ_1 and χ_2."""


def solved(mesh: Mesh) -> Float[np.ndarray, "n_nodes 2"]:
    """χ by linear elements on a mesh, as `gno.physics` solves it; one node is held and the mean taken off."""
    corner = Dirichlet(np.arange(mesh.n_nodes) == 0)
    problem = build_problem(mesh, law, {"conductivity": "conductivity"}, [corner])
    chi = solve(problem, linear=direct).values.numpy()
    return centred(mesh, chi)


def centred(mesh: Mesh, chi: Float[np.ndarray, "n_nodes 2"]) -> Float[np.ndarray, "n_nodes 2"]:
    """Without its mean: a potential is known but for a constant."""
    return chi - node_mass(mesh) @ chi / mesh_area(mesh)


def mesh_area(mesh: Mesh) -> float:
    """Of a whole cell."""
    return float(np.prod(mesh.period))


def slopes(mesh: Mesh) -> tuple[Float[np.ndarray, "n_cells 3 2"], Float[np.ndarray, " n_cells"]]:
    """Gradients of the linear shape functions, and areas."""
    a, b, c = np.moveaxis(mesh.points[mesh.cells[0].nodes], 1, 0)
    opposite = np.stack([c - b, a - c, b - a], axis=1)
    area = 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    turned = np.stack([-opposite[..., 1], opposite[..., 0]], axis=-1)
    return turned / (2 * area[:, None, None]), np.abs(area)


def gradients(mesh: Mesh, chi: Float[np.ndarray, "n_nodes 2"]) -> Float[np.ndarray, "n_cells 2 2"]:
    """``(e_k + ∇χ_k)_j`` on each cell, [cell, k, j]."""
    slope, _ = slopes(mesh)
    return np.eye(2) + np.einsum("nik,nij->nkj", chi[mesh.cells[0].nodes], slope)


def effective(mesh: Mesh, total: Float[np.ndarray, "n_cells 2 2"]) -> Float[np.ndarray, "2 2"]:
    """A of gradients that are constant on the cells."""
    weight = slopes(mesh)[1] * mesh.cell_fields["conductivity"] / mesh_area(mesh)
    return np.einsum("n,njd,nkd->jk", weight, total, total)


def refined(mesh: Mesh, times: int = 1) -> Mesh:
    """Four triangles for one; old nodes keep their numbers, and children of cell k are k, k + n, k + 2n, …"""
    finer = skfem_mesh(mesh).refined(times)
    return mesh.replace(
        points=finer.p.T,
        cells=(CellBlock("triangle", finer.t.T.astype(np.int64)),),
        point_fields={},
        cell_fields={"conductivity": np.tile(mesh.cell_fields["conductivity"], 4**times)},
    )


def with_reference(mesh: Mesh, times: int = REFINEMENTS) -> Mesh:
    """The mesh with `fluctuation` χ at its nodes, the mean `gradient` of each cell, and the `effective` A."""
    finer = refined(mesh, times)
    chi = solved(finer)
    total, area = gradients(finer, chi), slopes(finer)[1]
    mean = (total * area[:, None, None]).reshape(4**times, -1, 2, 2).sum(0) / slopes(mesh)[1][:, None, None]
    a = effective(finer, total)
    return mesh.replace(
        point_fields={"fluctuation": chi[: mesh.n_nodes]},
        cell_fields={**mesh.cell_fields, "gradient": mean.reshape(-1, 4)},
        global_fields={**mesh.global_fields, "effective": np.array([a[0, 0], a[1, 1], a[0, 1]])},
    )


def tensor(components: Sequence[float] | np.ndarray) -> Float[np.ndarray, "2 2"]:
    """A of its components 11, 22 and 12."""
    xx, yy, xy = components
    return np.array([[xx, xy], [xy, yy]])


def cell(name: str, number: int) -> Mesh:
    """One cell of a regime, solved."""
    regime = REGIMES[name]
    return with_reference(triangulate(random_grains(regime, number), regime.spacing)).replace(source=f"{name} {number}")


def cells(name: str, n: int) -> list[Mesh]:
    """The first cells of a regime, computed and kept where they are missing."""
    folder = CACHE
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name} {number}.vtu" for number in range(n)]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    map_processes(functools.partial(_keep, name, folder), missing, workers=1, description=name)
    return [read(file) for file in files]


def _keep(name: str, folder: Path, number: int) -> None:
    write(cell(name, number), folder / f"{name} {number}.vtu")


def between(mesh: Mesh, times: int) -> float:
    """How far A can be off at most, relative: elements overrate it, and those of 1/a say by how much.

    In the plane A(1/a) is A(a)⁻¹ turned by a right angle (J. B. Keller, J. Math. Phys. 5 (1964) 548), and elements
    overrate both.
    """
    inverse = mesh.replace(cell_fields={"conductivity": 1 / mesh.cell_fields["conductivity"]})
    a, b = (tensor(with_reference(one, times).global_fields["effective"]) for one in (mesh, inverse))
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return float(np.linalg.norm(a - turn.T @ np.linalg.inv(b) @ turn) / np.linalg.norm(a))


def apart(one: Mesh, other: Mesh) -> list[float]:
    """How far two solutions on one mesh are apart, relative: χ, mean gradients, A."""
    pairs = [
        (one.point_fields["fluctuation"], other.point_fields["fluctuation"]),
        (one.cell_fields["gradient"], other.cell_fields["gradient"]),
        (one.global_fields["effective"], other.global_fields["effective"]),
    ]
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]


def reference_errors(n: int) -> str:
    """How good a reference on refined meshes is, over the first test cells; as Markdown."""
    regime, found = REGIMES["test"], []
    for number in range(n):
        mesh = triangulate(random_grains(regime, number), regime.spacing)
        best = with_reference(mesh, REFINEMENTS + 1)
        found.append([[*apart(with_reference(mesh, k), best), between(mesh, k)] for k in range(REFINEMENTS + 1)])
    median, largest = np.median(found, axis=0), np.max(found, axis=0)
    lines = [
        f"{n} test cells, median and largest: against {REFINEMENTS + 1} refinements; at most, by duality.",
        "",
        "| refinements | χ | gradient | A | A at most |",
        "|--:|--:|--:|--:|--:|",
    ]
    for k, pair in enumerate(zip(median, largest, strict=True)):
        lines.append(f"| {k} | {' | '.join(f'{m:.2%}, {x:.2%}' for m, x in zip(*pair, strict=True))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, nargs="?", default=16, help="cells of the test; %(default)s")
    print(reference_errors(parser.parse_args().n))


if __name__ == "__main__":
    main()
