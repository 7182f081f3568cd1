"""How to train a step in time: each choice of [time] alone, at equal processor time, on the same small problem.

    python benchmarks/dynamics.py [--seconds 30] [--seeds 3] [--variants "one step" …] [--table]

Blobs turn with a flow and spread: u_t + ω (−y, x)·∇u = D Δu, in closed form. Training sees 12 frames; tests roll out 30
steps, ω is a parameter. Rows go to benchmarks/results/dynamics.jsonl as they are found, and those that are there are
not trained again; the table is printed and saved as dynamics.md beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

import gno.train.blueprint
from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Training, train
from gno.train.blueprint import Blueprint
from gno.train.case import Time
from gno.train.time_metrics import WINDOWS

RESULTS = Path(__file__).parent / "results"
SPREADING, STEP = 0.004, 0.15
ONE = Time(unroll=1, noise=0)


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train.

    Args:
        time: as in a case.
        varies: whether Δt of the training frames is drawn anew for each step.
        film: whether the scales are conditioned on Δt and ω; else ω is an input like others, Δt a factor of the rate.
        states: whether the operator gives the next state in place of the rate of change.
    """

    time: Time = ONE
    varies: bool = False
    film: bool = True
    states: bool = False


VARIANTS = {
    "one step": Variant(),
    "one step, noise 0.1": Variant(Time(unroll=1, noise=0.1)),
    "one step, noise 0.3": Variant(Time(unroll=1, noise=0.3)),
    "unroll 4, gradient 1 (pushforward)": Variant(Time(unroll=4, gradient=1, noise=0)),
    "unroll 4, gradient 2": Variant(Time(unroll=4, gradient=2, noise=0)),
    "unroll 4, gradient 4": Variant(Time(unroll=4, gradient=4, noise=0)),
    "one step, history 2": Variant(Time(unroll=1, history=2, noise=0)),
    "one step, the state in place of its rate": Variant(states=True),
    "one step, without FiLM": Variant(film=False),
    "one step, Δt varies": Variant(varies=True),
    "one step, Δt varies, without FiLM": Variant(varies=True, film=False),
}


