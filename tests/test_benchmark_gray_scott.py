"""The Gray–Scott benchmark, on a mesh and a budget of nothing."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
benchmark, running = (importlib.import_module(name) for name in ("gray_scott", "gray_scott_run"))


def test_it_trains_measures_and_prints(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "CACHE", tmp_path)
    rows = benchmark.smoke(["gno"])
    assert math.isfinite(rows[0]["test"]["all"]) and rows[0]["long"]["largest"] > 0
    job = running.Job("gno", 2, 0, 0.01, 4e-3, spacing=0.06, n_frames=12)
    monkeypatch.setattr(running, "SOLVERS", [(11, 1.0), (6, 10.0)])
    rows += running.solver_rows(running.series(job, "test", 1))
    good, bad = (row["test"]["all"] for row in rows[1:])
    assert good < bad  # a coarser mesh and longer steps are worse
    text = benchmark.table(rows)
    assert "| gno | 2 | 0.01 | 0 | 1 |" in text and "| 121 | 1 |" in text


def test_errors_are_those_of_all_trajectories_together():
    mass = np.array([1.0, 1.0])
    pairs = [running.squares(np.array(v), np.array([0.0, 2.0]), mass) for v in ([0.0, 2.0], [1.0, 1.0])]
    assert running.vrmse(np.array(pairs)[None])["all"] == math.sqrt(1 / 2)
    lost = running.squares(np.array([np.nan, 0.0]), np.array([0.0, 1.0]), mass)
    assert lost[0] > 1e4  # what is no number is far away, not missing
