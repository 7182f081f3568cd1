"""Gray–Scott: the solver against exact solutions, against differences on a grid, and against itself."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gno.mesh import boundary_facets, mesh_edges, node_mass

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "gray_scott"))
NAMES = ("solver", "finite_difference", "domains", "regimes", "pattern_statistics")
solver, finite_difference, domains, regimes, pattern_statistics = (importlib.import_module(name) for name in NAMES)

MAZE = solver.Parameters(0.037, 0.06)


def rate(errors, sizes):
    """Slope of log error over log size."""
    return np.polyfit(np.log(sizes), np.log(errors), 1)[0]


def solve(region, parameters, start, time, step=1.0):
    operators = solver.assemble(region.mesh, region.unknown)
    return next(solver.simulate(operators, parameters, start, [time], step=step))


def error(values, truth, mass):
    return np.sqrt(mass @ (values - truth) ** 2 / (mass @ truth**2))


@pytest.mark.parametrize(
    ("domain", "mode", "eigenvalue", "spacings"),
    [
        # Eigenfunctions of the Laplacian: xy is a spherical harmonic of degree 2, with 6 / R².
        ("sphere", lambda x: x[:, 0] * x[:, 1] / 0.29**2, 6 / 0.29**2, (0.12, 0.085, 0.06)),
        (
            "periodic",
            lambda x: np.cos(2 * np.pi * x[:, 0]) * np.sin(4 * np.pi * x[:, 1]),
            20 * np.pi**2,
            (1 / 12, 1 / 24),
        ),
    ],
)
def test_diffusion_decays_as_eigenfunctions_do_with_second_order(domain, mode, eigenvalue, spacings):
    parameters = solver.Parameters(0.02, 0.06, diffusion=(1e-3, 1e-3))
    errors = []
    for spacing in spacings:
        region = domains.DOMAINS[domain](0, spacing)
        shape = mode(region.mesh.points)
        start = np.stack([1 + shape, 0 * shape], axis=1)
        u, v = solve(region, parameters, start, 10.0, step=0.05).T
        truth = shape * np.exp(-10 * (0.02 + 1e-3 * eigenvalue))
        errors.append(error(u - 1, truth, node_mass(region.mesh)))
        assert not v.any()
    assert errors[-1] < 0.03
    assert rate(errors, spacings) > 1.85


def test_finite_elements_meet_differences_with_second_order():
    fine, counts, horizon = 96, (16, 24, 32), 30.0
    grid = np.stack(np.meshgrid(*[np.arange(fine) / fine] * 2, indexing="ij"), -1)
    smooth = {"period": 1.0, "correlation": 0.2}
    # Larger islands and faster diffusion than in the data: what so few nodes resolve.
    parameters = solver.Parameters(0.037, 0.06, diffusion=(2e-4, 1e-4))
    start = domains.random_start(0, grid.reshape(-1, 2), **smooth).reshape(fine, fine, 2)
    truth = next(finite_difference.simulate_grid(parameters, start, [horizon], step=0.1))
    errors = []
    for n in counts:
        square = domains.periodic_square(0, 1 / n)
        state = solve(square, parameters, domains.random_start(0, square.mesh.points, **smooth), horizon, step=0.1)
        difference = state.reshape(n + 1, n + 1, 2)[:n, :n] - truth[:: fine // n, :: fine // n]
        errors.append(np.linalg.norm(difference[..., 1]) / np.linalg.norm(truth[:: fine // n, :: fine // n, 1]))
    assert errors[-1] < 0.02
    assert rate(errors, 1 / np.array(counts)) > 1.85


def test_differences_are_of_fourth_order():
    errors, counts = [], (16, 32, 64)
    for n in counts:
        x, y = np.meshgrid(*[2 * np.pi * np.arange(n) / n] * 2, indexing="ij")
        wave = np.stack([np.sin(x) * np.cos(2 * y), np.cos(x)], axis=-1)
        exact = -((2 * np.pi) ** 2) * wave * [5, 1]
        errors.append(np.abs(finite_difference.laplacian(wave, 1 / n) - exact).max() / np.abs(exact).max())
    assert rate(errors, 1 / np.array(counts)) == pytest.approx(4, abs=0.1)


def test_time_steps_are_of_second_order():
    square = domains.periodic_square(0, 1 / 24)
    start = domains.random_start(0, square.mesh.points, period=1.0, correlation=0.12)
    truth = solve(square, MAZE, start, 20.0, step=0.02)
    steps = (1.0, 0.5, 0.25)
    errors = [np.abs(solve(square, MAZE, start, 20.0, step=step) - truth).max() for step in steps]
    assert rate(errors, steps) == pytest.approx(2, abs=0.15)


def test_without_differences_in_space_it_is_the_reaction_alone():
    square = domains.periodic_square(0, 1 / 4)
    start = np.tile([0.6, 0.3], (square.mesh.n_nodes, 1))

    def slope(_, w):
        u, v = w
        return [0.037 * (1 - u) - u * v**2, u * v**2 - 0.097 * v]

    truth = solve_ivp(slope, (0, 40), [0.6, 0.3], rtol=1e-10, atol=1e-12).y[:, -1]
    assert np.abs(solve(square, MAZE, start, 40.0, step=0.1) - truth).max() < 2e-5


def test_the_empty_state_stays_on_every_domain():
    for make in domains.DOMAINS.values():
        region = make(3, 0.08)
        start = np.tile([1.0, 0.0], (region.mesh.n_nodes, 1))
        assert np.abs(solve(region, MAZE, start, 50.0) - start).max() < 1e-11


def test_what_moves_over_the_edge_of_the_periodic_square_comes_in_on_the_other_side():
    n = 20
    square = domains.periodic_square(0, 1 / n)
    start = domains.random_start(0, square.mesh.points, period=1.0)
    grid = start.reshape(n + 1, n + 1, 2)[:n, :n]
    moved = np.pad(np.roll(grid, (6, -4), (0, 1)), ((0, 1), (0, 1), (0, 0)), mode="wrap").reshape(-1, 2)
    one, other = (solve(square, MAZE, w, 30.0).reshape(n + 1, n + 1, 2)[:n, :n] for w in (start, moved))
    assert np.abs(np.roll(one, (6, -4), (0, 1)) - other).max() < 1e-10


@pytest.mark.parametrize(("name", "euler", "area"), [("sphere", 2, 4 * np.pi * 0.29**2), ("torus", 0, 0.1 * np.pi**2)])
def test_closed_surfaces_are_closed_and_of_the_right_size(name, euler, area):
    mesh = domains.DOMAINS[name](0, 0.04).mesh
    assert len(boundary_facets(mesh)) == 0
    assert mesh.n_nodes - mesh_edges(mesh).shape[1] + mesh.n_cells == euler
    assert node_mass(mesh).sum() == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_random_bodies_are_whole_and_their_triangles_good(seed):
    mesh = domains.blob(seed, 0.05).mesh
    i, j = mesh_edges(mesh)
    length = np.linalg.norm(mesh.points[i] - mesh.points[j], axis=1)
    corner = mesh.points[mesh.cells[0].nodes]
    side = np.roll(corner, -1, axis=1) - corner
    side /= np.linalg.norm(side, axis=2, keepdims=True)
    angle = np.degrees(np.arccos(-(side * np.roll(side, 1, axis=1)).sum(2)))
    assert mesh.n_nodes - len(i) + mesh.n_cells == 2
    assert length.mean() == pytest.approx(0.05, rel=0.1)
    assert angle.min() > 20 and np.median(angle.min(1)) > 45


@pytest.mark.parametrize("name", ["holes", "periodic", "sphere"])
def test_a_refined_region_is_the_same_place(name):
    coarse = domains.DOMAINS[name](1, 0.1)
    fine = domains.refined(coarse)
    n = coarse.mesh.n_nodes
    assert fine.mesh.n_cells == 4 * coarse.mesh.n_cells
    assert np.array_equal(fine.mesh.points[:n], coarse.mesh.points)
    assert node_mass(fine.mesh).sum() == pytest.approx(node_mass(coarse.mesh).sum(), rel=1e-12)
    if name == "periodic":
        assert len(np.unique(fine.unknown)) == 20**2 == fine.unknown.max() + 1
        same = np.unique(fine.unknown, return_inverse=True)[1]
        place = np.round(fine.mesh.points % 1 * 20).astype(int) % 20
        assert len(np.unique(np.column_stack([same, place]), axis=0)) == 20**2


def test_a_start_is_a_function_of_the_place():
    coarse, fine = domains.periodic_square(0, 0.1), domains.periodic_square(0, 0.05)
    start = [domains.random_start(7, region.mesh.points, period=1.0) for region in (coarse, fine)]
    assert np.array_equal(start[0].reshape(11, 11, 2), start[1].reshape(21, 21, 2)[::2, ::2])
    assert np.abs(start[0].reshape(11, 11, 2)[0] - start[0].reshape(11, 11, 2)[-1]).max() < 1e-12
    assert start[0].min() > 0 and start[0].max() < 1


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_bad_times_and_steps_are_named():
    with pytest.raises(ValueError, match="increasing multiples of 10 / n, got"):
        solver.steps_to([10.0, 25.5], 10.0)
    with pytest.raises(ValueError, match=r"expected a positive time and step"):
        solver.steps_to([0.0], 1.0)
    with pytest.raises(ValueError, match=r"expected at most .* for a spacing of 0.02, got 10"):
        next(finite_difference.simulate_grid(MAZE, np.ones((50, 50, 2)), [10.0], step=10.0))
    square = domains.periodic_square(0, 0.1)
    with pytest.raises(ValueError, match="no finite state left"):
        solve(square, MAZE, np.full((square.mesh.n_nodes, 2), 50.0), 100.0)


def test_parameters_for_training_surround_those_for_tests():
    rng = np.random.default_rng(0)
    drawn = [[draw(rng) for _ in range(200)] for draw in (regimes.draw_training, regimes.draw_interpolation)]
    assert not any(regimes.WINDOW.contains(p) for p in drawn[0])
    assert all(regimes.WINDOW.contains(p) and regimes.TRAINING.contains(p) for p in drawn[1])
    outside = [regimes.draw_extrapolation(rng) for _ in range(200)]
    assert not any(regimes.TRAINING.contains(p) for p in outside)


@pytest.mark.parametrize("name", NAMES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(sys.modules[name]).failed == 0
