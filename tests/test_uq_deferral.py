"""The solver only where the doubt asks for it."""

import math

import numpy as np
import pytest
from train_cases import square

from gno.graph import build_sample
from gno.mesh import node_mass
from gno.physics import Dirichlet, build_problem, diffusion, solve
from gno.train import Case, Data, Model, Run, Training
from gno.train.blueprint import Blueprint
from gno.train.sources import fit_spec
from gno.uq import Deferral, Detector, Ensemble
from gno.uq.deferral import doubt_of, relative_error, threshold_of


def problem(mesh):
    return build_problem(mesh, diffusion, {"conductivity": 1.0, "source": "wave"}, [Dirichlet("left", 1.0)])


def solved(seed):
    """A square of 5 × 5 cells, heated by the wave."""
    mesh = square(seed, n=5)
    bare = mesh.replace(point_fields={"wave": mesh.point_fields["wave"]}, cell_fields={})
    return bare.with_point_fields(u=solve(problem(bare)).values.numpy()[:, 0])


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Operators with random weights: wrong, and in doubt."""
    case = Case(
        data=Data(inputs=["wave"], targets=["u"]),
        model=Model(width=16, n_blocks=1, n_heads=1),
        training=Training(epochs=1, device="cpu"),
    )
    meshes = [solved(seed) for seed in range(3)]
    spec = fit_spec(case, meshes)
    blueprint = Blueprint.fit(case, spec, [build_sample(mesh, spec) for mesh in meshes])
    models = [blueprint.model(seed).requires_grad_(False).eval() for seed in range(3)]
    return Ensemble(tuple(Run(tmp_path_factory.mktemp("run"), blueprint, model) for model in models))


def test_at_most_the_stated_share_is_delivered_and_bad():
    """Doubt that knows a little of the error: 4,000 calibrations of 39 meshes, and one new mesh each."""
    rng, risk, tolerance = np.random.default_rng(0), 0.1, 1.0
    error = rng.lognormal(sigma=0.7, size=(4000, 40))
    doubt = error * rng.lognormal(sigma=0.5, size=error.shape)
    delivered_bad, solves = 0, 0
    for d, e in zip(doubt, error, strict=True):
        below = d[-1] < threshold_of(d[:-1], e[:-1] > tolerance, risk)
        delivered_bad += below and e[-1] > tolerance
        solves += not below
    # between risk − 1/(n + 1) and risk for continuous doubts; four binomial deviations
    assert risk - 1 / 40 - 0.019 < delivered_bad / 4000 < risk + 0.019
    assert 0.3 < solves / 4000 < 0.7  # half of all are bad: random choice would solve 80 % of all


def test_threshold_by_hand():
    doubts, bad = np.array([0.5, 0.1, 0.4, 0.2]), np.array([True, False, True, True])
    assert threshold_of(doubts, bad, 0.2) == 0.2  # none of the bad ones
    assert threshold_of(doubts, bad, 0.4) == 0.4 and threshold_of(doubts, bad, 0.6) == 0.5
    assert threshold_of(doubts, bad, 0.8) == math.inf
    with pytest.raises(ValueError, match=r"risk 0\.05: expected at least 19 calibration meshes, got 4"):
        threshold_of(doubts, bad, 0.05)
    with pytest.raises(ValueError, match="risk: expected a rate between 0 and 1, got 5"):
        threshold_of(doubts, bad, 5)


def test_what_is_in_doubt_is_solved(ensemble):
    calibration = [solved(seed) for seed in range(10, 19)]
    parts = [(ensemble.predict(mesh).field("u"), mesh.point_fields["u"], node_mass(mesh)) for mesh in calibration]
    doubts = np.array([doubt_of(u, mass) for u, _, mass in parts])
    errors = np.array([relative_error(u.mean, truth, mass) for u, truth, mass in parts])
    tolerance = float(np.median(errors))
    deferral = Deferral.fit(ensemble, calibration, "u", tolerance=tolerance, risk=0.2)
    assert deferral.threshold == pytest.approx(np.sort(doubts[errors > tolerance])[1], rel=1e-5)
    found = [deferral(mesh, problem) for mesh in calibration]
    assert [f.solve for f in found] == [f.doubt >= deferral.threshold for f in found]
    assert {f.solve for f in found} == {True, False}
    for mesh, f in zip(calibration, found, strict=True):
        error = relative_error(f.field("u"), mesh.point_fields["u"], node_mass(mesh))
        assert (error < 1e-5) == f.solve and ("corrected_u" in f.mesh.point_fields) == f.solve
    assert sum(relative_error(f.field("u"), m.point_fields["u"], node_mass(m)) > tolerance
               for m, f in zip(calibration, found, strict=True)) <= 1  # fmt: skip
    without = deferral(calibration[int(doubts.argmax())])
    assert without.solve and without.correction is None


def test_out_of_range_is_solved_whatever_the_doubt(ensemble):
    calibration = [solved(seed) for seed in range(10, 19)]
    detector = Detector.fit(ensemble, [solved(seed) for seed in range(3)], calibration, false_alarms=0.2)
    deferral = Deferral.fit(ensemble, calibration, "u", tolerance=1e9, risk=0.2, detector=detector)
    assert deferral.threshold == math.inf
    mesh = solved(30)
    assert deferral(mesh).solve == detector(mesh).flag
    assert deferral(mesh.with_point_fields(wave=50 * mesh.point_fields["wave"])).solve


def test_errors_by_hand(ensemble):
    assert relative_error(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]), np.array([1.0, 3.0])) == pytest.approx(
        math.sqrt(3 / 13)
    )
    with pytest.raises(ValueError, match="name: expected one of u, got 'v'"):
        Deferral.fit(ensemble, [solved(1)], "v", tolerance=0.1)
