"""Operators on every element: exact where they must be, converging as fast as theory says, zero where physics says."""

import numpy as np
import pytest
import scipy.sparse as sp
import skfem
import torch
from physics_cases import QUADRATIC, SOLIDS, bent, boundary_nodes, box, error, rate, solved, sphere
from scipy.sparse.linalg import factorized, spsolve

from gno.mesh import CellBlock, Mesh, MeshError
from gno.physics.fem import skfem_basis, to_skfem
from gno.physics.operators import (
    boundary_flux,
    curl,
    divergence,
    elasticity,
    gradient,
    lumped_mass,
    mass,
    plane_stress,
    stiffness,
)
from gno.physics.quadrature import build_domain
from gno.physics.sparse import Sparse

EXACT = {"rtol": 0, "atol": 1e-10}


def volume_of(mesh):
    return sum(float(part.weight.sum()) for part in build_domain(mesh).cells)


def patch(cell_type):
    """A few skew cells; of the large elements two a side would be slow."""
    return bent(box(cell_type, 1 if cell_type in ("hexahedron20", "hexahedron27") else 2))


def linear(mesh):
    """A matrix A, and the vector field A x at the nodes."""
    A = np.array([[2.0, 1, -1], [3, -2, 0.5], [1, 4, 1.5]])[: mesh.dim, : mesh.dim]
    return A, torch.from_numpy(mesh.points @ A.T)


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_patch_first_derivatives_of_linear_fields(cell_type):
    mesh = patch(cell_type)
    A, u = linear(mesh)
    M = mass(mesh) @ torch.ones(mesh.n_nodes, dtype=torch.float64)
    assert float(M.sum()) == pytest.approx(volume_of(mesh), abs=1e-12)
    torch.testing.assert_close(
        (gradient(mesh) @ u[:, 0]).reshape(-1, mesh.dim), M[:, None] * torch.tensor(A[0]), **EXACT
    )
    torch.testing.assert_close(divergence(mesh) @ u.reshape(-1), M * np.trace(A), **EXACT)
    spin = A - A.T
    if mesh.dim == 2:
        torch.testing.assert_close(curl(mesh) @ u.reshape(-1), M * spin[1, 0], **EXACT)
    else:
        want = torch.tensor([spin[2, 1], spin[0, 2], spin[1, 0]])
        torch.testing.assert_close((curl(mesh) @ u.reshape(-1)).reshape(-1, 3), M[:, None] * want, **EXACT)


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_patch_a_linear_field_is_in_balance(cell_type):
    mesh = patch(cell_type)
    A, u = linear(mesh)
    k = np.eye(mesh.dim) + 0.3 * np.ones((mesh.dim, mesh.dim))
    flux = torch.from_numpy(np.tile(k @ A[0], mesh.n_nodes))
    conduction = stiffness(mesh, np.tile(k, (mesh.n_cells, 1, 1)))
    torch.testing.assert_close(conduction @ u[:, 0], boundary_flux(mesh) @ flux, **EXACT)
    young, poisson = 3.0, 0.3
    first, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))
    strain = (A + A.T) / 2
    stress = first * np.trace(strain) * np.eye(mesh.dim) + 2 * shear * strain
    force = (elasticity(mesh, young, poisson) @ u.reshape(-1)).reshape(-1, mesh.dim)
    for d in range(mesh.dim):
        row = torch.from_numpy(np.tile(stress[d], mesh.n_nodes))
        torch.testing.assert_close(force[:, d], boundary_flux(mesh) @ row, **EXACT)


