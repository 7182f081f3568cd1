"""Rollouts: exact cases, streaming to disk, stopping and going on, divergence, changing meshes."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from time_cases import case, decay, moving
from torch import nn

from gno.graph import SampleSpec
from gno.mesh import node_mass, read_series, write_series
from gno.train import Run
from gno.train.blueprint import Blueprint
from gno.train.case import Time
from gno.train.dynamics import RolloutScores
from gno.train.rollout import evaluate_rollouts, roll_out
from gno.train.trajectory import build_trajectory
from gno.uq import Ensemble
from gno.uq.rollout import roll_out as ensemble_roll_out

TIMES = [0.0, 0.1, 0.15, 0.3, 0.35, 0.6]  # not uniform


def blueprint_of(wanted, series):
    spec = SampleSpec.fit([frames[0] for frames in series], inputs=wanted.data.inputs, targets=wanted.data.targets)
    trajectories = [build_trajectory(frames, spec, wanted.time.forcing) for frames in series]
    return Blueprint.fit(wanted, spec, trajectories), trajectories


class Given(nn.Module):
    """An operator that answers with a function of its batch."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []
        self.dummy = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, batch):
        self.seen.append(batch)
        return SimpleNamespace(fields=(self.answer(batch),))


def nothing(batch):
    return torch.zeros(len(batch.x), 1, dtype=torch.float64)


def exact_decay(blueprint, k):
    """û for which a step of du/dt = −k u is exact, from the state that is the last column of x."""
    scale, rates = blueprint.normalisation.states, blueprint.normalisation.targets
    mean, std = (float(value) for value in (blueprint.normalisation.step.mean, blueprint.normalisation.step.std))

    def answer(batch):
        u = batch.x[:, -1:] * scale.std + scale.mean
        dt = (batch.parameters[0, -1] * std + mean).exp()
        return u * torch.expm1(-k * dt) / dt / rates.std

    return answer


def predicted(path, name="predicted_u"):
    return [mesh.point_fields[name] for mesh in read_series(path)]


def test_no_rate_leaves_the_state_to_the_bit(tmp_path):
    series = [decay(s, TIMES) for s in range(3)]
    blueprint, _ = blueprint_of(case(), series)
    rollout = roll_out(Given(nothing), blueprint, series[0], tmp_path / "a.pvd", n_steps=20)
    assert rollout.n_frames == 21 and rollout.diverged is None
    start = series[0][0].point_fields["u"]
    assert all(np.array_equal(u, start) for u in predicted(rollout.path))


def test_exact_rates_give_the_exact_decay_over_steps_that_differ(tmp_path):
    series = [decay(s, TIMES) for s in range(3)]
    blueprint, trajectories = blueprint_of(case(), series)
    model = Given(exact_decay(blueprint, 0.75))
    rollout = roll_out(model, blueprint, series[1], tmp_path / "a.pvd")
    assert list(read_series(rollout.path).times) == TIMES
    for u, mesh in zip(predicted(rollout.path), series[1], strict=True):
        np.testing.assert_allclose(u, mesh.point_fields["u"], rtol=1e-12)
    row = evaluate_rollouts([model], blueprint, trajectories[1:2]).rows[0]
    assert max(row.metrics["relative_l2"]["u"]) < 1e-12 and min(row.metrics["correlation"]["u"]) > 1 - 1e-9
    worse = evaluate_rollouts([Given(nothing)], blueprint, trajectories[1:2]).rows[0]
    np.testing.assert_allclose(worse.metrics["relative_l2"]["u"], np.expm1(0.75 * np.array(TIMES[1:])), rtol=1e-9)


def test_history_and_the_steps_between_reach_the_operator(tmp_path):
    series = [decay(s, TIMES) for s in range(3)]
    blueprint, _ = blueprint_of(case(Time(history=3)), series)
    model = Given(nothing)
    roll_out(model, blueprint, series[0], tmp_path / "a.pvd")
    scale = blueprint.normalisation.states
    first = model.seen[0].x[:, -3:] * scale.std + scale.mean
    truth = np.stack([mesh.point_fields["u"] for mesh in series[0][:3]], axis=1)
    np.testing.assert_allclose(first, truth, rtol=1e-12)
    step = blueprint.normalisation.step
    np.testing.assert_allclose((model.seen[1].parameters[0, -3:] * step.std + step.mean).exp(), np.diff(TIMES)[1:4])


def test_it_goes_on_where_it_stopped_to_the_bit(tmp_path):
    series = [decay(s, TIMES) for s in range(3)]
    blueprint, _ = blueprint_of(case(Time(history=2)), series)
    model = Given(lambda batch: torch.sin(3 * batch.x[:, -1:]) - 0.3 * batch.x[:, -2:-1])
    whole = roll_out(model, blueprint, series[0], tmp_path / "whole.pvd", n_steps=9)
    roll_out(model, blueprint, series[0], tmp_path / "parts.pvd", n_steps=4)
    parts = roll_out(model, blueprint, series[0], tmp_path / "parts.pvd", n_steps=9, resume=True)
    assert parts.n_frames == whole.n_frames == 11
    for a, b in zip(predicted(whole.path), predicted(parts.path), strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match=r"parts\.pvd: expected the beginning of this rollout, got 11 frames"):
        roll_out(model, blueprint, series[0], tmp_path / "parts.pvd", n_steps=9, step=0.2, resume=True)
    with pytest.raises(ValueError, match=r"parts\.pvd: expected at most 3 steps so far, got 9; ask for more steps"):
        roll_out(model, blueprint, series[0], tmp_path / "parts.pvd", n_steps=3, resume=True)


