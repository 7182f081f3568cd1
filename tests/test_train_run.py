"""Runs: they learn, repeat to the bit, leave the user's mesh alone, and never see a target."""

import contextlib
import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from train_cases import case, square, squares

from gno.mesh import node_mass, read, write
from gno.train import Data, Run, train
from gno.train.blueprint import Blueprint, finest_dense_level
from gno.train.loop import epoch_batches
from gno.train.sources import fit_spec, samples_of
from gno.train.units import UnitWarning


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(case(epochs=20, lr=5e-3), folder, meshes=squares(10), progress=False)


def test_it_learns(run):
    evaluation = run.evaluate([square(seed) for seed in range(100, 104)])
    assert evaluation.mean["u"] < 0.12 and evaluation.mean["heat"] < 0.002


def test_the_same_case_gives_the_same_weights(tmp_path):
    weights = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)  # the caller's random numbers do not matter
        trained = train(case(), tmp_path / name, meshes=squares(4), progress=False)
        weights.append(torch.cat([p.flatten() for p in trained.model.parameters()]))
    assert torch.equal(*weights)


def test_the_mesh_comes_back_untouched_with_predictions_beside(run, tmp_path):
    mesh = square(100).replace(time=2.0)
    prediction = run.predict(mesh)
    new = prediction.mesh
    assert np.array_equal(new.points, mesh.points) and new.time == mesh.time
    assert np.array_equal(new.cells[0].nodes, mesh.cells[0].nodes)
    assert np.array_equal(new.point_sets["left"], mesh.point_sets["left"])
    for name, values in mesh.point_fields.items():
        assert np.array_equal(new.point_fields[name], values)
    assert np.array_equal(new.cell_fields["heat"], mesh.cell_fields["heat"])
    assert new.point_fields["predicted_u"].shape == (81, 2)
    assert new.cell_fields["predicted_heat"].shape == (64,)
    alpha = new.point_fields["scale_attention"]
    assert alpha.shape == (81, run.blueprint.spec.n_levels) and np.allclose(alpha.sum(1), 1, atol=1e-5)
    paths = prediction.write(tmp_path / "p.vtu")
    assert np.array_equal(read(paths[0]).point_fields["predicted_u"], new.point_fields["predicted_u"])


def test_coarse_levels_carry_the_mass_and_the_integral(run):
    mesh = square(100)
    prediction = run.predict(mesh)
    mass = node_mass(mesh)
    whole = mass @ prediction.mesh.point_fields["predicted_u"]
    assert len(prediction.levels) == run.blueprint.spec.n_levels - 1
    for level in prediction.levels:
        fields = level.point_fields
        assert fields["mass"].sum() == pytest.approx(mass.sum(), rel=1e-5)
        np.testing.assert_allclose(fields["mass"] @ fields["predicted_u"], whole, rtol=1e-4)
        assert level.points.min() >= -1e-6 and level.points.max() <= 1 + 1e-6


def test_units_of_length_do_not_matter(tmp_path):
    in_millimetres = [mesh.replace(points=1000.0 * mesh.points) for mesh in squares(4)]
    one, two = (
        train(case(epochs=1), tmp_path / name, meshes=meshes, progress=False)
        for name, meshes in (("m", squares(4)), ("mm", in_millimetres))
    )
    a, b = one.predict(square(9)), two.predict(square(9).replace(points=1000.0 * square(9).points))
    np.testing.assert_allclose(a.mesh.point_fields["predicted_u"], b.mesh.point_fields["predicted_u"], rtol=1e-3)
    np.testing.assert_allclose(1e6 * a.levels[0].point_fields["mass"], b.levels[0].point_fields["mass"], rtol=1e-3)


def test_predictions_do_not_depend_on_the_truth_in_the_mesh(run):
    mesh = square(100)
    scrambled = mesh.with_point_fields(u=np.random.default_rng(0).normal(size=(81, 2)))
    without = mesh.replace(point_fields={"wave": mesh.point_fields["wave"]}, cell_fields={})
    fields = [run.predict(m).mesh.point_fields["predicted_u"] for m in (mesh, scrambled, without)]
    assert np.array_equal(fields[0], fields[1]) and np.array_equal(fields[0], fields[2])


def test_an_input_that_copies_a_target_is_refused(tmp_path):
    leaky = [mesh.with_point_fields(copy=mesh.point_fields["u"][:, 1]) for mesh in squares(4)]
    wanted = case().model_copy(update={"data": Data(inputs=["wave", "copy"], targets=["u"])})
    with pytest.raises(ValueError, match=r"data\.inputs: expected no target, got 'copy', which equals 'u'"):
        train(wanted, tmp_path, meshes=leaky)


