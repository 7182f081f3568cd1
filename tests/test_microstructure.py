"""Periodic cells and classical homogenisation: exact relations, bounds, and methods that must agree."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from gno.mesh import CellBlock, Mesh, repeats

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
cells, classical, running = (importlib.import_module(f"microstructure_{n}") for n in ("cells", "classical", "run"))

SPACING = 1 / 14
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


@pytest.fixture(scope="module")
def grains():
    return cells.random_grains(cells.REGIMES["test"], 0)


@pytest.fixture(scope="module")
def mesh(grains):
    return cells.triangulate(grains, SPACING)


def tensor_of(mesh, times=0):
    return cells.tensor(cells.with_reference(mesh, times).global_fields["effective"])


def laminate(turned):
    """Two layers of the same width, of 1 and of 9; the normal along x, or along y."""
    centres = np.array([[0.25, 0.5], [0.75, 0.5]])
    return cells.Grains(1.0, centres[:, ::-1].copy() if turned else centres, np.array([1.0, 9.0]))


def with_fields(grains):
    """A mesh that carries its grains and nothing else."""
    fields = {"centres": grains.centres.ravel(), "grains": grains.conductivity}
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    return Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),), global_fields=fields, period=(1.0, 1.0))


@pytest.mark.parametrize("turned", [False, True])
def test_layers_are_as_in_closed_form_by_every_method(turned):
    """Across the layers the harmonic mean, along them the arithmetic one."""
    grains = laminate(turned)
    exact = np.diag([1.8, 5.0][:: -1 if turned else 1])
    mesh, a = running.on_grid(with_fields(grains), 8), classical.pixels(grains, 16)
    assert np.allclose(tensor_of(mesh.with_point_fields()), exact, atol=1e-9)
    assert np.allclose(classical.on_mesh(mesh)[1], exact, atol=1e-9)
    assert np.allclose(classical.averaged(a, 1.0, 16)[1], exact, atol=1e-9)
    across = int(turned)
    for field, found in (classical.multiscale(a, 1.0, 4), classical.averaged(a, 1.0, 16)):
        assert np.allclose(found, exact, atol=1e-9)  # layers inside the elements, too
        chi = field(np.array([[0.0, 0.0], [0.25, 0.25], [0.5, 0.5], [0.75, 0.75]]))
        assert np.allclose(np.diff(chi[:, across]), [0.2, 0.2, -0.2], atol=1e-9)  # a (1 + χ') = 1.8
        assert np.allclose(np.diff(chi[:, 1 - across]), 0, atol=1e-9)


def test_layers_that_cut_coarse_elements_in_two():
    """One coarse element has both phases: multiscale elements stay exact, those with averaged coefficients do not."""
    a = classical.pixels(laminate(False), 16)
    shifted = np.roll(a, 3, axis=0)
    assert np.allclose(classical.multiscale(shifted, 1.0, 2)[1], np.diag([1.8, 5.0]), atol=1e-9)
    assert classical.averaged(shifted, 1.0, 2)[1][0, 0] > 2.5


@pytest.mark.parametrize("oversampling", [0, 4])
def test_a_uniform_cell_does_not_fluctuate(oversampling):
    field, found = classical.multiscale(np.full((16, 16), 3.0), 2.0, 4, oversampling)
    assert np.allclose(found, 3 * np.eye(2)) and np.allclose(field(np.random.default_rng(0).uniform(0, 2, (9, 2))), 0)


def test_multiscale_elements_of_one_square_are_bilinear(grains):
    a = classical.pixels(grains, 16)
    one, other = classical.multiscale(a, 1.0, 16), classical.averaged(a, 1.0, 16)
    points = np.random.default_rng(0).uniform(0, 1, (20, 2))
    assert np.allclose(one[1], other[1])
    assert np.allclose(np.diff(one[0](points), axis=0), np.diff(other[0](points), axis=0))


def test_multiscale_elements_come_closer_than_averaged_coefficients(grains, mesh):
    """And all of them stay above the solution on their squares, which has the least energy."""
    a = classical.pixels(grains, 32)
    fine, coarse, multiscale = (
        np.trace(found)
        for _, found in (
            classical.averaged(a, 1.0, 32),
            classical.averaged(a, 1.0, 8),
            classical.multiscale(a, 1.0, 8),
        )
    )
    assert fine < multiscale < fine + 0.3 * (coarse - fine)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_effective_property_lies_between_the_bounds(number):
    mesh = cells.triangulate(cells.random_grains(cells.REGIMES["test"], number), SPACING)
    a, area = mesh.cell_fields["conductivity"], cells.slopes(mesh)[1]
    share = area[a > 1].sum()
    low, high = np.linalg.eigvalsh(tensor_of(mesh))
    assert classical.reuss(share, 1.0, a.max()) < low < high < classical.voigt(share, 1.0, a.max())


def test_the_inverse_conductivity_has_the_inverse_effective_one(mesh):
    """In the plane A(1/a) is A(a)⁻¹ turned (J. B. Keller, J. Math. Phys. 5 (1964) 548); elements err on one side."""
    inverse = mesh.replace(cell_fields={"conductivity": 1 / mesh.cell_fields["conductivity"]})
    gaps = []
    for times in (0, 1, 2):
        a, b = tensor_of(mesh, times), tensor_of(inverse, times)
        gaps.append(np.diag(TURN @ a @ TURN.T @ b - np.eye(2)))
    assert (gaps[0] > 2 * gaps[1]).all() and (gaps[1] > 2 * gaps[2]).all()
    assert gaps[2].min() > 0 and gaps[2].max() < 0.02


def test_where_the_cell_is_cut_open_does_not_matter(grains, mesh):
    moved = dataclasses.replace(grains, centres=(grains.centres + np.array([0.37, 0.61])) % 1.0)
    a, b = tensor_of(mesh, 2), tensor_of(cells.triangulate(moved, SPACING), 2)
    assert np.linalg.norm(a - b) < 0.01 * np.linalg.norm(a)


def test_meshes_fill_the_cell_follow_the_grains_and_repeat(grains, mesh):
    area, a = cells.slopes(mesh)[1], mesh.cell_fields["conductivity"]
    points = np.random.default_rng(0).uniform(0, 1, (100_000, 2))
    assert abs(area.sum() - 1) < 1e-12 and area.min() > 0
    assert abs(area[a > 1].sum() - (grains.at(points) > 1).mean()) < 0.01
    partner = repeats(mesh)
    assert (partner != np.arange(mesh.n_nodes)).sum() >= 2 / SPACING - 2
    chi = cells.solved(mesh)
    assert np.array_equal(chi, chi[partner])
    assert np.abs(running.node_mass(mesh) @ chi).max() < 1e-12


def test_two_solvers_of_the_same_elements_agree(mesh):
    chi, found = classical.on_mesh(mesh)
    assert np.allclose(chi, cells.solved(mesh), atol=1e-9)
    assert np.allclose(found, tensor_of(mesh), atol=1e-9)


def test_closed_formulas():
    """Hashin and Shtrikman inside Voigt and Reuss; what is symmetric in its phases has the geometric mean."""
    lower, upper = classical.hashin_shtrikman(0.3, 1.0, 20.0)
    assert classical.reuss(0.3, 1.0, 20.0) < lower < classical.self_consistent(0.3, 1.0, 20.0) < upper
    assert upper < classical.voigt(0.3, 1.0, 20.0)
    assert classical.self_consistent(0.5, 1.0, 16.0) == pytest.approx(4.0)
    for estimate in (classical.voigt, classical.reuss, classical.self_consistent):
        assert estimate(0.0, 1.0, 20.0) == pytest.approx(1.0) and estimate(1.0, 1.0, 20.0) == pytest.approx(20.0)


def test_errors_of_the_reference_and_of_nothing(mesh):
    known = cells.with_reference(mesh, 0)
    a = cells.tensor(known.global_fields["effective"])
    right = running.errors(known, running.Answer(known.point_fields["fluctuation"], a, a, 0.0, 0.0))
    assert max(right.values()) < 1e-9
    nothing = running.errors(known, running.Answer(0 * known.point_fields["fluctuation"], 0 * a, a, 0.0, 0.0))
    assert nothing["field"] == nothing["effective"] == 1.0
