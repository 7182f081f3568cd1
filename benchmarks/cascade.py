"""Graded meshes whose coordinates repeat: `python benchmarks/cascade.py` trains gno on flow through rows of bodies.

One body of random shape in a passage that repeats in y, cells some twentyfold larger away from it than at it. The flow is
a potential's, ∇²φ = 0, of unit speed and random angle far away, without circulation. Anchors follow the cells, or do not
(`model.graded = false`); each for the same processor time of one thread. Errors are relative L2 over unseen shapes: by
volume, as `gno evaluate` has them, and at the body. A line of results/cascade.jsonl per training; what is there is not
trained again.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import skfem
from jobs import apart, collect, parser, spread
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from skfem.helpers import dot, grad

from gno.demo.parallel import map_processes
from gno.demo.plates import skfem_mesh
from gno.demo.shapes import divide, random_star, triangulate
from gno.mesh import CellBlock, Mesh, read, write

RESULTS = Path(__file__).parent / "results" / "cascade.jsonl"
CACHE = Path(__file__).parent / ".cache" / "cascade-v1"
LENGTH, PITCH = 3.0, 1.0  # of the passage
COARSE, FINE = 0.12, 0.006  # cells at its ends and at the body
N_TRAIN, N_TEST = 200, 40
VARIANTS = {"anchors follow the cells": None, "one spacing": False}


def cascade(seed: int) -> Mesh:
    """Global field `inflow` (2), point fields `velocity` (n, 2) and `pressure`, 1 − |u|²; point sets `body`, `in`, `out`."""
    rng = np.random.default_rng([seed, 0xCA5C])
    star = random_star(rng, np.array([0.0, rng.uniform(-0.2, 0.2)]), rng.uniform(0.07, 0.16))
    angle = rng.uniform(-0.5, 0.5)
    inflow = np.array([np.cos(angle), np.sin(angle)])
    body = star.polygon(FINE)
    points, triangles = triangulate(_passage(), [body[::-1]])
    velocity = flow(Mesh(points, (CellBlock("triangle", triangles),)), inflow, PITCH)
    sets = {"body": np.arange(len(_passage()), len(_passage()) + len(body))}
    sets |= {name: np.flatnonzero(points[:, 0] == x) for name, x in (("in", -LENGTH / 2), ("out", LENGTH / 2))}
    fields = {"velocity": velocity, "pressure": 1 - (velocity**2).sum(1)}
    return Mesh(
        points,
        (CellBlock("triangle", triangles),),
        fields,
        global_fields={"inflow": inflow},
        point_sets=sets,
        period=(0.0, PITCH),
        source=f"cascade {seed}",
    )


def _passage() -> np.ndarray:
    """Corners of the outline, the same above as below."""
    corners = np.array([[-LENGTH, -PITCH], [LENGTH, -PITCH], [LENGTH, PITCH], [-LENGTH, PITCH], [-LENGTH, -PITCH]]) / 2
    sides = zip(corners[:-1], corners[1:], strict=True)
    return np.concatenate([divide(np.stack(side), np.full(1, COARSE))[:-1] for side in sides])


def flow(mesh: Mesh, inflow: np.ndarray, pitch: float) -> np.ndarray:
    """U + ∇χ at the nodes, of −∇²χ = 0, ∂χ/∂n = −U·n at the body and 0 at both ends, χ of period `pitch` in y.

    Quadratic elements; the gradient is projected on them, too.
    """
    basis = skfem.Basis(skfem_mesh(mesh), skfem.ElementTriP2(), intorder=4)
    x, y = basis.doflocs
    merge = _merged(x, y, pitch)
    inside = lambda x: (np.abs(x[0]) < LENGTH / 2 - 1e-9) & (np.abs(x[1]) < pitch / 2 - 1e-9)  # noqa: E731
    wall = skfem.FacetBasis(basis.mesh, basis.elem, facets=basis.mesh.facets_satisfying(inside, boundaries_only=True))
    stiffness = skfem.BilinearForm(lambda u, v, w: dot(grad(u), grad(v))).assemble(basis)
    load = skfem.LinearForm(lambda v, w: -(inflow[0] * w.n[0] + inflow[1] * w.n[1]) * v).assemble(wall)
    matrix = (merge.T @ stiffness @ merge).tocsc()
    chi = np.zeros(matrix.shape[0])
    chi[1:] = splu(matrix[1:, 1:]).solve((merge.T @ load)[1:])
    mass = splu((merge.T @ skfem.BilinearForm(lambda u, v, w: u * v).assemble(basis) @ merge).tocsc())
    slope = basis.interpolate(merge @ chi).grad
    parts = [skfem.LinearForm(lambda v, w, k=k: slope[k] * v).assemble(basis) for k in range(2)]
    nodes = basis.nodal_dofs[0]
    return inflow + np.stack([(merge @ mass.solve(merge.T @ part))[nodes] for part in parts], axis=1)


def _merged(x: np.ndarray, y: np.ndarray, pitch: float) -> csr_matrix:
    """From the unknowns to all degrees of freedom: those above are those below."""
    place = np.stack([x, np.where(y > pitch / 2 - 1e-9, y - pitch, y)], axis=1).round(9)
    _, which = np.unique(place + 0.0, axis=0, return_inverse=True)
    return csr_matrix((np.ones(len(x)), (np.arange(len(x)), which.ravel())))


def files(first: int, n: int) -> list[Path]:
    """Files of so many cascades, computed where they are missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    paths = [CACHE / f"{seed:07d}.vtu" for seed in range(first, first + n)]
    missing = [seed for seed, path in zip(range(first, first + n), paths, strict=True) if not path.exists()]
    map_processes(_compute, missing, workers=2, description="cascades")
    return paths