@pytest.mark.parametrize("cell_type", QUADRATIC)
def test_patch_a_quadratic_field_is_in_balance_on_straight_cells(cell_type):
    mesh = box(cell_type, 2)
    x = torch.from_numpy(mesh.points)
    u = x[:, 0] ** 2 + 3 * x[:, 0] * x[:, 1] - 2 * x[:, -1] ** 2
    flux = torch.zeros_like(x)
    flux[:, 0] += 2 * x[:, 0] + 3 * x[:, 1]
    flux[:, 1] += 3 * x[:, 0]
    flux[:, -1] -= 4 * x[:, -1]
    source = mass(mesh) @ torch.full((mesh.n_nodes,), 2.0 - 4.0, dtype=torch.float64)
    torch.testing.assert_close(stiffness(mesh) @ u, boundary_flux(mesh) @ flux.reshape(-1) - source, **EXACT)


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_a_rigid_motion_gives_no_force(cell_type):
    mesh = patch(cell_type)
    x = mesh.points
    turn = np.zeros((mesh.dim, mesh.dim))
    turn[0, 1], turn[1, 0] = -1, 1
    for motion in (np.ones_like(x), x @ turn.T, x @ np.roll(turn, 1, (0, 1)).T if mesh.dim == 3 else x @ turn.T):
        moved = torch.from_numpy(motion.reshape(-1))
        assert (elasticity(mesh, 2.0, 0.3) @ moved).abs().max() < 1e-12
        if mesh.dim == 2:
            assert (plane_stress(mesh, 2.0, 0.3) @ moved).abs().max() < 1e-12
    values = np.linalg.eigvalsh(elasticity(mesh, 2.0, 0.3).to_scipy().toarray())
    assert (np.abs(values) < 1e-10).sum() == (3 if mesh.dim == 2 else 6), "no more modes without energy than motions"


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_the_divergence_theorem_holds_for_any_field(cell_type):
    mesh = patch(cell_type)
    u = torch.randn(mesh.n_nodes * mesh.dim, dtype=torch.float64)
    inside, outward = (divergence(mesh) @ u).sum(), (boundary_flux(mesh) @ u).sum()
    assert float(inside) == pytest.approx(float(outward), abs=1e-12)
    left = np.flatnonzero(mesh.points[:, 0] < 0.5 * mesh.points[:, 0].max())
    part = boundary_flux(mesh.replace(point_sets={"left": left}), "left")
    off = torch.ones(mesh.n_nodes, dtype=torch.bool)
    off[left] = False
    assert part.n_entries and (part @ u)[off].abs().max() < 1e-15


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_lumped_masses_are_positive_and_sum_to_the_volume(cell_type):
    mesh = patch(cell_type)
    lumped = lumped_mass(mesh)
    assert lumped.min() > 0
    assert float(lumped.sum()) == pytest.approx(volume_of(mesh), rel=1e-13)
    if cell_type in ("triangle", "tetra"):
        torch.testing.assert_close(lumped, mass(mesh) @ torch.ones(mesh.n_nodes, dtype=torch.float64), **EXACT)


def test_plane_stress_and_plane_strain_differ_by_the_modulus_across():
    mesh = box("quad", 1)
    stretch = torch.from_numpy((mesh.points * [1, 0]).reshape(-1))
    energy = [float(stretch @ (kind(mesh, 1.0, 0.25) @ stretch)) for kind in (elasticity, plane_stress)]
    assert energy == pytest.approx([(1 - 0.25) / (1.25 * 0.5), 1 / (1 - 0.0625)])


@pytest.mark.parametrize("cell_type", ["triangle6", "mixed", "wedge"])
def test_coefficients_of_nodes_and_cells_are_used(cell_type):
    mesh = box(cell_type, 3)
    by_node = 1 + mesh.points[:, 0]
    index = torch.cat([part.cell for part in build_domain(mesh).cells]).numpy()
    middle = np.concatenate([part.position.mean(1).numpy() for part in build_domain(mesh).cells])
    by_cell = np.zeros(mesh.n_cells)
    by_cell[index] = 1 + middle[:, 0]
    u = torch.from_numpy(mesh.points[:, 1])
    assert float(u @ (stiffness(mesh, by_node) @ u)) == pytest.approx(1.5)
    assert float(u @ (stiffness(mesh, by_cell) @ u)) == pytest.approx(1.5, rel=1e-6)
    assert float(mass(mesh, by_node).to_scipy().sum()) == pytest.approx(1.5)
    twice = elasticity(mesh, 2 * by_node, 0.3).to_scipy() - 2 * elasticity(mesh, by_node, 0.3).to_scipy()
    assert abs(twice).max() < 1e-14


def test_matrices_are_those_of_scikit_fem_on_its_own_basis():
    mesh = bent(box("tetra10", 2))
    basis, place = to_skfem(mesh, np.arange(mesh.n_nodes, dtype=np.float64))
    place = place.astype(int)
    laplace = skfem.BilinearForm(lambda u, v, w: skfem.helpers.dot(u.grad, v.grad)).assemble(basis)
    ours = stiffness(mesh).to_scipy()[place][:, place]
    assert abs(ours - laplace).max() < 1e-12


def poisson_errors(cell_type, sizes):
    """L2 and H1 errors of −Δu = f with u = eˣ cos y given on the boundary."""
    found = []
    for n in sizes:
        mesh = bent(box(cell_type, n), 0.03)
        x, y = mesh.points[:, 0], mesh.points[:, 1]
        exact, right = np.exp(x) * np.cos(0.5 * y), -0.75 * np.exp(x) * np.cos(0.5 * y)
        u = solved(stiffness(mesh).to_scipy(), mass(mesh).to_scipy() @ right, exact, boundary_nodes(mesh))
        domain = build_domain(mesh, order=5 if cell_type in QUADRATIC else None)

        def slope(p):
            e, c, s = p[..., 0].exp(), (p[..., 1] / 2).cos(), (p[..., 1] / 2).sin()
            return torch.stack([e * c, -e * s / 2, *[0 * e] * (p.shape[-1] - 2)], -1)

        value = error(domain, u, lambda p: p[..., 0].exp() * (p[..., 1] / 2).cos())
        found.append((value, error(domain, u, slope, gradients=True)))
    return found


