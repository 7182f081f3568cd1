"""Train at one spacing on one family of meshes; evaluate on coarser, finer and other meshes without training again.

    python benchmarks/zero_shot.py [--minutes 2] [--seeds 1] [--spacing 0.08]

Diffusion on the unit square, −∇·(a∇u) = 1, u = 0 on the boundary, a a smooth log-normal field. Families: Delaunay
(trained on), structured triangles, triangles graded towards a corner, quads with shaken nodes. The same unseen fields a
on all meshes; the reference is computed with quadratic elements on the mesh itself. Prints one Markdown table and saves
it as benchmarks/results/zero_shot.md: errors on the mesh, and of every scale on its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skfem
import torch
from diffusion import solve_diffusion

from gno.demo.plates import random_smooth_field
from gno.demo.shapes import triangulate
from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Training, train

RESULTS = Path(__file__).parent / "results"
TEST_SEED = 1_000_000
FINER = {"2h": 0.5, "h": 1, "h/2": 2, "h/4": 4}
TARGET = 1.25  # of the error at h


def delaunay(h: float) -> skfem.Mesh:
    n = round(1 / h)
    side = np.arange(n) / n
    zero, one = np.zeros(n), np.ones(n)
    sides = [(side, zero), (one, side), (1 - side, one), (zero, 1 - side)]
    points, triangles = triangulate(np.concatenate([np.stack(s, axis=1) for s in sides]), [])
    return skfem.MeshTri(np.ascontiguousarray(points.T), np.ascontiguousarray(triangles.T))


def structured(h: float) -> skfem.Mesh:
    return skfem.MeshTri.init_tensor(*[np.linspace(0, 1, round(1 / h) + 1)] * 2)


def graded(h: float) -> skfem.Mesh:
    """Cells at one corner five times as large as at the other."""
    x = np.linspace(0, 1, round(1 / h) + 1)
    x = (np.exp(np.log(5) * x) - 1) / 4
    return skfem.MeshTri.init_tensor(x, x)


def quads(h: float) -> skfem.Mesh:
    x = np.linspace(0, 1, round(1 / h) + 1)
    mesh = skfem.MeshQuad.init_tensor(x, x)
    points = mesh.p.copy()
    inner = np.setdiff1d(np.arange(points.shape[1]), mesh.boundary_nodes())
    points[:, inner] += np.random.default_rng(0).uniform(-0.25, 0.25, (2, len(inner))) * h
    return skfem.MeshQuad(points, mesh.t)


FAMILIES: dict[str, Callable[[float], skfem.Mesh]] = {
    "Delaunay": delaunay,
    "structured": structured,
    "graded": graded,
    "quads": quads,
}


def problem(seed: int, grid: skfem.Mesh) -> Mesh:
    """The field a of a seed and its solution, on a mesh."""
    logarithm = random_smooth_field(np.random.default_rng([seed, 0x2E20]), correlation=0.2)
    element = skfem.ElementQuad2() if isinstance(grid, skfem.MeshQuad) else skfem.ElementTriP2()
    basis = skfem.Basis(grid, element, intorder=4)
    x = np.asarray(basis.global_coordinates())
    u, _ = solve_diffusion(basis, np.exp(0.6 * logarithm(x.reshape(2, -1).T)).reshape(x.shape[1:]))
    points = np.ascontiguousarray(grid.p.T)
    fields = {"conductivity": np.exp(0.6 * logarithm(points)), "u": u}
    kind = "quad" if isinstance(grid, skfem.MeshQuad) else "triangle"
    return Mesh(points, (CellBlock(kind, grid.t.T.astype(np.int64)),), point_fields=fields, source=f"{kind} {seed}")


def one(seed: int, options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Errors of one training, by family and spacing: on the mesh, then on each scale."""
    case = Case(
        data=Data(inputs=["conductivity"], log=["conductivity"], targets=["u"]),
        model=Model(width=options.width),
        training=Training(minutes=options.minutes, seed=seed, device="cpu", validations=1),
    )
    grid = delaunay(options.spacing)
    meshes = {"train": [problem(s, grid) for s in range(options.train)]}
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, meshes=meshes, progress=False, clock=time.process_time)
        for family, make in FAMILIES.items():
            for name, finer in FINER.items():
                grid = make(options.spacing / finer)
                evaluation = run.evaluate([problem(TEST_SEED + s, grid) for s in range(options.test)])
                scales = [scale.errors["u"] for scale in evaluation.scales]
                errors[family, name] = [evaluation.mean["u"], *scales, 1e3 * evaluation.seconds]
                print(f"seed {seed}, {family}, {name}: {errors[family, name][0]:.2%}", flush=True)
    return errors


def table(results: list[dict[tuple[str, str], list[float]]], options: argparse.Namespace) -> str:
    """Mean over the seeds; in bold what is above the target."""
    n_scales = len(next(iter(results[0].values()))) - 2
    heads = ["family", *FINER, *(f"scale {s} at h" for s in range(1, n_scales + 1)), "ms at h/4"]
    lines = [
        f"Trained on {options.train} Delaunay meshes of spacing h = {options.spacing:g} for {options.minutes:g} min of "
        f"processor time, {len(results)} seed(s), {options.test} unseen fields; {platform.machine()}, 1 thread, torch "
        f"{torch.__version__}. Relative L2 of u; bold: more than {TARGET} times that at h on the same family.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|" + "--:|" * (len(heads) - 1),
    ]
    for family in FAMILIES:
        mean = {n: [statistics.fmean(v) for v in zip(*(r[family, n] for r in results), strict=True)] for n in FINER}
        cells = []
        for name in FINER:
            cell = f"{mean[name][0]:.2%}"
            cells.append(f"**{cell}**" if mean[name][0] > TARGET * mean["h"][0] else cell)
        cells += [f"{value:.2%}" for value in mean["h"][1:-1]]
        lines.append(f"| {family} | {' | '.join(cells)} | {mean['h/4'][-1]:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--spacing", type=float, default=0.08, help="h")
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [one(seed, options) for seed in range(options.seeds)]
    text = table(results, options)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "zero_shot.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
