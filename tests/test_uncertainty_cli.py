"""The command line where a run knows how sure it is: train, evaluate, predict, post, show, calibrate; and in time."""

import json
from pathlib import Path

import numpy as np
import pytest
import time_cases
from cli_cases import gno
from train_cases import square

from gno.mesh import read, read_series, write
from gno.mesh.pvd import write_collection
from gno.post.panels import field_panels
from gno.train import Run

CASE = """
[data]
train = "train/*.vtu"
validation = "validation/*.vtu"
inputs = ["wave"]
targets = ["u", "heat"]
[model]
width = 16
n_blocks = 1
n_heads = 1
[training]
epochs = 2
device = "cpu"
[uncertainty]
members = 2
at_once = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a case and an ensemble of two made by `gno train`, and what it said."""
    folder = tmp_path_factory.mktemp("doubt")
    for kind, seeds in {"train": range(3), "validation": range(10, 19), "held": range(20, 39)}.items():
        (folder / kind).mkdir()
        for seed in seeds:
            write(square(seed, n=6), folder / kind / f"{seed}.vtu")
    (folder / "case.toml").write_text(CASE)
    wave = {"wave": 30 * square(0, n=6).point_fields["wave"]}
    write(square(0, n=6).replace(point_fields=wave, cell_fields={}), folder / "far.vtu")
    return folder


