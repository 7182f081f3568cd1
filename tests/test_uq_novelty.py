"""Out of range, and the evaluation of a sampler as a whole."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from train_cases import case, square

from gno.graph import build_sample
from gno.mesh import CellBlock
from gno.train import Data, Run
from gno.train.blueprint import Blueprint
from gno.train.case import Physics
from gno.train.sources import fit_spec, samples_of
from gno.uq import Detector, Ensemble, calibrate, evaluate
from gno.uq.evaluate import known_fields
from gno.uq.metrics import auroc
from gno.uq.novelty import Gaussian
from gno.uq.whole import Neighbours, shape_of


def squares(seeds):
    return [square(seed, n=6) for seed in seeds]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Operators with random weights of which all but the last layer agree, as trained ones nearly would."""
    meshes = squares(range(5))
    spec = fit_spec(case(), meshes)
    blueprint = Blueprint.fit(case(), spec, [build_sample(mesh, spec) for mesh in meshes])
    models = [blueprint.model(seed).requires_grad_(False).eval() for seed in range(3)]
    return Ensemble(tuple(Run(tmp_path_factory.mktemp("run"), blueprint, model) for model in models))


@pytest.fixture(scope="module")
def detector(ensemble):
    return Detector.fit(ensemble, squares(range(5)), squares(range(10, 19)), false_alarms=0.2)


def stretched(mesh, factor):
    fields = {**mesh.point_fields, "wave": factor * mesh.point_fields["wave"]}
    return mesh.replace(point_fields=fields)


def test_false_alarms_and_hits(detector):
    like = [detector(mesh) for mesh in squares(range(30, 42))]
    # 0.2 of twelve, given nine calibration meshes: beta-binomial, above one half in 4 of 100 draws
    assert np.mean([found.flag for found in like]) <= 0.5
    far = [detector(stretched(mesh, 8.0)) for mesh in squares(range(30, 33))]
    scores = np.array([found.score for found in (*like, *far)])
    assert auroc(scores, np.arange(15) >= 12) > 0.95
    assert all(found.flag for found in far)
    assert all(found.flag == (found.score > 1) for found in like)


def test_threshold_is_the_order_statistic(detector, ensemble):
    scores = np.sort([detector(mesh).score for mesh in squares(range(10, 19))])
    assert scores[7] == pytest.approx(1)  # ⌈0.8 · 10⌉ of 9
    with pytest.raises(ValueError, match=r"false_alarms 0\.01: expected at least 99 calibration meshes, got 3"):
        Detector.fit(ensemble, squares(range(2)), squares(range(3)), false_alarms=0.01)
    with pytest.raises(ValueError, match="false_alarms: expected a rate between 0 and 1, got 5"):
        Detector.fit(ensemble, squares(range(2)), squares(range(3)), false_alarms=5)
    with pytest.raises(ValueError, match="training meshes: expected at least one, got none"):
        Detector.fit(ensemble, [], squares(range(3)))


def test_map_shows_where(detector):
    """An input that is unheard of on the right side only."""
    mesh = square(50, n=6)
    wave = mesh.point_fields["wave"] + 20.0 * (mesh.points[:, 0] > 0.7)
    new, usual = detector(mesh.replace(point_fields={**mesh.point_fields, "wave": wave})), detector(mesh)
    right = mesh.points[:, 0] > 0.8
    ratio = new.distance / usual.distance
    assert ratio[right].mean() > 1.1 * ratio[mesh.points[:, 0] < 0.3].mean()


def test_usual_is_one_on_training_meshes(detector):
    found = [detector(mesh) for mesh in squares(range(5))]
    for name in ("distance", "disagreement"):
        assert np.mean([np.mean(getattr(f, name) ** 2) for f in found]) == pytest.approx(1, rel=0.1)


