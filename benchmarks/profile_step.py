"""Where a training step goes on the CPU: `python benchmarks/profile_step.py --threads 1` prints a table.

One batch of training meshes; forward, loss and backward in processor time (fair on a busy machine), and the share of
each kind of operation by torch's profiler. What is computed once per mesh is not in it: it is read from the sample.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch
from data import FIELDS, files
from torch.profiler import ProfilerActivity, profile

from gno.graph import collate
from gno.train import Case
from gno.train.blueprint import Blueprint
from gno.train.losses import data_terms
from gno.train.sources import fit_spec, samples_of

# Kinds of operations by words in their names; the first that fits counts.
KINDS = {
    "attention": ("scaled_dot_product",),
    "matrix products": ("mm", "matmul", "linear"),
    "sparse products": ("embedding_bag",),
    "gathers": ("index", "gather", "scatter", "sort", "cumsum"),
    "norms": ("rms_norm", "layer_norm", "rsqrt", "pow"),
    "activations": ("silu", "softmax"),
    "copies": ("copy", "cat", "fill", "zero", "empty", "contiguous", "stack"),
}


def kind_of(name: str) -> str:
    """Kind of an operation by its name.

    >>> kind_of("aten::addmm"), kind_of("aten::mul")
    ('matrix products', 'other pointwise operations and sums')
    """
    found = (kind for kind, words in KINDS.items() if any(word in name for word in words))
    return next(found, "other pointwise operations and sums")


def seconds(step: Callable[[], None], repeats: int) -> list[float]:
    """Processor time of each repeat, after three to warm up."""
    taken = []
    for _ in range(3 + repeats):
        start = time.process_time()
        step()
        taken.append(time.process_time() - start)
    return taken[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(FIELDS), default="plates")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", action="store_true", help="the operator through torch.compile")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    paths = tuple(str(path) for path in files(chosen.data, "train", chosen.batch_size))
    case = Case.model_validate(
        {"data": {**FIELDS[chosen.data], "train": paths, "cache": ""}, "training": {"epochs": 1}}
    )
    sources = case.data.paths()["train"]
    spec = fit_spec(case, sources)
    raw = samples_of(sources, spec, case)
    blueprint = Blueprint.fit(case, spec, raw)
    batch = collate([blueprint.normalisation.apply(sample) for sample in raw])
    model = blueprint.model(0)
    operator = torch.compile(model, dynamic=True) if chosen.compile else model
    terms = data_terms(spec.targets, blueprint.normalisation.targets)

    def step() -> None:
        output = operator(batch)
        sum(term.weight * term.loss(batch, output) for term in terms).backward()
        model.zero_grad()

    taken = seconds(step, chosen.repeats)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(chosen.repeats):
            step()
    share: Counter[str] = Counter()
    for event in recorded.key_averages():
        share[kind_of(event.key)] += event.self_cpu_time_total
    print(
        f"{chosen.data}, {chosen.batch_size} meshes, {batch.pos_0.shape[0]} nodes in all, {chosen.threads} thread(s), "
    )
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}\n")
    print("| forward and backward | |\n| --- | --: |")
    print(f"| median | {1e3 * statistics.median(taken):.0f} ms |")
    for kind, amount in share.most_common():
        print(f"| {kind} | {100 * amount / sum(share.values()):.0f} % |")


if __name__ == "__main__":
    main()
