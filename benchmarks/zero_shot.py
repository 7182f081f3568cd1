"""Train at one spacing on one family of meshes; evaluate on coarser, finer and other meshes without training again.

    python benchmarks/zero_shot.py [--minutes 1.5] [--seeds 3] [--spacing 0.05] [--spread 0.8 1.25] [--table]

Diffusion on the unit square, −∇·(a∇u) = 1, u = 0 on the boundary, a a smooth log-normal field. Families: Delaunay
(trained on), structured triangles, triangles graded towards a corner, quads with shaken nodes. Training meshes differ
in their nodes, with spacings of --spread times h; --spread 1 1 is one mesh for all. The same unseen fields a on all
test meshes; the reference is computed with quadratic elements on the mesh itself; the table says how far that is from
the reference on a mesh of h/8, and what the prediction at h is worth on finer meshes if it is interpolated.

Rows go to benchmarks/results/zero_shot.jsonl as they are found, and those that are there are not trained again. The
tables are printed and saved as zero_shot.md beside them: errors on the mesh, where they are made, of every scale on its
own, and costs.
"""

from __future__ import annotations

import argparse
import functools
import json
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
from gno.graph import build_sample, collate
from gno.mesh import CellBlock, Mesh, interpolation, node_mass
from gno.train import Case, Data, Model, Run, Training, train
from gno.train.predict import in_precision

RESULTS = Path(__file__).parent / "results"
TEST_SEED = 1_000_000
FINER = {"2h": 0.5, "h": 1, "h/2": 2, "h/4": 4}
TARGET = 1.25  # of the error at h
F32 = torch.float32


N_MESHES = 40  # to train on


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


def training_meshes(options: argparse.Namespace) -> list[Mesh]:
    """One field each, on Delaunay meshes whose spacings differ."""
    factors = np.exp(np.random.default_rng(0).uniform(*np.log(options.spread), N_MESHES))
    grids = [delaunay(options.spacing * f) for f in factors]
    return [problem(s, grids[s % len(grids)]) for s in range(options.train)]


@functools.cache
def test_meshes(family: str, spacing: float, n: int) -> list[Mesh]:
    grid = FAMILIES[family](spacing)
    return [problem(TEST_SEED + s, grid) for s in range(n)]


def one(seed: int, options: argparse.Namespace) -> dict:
    """Errors of one training, by family and spacing: on the mesh, then on each scale; and what they are compared to."""
    case = Case(
        data=Data(inputs=["conductivity"], log=["conductivity"], targets=["u"]),
        model=Model(width=options.width),
        training=Training(minutes=options.minutes, seed=seed, device="cpu", validations=1),
    )
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        meshes = {"train": training_meshes(options)}
        run = train(case, folder, meshes=meshes, progress=False, clock=time.process_time)
        for family in FAMILIES:
            for name, finer in FINER.items():
                errors[f"{family} {name}"] = measured(run, family, finer, options)
                print(f"seed {seed}, {family}, {name}: {errors[f'{family} {name}']['u'][0]:.2%}", flush=True)
    exact = {family: floors(family, options.spacing) for family in FAMILIES}
    return {**key_of(seed, options), "errors": errors, "floors": exact}


def measured(run: Run, family: str, finer: float, options: argparse.Namespace) -> dict:
    """On meshes that are so much finer: errors, milliseconds and nodes of the mesh and of each scale; the error of the
    prediction at h interpolated to them; and the share of the squared error near the boundary."""
    meshes = test_meshes(family, options.spacing / finer, options.test)
    evaluation = run.evaluate(meshes)
    coarse = [p.mesh for p in run.predict_many(test_meshes(family, options.spacing, options.test))]
    here = interpolation(coarse[0], meshes[0].points)
    carried = [here @ c.point_fields["predicted_u"] for c in coarse]
    truth = [mesh.point_fields["u"] for mesh in meshes]
    own = [p.mesh.point_fields["predicted_u"] for p in run.predict_many(meshes)]
    mass, points = node_mass(meshes[0]), meshes[0].points
    near = mass * (np.minimum(points, 1 - points).min(1) < 0.75 * options.spacing)
    return {
        "u": [evaluation.mean["u"], *(scale.errors["u"] for scale in evaluation.scales)],
        "ms": [_median_ms(run, meshes[0], coarse) for coarse in (False, True)],
        "nodes": [meshes[0].n_nodes, *(scale.nodes for scale in evaluation.scales)],
        "carried": statistics.fmean(_relative(u, y, mass) for u, y in zip(carried, truth, strict=True)),
        "near": statistics.fmean(near @ (u - y) ** 2 / (mass @ (u - y) ** 2) for u, y in zip(own, truth, strict=True)),
    }


def key_of(seed: int, options: argparse.Namespace) -> dict:
    names = ("minutes", "spacing", "train", "width", "spread")
    return {"seed": seed, **{name: getattr(options, name) for name in names}}