def test_a_shorter_rollout_leaves_no_frames_of_a_longer_one(tmp_path):
    series = [decay(s) for s in range(3)]
    blueprint, _ = blueprint_of(case(), series)
    for n_steps in (20, 4):
        rollout = roll_out(Given(nothing), blueprint, series[0], tmp_path / "a.pvd", n_steps=n_steps)
    assert len(list(tmp_path.iterdir())) == 1 + rollout.n_frames == 6
    long = roll_out(Given(nothing), blueprint, series[0], tmp_path / "b.pvd", n_steps=30)
    assert read_series(long.path).times[-1] == 3.0  # not a digit too many


def test_a_series_that_is_no_rollout_is_not_written_over(tmp_path):
    series = [decay(s) for s in range(3)]
    blueprint, _ = blueprint_of(case(), series)
    write_series(series[0], tmp_path / "a.pvd")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"a\.pvd: expected an earlier rollout or nothing .*; choose another folder"):
        roll_out(Given(nothing), blueprint, read_series(tmp_path / "a.pvd"), tmp_path / "a.pvd", n_steps=4)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize(("factor", "said"), [(10.0, "from the mean of the training"), (float("nan"), "not finite")])
def test_divergence_is_said_and_not_written(tmp_path, factor, said):
    series = [decay(s) for s in range(3)]
    blueprint, _ = blueprint_of(case(), series)
    model = Given(lambda batch: factor * (1 + batch.x[:, -1:].abs()))
    rollout = roll_out(model, blueprint, series[0], tmp_path / "a.pvd", n_steps=50)
    assert rollout.n_frames < 51 and "diverged in step" in rollout.diverged and said in rollout.diverged
    frames = predicted(rollout.path)
    assert len(frames) == rollout.n_frames and all(np.isfinite(u).all() for u in frames)
    assert f"diverged in step {rollout.n_frames} " in rollout.diverged


def test_a_start_far_outside_of_training_is_named_as_the_reason(tmp_path):
    series = [decay(s) for s in range(3)]
    blueprint, _ = blueprint_of(case(), series)
    frames = [mesh.with_point_fields(u=1000 * mesh.point_fields["u"]) for mesh in series[0]]
    rollout = roll_out(Given(nothing), blueprint, frames, tmp_path / "a.pvd")
    assert "diverged" not in rollout.diverged and "stopped in step 1 (time 0.1): 'u' starts " in rollout.diverged
    assert "are its units those of the training?" in rollout.diverged and rollout.n_frames == 1


def test_a_mesh_that_changes_every_step(tmp_path):
    series = [moving(s) for s in range(2)]
    blueprint, trajectories = blueprint_of(case(), series)
    assert trajectories[0].changes and len(trajectories[0].samples) == 6
    rollout = roll_out(Given(exact_decay(blueprint, 0.5)), blueprint, series[0], tmp_path / "a.pvd")
    for mesh, truth in zip(read_series(rollout.path), series[0], strict=True):
        assert mesh.n_nodes == truth.n_nodes
        np.testing.assert_allclose(mesh.point_fields["predicted_u"], truth.point_fields["u"], rtol=1e-9)
    row = evaluate_rollouts([Given(exact_decay(blueprint, 0.5))], blueprint, trajectories[:1]).rows[0]
    assert max(row.metrics["relative_l2"]["u"]) < 1e-6


def test_forcing_must_be_known_and_is_read_at_both_ends(tmp_path):
    heated = [
        [m.replace(global_fields={**m.global_fields, "heat": np.array([j * 1.0])}) for j, m in enumerate(decay(s))]
        for s in range(3)
    ]
    wanted = case(Time(forcing=("heat",)), inputs=("k", "heat"))
    blueprint, _ = blueprint_of(wanted, heated)
    model = Given(nothing)
    roll_out(model, blueprint, heated[0], tmp_path / "a.pvd", n_steps=3)
    scale = blueprint.normalisation.inputs
    ends = [batch.x[0, [1, 2]] * scale.std[1] + scale.mean[1] for batch in model.seen]
    np.testing.assert_allclose(torch.stack(ends), [[0, 1], [1, 2], [2, 3]], atol=1e-6)
    with pytest.raises(ValueError, match="expected 12 frames, since 'heat' is to be known at all times, got 8"):
        roll_out(model, blueprint, heated[0], tmp_path / "b.pvd", n_steps=11)


