"""Ensembles: members, their folders, and the uncertain prediction."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from train_cases import case, square, squares

from gno.graph import FieldSpec
from gno.mesh import read
from gno.train import Run, train
from gno.train.blueprint import Blueprint
from gno.train.case import Physics
from gno.train.predict import with_values
from gno.uncertain import Uncertain
from gno.uq import Ensemble, train_ensemble
from gno.uq.ensemble import member_seed

OPTIONS = {"meshes": {"train": squares(3)}, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def no_curves():
    """Pictures of the training take longer than the training here, and have their own tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gno.post.curves.draw_curves", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ensemble")
    return directory, train_ensemble(case(epochs=2), directory, members=3, **OPTIONS)


def test_members_are_the_runs_that_one_would_train(trained):
    directory, ensemble = trained
    assert [run.directory.name for run in ensemble.runs] == ["member_0", "member_1", "member_2"]
    assert ensemble.runs[0].blueprint.case.training.seed == case().training.seed
    assert len({run.blueprint.case.training.seed for run in ensemble.runs}) == 3
    predictions = [Run.load(directory / f"member_{k}").predict(square(9)) for k in range(3)]
    together = Ensemble.load(directory).predict(square(9))
    for name in ("u", "heat"):
        expected = np.stack([p.mesh.point_fields[f"predicted_{name}"] for p in predictions])
        assert together.field(name).samples == pytest.approx(expected, rel=1e-5)
        assert together.mesh.point_fields[f"predicted_{name}"] == pytest.approx(expected.mean(0), rel=1e-5)
        assert together.mesh.point_fields[f"std_{name}"] == pytest.approx(expected.std(0, ddof=1), rel=1e-3)
        assert together.field(name).std.min() > 0


def test_every_scale_and_cells(trained):
    _, ensemble = trained
    prediction = ensemble.predict(square(9))
    assert len(prediction.levels) == ensemble.operator.blueprint.spec.n_levels - 1
    for level, mesh in enumerate(prediction.levels, start=1):
        quantity = prediction.field("u", level=level)
        assert quantity.shape == (mesh.n_nodes, 2)
        assert mesh.point_fields["std_u"] == pytest.approx(quantity.std)
        assert mesh.point_fields["mass"].sum() == pytest.approx(1.0)
    # cells: the spread of the means over the nodes of a cell, less than the mean of the spreads
    quads = prediction.mesh.cells[0].nodes
    heat = prediction.field("heat").samples
    assert prediction.mesh.cell_fields["std_heat"] == pytest.approx(
        heat[:, quads].reshape(3, len(quads), -1).mean(2).std(0, ddof=1)
    )


def test_what_follows_from_the_fields(trained):
    _, ensemble = trained
    prediction = ensemble.predict(square(9))
    total = prediction.map(lambda mesh: mesh.point_fields["u"].sum(0))
    assert total.samples == pytest.approx(prediction.field("u").samples.sum(1))
    heat = prediction.map(lambda mesh: mesh.cell_fields["heat"])
    assert heat.std == pytest.approx(prediction.mesh.cell_fields["std_heat"].ravel())
    with pytest.raises(ValueError, match="field: expected one of u, heat, got 'p'"):
        prediction.field("p")
    with pytest.raises(ValueError, match="level: expected 0 to 2, got 3"):
        prediction.field("u", level=3)


def test_files_hold_mean_and_standard_deviation(trained, tmp_path):
    prediction = trained[1].predict(square(9))
    paths = prediction.write(tmp_path / "out.vtu")
    assert len(paths) == 3
    for path, mesh in zip(paths, (prediction.mesh, *prediction.levels), strict=True):
        assert read(path).point_fields["std_u"][:, :2] == pytest.approx(mesh.point_fields["std_u"])


def test_an_ensemble_of_one_is_the_plain_operator_and_says_nothing_of_doubt(trained):
    one, plain = Ensemble(trained[1].runs[:1]).predict(square(9)), trained[1].runs[0].predict(square(9))
    assert type(one) is type(plain) and not one.has_doubt and not plain.has_doubt
    assert not any(name.startswith("std_") for name in one.mesh.point_fields)
    for level in range(3):
        assert one.field("u", level=level).mean == pytest.approx(plain.field("u", level=level).mean, rel=1e-5)
    means = [p.map(lambda mesh: mesh.cell_fields["heat"].mean()).samples for p in (one, plain)]
    assert means[0] == pytest.approx(means[1], rel=1e-6) and means[0].shape == (1,)
    assert np.array_equal(plain.field("u").mean, plain.mesh.point_fields["predicted_u"])


def test_given_values_are_met_to_the_bit_and_without_doubt(tmp_path):
    """Means of equal numbers are these numbers, and members of other seeds do not change them."""
    wanted = case(epochs=1)
    physics = Physics(
        equation="diffusion", parameters={"conductivity": 1.0}, unknowns=["heat"], dirichlet={"left": 0.1}, intra=0.0
    )
    meshes = [
        mesh.replace(point_fields={**mesh.point_fields, "heat": mesh.point_fields["wave"] ** 2}, cell_fields={})
        for mesh in squares(3)
    ]
    wanted = wanted.model_copy(update={"physics": physics})
    ensemble = train_ensemble(wanted, tmp_path, members=3, meshes={"train": meshes}, progress=False)
    prediction = ensemble.predict(meshes[0])
    left = meshes[0].point_sets["left"]
    assert np.all(prediction.mesh.point_fields["predicted_heat"][left] == 0.1)
    assert np.all(prediction.field("heat").std[left] == 0) and prediction.field("heat").std.max() > 0


