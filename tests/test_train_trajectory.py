"""Trajectories: views, one hierarchy, every kind of series, what does not fit."""

import copy

import numpy as np
import pytest
import torch
from time_cases import case, decay, moving
from torch_geometric.data import Batch

from gno.graph import SampleSpec
from gno.mesh import read_series, write, write_series
from gno.nn import Output
from gno.train.dynamics import Unrolled, fit_normalisation, longest_horizon
from gno.train.losses import Term
from gno.train.sections import Time
from gno.train.splits import series_of
from gno.train.trajectory import Windows, build_trajectory, load_trajectories, load_trajectory, save_trajectory

NAMES = {"inputs": ["k"], "targets": ["u", "v"]}


def spec_of(*series):
    return SampleSpec.fit([frames[0] for frames in series], **NAMES)


def normalised(trajectories, spec):
    return [t.normalised(fit_normalisation(trajectories, spec), [], torch.float32) for t in trajectories]


def test_windows_are_views_of_the_states_and_share_the_mesh():
    series = [decay(0), decay(1)]
    spec = spec_of(*series)
    trajectories = normalised([build_trajectory(frames, spec) for frames in series], spec)
    windows = Windows(trajectories, 2, 3)
    assert len(windows) == 2 * 4
    window, states = windows[5], trajectories[1].states
    size = states.element_size() * states[0].numel()
    assert window.past.data_ptr() == states.data_ptr() + size  # frames 1 and 2 of the second trajectory
    assert window.future.data_ptr() == states.data_ptr() + 3 * size
    assert window.link_0.data_ptr() == trajectories[1].samples[0].link_0.data_ptr()
    assert torch.equal(window.future, states[3:6].transpose(0, 1)) and window.steps.shape == (1, 4)
    assert window.y is None and not trajectories[1].samples[0].keys().count("past")


