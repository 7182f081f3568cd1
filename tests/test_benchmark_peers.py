"""The comparison with peers, as far as it needs none: table, error, padding, neighbours."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skfem import MeshTri
from torch import nn

from gno.graph import SampleSpec, build_sample
from gno.mesh import CellBlock, Mesh
from gno.nn import Output
from gno.train import Case
from gno.train.blueprint import Blueprint

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
peer_table, peer_models, peer_run = (importlib.import_module(f"peer_{name}") for name in ("table", "models", "run"))


def row(model: str, error: float, *, lr: float = 1e-3, seed: int = 0, data: str = "plates", **more):
    errors = {"same": {"u": error, "s": error}, "finer": {"u": 2 * error, "s": 3 * error}}
    settings = {"optimiser": "adamw", "lr": lr, "batch_size": 4}
    budget = {"minutes": 5.0, "n_train": 400, "n_test": 50, "device": "cpu", "threads": 2, "machine": "m"}
    measured = {"samples_per_second": 10.0, "inference_ms": {"same": 3.0, "finer": 12.0}, "idle_mb": 400.0}
    rest = {"peak_mb": 650.0, "parameters": 1234567, "steps": 100, "nodes": {"same": 1000.0, "finer": 4000.0}}
    return {"model": model, "data": data, "seed": seed, "errors": errors, "settings": settings} | (
        budget | measured | rest | more
    )


def cells(text: str, model: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {model} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_takes_the_best_settings_and_sorts():
    text = peer_table.tables([row("slow", 0.3), row("good", 0.5, lr=1e-3), row("good", 0.1, lr=3e-4)])
    assert cells(text, "good") == [
        *("good", "10.0 %", "10.0 %", "20.0 %", "30.0 %", "10.0", "3.0", "12.0", "250", "1,234,567")
    ]
    assert text.index("| good") < text.index("| slow")
    assert "good: tried adamw 0.0003 batch 4 (100 steps): 10.0 %; adamw 0.001 batch 4 (100 steps): 50.0 %" in text


def test_seeds_are_averaged_and_a_repeated_training_replaces_the_earlier_one():
    text = peer_table.tables([row("m", 0.9, seed=0), row("m", 0.1, seed=0), row("m", 0.3, seed=1)])
    assert cells(text, "m")[1] == "20.0 ± 14.1 %"


def test_a_training_that_is_there_is_found_and_a_failed_or_another_one_is_not():
    rows = [row("m", 0.3), row("m", 0.2, lr=3e-4), {**row("n", 0.1), "failure": "no memory"}]
    job = {"model": "m", "data": "plates", "seed": 0, "minutes": 5.0, "settings": {"lr": 3e-4}}
    assert peer_table.find(rows, job) is rows[1]
    for other in ({"model": "n"}, {"seed": 1}, {"minutes": 1.0}, {"settings": {"lr": 1e-2}}):
        assert peer_table.find(rows, {**job, **other}) is None


def test_budgets_and_data_sets_are_not_mixed_and_failures_are_told():
    failed = {**row("bad", 0.0), "failure": "RuntimeError: no memory"}
    text = peer_table.tables([row("a", 0.1), row("a", 0.2, minutes=1.0), row("a", 0.3, data="flow"), failed])
    assert text.count("###") == 3
    assert "bad: failed, RuntimeError: no memory" in text and "| bad" not in text


def test_only_failures_make_no_table_but_say_why():
    assert "bad: failed, oops" in peer_table.tables([{**row("bad", 0.0), "failure": "oops"}])


def test_results_are_appended_line_by_line(tmp_path):
    path = tmp_path / "results" / "peers.jsonl"
    assert peer_table.read(path) == []
    for error in (0.1, 0.2):
        peer_table.append(row("m", error), path)
    assert [r["errors"]["same"]["u"] for r in peer_table.read(path)] == [0.1, 0.2]
    assert all(json.loads(line) for line in path.read_text().splitlines())


class Answer(nn.Module):
    """Predicts the truth, in normalised units, times a factor in physical ones."""

    def __init__(self, scale, factor: float) -> None:
        super().__init__()
        self.scale, self.factor = scale, factor

    def forward(self, batch):
        physical = self.factor * self.scale.decode(batch.y)
        answer = ((physical - self.scale.mean) / self.scale.std).float()
        return Output((answer,), (batch.mass_0,), (batch.pos_0,), (batch.pos_0_batch,), ())


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (1.5, 0.5), (0.0, 1.0)])
def test_error_is_relative_and_in_physical_units(factor, expected):
    triangles = MeshTri().refined(3)
    points = triangles.p.T
    fields = {"a": points[:, 0], "u": 300.0 + points[:, 1]}
    mesh = Mesh(points, (CellBlock("triangle", triangles.t.T.copy()),), point_fields=fields)
    spec = SampleSpec.fit([mesh], inputs=["a"], targets=["u"])
    samples = [build_sample(mesh, spec)]
    case = Case.model_validate({"data": {"inputs": ["a"], "targets": ["u"]}, "training": {"epochs": 1}})
    blueprint = Blueprint.fit(case, spec, samples)
    model = Answer(blueprint.normalisation.targets, factor)
    errors, seconds = peer_run.evaluate(model, blueprint, samples, "cpu")
    assert errors["u"] == pytest.approx(expected, abs=1e-6) and seconds > 0


def test_padding_repeats_nodes_of_the_same_mesh_and_finds_every_node():
    sizes = torch.tensor([5, 9, 7])
    start = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
    graph = torch.repeat_interleave(torch.arange(3), sizes)
    rows, column = peer_models.repeated(start, graph, 9)
    assert rows.shape == (3, 9)
    assert torch.equal(graph[rows], torch.arange(3)[:, None].expand(3, 9))
    assert torch.equal(rows[graph, column], torch.arange(21))
    assert rows[0, 5:].unique().numel() == 4  # spread, not one node over and over


def test_neighbours_are_those_within_the_radius():
    rng = np.random.default_rng(0)
    data, queries = rng.random((40, 2)), rng.random((30, 2))
    found = peer_models.neighbours(data, queries, 0.2)
    splits, index = found["neighbors_row_splits"], found["neighbors_index"]
    distance = np.linalg.norm(queries[:, None] - data[None], axis=2)
    for k in range(30):
        assert index[splits[k] : splits[k + 1]].tolist() == np.flatnonzero(distance[k] <= 0.2).tolist()


def test_names_carry_widths():
    assert peer_models.parse("meshgraphnet:128")[1] == 128
    for name in ("meshgrafnet", "gino:wide"):
        with pytest.raises(ValueError, match="expected one of gno"):
            peer_models.parse(name)


def test_complex_weights_count_twice():
    model = nn.Linear(3, 2, bias=False)
    model.spectrum = nn.Parameter(torch.zeros(5, dtype=torch.complex64))
    assert peer_models.n_weights(model) == 6 + 10