@pytest.mark.parametrize("cell_type", SOLIDS)
def test_poisson_converges_as_theory_says(cell_type):
    flat = cell_type.startswith(("tri", "quad", "mixed"))
    sizes = (4, 8, 16) if flat else (1, 2, 4) if cell_type in ("hexahedron20", "hexahedron27") else (2, 4, 8)
    errors = poisson_errors(cell_type, sizes)
    degree = 2 if cell_type in QUADRATIC else 1
    value, slope = ([e[k] for e in errors] for k in (0, 1))
    assert rate(value) > degree + 1 - 0.1
    assert rate(slope) == pytest.approx(degree, abs=0.1)


@pytest.mark.parametrize("cell_type", ["triangle", "triangle6", "quad", "quad8", "tetra", "hexahedron", "wedge"])
def test_projection_converges_as_theory_says(cell_type):
    degree = 2 if cell_type in QUADRATIC else 1
    errors = []
    for n in (4, 8, 16) if cell_type in ("triangle6", "quad8") else (2, 4, 8):
        mesh = box(cell_type, n)
        domain = build_domain(mesh, order=8 if degree == 2 else 5)
        load = 0
        for part in domain.cells:
            f = (part.position[..., 0] + part.position[..., 1]).exp()
            load = load + part.scatter(((f * part.weight) @ part.shape)[..., None])
        u = spsolve(sp.csc_matrix(mass(mesh).to_scipy()), load[:, 0].numpy())
        errors.append(error(domain, u, lambda p: (p[..., 0] + p[..., 1]).exp()))
    assert rate(errors) == pytest.approx(degree + 1, abs=0.1)


@pytest.mark.parametrize("cell_type", ["triangle", "quad9", "tetra", "hexahedron", "wedge"])
def test_first_derivatives_converge_as_theory_says(cell_type):
    """L2 error of the projected gradient, divergence and curl of a smooth field; flux through the boundary's pieces.

    Theory says p for the first three, more where cells lie in rows; p + 1 for the flux.
    """
    degree = 2 if cell_type in QUADRATIC else 1
    errors = []
    for n in (4, 8, 16) if cell_type in ("triangle", "quad9") else (2, 4, 8):
        mesh = bent(box(cell_type, n), 0.03)
        domain, u = build_domain(mesh, order=5), field(torch.from_numpy(mesh.points))
        weak = [gradient(mesh) @ u[:, 0], divergence(mesh) @ u.reshape(-1), curl(mesh) @ u.reshape(-1)]
        exact = [slopes, lambda p: field(p).sum(-1), spin]
        solve = factorized(sp.csc_matrix(mass(mesh).to_scipy()))
        found = [np.stack([solve(part) for part in w.reshape(mesh.n_nodes, -1).numpy().T], 1) for w in weak]
        first = [error(domain, value, function) for value, function in zip(found, exact, strict=True)]
        errors.append([*first, flux_error(mesh, domain, u)])
    for column in np.array(errors).T[:3]:
        assert rate(list(column)) > degree - 0.1
    assert rate([e[3] for e in errors]) > degree + 1 - 0.1


def field(p):
    """u_d = exp(x_d + x_{d+1} / 2), whose divergence is the sum of its components."""
    return torch.stack([(p[..., d] + p[..., (d + 1) % p.shape[-1]] / 2).exp() for d in range(p.shape[-1])], -1)


def slopes(p):
    u = field(p)[..., 0]
    return torch.stack([u, u / 2, *[0 * u] * (p.shape[-1] - 2)], -1)


def spin(p):
    u = field(p)
    if p.shape[-1] == 2:
        return (u[..., 1] - u[..., 0]) / 2
    return -u.roll(-1, -1) / 2  # ∂u_d/∂x_{d+1} is all there is off the diagonal


def flux_error(mesh, domain, u):
    """Sum of the errors of the flux through each side of the cells."""
    total = 0.0
    for part in domain.facets["boundary"]:
        found = (part.values(u) * part.normal).sum(-1)
        total += abs(float((part.weight * (found - (field(part.position) * part.normal).sum(-1))).sum()))
    whole = sum(float((p.weight * (p.values(u) * p.normal).sum(-1)).sum()) for p in domain.facets["boundary"])
    assert float((boundary_flux(mesh) @ u.reshape(-1)).sum()) == pytest.approx(whole, rel=1e-6)
    return total


