"""The built-in equations: orders of convergence, an independent assembly, and what each must not change."""

import math

import numpy as np
import pytest
import skfem
import torch
from equation_cases import at_points, box, divergence, gradient, h1_error, l2_error, nodal, rates
from skfem.helpers import ddot, dot, eye, grad, sym_grad, trace
from skfem.models.elasticity import lame_parameters
from torch import cos, sin

from gno.physics import (
    Dirichlet,
    advection_diffusion,
    allen_cahn,
    build_domain,
    build_problem,
    diffusion,
    elasticity,
    gray_scott,
    gray_scott_rate,
    imex_step,
    implicit_step,
    navier_stokes,
    neo_hookean,
    nonlinear_diffusion,
    plane_strain,
    plane_stress,
    residual,
    solve,
)
from gno.physics.fem import skfem_basis

YOUNG, POISSON = 3.0, 0.3
SHEAR, FIRST = YOUNG / 2 / (1 + POISSON), YOUNG * POISSON / (1 + POISSON) / (1 - 2 * POISSON)
SOLID = {"young": YOUNG, "poisson": POISSON}
GRAY_SCOTT = {"diffusivity": (0.2, 0.1), "feed": 0.04, "kill": 0.06}


# Exact solutions and the strong forms that they are put into, written apart from the laws.


def wave(x):
    return torch.stack([sin(2 * x[..., 0]) * cos(x[..., 1]) + x[..., 0] ** 2], -1)


def swirl(x):
    return 0.1 * torch.stack([sin(2 * x[..., 0]) * cos(x[..., 1]), x[..., 0] * sin(2 * x[..., 1])], -1)


def swirl_in_space(x):
    return torch.cat([swirl(x), 0.1 * x[..., 2:] ** 2 * sin(x[..., :1])], -1)


def species(x):
    return torch.stack([1 + 0.3 * sin(x[..., 0]) * cos(x[..., 1]), 0.5 + 0.2 * x[..., 0] * x[..., 1] ** 2], -1)


def before(x):
    return 0.9 * species(x)


def conductivity(x):
    return 1 + x[..., 0] * x[..., 1]


def wind(x):
    return torch.stack([1 + x[..., 1], 2 - x[..., 0]], -1)


def laplacian(u):
    return divergence(gradient(u))


def hooke(u, first):
    def stress(x):
        strain = (gradient(u)(x) + gradient(u)(x).T) / 2
        return first * strain.trace() * torch.eye(len(x), dtype=x.dtype) + 2 * SHEAR * strain

    return lambda x: -divergence(stress)(x)


def neo_hooke(u):
    def stress(x):  # first Piola–Kirchhoff
        f = gradient(u)(x) + torch.eye(2, dtype=x.dtype)
        inverse = torch.linalg.inv(f).T
        return SHEAR * (f - inverse) + FIRST * torch.log(f[0, 0] * f[1, 1] - f[0, 1] * f[1, 0]) * inverse

    return lambda x: -divergence(stress)(x)


def reaction(u):
    made = u[0] * u[1] ** 2
    return torch.stack([0.04 * (1 - u[0]) - made, made - 0.1 * u[1]])


def spreading(x):
    return torch.tensor([0.2, 0.1], dtype=x.dtype) * laplacian(species)(x)


