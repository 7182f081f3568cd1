"""What five members cost beside one, in wall time: `python benchmarks/ensemble_cost.py [--at-once 1 2 3]`.

All train for the same epochs, size small. One member has all threads; of five, as many train at the same time as
--at-once says, and their time has the start of their processes in it. On a GPU (not run yet):

    python benchmarks/ensemble_cost.py --device cuda --at-once 1 2 5

The runs take turns, since a machine is not always equally busy; a ratio is of runs that followed each other.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="plates", choices=data.GENERATORS)
    parser.add_argument("--meshes", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--at-once", type=int, nargs="+", default=[0], help="0: as many as there are cores")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, ratios = Path(name), {n: [] for n in options.at_once}
        case = case_of(options.data, options.meshes, folder, options.device, options.epochs)
        seconds(case.with_training(epochs=1), folder / "run", 1, 1)  # samples, and what is slow the first time
        for _ in range(options.repeats):
            one = seconds(case, folder / "run", 1, 1)
            print(f"{options.data}: one member {one:.1f} s", flush=True)
            for n, found in ratios.items():
                found.append(seconds(case, folder / "run", MEMBERS, n) / one)
                print(f"{options.data}: {MEMBERS} members, at once {n}: {found[-1]:.2f} times one", flush=True)
    for n, found in ratios.items():
        print(f"{options.data}, at once {n}: median {statistics.median(found):.2f} of {len(found)}")


if __name__ == "__main__":
    main()