def test_a_steady_run_says_so(tmp_path):
    blueprint, _ = blueprint_of(case(), [decay(0)])
    steady = dataclasses.replace(blueprint, case=blueprint.case.model_copy(update={"time": None}))
    with pytest.raises(ValueError, match=r"expected a run whose case has \[time\], got a steady one"):
        roll_out(Given(nothing), steady, decay(0), tmp_path / "a.pvd")


def test_errors_over_time_do_not_depend_on_the_unit():
    """Micrometres in metres: what VRMSE adds to the variance must not be larger than that."""
    tables = []
    for unit in (1.0, 1e-6):
        series = [[mesh.with_point_fields(u=unit * mesh.point_fields["u"]) for mesh in decay(s)] for s in range(3)]
        blueprint, trajectories = blueprint_of(case(), series)
        tables.append(evaluate_rollouts([Given(nothing)], blueprint, trajectories[:1]).rows[0].metrics)
    for name, table in tables[0].items():
        np.testing.assert_allclose(tables[1][name]["u"], table["u"], rtol=1e-5)


def test_a_field_that_is_zero_at_first_is_measured_by_its_usual_size():
    """As damage before it sets in: neither round-off nor infinity may decide which weights are the best."""
    series = [[m.with_point_fields(u=m.point_fields["u"] * (k > 3) + 1e-18) for k, m in enumerate(decay(0))]]
    wanted, (blueprint, trajectories) = case(), blueprint_of(case(), series)
    ready = [trajectories[0].normalised(blueprint.normalisation, [], torch.float64)]

    def one(batch):
        return torch.ones(len(batch.x), 1, dtype=torch.float64)

    scores = RolloutScores(ready, blueprint.normalisation, blueprint.spec, wanted.time)(Given(one))
    assert 0.01 < scores["score"] < 100
    errors = np.array(evaluate_rollouts([Given(one)], blueprint, trajectories).rows[0].metrics["relative_l2"]["u"])
    assert np.isnan(errors[:3]).all() and np.isfinite(errors[3:]).all()


def test_times_that_do_not_increase_are_told_before_the_first_step(tmp_path):
    series = [decay(s) for s in range(2)]
    blueprint, _ = blueprint_of(case(), series)
    still = [mesh.replace(time=0.0) for mesh in series[0]]
    with pytest.raises(ValueError, match=r"times: expected them to increase, got 0 after 0 \(decay 0 t=0\)"):
        roll_out(Given(nothing), blueprint, still, tmp_path / "a.pvd")


def test_a_value_of_the_whole_is_the_mean_by_mass(tmp_path):
    """On a mesh whose nodes lie close on one side."""

    def crowded(mesh):
        return mesh.replace(points=mesh.points**2, global_fields={**mesh.global_fields, "u": np.array(1.0)})

    series = [[crowded(mesh).replace(point_fields={}) for mesh in decay(s)] for s in range(2)]
    blueprint, _ = blueprint_of(case(), series)
    model = Given(lambda batch: batch.pos_0[:, :1].double())
    last = read_series(roll_out(model, blueprint, series[0], tmp_path / "a.pvd").path)[-1]
    expected = np.average(last.point_fields["predicted_u"], weights=node_mass(last))
    assert float(last.global_fields["predicted_u"]) == pytest.approx(expected)


def test_an_ensemble_writes_over_its_own_frames_only(tmp_path):
    series = [decay(s, TIMES) for s in range(2)]
    blueprint, _ = blueprint_of(case(), series)
    ensemble = Ensemble(tuple(Run(tmp_path, blueprint, blueprint.model(seed).eval()) for seed in range(2)))
    for n_steps in (5, 2):
        ensemble_roll_out(ensemble, series[0], tmp_path / "a.pvd", n_steps=n_steps)
        assert len(list(tmp_path.glob("a_*.vtu"))) == len(read_series(tmp_path / "a.pvd")) == 1 + n_steps
    write_series(series[1], tmp_path / "b.pvd")
    before = (tmp_path / "b.pvd").read_bytes()
    with pytest.raises(ValueError, match=r"b\.pvd: expected an earlier rollout or nothing .* without 'predicted_u'"):
        ensemble_roll_out(ensemble, series[0], tmp_path / "b.pvd", n_steps=2)
    assert (tmp_path / "b.pvd").read_bytes() == before


def test_fields_that_change_are_not_known_behind_the_last_frame(tmp_path):
    """Neither targets nor others: those of the first frame would be shown there as if they were of that time."""

    def other(mesh):
        fields = {"p": mesh.points[:, 0] + mesh.time, "part": np.full(mesh.n_nodes, np.nan)}
        return mesh.with_point_fields(**fields)

    series = [[other(mesh) for mesh in decay(s, TIMES)] for s in range(2)]
    blueprint, _ = blueprint_of(case(), series)
    frames = read_series(roll_out(Given(nothing), blueprint, series[0], tmp_path / "a.pvd", n_steps=7).path)
    assert {"u", "p", "part"} < set(frames[5].point_fields)
    assert set(frames[6].point_fields) == {"part", "predicted_u"} and set(frames[6].global_fields) == {"k"}
