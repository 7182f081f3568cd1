"""Microstructure learned: local fields and effective conductivity of periodic two-phase cells; gno, peers, classics.

    make peers                                           # neuraloperator, in an environment of its own
    .venv-peers/bin/python benchmarks/microstructure.py  # --smoke takes seconds; --table prints what is there

Cells of 20 grains, soft or hard, on meshes that follow the grains (`microstructure_cells.py`; solved and kept on the
first call, about 4 minutes of one thread). From the conductivity to the fluctuations χ of the potential under both unit
gradients, and to the effective conductivity A.

1. gno, also with conductors between its anchors (`model.conduction`), with its equation as a loss, with its balance
   kept (`physics.conservative`), and without attention; FNO (neuraloperator), PINO (FNO with the same energy as a loss,
   on its grid), gno without levels (a plain graph network).
2. Without learning: bounds, mean fields, coarse elements with averaged coefficients, multiscale finite elements, and
   linear elements on the mesh itself.
3. Cells as in training, with more hard grains, with a higher contrast, four times as large, on meshes twice as fine.
4. Fewer training cells.
5. Longer training of what leads.

Each training is a process of its own on one thread and a line of results/microstructure.jsonl; what is there is not
trained again, so an interrupted benchmark goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs import apart, collect, parser
from microstructure_run import CLASSICAL, TESTS, Job, run, run_classical

RESULTS = Path(__file__).parent / "results" / "microstructure.jsonl"
N_TRAIN = 256
FEW = (16, 64)
BALANCE = {"intra": 1.0, "conservative": True}
CONDUCTORS = {"conduction": True}
# What was tried of each; the rest is done with what erred least on the cells for validation.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gno": [{"batch_size": 4}, {"batch_size": 1}, {"lr": 6e-3, "batch_size": 4}],
    "gno, conductors": [{"batch_size": 4, "knobs": CONDUCTORS}],
    "FNO": [{"lr": lr, "batch_size": 4} for lr in (2e-3, 4e-3, 8e-3, 1.6e-2)],
    "graph without levels": [{"batch_size": 4}, {"batch_size": 1}],
    "gno, equation": [{"batch_size": 4, "physics": {"intra": 1.0}}],
    "gno, conductors, equation": [{"batch_size": 4, "knobs": CONDUCTORS, "physics": {"intra": 1.0}}],
    "gno, balance": [{"batch_size": 4, "physics": BALANCE}],
    "PINO": [
        {"lr": lr, "batch_size": 4, "physics": {"intra": weight}}
        for lr, weight in ((2e-3, 0.1), (2e-3, 1.0), (4e-3, 1.0), (8e-3, 1.0))
    ],
}
LEADING = ("gno", "gno, conductors", "FNO", "gno, equation", "gno, conductors, equation")  # first to be measured again
SETTINGS = ("lr", "batch_size", "physics", "knobs", "modes")
# Names, minutes and seeds of longer trainings, with the settings that were best in short ones.
LONGER = [
    *((name, 3.0, 0) for name in ("gno, conductors", "gno, conductors, equation", "FNO", "PINO")),
    *((name, 3.0, 1) for name in ("gno, conductors", "gno, conductors, equation")),
    ("gno, conductors, equation", 10.0, 0),
]


def jobs(minutes: float, seeds: int, rows: Callable[[], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """All that is measured, the most telling first; ``rows`` gives what is done when a choice has to be made."""
    yield from ({"classical": name} for name in CLASSICAL)
    most = max(map(len, VARIANTS.values()))
    tried = [(name, some[k]) for k in range(most) for name, some in VARIANTS.items() if k < len(some)]
    yield from (plain(Job(network(name), N_TRAIN, 0, minutes, **variant)) for name, variant in tried)
    best = {name: chosen(rows(), name) for name in VARIANTS}
    changes = [*({"seed": seed} for seed in range(1, seeds)), *({"n_train": n} for n in FEW[::-1])]
    groups = (LEADING, [name for name in VARIANTS if name not in LEADING])
    for names, change in itertools.product(groups, changes):
        yield from (plain(Job(network(name), minutes=minutes, **{**best[name], **change})) for name in names)
    yield plain(Job("gno", minutes=minutes, **{**best["gno"], "knobs": {"attention": False}}))
    yield from (plain(Job(network(name), N_TRAIN, seed, longer, **best[name])) for name, longer, seed in LONGER)


def plain(job: Job) -> dict[str, Any]:
    """As it is written to a file."""
    return json.loads(json.dumps(dataclasses.asdict(job)))


def network(name: str) -> str:
    """What is trained under a name of `VARIANTS`."""
    return "FNO" if name == "PINO" else name.partition(",")[0]


def name_of(row: dict[str, Any]) -> str:
    """The name of `VARIANTS` that a row belongs to."""
    if row["model"] == "FNO":
        return "PINO" if row["physics"] else "FNO"
    kind = ("balance" if "conservative" in row["physics"] else "equation") if row["physics"] else ""
    parts = [row["model"], "conductors" if row["knobs"].get("conduction") else "", kind]
    return ", ".join(part for part in parts if part)


def chosen(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Settings that err least on validation, of those that were tried in short trainings."""
    learned = [row for row in shortest(rows) if row["n_train"] == N_TRAIN and not row["seed"]]
    first = [row for row in learned if row["knobs"] in ({}, CONDUCTORS)]
    best = min((row for row in first if name_of(row) == name), key=lambda row: row["validation"]["field"])
    return {key: best[key] for key in SETTINGS}