def test_the_residual_is_a_sign_where_the_case_has_physics(tmp_path_factory):
    """A load that the operator does not know of: nothing but the equation can tell."""
    law = {"equation": "diffusion", "parameters": {"conductivity": 1.0, "source": "load"}, "unknowns": ["u"]}
    wanted = case().model_copy(
        update={"physics": Physics(**law, dirichlet={"left": 0.0}), "data": Data(inputs=["wave"], targets=["u"])}
    )

    def loaded(seed, load):
        mesh = square(seed, n=6)
        fields = {"wave": mesh.point_fields["wave"], "load": np.full(49, load), "u": mesh.points[:, 0]}
        return mesh.replace(point_fields=fields, cell_fields={})

    meshes = [loaded(seed, 1.0) for seed in range(5)]
    spec = fit_spec(wanted, meshes)
    blueprint = Blueprint.fit(wanted, spec, samples_of(meshes, spec, wanted, to_train=True))
    model = blueprint.model(0).requires_grad_(False).eval()
    alone = Ensemble((Run(tmp_path_factory.mktemp("run"), blueprint, model),))
    detector = Detector.fit(alone, meshes, [loaded(seed, 1.0) for seed in range(10, 19)], false_alarms=0.1)
    usual, other = detector(loaded(40, 1.0)), detector(loaded(40, 60.0))
    assert not usual.flag and other.flag
    assert other.distance == pytest.approx(usual.distance)  # the operator sees the same
    left = meshes[0].point_sets["left"]
    assert not other.residual[left].any() and other.residual.max() > 5 * usual.residual.max()
    signs = [sign / detector.threshold for sign in (other.distance, other.disagreement, other.residual)]
    signs += [np.full(49, other.signs[name]) for name in ("inputs", "geometry", "shape")]
    assert other.map == pytest.approx(np.max(signs, 0), rel=1e-12)
    assert max(other.signs, key=other.signs.get) == "residual" and other.score == other.signs["residual"]


def test_distance_is_that_of_the_inverse_covariance():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(5000, 3)) @ rng.normal(size=(3, 3)) + 4)
    gaussian = Gaussian.fit([x[:2000], x[2000:4000]], [torch.ones(2000), torch.ones(2000)])
    centred = (x - x[:4000].mean(0)).numpy()
    exact = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(x[:4000].T.numpy())), centred) / 3
    assert gaussian.square(x).numpy() == pytest.approx(exact, rel=0.6)  # shrinkage: narrow directions count less
    assert np.corrcoef(gaussian.square(x).numpy(), exact)[0, 1] > 0.8


def test_one_operator_without_spread(ensemble, tmp_path):
    alone = Ensemble(ensemble.runs[:1])
    detector = Detector.fit(alone, squares(range(3)), squares(range(10, 13)), false_alarms=0.25)
    assert not detector(square(40, n=6)).disagreement.any()
    assert detector(stretched(square(40, n=6), 10.0)).flag
    detector.save(tmp_path / "detector.safetensors")
    again = Detector.load(tmp_path / "detector.safetensors", alone)
    assert again(square(41, n=6)).score == detector(square(41, n=6)).score
    with pytest.raises(ValueError, match="expected a checkpoint"):
        Detector.load(tmp_path / "none.safetensors", alone)


def test_evaluation_by_field_and_scale(ensemble):
    meshes = squares(range(10, 15))
    calibration = calibrate(ensemble, squares(range(22, 31)))
    found = evaluate(ensemble, meshes, calibration=calibration)
    assert list(found.scores) == ["u", "heat", "u@1", "heat@1", "u@2", "heat@2"] == list(calibration)
    assert found.n_meshes == 5
    # an ensemble of untrained operators is wrong; its error is that of the mean
    prediction = ensemble.predict(meshes[0])
    known = known_fields(ensemble, meshes[:1])["u"]
    assert known.quantities[0].mean == pytest.approx(prediction.field("u").mean, rel=1e-5)
    assert known.truths[0] == pytest.approx(meshes[0].point_fields["u"], rel=1e-5)
    # calibrated intervals hold what they promise, whatever they are made from
    for scores in found.calibrated.values():
        assert list(scores.coverage) == [0.5, 0.8, 0.9]  # nine meshes do not know of 95 %
        assert scores.coverage[0.9] > 0.6 and scores.simultaneous[0.9] >= 0.4
        assert scores.width[0.5] < scores.width[0.9]
    document = json.loads(found.to_json())
    assert document["scores"]["u"]["error"] == found.scores["u"].error
    assert "u@2 " in str(found) and "calibrated" in str(found)


def test_truth_on_coarse_scales_keeps_the_integral(ensemble):
    known = known_fields(ensemble, squares([3]))
    integrals = [known[name].masses[0] @ known[name].truths[0] for name in ("u", "u@1", "u@2")]
    assert integrals[1] == pytest.approx(integrals[0], rel=1e-4) and integrals[2] == pytest.approx(
        integrals[0], rel=1e-4
    )


