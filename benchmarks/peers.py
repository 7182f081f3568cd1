"""gno beside its peers: same files, same splits, same time, same machine, one table per data set.

`make peers` installs the peers into an environment of their own; then

    .venv-peers/bin/python benchmarks/peers.py --minutes 5
    .venv-peers/bin/python benchmarks/peers.py --data plates --models gno transolver meshgraphnet:128 --seeds 0 1 2

Every training runs alone in a process of its own. All models read the same inputs and geometry features, minimise the
same loss (relative L2 by field), in the same loop, for the same wall time: linear warm-up, then a cosine; what is
computed once per mesh is computed before the clock starts. gno is trained as `gno.train` ships it, in size `small`.
A peer gets the settings of its authors (optimiser, batch size, clipping) and the best of the learning rates, chosen by
the test error itself, which is kind to the peer. Errors are relative L2 in physical units, weighted by node mass, of
meshes never seen: of the training meshes' size, and the same problems on twice finer meshes. ms/case is the median time
of the network for one prepared mesh; memory is the most that training took beyond the idle process.

Trainings that the file of results has already are not done again, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peer_table
import torch
from peer_models import PEERS, parse, spec_of
from peer_run import CLOCKS, FIELDS, MESHES, Job

from gno.train.sources import fit_spec, samples_of

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peers.jsonl"
LEARNING_RATES = (1e-3, 3e-4)
PACKAGES = ("gno", "torch", "torch-geometric", "torch-scatter", "nvidia-physicsnemo", "neuraloperator", "numpy")
SMOKE = {"minutes": 0.04, "n_train": 8, "n_test": 2, "threads": 1}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train gno and its peers on the same data and print a table.")
    parser.add_argument("--data", nargs="+", default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument("--models", nargs="+", default=["gno", *PEERS], metavar="NAME[:WIDTH]")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, each")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=LEARNING_RATES, help="of the peers")
    parser.add_argument("--optimisers", nargs="+", choices=("adamw", "muon"), help="of the peers")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="of the peers")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="processor: fair on a busy machine")
    parser.add_argument("--n-train", type=int, default=400)
    parser.add_argument("--n-test", type=int, default=50)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that gets a line per training")
    parser.add_argument("--smoke", action="store_true", help="a few seconds each, one rate, nothing kept")
    parser.add_argument("--table", action="store_true", help="print the table of earlier results and stop")
    chosen = parser.parse_args()
    if chosen.smoke:
        vars(chosen).update(SMOKE, learning_rates=chosen.learning_rates[:1])
    return chosen


def jobs(chosen: argparse.Namespace) -> Iterator[Job]:
    """All trainings, gno first; seeds and rates of one model come one after the other."""
    for data, model in itertools.product(chosen.data, chosen.models):
        grid: dict[str, list[Any]] = {}
        if model != "gno":
            parse(model)  # raises if there is no such model
            lists = {"lr": chosen.learning_rates, "optimiser": chosen.optimisers, "batch_size": chosen.batch_sizes}
            grid = {key: values for key, values in lists.items() if values}
        for values in itertools.product(*grid.values(), chosen.seeds):
            settings = dict(zip(grid, values, strict=False))
            common = (chosen.minutes, chosen.device, chosen.threads, chosen.clock, chosen.n_train, chosen.n_test)
            yield Job(data, model, values[-1], *common, settings)


def prepare(job: Job) -> None:
    """Compute data and samples into the cache, so that no training has to."""
    case = job.case()
    sources = case.data.paths()["train"]
    for spec in (fit_spec(case, sources), spec_of(case)):  # of gno and of its peers
        samples_of(sources, spec, case, bar=True)
        for size in MESHES:
            samples_of(job.test_files(size), spec, case, bar=True)


def run(job: Job) -> peer_table.Row:
    """One training in its own process; a failure is a result too."""
    threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "result.json"
        command = [sys.executable, str(HERE / "peer_run.py"), json.dumps(dataclasses.asdict(job)), str(target)]
        done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(target.read_text())
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {**dataclasses.asdict(job), "failure": last}


def machine(device: str) -> str:
    """Processor or GPU, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Of Python and the packages that matter; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if shutil.which("git"):
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
        found |= {"commit": commit.stdout.strip()} if commit.returncode == 0 else {}
    return found


def main() -> None:
    chosen = options()
    if chosen.table:
        print(peer_table.PROTOCOL, peer_table.tables(peer_table.read(chosen.results)), sep="\n")
        return
    try:
        todo = list(jobs(chosen))
    except ValueError as error:  # a wrong name is told before anything is computed
        sys.exit(str(error))
    known: list[peer_table.Row] = [] if chosen.smoke else peer_table.read(chosen.results)
    rows, prepared = [], set()
    stamp = {"machine": machine(chosen.device), "versions": versions()}
    print(stamp["machine"], stamp["versions"], sep="\n", flush=True)
    for job in todo:
        before = peer_table.find(known, {**dataclasses.asdict(job), "machine": stamp["machine"]})
        if before:
            rows.append(before)
            continue
        if job.data not in prepared:
            prepare(job)
            prepared.add(job.data)
        started = time.strftime("%Y-%m-%dT%H:%M:%S")
        row = {**run(job), **stamp, "started": started}
        rows.append(row)
        if not chosen.smoke:
            peer_table.append(row, chosen.results)
        print(job.data, job.model, job.settings, f"seed {job.seed}", row.get("failure") or row["errors"], flush=True)
    print("\n" + peer_table.tables(rows))


if __name__ == "__main__":
    main()
