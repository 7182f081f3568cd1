"""From trajectories of particles to predictions: frames as samples, kinds as inputs, rollouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_cases import gno

from gno.mesh import read, read_series
from gno.train import Run, load_case, train
from gno.train.splits import series_of

BOX = np.array([4.0, 3.0, 3.0])


def dump(path: Path, n_frames: int, *, seed: int = 0, moving: bool = True) -> Path:
    """Particles of two types in a box, with a charge of their type, and a field u that fades and turns with time."""
    rng, text = np.random.default_rng(seed), ""
    x, kind = rng.random((60, 3)) * BOX, rng.permutation(60) % 2 + 1
    for k in range(n_frames):
        x = x + moving * rng.normal(0, 0.05, x.shape)
        u = np.exp(-0.1 * k) * np.sin(2 * np.pi * x[:, 0] / BOX[0]) + (kind - 1.5)
        rows = "\n".join(f"{i + 1} {kind[i]} {x[i, 0]} {x[i, 1]} {x[i, 2]} {u[i]}" for i in rng.permutation(60))
        box = "\n".join(f"0 {side}" for side in BOX)
        text += f"ITEM: TIMESTEP\n{10 * k}\nITEM: NUMBER OF ATOMS\n60\nITEM: BOX BOUNDS pp pp pp\n{box}\n"
        text += f"ITEM: ATOMS id type x y z v_u\n{rows}\n"
    path.write_text(text)
    return path


SMALL = "[model]\nwidth = 16\nn_blocks = 1\nn_heads = 1\n[training]\nepochs = 2\nbatch_size = 4\ndevice = 'cpu'\n"


def test_frames_of_a_trajectory_are_samples_and_kinds_are_inputs(tmp_path, capsys, monkeypatch) -> None:
    file = dump(tmp_path / "run.lammpstrj", 12)
    (tmp_path / "case.toml").write_text(
        f"[data]\nfiles = 'run.lammpstrj@:'\nsplit = [0.7, 0.15, 0.15]\ninputs = ['type 1', 'type 2']\n"
        f"targets = ['v_u']\n{SMALL}"
    )
    code, out, err = gno(capsys, monkeypatch, "inspect", file)
    assert code == 0 and "repeats    x after 4, y after 3, z after 3" in out and "the last of 12 steps" in out, err
    assert "none (point cloud)" in out and "type 1  30 nodes" in out and "quality    neighbours 0." in out
    code, _, err = gno(capsys, monkeypatch, "train", tmp_path / "case.toml")
    assert code == 0, err
    run = Run.load(tmp_path / "runs" / "case")
    paths = load_case(tmp_path / "case.toml").data.paths()
    assert sorted(len(part) for part in paths.values()) == [2, 2, 8]
    assert run.blueprint.spec.sets == () and run.blueprint.spec.n_inputs == 2
    assert np.isfinite(run.evaluate(paths["test"]).mean["v_u"])
    code, out, err = gno(
        capsys, monkeypatch, "predict", tmp_path / "runs" / "case", f"{file}@1:7:5", "-o", tmp_path / "predicted"
    )
    assert code == 0 and "run@1.vtu" in out, err
    found, truth = read(tmp_path / "predicted" / "run@6.vtu"), read(file, step=6)
    assert np.array_equal(found.points, truth.points) and found.period == truth.period and found.time == 60.0
    assert found.point_fields["predicted_v_u"].shape == (60,) and "type 1" in found.point_sets
    code, _, err = gno(capsys, monkeypatch, "evaluate", tmp_path / "runs" / "case", f"{file}@90:")
    assert code != 0 and err.count("\n") == 1 and "expected frames from 0 to 11, got '90:'" in err


def test_a_trajectory_is_a_series(tmp_path) -> None:
    for seed in range(4):
        dump(tmp_path / f"run{seed}.lammpstrj", 6, seed=seed)
    (tmp_path / "case.toml").write_text(
        "[data]\nfiles = '*.lammpstrj'\nsplit = [0.5, 0.25, 0.25]\ninputs = ['type 1']\ntargets = ['v_u']\n[time]\n"
        + SMALL
    )
    case = load_case(tmp_path / "case.toml")
    assert sorted(path.name for part in case.paths().values() for path in part) == [
        f"run{k}.lammpstrj" for k in range(4)
    ]
    run = train(case, tmp_path / "run", progress=False)
    assert np.isfinite(run.evaluate_rollouts(case.paths()["test"]).curve("relative_l2", "v_u")).all()
    rollout = run.roll_out(tmp_path / "run0.lammpstrj", tmp_path / "predicted.pvd", n_steps=7)
    frames = read_series(rollout.path)
    assert rollout.n_frames == len(frames) == 8 and frames[-1].time == 70.0
    # what moves is known as far as the file goes; then particles stay where they are
    assert np.array_equal(frames[3].points, read(tmp_path / "run0.lammpstrj", step=3).points)
    assert np.array_equal(frames[7].points, frames[5].points)


def test_numbered_frames_are_one_series_and_a_trajectory_is_its_own(tmp_path) -> None:
    alone, many = dump(tmp_path / "shot_10.lammpstrj", 1), dump(tmp_path / "run_10.lammpstrj", 2)
    assert series_of(alone).name == "shot_*.lammpstrj" and series_of(many) == many
    dump(tmp_path / "shot_9.lammpstrj", 1)
    assert [path.name for path, _ in read_series(tmp_path / "shot_*.lammpstrj").entries] == [
        "shot_9.lammpstrj",
        "shot_10.lammpstrj",
    ]


@pytest.mark.parametrize(
    ("pattern", "message"), [("no.xyz@:", "expected files, got none"), ("run.lammpstrj@9", "@9: exp")]
)
def test_frames_that_are_not_there_are_one_line(pattern, message, tmp_path) -> None:
    dump(tmp_path / "run.lammpstrj", 3)
    (tmp_path / "case.toml").write_text(f"[data]\nfiles = '{pattern}'\ntargets = ['v_u']\n{SMALL}")
    with pytest.raises(ValueError, match=message) as caught:
        load_case(tmp_path / "case.toml").paths()
    assert "\n" not in str(caught.value)