def _median_ms(run: Run, mesh: Mesh, coarse: bool) -> float:
    """Processor time of the operator on one mesh: all of it, or up to the coarse levels alone."""
    batch = collate([in_precision(run.blueprint.normalisation.apply(build_sample(mesh, run.blueprint.spec)), F32)])
    call = run.model.coarse if coarse else run.model
    times = []
    with torch.inference_mode():
        for _ in range(6):  # the first one is not counted
            start = time.process_time()
            call(batch)
            times.append(time.process_time() - start)
    return 1e3 * statistics.median(times[1:])


@functools.cache
def floors(family: str, spacing: float) -> tuple[float, float]:
    """How exact the data are: the reference at h against one of h/8, at its nodes; and between them, interpolated from
    the nodes at h to those at h/4, against the reference there."""
    errors = []
    for s in range(2):
        here, quarter = (problem(TEST_SEED + s, FAMILIES[family](spacing / k)) for k in (1, 4))
        fine = problem(TEST_SEED + s, structured(spacing / 8))
        at_nodes = interpolation(fine, here.points) @ fine.point_fields["u"]
        between = interpolation(here, quarter.points) @ here.point_fields["u"]
        pairs = ((here.point_fields["u"], at_nodes, here), (between, quarter.point_fields["u"], quarter))
        errors.append([_relative(u, truth, node_mass(mesh)) for u, truth, mesh in pairs])
    return statistics.fmean(e[0] for e in errors), statistics.fmean(e[1] for e in errors)


def _relative(u: np.ndarray, truth: np.ndarray, mass: np.ndarray) -> float:
    return float(np.sqrt(mass @ (u - truth) ** 2 / (mass @ truth**2)))


def table(rows: list[dict]) -> str:
    """Mean and deviation over the seeds; in bold what is above the target."""
    first = rows[0]
    low, high = first["spread"]
    lines = [
        f"Trained on {first['train']} fields on {N_MESHES} Delaunay meshes of {low:g} to {high:g} h, h = "
        f"{first['spacing']:g}, for {first['minutes']:g} min of processor time, {len(rows)} seed(s), width "
        f"{first['width']}; {platform.machine()}, 1 thread, torch {torch.__version__}. Relative L2 of u on unseen "
        f"fields; bold: more than {TARGET} times that at h on the same family. Then, on meshes of h/4: the prediction "
        "at h, interpolated linearly; the share of the squared error within 0.75 h of the boundary; the reference at "
        "h, interpolated linearly, which is what data at h say between nodes. Last, the reference at h against one of "
        "h/8.",
        "",
        f"| family | {' | '.join(FINER)} | h/2 to h | h/4 to h | prediction at h | near the boundary | reference at h "
        "| reference |",
        "|---|" + "--:|" * (len(FINER) + 6),
    ]
    for family in FAMILIES:
        found = {n: [r["errors"][f"{family} {n}"]["u"][0] for r in rows] for n in FINER}
        mean = {n: statistics.fmean(values) for n, values in found.items()}
        cells = [_cell(found[n], n != "2h" and mean[n] > TARGET * mean["h"]) for n in FINER]
        cells += [f"{mean[n] / mean['h']:.2f}" for n in ("h/2", "h/4")]
        finest = [r["errors"][f"{family} h/4"] for r in rows]
        cells += [_cell([e["carried"] for e in finest], False), f"{statistics.fmean(e['near'] for e in finest):.0%}"]
        cells += [f"{value:.2%}" for value in first["floors"][family][::-1]]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    lines += ["", "Each scale on its own, on Delaunay meshes, against the restricted reference:", ""]
    n_scales = len(rows[0]["errors"]["Delaunay h"]["u"])
    heads = [f"error at {n} | nodes | ms" for n in ("h", "h/4")]
    lines += [f"| scale | {' | '.join(heads)} |", "|--:|" + "--:|" * 6]
    for s in range(n_scales):
        cells = []
        for n in ("h", "h/4"):
            parts = [r["errors"][f"Delaunay {n}"] for r in rows]
            cells.append(f"{statistics.fmean(p['u'][s] for p in parts):.2%} | {parts[0]['nodes'][s]}")
            cells.append(f"{statistics.fmean(p['ms'][s > 0] for p in parts):.1f}")
        lines.append(f"| {s} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float], bold: bool) -> str:
    cell = f"{statistics.fmean(values):.2%}" + (f" ± {statistics.stdev(values):.2%}" if len(values) > 1 else "")
    return f"**{cell}**" if bold else cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spacing", type=float, default=0.05, help="h")
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=8)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--spread", type=float, nargs=2, default=[0.8, 1.25], help="of training meshes, in h")
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "zero_shot.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for seed in range(0 if options.table else options.seeds):
        if not any(key_of(seed, options).items() <= row.items() for row in rows):
            rows.append(one(seed, options))
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    settings = [{k: v for k, v in row.items() if k not in ("seed", "errors", "floors")} for row in rows]
    distinct = [s for k, s in enumerate(settings) if s not in settings[:k]]
    text = "\n".join(table([r for r in rows if s.items() <= r.items()]) for s in distinct)
    (RESULTS / "zero_shot.md").write_text(text, encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
