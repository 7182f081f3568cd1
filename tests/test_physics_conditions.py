"""Boundary conditions: met to the bit, exact on linear fields, and what is said when they do not fit."""

import numpy as np
import pytest
import torch
from equation_cases import box

from gno.mesh import CellBlock, Mesh
from gno.physics import (
    BoundaryTerm,
    Dirichlet,
    Energy,
    Neumann,
    Periodic,
    Robin,
    build_problem,
    diffusion,
    dot,
    elasticity,
    plane_strain,
    solve,
)


def linear(x):
    return 1 + 2 * x[..., 0] - 3 * x[..., 1]


def test_given_values_are_met_to_the_bit():
    mesh = box(4)
    given = np.random.default_rng(0).standard_normal(mesh.n_nodes)
    given[0] = -0.0
    problem = build_problem(mesh, diffusion, {"conductivity": 1.0}, [Dirichlet("boundary", given)])
    rim = problem.fixed[:, 0].numpy()
    for u in (problem.lift(torch.randn(mesh.n_nodes, 1).double()), solve(problem).values):
        assert np.array_equal(u[rim, 0].numpy().view(np.int64), given[rim].view(np.int64))
    inside = torch.randn(mesh.n_nodes, 1).double()
    assert torch.equal(problem.lift(inside)[~rim], inside[~rim])
    assert rim.sum() == 16


def test_the_boundary_of_quadratic_cells_has_their_middle_nodes():
    points = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0], [0.5, 0.5], [0, 0.5]])
    mesh = Mesh(points, [CellBlock("triangle6", np.array([[0, 1, 2, 3, 4, 5]]))])
    problem = build_problem(mesh, diffusion, {"conductivity": 1.0}, [Dirichlet("boundary")])
    assert problem.fixed.all()


@pytest.mark.parametrize(
    "value",
    [2.0, (2.0,), "g", lambda x: np.full(len(x), 2.0), lambda x: np.full((len(x), 1), 2.0), torch.full((9,), 2.0)],
)
def test_values_are_numbers_fields_or_functions(value):
    mesh = box(2).with_point_fields(g=np.full(9, 2.0))
    problem = build_problem(mesh, diffusion, {"conductivity": 1.0}, [Dirichlet("left", value)])
    assert problem.values[:, 0].tolist() == [2.0 if x == 0 else 0.0 for x in mesh.points[:, 0]]


def test_the_later_condition_holds_and_components_are_held_one_by_one():
    mesh = box(2)
    conditions = [Dirichlet("left", (1.0, 2.0)), Dirichlet("bottom", 5.0, components=1)]
    problem = build_problem(mesh, plane_strain, {"young": 1.0, "poisson": 0.3}, conditions)
    x, y = mesh.points.T
    assert np.array_equal(problem.fixed.numpy(), np.stack([x == 0, (x == 0) | (y == 0)], 1))
    assert problem.values[(x == 0) & (y == 0)].tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_a_flux_gives_the_linear_field_it_belongs_to(kind):
    mesh = box(3, kind)
    conditions = [
        Dirichlet("left", lambda x: linear(x)),
        Neumann("right", 4.0),
        Neumann("top", -6.0),
        Neumann("bottom", 6.0),
    ]
    values = solve(build_problem(mesh, diffusion, {"conductivity": 2.0}, conditions)).values[:, 0]
    np.testing.assert_allclose(values, linear(mesh.points), atol=1e-9)


def test_an_exchange_gives_the_linear_field_it_belongs_to():
    mesh = box(3)
    # k ∂u/∂n = α (u∞ − u): at the right 2·2 = 4 (u∞ − 3 + 3 y), and the like.
    conditions = [
        Robin("right", 4.0, lambda x: linear(x) + 1.0),
        Robin("left", lambda x: 1 + x[..., 1], lambda x: linear(x) - 4 / (1 + x[..., 1])),
        Robin("top", 3.0, lambda x: linear(x) - 2.0),
        Neumann("bottom", 6.0),
    ]
    values = solve(build_problem(mesh, diffusion, {"conductivity": 2.0}, conditions)).values[:, 0]
    np.testing.assert_allclose(values, linear(mesh.points), atol=1e-9)


