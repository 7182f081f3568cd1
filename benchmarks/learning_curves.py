"""More files or more minutes: `python benchmarks/learning_curves.py` trains with both in steps of four.

Plates, and diffusion across grains whose coefficients jump, on meshes twice as coarse as those of the other benchmarks.
The error is the mean relative L2 over the targets and over 40 unseen domains; beside it that over 40 of the training
files. What they tell of each other is what `gno train` says at its end (`gno/train/advice.py`). The longest trainings
on few files also with mirror images (`data.mirror`). Each training is a process of its own and a line of
results/learning_curves.jsonl; what is there is not trained again.
"""

from __future__ import annotations

import functools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import jobs

RESULTS = Path(__file__).parent / "results" / "learning_curves.jsonl"
# Plates are the same upside down, where sets do not tell top from bottom; grains have no direction at all.
MIRROR = {"plates": ["y"], "diffusion_grains": ["x", "y"]}
SETS = {"plates": ["left", "right", "holes"], "diffusion_grains": None}
DATA, FILES, SHARES, N_TEST = ("plates", "diffusion_grains"), (25, 100, 400), (1 / 16, 1 / 4, 1), 40


def one(job: dict) -> dict:
    """Train on some of the files for some of the time; runs in a process of its own."""
    import torch
    from data import CACHE, FIELDS, SPACING, files

    from gno.train import Case, Data, Training, train

    torch.set_num_threads(1)
    data, n_train, n_test, mirror = (job[key] for key in ("data", "n_train", "n_test", "mirror"))
    paths = files(data, "train", n_train, 2 * SPACING[data])
    seen = {**FIELDS[data], "mirror": mirror, "sets": SETS[data] if mirror else None}
    case = Case(
        data=Data(train=[str(path) for path in paths], cache=str(CACHE / "samples"), **seen),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, progress=False, clock=time.process_time)
        steps = int(Path(folder, "log.csv").read_text().splitlines()[-1].split(",")[0])
    known, unseen = (
        statistics.fmean(run.evaluate(some[:n_test]).mean.values())
        for some in (paths, files(data, "test", n_test, 2 * SPACING[data]))
    )
    return {**job, "unseen": unseen, "known": known, "steps": steps, "torch": torch.__version__}


def table(rows: list[dict]) -> str:
    """Errors on unseen files (on training files) by files and minutes, as Markdown."""
    minutes = sorted({row["minutes"] for row in rows})
    lines = [
        f"Error on {rows[0]['n_test']} unseen domains, in brackets on as many training files; processor time of "
        f"one thread, {platform.machine()}, Python {platform.python_version()}, torch {rows[0]['torch']}.",
        "",
        f"| data | files | seeds | {' | '.join(f'{m:g} min' for m in minutes)} |",
        "|---|--:|--:|" + "--:|" * len(minutes),
    ]
    for data, n_train, mirror in sorted({(row["data"], row["n_train"], tuple(row["mirror"])) for row in rows}):
        cells, found = [], 0
        for m in minutes:
            key = (data, n_train, mirror, m)
            some = [r for r in rows if (r["data"], r["n_train"], tuple(r["mirror"]), r["minutes"]) == key]
            found = max(found, len(some))
            means = [100 * statistics.fmean(r[name] for r in some) for name in ("unseen", "known") if some]
            cells.append(f"{means[0]:.1f} % ({means[1]:.1f})" if some else "")
        how = f", mirrored in {' and '.join(mirror)}" if mirror else ""
        lines.append(f"| {data}{how} | {n_train} | {found} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    options = jobs.parser(__doc__, RESULTS, minutes=2.0, seeds=1).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    if options.smoke:
        print(table([one({"data": "plates", "n_train": 4, "minutes": 0.02, "seed": 0, "n_test": 2, "mirror": ["y"]})]))
        return
    wanted = [
        {"data": data, "n_train": n, "minutes": options.minutes * share, "seed": seed, "n_test": N_TEST, "mirror": how}
        for seed in range(options.seeds)
        for share in SHARES
        for n in FILES
        for data in DATA
        for how in ([[], MIRROR[data]] if share == 1 and n < max(FILES) else [[]])
    ]
    rows = jobs.collect([] if options.table else wanted, options.results, functools.partial(jobs.apart, __file__))
    options.results.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
