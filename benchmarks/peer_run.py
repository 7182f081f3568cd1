"""One training of one model in this process: `python benchmarks/peer_run.py '{"data": "plates", …}' RESULT.json`.

`benchmarks/peers.py` starts one such process per training, so that memory is measured for each alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from data import CACHE, FIELDS, SPACING, files
from peer_models import AsOutput, Sizes, n_weights, parse, spec_of
from quiet import train_quietly
from torch import nn

from gno.graph import MeshData, collate
from gno.train import Case, Training, train
from gno.train.blueprint import Blueprint
from gno.train.checkpoint import load_tensors
from gno.train.evaluate import relative_errors
from gno.train.losses import data_terms
from gno.train.sources import samples_of

# Test meshes: spacing in that of the training meshes.
MESHES = {"same": 1.0, "finer": 0.5}
MEGABYTE = 2**20
CLOCKS = {"wall": time.monotonic, "processor": time.process_time}


@dataclasses.dataclass(frozen=True)
class Job:
    """One training.

    Args:
        data, model, seed, minutes, device, threads: what, and on what. `model` is `gno` or of `peer_models`.
        clock: of the minutes: `wall`, or `processor` time, which is fair for one thread on a busy machine.
        n_train, n_test: meshes.
        settings: of `gno.train.Training`, over what the model's authors set and that over gno's defaults.
    """

    data: str
    model: str
    seed: int
    minutes: float
    device: str
    threads: int
    clock: str
    n_train: int
    n_test: int
    settings: dict[str, Any]

    def case(self) -> Case:
        """The case as a user would write it, for gno and, as far as it concerns them, for its peers."""
        own = {} if self.model == "gno" else {"optimiser": "adamw", **parse(self.model)[0].settings}
        shared = {"minutes": self.minutes, "device": self.device, "seed": self.seed}
        paths = tuple(str(path) for path in files(self.data, "train", self.n_train))
        return Case.model_validate(
            {
                "data": {**FIELDS[self.data], "train": paths, "folder": CACHE.parent, "cache": CACHE.name},
                "training": {**shared, **own, **self.settings},
            }
        )

    def test_files(self, size: str) -> list[Path]:
        """Test meshes of a size in `MESHES`."""
        return files(self.data, "test", self.n_test, SPACING[self.data] * MESHES[size])


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model with the blueprint of its samples, and what the training was like."""

    model: nn.Module
    blueprint: Blueprint
    steps: int
    seconds: float
    processor_seconds: float
    peak_memory: float


def train_gno(job: Job) -> Trained:
    """As `gno.train` ships it."""
    with tempfile.TemporaryDirectory() as directory:
        processor = time.process_time()
        run = train(job.case(), directory, progress=False, clock=CLOCKS[job.clock])
        processor = time.process_time() - processor
        _, document = load_tensors(Path(directory) / "last.safetensors")
    done = document["progress"]
    model = run.model.to(job.device)
    return Trained(model, run.blueprint, done["step"], done["seconds"], processor, _peak_memory(job.device))


def train_peer(job: Job) -> Trained:
    """A peer in gno's training loop, with gno's loss on the mesh itself; only the model and its settings differ."""
    case, (peer, width) = job.case(), parse(job.model)
    sources = case.data.paths()["train"]
    spec = spec_of(case)
    samples = numbered(samples_of(sources, spec, case), first=0)
    blueprint = Blueprint.fit(case, spec, samples)
    ready = [blueprint.normalisation.apply(peer.prepare(sample)) for sample in samples]
    torch.manual_seed(job.seed)
    model = AsOutput(peer.build(Sizes.of(ready), width))
    processor = time.process_time()
    terms = data_terms(spec.targets, blueprint.normalisation.targets)
    optimiser = adamw if case.training.optimiser == "adamw" else None
    average, done = train_quietly(case, model, ready, terms, optimiser=optimiser, clock=CLOCKS[job.clock])
    processor = time.process_time() - processor
    return Trained(average, blueprint, done.step, done.seconds, processor, _peak_memory(job.device))


def numbered(samples: list[MeshData], first: int) -> list[MeshData]:
    """Samples with a number of their own, by which a model may remember what it computed of a mesh."""
    for number, sample in enumerate(samples, start=first):
        sample.number = torch.tensor([number])
    return samples


def test_samples(job: Job, blueprint: Blueprint) -> dict[str, list[MeshData]]:
    """Raw samples by size of the mesh, with what the model needs besides."""
    prepare = (lambda sample: sample) if job.model == "gno" else parse(job.model)[0].prepare
    samples = {}
    for k, size in enumerate(MESHES, start=1):
        raw = samples_of(job.test_files(size), blueprint.spec, blueprint.case)
        samples[size] = [prepare(sample) for sample in numbered(raw, first=1_000_000 * k)]
    return samples


def adamw(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """AdamW as its authors have it: weight decay on all weights, and complex weights welcome."""
    return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)


@torch.inference_mode()
def evaluate(
    model: nn.Module, blueprint: Blueprint, samples: Sequence[MeshData], device: str
) -> tuple[dict[str, float], float]:
    """Relative L2 error by field, in physical units, weighted by node mass, averaged over meshes; median seconds.

    Each mesh goes alone and twice; the second time is measured, with everything prepared that depends on it alone.
    """
    model.eval()
    rows, seconds = [], []
    for sample in samples:
        batch = collate([blueprint.normalisation.apply(sample)]).to(device)
        for _ in range(2):
            start = time.perf_counter()
            predicted = model(batch).fields[0]
            if predicted.is_cuda:
                torch.cuda.synchronize()
            took = time.perf_counter() - start
        seconds.append(took)
        physical = blueprint.normalisation.targets.decode(predicted.float().cpu())
        rows.append(relative_errors(physical, sample, blueprint.spec.targets))
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}, statistics.median(seconds)


def run(job: Job) -> dict[str, Any]:
    """Train and evaluate; everything that is worth keeping."""
    torch.set_num_threads(job.threads)
    if job.model != "gno":
        parse(job.model)[0].build(Sizes(1, 1, 1, 2, 1.0, 1.0), 64)  # loads the library, whose memory is not the model's
    idle = _memory(job.device)
    trained = train_gno(job) if job.model == "gno" else train_peer(job)
    samples = test_samples(job, trained.blueprint)
    scores = {size: evaluate(trained.model, trained.blueprint, samples[size], job.device) for size in MESHES}
    settings = trained.blueprint.case.training
    return {
        **dataclasses.asdict(job),
        "settings": {key: getattr(settings, key) for key in ("lr", "optimiser", "batch_size", "clip", "weight_decay")},
        "errors": {size: errors for size, (errors, _) in scores.items()},
        "inference_ms": {size: 1e3 * seconds for size, (_, seconds) in scores.items()},
        "nodes": {size: statistics.fmean(s.num_nodes for s in samples[size]) for size in MESHES},
        "parameters": n_weights(trained.model),
        "steps": trained.steps,
        "seconds": trained.seconds,
        "samples_per_second": trained.steps * min(settings.batch_size, job.n_train) / trained.seconds,
        "processor_seconds": trained.processor_seconds,
        "idle_mb": idle / MEGABYTE,
        "peak_mb": trained.peak_memory / MEGABYTE,
    }


def _memory(device: str) -> float:
    """Bytes of memory in use: on the GPU if there is one, else by this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.memory_allocated())
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _peak_memory(device: str) -> float:
    """The most bytes that were in use: on the GPU if there is one, else in this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main() -> None:
    job, target = Job(**json.loads(sys.argv[1])), Path(sys.argv[2])
    result = run(job)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(target)


if __name__ == "__main__":
    main()
