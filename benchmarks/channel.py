"""Turbulent channel learned: from what a wall feels to the flow above it; gno, its peers and linear estimation.

    python benchmarks/channel_solver.py                  # turbulence, about 6 minutes of one thread, once
    make peers                                           # neuraloperator, in an environment of its own
    .venv-peers/bin/python benchmarks/channel.py         # --smoke takes seconds; --table prints what is there

Given are ∂u/∂n, ∂w/∂n and pressure on a wall, wanted are fluctuations of u, v and w at y⁺ = 15, 30 and 50. Errors are
root mean square, over that of the fluctuation: the mean flow alone has 1.

1. gno, FNO (neuraloperator), gno without levels (a plain graph network), and linear stochastic estimation, which is the
   best that is linear and the same everywhere.
2. Trained on 32 × 32 points, asked on 24 × 24, 64 × 64, and on a triangulation that is no grid; and trained on such.
3. Fewer snapshots.
4. Which scale matters at which height.
5. Longer training; what each knows of the snapshots it was trained on, and what weights chosen on the way would have.

Each training is a process of its own on one thread and a line of results/channel.jsonl; what is there is not trained
again, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from channel_run import COLUMNS, HEIGHTS, Job, run
from jobs import apart, collect, parser

RESULTS = Path(__file__).parent / "results" / "channel.jsonl"
# What was tried of each; the rest is done with what erred least on the snapshots for validation.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gno": [
        {"lr": 3e-3, "batch_size": 1},
        {"lr": 3e-3, "batch_size": 1, "knobs": {"n_stencils": 2}},
        {"lr": 3e-3, "batch_size": 1, "knobs": {"first_step": 1.5}},
        {"lr": 3e-3, "batch_size": 1, "knobs": {"n_near": 2}},
    ],
    "FNO": [{"lr": 2e-3, "batch_size": 4}, {"lr": 2e-3, "batch_size": 1}],
    "graph without levels": [{"lr": 3e-3, "batch_size": 1}],
}
SETTINGS = ("lr", "batch_size", "knobs", "modes")
MESHES = ("grid", "coarser", "finer", "irregular")
FEW = (16, 48)
# Longer trainings, with the rates that were best in short ones; knobs are those of gno, and the last says whether
# images are learned. Rows in results/channel_3min.jsonl are of another run of the simulation than channel.jsonl.
LONG = 3.0
LONGER: list[tuple[str, dict[str, Any], bool]] = [
    ("gno", {"n_near": 2}, True),
    ("graph without levels", {}, True),
    ("FNO", {}, True),
    ("gno", {"n_near": 2}, False),
    ("graph without levels", {}, False),
    ("FNO", {}, False),
    ("gno", {}, False),
]


def jobs(minutes: float, seeds: int, rows: Callable[[], list[dict[str, Any]]]) -> Iterator[Job]:
    """All trainings, the most telling first; ``rows`` gives those that are done when a choice has to be made."""
    yield from (Job("linear", n, 0, minutes) for n in (0, *FEW))
    tried = [(model, variant) for model, variants in VARIANTS.items() for variant in variants]
    for model, variant in sorted(tried, key=lambda pair: VARIANTS[pair[0]].index(pair[1])):
        yield Job(model, 0, 0, minutes, **variant)
    best = {model: chosen(rows(), model) for model in VARIANTS}
    again = [(model, {"seed": seed}) for seed in range(1, seeds) for model in VARIANTS]
    fewer = [(model, {"n_train": n}) for n in FEW for model in VARIANTS]
    other = [("gno", {"meshes": "irregular"}), *(("gno", {"heights": [y]}) for y in HEIGHTS)]
    for model, change in (*again[:3], *fewer, *other, *again[3:]):
        yield Job(model, minutes=minutes, **best[model], **change)
    for seed, (model, knobs, images) in itertools.product(range(seeds), LONGER):
        settings = {**best[model], "knobs": knobs, "images": images}
        yield Job(model, seed=seed, minutes=LONG, **settings)


def chosen(rows: Sequence[dict[str, Any]], model: str) -> dict[str, Any]:
    """Settings of a model that err least on validation, of those that were tried in short trainings."""
    tried = [row for row in shortest(rows) if row["model"] == model and _is_first(row)]
    best = min(tried, key=lambda row: row["validation"])
    return {key: best[key] for key in SETTINGS}


def _is_first(row: dict[str, Any]) -> bool:
    """All snapshots, all heights, seed 0, on the grid: as settings are compared."""
    return not row["n_train"] and not row["seed"] and row["meshes"] == "grid" and len(row["heights"]) == len(HEIGHTS)


def shortest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings of the usual budget, which is the least."""
    return [row for row in rows if row["minutes"] == min(row["minutes"] for row in rows)]