def test_evaluation_is_the_relative_l2_by_mass(run):
    mesh = square(100)
    evaluation = run.evaluate([mesh, square(101)])
    truth, predicted = (run.predict(mesh).mesh.point_fields[name] for name in ("u", "predicted_u"))
    mass = node_mass(mesh)[:, None]
    expected = np.sqrt((mass * (predicted - truth) ** 2).sum() / (mass * truth**2).sum())
    assert evaluation.rows[0].errors["u"] == pytest.approx(expected, rel=1e-5)
    document = json.loads(evaluation.to_json())
    assert document["mean"]["u"] == pytest.approx(np.mean([row.errors["u"] for row in evaluation.rows]))
    assert document["worst"]["u"] == max(row.errors["u"] for row in evaluation.rows)
    assert document["seconds"] > 0 and "square 100" in str(evaluation)


@pytest.mark.parametrize("size", [0.0, 1e-17])
def test_a_field_of_zero_has_no_relative_error_and_does_not_spoil_the_mean(run, size):
    noise = size * np.random.default_rng(0).normal(size=(81, 2))  # what a solver leaves of a field that is zero
    rest, usual = square(100).with_point_fields(u=noise), square(101)
    found, alone = run.evaluate([rest, usual]), run.evaluate([usual])
    assert np.isnan(found.rows[0].errors["u"]) and found.rows[0].errors["heat"] < 0.1
    mass, predicted = node_mass(rest)[:, None], run.predict(rest).mesh.point_fields["predicted_u"]
    assert found.rows[0].rms["u"] == pytest.approx(np.sqrt((mass * predicted**2).sum() / mass.sum()), rel=1e-5)
    for statistic in ("mean", "median", "worst"):
        assert getattr(found, statistic)["u"] == pytest.approx(getattr(alone, statistic)["u"])
    assert found.scales[0].errors["u"] == pytest.approx(alone.scales[0].errors["u"])
    text = str(found)
    assert f"{found.rows[0].rms['u']:.2g} rms" in text and "the true field is zero (u in 1 of 2 files)" in text
    assert "inf" not in text and "nan" not in text and "rms" not in str(alone)
    document = json.loads(found.to_json(), parse_constant=pytest.fail)  # NaN is no JSON
    assert document["files"][0]["errors"]["u"] is None and document["files"][0]["rms"]["u"] > 0
    assert "u " in str(run.evaluate([rest])) and run.evaluate([rest]).to_json()  # no file with an error at all


def test_an_evaluation_counts_its_files(run, monkeypatch):
    counted = []

    @contextlib.contextmanager
    def counter(what, total, *, draw):
        yield lambda n: counted.append((what, total, draw))

    monkeypatch.setattr("gno.train.run.counter", counter)
    run.evaluate([square(1), square(2)], progress=True)
    assert counted == [("evaluation", 2, True)] * 2


def test_a_mesh_without_load_is_scored_by_the_usual_size(tmp_path):
    rest = square(4).with_point_fields(u=np.zeros((81, 2)))
    train(case(epochs=1), tmp_path, meshes={"train": squares(3), "validation": [rest, square(5)]}, progress=False)
    _, _, progress = Blueprint.load(tmp_path / "best.safetensors")
    assert 0 < progress["best"] < 10  # not infinite, or no weights would be better than the first


def test_a_target_that_is_always_zero_is_refused(tmp_path):
    rest = [mesh.with_point_fields(u=np.zeros((81, 2))) for mesh in squares(3)]
    with pytest.raises(ValueError, match=r"data\.targets: expected fields to learn, got 'u', which is 0 in every mesh"):
        train(case(epochs=1), tmp_path, meshes=rest, progress=False)


def test_batches_predict_what_singles_predict(run):
    meshes = [square(100), square(101, n=5), square(102)]
    together = [p.mesh.point_fields["predicted_u"] for p in run.predict_many(meshes)]
    for mesh, fields in zip(meshes, together, strict=True):
        np.testing.assert_allclose(fields, run.predict(mesh).mesh.point_fields["predicted_u"], rtol=1e-4, atol=1e-5)


def test_a_run_is_loaded_from_its_folder(run, tmp_path):
    again = Run.load(run.directory)
    mesh = square(100)
    fields = [r.predict(mesh).mesh.point_fields["predicted_u"] for r in (run, again)]
    assert np.array_equal(*fields)
    assert {path.name for path in run.directory.iterdir()} >= {
        "best.safetensors",
        "last.safetensors",
        "log.csv",
        "curves.png",
    }
    with pytest.raises(ValueError, match="expected the folder of a trained run"):
        Run.load(tmp_path)


