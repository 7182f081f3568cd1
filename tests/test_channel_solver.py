"""The channel solver against what is known exactly, on small boxes."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
channel = importlib.import_module("channel_solver")

SMALL = channel.Channel(n_modes=(4, 4), n_y=33, viscosity=0.01)


@pytest.fixture(scope="module")
def rough():
    """A solver and a state after some steps from large waves."""
    solver = channel.Solver(SMALL, 0.01)
    state = channel.disturbed(solver, 0.01, seed=1)
    for _ in range(60):
        state, courant = solver.advance(state)
    assert 0 < courant < np.sqrt(3)
    return solver, state


def orr_sommerfeld(solver, alpha, reynolds):
    """The least stable wave of 1 − y²: its speed, and v; with v = (1 − y²) q and q = 0 at the walls."""
    y, d = solver.y, solver.d
    d2, one = solver.d2, np.eye(len(y))
    inner = np.divide(1.0, 1 - y**2, out=np.zeros_like(y), where=np.abs(y) < 1)
    d4 = (np.diag(1 - y**2) @ d2 @ d2 - 8 * np.diag(y) @ d2 @ d - 12 * d2) @ np.diag(inner)
    cut = slice(1, -1)
    laplacian = (d2 - alpha**2 * one)[cut, cut]
    square = (d4 - 2 * alpha**2 * d2 + alpha**4 * one)[cut, cut]
    flow = np.diag(1 - y**2)[cut, cut]
    left = square / reynolds - 1j * alpha * (flow @ laplacian + 2 * one[cut, cut])
    rates, waves = scipy.linalg.eig(left, laplacian)
    least = np.nanargmax(np.where(np.isfinite(rates), rates.real, -np.inf))
    return rates[least], np.pad(waves[:, least], 1)


def test_a_small_wave_grows_as_orr_and_sommerfeld_say():
    """Re = 7500, α = 1: ω = 0.24989154 + 0.00223498 i (Canuto et al. 1988, Spectral Methods in Fluid Dynamics)."""
    box = channel.Channel((1, 1), 65, (2 * np.pi, np.pi), 1 / 7500, bulk=2 / 3, frame=0.3)
    solver = channel.Solver(box, 0.05)
    rate, wave = orr_sommerfeld(solver, 1.0, 7500)
    assert abs(1j * rate - (0.24989154 + 0.00223498j)) < 1e-6
    state = channel.State(*np.zeros((2, 3, 2, 65), complex))
    state.eta[0, 0] = 1 - solver.y**2
    phi = (solver.d2 - np.eye(65)) @ (1e-6 * wave / np.abs(wave).max())
    state.laplacian[1, 0], state.laplacian[2, 0] = phi, phi.conj()
    start = solver.velocity(state)[1][1, 0, 20]
    for _ in range(200):
        state, _ = solver.advance(state)
    # the grid moves: in its frame the wave is slower
    found = np.log(solver.velocity(state)[1][1, 0, 20] / start) / 10.0
    assert found.real == pytest.approx(0.00223498, rel=2e-3)
    assert abs((found - rate - 0.3j).imag % (2 * np.pi / 10)) < 1e-3
    assert np.abs(state.eta[0, 0] - (1 - solver.y**2)).max() < 1e-9  # Poiseuille's profile stays


def test_a_wave_of_vorticity_decays_as_heat_does():
    box = dataclasses.replace(SMALL, bulk=0.0, frame=0.0, viscosity=0.1)
    solver = channel.Solver(box, 0.02)
    state = channel.State(*np.zeros((2, 9, 5, 33), complex))
    state.eta[0, 2] = 1e-8 * np.cos(np.pi / 2 * solver.y)
    start = state.eta.copy()
    for _ in range(20):
        state, _ = solver.advance(state)
    rate = 0.1 * (np.pi**2 / 4 + solver.k2[0, 2, 0])
    assert np.allclose(state.eta[0, 2], start[0, 2] * np.exp(-0.4 * rate), rtol=2e-3, atol=1e-14)


def test_nothing_appears_or_gets_lost(rough):
    solver, state = rough
    u, v, w = solver.velocity(state)
    assert solver.divergence(state) < 1e-13
    for field in (u, v, w, v @ solver.d.T):
        assert np.abs(field[..., [0, -1]]).max() < 1e-10  # no slip, and no flow through a wall
    assert solver.weights @ u[0, 0].real / 2 == pytest.approx(SMALL.bulk, abs=1e-12)


def test_the_mean_obeys_its_balance(rough):
    """∂U/∂t = Π − d⟨uv⟩/dy + ν U″: the difference of a short step is the force, the same everywhere."""
    solver, state = rough
    short = channel.Solver(SMALL, 1e-5)
    after, _ = short.advance(state)
    change = (after.eta[0, 0] - state.eta[0, 0]).real / 1e-5
    stress = channel.statistics(solver, [state])
    force = change + solver.d @ stress["uv"] - SMALL.viscosity * solver.d2 @ stress["U"]
    assert np.ptp(force[8:-8]) < 1e-2 * np.abs(solver.d @ stress["uv"]).max()


def test_moments_are_those_of_the_values(rough):
    solver, state = rough
    found, values = channel.statistics(solver, [state]), [solver.physical(f) for f in solver.velocity(state)]
    u, v, w = values[0] - values[0].mean((0, 1)), *values[1:]
    for name, product in {"uu": u * u, "vv": v * v, "ww": w * w, "uv": u * v}.items():
        assert np.allclose(found[name], product.mean((0, 1)), atol=1e-12)


def test_pressure_at_the_wall_solves_its_equation(rough):
    """∇²P = ∇·(u × ω), at the walls ∂P/∂y = ν ∂²v/∂y² + (u × ω)·y, as the grid moves, and P = p."""
    solver, state = rough
    k = 1, 1  # a wave number
    forces = solver.forces(solver.velocity(state), state.eta)[0]
    source = 1j * solver.kx[1, 0, 0] * forces[0][k] + forces[1][k] @ solver.d.T + 1j * solver.kz[0, 1] * forces[2][k]
    matrix = solver.d2 - solver.k2[1, 1] * np.eye(SMALL.n_y)
    matrix[[0, -1]] = solver.d[[0, -1]]
    v = solver.velocity(state)[1]
    source[[0, -1]] = (SMALL.viscosity * v[k] @ solver.d2.T + forces[1][k])[[0, -1]]
    pressure = np.linalg.solve(matrix, source)
    assert np.allclose(solver.wall(state)[1, 1, :, 2], pressure[[-1, 0]], rtol=5e-3, atol=0.0)


def test_a_run_goes_on_from_where_it_was(tmp_path):
    solver = channel.Solver(SMALL, 0.02)
    channel.run(solver, tmp_path / "once", 3, every=0.1)
    channel.run(solver, tmp_path / "twice", 2, every=0.1)
    channel.run(solver, tmp_path / "twice", 3, every=0.1)
    first, second = (channel.load(channel.snapshots(tmp_path / name)[-1]) for name in ("once", "twice"))
    assert np.allclose(first.eta, second.eta, atol=1e-5)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="step: expected one that is stable"):
        channel.run(channel.Solver(SMALL, 1.0), tmp_path / "long", 4, every=20.0)
