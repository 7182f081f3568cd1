"""The channel benchmark on states that are no turbulence, and a budget of nothing."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
benchmark, running, channel = (importlib.import_module(f"channel{name}") for name in ("", "_run", "_solver"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Snapshots in a coarse box."""
    found = tmp_path_factory.mktemp("channel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "CHANNEL", channel.Channel(n_modes=(3, 3), n_y=17))
        patch.setattr(channel, "FIRST", 0)
        patch.setattr(running, "SIDE", 8)
        patch.setattr(running, "N_TEST", 2)
        solver = channel.Solver(running.CHANNEL, 0.01)
        for number in range(25):
            channel.save(channel.disturbed(solver, 0.01, number), found / f"{number:05d}.npz")
        yield found


def test_it_trains_measures_and_prints(folder):
    rows = [running.run(running.Job(model, minutes=0.01), folder) for model in ("linear", "gno")]
    assert all(math.isfinite(x) for row in rows for mesh in row["test"].values() for x in mesh["error"])
    assert rows[0]["pairs"] == 36 and rows[1]["steps"] > 0
    assert np.allclose(np.sum(rows[1]["scales"]["shares"], axis=0), 1)
    text = benchmark.table(rows)
    assert "| linear | " in text and "| gno | 0.003 | 4 | 1 |" in text and "\n| 50 |" in text
    longer = {**rows[1], "minutes": 0.02}
    text = benchmark.table([*rows, longer])
    assert "| gno, 0.02 min | 0.003 | 4 | 1 |" in text and "After 0.02 minutes" in text


def test_both_walls_are_alike(folder):
    """A state and its mirror image give the same pairs, wall for wall."""
    solver = channel.Solver(running.CHANNEL, 0.01)
    state = channel.load(channel.snapshots(folder)[0])
    image = channel.State(-state.laplacian[..., ::-1], state.eta[..., ::-1])
    rows = running.rows_at(solver, np.array([-0.9, -0.5]))
    pairs, mirrored = (running.both_walls(solver, one, rows) for one in (state, image))
    for (wall, flow), (other_wall, other_flow) in zip(pairs, mirrored[::-1], strict=True):
        assert np.allclose(wall, other_wall, atol=1e-7) and np.allclose(flow, other_flow, atol=1e-9)


def test_images_along_z_turn_w_alone(folder):
    pairs, points = running.data(folder)["train"], np.random.default_rng(0).uniform(0, 1, (5, 2))
    images = running.with_images(pairs)
    for here, there, names in zip(pairs, images, (running.INPUTS, running.COLUMNS), strict=True):
        signs = [-1 if "w" in name else 1 for name in names]
        image = running.values(there[len(here) :], points * [1, -1])
        assert np.allclose(image, signs * running.values(here, points), atol=1e-6)


def test_training_and_test_do_not_share_a_time(folder):
    parts = running.data(folder)
    train, test = parts["train"], parts["test"]
    assert len(train.wall) == 36 and len(test.wall) == 4
    assert np.abs(train.flow[:, None] - test.flow[None]).sum((2, 3, 4)).min() > 0
    assert np.allclose(running.mean_square(train.flow), 1)


def test_values_are_sums_of_waves(folder):
    solver, mesh = channel.Solver(running.CHANNEL, 0.01), running.grid(8)
    state = channel.load(channel.snapshots(folder)[0])
    u = solver.velocity(state)[0]
    grid = solver.physical(u, (8, 8))[..., 5]
    found = running.values(u[None, :, :, 5:6], mesh.points).reshape(9, 9)
    assert np.allclose(found[:8, :8], grid, atol=1e-6) and np.allclose(found[8], found[0], atol=1e-6)


def test_a_linear_law_is_found_by_linear_estimation(folder):
    parts = running.data(folder)
    train, test = parts["train"], parts["test"]
    rng = np.random.default_rng(0)
    wall = rng.normal(size=(40, *train.wall.shape[1:])) + 1j * rng.normal(size=(40, *train.wall.shape[1:]))
    flow = np.repeat(wall[..., :1], len(running.COLUMNS), axis=-1)
    flow[..., [k for k, name in enumerate(running.COLUMNS) if name[0] == "w"]] = wall[..., 1:2]
    estimate = running.Linear(running.Pairs(wall, flow), ridge=1e-9)
    assert np.allclose(estimate(test.wall)[..., 0], test.wall[..., 0], atol=1e-5)
    assert np.allclose(estimate(test.wall)[..., 2], test.wall[..., 1], atol=1e-5)


def test_scores_know_a_perfect_and_a_useless_prediction():
    mesh, rng = running.grid(8), np.random.default_rng(0)
    truth = rng.normal(size=(2, 9, 9, 1))
    truth[:, 8], truth[:, :, 8] = truth[:, 0], truth[:, :, 0]
    truth = truth.reshape(2, 81, 1)
    assert running.scores(truth, truth, mesh)["error"] == [0.0]
    assert running.scores(0 * truth, truth, mesh)["error"] == [1.0]
    assert running.spectrum_error(0 * truth, truth) == [1.0]


def test_without_snapshots_it_says_what_to_run_first(tmp_path):
    with pytest.raises(SystemExit, match=r"expected snapshots of a turbulent flow, got none; run channel_solver.py"):
        running.raw(tmp_path)
