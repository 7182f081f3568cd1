"""How to train a step in time: single steps, noise, unrolled steps; equal processor time, the same small problem.

    python benchmarks/dynamics.py [--seconds 60] [--seeds 3] [--variants "one step" …]

Blobs turn with a flow and spread: u_t + ω (−y, x)·∇u = D Δu, in closed form. Training sees 12 frames; tests roll out 30
steps, ω is a parameter. Prints a Markdown table and saves it as benchmarks/results/dynamics.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Training, train
from gno.train.case import Time
from gno.train.time_metrics import WINDOWS

RESULTS = Path(__file__).parent / "results"
SPREADING, STEP = 0.004, 0.15
VARIANTS = {
    "one step": Time(unroll=1),
    "one step, noise 0.1": Time(unroll=1, noise=0.1),
    "one step, noise 0.3": Time(unroll=1, noise=0.3),
    "unroll 4, gradient 1": Time(unroll=4, gradient=1),
    "unroll 4, gradient 2": Time(unroll=4, gradient=2),
    "unroll 4, gradient 4": Time(unroll=4, gradient=4),
    "unroll 8, gradient 2": Time(unroll=8, gradient=2),
    "unroll 4, gradient 2, noise 0.1": Time(unroll=4, gradient=2, noise=0.1),
    "history 2": Time(unroll=4, gradient=2, history=2),
}


def turning(seed: int, n_frames: int, n: int = 11) -> list[Mesh]:
    """Gaussian blobs in a flow that turns, exact at the nodes of a triangulated square."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, n)
    points = np.stack([a.ravel() for a in np.meshgrid(x, x, indexing="ij")], axis=1)
    inner = np.abs(points).max(1) < 1
    points[inner] += rng.uniform(-0.3, 0.3, (inner.sum(), 2)) * (x[1] - x[0])
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    cells = np.concatenate([[corner, corner + n, corner + n + 1], [corner, corner + n + 1, corner + 1]], axis=1).T
    turn, count = rng.uniform(0.8, 1.6), int(rng.integers(2, 5))
    radius, angle = rng.uniform(0.1, 0.6, count), rng.uniform(0, 2 * np.pi, count)
    height, width = rng.choice([-1, 1], count) * rng.uniform(0.5, 1.0, count), rng.uniform(0.03, 0.06, count)
    frames = []
    for t in STEP * np.arange(n_frames):
        centers = radius[:, None] * np.stack([np.cos(angle + turn * t), np.sin(angle + turn * t)], axis=1)
        spread = width + 2 * SPREADING * t
        square = ((points[:, None] - centers) ** 2).sum(2)
        u = (height * width / spread * np.exp(-square / (2 * spread))).sum(1)
        fields = {"point_fields": {"u": u}, "global_fields": {"omega": np.array([turn])}, "time": float(t)}
        frames.append(Mesh(points, (CellBlock("triangle", cells),), source=f"turning {seed}", **fields))
    return frames


def one(name: str, seed: int, seconds: float) -> dict:
    """Train one variant and roll it out."""
    case = Case(
        data=Data(inputs=["omega"], targets=["u"]),
        model=Model(width=32, n_blocks=2, n_heads=2),
        training=Training(
            minutes=seconds / 60, batch_size=8, lr=5e-3, ema=0.99, validations=1, device="cpu", seed=seed
        ),
        time=VARIANTS[name],
    )
    series = {"train": [turning(s, 12) for s in range(48)]}
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, meshes=series, progress=False, clock=time.process_time)
        evaluation = run.evaluate_rollouts([turning(s, 31) for s in range(1000, 1008)])
        steps = int((Path(folder) / "log.csv").read_text().splitlines()[-1].split(",")[0])
    found = {f"{a}:{b}": evaluation.window("vrmse", "u", a, b) for a, b in WINDOWS}
    correlated = statistics.fmean(evaluation.correlation_times("u")) / STEP
    spectrum = evaluation.window("spectrum", "u", 13, 30)
    return {"variant": name, "seed": seed, **found, "correlated": correlated, "spectrum": spectrum, "steps": steps}


def table(results: list[dict], seconds: float) -> str:
    """Mean and deviation over the seeds."""
    lines = [
        f"Turning blobs, 121 nodes, 48 series of 12 frames; {seconds:g} s of processor time each, "
        f"{len({r['seed'] for r in results})} seed(s); {platform.machine()}, 1 thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
        "| training | VRMSE 1 | 6:12 | 13:30 | steps until correlation < 0.8 | energies 13:30 | optimiser steps |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(r["variant"] for r in results):
        rows = [r for r in results if r["variant"] == name]
        cells = [_spread([r[key] for r in rows], 3) for key in ("1:1", "6:12", "13:30")]
        cells += [_spread([r["correlated"] for r in rows], 1), _spread([r["spectrum"] for r in rows], 2)]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(r['steps'] for r in rows):.0f} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    results: list[dict] = []
    for seed in range(options.seeds):
        for name in options.variants:
            results.append(one(name, seed, options.seconds))
            print(json.dumps(results[-1]), flush=True)
            (RESULTS / "dynamics.md").write_text(table(results, options.seconds), encoding="utf-8")
    print("\n" + table(results, options.seconds))


if __name__ == "__main__":
    main()
