"""What each part of the operator is worth: `python benchmarks/ablation.py` trains each variant for the same time.

Two data sets, smooth coefficients and grains whose coefficients jump, or others of `data.py` with `--data`; every
variant with every seed, for the same processor time of one thread. The error is the mean relative L2 over unseen
domains, of each target, on meshes as fine as those of training, and twice and four times as fine. Each training is a
process of its own and one line of results/ablation.jsonl; what is there is not trained again, so an interrupted
benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from jobs import apart, collect, spread

RESULTS = Path(__file__).parent / "results"
VARIANTS: dict[str, dict[str, object]] = {
    "full model": {},
    "without cross-scale attention": {"attention": False},
    "fixed pooling": {"learned_pooling": False},
    "one level": {"n_levels": 1},
    "with conductors": {"conduction": True},
    "with the near field": {"n_near": 1},
}
FINER = (1, 2, 4)


def one(job: dict) -> dict:
    """Train one variant with one seed, and evaluate it on every mesh size; runs in a process of its own."""
    import torch
    from data import FIELDS, SPACING, files

    from gno.train import Case, Data, Model, Training, train

    torch.set_num_threads(1)
    fields = FIELDS[job["data"]]
    paths = [str(path) for path in files(job["data"], "train", job["n_train"])]
    case = Case(
        data=Data(train=paths, cache=str(Path(__file__).parent / ".cache" / "samples"), **fields),
        model=Model(**VARIANTS[job["variant"]]),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, progress=False, clock=time.process_time)
        errors = {}
        for finer in FINER:
            test = files(job["data"], "test", job["n_test"], SPACING[job["data"]] / finer)
            errors[str(finer)] = run.evaluate(test).mean
        log = [line.split(",") for line in Path(folder, "log.csv").read_text().splitlines()]
        steps = max(int(row[log[0].index("step")]) for row in log[1:])
    weights = sum(p.numel() for p in run.model.parameters())
    return {**job, "errors": errors, "steps": steps, "weights": weights, "torch": torch.__version__}


def table(results: list[dict]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    first = results[0]
    lines = [
        f"{first['minutes']:g} processor minutes of training each, one thread, {first['n_train']} training, "
        f"{first['n_test']} test domains, mean and deviation over seeds; {platform.machine()}, "
        f"Python {platform.python_version()}, torch {first['torch']}.",
        "",
        "| data | variant | seeds | error at h | at h/2 | at h/4 | steps | weights |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for data in dict.fromkeys(r["data"] for r in results):
        for variant in VARIANTS:
            rows = [r for r in results if (r["data"], r["variant"]) == (data, variant)]
            if rows:
                cells = [_errors([r["errors"][str(finer)] for r in rows]) for finer in FINER]
                steps = statistics.median(r["steps"] for r in rows)
                kind, size = f"| {data} | {variant} | {len(rows)}", f"{steps:.0f} | {rows[0]['weights']:,} |"
                lines.append(f"{kind} | {' | '.join(cells)} | {size}")
    return "\n".join(lines)


def _errors(rows: list[dict[str, float]]) -> str:
    """Of each target, over seeds."""
    return ", ".join(spread([100 * row[target] for row in rows]) for target in rows[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", nargs="+", default=["diffusion_smooth", "diffusion_grains"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--minutes", type=float, default=1.0, help="processor minutes of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-train", type=int, default=400)
    parser.add_argument("--n-test", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS / "ablation.jsonl")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    shared = {key: getattr(options, key) for key in ("minutes", "n_train", "n_test")}
    jobs = [
        {"data": data, "variant": variant, "seed": seed, **shared}
        for seed in options.seeds
        for data in options.data
        for variant in options.variants
    ]
    results = collect(jobs, options.output, partial(apart, __file__))
    # trainings of another length are rows of the file, too, and not of this table
    text = table([row for row in results if all(row[key] == value for key, value in shared.items())])
    options.output.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