def _compute(seed: int) -> None:
    write(cascade(seed), CACHE / f"{seed:07d}.vtu")


def one(job: dict) -> dict:
    """Train and evaluate, in a process of its own."""
    import torch

    from gno.train import Case, Data, Model, Training, train

    torch.set_num_threads(1)
    case = Case(
        data=Data(
            train=[str(path) for path in files(0, job["n_train"])],
            cache=str(CACHE.parent / "samples"),
            inputs=["inflow"],
            targets=["velocity", "pressure"],
        ),
        model=Model(graded=VARIANTS[job["variant"]]),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
    )
    tests = files(1_000_000, job["n_test"])
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, progress=False, clock=time.process_time)
        log = [line.split(",") for line in Path(folder, "log.csv").read_text().splitlines()]
    at_body = {"velocity": [], "pressure": []}
    for mesh in map(read, tests):
        predicted, body = run.predict(mesh).mesh.point_fields, mesh.point_sets["body"]
        for name, errors in at_body.items():
            truth = mesh.point_fields[name][body]
            errors.append(float(np.linalg.norm(predicted[f"predicted_{name}"][body] - truth) / np.linalg.norm(truth)))
    spec = run.blueprint.spec
    return {
        **job,
        "errors": {name: run.evaluate(tests).mean[name] for name in at_body},
        "body": {name: statistics.fmean(errors) for name, errors in at_body.items()},
        "steps": max(int(row[log[0].index("step")]) for row in log[1:]),
        "levels": spec.n_levels,
        "graded": spec.graded_dim > 0,
    }


def table(rows: list[dict]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    head = ["velocity", "pressure", "velocity at the body", "pressure at the body", "steps", "levels"]
    lines = [f"| | {' | '.join(head)} |", f"|---|{'--:|' * len(head)}"]
    for name in VARIANTS:
        chosen = [row for row in rows if row["variant"] == name]
        if chosen:
            parts = [(where, field) for where in ("errors", "body") for field in ("velocity", "pressure")]
            cells = [spread([100 * row[where][field] for row in chosen]) for where, field in parts]
            cells += [f"{statistics.median(row[key] for row in chosen):.0f}" for key in ("steps", "levels")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__, RESULTS, minutes=1.5, seeds=2).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    minutes, n_train, n_test = (0.02, 4, 2) if options.smoke else (options.minutes, N_TRAIN, N_TEST)
    jobs = [
        {"variant": variant, "seed": seed, "minutes": minutes, "n_train": n_train, "n_test": n_test}
        for seed in range(1 if options.smoke else options.seeds)
        for variant in VARIANTS
    ]
    if options.smoke:
        print(table([apart(__file__, job) for job in jobs]))
        return
    print(table(collect([] if options.table else jobs, options.results, partial(apart, __file__))))


if __name__ == "__main__":
    main()
