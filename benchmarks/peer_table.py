"""Results of `benchmarks/peers.py`: one JSON line per training, and the table made of them."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Only what agrees in all of these is compared.
SAME = ("data", "minutes", "n_train", "n_test", "device", "threads", "clock", "machine")
# What was tried for a model.
TRIED = ("optimiser", "lr", "batch_size")
PROTOCOL = """\
Printed by `python benchmarks/peers.py --table`.

How it was done. Every model reads the same inputs and geometry features of the same 400 training meshes and minimises
the same loss (relative L2 by field) in the same loop. A training has one thread and its processor time is counted, so
ten minutes are what two cores give in five. First every peer has one minute with the optimiser, batch size and
clipping of its authors, at the rates 1e-3 and 3e-4 where two are listed below the table, else at 1e-3. Then those two
that lead a data set have ten minutes, at the better rate or both. A row is the best rate of its model, chosen by the
test error itself, which is kind to the peers. gno has the one rate that it ships with. Errors are relative L2 in
physical units on meshes that were never seen: of the training meshes' size and, "finer", the same problems on meshes
twice as fine. ms/case is the network alone on one prepared mesh. Other work shared the machine, more at some times
than at others: `peer_inference.py` measures it for all models in one run. memory MB is what training took at most
beyond the idle process, samples and what a model keeps of each mesh included.
One seed where no ± is given. Of the brackets, in 3-D, there are 200 training meshes, the rate is 1e-3, and GINO has a
grid of 16 points along each side. Their stress differs by 8 to 10 % between the two mesh sizes.
"""


def append(row: Row, path: Path) -> None:
    """Add a line; one write, so that processes can share a file and a kill leaves no half line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(row) + "\n").encode())
    finally:
        os.close(handle)


def read(path: Path) -> list[Row]:
    """All rows of a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def find(rows: Iterable[Row], job: Row) -> Row | None:
    """The latest training that did what a job asks for, if it did not fail."""
    settings = job["settings"].items()
    same = [key for key in job if key != "settings"]
    found = [
        row
        for row in rows
        if "failure" not in row
        and all(row.get(key) == job[key] for key in same)
        and all(row["settings"].get(key) == value for key, value in settings)
    ]
    return found[-1] if found else None


def score(row: Row) -> float:
    """Mean error over the fields on meshes of the training size: by this the best settings are chosen."""
    return statistics.fmean(row["errors"]["same"].values())


def tables(rows: Iterable[Row]) -> str:
    """One table per data set and budget, long budgets first; of several equal trainings the last one counts."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row.get(key) for key in SAME]), []).append(row)
    return "\n\n".join(table(group) for group in sorted(groups.values(), key=lambda group: -group[0]["minutes"]))


def table(rows: Sequence[Row]) -> str:
    """Models by rising error, each with its best settings; then what was tried, and what failed."""
    models: dict[str, dict[str, dict[int, Row]]] = {}
    failed = {row["model"]: row["failure"] for row in rows if "failure" in row}
    for row in rows:
        if "failure" not in row:
            settings = json.dumps(row["settings"], sort_keys=True)
            models.setdefault(row["model"], {}).setdefault(settings, {})[row["seed"]] = row
    tried = {name: [list(runs.values()) for runs in settings.values()] for name, settings in models.items()}
    best = {name: min(choices, key=_mean_score) for name, choices in tried.items()}
    order = sorted(best, key=lambda name: _mean_score(best[name]))
    lines = [_headline(rows[0])]
    if best:
        lines += ["", *_aligned([_titles(best[order[0]][0]), *([name, *_cells(best[name])] for name in order)]), ""]
    lines += [f"{name}: tried {_tried(tried[name])}" for name in order]
    lines += [f"{name}: failed, {message}" for name, message in failed.items()]
    return "\n".join(lines)


def _mean_score(runs: Sequence[Row]) -> float:
    return statistics.fmean(score(run) for run in runs)


def _headline(row: Row) -> str:
    nodes = row.get("nodes")
    meshes = f"; {nodes['same']:.0f} and {nodes['finer']:.0f} nodes" if nodes else ""
    threads = f", {row['threads']} threads" if row["device"] == "cpu" else ""
    clock = " of processor time" if row.get("clock") == "processor" else ""
    return (
        f"### {row['data']}: {row['minutes']:g} minutes{clock}, {row['n_train']} training and {row['n_test']} test "
        f"meshes{meshes}; {row.get('machine', 'unknown machine')}{threads}"
    )


def _titles(row: Row) -> list[str]:
    same, finer = ([f"{name}{end}" for name in row["errors"]["same"]] for end in ("", ", finer"))
    return ["model", *same, *finer, "samples/s", "ms/case", "ms/case, finer", "memory MB", "weights"]


def _cells(runs: Sequence[Row]) -> list[str]:
    errors = [
        _percent([run["errors"][size][name] for run in runs])
        for size in ("same", "finer")
        for name in runs[0]["errors"][size]
    ]
    median = {
        key: statistics.median(value(run) for run in runs)
        for key, value in {
            "rate": lambda run: run["samples_per_second"],
            "same": lambda run: run["inference_ms"]["same"],
            "finer": lambda run: run["inference_ms"]["finer"],
            "memory": lambda run: run["peak_mb"] - run["idle_mb"],
        }.items()
    }
    numbers = [f"{median['rate']:.1f}", f"{median['same']:.1f}", f"{median['finer']:.1f}", f"{median['memory']:.0f}"]
    return [*errors, *numbers, f"{runs[0]['parameters']:,}"]


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread} %"


def _tried(choices: Sequence[Sequence[Row]]) -> str:
    def one(runs: Sequence[Row]) -> str:
        settings = runs[0]["settings"]
        steps = statistics.median(run["steps"] for run in runs)
        optimiser, rate, batch = (settings[key] for key in TRIED)
        return f"{optimiser} {rate:g} batch {batch} ({steps:.0f} steps): {_percent([score(run) for run in runs])}"

    return "; ".join(one(runs) for runs in sorted(choices, key=_mean_score))


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [cells[0], rule, *cells[1:]]
    return [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in rows
    ]