def test_pressure_on_all_sides_compresses_evenly():
    mesh = box(2, "tetra")
    pressure = BoundaryTerm("boundary", Energy(lambda u, grad, x, p: p["p"] * dot(p["normal"], u), None), {"p": 2.0})
    symmetry = [Dirichlet(side, 0.0, components=i) for i, side in enumerate(("left", "bottom", "front"))]
    problem = build_problem(mesh, elasticity, {"young": 10.0, "poisson": 0.3}, [pressure, *symmetry])
    np.testing.assert_allclose(solve(problem).values, -2.0 * (1 - 0.6) / 10 * mesh.points, atol=1e-10)


@pytest.mark.parametrize("traction", [(3.0, 0.0), np.array([3.0, 0.0]), torch.tensor([3.0, 0.0])])
def test_traction_stretches_a_bar(traction):
    mesh = box(2, "quad")
    conditions = [
        Dirichlet("left", 0.0, components=0),
        Dirichlet("bottom", 0.0, components=1),
        Neumann("right", traction),
    ]
    values = solve(build_problem(mesh, plane_strain, {"young": 10.0, "poisson": 0.0}, conditions)).values
    np.testing.assert_allclose(values, mesh.points * [0.3, 0.0], atol=1e-10)


def test_periodic_sides_repeat_and_corners_are_one_node():
    mesh = box(6)
    source = lambda x: torch.sin(2 * torch.pi * x[..., 0]) + torch.cos(2 * torch.pi * x[..., 1])  # noqa: E731
    sides = [Periodic("right", "left"), Periodic("top", "bottom")]
    problem = build_problem(mesh, diffusion, {"conductivity": 1.0, "source": source}, [*sides, Dirichlet(corner, 0.0)])
    u = solve(problem).values[:, 0]
    x, y = mesh.points.T
    assert torch.equal(u[np.isclose(x, 0)], u[np.isclose(x, 1)]) and torch.equal(
        u[np.isclose(y, 0)], u[np.isclose(y, 1)]
    )
    exact = np.sin(2 * np.pi * x) + np.cos(2 * np.pi * y) - 1
    assert np.abs(u.numpy() - exact / (4 * np.pi**2)).max() < 0.15 / (4 * np.pi**2)
    assert problem.fixed.sum() == 4  # a value at one corner is one at all
    r, w = torch.randn(2, mesh.n_nodes, 1, dtype=torch.float64)
    reduced = problem.reduce(r)
    free = problem.lift(w) - problem.lift(torch.zeros_like(w))
    torch.testing.assert_close((reduced * w).sum(), (r * free).sum())  # reduce is the transpose of lift


def corner(x):
    return (x == 1).all(1)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Dirichlet("wall"), r"point_sets\['wall'\]: expected one of boundary, left, right, bottom, top \(mesh\)"),
        (Neumann("wall", 1.0), "wall"),
        (Dirichlet("left", "g"), r"point_fields\['g'\]: expected one of none"),
        (Dirichlet("left", (1.0, 2.0)), r"Dirichlet on 'left': expected \(3, 1\) values, got \(2,\)"),
        (Dirichlet("left", 0.0, components=1), r"Dirichlet on 'left': expected components 0 to 0, got 1"),
        (Dirichlet(np.zeros(4, dtype=bool)), "expected a mask of 9 nodes"),
        (Dirichlet(lambda x: x[:, 0] > 2), "expected nodes, got none"),
        (Periodic("left", "bottom"), "expected sides that match"),
        (Neumann("right", (1.0, 2.0)), r"parameters\['flux'\]: expected 1 components, got shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_named(condition, message):
    with pytest.raises(ValueError, match=message):
        build_problem(box(2), diffusion, {"conductivity": 1.0}, [condition])


def test_a_load_needs_a_value_per_component():
    with pytest.raises(ValueError, match=r"parameters\['load'\]: expected 2 components, got shape \(\)"):
        build_problem(box(2), plane_strain, {"young": 1.0, "poisson": 0.3, "load": 1.0})
