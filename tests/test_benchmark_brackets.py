"""The brackets of benchmarks/brackets.py are solved, and the same at every spacing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skfem

from gno.mesh import CellBlock, Mesh
from gno.mesh.geometry import boundary_facets, cell_volume
from gno.physics import Dirichlet, Neumann, build_problem, elasticity, solve

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import brackets

SEED = 2  # a rib, two bolts


def quadratic(mesh: Mesh) -> Mesh:
    """The same with nodes in the middle of edges; a set has those of the facets whose corners it has."""
    cells, facets = mesh.cells[0].nodes, boundary_facets(mesh)
    ends = np.sort(cells[:, [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)]], axis=2)
    edges, number = np.unique(ends.reshape(-1, 2), axis=0, return_inverse=True)
    sets = {}
    for name, nodes in mesh.point_sets.items():
        sides = np.sort(facets[np.isin(facets, nodes).all(1)][:, [(0, 1), (1, 2), (0, 2)]], axis=2).reshape(-1, 2)
        on = np.isin(edges @ [mesh.n_nodes, 1], sides @ [mesh.n_nodes, 1])
        sets[name] = np.concatenate([nodes, mesh.n_nodes + np.flatnonzero(on)])
    points = np.concatenate([mesh.points, mesh.points[edges].mean(1)])
    blocks = (CellBlock("tetra10", np.concatenate([cells, mesh.n_nodes + number.reshape(-1, 6)], axis=1)),)
    return Mesh(points, blocks, point_sets=sets)


def test_displacement_is_that_of_the_general_solver():
    problem = brackets.random_bracket(SEED)
    mesh = brackets.bracket_mesh(problem, 14.0)
    displacement, _ = brackets.solve_elasticity(mesh, problem.traction, tolerance=1e-10)
    conditions = [Dirichlet("bolts"), Neumann("bore", problem.traction.tolist())]
    law = {"young": brackets.MODULUS, "poisson": brackets.POISSON}
    other = solve(build_problem(quadratic(mesh), elasticity, law, conditions), tolerance=1e-9).values.numpy()
    assert np.abs(displacement - other[: mesh.n_nodes]).max() < 1e-6 * np.abs(other).max()


def test_stress_of_a_linear_displacement_is_exact():
    basis = skfem.Basis(skfem.MeshTet().refined(1), skfem.ElementTetP2())
    slope = 1e-3 * np.array([[1.0, 2.0, 0.5], [0.0, -3.0, 1.0], [4.0, 0.0, 2.0]])
    exact = hooke(slope + slope.T)
    found = brackets._nodal_stress(basis, basis.doflocs.T @ slope.T)
    assert np.abs(found - exact).max() < 1e-9 * np.abs(exact).max()


def hooke(twice_strain: np.ndarray) -> np.ndarray:
    young, nu = brackets.MODULUS, brackets.POISSON
    strain = twice_strain / 2
    return young / (1 + nu) * (strain + nu / (1 - 2 * nu) * np.trace(strain) * np.eye(3))


def test_another_spacing_is_the_same_problem():
    coarse, fine = (brackets.brackets(SEED, spacing) for spacing in (14.0, 9.0))
    assert fine.n_nodes > 1.7 * coarse.n_nodes
    assert np.array_equal(coarse.global_fields["traction"], fine.global_fields["traction"])
    assert cell_volume(coarse).sum() == pytest.approx(cell_volume(fine).sum(), rel=0.01)
    largest = [np.abs(mesh.point_fields["displacement"]).max() for mesh in (coarse, fine)]
    assert largest[0] == pytest.approx(largest[1], rel=0.1)
    for mesh in (coarse, fine):
        assert not mesh.point_fields["displacement"][mesh.point_sets["bolts"]].any()
        assert set(mesh.point_sets) == {"bolts", "bore"} and (mesh.point_fields["von_mises"] > 0).all()


def test_bolt_holes_keep_clear_of_edges_fillet_ribs_and_each_other():
    parts = [brackets.random_bracket(seed) for seed in range(100)]
    assert {len(part.bolts) for part in parts} == {2, 3, 4} and {len(part.ribs) for part in parts} == {0, 1, 2}
    for part in parts:
        x, y, radius = np.array(part.bolts).T
        apart = np.hypot(x[:, None] - x, y[:, None] - y) - radius - radius[:, None]
        assert (apart[~np.eye(len(x), dtype=bool)] > brackets.GAP).all()
        assert (np.abs(y) + radius < part.width / 2).all() and (x + radius < part.length).all()
        assert (x - radius > part.wall + part.fillet).all()
        for at in part.ribs:
            assert ((np.abs(y - at) > radius + part.rib[0] / 2) | (x > part.rib[1] + radius)).all()