def test_what_cannot_be_evaluated(ensemble):
    with pytest.raises(ValueError, match="meshes: expected at least one, got none"):
        evaluate(ensemble, [])
    bare = dataclasses.replace(square(1), point_fields={"wave": square(1).point_fields["wave"]})
    with pytest.raises(ValueError, match="point field 'u': expected in the file, got"):
        evaluate(ensemble, [bare])


def test_inputs_and_geometry_as_a_whole(ensemble, detector):
    """A new load or outline is seen by what describes the mesh as a whole; a finer mesh is nothing new."""
    mesh = square(60, n=6)
    usual, loaded = detector(mesh).signs, detector(stretched(mesh, 8.0)).signs
    assert loaded["inputs"] > 3 * usual["inputs"]
    assert all(loaded[name] == pytest.approx(usual[name]) for name in ("geometry", "shape"))
    long = detector(mesh.replace(points=mesh.points * [2.5, 1.0])).signs
    assert long["shape"] > 3 * usual["shape"] and long["inputs"] < 2 * usual["inputs"]
    finer = detector(square(60, n=12)).signs
    assert finer["inputs"] < 1.2 * usual["inputs"] and finer["shape"] < 0.2 * long["shape"]


def test_shape_is_that_of_the_domain():
    """Radii of a rectangle, length of its rim and of that of a hole; as it is turned, moved, and meshed more finely."""
    spec = fit_spec(case(), squares(range(3)))
    mesh = square(0, n=8).replace(points=square(0, n=8).points * [3.0, 1.0])
    radii, size = np.log(np.sort([3.0, 1.0]) / 12**0.5 / spec.unit), np.log(8.0 / spec.unit)
    inner = np.array([[np.sin(0.4), np.cos(0.4)], [np.cos(0.4), -np.sin(0.4)]])
    for other in (mesh, mesh.replace(points=mesh.points @ inner + 5.0)):
        assert shape_of(other, spec).numpy()[0] == pytest.approx([*radii, size, 1], abs=0.02)
    middle = np.abs(mesh.points[mesh.cells[0].nodes].mean(1) - [1.5, 0.5]) < [0.4, 0.2]
    cells = CellBlock(mesh.cells[0].type, mesh.cells[0].nodes[~middle.all(1)])
    assert shape_of(mesh.replace(cells=(cells,), cell_fields={}), spec)[0, -1] == 2


def test_distance_to_the_nearest_is_in_units_of_the_usual():
    """By hand; of several rows of one series the others of that series do not count."""
    rows = [torch.tensor([[k % 2 + 0.05 * k, 3.0]]).double() for k in range(20)]
    known = Neighbours.fit(rows)
    at = lambda x, y=3.0: float(known.square(torch.tensor([[x, y]]).double()).sqrt())  # noqa: E731
    spread, x = np.std([float(row[0, 0]) for row in rows]) * 2**0.5, np.array([float(row[0, 0]) for row in rows])
    own = [np.sort(np.abs(x - value))[1:6].mean() for value in x]
    assert known.usual == pytest.approx(np.sqrt(np.mean(np.square(own))) / spread)
    assert at(0.5) == pytest.approx(np.sort(np.abs(x - 0.5))[:5].mean() / spread / known.usual)
    assert at(0.5, 3.0001) == pytest.approx(at(0.5), rel=0.02) and at(0.5, 4.0) > 50  # all had 3
    pairs = Neighbours.fit([row for row in rows for _ in range(2)], [k for k in range(20) for _ in range(2)])
    own = [np.sort(np.repeat(np.abs(x - value), 2))[2:7].mean() for value in x]
    assert pairs.usual == pytest.approx(np.sqrt(np.mean(np.square(own))) / spread)  # the twin is not counted


def test_between_two_families_is_far_from_both():
    """A Gaussian would take their middle for the usual."""
    rows = [torch.tensor([[k % 2 + 0.01 * (k // 2)]]).double() for k in range(40)]
    known = Neighbours.fit(rows)
    inside, middle = (float(known.square(torch.tensor([[x]]).double())) for x in (0.1, 0.55))
    assert inside < 1 < 4 < middle