def test_meshes_without_an_input_or_target_are_named(run):
    mesh = square(100)
    with pytest.raises(ValueError, match=r"'wave'.*square 100"):
        run.predict(mesh.replace(point_fields={}))
    with pytest.raises(ValueError, match=r"'heat'.*square 100"):
        run.evaluate([mesh.replace(cell_fields={})])
    with pytest.raises(ValueError, match="at least one, got none"):
        run.evaluate([])


def test_files_and_meshes_train_alike(tmp_path):
    for key, seeds in (("train", range(4)), ("validation", range(4, 6))):
        (tmp_path / key).mkdir()
        for seed in seeds:
            write(square(seed), tmp_path / key / f"{seed}.vtu")
    data = Data(inputs=["wave"], targets=["u"], train="train/*", validation="validation/*", folder=tmp_path)
    from_files = train(case().model_copy(update={"data": data}), tmp_path / "files", progress=False)
    meshes = {"train": squares(4), "validation": squares(6)[4:]}
    wanted = case().model_copy(update={"data": Data(inputs=["wave"], targets=["u"])})
    in_memory = train(wanted, tmp_path / "memory", meshes=meshes, progress=False)
    for one, two in zip(from_files.model.parameters(), in_memory.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("precision", ["64", "bf16"])
def test_other_precisions_train_and_predict(tmp_path, precision):
    trained = train(case(precision=precision, epochs=1), tmp_path, meshes=squares(4), progress=False)
    assert np.isfinite(trained.predict(square(9)).mesh.point_fields["predicted_u"]).all()
    dtype = torch.float64 if precision == "64" else torch.float32
    assert next(trained.model.parameters()).dtype == dtype


def test_minutes_are_a_budget_too(tmp_path):
    trained = train(case(minutes=0.03), tmp_path, meshes=squares(4), progress=False)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert 1.5 < float(rows[-1].split(",")[2]) < 20 and trained.evaluate([square(0)]).mean["u"] < 2


def test_a_loss_that_explodes_is_told_and_the_last_save_kept(tmp_path):
    with pytest.raises(ValueError, match=r"loss of 'u': expected a finite number, got nan .*training\.lr"):
        train(case(lr=1e30, clip=1e30, epochs=10), tmp_path, meshes=squares(4), progress=False)


def test_every_process_gets_its_share_of_each_batch():
    whole = epoch_batches(7, 4, seed=3)
    shares = [epoch_batches(7, 4, seed=3, rank=rank, world=2) for rank in (0, 1)]
    assert [len(batch) for batch in shares[0]] == [len(batch) for batch in shares[1]] == [2, 2]
    assert sorted(shares[0][0] + shares[1][0]) == sorted(whole[0])
    assert epoch_batches(7, 4, seed=4) != whole
    with pytest.raises(ValueError, match="multiple of 2 devices, got 3"):
        epoch_batches(7, 3, seed=0, world=2)


def test_attention_is_dense_only_where_anchors_are_few():
    sizes = {"pos_0": 900, "pos_1": 90, "pos_2": 9}

    class Levels(dict):
        n_levels = 3

    sample = Levels({name: torch.empty(n, 2) for name, n in sizes.items()})
    assert [finest_dense_level([sample], limit) for limit in (99, 98, 5)] == [1, 2, 2]
    assert finest_dense_level([sample], 99, first=2) == 2


def test_another_unit_of_length_is_asked_about(run):
    kilo, triple = (square(11).replace(points=factor * square(11).points) for factor in (1000, 3))
    with pytest.warns(UnitWarning, match="square 11: longest side 1e[+]03, usually 1 in training"):
        run.predict(kilo)
    with pytest.warns(UnitWarning, match="longest side 1e[+]03"):
        samples_of([square(0), kilo], run.blueprint.spec, run.blueprint.case)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitWarning)
        run.predict(triple)