@pytest.mark.parametrize(("quadratic", "order"), [(False, 2), (True, 3)])
def test_laplace_beltrami_converges_on_the_sphere(quadratic, order):
    """−Δz = 2z on the unit sphere."""
    errors = []
    for n in (1, 2, 3):
        mesh = sphere(n, quadratic=quadratic)
        K, M = stiffness(mesh).to_scipy(), mass(mesh).to_scipy()
        u = spsolve(sp.csc_matrix(K + M), M @ (3 * mesh.points[:, 2]))
        errors.append(error(build_domain(mesh, order=6), u, lambda p: p[..., 2] / p.norm(dim=-1)))
        assert abs(K @ np.ones(mesh.n_nodes)).max() < 1e-12
    assert rate(errors) > order - 0.1


@pytest.mark.parametrize("cell_type", ["triangle", "quad8", "tetra", "hexahedron"])
def test_elasticity_converges_as_theory_says(cell_type):
    degree, small = (2 if cell_type in QUADRATIC else 1), cell_type in ("tetra", "hexahedron")
    first = shear = 0.4  # E = 1, ν = 1/4
    errors = []
    for n in (2, 4, 8) if small else (4, 8, 16):
        mesh = bent(box(cell_type, n), 0.03)
        x, dim = mesh.points, mesh.dim
        # u = eˣ (1, 0, 0) + (0, eˣ, 0): −∇·σ = −(λ + 2μ) eˣ and −μ eˣ
        wave = np.exp(x[:, 0])
        exact, right = np.zeros_like(x), np.zeros_like(x)
        exact[:, 0], exact[:, 1] = wave, wave
        right[:, 0], right[:, 1] = -(first + 2 * shear) * wave, -shear * wave
        load = np.stack([mass(mesh).to_scipy() @ right[:, d] for d in range(dim)], 1)
        fixed = (boundary_nodes(mesh)[:, None] * dim + np.arange(dim)).ravel()
        u = solved(elasticity(mesh, 1.0, 0.25).to_scipy(), load.ravel(), exact.ravel(), fixed)

        def slope(p):
            found = torch.zeros(*p.shape, p.shape[-1], dtype=p.dtype)
            found[..., 0, 0] = found[..., 1, 0] = p[..., 0].exp()
            return found

        domain = build_domain(mesh, order=5)
        value = torch.tensor([1.0, 1.0, 0.0])[: mesh.dim]
        errors.append(
            (
                error(domain, u, lambda p, value=value: p[..., :1].exp() * value),
                error(domain, u, slope, gradients=True),
            )
        )
    assert rate([e[0] for e in errors]) > degree + 1 - 0.1
    assert rate([e[1] for e in errors]) == pytest.approx(degree, abs=0.1)


def test_a_batch_of_meshes_is_one_operator():
    meshes = [bent(box("quad", 2)), box("triangle", 3)]
    joined = Sparse.join([stiffness(mesh) for mesh in meshes])
    u = [torch.randn(mesh.n_nodes, 1, dtype=torch.float64, requires_grad=True) for mesh in meshes]
    together = joined @ torch.cat(u)
    apart = torch.cat([stiffness(mesh) @ v for mesh, v in zip(meshes, u, strict=True)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda *v: joined @ torch.cat(v), u)


def test_scikit_fem_assembles_on_our_numbering():
    mesh = box("mixed", 2)
    form = skfem.BilinearForm(lambda u, v, w: u * v)
    total = sum(form.assemble(basis) for basis in skfem_basis(mesh))
    assert abs(total - mass(mesh).to_scipy()).max() < 1e-16


def test_what_an_operator_cannot_do_is_said():
    ball = sphere(1)
    for operator in (curl, lambda mesh: elasticity(mesh, 1.0, 0.3)):
        with pytest.raises(MeshError, match="expected cells that fill 3-D space, got 2-D cells"):
            operator(ball)
    with pytest.raises(MeshError, match="expected a planar mesh"):
        plane_stress(box("tetra", 1), 1.0, 0.3)
    with pytest.raises(ValueError, match=r"k: expected a number, or values of 9 nodes or 4 cells, got shape \(5,\)"):
        stiffness(box("quad", 2), np.ones(5))
    with pytest.raises(ValueError, match=r"sets: expected point sets of the mesh \(none\), got 'left'"):
        boundary_flux(box("quad", 2), "left")
    flat = Mesh(np.array([[0.0, 0], [1, 0], [2, 0]]), (CellBlock("triangle", np.arange(3)[None]),))
    with pytest.raises(MeshError, match="of no size"):
        mass(flat)
