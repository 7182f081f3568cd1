"""The doubt of rollouts: judged step by step, in windows, and calibrated where series are exchangeable."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gno.graph import FieldSpec
from gno.mesh import CellBlock, Mesh
from gno.uq import Uncertain, draw_rollout_doubt, evaluate_in_time
from gno.uq.in_time import intervals
from gno.uq.rollout import Step
from gno.uq.rollout_scores import judge_rollouts

N_NODES, N_STEPS = 60, 8


def sampler():
    """As much of one as judging reads: a field u, whose states have the spread one."""
    spec = SimpleNamespace(targets=(FieldSpec("u", "point", 1),), period=())
    normalisation = SimpleNamespace(states=SimpleNamespace(std=torch.ones(1)))
    return SimpleNamespace(operator=SimpleNamespace(blueprint=SimpleNamespace(spec=spec, normalisation=normalisation)))


def series(rng, too_sure=1.0, n_steps=N_STEPS):
    """Errors that grow as √k, in part common to all nodes; a spread that is too small by a factor."""
    size, common, steps = np.exp(0.3 * rng.normal()), rng.normal(), []
    for k in range(1, n_steps + 1):
        std = np.full((N_NODES, 1), size * k**0.5)
        error = std * (0.6 * common + 0.8 * rng.normal(size=std.shape))
        spread = Uncertain(np.stack([-std, std]) / (too_sure * 2**0.5))
        steps.append(Step(spread, error, np.full(N_NODES, 1 / N_NODES), None))
    return steps


def test_honest_doubt_is_found_honest_at_every_step():
    rng = np.random.default_rng(0)
    found = judge_rollouts(sampler(), [series(rng) for _ in range(300)])
    for k, step in enumerate(found.steps["u"], start=1):
        assert step.scores.sharpness == pytest.approx(step.scores.error, rel=0.15)
        assert step.scores.coverage[0.9] == pytest.approx(0.9, abs=0.03), k
        assert step.across.spearman > 0.3
    assert found.steps["u"][3].scores.sharpness == pytest.approx(2 * found.steps["u"][0].scores.sharpness)
    assert found.windows == [(1, 1), (6, 8)]
    window = found.window("u", 6, 8)
    for name in ("error", "crps", "ause", "pearson"):
        assert getattr(window.scores, name) == pytest.approx(
            np.mean([getattr(step.scores, name) for step in found.steps["u"][5:]])
        )
    assert window.scores.coverage[0.5] == pytest.approx(
        np.mean([step.scores.coverage[0.5] for step in found.steps["u"][5:]])
    )


def test_calibrated_intervals_cover_exchangeable_series_without_a_margin():
    """24 series for 90 %: a bound for certain would cover 92 to 94 %."""
    rng, inside = np.random.default_rng(1), []
    for _ in range(80):
        calibration = intervals(sampler(), [series(rng, 3.0, 2) for _ in range(24)])
        judged = judge_rollouts(sampler(), [series(rng, 3.0, 2) for _ in range(12)], calibration=calibration)
        assert judged.steps["u"][1].scores.coverage[0.9] < 0.7
        inside.append([step.calibrated.coverage[0.9] for step in judged.steps["u"]])
    slack = 3 * np.std(inside, axis=0) / len(inside) ** 0.5
    assert (np.abs(np.mean(inside, axis=0) - 0.9) < 0.005 + slack).all() and slack.max() < 0.02


def test_steps_beyond_the_calibrated_ones_have_no_intervals(tmp_path):
    rng = np.random.default_rng(2)
    calibration = intervals(sampler(), [series(rng, n_steps=7) for _ in range(9)])
    found = judge_rollouts(sampler(), [series(rng) for _ in range(3)], calibration=calibration)
    assert found.steps["u"][6].calibrated and not found.steps["u"][7].calibrated
    assert "u, steps 6:8, calibrated" in str(found) and "3 series of 8 steps" in str(found)
    document = json.loads(found.to_json())
    assert document["windows"]["u, step 1"]["calibrated"]["coverage"]["0.9"] > 0.5
    with found.write_csv(tmp_path / "doubt.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["step"] for row in rows] == [str(k) for k in range(1, 9)]
    assert rows[7]["calibrated_inside_90"] == "" and float(rows[6]["calibrated_inside_90"]) > 0.5
    assert float(rows[4]["error"]) == pytest.approx(found.steps["u"][4].scores.error, rel=1e-5)
    assert draw_rollout_doubt(found, tmp_path / "doubt.png").read_bytes().startswith(b"\x89PNG")


def test_a_series_that_diverges_is_judged_up_to_there(monkeypatch):
    rng = np.random.default_rng(3)
    good, bad = series(rng), series(rng)
    bad[3] = Step(Uncertain(np.full((2, N_NODES, 1), np.nan)), bad[3].truth, bad[3].mass, None)
    followed = iter([good, bad, bad[3:]])
    monkeypatch.setattr("gno.uq.rollout_scores.follow", lambda *_: iter(next(followed)))
    frames = [Mesh(np.eye(3)[:, :2], (CellBlock("triangle", np.array([[0, 1, 2]])),), source="b.pvd")]
    found = evaluate_in_time(sampler(), [frames, frames])
    assert found.n_steps == 3 and "b.pvd: diverged in step 4; later steps are not judged" in str(found)
    with pytest.raises(ValueError, match=r"b\.pvd: diverged in its first step"):
        evaluate_in_time(sampler(), [frames])
    with pytest.raises(ValueError, match="series to evaluate: expected at least one"):
        evaluate_in_time(sampler(), [])
