"""Recovered gradients: exact on polynomials, scikit-fem's projection, and superconvergent."""

import numpy as np
import pytest
from post_cases import ELEMENTS, grid, twin
from scipy.spatial import cKDTree

from gno.mesh import CellBlock, Mesh, repeats
from gno.post.gauss import gradient, interpolate
from gno.post.recovery import cell_degree, l2_recovery, patch_recovery, superconvergent_order
from gno.post.residual import flux_residual


@pytest.mark.parametrize("cell_type", ELEMENTS)
def test_l2_recovery_is_the_projection_of_scikit_fem(cell_type):
    case = twin(cell_type)
    slope = np.asarray(case.scalar.interpolate(case.mesh.point_fields["T"]).grad)
    expected = np.stack([case.scalar.project(component) for component in slope], axis=1)
    assert np.allclose(l2_recovery(gradient(case.mesh, "T")), expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("cell_type", ["triangle", "quad", "triangle6", "quad9", "quad8"])
@pytest.mark.parametrize("recover", [patch_recovery, l2_recovery])
def test_a_polynomial_of_the_cells_degree_comes_back(cell_type, recover):
    mesh = grid(3, 4, lambda x: x @ [[1.0, 0.2], [0.1, 1.5]], cell_type)
    degree = cell_degree(mesh)
    x, y = mesh.points.T
    mesh = mesh.with_point_fields(T=(x - 2 * y) ** degree)
    order = superconvergent_order(mesh) if recover is patch_recovery else None
    expected = (degree * (x - 2 * y) ** (degree - 1))[:, None] * [1.0, -2.0]
    assert np.allclose(recover(gradient(mesh, "T", order)), expected, atol=1e-10)


@pytest.mark.parametrize(("cell_type", "rate"), [("triangle", 2), ("quad", 2), ("triangle6", 3), ("quad9", 3)])
def test_recovered_gradients_converge_one_order_faster(cell_type, rate):
    errors = []
    for n in (6, 12, 24):
        mesh = grid(n, n, lambda x: x, cell_type)
        x, y = mesh.points.T
        mesh = mesh.with_point_fields(u=np.sin(2 * x) * np.cos(3 * y))
        low = gradient(mesh, "u", superconvergent_order(mesh))
        gap = patch_recovery(low) - np.stack(
            [2 * np.cos(2 * x) * np.cos(3 * y), -3 * np.sin(2 * x) * np.sin(3 * y)], axis=1
        )
        errors.append(np.sqrt((gap**2).mean()))
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert slopes[-1] > rate - 0.25


def test_one_row_of_cells_and_loose_nodes():
    mesh = grid(5, 1, lambda x: x * [5, 1], "triangle")
    loose = Mesh(np.vstack([mesh.points, [[9.0, 9.0]]]), mesh.cells, {"T": np.append(mesh.points @ [1.0, 2.0], 0.0)})
    found = patch_recovery(gradient(loose, "T", 1))
    assert np.allclose(found[:-1], [1, 2], rtol=0, atol=1e-12) and np.isnan(found[-1]).all()
    assert np.isnan(l2_recovery(gradient(loose, "T"))[-1]).all()


def test_a_surface_in_space_has_its_tangential_gradient():
    mesh = grid(4, 4, lambda x: x, "triangle")
    turned = np.column_stack([mesh.points, mesh.points @ [1.0, 0.0]])  # the plane z = x
    mesh = mesh.replace(points=turned).with_point_fields(T=turned[:, 2])
    assert np.allclose(patch_recovery(gradient(mesh, "T", 1)), [0.5, 0, 0.5], rtol=0, atol=1e-12)


def test_mixed_cells():
    points = np.array([[x, y] for y in range(3) for x in range(3)], dtype=float)
    quads = CellBlock("quad", np.array([[0, 1, 4, 3], [3, 4, 7, 6]]))
    triangles = CellBlock("triangle", np.array([[1, 2, 5], [1, 5, 4], [4, 5, 8], [4, 8, 7]]))
    mesh = Mesh(points, (quads, triangles), {"T": points @ [3.0, 1.0]})
    assert np.allclose(patch_recovery(gradient(mesh, "T", 1)), [3, 1])
    back = interpolate(mesh, points, gradient(mesh, "T").domain)
    assert all(np.allclose(v, c.position) for v, c in zip(back.values, back.domain.cells, strict=True))


def strip(first: int, cell_type: str, n: int = 7) -> Mesh:
    """A strip that repeats in x after 1, cut open at column ``first`` of its cells, with a field that repeats."""
    rng = np.random.default_rng(0)
    mesh = grid(n, n, lambda x: x, cell_type)
    column, y = np.round(mesh.points[:, 0] * 2 * n).astype(int) + 2 * first, mesh.points[:, 1]
    y = y + rng.uniform(-0.3, 0.3, 2 * n)[column % (2 * n)] * y * (1 - y)  # the same at both sides
    points = np.stack([column / (2 * n), y], axis=1)
    return Mesh(
        points,
        mesh.cells,
        {"T": np.sin(2 * np.pi * points[:, 0]) * (1 + y)},
        period=(1.0, 0.0),
        point_sets=mesh.point_sets,
    )


@pytest.mark.parametrize("cell_type", ["triangle", "quad", "triangle6"])
@pytest.mark.parametrize("recover", [patch_recovery, l2_recovery])
def test_sides_that_repeat_are_like_any_other_place(cell_type, recover):
    whole, turned = strip(0, cell_type), strip(3, cell_type)
    found, again = (recover(gradient(mesh, "T", superconvergent_order(mesh))) for mesh in (whole, turned))
    place = repeats(whole)
    assert (place != np.arange(whole.n_nodes)).any() and np.array_equal(found, found[place])
    assert np.allclose(again, found[same_places(whole.points, turned.points)], atol=1e-9)


@pytest.mark.parametrize("cell_type", ["triangle", "quad"])
def test_fluxes_jump_across_sides_that_repeat_as_elsewhere(cell_type):
    whole, turned = strip(0, cell_type), strip(3, cell_type)
    found, again = (flux_residual(mesh, "T", 1.0, fixed=["bottom", "top"]).cells for mesh in (whole, turned))
    middles = (mesh.points[mesh.cells[0].nodes].mean(1) for mesh in (whole, turned))
    assert np.allclose(again, found[same_places(*middles)], rtol=1e-9)


def same_places(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which of some places on the strip each of the others is."""
    inside = (np.mod(points + np.array([1e-9, 0]), [1, 9]) for points in (one, other))
    apart, match = cKDTree(next(inside)).query(next(inside))
    assert apart.max() < 1e-8
    return match