def shortest(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings of the usual budget, which is the least."""
    learned = [row for row in rows if "model" in row]
    return [row for row in learned if row["minutes"] == min(row["minutes"] for row in learned)]


def grouped(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in the seed alone, by what the others have in common."""
    found: dict[str, list[dict[str, Any]]] = {}
    least = min(row["minutes"] for row in rows)
    for row in rows:
        knobs = "".join(f", {key} {value}" for key, value in row["knobs"].items() if key not in CONDUCTORS)
        weight = f", weight {row['physics']['intra']:g}" if row["physics"] else ""
        longer = f", {row['minutes']:g} min" if row["minutes"] > least else ""
        found.setdefault(f"{name_of(row)}{knobs}{weight}{longer} | {row['lr']:g} | {row['batch_size']}", []).append(row)
    return found


def percent(values: Sequence[float]) -> str:
    """Mean in percent, and deviation where there are several; nothing of what is not known."""
    mean = 100 * statistics.fmean(values)
    if mean != mean:
        return ""
    return f"{mean:.1f} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Everything as Markdown."""
    known = [row for row in rows if "classical" in row]
    learned = sorted((row for row in rows if "model" in row), key=lambda row: list(VARIANTS).index(name_of(row)))
    most = max(row["n_train"] for row in learned)
    whole = [row for row in learned if row["n_train"] == most]
    minutes = min(row["minutes"] for row in whole)
    parts = [
        f"Relative errors in percent, means over unseen cells; {most} training cells, {minutes:g} processor minute(s) "
        "of one thread each where nothing else is said; mean over the seeds given ± their deviation. "
        f"{whole[0]['machine']}.",
        test(whole, known),
        elsewhere(whole, known),
        few(shortest(learned)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def test(learned: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> str:
    """Cells as in training: all errors, and what they cost."""
    lines = [
        "Cells as in training: χ, gradient and flux of the whole potential (L2), and A (Frobenius), as learned and of "
        "the energy of the field. Times are medians of processor time: preparing a new cell (its hierarchy, its grid, "
        "or its pixels), and the answer at the nodes. To and from grids by linear interpolation.",
        "",
        "| method | rate | batch | seeds | χ | gradient | flux | A | A of the field | prepare ms | ms | validation χ | "
        "steps | training s | weights |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    measures = ("field", "gradient", "flux", "effective", "effective of field")
    for name, some in grouped(learned).items():
        cells = [percent([row["test"][key] for row in some]) for key in measures]
        cells += [f"{statistics.median(row['test'][key] for row in some):.1f}" for key in ("prepare ms", "ms")]
        cells.append(percent([row["validation"]["field"] for row in some]))
        steps, seconds = (statistics.fmean(row[key] for row in some) for key in ("steps", "seconds"))
        lines.append(
            f"| {name} | {len(some)} | {' | '.join(cells)} | {steps:.0f} | {seconds:.0f} | {some[0]['weights']:,} |"
        )
    for row in known:
        cells = [percent([row["test"][key]]) for key in measures[:-1]]
        cells += ["", f"{row['test']['prepare ms']:.1f}", f"{row['test']['ms']:.1f}"]
        lines.append(f"| {row['classical']} | | | | {' | '.join(cells)} | | | | |")
    return "\n".join(lines)


def elsewhere(learned: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> str:
    """χ and A of all kinds of cells."""
    lines = [
        "Other cells with the same weights: χ; A as learned / of the field. `test` has shares of hard grains from 0.2 "
        "to 0.5 and contrasts from 5 to 50, as training had; `more hard grains` 0.6 to 0.8, `higher contrast` 100 to "
        "200; `larger cells` have four times as many grains; `finer meshes` half the spacing.",
        "",
        f"| method | rate | batch | seeds | {' | '.join(f'{name}: χ | A' for name in TESTS)} |",
        f"|---|--:|--:|--:|{'--:|--:|' * len(TESTS)}",
    ]
    for name, some in grouped(learned).items():
        cells = []
        for split in TESTS:
            cells.append(percent([row[split]["field"] for row in some]))
            both = (percent([row[split][key] for row in some]) for key in ("effective", "effective of field"))
            cells.append(" / ".join(both))
        lines.append(f"| {name} | {len(some)} | {' | '.join(cells)} |")
    for row in known:
        cells = [percent([row[split][key]]) for split in TESTS for key in ("field", "effective")]
        lines.append(f"| {row['classical']} | | | | {' | '.join(cells)} |")
    return "\n".join(lines)


def few(rows: Sequence[dict[str, Any]]) -> str:
    """Errors over the number of cells, each method as it is best, seed 0."""
    counts = sorted({row["n_train"] for row in rows})
    if len(counts) == 1:
        return ""
    lines = [
        "Fewer training cells, settings as above that are best, seed 0: χ; A as learned / of the field.",
        "",
        f"| method | {' | '.join(f'{n}: χ | A' for n in counts)} |",
        f"|---|{'--:|--:|' * len(counts)}",
    ]
    for name in dict.fromkeys(map(name_of, rows)):
        best = chosen(rows, name)
        mine = [row for row in rows if name_of(row) == name and not row["seed"]]
        some = {row["n_train"]: row["test"] for row in mine if {key: row[key] for key in SETTINGS} == best}
        cells = []
        for n in counts:
            errors = [
                percent([some[n][key]]) if n in some else "" for key in ("field", "effective", "effective of field")
            ]
            cells += [errors[0], " / ".join(error for error in errors[1:] if error)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def one(job: dict[str, Any]) -> dict[str, Any]:
    """What a job asks for, in this process."""
    return run_classical(job["classical"]) if "classical" in job else run(Job(**job))


def smoke() -> list[dict[str, Any]]:
    """A few steps on a few cells; nothing is kept but these."""
    return [run_classical("MsFEM, 8 × 8"), run(Job("gno", 4, minutes=0.02, physics=BALANCE))]


def main() -> None:
    options = parser(__doc__, RESULTS, minutes=0.75, seeds=2).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    if options.smoke:
        print(table(smoke()))
        return
    wanted = () if options.table else jobs(options.minutes, options.seeds, lambda: collect((), options.results, one))
    text = table(collect(wanted, options.results, lambda job: apart(__file__, job)))
    options.results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