def trained(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("gno.post.curves.draw_curves", lambda *_: None)
    if (folder / "runs").exists():
        return ""
    status, out, err = gno(capsys, monkeypatch, "train", "case.toml")
    assert status == 0, err
    return out


def test_train_calibrates_and_predict_says_how_sure_it_is(folder, capsys, monkeypatch):
    out = trained(folder, capsys, monkeypatch)
    assert (
        "the mean of 2 members: score on the validation files" in out
        and "calibrated on 9 files" in out
        and "standard deviations: spread of u widened by " in out
        and "at most 10.0% are" in out
    )
    status, out, err = gno(capsys, monkeypatch, "predict", "runs/case", "held/20.vtu", "far.vtu", "-o", "new")
    assert status == 0, err
    lines = out.splitlines()
    assert "in range (score" in lines[0] and "OUT OF RANGE by " in lines[1] and lines[2].startswith("1 of 2 out")
    mesh, level = read("new/20.vtu"), read("new/20_level1.vtu")
    for name in ("predicted_u", "std_u", "lower_u", "upper_u"):
        assert name in mesh.point_fields and name in level.point_fields
    assert np.all(mesh.point_fields["lower_u"] <= mesh.point_fields["upper_u"])
    middle = (mesh.point_fields["lower_u"] + mesh.point_fields["upper_u"]) / 2
    assert middle == pytest.approx(mesh.point_fields["predicted_u"])
    assert mesh.point_fields["novelty"].shape == (49,) and float(mesh.global_fields["novelty"]) <= 1
    assert "std_heat" in mesh.cell_fields


def test_evaluate_prints_errors_or_the_doubt(folder, capsys, monkeypatch):
    trained(folder, capsys, monkeypatch)
    status, out, err = gno(capsys, monkeypatch, "evaluate", "runs/case", "held/20.vtu", "held/21.vtu")
    assert status == 0 and "median" in out and "scale 2" in out, err
    arguments = ("evaluate", "runs/case", "held/20.vtu", "held/21.vtu", "--uncertainty")
    status, out, err = gno(capsys, monkeypatch, *arguments, "-o", "r.png")
    assert status == 0, err
    for part in ("ECE", "CRPS", "AUSE", "u@1, calibrated", "95%", "heat, scale 1", "meshes wholly inside"):
        assert part in out
    for name in ("r.png", "r_scales.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG") and name in err
    found = json.loads(gno(capsys, monkeypatch, *arguments, "--json")[1])
    assert found["meshes"] == 2 and set(found["scores"]["u"]["coverage"]) == {"0.5", "0.8", "0.9", "0.95"}


def test_samples_and_what_follows_from_them(folder, capsys, monkeypatch):
    trained(folder, capsys, monkeypatch)
    arguments = ("predict", "runs/case", "held/20.vtu", "-o", "sampled")
    assert "2 samples" in gno(capsys, monkeypatch, *arguments, "--samples")[1]
    samples = [read(f"sampled/20_samples/{k}.vtu").point_fields for k in range(2)]
    assert "std_u" not in samples[0] and "lower_u" not in samples[0]
    both = np.stack([sample["predicted_u"] for sample in samples])
    mean = read("sampled/20.vtu").point_fields
    assert both.mean(0) == pytest.approx(mean["predicted_u"])
    assert both.std(0, ddof=1) == pytest.approx(mean["std_u"], rel=1e-4)
    raw = np.stack([Run.load(f"runs/case/member_{k}").predict("held/20.vtu").field("u").mean for k in range(2)])
    factor = json.loads(Path("runs/case/calibration.json").read_text())["spread"]["u"]["samples"]
    assert both.std(0, ddof=1) == pytest.approx(factor * raw.std(0, ddof=1), rel=1e-3) and factor != 1
    solid = ("--stress", "predicted_u", "--young", 100, "--poisson", 0.3, "--plane", "stress")
    post = ("post", "sampled/20.vtu", *solid, "--reactions", "left")
    status, out, err = gno(capsys, monkeypatch, *post, "-o", "stress.vtu")
    assert status == 0 and "of 2 samples" in out and "reaction left force x" in out, err
    facts = [
        json.loads(gno(capsys, monkeypatch, "post", f"sampled/20_samples/{k}.vtu", *post[2:], "--json")[1])
        for k in range(2)
    ]
    found = json.loads(gno(capsys, monkeypatch, *post, "--json")[1])["samples"]
    forces = [fact["reaction left"]["force"][0] for fact in facts]
    assert found["reaction left force x"]["mean"] == pytest.approx(np.mean(forces))
    assert found["reaction left force x"]["std"] == pytest.approx(np.std(forces, ddof=1))
    assert read("stress.vtu").point_fields["std_von_mises"].max() > 0
    held = [str(path) for path in sorted(Path("held").glob("*.vtu"))][:10]
    assert gno(capsys, monkeypatch, "predict", "runs/case", *held, "-o", "kept", "--samples")[0] == 0
    status, out, err = gno(capsys, monkeypatch, *post, "--held-out", "kept", "--json")
    low, high = json.loads(out)["intervals"]["reaction left force x"]
    value = json.loads(out)["reaction left"]["force"][0]
    assert status == 0 and (low + high) / 2 == pytest.approx(value) and low < value < high, err
    assert "inside with 90%, by 10 held-out files:" in gno(capsys, monkeypatch, *post, "--held-out", "kept")[1]
    status, _, err = gno(capsys, monkeypatch, *post, "--held-out", "train")
    assert status == 2 and "--held-out: expected files of `gno predict --samples`, got train" in err
    assert gno(capsys, monkeypatch, *arguments)[0] == 0  # anew, without samples: the old ones are no more
    assert "samples" not in gno(capsys, monkeypatch, *post)[1]


def test_calibrate_takes_other_files_and_forgets_other_weights(folder, capsys, monkeypatch):
    trained(folder, capsys, monkeypatch)
    held = [f"held/{seed}.vtu" for seed in range(20, 39)]
    status, out, err = gno(capsys, monkeypatch, "calibrate", "runs/case", *held, "--coverage", 0.95)
    assert status == 0 and "calibrated on 19 files (held out)" in out and "95% intervals" in out, err
    for arguments, says in (
        (held[:3], "expected at least 9 files for 90%, got 3"),
        (["train/0.vtu", *held], "expected files that are not trained on"),
    ):
        status, _, err = gno(capsys, monkeypatch, "calibrate", "runs/case", *arguments)
        assert status == 2 and says in err and len(err.splitlines()) == 1
    record = folder / "runs/case/calibration.json"
    record.write_text(record.read_text().replace('"weights": "', '"weights": "0'))
    status, out, err = gno(capsys, monkeypatch, "predict", "runs/case", "far.vtu", "-o", "stale")
    assert status == 0 and "belongs to other weights" in err and "range" not in out
    assert "std_u" in read("stale/far.vtu").point_fields and "lower_u" not in read("stale/far.vtu").point_fields


def test_a_plain_run_predicts_as_before_until_it_is_calibrated(folder, capsys, monkeypatch):
    trained(folder, capsys, monkeypatch)
    (folder / "plain.toml").write_text(CASE.partition("[uncertainty]")[0])
    assert gno(capsys, monkeypatch, "train", "plain.toml")[0] == 0
    predict = ("predict", "runs/plain", "held/20.vtu", "-o", "plain")
    assert gno(capsys, monkeypatch, *predict)[0] == 0
    before = read("plain/20.vtu").point_fields
    assert "scale_attention" in before and not any(name.startswith(("std_", "lower_")) for name in before)
    held = [f"held/{seed}.vtu" for seed in range(21, 31)]
    assert gno(capsys, monkeypatch, "calibrate", "runs/plain", *held)[0] == 0
    assert "in range" in gno(capsys, monkeypatch, *predict)[1]
    after = read("plain/20.vtu").point_fields
    assert after["predicted_u"] == pytest.approx(before["predicted_u"], rel=1e-5) and "std_u" not in after
    width = after["upper_u"] - after["lower_u"]
    assert width.min() > 0 and width == pytest.approx(width.max())  # nothing says where it is less sure


def intervals_and_flags_in_time(capsys, monkeypatch, frames):
    """What the frames of a calibrated rollout say, that --resume says the same, and a start that is out of range."""
    given, *steps = frames
    assert "lower_u" not in given.point_fields and float(given.global_fields["novelty"]) == 0
    for mesh in steps:
        u = mesh.point_fields
        assert (u["lower_u"] + u["upper_u"]) / 2 == pytest.approx(u["predicted_u"])
        assert (u["lower_u"] < u["upper_u"]).all() and u["novelty"].shape == u["u"].shape
        assert float(mesh.global_fields["novelty"]) > 0
    again = ("predict", "runs/case", "2.pvd", "-o", "new", "--steps")
    assert gno(capsys, monkeypatch, *again, 9, "--resume")[0] == 0
    longer = read_series("new/2.pvd")
    assert len(longer) == 10 and "lower_u" not in longer[8].point_fields and "novelty" in longer[9].point_fields
    for mesh, other in zip(steps, longer[1:], strict=False):
        for name in ("lower_u", "std_u", "novelty"):
            assert other.point_fields[name] == pytest.approx(mesh.point_fields[name], rel=1e-6)
    write(given.with_point_fields(u=8 * given.point_fields["u"]), "far.vtu")
    status, out, err = gno(capsys, monkeypatch, "predict", "runs/case", "far.vtu", "-o", "new", "--steps", 2)
    assert status == 0 and "OUT OF RANGE from step 1 by " in out, err


def test_show_draws_the_doubt_beside_prediction_and_error(folder, capsys, monkeypatch):
    trained(folder, capsys, monkeypatch)
    assert gno(capsys, monkeypatch, "predict", "runs/case", "held/20.vtu", "-o", "shown")[0] == 0
    look = ("show", "shown/20.vtu", "-f", "u", "--compare", "predicted_u", "-o", "a.png")
    assert gno(capsys, monkeypatch, *look)[0] == 0 and (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    mesh = read("shown/20.vtu")
    seen = field_panels(mesh, "u", compare="predicted_u")
    assert [panel.title for panel in seen] == ["truth", "prediction", "error", "standard deviation"]
    assert seen[2].limits == seen[3].limits
    assert [panel.title for panel in field_panels(mesh, "predicted_u")] == [
        "predicted_u, magnitude",
        "standard deviation",
    ]


def test_rollouts_of_an_ensemble(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gno.post.curves.draw_curves", lambda *_: None)
    for seed in range(12):
        frames = time_cases.decay(seed)
        files = [tmp_path / f"{seed}_{k}.vtu" for k in range(len(frames))]
        for mesh, file in zip(frames, files, strict=True):
            write(mesh, file)
        write_collection(tmp_path / f"{seed}.pvd", files, [mesh.time for mesh in frames])
    held_out = [f"{k}.pvd" for k in range(3, 12)]
    (tmp_path / "case.toml").write_text(
        f'[data]\ntrain = ["0.pvd", "1.pvd"]\nvalidation = {held_out}\ninputs = ["k"]\ntargets = ["u"]\n[model]\n'
        'width = 16\nn_blocks = 1\nn_heads = 1\n[training]\nepochs = 2\ndevice = "cpu"\n[time]\n'
        "[uncertainty]\nmembers = 2\nat_once = 1\n"
    )
    status, out, err = gno(capsys, monkeypatch, "train", "case.toml")
    assert status == 0 and "intervals beside every predicted field, to step 7 of a rollout" in out, err
    assert "at most 10.0% are in these steps, wrongly" in out
    status, out, err = gno(capsys, monkeypatch, "predict", "runs/case", "2.pvd", "-o", "new", "--steps", 7)
    assert status == 0 and "8 frames" in out and " range " in out, err
    frames, ways = read_series("new/2.pvd"), [read_series(f"new/2_samples/{k}.pvd") for k in range(2)]
    assert list(frames.times) == pytest.approx(np.arange(8) * 0.1)
    spread = json.loads(Path("runs/case/calibration.json").read_text())["spread"]
    assert sorted(spread) == [f"u#{k}" for k in range(1, 8)] and spread["u#7"]["samples"] != 1
    for j, mesh in enumerate(frames):
        both = np.stack([way[j].point_fields["predicted_u"] for way in ways])
        assert mesh.point_fields["predicted_u"] == pytest.approx(both.mean(0))
        factor = spread.get(f"u#{min(j, 7)}", {"samples": 1})["samples"]  # ways as they went, the spread honest
        assert mesh.point_fields["std_u"] == pytest.approx(factor * both.std(0, ddof=1), rel=1e-4)
    assert frames[0].point_fields["std_u"].max() == 0 < frames[1].point_fields["std_u"].max()
    intervals_and_flags_in_time(capsys, monkeypatch, frames)
    status, out, err = gno(capsys, monkeypatch, "evaluate", "runs/case", "2.pvd", "--json")
    row = json.loads(out)["files"][0]["metrics"]
    last = frames[7].point_fields
    mass = np.full((7, 7), 1.0)
    mass[[0, -1]] *= 0.5
    mass[:, [0, -1]] *= 0.5
    mass = mass.ravel() / mass.sum()
    spread = mass @ (last["u"] - mass @ last["u"]) ** 2
    assert row["spread"]["u"][-1] == pytest.approx(np.sqrt(mass @ last["std_u"] ** 2 / (spread + 1e-7)), rel=1e-3)
    error = np.sqrt(mass @ (last["u"] - last["predicted_u"]) ** 2 / (spread + 1e-7))
    assert row["vrmse"]["u"][-1] == pytest.approx(error, rel=1e-3)
    doubt = ("evaluate", "runs/case", "2.pvd", "0.pvd", "--uncertainty")
    status, out, err = gno(capsys, monkeypatch, *doubt, "-o", "doubt.png")
    assert status == 0 and "u, steps 6:7, calibrated" in out and "2 series of 7 steps" in out, err
    assert Path("doubt.png").read_bytes().startswith(b"\x89PNG")
    assert len(Path("doubt.csv").read_text().splitlines()) == 8
    document = json.loads(gno(capsys, monkeypatch, *doubt, "--json")[1])
    assert document["steps"]["u"][6]["scores"]["sharpness"] > 0
    status, out, err = gno(capsys, monkeypatch, *doubt, "--curves", "a.png")
    assert status == 2 and "--curves: expected it without --uncertainty" in err
