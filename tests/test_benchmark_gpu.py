"""The verdict on what a GPU is for, from rows as benchmarks leave them; `benchmarks/gpu.py --smoke` runs them all."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
gpu = importlib.import_module("gpu")


def scaling(nodes: int, forward: float, step: float, **more):
    floors = {"forward_floor": 0.005, "step_floor": 0.02, "step_gb": 12.0, "held_gb": 1.0, "machine": [4.3e12, 7.9e14]}
    return {"spacing": "own", "nodes": nodes, "edges": 6 * nodes, "levels": 6, "forward": forward, "step": step} | (
        floors | more
    )


GOOD = [
    {"device": "NVIDIA H200", "torch": "2.11.0", "copy": 4.3e12, "product": 7.9e14},
    {"step": "waits", "ended": "done"},
    {"step": "tests", "ended": "done"},
    scaling(1_000, 0.004, 0.012),
    scaling(10_000, 0.0001, 0.0004),
    scaling(1_000_000, 0.01, 0.04),
    {"ratio": 2.2, "one_s": 20.0, "at_once": 5},
    {"errors": {"same": {"displacement": 0.009, "von_mises": 0.1}}, "minutes": 3.0},
    {"kernel": "prolong", "way": "forward", "values": "bf16", "twin_ms": 4.0, "ms": 1.0, "floor_ms": 0.5},
]
BAD = [
    {"step": "waits", "ended": "failed with 1"},
    {"step": "tests", "ended": "stopped after 150 s"},
    scaling(1_000_000, 0.02, 0.06, step_gb=19.5),
    scaling(10_000, 0.0001, 0.0004),
    {"ratio": 2.6, "one_s": 20.0, "at_once": 5},
    {"errors": {"same": {"displacement": 0.011}}, "minutes": 3.0},
]


def judged(rows) -> list[str]:
    lines = gpu.verdict(rows).splitlines()
    start = lines.index("| target | measured | |") + 2
    return [line.split("|")[3].strip() for line in lines[start : lines.index("", start)]]


def test_targets_are_met_missed_or_not_measured():
    assert judged(GOOD) == ["met"] * 9
    assert judged(GOOD + BAD) == ["**missed**"] * 9  # what was measured last counts
    assert judged([]) == ["not measured"] * 9


def test_the_verdict_names_the_device_and_says_how_far_from_the_floor():
    text = gpu.verdict(GOOD)
    assert text.startswith("NVIDIA H200, torch 2.11.0: copy 4.30 TB/s, product 790 TFLOP/s")
    assert "| 10.0 ms, 2.0 × floor | met |" in text and "N^1.00" in text
    assert "| prolong | forward | 1.000 | 2.0 | 4.0 |" in text


def test_a_slower_memory_is_told():
    text = gpu.verdict([scaling(1_000_000, 0.02, 0.04, machine=[3.01e12, 7.9e14])])
    assert "| 20.0 ms, 4.0 × floor; 14.0 ms if as far from the floor of an H200 | **missed** |" in text
    assert "if as far" not in gpu.verdict(GOOD)


def test_a_step_that_memory_was_too_small_for_is_not_measured():
    row = scaling(1_000_000, 0.01, 0.04)
    for name in ("step", "step_gb", "step_floor"):
        del row[name]
    assert judged([row])[2:5] == ["met", "not measured", "not measured"]


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Two steps that leave a letter for each time they ran."""
    (tmp_path / "ran.py").write_text("import sys\nwith open(sys.argv[1], 'a') as file:\n    file.write('x')\n")
    quick = {name: (f"{tmp_path}/ran.py {{folder}}/{name}.ran", 30.0) for name in ("waits", "tests")}
    monkeypatch.setattr(gpu, "SMOKE", quick)
    monkeypatch.setattr(gpu, "device", lambda smoke: {"device": "CPU", "torch": "", "copy": 1.0, "product": 1.0})
    return quick


def call(monkeypatch, folder, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--smoke", "--folder", str(folder), *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    return ended.value.code


def endings(folder) -> list[str]:
    rows = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [row["ended"] for row in rows if "ended" in row]


def test_what_is_done_is_not_run_again_unless_it_is_named(tmp_path, monkeypatch, steps):
    good = steps["tests"]
    steps["tests"] = (f"{tmp_path}/missing.py", 30.0)
    assert call(monkeypatch, tmp_path) == 1
    steps["tests"] = good
    assert call(monkeypatch, tmp_path) == 0
    assert call(monkeypatch, tmp_path, "--steps", "tests") == 0
    assert [(tmp_path / f"{name}.ran").read_text() for name in ("waits", "tests")] == ["x", "xx"]
    assert endings(tmp_path) == ["done", "failed with 2", "done", "done"]


def test_a_step_that_takes_too_long_is_ended_with_what_it_started(tmp_path, monkeypatch, steps):
    late = tmp_path / "late"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(late)!r}).touch()"
    (tmp_path / "slow.py").write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n")
    steps.clear()
    steps["waits"] = (f"{tmp_path}/slow.py", 1.0)
    assert call(monkeypatch, tmp_path) == 1
    assert endings(tmp_path) == ["stopped after 1 s"]
    time.sleep(3.5)
    assert not late.exists()