def test_the_two_parts_of_the_doubt_are_written_where_a_method_knows_both(trained):
    both = Uncertain(np.array([[1.0, 5.0], [3.0, 5.0]]), noise=np.array([[1.0, 4.0], [1.0, 4.0]]))
    mesh = with_values(
        square(1).replace(point_fields={}, cell_fields={}, points=np.zeros((2, 2)), cells=(), point_sets={}),
        both[:, None],
        np.ones(2),
        (FieldSpec("q", "global", 1),),
        "predicted_",
    )
    assert mesh.point_fields["epistemic_std_q"] == pytest.approx(np.sqrt([2, 0]))
    assert mesh.point_fields["aleatoric_std_q"] == pytest.approx([1, 2])
    assert mesh.point_fields["std_q"] == pytest.approx(np.sqrt([3, 4]))
    # as a whole: samples 3 and 4 with the noise of both nodes in common, (1 + 4)/2
    assert mesh.global_fields["predicted_q"] == pytest.approx(3.5)
    assert mesh.global_fields["std_q"] == pytest.approx(np.sqrt(0.5 + 2.5))


def test_resume_trains_what_is_missing_and_keeps_the_rest(tmp_path):
    train_ensemble(case(epochs=1), tmp_path, members=1, **OPTIONS)
    before = Run.load(tmp_path / "member_0").model.state_dict()
    with pytest.raises(FileExistsError):
        train_ensemble(case(epochs=1), tmp_path, members=2, **OPTIONS)
    ensemble = train_ensemble(case(epochs=1), tmp_path, members=2, resume=True, **OPTIONS)
    assert json.loads((tmp_path / "ensemble.json").read_text()) == {"members": ["member_0", "member_1"]}
    assert all(torch.equal(v, before[k]) for k, v in ensemble.runs[0].model.state_dict().items())
    # a killed training leaves a member that is not complete: it does not count
    (tmp_path / "ensemble.json").write_text('{"members": ["member_0"]}')
    assert len(Ensemble.load(tmp_path).runs) == 1
    assert len(train_ensemble(case(epochs=1), tmp_path, members=1, overwrite=True, **OPTIONS).runs) == 1


def test_members_train_for_their_share_of_the_budget(tmp_path):
    ensemble = train_ensemble(case(epochs=4), tmp_path, members=2, share=0.5, **OPTIONS)
    assert [run.blueprint.case.training.epochs for run in ensemble.runs] == [2, 2]
    ensemble = train_ensemble(case(minutes=1e-3), tmp_path, members=1, share=0.25, overwrite=True, **OPTIONS)
    assert ensemble.runs[0].blueprint.case.training.minutes == pytest.approx(2.5e-4) and len(ensemble.runs) == 1


def test_members_branch_off_a_common_training(tmp_path):
    """The first is the run that one would train alone, to the bit; all keep what was common when training goes on."""
    wanted = case(epochs=4)
    alone = train(wanted, tmp_path / "alone", **OPTIONS).model.state_dict()
    train_ensemble(wanted, tmp_path / "all", members=1, common=0.5, **OPTIONS)
    ensemble = train_ensemble(wanted, tmp_path / "all", members=3, common=0.5, resume=True, **OPTIONS)
    assert all(torch.equal(value, alone[name]) for name, value in ensemble.runs[0].model.state_dict().items())
    logs = [(tmp_path / "all" / f"member_{k}" / "log.csv").read_text().splitlines() for k in range(3)]
    first = [[row for row in log if row.split(",")[1] in ("0", "1")] for log in logs]
    assert first[0] and first[0] == first[1] == first[2]
    a, b, c = (run.model.encode[0].weight for run in ensemble.runs)
    assert not torch.equal(a, b) and not torch.equal(b, c)
    assert {run.blueprint.case.training.seed for run in ensemble.runs} == {member_seed(0, k) for k in range(3)}
    _, _, progress = Blueprint.load(tmp_path / "all" / "common" / "last.safetensors")
    assert progress["step"] == 4  # of 8


def test_what_cannot_be(trained, tmp_path):
    with pytest.raises(ValueError, match="expected the folder of an ensemble"):
        Ensemble.load(tmp_path)
    (tmp_path / "ensemble.json").write_text("[]")
    with pytest.raises(ValueError, match=r"ensemble\.json: expected a list of members"):
        Ensemble.load(tmp_path)
    with pytest.raises(ValueError, match="members: expected at least 1, got 0"):
        train_ensemble(case(), tmp_path / "none", members=0)
    with pytest.raises(ValueError, match="share: expected a part of the budget above 0 and up to 1, got 2"):
        train_ensemble(case(), tmp_path / "none", share=2)
    with pytest.raises(ValueError, match="common: expected a share from 0 to below 1, got 1"):
        train_ensemble(case(), tmp_path / "none", common=1)
    run = trained[1].runs[0]
    other = dataclasses.replace(run.blueprint, spec=dataclasses.replace(run.blueprint.spec, unit=2.0))
    with pytest.raises(ValueError, match="members: expected the data of"):
        Ensemble((run, dataclasses.replace(run, blueprint=other)))
    with pytest.raises(ValueError, match="members: expected at least one, got none"):
        Ensemble(())