EQUATIONS = {
    "diffusion": (
        diffusion,
        wave,
        {"conductivity": conductivity},
        ("source", lambda x: -divergence(lambda y: conductivity(y) * gradient(wave)(y))(x)),
    ),
    "nonlinear diffusion": (
        nonlinear_diffusion(lambda u, x, p: 1 + u**2),
        wave,
        {},
        ("source", lambda x: -divergence(lambda y: (1 + wave(y) ** 2) * gradient(wave)(y))(x)),
    ),
    "a step of diffusion": (
        implicit_step(diffusion),
        wave,
        {"conductivity": 0.5, "previous": lambda x: wave(x) / 2, "step": 0.1, "capacity": 2.0},
        ("source", lambda x: 10 * wave(x) - laplacian(wave)(x) / 2),
    ),
    "advection and diffusion": (
        advection_diffusion,
        wave,
        {"conductivity": 0.1, "velocity": wind},
        ("source", lambda x: gradient(wave)(x) @ wind(x) - 0.1 * laplacian(wave)(x)),
    ),
    "hardly any diffusion": (
        advection_diffusion,
        wave,
        {"conductivity": 1e-4, "velocity": wind},
        ("source", lambda x: gradient(wave)(x) @ wind(x) - 1e-4 * laplacian(wave)(x)),
    ),
    "plane strain": (plane_strain, swirl, SOLID, ("load", hooke(swirl, FIRST))),
    "plane stress": (plane_stress, swirl, SOLID, ("load", hooke(swirl, YOUNG * POISSON / (1 - POISSON**2)))),
    "neo-Hookean": (neo_hookean, swirl, SOLID, ("load", neo_hooke(swirl))),
    "Allen–Cahn": (
        allen_cahn,
        wave,
        {"diffusivity": 0.3},
        ("source", lambda x: -0.3 * laplacian(wave)(x) + wave(x) ** 3 - wave(x)),
    ),
    "Gray–Scott": (
        gray_scott,
        species,
        GRAY_SCOTT,
        ("source", lambda x: -spreading(x) - reaction(species(x))),
    ),
    "an implicit step of Gray–Scott": (
        implicit_step(gray_scott),
        species,
        {**GRAY_SCOTT, "previous": before, "step": 0.5},
        ("source", lambda x: 2 * (species(x) - before(x)) - spreading(x) - reaction(species(x))),
    ),
    "an IMEX step of Gray–Scott": (
        imex_step(gray_scott_rate, 2),
        species,
        {**GRAY_SCOTT, "previous": before, "step": 0.5},
        ("source", lambda x: 2 * (species(x) - before(x)) - spreading(x) - reaction(before(x))),
    ),
}


def errors(law, exact, parameters, meshes):
    found = []
    for mesh in meshes:
        problem = build_problem(mesh, law, parameters, [Dirichlet("boundary", nodal(exact))])
        values = solve(problem).values
        found.append((l2_error(mesh, values, exact), h1_error(mesh, values, exact)))
    return np.array(found).T


@pytest.mark.parametrize("name", EQUATIONS)
def test_errors_fall_at_the_orders_of_theory(name):
    law, exact, parameters, (load, strong) = EQUATIONS[name]
    meshes = [box(n, bend=0.02) for n in (5, 10, 20)]
    l2, h1 = errors(law, exact, {**parameters, load: at_points(strong)}, meshes)
    assert rates(l2) == pytest.approx([2, 2], abs=0.1)
    assert rates(h1) == pytest.approx([1, 1], abs=0.1)


def test_orders_in_space_are_those_of_theory():
    meshes = [box(n, "tetra", bend=0.0) for n in (2, 4, 8)]
    load = at_points(hooke(swirl_in_space, FIRST))
    l2, h1 = errors(elasticity, swirl_in_space, {**SOLID, "load": load}, meshes)
    assert rates(l2) == pytest.approx([2, 2], abs=0.1)
    assert rates(h1) == pytest.approx([1, 1], abs=0.1)


def flow(x):
    a, b = 2 * x[..., 0], 2 * x[..., 1]
    return torch.stack([sin(a) * cos(b), -cos(a) * sin(b), cos(x[..., 0]) * x[..., 1]], -1)


def velocity(x):
    return flow(x)[..., :2]


def momentum(x):
    pressure = gradient(lambda y: flow(y)[2])(x)
    return gradient(velocity)(x) @ velocity(x) - 0.05 * laplacian(velocity)(x) + pressure


@pytest.mark.parametrize("step", [None, 0.2])
def test_orders_of_flow_are_those_of_theory(step):
    found = []
    for n in (6, 12, 24):
        mesh = box(n, bend=0.02)
        walls = Dirichlet("boundary", nodal(velocity), components=(0, 1))
        level = Dirichlet(lambda x: np.arange(len(x)) == 0, nodal(flow))
        parameters = {"viscosity": 0.05, "load": at_points(momentum)}
        if step:
            parameters |= {"previous": lambda x: flow(x) / 2, "step": step}
            parameters["load"] = at_points(lambda x: momentum(x) + velocity(x) / 2 / step)
        values = solve(build_problem(mesh, navier_stokes, parameters, [walls, level])).values
        pressure = l2_error(mesh, values[:, 2:], lambda x: flow(x)[..., 2:])
        found.append((l2_error(mesh, values[:, :2], velocity), h1_error(mesh, values[:, :2], velocity), pressure))
    l2, h1, pressure = np.array(found).T
    assert rates(l2) == pytest.approx([2, 2], abs=0.1)
    assert rates(h1) == pytest.approx([1, 1], abs=0.1)
    assert (rates(pressure) > 0.9).all()  # theory promises one; smooth flows do better


