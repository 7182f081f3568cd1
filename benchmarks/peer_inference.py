"""Time and memory of one prediction by gno and its peers: `python benchmarks/peer_inference.py` prints a table.

One mesh at a time, of the training meshes' size, twice and four times as fine; everything that depends on the mesh
alone is prepared before. Neither depends on what the weights are, so they are fresh; widths as in `peers.py`. Time is
the median processor time of one thread; memory is what the network takes at most beyond what was there before, per node
of the finest mesh. Each model has a process of its own; rows that are
there are not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from data import FIELDS, SPACING, files
from jobs import apart, collect
from peer_models import PEERS, AsOutput, Sizes, parse, spec_of
from peer_run import numbered
from scaling import Peak

from gno.graph import MeshData, collate
from gno.train import Case
from gno.train.blueprint import Blueprint
from gno.train.sources import samples_of

RESULTS = Path(__file__).parent / "results" / "peer_inference.md"
MESHES = {"h": 1.0, "h/2": 0.5, "h/4": 0.25}
N_TRAIN, N_TEST, REPEATS = 8, 1, 5  # meshes that sizes are fitted on, meshes that are predicted, times each


def one(data: str, model: str) -> dict:
    """Milliseconds and nodes by size of the mesh, and bytes per node of the finest."""
    torch.set_num_threads(1)
    if model != "gno":
        parse(model)[0].build(Sizes(1, 1, 1, 2, 1.0, 1.0), 64)  # loads the library
    train = [str(path) for path in files(data, "train", N_TRAIN)]
    case = Case.model_validate({"data": {**FIELDS[data], "train": train, "cache": ""}, "training": {"epochs": 1}})
    spec = spec_of(case)
    network, blueprint, prepare = built(case, model, samples_of(case.data.paths()["train"], spec, case))
    found: dict = {"data": data, "model": model, "ms": {}, "nodes": {}}
    for k, (name, finer) in enumerate(MESHES.items(), start=1):
        raw = samples_of(files(data, "test", N_TEST, SPACING[data] * finer), spec, case)
        ready = [blueprint.normalisation.apply(prepare(sample)) for sample in numbered(raw, first=1000 * k)]
        batches = [collate([sample]) for sample in ready]
        peaks = list(predict(network, batches))
        found["ms"][name] = 1e3 * statistics.median(t for t, _ in peaks)
        found["nodes"][name] = statistics.fmean(sample.num_nodes for sample in raw)
        found["bytes"] = max(gb * 1e9 / batch.num_nodes for (_, gb), batch in zip(peaks, batches, strict=True))
    return found


def built(case: Case, model: str, samples: list[MeshData]) -> tuple[torch.nn.Module, Blueprint, Callable]:
    """The network with fresh weights, its blueprint, and what it adds to a sample."""
    blueprint = Blueprint.fit(case, spec_of(case), samples)
    torch.manual_seed(0)
    if model == "gno":
        return blueprint.model(0).eval(), blueprint, lambda sample: sample
    peer, width = parse(model)
    ready = [blueprint.normalisation.apply(peer.prepare(sample)) for sample in numbered(samples, first=0)]
    return AsOutput(peer.build(Sizes.of(ready), width)).eval(), blueprint, peer.prepare


@torch.inference_mode()
def predict(network: torch.nn.Module, batches: list) -> Iterator[tuple[float, float]]:
    """Median processor seconds of each mesh, and the most memory of one prediction, GB."""
    for batch in batches:
        network(batch)  # what a model remembers of a mesh is found here
        with Peak("cpu") as peak:
            network(batch)
        seconds = []
        for _ in range(REPEATS):
            start = time.process_time()
            network(batch)
            seconds.append(time.process_time() - start)
        yield statistics.median(seconds), peak.gb


def table(rows: list[dict]) -> str:
    """One line a model, the fastest first."""
    nodes = " / ".join(f"{rows[0]['nodes'][name]:.0f}" for name in MESHES)
    lines = [
        f"### {rows[0]['data']}: {nodes} nodes",
        "",
        f"| model | {' | '.join(f'ms at {name}' for name in MESHES)} | kB a node |",
        "|---|" + "--:|" * (len(MESHES) + 1),
    ]
    for row in sorted(rows, key=lambda row: row["ms"]["h/4"]):
        times = " | ".join(f"{row['ms'][name]:.1f}" for name in MESHES)
        lines.append(f"| {row['model']} | {times} | {row['bytes'] / 1e3:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", nargs="+", choices=tuple(FIELDS), default=["plates"])
    parser.add_argument("--models", nargs="+", metavar="NAME[:WIDTH]", default=["gno", *PEERS])
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(**json.loads(options.one))))
        return
    head = f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}"
    jobs = ({"data": data, "model": model} for data in options.data for model in options.models)
    rows = collect(jobs, RESULTS.with_suffix(".jsonl"), lambda job: apart(__file__, job))
    parts = [f"Printed by `python benchmarks/peer_inference.py`. {head}; processor time."]
    parts += [table([row for row in rows if row["data"] == data]) for data in dict.fromkeys(r["data"] for r in rows)]
    text = "\n\n".join(parts) + "\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
