"""Finite volumes on any cells: closed, conservative, exact for linear fields, second order."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from physics_cases import SOLIDS, bent, box, rate, sphere
from scipy.sparse.linalg import spsolve

from gno.mesh import CellBlock, Mesh, MeshError
from gno.mesh.geometry import domain_dim
from gno.physics.finite_volume import finite_volume


def honeycomb(n: int) -> Mesh:
    """Hexagons and the cells that are left between them and a box, as polygons: the dual of a triangle mesh."""
    triangles = box("triangle", n)
    nodes, points = triangles.cells[0].nodes, triangles.points
    blocks, places, all_points = {}, {}, []

    def place(key, point):
        if key not in places:
            places[key] = len(all_points)
            all_points.append(point)
        return places[key]

    around = [np.flatnonzero((nodes == i).any(1)) for i in range(len(points))]
    count = {}
    for side in np.sort(nodes[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1):
        count[tuple(side)] = count.get(tuple(side), 0) + 1
    for i, cells in enumerate(around):
        ring = [(("c", c), points[nodes[c]].mean(0)) for c in cells]
        rim = [side for side, k in count.items() if k == 1 and i in side]
        ring += [(("s", side), points[list(side)].mean(0)) for side in rim]
        ring += [(("n", i), points[i])] if rim else []
        middle = np.mean([point for _, point in ring], axis=0)
        ring.sort(key=lambda item: np.arctan2(*(item[1] - middle)[::-1]))
        loop = [place(*item) for item in ring]
        blocks.setdefault(len(loop), []).append(loop)
    return Mesh(np.array(all_points), tuple(CellBlock("polygon", np.array(loops)) for loops in blocks.values()))


def mesh_of(kind: str, n: int = 3) -> Mesh:
    return honeycomb(n) if kind == "polygons" else box(kind, n)


@pytest.mark.parametrize("kind", [*SOLIDS, "polygons"])
def test_cells_are_closed_and_fluxes_conserve(kind):
    fv = finite_volume(bent(mesh_of(kind, 2)))
    divergence = fv.divergence()
    closed = divergence @ torch.from_numpy(fv.area)
    assert closed.abs().max() < 1e-12
    through = torch.from_numpy((fv.face_centre * fv.area).sum(1))
    dim = fv.centre.shape[1]
    if dim == 2 or kind in ("tetra", "tetra10"):  # where faces are flat the position's divergence is the dimension
        torch.testing.assert_close(divergence @ through, torch.full((len(fv.volume),), float(dim)).double())
    flux = torch.randn(len(fv.owner), dtype=torch.float64)
    total = float((torch.from_numpy(fv.volume) * (divergence @ flux)).sum())
    assert total == pytest.approx(float(flux[fv.boundary].sum()), abs=1e-12)


@pytest.mark.parametrize("kind", [*SOLIDS, "polygons"])
def test_gradients_and_diffusive_fluxes_of_linear_fields_are_exact(kind):
    fv = finite_volume(bent(mesh_of(kind, 2)))
    slope = np.arange(1.0, fv.centre.shape[1] + 1)
    u = torch.from_numpy(fv.position @ slope + 2)
    found = (fv.gradient() @ u).reshape(-1, len(slope))
    torch.testing.assert_close(found, torch.from_numpy(slope).expand_as(found), rtol=0, atol=1e-10)
    flux = fv.diffusive_flux(3.0) @ u
    torch.testing.assert_close(flux, torch.from_numpy(-3 * fv.area @ slope), rtol=0, atol=1e-10)


def test_a_jump_of_the_coefficient_is_seen_by_its_harmonic_mean():
    mesh = box("quad", 4)
    fv = finite_volume(mesh)
    k = np.where(fv.centre[:, 0] < 0.5, 1.0, 10.0)
    # u' = q / k with q = 1
    x = fv.position[:, 0]
    u = torch.from_numpy(np.where(x < 0.5, x, 0.5 + (x - 0.5) / 10))
    torch.testing.assert_close(fv.diffusive_flux(k) @ u, torch.from_numpy(-fv.area[:, 0]), rtol=0, atol=1e-12)


def test_upwind_carries_what_comes():
    fv = finite_volume(box("quad", 3))
    u = torch.arange(fv.n_unknowns, dtype=torch.float64)
    flow = fv.area @ np.array([1.0, 0.0])
    flux = fv.advective_flux(flow) @ u
    left = np.where(flow >= 0, fv.owner, fv.neighbour)
    assert torch.equal(flux, torch.from_numpy(flow * left))
    along = np.abs(flow) > 0
    other = np.where(flow >= 0, fv.neighbour, fv.owner)
    assert (fv.position[left[along], 0] < fv.position[other[along], 0]).all()


@pytest.mark.parametrize("kind", ["triangle", "quad", "polygons", "mixed", "hexahedron"])
def test_poisson_converges_with_second_order(kind):
    errors = []
    for n in (4, 8, 16) if kind == "hexahedron" else (8, 16, 32):
        fv = finite_volume(bent(mesh_of(kind, n), 0.03))
        exact = np.sin(np.pi * fv.position[:, 0]) * np.sin(np.pi * fv.position[:, 1])
        operator = fv.divergence().to_scipy() @ fv.diffusive_flux().to_scipy()
        n_cells = len(fv.volume)
        right = 2 * np.pi**2 * exact[:n_cells] - operator[:, n_cells:] @ exact[n_cells:]
        u = spsolve(sp.csc_matrix(operator[:, :n_cells]), right)
        errors.append(np.sqrt((fv.volume * (u - exact[:n_cells]) ** 2).sum()))
    assert rate(errors) > 1.9


def test_gradients_go_through_fluxes():
    fv = finite_volume(bent(box("triangle", 2)))
    divergence, flux = fv.divergence(), fv.diffusive_flux()
    cells = torch.randn(len(fv.volume), dtype=torch.float64, requires_grad=True)
    rim = torch.randn(len(fv.boundary), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, b: divergence @ (flux @ fv.extended(c, b)), (cells, rim))
    with pytest.raises(ValueError, match="expected 8 cells and 8 boundary faces, got 8 and 3"):
        fv.extended(cells, rim[:3])


def test_inverted_cells_count_like_others():
    mesh = box("tetra", 2)
    nodes = mesh.cells[0].nodes.copy()
    nodes[::2] = nodes[::2][:, [1, 0, 2, 3]]
    a, b = finite_volume(mesh), finite_volume(mesh.replace(cells=(CellBlock("tetra", nodes),)))
    np.testing.assert_allclose(a.volume, b.volume)
    assert (b.divergence() @ torch.from_numpy(b.area)).abs().max() < 1e-12


def test_what_has_no_volumes_is_said():
    with pytest.raises(MeshError, match="fill 2-D or 3-D space, got 2-D in 3-D"):
        finite_volume(sphere(1))
    flat = Mesh(
        np.array([[0.0, 0], [1, 0], [2, 0], [0, 1]]), (CellBlock("triangle", np.array([[0, 1, 3], [0, 1, 2]])),)
    )
    with pytest.raises(MeshError, match="1 of no size, the first is cell 1"):
        finite_volume(flat)
    assert domain_dim(flat) == 2
