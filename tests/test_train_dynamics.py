"""Training in time: it learns, resumes to the bit, and the command line walks the whole way."""

import signal

import numpy as np
import pytest
import torch
from test_train_resume import stop_after
from time_cases import case, decay, moving
from typer.testing import CliRunner

from gno.cli import app
from gno.mesh import node_mass, read_series, write, write_series
from gno.train import Interrupted, Run, train
from gno.train.case import Time
from gno.train.checkpoint import load_tensors

SERIES = {"train": [decay(s) for s in range(3)], "validation": [decay(7)]}
SHORT = Time(unroll=2, history=2, noise=0.1, gradient=1)


def wanted(**training):
    return case(SHORT, epochs=2, validations=2, log_every=1, **training)


def test_a_run_in_time_resumes_to_the_bit(tmp_path):
    train(wanted(), tmp_path / "whole", meshes=SERIES, progress=False)
    ctrl_c = stop_after(4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="after 4 steps"):
        train(wanted(), tmp_path / "parts", meshes=SERIES, progress=False, optimiser=ctrl_c)
    train(wanted(), tmp_path / "parts", meshes=SERIES, progress=False, resume=True)
    one, two = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("whole", "parts"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    other = wanted().model_copy(update={"time": Time(unroll=3)})
    with pytest.raises(ValueError, match=r"time\..*: expected .* as in the run"):
        train(other, tmp_path / "parts", meshes=SERIES, progress=False, resume=True)


def test_it_learns_the_decay_and_its_parameter(tmp_path):
    settings = case(Time(unroll=1), epochs=6, lr=0.01, ema=0.9)
    series = {"train": [decay(s) for s in range(4)], "validation": [decay(8)]}
    run = train(settings, tmp_path / "run", meshes=series, progress=False)
    evaluation = run.evaluate_rollouts([decay(8), decay(9)])
    # no change at all would be an error of e^(k t) − 1: 0.1 after the first step on average, and 1 after seven
    assert evaluation.curve("relative_l2", "u")[0] < 0.03 and evaluation.curve("relative_l2", "u")[-1] < 0.15
    film = {name for name, p in run.model.named_parameters() if "film" in name and p.abs().sum() > 0}
    assert film, "parameters and Δt reach the scales"


def test_integrals_that_are_to_be_kept_are_kept(tmp_path):
    settings = case(Time(unroll=2, conserve=["v"]), targets=["u", "v"], lr=0.05)
    run = train(settings, tmp_path / "run", meshes={"train": [decay(s) for s in range(2)]}, progress=False)
    frames = read_series(run.roll_out(decay(5), tmp_path / "out.pvd", n_steps=4).path)
    mass = node_mass(frames[0])
    u, v = (np.array([mass @ f.point_fields[f"predicted_{name}"] for f in frames]) for name in "uv")
    assert np.abs(v - v[0]).max() < 1e-6 and np.abs(u - u[0])[1:].min() > 1e-4
    assert np.abs(frames[4].point_fields["predicted_v"] - frames[0].point_fields["predicted_v"]).max() > 1e-3
    with pytest.raises(ValueError, match=r"time.conserve: .* did you mean 'v'"):
        case(Time(conserve=["vv"]), targets=["u", "v"])


def test_meshes_that_change_every_step_can_be_learned_from(tmp_path):
    run = train(case(Time(unroll=4)), tmp_path / "run", meshes={"train": [moving(0, 4), moving(1, 4)]}, progress=False)
    assert np.isfinite(run.evaluate_rollouts([moving(2, 4)]).curve("vrmse", "u")).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a case, and a run of it, as a user has them."""
    folder = tmp_path_factory.mktemp("user")
    for s in range(4):
        write_series(decay(s), folder / f"d{s}.pvd")
    (folder / "case.toml").write_text(
        '[data]\nfiles = "d*.pvd"\ninputs = "k"\ntargets = ["u", "v"]\n[model]\nwidth = 16\nn_blocks = 1\nn_heads = 1\n'
        '[time]\nunroll = 2\n[training]\nepochs = 1\ndevice = "cpu"\n'
    )
    done = CliRunner().invoke(app, ["train", str(folder / "case.toml")], catch_exceptions=False)
    assert done.exit_code == 0
    return folder


def gno(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_evaluate_prints_the_windows_and_draws_curves(folder):
    done = gno("evaluate", folder / "runs" / "case", folder / "d0.pvd", "--curves", folder / "errors.png")
    assert "VRMSE 1 " in done.output and "VRMSE 6:12" in done.output and "13:30" in done.output
    assert (folder / "errors.png").stat().st_size > 10_000 and (folder / "errors.csv").exists()


def test_predict_rolls_out_goes_on_and_writes_xdmf(folder):
    out, run = folder / "out", folder / "runs" / "case"
    gno("predict", run, folder / "d1.pvd", "-o", out, "--steps", 3)
    assert len(read_series(out / "d1.pvd")) == 4
    gno("predict", run, folder / "d1.pvd", "-o", out, "--steps", 10, "--resume", "--format", ".xdmf")
    series, same = read_series(out / "d1.pvd"), read_series(out / "d1.xdmf")
    assert len(series) == len(same) == 11 and series.times[-1] == pytest.approx(1.0)
    assert np.array_equal(series[10].point_fields["predicted_v"], same[10].point_fields["predicted_v"])
    assert "u" in series[7].point_fields and "u" not in series[8].point_fields  # as far as the truth is known
    gno("predict", run, folder / "d1.pvd", "-o", out / "dotless", "--steps", 2, "--format", "xdmf")
    assert len(read_series(out / "dotless" / "d1.xdmf")) == 3
    write(decay(5)[0], folder / "start_3.vtu")
    gno("predict", run, folder / "start_3.vtu", "-o", out, "--steps", 2, "--step", 0.05)
    assert read_series(out / "start_3.pvd").times == (0.0, 0.05, 0.1)


def test_show_makes_a_film_and_a_space_time_picture(folder):
    from PIL import Image

    gno("predict", folder / "runs" / "case", folder / "d2.pvd", "-o", folder / "film", "--steps", 9)
    gno("show", folder / "film" / "d2.pvd", "-f", "u", "--compare", "predicted_u", "-o", folder / "a.gif")
    with Image.open(folder / "a.gif") as film:
        assert film.n_frames == 8  # two more have no truth
    gno("show", folder / "film" / "d2.pvd", "-f", "predicted_u", "--space-time", "-o", folder / "a.png")
    assert Image.open(folder / "a.png").width > 500


def test_a_steady_prediction_in_time_is_refused(folder):
    run = Run.load(folder / "runs" / "case")
    with pytest.raises(ValueError, match=r"in time"):
        run.predict(decay(0)[0])
    with pytest.raises(ValueError, match=r"in time"):
        run.evaluate([decay(0)[0]])