@pytest.mark.parametrize(("name", "says"), [("cut.vtu", "cut.vtu"), ("bare.vtu", "field 'u'")])
def test_a_test_file_that_could_not_be_evaluated_is_told_before_training(tmp_path, name, says):
    for seed in range(3):
        write(square(seed), tmp_path / f"{seed}.vtu")
    (tmp_path / "cut.vtu").write_bytes((tmp_path / "0.vtu").read_bytes()[:900])
    write(square(3).replace(point_fields={"wave": square(3).point_fields["wave"]}), tmp_path / "bare.vtu")
    data = Data(inputs=["wave"], targets=["u"], train="[01].vtu", validation="2.vtu", test=name, folder=tmp_path)
    wanted = case().model_copy(update={"data": data})
    with pytest.raises(ValueError, match=rf"data\.test: .*{says}"):
        train(wanted, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["score", "u@x", "T [degC]", "flux [/mm]"])
def test_a_target_may_have_any_name(tmp_path, name, capsys):
    def named(mesh):
        fields = dict(mesh.point_fields)
        return mesh.replace(point_fields={"wave": fields["wave"], name: fields["u"], "other": 1 - fields["wave"]})

    wanted = case().model_copy(update={"data": Data(inputs=["wave"], targets=[name, "other"])})
    run = train(wanted, tmp_path, meshes=[named(mesh) for mesh in squares(5)])
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    last = [row for row in rows if row["validation score"]][-1]
    assert name in capsys.readouterr().err and f"predicted_{name}" in run.predict(named(square(7))).mesh.point_fields
    if name == "score":  # the column is that of the mean, which also chose the weights
        errors = run.evaluate([named(mesh) for mesh in squares(5)]).mean
        assert abs(float(last["validation score"]) - sum(errors.values()) / 2) < 0.1 * sum(errors.values())
    else:
        mean = (float(last[f"validation {name}"]) + float(last["validation other"])) / 2
        assert float(last["validation score"]) == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_torch_makes_by_default_and_its_random_numbers_are_the_callers(tmp_path, dtype):
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        run = train(case(epochs=1), tmp_path, meshes=squares(4), progress=False)
        assert torch.equal(torch.rand(1), expected)
        assert {weight.dtype for weight in run.model.parameters()} == {torch.float32}
        loaded = Run.load(tmp_path).predict(square(7)).mesh.point_fields["predicted_u"]
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(run.predict(square(7)).mesh.point_fields["predicted_u"], loaded)


def test_a_node_without_cells_changes_nothing_of_the_others(run):
    """As points of reference of a solver, which may lie far away, and in some files only."""
    mesh = square(7)
    stray = mesh.replace(
        points=np.vstack([mesh.points, [[90.0, 3.0]]]),
        point_fields={name: np.concatenate([values, values[:1]]) for name, values in mesh.point_fields.items()},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nor is it taken for another unit of length
        one, other = run.predict(mesh), run.predict(stray)
    for name in ("predicted_u", "predicted_heat"):
        np.testing.assert_allclose(other.mesh.point_fields[name][:-1], one.mesh.point_fields[name], atol=1e-4)
    np.testing.assert_allclose(other.levels[0].points[: len(one.levels[0].points)], one.levels[0].points, atol=1e-6)
    assert fit_spec(case(), [stray] * 3).unit == fit_spec(case(), [mesh] * 3).unit


def test_names_of_files_are_meshes_too_and_what_is_none_is_told(tmp_path):
    files = []
    for k in range(4):
        files.append(str(tmp_path / f"{k}.vtu"))
        write(square(k), files[-1])
    wanted = case(epochs=1).model_copy(update={"data": Data(inputs=["wave"], targets=["u"], cache="")})
    named = train(wanted, tmp_path / "named", meshes={"train": files}, progress=False)
    paths = train(wanted, tmp_path / "paths", meshes={"train": [Path(file) for file in files]}, progress=False)
    for one, other in zip(named.model.parameters(), paths.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"expected at least 3 meshes for the split \(0\.8, 0\.1, 0\.1\), got 1"):
        train(wanted, tmp_path / "few", meshes=[square(0)])
    with pytest.raises(ValueError, match=r"since the case has no \[time\], got a series"):
        train(wanted, tmp_path / "series", meshes={"train": [[square(0), square(1)]]})


def test_the_doubt_of_an_earlier_prediction_does_not_stay_beside_the_next(run):
    mesh = square(7)
    fields = {
        "std_u": np.ones((mesh.n_nodes, 2)),
        "lower_u": np.zeros((mesh.n_nodes, 2)),
        "std_wave": mesh.points[:, 0],
    }
    first = mesh.with_point_fields(**fields)  # of the file: nothing was predicted yet
    assert set(fields) <= set(run.predict(first).mesh.point_fields)
    again = run.predict(run.predict(mesh).mesh.with_point_fields(**fields)).mesh.point_fields
    assert "std_wave" in again and not {"std_u", "lower_u"} & set(again)
