"""What it saves to begin on coarser meshes: `training.curriculum`, at equal processor time.

    python benchmarks/curriculum.py [--minutes 1.5] [--seeds 3] [--shares 0 0.3 0.6] [--table]

Steady diffusion with smooth coefficients, about 1,200 nodes (benchmarks/data.py). Rows go to
benchmarks/results/curriculum.jsonl as they are found, those that are there are not trained again; the table is printed
and saved as curriculum.md beside them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from data import CACHE, FIELDS, files
from jobs import collect

from gno.train import Case, Data, Model, Training, train

RESULTS = Path(__file__).parent / "results"
NAME = "diffusion_smooth"


def one(share: float, seed: int, options: argparse.Namespace) -> dict:
    """Train once; the error on unseen meshes, and of the validation over time."""
    data = {key: [str(path) for path in files(NAME, *args, workers=1)] for key, args in splits(options).items()}
    case = Case(
        data=Data(**FIELDS[NAME], train=data["train"], validation=data["validation"], cache=str(CACHE.resolve())),
        model=Model(width=options.width),
        training=Training(minutes=options.minutes, seed=seed, device="cpu", curriculum=share, validations=8),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, progress=False, clock=time.process_time)
        error = run.evaluate(data["test"][8:]).mean["u"]
        rows = [line.split(",") for line in (Path(folder) / "log.csv").read_text().splitlines()]
    when, score, step = (rows[0].index(name) for name in ("seconds", "validation score", "step"))
    curve = [(float(row[when]), float(row[score])) for row in rows[1:] if row[score]]
    found = {"share": share, "seed": seed, "minutes": options.minutes, "error": error}
    return {**found, "steps": int(rows[-1][step]), "curve": curve}


def splits(options: argparse.Namespace) -> dict[str, tuple[str, int]]:
    return {"train": ("train", options.train), "validation": ("test", 8), "test": ("test", 8 + options.test)}


def table(results: list[dict]) -> str:
    """Mean and deviation over the seeds; time until the validation is as good as that of the others at the end."""
    minutes = ", ".join(f"{m:g}" for m in sorted({r["minutes"] for r in results}))
    lines = [
        f"Diffusion with smooth coefficients, about 1,200 nodes, {minutes} min of processor time each, "
        f"mean and deviation over the seeds; {platform.machine()}, 1 thread, torch {torch.__version__}. "
        "Relative L2 of u on unseen meshes.",
        "",
        "| share of the time on coarser meshes | seeds | error | optimiser steps | "
        "time to the plain training's last error |",
        "|--:|--:|--:|--:|--:|",
    ]
    plain = {r["seed"]: r["curve"][-1][1] for r in results if r["share"] == 0}
    for share in sorted({r["share"] for r in results}):
        rows = [r for r in results if r["share"] == share]
        errors = [r["error"] for r in rows]
        spread = f" ± {statistics.stdev(errors):.2%}" if len(errors) > 1 else ""
        reached = [reaching(r["curve"], plain[r["seed"]]) / (60 * r["minutes"]) for r in rows if r["seed"] in plain]
        shown = "not all" if not reached or max(reached) > 1e6 else f"{statistics.fmean(reached):.0%}"
        steps = statistics.fmean(r["steps"] for r in rows)
        lines.append(f"| {share:g} | {len(rows)} | {statistics.fmean(errors):.2%}{spread} | {steps:.0f} | {shown} |")
    return "\n".join(lines) + "\n"


def reaching(curve: list[tuple[float, float]], error: float) -> float:
    """Seconds until a curve is as low; infinite if it never is."""
    return next((seconds for seconds, value in curve if value <= error), float("inf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.3, 0.6])
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=16)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(0 if options.table else options.seeds)
    jobs = ({"share": share, "seed": seed, "minutes": options.minutes} for seed in seeds for share in options.shares)
    path = RESULTS / "curriculum.jsonl"
    results = collect(jobs, path, lambda job: one(job["share"], job["seed"], options))
    (RESULTS / "curriculum.md").write_text(table(results), encoding="utf-8")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