# scikit-fem's own assembly and solution.


@skfem.BilinearForm
def laplace(u, v, w):
    return (1 + w.x[0]) * dot(grad(u), grad(v))


@skfem.BilinearForm
def mass(u, v, w):
    return u * v


@skfem.LinearForm
def load(v, w):
    return np.sin(w.x[1]) * v


@skfem.BilinearForm
def streamline(u, v, w):
    a = np.stack([1 + w.x[1], 2 - w.x[0]])
    along, across = dot(a, grad(u)), dot(a, grad(v))
    time = ((2 / w.size) ** 2 * dot(a, a) + 9 * (4 * 0.02 / w.size**2) ** 2) ** -0.5
    return 0.02 * dot(grad(u), grad(v)) + along * v + time * along * across


def solved(matrix, right, fixed):
    return skfem.solve(*skfem.condense(matrix, right, D=fixed))


def at_round_off(problem, u):
    u = torch.from_numpy(u.reshape(problem.values.shape))
    scale = abs(problem.tangent(u) @ np.ones(u.numel())).max() + abs(problem.tangent(u)).max()
    return float(problem.reduce(problem.residual(u)).abs().max()) < 1e-13 * max(scale, 1.0)


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra"])
def test_diffusion_is_that_of_scikit_fem(kind):
    mesh = box(3, kind)
    problem = build_problem(
        mesh,
        diffusion,
        {"conductivity": lambda x: 1 + x[..., 0], "source": lambda x: sin(x[..., 1])},
        [Dirichlet("left")],
        order=4,
    )
    (basis,) = skfem_basis(mesh, order=4)
    assert at_round_off(problem, solved(laplace.assemble(basis), load.assemble(basis), mesh.point_sets["left"]))


def test_a_step_of_diffusion_is_that_of_scikit_fem():
    mesh = box(4)
    old = np.cos(3 * mesh.points[:, 0])
    given = {"conductivity": lambda x: 1 + x[..., 0], "previous": old, "step": 0.1, "capacity": 3.0}
    problem = build_problem(mesh, implicit_step(diffusion), given, [Dirichlet("left")], order=4)
    (basis,) = skfem_basis(mesh, order=4)
    m = mass.assemble(basis) * 30
    assert at_round_off(problem, solved(laplace.assemble(basis) + m, m @ old, mesh.point_sets["left"]))


def test_an_imex_step_is_that_of_scikit_fem():
    mesh = box(4)
    old = np.random.default_rng(0).random((mesh.n_nodes, 2))
    problem = build_problem(
        mesh, imex_step(gray_scott_rate, 2), {**GRAY_SCOTT, "previous": old, "step": 0.5}, [Dirichlet("left")], order=6
    )
    (basis,) = skfem_basis(mesh, order=6)
    stiffness = skfem.BilinearForm(lambda u, v, w: dot(grad(u), grad(v))).assemble(basis)
    rates = [
        lambda a, b: 0.04 * (1 - a) - a * b**2,
        lambda a, b: a * b**2 - (0.04 + 0.06) * b,
    ]
    u = np.zeros_like(old)
    for i, rate in enumerate(rates):
        right = skfem.LinearForm(lambda v, w, i=i, rate=rate: (2 * [w.a, w.b][i] + rate(w.a, w.b)) * v)
        b = right.assemble(basis, a=old[:, 0], b=old[:, 1])
        u[:, i] = solved(2 * mass.assemble(basis) + (0.2, 0.1)[i] * stiffness, b, mesh.point_sets["left"])
    assert at_round_off(problem, u)


def test_advection_is_that_of_scikit_fem():
    mesh = box(4, bend=0.0)
    problem = build_problem(
        mesh, advection_diffusion, {"conductivity": 0.02, "velocity": wind}, [Dirichlet("left", 1.0)]
    )
    (basis,) = skfem_basis(mesh)
    size = np.full((mesh.n_cells, 1), 0.25)  # the leg of the triangles
    matrix = streamline.assemble(basis, size=np.broadcast_to(size, basis.dx.shape))
    x = np.zeros(mesh.n_nodes)
    x[mesh.point_sets["left"]] = 1
    assert at_round_off(problem, skfem.solve(*skfem.condense(matrix, x=x, D=mesh.point_sets["left"])))