def turning(
    seed: int,
    n_frames: int,
    n: int = 11,
    *,
    varies: bool = False,
    rates: tuple[float, float] = (0.8, 1.6),
    counts: tuple[int, int] = (2, 4),
) -> list[Mesh]:
    """Gaussian blobs in a flow that turns, exact at the nodes of a triangulated square; Δt uniform, or 0.4 to 1.6 of
    it."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, n)
    points = np.stack([a.ravel() for a in np.meshgrid(x, x, indexing="ij")], axis=1)
    inner = np.abs(points).max(1) < 1
    points[inner] += rng.uniform(-0.3, 0.3, (inner.sum(), 2)) * (x[1] - x[0])
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    cells = np.concatenate([[corner, corner + n, corner + n + 1], [corner, corner + n + 1, corner + 1]], axis=1).T
    turn, count = rng.uniform(*rates), int(rng.integers(counts[0], counts[1] + 1))
    radius, angle = rng.uniform(0.1, 0.6, count), rng.uniform(0, 2 * np.pi, count)
    height, width = rng.choice([-1, 1], count) * rng.uniform(0.5, 1.0, count), rng.uniform(0.03, 0.06, count)
    times = STEP * np.arange(n_frames)
    if varies:
        times[1:] = np.cumsum(STEP * rng.uniform(0.4, 1.6, n_frames - 1))
    frames = []
    for t in times:
        centers = radius[:, None] * np.stack([np.cos(angle + turn * t), np.sin(angle + turn * t)], axis=1)
        spread = width + 2 * SPREADING * t
        square = ((points[:, None] - centers) ** 2).sum(2)
        u = (height * width / spread * np.exp(-square / (2 * spread))).sum(1)
        fields = {"point_fields": {"u": u}, "global_fields": {"omega": np.array([turn])}, "time": float(t)}
        frames.append(Mesh(points, (CellBlock("triangle", cells),), source=f"turning {seed}", **fields))
    return frames


class NextState(nn.Module):
    """An operator that gives the next state, dressed as one that gives its rate of change, (ẑ − z_n) / (r Δt)."""

    def __init__(self, operator: nn.Module, blueprint: Blueprint) -> None:
        super().__init__()
        scale = blueprint.normalisation
        assert scale.states is not None and scale.step is not None
        self.operator, self.step = operator, (float(scale.step.mean), float(scale.step.std))
        self.gain = (scale.targets.std / scale.states.std).float()

    def forward(self, batch, **options):
        output, now = self.operator(batch, **options), batch.x[:, -len(self.gain) :]
        steps = (batch.parameters[:, -1] * self.step[1] + self.step[0]).exp()
        before = output.restrict(now)
        fields = (
            (u - z) / (self.gain * steps[graph][:, None])
            for u, z, graph in zip(output.fields, before, output.batch, strict=True)
        )
        return dataclasses.replace(output, fields=tuple(fields))


@contextlib.contextmanager
def changed(variant: Variant) -> Iterator[None]:
    """What no case can ask for, since the other choice is better: tried here only."""
    sizes, model = gno.train.blueprint.operator_sizes, Blueprint.model
    with contextlib.ExitStack() as stack:
        if not variant.film:
            without = lambda *a: {**sizes(*a), "n_globals": 0}  # noqa: E731
            stack.enter_context(mock.patch.object(gno.train.blueprint, "operator_sizes", without))
        if variant.states:
            dressed = lambda self, seed=0: NextState(model(self, seed), self)  # noqa: E731
            stack.enter_context(mock.patch.object(Blueprint, "model", dressed))
        yield


def one(name: str, seed: int, seconds: float) -> dict:
    """Train one variant and roll it out."""
    variant = VARIANTS[name]
    case = Case(
        data=Data(inputs=["omega"], targets=["u"]),
        model=Model(width=32, n_blocks=2, n_heads=2),
        training=Training(
            minutes=seconds / 60, batch_size=8, lr=5e-3, ema=0.99, validations=1, device="cpu", seed=seed
        ),
        time=variant.time,
    )
    series = {"train": [turning(s, 12, varies=variant.varies) for s in range(48)]}
    with tempfile.TemporaryDirectory() as folder, changed(variant):
        run = train(case, folder, meshes=series, progress=False, clock=time.process_time)
        evaluation = run.evaluate_rollouts([turning(s, 31) for s in range(1000, 1008)])
        other = run.evaluate_rollouts([turning(s, 20, varies=True) for s in range(1000, 1008)])
        steps = int((Path(folder) / "log.csv").read_text().splitlines()[-1].split(",")[0])
    found = {f"{a}:{b}": evaluation.window("vrmse", "u", a, b) for a, b in WINDOWS}
    return {
        "variant": name,
        "seed": seed,
        "seconds": seconds,
        **found,
        "other steps": other.window("vrmse", "u", 6, 12),
        "correlated": statistics.fmean(evaluation.correlation_times("u")) / STEP,
        "spectrum": evaluation.window("spectrum", "u", 13, 30),
        "steps": steps,
    }


def table(results: list[dict]) -> str:
    """Mean and deviation over the seeds."""
    seconds = sorted({r["seconds"] for r in results})
    lines = [
        f"Turning blobs, 121 nodes, 48 series of 12 frames; {', '.join(f'{s:g}' for s in seconds)} s of processor time "
        f"each, mean and deviation over the seeds; {platform.machine()}, 1 thread, "
        f"Python {platform.python_version()}, torch {torch.__version__}. VRMSE of rollouts on unseen series, windows "
        "of steps; in the column Δt varies, of steps 6 to 12 of series whose steps are 0.4 to 1.6 times the usual "
        "one. Last: steps of the optimiser.",
        "",
        "| training | seeds | VRMSE 1 | 6:12 | 13:30 | Δt varies | steps until correlation < 0.8 | energies "
        "13:30 | trained |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(r["variant"] for r in results):
        rows = [r for r in results if r["variant"] == name]
        cells = [_spread([r[key] for r in rows], 3) for key in ("1:1", "6:12", "13:30", "other steps")]
        cells += [_spread([r["correlated"] for r in rows], 1), _spread([r["spectrum"] for r in rows], 2)]
        lines.append(
            f"| {name} | {len(rows)} | {' | '.join(cells)} | {statistics.fmean(r['steps'] for r in rows):.0f} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--table", action="store_true", help="print what is there, train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "dynamics.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["variant"], r["seed"], r["seconds"]) for r in results}
    for seed in range(0 if options.table else options.seeds):
        for name in options.variants:
            if (name, seed, options.seconds) in done:
                continue
            results.append(one(name, seed, options.seconds))
            with path.open("a") as file:
                file.write(json.dumps(results[-1], ensure_ascii=False) + "\n")
            print(json.dumps(results[-1], ensure_ascii=False), flush=True)
    results.sort(key=lambda r: list(VARIANTS).index(r["variant"]))
    (RESULTS / "dynamics.md").write_text(table(results), encoding="utf-8")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
