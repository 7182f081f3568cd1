"""Gray–Scott learned: gno, its peers and a coarser solver after equal processor time.

    make peers                                           # neuraloperator, in an environment of its own
    .venv-peers/bin/python benchmarks/gray_scott.py      # --smoke takes seconds; --table prints what is there

A square with walls, 41 × 41 nodes, solved on a mesh twice as fine; frames 20 apart, which is the step that operators
take. Reported is VRMSE of v, error over deviation, both root mean squares over trajectories and steps, of rollouts from
t = 100 to 800.

1. gno, FNO (neuraloperator) and gno without levels (a plain graph network), each with noise of the states in training
   and without: unseen starts, then F and k inside a hole of the training band (interpolation) and outside it
   (extrapolation).
2. What parts of gno are worth: its law on the mesh alone, and layers of other weights (stencils) in its place.
3. Fewer and more training trajectories.
4. The equation, and its balance too, as losses.
5. Rollouts of ten times the horizon: is it bounded, has it the right pattern?
6. Squares turned in space, and then a sphere that training never saw.
7. The solver itself on coarser meshes with longer steps: error and seconds.

All three are trained on the periodic square as well, where FNO is at home.

All three are trained on the periodic square as well, where FNO is at home. Each training is a process of its own on one
thread and a line of results/gray_scott.jsonl; what is there is not trained again, so an interrupted benchmark goes on.
results/gray_scott_45s.jsonl has all parts after 45 s of training, from before noise faded and the law read a second
Laplacian.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gray_scott_run import TESTS, Job, run, series, solver_rows
from jobs import parser

RESULTS = Path(__file__).parent / "results" / "gray_scott.jsonl"
WINDOWS = ("1:1", "6:12", "13:30", "all")
RATES = {"gno": 1e-2, "gno, law alone": 1e-2, "gno, stencils": 4e-3, "graph without levels": 4e-3, "FNO": 8e-3}
OPERATORS = ("gno", "graph without levels", "FNO")
NOISE = 0.6  # in usual changes per step
EQUATION = {
    "equation": "gray_scott",
    "parameters": {"feed": "F", "kill": "k", "diffusivity": [2e-5, 1e-5]},
    "intra": 0.1,
}
BALANCE = {**EQUATION, "conserve": {"balance": 0.1}}


def jobs(minutes: float, seeds: int) -> list[Job]:
    """All trainings, the most telling first."""

    def job(model: str, n_train: int = 64, seed: int = 0, *, noise: float = NOISE, **others: Any) -> Job:
        time = {"unroll": 1, "noise": noise} if noise else {"unroll": 1}
        return Job(model, n_train, seed, minutes, others.pop("lr", RATES[model]), time, **others)

    main = [job(model, seed=seed) for seed in range(seeds) for model in OPERATORS]
    plain = [job(model, noise=0.0) for model in OPERATORS]
    surfaces = [job(model, 24, seed=seed, domain="plane") for seed in range(seeds) for model in OPERATORS[:2]]
    few = [job(model, 16) for model in OPERATORS]
    physics = [job("gno", 16, physics=losses) for losses in (EQUATION, BALANCE)]
    parts = [job("gno, law alone"), job("gno, stencils"), job("gno, stencils", noise=0.0)]
    torus = [job(model, seed=seed, domain="periodic") for seed in range(seeds) for model in OPERATORS]
    rest = [job("FNO", lr=2e-3), *torus]
    many = [job(model, 256) for model in OPERATORS]
    return [*main[:3], *plain, *surfaces, *main[3:], *few, *physics, *parts, *rest, *many]


def start(job: Job) -> dict[str, Any]:
    """Train and measure in a new process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{job}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Everything as Markdown."""
    trained = [row for row in rows if row["model"] != "solver"]
    solvers = [row for row in rows if row["model"] == "solver"]
    first, torus = trained[0], [row for row in trained if row["domain"] == "periodic"]
    parts = [
        f"VRMSE of v; {first['minutes']:g} processor minute(s) of one thread each, mean over the seeds given ± their "
        f"deviation. {first['machine']}.",
        learned([row for row in trained if row["domain"] != "periodic"]),
        compared(trained, "square"),
        *(["The square whose sides are identified:", learned(torus), compared(trained, "periodic")] if torus else []),
        long_runs(trained),
        carried_over(trained),
        against_solver(trained, solvers) if solvers else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def grouped(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in the seed alone, by what the others have in common."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        physics = (
            "" if not row["physics"] else ", equation and balance" if "conserve" in row["physics"] else ", equation"
        )
        place = "" if row["domain"] == "square" else f", {row['domain']}"
        noise = row["time"].get("noise", 0)
        name = f"{row['model']}{physics}{place} | {row['n_train']} | {row['lr']:g} | {noise:g}"
        found.setdefault(name, []).append(row)
    return found


def spread(values: Sequence[float], look: str = ".3f") -> str:
    """Mean, and deviation where there are several."""
    if not values:
        return "–"
    mean = format(statistics.fmean(values), look)
    return f"{mean} ± {format(statistics.stdev(values), look)}" if len(values) > 1 else mean


def learned(rows: Sequence[dict[str, Any]]) -> str:
    """Errors of rollouts from unseen starts, in the band, inside its hole, and outside."""
    lines = [
        "| model | trajectories | rate | noise | seeds | step 1 | 6:12 | 13:30 | 1:35 | interpolation 1:35 | "
        "extrapolation 1:35 | ms a step | steps of training | weights |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, some in grouped(rows).items():
        cells = [spread([row["test"][key] for row in some if key in row["test"]]) for key in WINDOWS]
        cells += [spread([row[split]["all"] for row in some]) if split in some[0] else "" for split in list(TESTS)[1:]]
        cells += [f"{statistics.median(row['test']['ms'] for row in some):.1f}"]
        cells += [f"{statistics.fmean(row['steps'] for row in some):.0f}", f"{some[0]['weights']:,}"]
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compared(rows: Sequence[dict[str, Any]], domain: str) -> str:
    """gno beside the best other operator, each as it is best, over the seeds that both have."""
    errors: dict[str, tuple[float, list[float]]] = {}
    for some in grouped([row for row in rows if row["n_train"] == 64 and row["domain"] == domain]).values():
        found = [row["test"]["all"] for row in sorted(some, key=lambda row: row["seed"])]
        model, mean = some[0]["model"], statistics.fmean(found)
        if model in OPERATORS and (model not in errors or mean < errors[model][0]):
            errors[model] = mean, found
    others = {model: found for model, found in errors.items() if model != "gno"}
    if "gno" not in errors or not others:
        return ""
    best = min(others, key=lambda model: others[model][0])
    ratios = [a / b for a, b in zip(errors["gno"][1], others[best][1], strict=False)]
    return (
        f"Steps 1 to 35, 64 trajectories: gno errs {spread(ratios, '.2f')} times as much as the best other operator, "
        f"{best} ({len(ratios)} seed(s), ratio seed by seed)."
    )


def long_runs(rows: Sequence[dict[str, Any]]) -> str:
    """Statistics of patterns at ten times the horizon."""
    names = ("spectrum", "correlation", "mean", "deviation", "area")
    lines = [
        "Rollouts of 395 steps, to t = 8000: differences of the patterns' statistics in the last fifth "
        "(`examples/gray_scott/pattern_statistics.py`), and the largest value that a field took. The last row is what "
        "the true patterns of two different trajectories are apart.",
        "",
        f"| model | trajectories | rate | noise | seeds | {' | '.join(names)} | largest |",
        f"|---|--:|--:|--:|--:|{'--:|' * (len(names) + 1)}",
    ]
    having = [row for row in rows if "long" in row]
    for name, some in grouped(having).items():
        cells = [spread([row["long"][key] for row in some]) for key in names]
        largest = max(row["long"]["largest"] for row in some)
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} | {largest:.3g} |")
    if having and "unlike area" in having[0]["long"]:
        cells = [f"{having[0]['long'][f'unlike {key}']:.3f}" for key in names]
        lines.append(f"| another trajectory | | | | | {' | '.join(cells)} | |")
    return "\n".join(lines)


def carried_over(rows: Sequence[dict[str, Any]]) -> str:
    """Operators that learned on squares turned in space, on a sphere that they have never seen."""
    having = [row for row in rows if "sphere" in row]
    lines = [
        "Trained on squares with walls, turned at random in space, and run on a sphere: VRMSE of v, and differences of "
        "the patterns' statistics in the last fifth of 35 steps.",
        "",
        "| model | trajectories | rate | noise | seeds | step 1 | 6:12 | 13:30 | 1:35 | spectrum | area | largest |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, some in grouped(having).items():
        cells = [spread([row["sphere"][key] for row in some if key in row["sphere"]]) for key in WINDOWS]
        cells += [spread([row["sphere"][key] for row in some]) for key in ("spectrum", "area", "largest")]
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines) if having else ""


def against_solver(rows: Sequence[dict[str, Any]], solvers: Sequence[dict[str, Any]]) -> str:
    """The solver on other meshes; its fastest run that is as exact as an operator, and how the times compare."""
    lines = [
        "The solver from the same states to t = 800, seconds of matrices, factors and steps:",
        "",
        "| nodes | Δt | step 1 | 6:12 | 13:30 | 1:35 | seconds |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in solvers:
        cells = [spread([row["test"][key]] if key in row["test"] else []) for key in WINDOWS]
        lines.append(f"| {row['n'] ** 2} | {row['step']:g} | {' | '.join(cells)} | {row['seconds']:.3f} |")
    lines.append("")
    for some in grouped([row for row in rows if row["domain"] == "square" and row["n_train"] == 64]).values():
        error, seconds = statistics.fmean(r["test"]["all"] for r in some), 35e-3 * some[0]["test"]["ms"]
        equal = [row["seconds"] for row in solvers if row["test"]["all"] <= error]
        if equal:
            ratio = min(equal) / seconds
            lines.append(
                f"- {some[0]['model']}, noise {some[0]['time'].get('noise', 0):g}, rate {some[0]['lr']:g}: "
                f"{seconds:.2f} s; at its error "
                f"({error:.3f}) the solver takes {min(equal):.3f} s, {ratio:.2f} times as long."
            )
    return "\n".join(lines)


def main() -> None:
    asked = parser(__doc__, RESULTS, minutes=3, seeds=3)
    asked.add_argument("--models", nargs="+", help="only these")
    options = asked.parse_args()
    if options.one:
        print(json.dumps(run(Job(**json.loads(options.one)))))
        return
    if options.smoke:
        print(table(smoke(options.models or ["gno"])))
        return
    results = options.results
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    wanted = [] if options.table else jobs(options.minutes, options.seeds)
    for job in wanted:
        if options.models and job.model not in options.models:
            continue
        if not any(_same(row, job) for row in rows):
            rows.append(start(job))
            keep(rows[-1], results)
    if wanted and not any(row["model"] == "solver" for row in rows):
        for row in solver_rows(series(wanted[0], "test", TESTS["test"])):
            rows.append(row)
            keep(row, results)
    text = table(rows)
    results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def keep(row: dict[str, Any], results: Path) -> None:
    """A line more in the results."""
    results.parent.mkdir(exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _same(row: dict[str, Any], job: Job) -> bool:
    return all(row.get(key) == value for key, value in json.loads(json.dumps(dataclasses.asdict(job))).items())


def smoke(models: Sequence[str]) -> list[dict[str, Any]]:
    """A few steps of training on short trajectories and coarse meshes; nothing is kept but these."""
    return [run(Job(model, 2, 0, 0.01, RATES[model], spacing=0.06, n_frames=12)) for model in models]


if __name__ == "__main__":
    main()
