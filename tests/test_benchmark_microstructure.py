"""The benchmark of microstructure, on coarse cells and a budget of nothing."""

import dataclasses
import importlib
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
benchmark, running, cells = (importlib.import_module(f"microstructure{n}") for n in ("", "_run", "_cells"))


@pytest.fixture
def coarse(tmp_path, monkeypatch):
    """A few cells of each kind on coarse meshes."""
    regimes = {name: dataclasses.replace(r, spacing=3 * r.spacing) for name, r in cells.REGIMES.items()}
    for module in (cells, running):
        monkeypatch.setattr(module, "REGIMES", regimes)
    monkeypatch.setattr(cells, "CACHE", tmp_path)
    monkeypatch.setattr(running, "PREDICTED", tmp_path / "predicted")
    for name in running.TESTS:
        monkeypatch.setitem(running.TESTS, name, 1)
    monkeypatch.setattr(running, "N_VALIDATION", 1)


def test_it_trains_measures_and_prints(coarse):
    rows = benchmark.smoke()
    assert all(math.isfinite(rows[1][name][key]) for name in running.TESTS for key in ("field", "flux", "effective"))
    assert rows[1]["steps"] > 0 and rows[1]["test"]["field"] < 0.9
    text = benchmark.table(rows)
    assert "| gno, balance, weight 1 | 0.003 | 4 | 1 |" in text and "| MsFEM, 8 × 8 | | | | " in text


def test_the_best_settings_on_validation_go_on():
    def row(physics, error, **others):
        job = benchmark.plain(running.Job("gno", benchmark.N_TRAIN, physics=physics, **others))
        return {**job, "validation": {"field": error}}

    rows = [row({}, 0.4), row({}, 0.3, batch_size=1), row({"intra": 1.0}, 0.1), row({}, 0.01, seed=1)]
    assert benchmark.chosen(rows, "gno")["batch_size"] == 1
    assert benchmark.chosen(rows, "gno, equation")["physics"] == {"intra": 1.0}
