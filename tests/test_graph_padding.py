"""Batches filled up to few sizes: the operator says the same, and compiled code sees few shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import graph_cases
import pytest
import torch
import train_cases

from gno.graph import FieldSpec, collate
from gno.graph.padding import LOWEST, STEP, Ladder
from gno.nn.compiled import Compiled
from gno.train import train
from gno.train.checkpoint import load_tensors
from gno.train.loop import epoch_batches
from gno.train.losses import data_terms
from gno.train.normalise import Scale

SIZES = (6, 7, 8, 9, 9, 8, 7)


@pytest.fixture(scope="module")
def samples():
    meshes = [graph_cases.square(n, seed=n) for n in SIZES]
    return graph_cases.samples_of(*meshes, spec=graph_cases.spec_of(*meshes))


@pytest.fixture
def untraced(monkeypatch):
    """torch.compile has no say in what is computed, and takes long."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


@pytest.mark.parametrize("n_globals", [0, 2], ids=["plain", "conditioned"])
@pytest.mark.parametrize("chosen", [(0, 3, 5), (4,), (1, 2)], ids=["whole", "one", "short"])
def test_the_operator_says_the_same_with_the_same_gradient(samples, chosen, n_globals, untraced):
    operator = graph_cases.operator_for(samples[0], n_globals=n_globals)
    batch = collate([samples[k] for k in chosen])
    if n_globals:
        batch.parameters = torch.rand(len(chosen), n_globals, dtype=torch.float64)
    padded = Ladder.fit(samples, 3).pad(batch)
    ones = torch.ones(3, dtype=torch.float64)
    terms = data_terms([FieldSpec("u", "point", 1), FieldSpec("w", "point", 2)], Scale(0 * ones, ones, ones))
    found = []
    for model, given in ((operator, batch), (Compiled(operator), padded)):
        output = model(given)
        losses = torch.stack([term.loss(given, output) for term in terms])
        gradient = torch.autograd.grad(losses.sum(), list(operator.parameters()), allow_unused=True)
        parts = [p.flatten() for p in gradient if p is not None]
        found.append([*output.fields, *output.mass, *output.restrict(batch.y), losses, torch.cat(parts)])
    for plain, filled in zip(*found, strict=True):
        torch.testing.assert_close(filled, plain, rtol=1e-10, atol=1e-12)


def test_sizes_are_few_and_hold_every_batch(samples):
    ladder, shapes = Ladder.fit(samples, 2), set()
    for epoch in range(10):
        for chosen in epoch_batches(len(samples), 2, epoch):
            batch = ladder.pad(collate([samples[k] for k in chosen]))
            padded = batch.padded
            own = [len(batch[f"pos_{s}"]) for s in range(3)]
            graphs = [padded[f"pos_{s}_batch"] for s in range(3)]
            for n, graph in zip(own, graphs, strict=True):
                assert set(graph[n:].tolist()) == set(range(len(chosen), padded.num_graphs))
            assert int(torch.bincount(graphs[0]).max()) <= padded.longest[0]
            assert int(torch.bincount(torch.cat(graphs[1:])).max()) <= padded.longest_from[1]
            tensors = {key: tuple(value.shape) for key, value in padded.items() if torch.is_tensor(value)}
            shapes.add((*sorted(tensors.items()), padded.num_graphs))
    assert 2 <= len(shapes) <= 6  # of 40 batches


def test_what_is_filled_up_is_little():
    meshes = [graph_cases.square(n, seed=n) for n in (12, 13)]
    samples = graph_cases.samples_of(*meshes, spec=graph_cases.spec_of(*meshes))
    ladder, batch = Ladder.fit(samples, 2), collate(samples)
    n = len(batch.pos_0)
    assert n < len(ladder.pad(batch).padded.pos_0) <= n * STEP + 2
    assert len(ladder.pad(collate(samples[:1])).padded.pos_0) == pytest.approx((n + 2) * STEP**LOWEST, abs=1)


def compile_batches() -> dict[str, int]:
    """Shapes, and how often torch compiled for them."""
    meshes = [graph_cases.square(n, seed=n) for n in (7, 9, 7, 9)]
    samples = graph_cases.samples_of(*meshes, spec=graph_cases.spec_of(*meshes, n_levels=2))
    ladder, shapes, counters = Ladder.fit(samples, 1), set(), torch._dynamo.utils.counters
    compiled = Compiled(graph_cases.operator_for(samples[0], n_blocks=1), backend="eager")
    for sample in samples:
        batch = ladder.pad(collate([sample]))
        shapes.add(len(batch.padded.pos_0))
        compiled(batch)
    breaks = sum(counters["graph_break"].values())
    return {"shapes": len(shapes), "graphs": counters["stats"]["unique_graphs"], "breaks": breaks}


def test_compiled_once_for_each_size():
    # in a process without the checks of shapes that tests have, which torch.compile does not see through
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=180, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"shapes": 2, "graphs": 2, "breaks": 0}


def test_training_on_filled_batches_is_the_same_training(tmp_path, untraced):
    weights = []
    for name, compiled in (("plain", False), ("filled", True)):
        case = train_cases.case(precision="64", compile=compiled, epochs=1)
        train(case, tmp_path / name, meshes=train_cases.squares(5), progress=False)
        weights.append(load_tensors(tmp_path / name / "last.safetensors")[0])
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, rtol=1e-6, atol=1e-8)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compile_batches()))