def test_normalised_states_have_no_mean_and_unit_spread_and_rates_are_per_time():
    series = [decay(s, [0.0, 0.1, 0.4]) for s in range(3)]
    spec = spec_of(*series)
    raw = [build_trajectory(frames, spec) for frames in series]
    mass = raw[0].samples[0].mass_0.double()
    states = torch.stack([t.states for t in normalised(raw, spec)]).double()
    torch.testing.assert_close((states[..., 0] @ mass).mean(), torch.tensor(0.0).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close((states[..., 0].square() @ mass).mean(), torch.tensor(1.0).double(), atol=1e-4, rtol=0)
    rates = torch.stack([t.states.diff(dim=0) / t.times.diff()[:, None, None] for t in raw])
    expected = (rates[..., 0].square() @ mass).mean().sqrt()
    torch.testing.assert_close(fit_normalisation(raw, spec).targets.std[0], expected, rtol=1e-6, atol=0)


def test_every_kind_of_series_is_the_same_trajectory(tmp_path):
    frames = decay(3)
    spec = spec_of(frames)
    write_series(frames, tmp_path / "a.pvd")
    write_series(frames, tmp_path / "a.xdmf")
    for k, mesh in enumerate(frames):
        write(mesh, tmp_path / f"step_{k}.vtu")
    expected = build_trajectory(frames, spec)
    sources = [tmp_path / "a.pvd", tmp_path / "a.xdmf", series_of(tmp_path / "step_4.vtu")]
    for trajectory in load_trajectories(sources, spec):
        assert torch.equal(trajectory.states, expected.states) and torch.equal(trajectory.times, expected.times)
    (half,) = load_trajectories(sources[2:], spec, stride=2)
    assert torch.equal(half.times, expected.times[::2])
    (timed,) = load_trajectories(sources[:1], spec, step=0.5)
    assert timed.times.tolist() == [0.5 * k for k in range(8)]


def test_trajectories_are_kept_by_content(tmp_path, monkeypatch):
    frames = decay(0)
    spec = spec_of(frames)
    write_series(frames, tmp_path / "a.pvd")
    first = load_trajectories([tmp_path / "a.pvd"], spec, cache=tmp_path / "cache")[0]
    monkeypatch.setattr("gno.train.trajectory.build_trajectory", None)
    again = load_trajectories([tmp_path / "a.pvd"], spec, cache=tmp_path / "cache")[0]
    assert torch.equal(first.states, again.states) and torch.equal(first.samples[0].x, again.samples[0].x)
    write(frames[3].with_point_fields(u=frames[0].point_fields["u"]), tmp_path / "a_3.vtu")
    with pytest.raises(TypeError):
        load_trajectories([tmp_path / "a.pvd"], spec, cache=tmp_path / "cache")


def test_a_changing_mesh_has_a_sample_per_frame_and_survives_the_disk(tmp_path):
    frames = moving(0, 4)
    spec = SampleSpec.fit(frames[:1], inputs=["k"], targets=["u"])
    trajectory = build_trajectory(frames, spec)
    save_trajectory(trajectory, tmp_path / "t.safetensors")
    back = load_trajectory(tmp_path / "t.safetensors")
    for t in (trajectory, back):
        assert [sample.num_nodes for sample in t.samples] == [36, 49, 64, 81]
        window = t.window(0, 2, 1)
        truth = (1 + frames[2].points @ [1.0, 2.0])[:, None] * np.exp(-0.5 * np.array([0.0, 0.1]))
        np.testing.assert_allclose(window.past[:, :, 0], truth, rtol=1e-9)  # linear: moved exactly
    assert longest_horizon([trajectory], Time(unroll=5)) == 1
    with pytest.raises(ValueError, match="horizon: expected 1 where the mesh changes, got 2"):
        trajectory.window(0, 1, 2)


def test_nodes_that_move_keep_their_values():
    frames = [mesh.replace(points=mesh.points * (1 + 0.1 * k)) for k, mesh in enumerate(decay(0)[:3])]
    trajectory = build_trajectory(frames, spec_of(frames))
    assert trajectory.changes and trajectory.moves == (None, None)
    assert torch.equal(trajectory.window(0, 1, 1).past[:, 0], trajectory.states[0])


def test_what_does_not_fit_is_said():
    frames = decay(0)
    spec = spec_of(frames)
    with pytest.raises(ValueError, match=r"times: expected them to increase, got 0 after 0.1"):
        build_trajectory([frames[1], frames[0]], spec)
    changing = [m.replace(global_fields={"k": np.array([float(j)])}) for j, m in enumerate(frames)]
    with pytest.raises(ValueError, match=r"time.forcing: expected 'k' among them, which changes between"):
        build_trajectory(changing, spec)
    with pytest.raises(ValueError, match=r"expected at least 9 frames for time\.history = 8, got 8"):
        longest_horizon([build_trajectory(frames, spec)], Time(history=8))
    with pytest.raises(ValueError, match=r"time.forcing: unknown input 'q'. Inputs: k"):
        case(Time(forcing=("q",)))


def test_the_horizon_grows_from_one_to_the_longest():
    unrolled = Unrolled(torch.nn.Identity(), [], Time(unroll=4), 4)
    assert [unrolled.horizon(share) for share in (0.0, 0.2, 0.3, 0.6, 0.9, 1.0)] == [1, 1, 2, 3, 4, 4]


class Growth(torch.nn.Module):
    """Stands for an operator in time: the rate a u, in units of a change of one."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def change(self, steps, mesh, dtype):
        return torch.ones(4, 1, dtype=dtype)

    def batch(self, mesh, past, forcing, steps):
        ready = copy.copy(mesh)
        ready.state = past[:, -1]
        return ready

    def forward(self, ready):
        mass = torch.full((4,), 0.25, dtype=torch.float64)
        return Output((self.a * ready.state,), (mass,), (ready.pos_0,), (ready.pos_0_batch,), ())


def unrolled_growth(**time):
    """The objective, and a window of it that no growth fits."""
    future = torch.tensor([1.5, 2.0, 2.2, 2.1], dtype=torch.float64).expand(4, 4)[..., None]
    mesh = Batch(
        past=torch.ones(4, 1, 1, dtype=torch.float64),
        future=future,
        forcing=torch.zeros(4, 5, 0),
        steps=torch.ones(1, 4),
        mass_0=torch.full((4,), 0.25, dtype=torch.float64),
        pos_0=torch.zeros(4, 1),
        pos_0_batch=torch.zeros(4, dtype=torch.long),
    )
    term = Term("u", lambda batch, output: (output.fields[0] - batch.y).square().mean())
    return Unrolled(Growth(), [term], Time(**time), time["unroll"]), mesh


def test_a_gradient_through_all_steps_is_that_of_the_loss():
    unrolled, mesh = unrolled_growth(unroll=3, gradient=3, noise=0)
    a = unrolled.evolution.a

    def loss_at(value):
        states = [(1 + value) ** (k + 1) for k in range(3)]  # what is wanted of a step leads from where it set out
        return sum((u - y) ** 2 for u, y in zip(states, (1.5, 2.0, 2.2), strict=True)) / 3

    loss = unrolled(mesh).sum()
    loss.backward()
    assert loss.item() == pytest.approx(loss_at(0.3))
    assert a.grad.item() == pytest.approx((loss_at(0.3 + 1e-6) - loss_at(0.3 - 1e-6)) / 2e-6)


def test_the_pushforward_counts_the_last_step_alone():
    unrolled, mesh = unrolled_growth(unroll=3, gradient=1, noise=0)
    unrolled(mesh).sum().backward()
    before, wanted = 1.3**2, 2.2
    assert unrolled.evolution.a.grad.item() == pytest.approx(2 * (1.3 * before - wanted) * before)


def test_noise_fades_over_the_training():
    unrolled, mesh = unrolled_growth(unroll=1, noise=0.5)
    exact = unrolled_growth(unroll=1, noise=0)[0](mesh)
    off = {}
    for share in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        off[share] = (unrolled(mesh, share) - exact).abs().item()
    assert off[0.0] > off[0.5] > 0 and off[1.0] == 0


def test_a_series_is_read_when_asked_for(tmp_path):
    write_series(decay(0), tmp_path / "a.pvd")
    assert read_series(tmp_path / "a.pvd")[::2].times == (0.0, 0.2, 0.4, pytest.approx(0.6))


def test_numbers_in_the_names_of_frames_are_times(tmp_path):
    """Frames that are numbered anew, with the same content, are another series."""
    first, second = decay(0)[:2]
    write(first.replace(time=None), tmp_path / "a_9.vtu")
    write(second.replace(time=None), tmp_path / "a_10.vtu")
    spec = SampleSpec.fit([first], inputs=["k"], targets=["u"])
    (before,) = load_trajectories([tmp_path / "a_*.vtu"], spec, cache=tmp_path / "cache")
    (tmp_path / "a_9.vtu").rename(tmp_path / "a_30.vtu")
    (after,) = load_trajectories([tmp_path / "a_*.vtu"], spec, cache=tmp_path / "cache")
    assert (before.times.tolist(), after.times.tolist()) == ([9, 10], [10, 30])
    assert torch.equal(before.states[0], after.states[1])
