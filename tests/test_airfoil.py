"""The airfoils of the example: the flow is a potential flow, along the wall, undisturbed far away."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from gno.mesh import quality
from gno.post import coefficients, fluid_force

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "airfoil"))
airfoil = importlib.import_module("potential_flow")


def gradients(mesh):
    """∇u of linear triangles, (n_cells, 2, 2), and their areas."""
    x, u = (values[mesh.cells[0].nodes] for values in (mesh.points, mesh.point_fields["velocity"]))
    edges, changes = (np.stack([a[:, 1] - a[:, 0], a[:, 2] - a[:, 0]], axis=1) for a in (x, u))
    return np.linalg.solve(edges, changes), np.linalg.det(edges) / 2


def sources(seed, spacing):
    """RMS of divergence and of rotation, relative to that of the whole gradient, away from the edge."""
    mesh, edge = airfoil.airfoil(seed, spacing), [airfoil.random_airfoil(seed).exponent, 0.0]
    away = np.linalg.norm(mesh.points[mesh.cells[0].nodes].mean(1) - edge, axis=1) > 0.3
    g, area = (values[away] for values in gradients(mesh))
    whole = np.sqrt((area * np.square(g).sum((1, 2))).sum())
    return [np.sqrt((area * part**2).sum()) / whole for part in (g[:, 0, 0] + g[:, 1, 1], g[:, 0, 1] - g[:, 1, 0])]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_flow_has_neither_sources_nor_rotation(seed):
    coarse, fine = (sources(seed, airfoil.SPACING / finer) for finer in (1, 4))
    assert max(fine) < 0.15
    assert max(fine) < 0.4 * min(coarse)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_follows_the_wall_and_the_inflow_and_lifts(seed):
    shape, zeta, _, inner, outer = airfoil.random_grid(seed, airfoil.SPACING / 8)
    place, velocity = shape.place(zeta), shape.velocity(zeta)
    along = np.roll(place[inner], -1) - np.roll(place[inner], 1)
    across = np.abs((velocity[inner] * np.conj(along / np.abs(along) * 1j)).real)
    assert across[1:-1].max() < 2e-3  # the ends lie on both sides of the edge
    assert np.abs(velocity[outer] - np.exp(1j * shape.attack)).max() < 0.1
    # the circulation around the airfoil is that of the circle: the map keeps it
    around = np.roll(place[outer], -1) - place[outer]
    middle = (np.roll(velocity[outer], -1) + velocity[outer]) / 2
    expected = -4 * np.pi * shape.radius * np.sin(shape.attack - np.angle(1 - shape.centre))
    assert (middle * np.conj(around)).real.sum() == pytest.approx(expected, rel=1e-2)


def test_meshes_are_sound_and_graded_and_finer_ones_are_the_same_problem():
    mesh, finer = airfoil.airfoil(5), airfoil.airfoil(5, airfoil.SPACING / 2)
    found = quality(mesh)
    assert not found.problems() and found.edge_length[2] > 100 * found.edge_length[0]
    assert finer.n_nodes > 3.5 * mesh.n_nodes
    np.testing.assert_array_equal(finer.global_fields["inflow"], mesh.global_fields["inflow"])
    assert np.ptp(finer.points, axis=0) == pytest.approx(np.ptp(mesh.points, axis=0), rel=1e-2)


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_lift_and_drag_are_those_of_kutta_and_joukowski(seed):
    mesh, shape = airfoil.airfoil(seed), airfoil.random_airfoil(seed)
    flow = mesh.global_fields["inflow"]
    force = fluid_force(mesh, "velocity", "pressure", "airfoil", viscosity=0.0, density=2.0).force
    drag, lift = coefficients(force, speed=1.0, length=1.0, density=2.0, flow=flow, up=(-flow[1], flow[0]))
    circulation = 4 * np.pi * shape.radius * np.sin(shape.attack - np.angle(1 - shape.centre))
    assert lift == pytest.approx(2 * circulation, rel=0.01, abs=0.01) and abs(drag) < 0.06
