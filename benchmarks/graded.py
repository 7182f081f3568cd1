"""Do anchors that follow the cells pay? `python benchmarks/graded.py` trains gno with them and without.

Rows of bodies in a passage that repeats (2-D), and ellipsoids (3-D): potential flow on cells that grow some twentyfold
away from the body. Each training has the same processor time of one thread. Errors are relative L2 over unseen shapes:
by volume, as `gno evaluate` has them, and at the body. A line of results/graded.jsonl per training; what is there is
not trained again.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from graded_cascade import cascade
from graded_ellipsoid import ellipsoid
from jobs import apart, collect, parser, spread

from gno.demo.parallel import map_processes
from gno.mesh import read, write

RESULTS = Path(__file__).parent / "results" / "graded.jsonl"
CACHE = Path(__file__).parent / ".cache"
DATA = {"cascade": cascade, "ellipsoid": ellipsoid}
N_TRAIN, N_TEST = 200, 40
VARIANTS = {"anchors follow the cells": None, "one spacing": False}


def files(name: str, first: int, n: int) -> list[Path]:
    """Files of so many meshes, computed where they are missing."""
    folder = CACHE / f"{name}-v1"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:07d}.vtu" for seed in range(first, first + n)]
    missing = [path for path in paths if not path.exists()]
    map_processes(partial(_compute, name), missing, workers=2, description=name)
    return paths


def _compute(name: str, path: Path) -> None:
    write(DATA[name](int(path.stem)), path)


def one(job: dict) -> dict:
    """Train and evaluate, in a process of its own."""
    import torch

    from gno.train import Case, Data, Model, Training, train

    torch.set_num_threads(1)
    case = Case(
        data=Data(
            train=[str(path) for path in files(job["data"], 0, job["n_train"])],
            cache=str(CACHE / "samples"),
            inputs=["inflow"],
            targets=["velocity", "pressure"],
        ),
        model=Model(graded=VARIANTS[job["variant"]]),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
    )
    tests = files(job["data"], 1_000_000, job["n_test"])
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
    lines = [f"| | | {' | '.join(head)} |", f"|---|---|{'--:|' * len(head)}"]
    for data, name in itertools.product(DATA, VARIANTS):
        if chosen := [row for row in rows if (row["data"], row["variant"]) == (data, name)]:
            parts = [(where, field) for where in ("errors", "body") for field in ("velocity", "pressure")]
            cells = [spread([100 * row[where][field] for row in chosen]) for where, field in parts]
            cells += [f"{statistics.median(row[key] for row in chosen):.0f}" for key in ("steps", "levels")]
            lines.append(f"| {data} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__, RESULTS, minutes=1.5, seeds=2).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    minutes, n_train, n_test = (0.02, 4, 2) if options.smoke else (options.minutes, N_TRAIN, N_TEST)
    jobs = [
        {"data": data, "variant": variant, "seed": seed, "minutes": minutes, "n_train": n_train, "n_test": n_test}
        for data, variant in itertools.product(DATA, VARIANTS)
        for seed in range(1 if options.smoke else options.seeds)
    ]
    if options.smoke:
        print(table([apart(__file__, job) for job in jobs]))
        return
    print(table(collect([] if options.table else jobs, options.results, partial(apart, __file__))))


if __name__ == "__main__":
    main()
