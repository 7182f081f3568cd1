"""The spread of samples, widened to the errors of held-out meshes: closed forms, what stays, what follows from it."""

import dataclasses
import json

import numpy as np
import pytest
import time_cases
import torch
from test_uq_in_time import sampler as reader
from test_uq_in_time import series
from train_cases import square, squares, untrained

from gno.commands.calibrate import describe
from gno.mesh import node_mass
from gno.nn import NoisyOutput, Output
from gno.train import train
from gno.train.rollout import mesh_changes
from gno.uq import (
    Calibrated,
    Conformal,
    Ensemble,
    Spread,
    Uncertain,
    Widened,
    calibrate_derived,
    choose_runs,
    evaluate,
    widen,
)
from gno.uq.in_time import detector_in_time, widen_in_time
from gno.uq.sampler import Sampler, _on_common_anchors
from gno.uq.scales import averaged_noise
from gno.uq.whole import shape_of

FLOOR = 1e-6


def pair(std, noise=None):
    """Two samples around zero with this standard deviation."""
    samples = np.stack([-std, std]) / np.sqrt(2)
    return Uncertain(samples, None if noise is None else np.broadcast_to(noise**2, samples.shape))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Untrained operators that pool each in its own way."""
    return untrained(tmp_path_factory.mktemp("run"))


def test_the_factor_of_samples_alone_is_the_mean_square_of_what_they_expect():
    rng, parts = np.random.default_rng(0), []
    for _ in range(40):
        std = np.exp(rng.normal(size=(30, 2)))
        parts.append((pair(std), 2.5 * std * rng.normal(size=std.shape), rng.uniform(0.1, 2, 30)))
    found = Spread.fit(*zip(*parts, strict=True), floor=FLOOR)
    square = [float(m @ ((y / u.std) ** 2).mean(1) / m.sum()) for u, y, m in parts]  # every mesh counts the same
    assert found.samples == pytest.approx(np.sqrt(np.mean(square)), rel=1e-4) and found.noise == 1
    assert found.samples == pytest.approx(2.5, rel=0.05)
    alone = Spread.fit(*zip(*((pair(0 * u.std, u.std), y, m) for u, y, m in parts), strict=True), floor=FLOOR)
    assert (alone.samples, alone.noise) == (1, pytest.approx(found.samples, rel=1e-4))
    assert Spread.fit([Uncertain(np.zeros((1, 3)))], [np.ones(3)], [np.ones(3)], floor=FLOOR) == Spread()
    with pytest.raises(ValueError, match="held-out meshes: expected at least one, got none"):
        Spread.fit([], [], [], floor=FLOOR)


@pytest.mark.parametrize(("s", "t"), [(3.0, 0.5), (6.0, 0.0), (0.0, 2.0)])
def test_spread_and_noise_are_told_apart(s, t):
    rng, parts = np.random.default_rng(1), []
    for _ in range(60):
        std, noise = np.exp(rng.normal(size=(2, 50, 1)))
        error = s * std * rng.normal(size=std.shape) + t * noise * rng.normal(size=std.shape)
        parts.append((pair(std, noise), error, np.ones(50)))
    found = Spread.fit(*zip(*parts, strict=True), floor=FLOOR)
    assert found.samples == pytest.approx(s, rel=0.06, abs=0.1) and found.noise == pytest.approx(t, rel=0.06, abs=0.1)


def test_widened_samples_keep_their_mean_and_every_linear_law():
    rng = np.random.default_rng(2)
    u = Uncertain(rng.normal(size=(7, 5, 2)), rng.uniform(size=(7, 5, 2)))
    wide = u.widened(np.array([3.0, 0.5]), 2.0)
    assert wide.mean == pytest.approx(u.mean, abs=1e-14)
    assert np.sqrt(wide.epistemic) == pytest.approx(np.sqrt(u.epistemic) * [3.0, 0.5])
    assert wide.aleatoric == pytest.approx(4 * u.aleatoric)
    law = rng.normal(size=5)
    fields = u.samples[..., 0] - np.outer(u.samples[..., 0] @ law - 2.0, law) / (law @ law)  # law · u_k = 2
    assert Uncertain(fields).widened(9.0, 1.0).samples @ law == pytest.approx(2.0)
    energy = wide.map(lambda v: (v**2).sum())  # around that of the mean, whatever the widening
    assert energy.mean == pytest.approx((wide.mean**2).sum())
    assert energy.std == pytest.approx((wide.samples**2).sum((1, 2)).std(ddof=1))
    given = Uncertain(np.full((4, 3), 0.1)).widened(5.0, 1.0)
    assert (given.samples == 0.1).all()  # to the bit


def test_a_reaction_is_covered_as_often_as_it_says():
    """Fields u = Ψw with w ~ N(0, C): draws of w a third as large; what is linear in u is Gaussian and known."""
    rng, n_features, n_draws, inside, raw = np.random.default_rng(3), 4, 200, [], []
    factor = np.linalg.cholesky(np.diag(np.arange(1.0, n_features + 1)) + 0.5)
    c = rng.normal(size=25)
    for _ in range(200):
        w, draws = factor @ rng.normal(size=n_features), factor @ rng.normal(size=(n_features, n_draws)) / 3
        psi = rng.normal(size=(30, 25, n_features))
        known = [Uncertain((p @ draws).T) for p in psi]
        spread = Spread.fit(known[:-1], [p @ w for p in psi[:-1]], [np.ones(25)] * 29, floor=FLOOR)
        truth = c @ psi[-1] @ w
        for found, quantity in ((raw, known[-1]), (inside, spread.widen(known[-1]))):
            low, high = quantity.map(lambda u: np.asarray(c @ u)).interval(0.9)
            found.append(low <= truth <= high)
    # one w for all meshes of a trial: the factor is that of this w, so that coverage is above a Gaussian's
    assert np.mean(raw) < 0.5 and 0.85 < np.mean(inside) < 0.98


def test_widened_predictions_on_every_scale(ensemble):
    wide = Widened(ensemble, {"u": Spread(3.0), "heat": Spread(0.5)})
    mesh = square(9)
    before, after = ensemble.predict(mesh), wide.predict(mesh)
    for level in range(3):
        for name, factor in (("u", 3.0), ("heat", 0.5)):
            a, b = before.field(name, level=level), after.field(name, level=level)
            assert b.mean == pytest.approx(a.mean, abs=1e-9) and b.std == pytest.approx(factor * a.std)
    assert after.mesh.point_fields["std_u"] == pytest.approx(3 * before.mesh.point_fields["std_u"])
    integral = lambda m: m.point_fields["u"].mean(0)  # noqa: E731
    assert after.map(integral).std == pytest.approx(3 * before.map(integral).std)
    assert after.map(integral).mean == pytest.approx(before.map(integral).mean)
    choices = [choose_runs(sampler, squares(3), 2) for sampler in (ensemble, wide)]
    assert choices[0] == choices[1]


@dataclasses.dataclass(frozen=True)
class Noisy(Sampler):
    """Samples with noise whose variance is that between them at every node and anchor."""

    sampler: Sampler

    @property
    def operator(self):
        return self.sampler.operator

    @property
    def models(self):
        return self.sampler.models

    def outputs(self, batch, *, attention=False):
        outputs = list(self.sampler.outputs(batch, attention=attention))
        variance = tuple(torch.stack(level).var(0) for level in zip(*(o.fields for o in outputs), strict=True))
        for output in outputs:
            parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(Output)}
            yield NoisyOutput(**parts, variance=variance)


def answered_by_chance(sampler, seed, s, t, n=8):
    """A square whose targets are the mean of the samples, off by s times what these differ by and t times the noise."""
    rng, mesh = np.random.default_rng(seed), square(seed, n)
    level = sampler.levels(sampler.sample(mesh))[0]
    shared = np.tensordot(rng.normal(size=3) / np.sqrt(2), level.quantity.samples - level.quantity.mean, 1)
    values = level.quantity.mean + s * shared + t * np.sqrt(level.quantity.aleatoric) * rng.normal(size=shared.shape)
    heat = values[:, 2][mesh.cells[0].nodes].mean(1)
    return mesh.replace(point_fields={**mesh.point_fields, "u": values[:, :2]}, cell_fields={"heat": heat})


@pytest.mark.parametrize(("s", "t"), [(3.0, 0.5), (1.0, 2.0)])
def test_scales_tell_doubt_that_neighbours_share_from_noise(ensemble, s, t):
    """Where noise is as large as the spread at every node, the nodes alone cannot."""
    sampler = Noisy(ensemble)
    meshes = [answered_by_chance(sampler, seed, s, t) for seed in range(100, 124)]
    wide = widen(sampler, meshes)
    found = wide.spreads["u"]
    assert found.samples == pytest.approx(s, rel=0.25) and found.noise == pytest.approx(t, rel=0.15, abs=0.15)
    total = [level.quantity[:, :2] for level in wide.levels(wide.sample(meshes[0]))]
    raw = [level.quantity[:, :2] for level in sampler.levels(sampler.sample(meshes[0]))]
    assert total[0].variance == pytest.approx((found.samples**2 + found.noise**2) * raw[0].epistemic)
    # on coarse scales only samples are left, not what heads of those scales took for noise
    shares = [u.aleatoric.mean() / found.noise**2 / v.aleatoric.mean() for u, v in zip(total, raw, strict=True)]
    assert shares[0] == pytest.approx(1) and 0.3 > shares[1] > shares[2] > 0


def test_what_follows_is_calibrated_by_itself(ensemble):
    sampler = Noisy(ensemble)
    held, new = ([answered_by_chance(sampler, k, 3.0, 0.0, n=4) for k in ks] for ks in (range(19), range(50, 60)))
    seen, told = ([sampler.predict(mesh) for mesh in meshes] for meshes in (held, new))
    energy = lambda mesh: (mesh.point_fields["u"] ** 2).sum()  # noqa: E731
    size = lambda mesh: np.linalg.norm(mesh.point_fields["u"], axis=1)  # noqa: E731
    found = {f: calibrate_derived(sampler, held, f) for f in (energy, size)}
    for function, known in found.items():
        errors = [
            np.abs(function(mesh) - u.mean) / (u.std + known.floor)
            for mesh, u in zip(held, (prediction.map(function) for prediction in seen), strict=True)
        ]
        assert known.largest == pytest.approx(np.sort([error.max() for error in errors]))
    assert found[energy].factor(0.9) == pytest.approx(found[energy].largest[17])  # the 18th of 19
    sides = [(node_mass(mesh), size(mesh), prediction.map(size)) for mesh, prediction in zip(held, seen, strict=True)]
    by_hand = Conformal.fit([u for *_, u in sides], *zip(*((y, m) for m, y, _ in sides), strict=True), floor=1e-3)
    assert found[size].factor(0.9) == pytest.approx(by_hand.factor(0.9), rel=0.05)  # but for the floor
    goals = [prediction.map(energy) for prediction in told]
    for ends, least, most in (
        ([found[energy].interval(u, 0.9) for u in goals], 0.7, 1.0),
        ([u.interval(0.9) for u in goals], 0.0, 0.7),  # three times too narrow
    ):
        inside = np.mean([low <= energy(mesh) <= high for (low, high), mesh in zip(ends, new, strict=True)])
        assert least <= inside <= most and np.shape(ends[0][0]) == ()


def test_noise_averages_out_as_squares_of_the_restriction(ensemble):
    output = next(Noisy(ensemble).outputs(ensemble.answer(square(9)).batch))
    found = averaged_noise([output])
    rows = output.restrict(torch.eye(len(output.mass[0])))
    for (variance,), row in zip(found, rows, strict=True):
        torch.testing.assert_close(variance, (row.square() @ output.variance[0]).to(variance), rtol=1e-4, atol=0)


def test_anchors_of_their_own_are_no_doubt(ensemble):
    """Members that say the same on the mesh say the same on every scale, wherever each of them has its anchors."""
    outputs = list(ensemble.answer(square(9)).outputs)
    same = [dataclasses.replace(o, fields=tuple(o.restrict(outputs[0].fields[0]))) for o in outputs]
    apart = [float(torch.stack([o.fields[s] for o in same]).std(0).max()) for s in range(3)]
    assert min(apart[1:]) > 1e-5
    for s, level in enumerate(_on_common_anchors(same)):
        fields = torch.stack(list(level))
        assert float(fields.std(0).max()) <= 0.05 * apart[s]
        torch.testing.assert_close(fields.mean(0), torch.stack([o.fields[s] for o in same]).mean(0))


def test_held_out_meshes_make_the_spread_honest_and_it_is_kept(ensemble, tmp_path, monkeypatch):
    held, test = ([square(k, n=5) for k in seeds] for seeds in (range(20, 30), range(40, 44)))
    fitted = Calibrated.fit(ensemble, squares(1), held)
    assert set(fitted.spreads) == {"u", "heat"} and fitted.conformal and fitted.detector
    again = widen(fitted.sampler, held)  # of what is widened already: not once more
    assert again.spreads == fitted.spreads and again.sampler is ensemble
    for name in ("u", "heat"):
        raw, wide = (evaluate(sampler, test).scores[name] for sampler in (ensemble, fitted.sampler))
        assert wide.error == pytest.approx(raw.error) and wide.nll < raw.nll
        assert wide.sharpness == pytest.approx(fitted.spreads[name].samples * raw.sharpness)
    conformal, seen = fitted.conformal["u"], fitted.predict(test[0])  # intervals are those of the widened samples
    low, high = conformal.interval(seen.field("u"), 0.9)
    assert (seen.mesh.point_fields["lower_u"], seen.mesh.point_fields["upper_u"]) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    assert conformal.factor(0.9) == pytest.approx(1.64, rel=0.25)
    fitted.save(tmp_path)
    monkeypatch.setattr("gno.uq.calibrated.load_sampler", lambda folder, **options: ensemble)
    kept = Calibrated.load(tmp_path)
    assert kept.spreads == fitted.spreads
    for name in ("std_u", "lower_u", "upper_u", "novelty"):
        one, other = (c.predict(square(60)).mesh.point_fields[name] for c in (fitted, kept))
        assert one == pytest.approx(other)
    record = json.loads((tmp_path / "calibration.json").read_text())
    del record["spread"]  # as calibrations were before there was one
    (tmp_path / "calibration.json").write_text(json.dumps(record))
    old = Calibrated.load(tmp_path)
    assert old.sampler is ensemble and not old.spreads and old.conformal


def test_in_time_every_step_has_its_own_and_the_last_holds_on():
    rng = np.random.default_rng(4)
    known = [
        [dataclasses.replace(step, quantity=step.quantity.widened(1 / k, 1.0)) for k, step in enumerate(steps, start=1)]
        for steps in (series(rng, 2.0, 4) for _ in range(300))
    ]
    found = widen_in_time(reader(), known)
    assert list(found.spreads) == [f"u#{k}" for k in range(1, 5)]
    for k in range(1, 5):
        assert found.spreads[f"u#{k}"].samples == pytest.approx(2.0 * k, rel=0.1)
    quantity = pair(np.ones((3, 1)))
    assert found.widened(quantity, 3).std == pytest.approx(found.spreads["u#3"].samples)
    assert found.widened(quantity, 30).std == pytest.approx(found.spreads["u#4"].samples)


def test_a_mesh_that_changes_late_is_noticed(tmp_path, monkeypatch):
    """The detector looks at the shape of the mesh that a step is on, also where the first two frames share theirs."""
    fixed, later = time_cases.decay(0)[:2], time_cases.moving(0)[2:4]
    frames = [*fixed, *(mesh.replace(time=0.1 * k) for k, mesh in enumerate(later, start=2))]
    assert mesh_changes(frames) and not mesh_changes(fixed) and not mesh_changes(fixed[:1])
    run = train(time_cases.case(), tmp_path / "run", meshes={"train": [time_cases.decay(1)]}, progress=False)
    ensemble, seen = Ensemble((run,)), []
    detector = detector_in_time(ensemble, [time_cases.decay(1)]).with_threshold([1.0], 0.5)

    def noted(mesh, spec):
        seen.append(mesh.n_nodes)
        return shape_of(mesh, spec)

    monkeypatch.setattr("gno.uq.rollout.shape_of", noted)
    ensemble.roll_out(frames, tmp_path / "new.pvd", detector=detector)
    assert seen == [mesh.n_nodes for mesh in frames[1:]] and seen[0] != seen[1] != seen[2]


def test_few_members_do_not_ask_for_a_spread_without_end():
    """Of three perfect samples the likelihood alone has no largest factor; mean squares bound it."""
    rng = np.random.default_rng(0)
    n = 4000
    size = rng.uniform(0.2, 1.0, (n, 1))
    samples = Uncertain(size * rng.normal(size=(3, n, 1)))
    truth = samples.mean + size * rng.normal(size=(n, 1)) * np.sqrt(1 + 1 / 3)
    found = Spread.fit([samples], [truth], [np.ones(n)], floor=1e-9)
    equal = np.sqrt(np.square(truth - samples.mean).mean() / samples.epistemic.mean())
    assert found.samples == pytest.approx(1.5 * equal, rel=1e-3)


def test_fields_may_have_names_as_scales_and_steps_have(tmp_path):
    """A calibration is kept as ``u@1`` on a scale, and as ``u#3`` in a step."""

    def named(mesh):
        fields = {
            "wave": mesh.point_fields["wave"],
            "u@x": mesh.point_fields["u"],
            "heat #1": mesh.point_fields["wave"],
        }
        return mesh.replace(point_fields=fields, cell_fields={})

    def renamed(run):
        pairs = zip(run.blueprint.spec.targets, ("u@x", "heat #1"), strict=True)
        targets = tuple(dataclasses.replace(field, name=name, location="point") for field, name in pairs)
        spec = dataclasses.replace(run.blueprint.spec, targets=targets)
        return dataclasses.replace(run, blueprint=dataclasses.replace(run.blueprint, spec=spec))

    ensemble = Ensemble(tuple(renamed(run) for run in untrained(tmp_path).runs))
    meshes = [named(mesh) for mesh in squares(14)]
    calibrated = Calibrated.fit(ensemble, meshes[:4], meshes[4:])
    assert {"u@x", "u@x@1", "heat #1"} < calibrated.conformal.keys()
    said = describe(calibrated, "held out")
    assert "spread of u@x widened" in said and "spread of heat #1 widened" in said and "step" not in said