@pytest.mark.parametrize(("law", "kind"), [(plane_strain, "quad"), (plane_stress, "triangle"), (elasticity, "tetra")])
def test_elasticity_is_that_of_scikit_fem(law, kind):
    mesh = box(2, kind)
    dim = mesh.dim
    first, shear = lame_parameters(YOUNG, POISSON)
    if law is plane_stress:
        first = 2 * first * shear / (first + 2 * shear)

    @skfem.BilinearForm
    def stiffness(u, v, w):
        strain = sym_grad(u)
        return ddot(first * eye(trace(strain), dim) + 2 * shear * strain, sym_grad(v))

    problem = build_problem(mesh, law, {**SOLID, "load": tuple(range(1, dim + 1))}, [Dirichlet("left")])
    (basis,) = skfem_basis(mesh, n_components=dim)
    weight = skfem.LinearForm(lambda v, w: sum((i + 1) * v[i] for i in range(dim))).assemble(basis)
    fixed = (mesh.point_sets["left"][:, None] * dim + np.arange(dim)).ravel()
    assert at_round_off(problem, solved(stiffness.assemble(basis), weight, fixed))


# What solids must not do.


def turned(points, angle):
    turn = torch.eye(points.shape[1], dtype=points.dtype)
    c, s = math.cos(angle), math.sin(angle)
    turn[:2, :2] = torch.tensor([[c, -s], [s, c]], dtype=points.dtype)
    return points @ turn.T - points + 0.7


@pytest.mark.parametrize("law", [plane_strain, plane_stress, elasticity])
def test_rigid_motion_gives_no_stress(law):
    mesh = box(2, "tetra" if law is elasticity else "triangle")
    domain, x = build_domain(mesh), torch.from_numpy(mesh.points)
    infinitesimal = torch.zeros_like(x)
    infinitesimal[:, 0], infinitesimal[:, 1] = 0.3 - x[:, 1], x[:, 0] - 2
    assert residual(law, domain, infinitesimal, SOLID).abs().max() < 1e-14
    assert residual(neo_hookean, domain, turned(x, 2.0), SOLID).abs().max() < 1e-14
    assert residual(law, domain, 0.1 * x**2, SOLID).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["triangle", "tetra"])
def test_small_strains_of_the_neo_hookean_solid_are_linear(kind):
    mesh = box(2, kind)
    domain, u = build_domain(mesh), torch.from_numpy(np.sin(3 * mesh.points[:, ::-1]).copy())
    expected = residual(elasticity, domain, u, SOLID)
    differences = [
        float((residual(neo_hookean, domain, size * u, SOLID) / size - expected).norm() / expected.norm())
        for size in (1e-3, 5e-4, 2.5e-4)
    ]
    assert differences[0] < 1e-2
    assert rates(differences) == pytest.approx([1, 1], abs=0.05)


def test_a_species_at_rest_stays_at_rest():
    mesh = box(2)
    domain, rest = build_domain(mesh), torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(mesh.n_nodes, 2)
    assert residual(gray_scott, domain, rest, GRAY_SCOTT).abs().max() < 1e-16


def test_the_driven_cavity_is_that_of_ghia():
    mesh = box(24, bend=0.0)
    moving = Dirichlet("top", (1.0, 0.0), components=(0, 1))
    still = [Dirichlet(side, 0.0, components=(0, 1)) for side in ("left", "right", "bottom")]  # the lid's ends too
    level = Dirichlet(lambda x: (x == 0).all(1), 0.0, components=2)
    values = solve(build_problem(mesh, navier_stokes, {"viscosity": 0.01}, [moving, *still, level])).values
    middle = np.isclose(mesh.points[:, 0], 0.5)
    # U. Ghia, K. N. Ghia, C. T. Shin, J. Comput. Phys. 48 (1982) 387–411, table I: −0.2109 at y = 0.4531.
    assert float(values[middle, 0].min()) == pytest.approx(-0.2109, abs=0.004)
    assert mesh.points[middle, 1][values[middle, 0].argmin()] == pytest.approx(0.4531, abs=1 / 24)
