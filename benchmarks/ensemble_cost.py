"""What five members cost beside one, in wall time: `python benchmarks/ensemble_cost.py [--at-once 1 2 3]`.

All train for the same epochs, size small. One member has all threads; of five, as many train at the same time as
--at-once says, and their time has the start of their processes in it. On a GPU (not run yet), trainings of 20 s:

    python benchmarks/ensemble_cost.py --device cuda --seconds 20 --at-once 1 2 5

The runs take turns, since a machine is not always equally busy; a ratio is of runs that followed each other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import data

MEMBERS = 5


def case_of(name: str, n: int, folder: Path, device: str, epochs: int):
    """A case of n files, prepared in a folder."""
    from gno.train import Case, Data, Training

    files = [str(path) for path in data.files(name, "train", n)]
    known = Data(**data.FIELDS[name], train=files, cache=str(folder / "cache"))
    return Case(data=known, training=Training(epochs=epochs, validations=1, device=device))


def seconds(case, folder: Path, members: int, at_once: int) -> float:
    """Wall time of an ensemble whose samples are ready."""
    from gno.uq import train_ensemble

    start = time.perf_counter()
    train_ensemble(case, folder, members=members, at_once=at_once, overwrite=True, progress=False)
    return time.perf_counter() - start


def lasting(case, folder: Path, wanted: float):
    """The case with as many epochs as one member trains in so many seconds."""
    few = [seconds(case.with_training(epochs=epochs), folder, 1, 1) for epochs in (1, 3)]
    epochs = max(1, math.ceil(2 * wanted / max(few[1] - few[0], 1e-3)))
    print(f"{epochs} epochs", flush=True)
    return case.with_training(epochs=epochs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="plates", choices=data.GENERATORS)
    parser.add_argument("--meshes", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seconds", type=float, help="of one member, about, instead of epochs")
    parser.add_argument("--at-once", type=int, nargs="+", default=[0], help="0: as many as there are cores")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=Path, help="file that gets a line of JSON per ratio")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, ratios = Path(name), {n: [] for n in options.at_once}
        case = case_of(options.data, options.meshes, folder, options.device, options.epochs)
        seconds(case.with_training(epochs=1), folder / "run", 1, 1)  # samples, and what is slow the first time
        case = lasting(case, folder / "run", options.seconds) if options.seconds else case
        for _ in range(options.repeats):
            one = seconds(case, folder / "run", 1, 1)
            print(f"{options.data}: one member {one:.1f} s", flush=True)
            for n, found in ratios.items():
                found.append(seconds(case, folder / "run", MEMBERS, n) / one)
                print(f"{options.data}: {MEMBERS} members, at once {n}: {found[-1]:.2f} times one", flush=True)
                if options.rows:
                    with options.rows.open("a") as rows:
                        print(json.dumps({"at_once": n, "one_s": one, "ratio": found[-1]}), file=rows)
    for n, found in ratios.items():
        print(f"{options.data}, at once {n}: median {statistics.median(found):.2f} of {len(found)}")


if __name__ == "__main__":
    main()