def grouped(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in the seed alone, by what the others have in common."""
    found: dict[str, list[dict[str, Any]]] = {}
    least = min(row["minutes"] for row in rows)
    for row in rows:
        longer = f", {row['minutes']:g} min" if row["minutes"] > least else ""
        knobs = "".join(f", {key} {value}" for key, value in row["knobs"].items())
        modes = f", {row['modes']} modes" if row["model"] == "FNO" else ""
        mesh = "" if row["meshes"] == "grid" else f", trained on {row['meshes']} meshes"
        mesh += ", with images" if row["images"] else ""
        settings = f"{row['lr']:g} | {row['batch_size']}" if row["model"] != "linear" else " | "
        found.setdefault(f"{row['model']}{knobs}{modes}{mesh}{longer} | {settings}", []).append(row)
    return found


def spread(values: Sequence[float]) -> str:
    """Mean, and deviation where there are several."""
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def mean_error(row: dict[str, Any], mesh: str = "grid") -> float:
    """Over components and heights."""
    return statistics.fmean(row["test"][mesh]["error"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Everything as Markdown."""
    whole = [row for row in rows if len(row["heights"]) == len(HEIGHTS)]
    most = max(row["pairs"] for row in whole)
    minutes = min(row["minutes"] for row in whole)
    parts = [
        f"Error of velocity fluctuations over their root mean square; {minutes:g} processor minute(s) of one thread "
        f"each where nothing else is said, mean over the seeds given ± their deviation. {whole[0]['machine']}.",
        errors([row for row in whole if row["pairs"] == most]),
        others([row for row in whole if row["pairs"] == most]),
        few(shortest(whole)),
        on_the_way([row for row in whole if row["minutes"] > minutes]),
        scales(shortest(rows)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def errors(rows: Sequence[dict[str, Any]]) -> str:
    """By component and height on the grid of training."""
    names = [f"{name[0]} {name[1:]}" for name in COLUMNS]
    lines = [
        f"| model | rate | batch | seeds | {' | '.join(names)} | mean | validation | steps | weights | ms a plane |",
        f"|---|--:|--:|--:|{'--:|' * (len(names) + 5)}",
    ]
    for name, some in grouped(rows).items():
        columns = zip(*(row["test"]["grid"]["error"] for row in some), strict=True)
        cells = [spread(column) for column in columns] + [spread([mean_error(row) for row in some])]
        cells.append(spread([row["validation"] for row in some]))
        steps = [f"{statistics.fmean(row['steps'] for row in some):.0f}"] if "steps" in some[0] else [""]
        weights = [f"{some[0]['weights']:,}"] if "weights" in some[0] else [""]
        ms = [f"{statistics.median(row['test']['grid']['ms'] for row in some):.1f}"] if "steps" in some[0] else [""]
        lines.append(f"| {name} | {len(some)} | {' | '.join([*cells, *steps, *weights, *ms])} |")
    return "\n".join(lines)


def others(rows: Sequence[dict[str, Any]]) -> str:
    """On meshes that training did not see; correlations and spectra on the grid."""
    lines = [
        "Mean error over components and heights on other meshes with the same weights. On the grid of training, by "
        "height, means over components: correlation, energy of the prediction over that of the truth, and how far "
        "spectra along z are apart (Σ|E − E₀|/ΣE₀). FNO and the linear estimate get the triangulation, and answer on "
        "it, by linear interpolation from and to their grid.",
        "",
        f"| model | rate | batch | seeds | {' | '.join(MESHES)} | correlation | energy | spectra |",
        f"|---|--:|--:|--:|{'--:|' * (len(MESHES) + 3)}",
    ]
    for name, some in grouped(rows).items():
        cells = [spread([mean_error(row, mesh) for row in some]) for mesh in MESHES]
        grids = [row["test"]["grid"] for row in some]
        cells += [by_height([grid[key] for grid in grids]) for key in ("correlation", "power", "spectrum")]
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_height(columns: Sequence[Sequence[float]]) -> str:
    """Means over components and rows, a number for each height."""
    return ", ".join(
        f"{statistics.fmean(row[k] for row in columns for k in range(3 * h, 3 * h + 3)):.2f}"
        for h in range(len(HEIGHTS))
    )


def few(rows: Sequence[dict[str, Any]]) -> str:
    """The mean error over the number of snapshots, each model as it is best."""
    models = ["linear", *(model for model in VARIANTS if any(row["model"] == model for row in rows))]
    counts = sorted({row["pairs"] for row in rows})
    lines = [
        "Mean error with fewer examples (two walls a snapshot), settings as above that are best, seed 0:",
        "",
        f"| model | {' | '.join(map(str, counts))} |",
        f"|---|{'--:|' * len(counts)}",
    ]
    for model in models:
        mine = [row for row in rows if row["model"] == model and row["meshes"] == "grid" and not row["seed"]]
        best = chosen(rows, model)
        some = {row["pairs"]: mean_error(row) for row in mine if {key: row[key] for key in SETTINGS} == best}
        lines.append(f"| {model} | {' | '.join(f'{some[n]:.3f}' if n in some else '' for n in counts)} |")
    return "\n".join(lines) if len(counts) > 1 else ""


def on_the_way(rows: Sequence[dict[str, Any]]) -> str:
    """Longer trainings: what is known by heart, and whether other weights than the last should have been taken."""
    if not rows:
        return ""
    lines = [
        f"After {rows[0]['minutes']:g} minutes, mean error on planes of training, and on unseen ones with the last "
        "weights, as above, and with those, of twenty on the way, that erred least on validation; and validation after "
        "a quarter, half, three quarters and all of the time.",
        "",
        "| model | rate | batch | seeds | training | test | test, weights by validation | validation |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, some in grouped(rows).items():
        cells = [spread([row["known"] for row in some]), spread([mean_error(row) for row in some])]
        cells.append(spread([row["early"] for row in some]))
        quarters = zip(
            *([row["curve"][len(row["curve"]) * k // 4 - 1] for k in (1, 2, 3, 4)] for row in some), strict=True
        )
        cells.append(", ".join(f"{statistics.fmean(values):.3f}" for values in quarters))
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scales(rows: Sequence[dict[str, Any]]) -> str:
    """Share of each scale in what is predicted, and in attention where a height was learned alone."""
    best = chosen(rows, "gno") if any(row["model"] == "gno" and _is_first(row) for row in rows) else {}
    having = [row for row in rows if "scales" in row and row["meshes"] == "grid" and not row["n_train"]]
    having = [row for row in having if {key: row[key] for key in SETTINGS} == best]
    if not having:
        return ""
    n = len(having[0]["scales"]["shares"])
    lines = [
        "Which scale matters at which height: share of the heads of each level in the energy of the prediction, mean "
        "over components, and share of each level in the attention of the nodes where one height was learned alone.",
        "",
        "| y⁺ | " + " | ".join([f"level {s}" for s in range(n)] + [f"attention to {s}" for s in range(1, n)]) + " |",
        f"|--:|{'--:|' * (2 * n - 1)}",
    ]
    whole = [row for row in having if len(row["heights"]) == len(HEIGHTS)]
    for h, height in enumerate(HEIGHTS):
        part = range(3 * h, 3 * h + 3)
        cells = [
            spread([statistics.fmean(row["scales"]["shares"][s][k] for k in part) for row in whole]) for s in range(n)
        ]
        alone = [row["scales"]["attention"] for row in having if row["heights"] == [height]]
        cells += [spread([a[s] for a in alone]) if alone else "" for s in range(1, n)]
        lines.append(f"| {height} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__, RESULTS, minutes=0.75, seeds=3).parse_args()
    if options.one:
        print(json.dumps(run(Job(**json.loads(options.one)))))
        return
    if options.smoke:
        print(table([run(Job(model, minutes=0.02)) for model in ("linear", "gno")]))
        return
    wanted = [] if options.table else jobs(options.minutes, options.seeds, lambda: collect((), options.results, run))
    plain = (json.loads(json.dumps(dataclasses.asdict(job))) for job in wanted)
    text = table(collect(plain, options.results, lambda job: apart(__file__, job)))
    options.results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
