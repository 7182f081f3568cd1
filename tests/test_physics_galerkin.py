"""Fields in balance by construction: residuals of patches, work, energy, given values, batches, order, gradients."""

import dataclasses

import numpy as np
import pytest
import torch
from test_physics_losses import grid

from gno.graph import SampleSpec, build_sample, collate
from gno.mesh import Mesh
from gno.physics import (
    Dirichlet,
    Energy,
    Neumann,
    Periodic,
    Robin,
    advection_diffusion,
    build_problem,
    diffusion,
    inner,
    neo_hookean,
    plane_stress,
    solve,
)
from gno.physics.forms import constants
from gno.physics.galerkin import CoarseSpace, coarse_space
from gno.physics.losses import balance, work

HEAT = {"conductivity": "k", "source": 1.0}
SOLID = {"young": "k", "poisson": 0.3, "load": (0.0, -1.0)}
SETTINGS = {
    "all around": (diffusion, HEAT, [Dirichlet("boundary", lambda x: x[:, 0])]),
    "flux and exchange": (diffusion, HEAT, [Dirichlet("left", 1.0), Neumann("right", 2.0), Robin("top", 3.0, 0.5)]),
    "periodic": (diffusion, HEAT, [Dirichlet("top", 0.0), Periodic("right", "left")]),
    "nothing given": (Energy(lambda u, grad, x, p: inner(grad, grad) + (u[..., 0] - x[..., 0] ** 2) ** 2), {}, []),
    "a solid": (plane_stress, SOLID, [Dirichlet("left", 0.0), Neumann("right", (1.0, 0.0))]),
    "rollers": (plane_stress, SOLID, [Dirichlet("left", 0.0, 0), Dirichlet("right", 0.1, 0), Dirichlet("top", 0.0, 1)]),
}


def square(n=8, skew=0.0):
    mesh = grid(n, skew)
    x, y = mesh.points.T
    sides = {"left": x == 0, "right": x == 1, "top": y == y.max()}
    return mesh.replace(point_sets={name: np.flatnonzero(side) for name, side in sides.items()})


def setting(name, *meshes, levels=3):
    law, parameters, conditions = SETTINGS[name]
    spec = SampleSpec.fit(meshes, inputs=["k"], targets=[], n_levels=levels)
    samples, problems = [], []
    for mesh in meshes:
        problem = build_problem(mesh, law, parameters, conditions)
        sample = build_sample(mesh, spec, torch.float64)
        sample.coarse_space = coarse_space(problem, sample)
        samples.append(sample)
        problems.append(problem)
    return problems, samples


def noise(problem, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=problem.values.shape))


def energy_error(problem, u, solution):
    return float(((u - solution) * problem.tangent_product(solution, u - solution)).sum()) ** 0.5


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_patch_receives_it_gives_and_the_work_is_stored(name):
    (problem,), (sample,) = setting(name, square())
    u = sample.coarse_space.correct(noise(problem))
    here = torch.zeros(len(u), dtype=torch.long)
    size = problem.residual(problem.lift(noise(problem))).abs().sum()
    r = problem.reduce(problem.residual(u))
    patches = sample.coarse_space.basis.T @ r.reshape(-1)
    assert float(patches.abs().max()) < 1e-12 * float(size) < 1e-9 * float(r.abs().sum())
    for functional in (balance, work):
        assert float(functional(problem, u, here).abs().max()) < 1e-12 * float(size)
        assert float(functional(problem, problem.lift(noise(problem)), here).abs().max()) > 1e-3 * float(size)


def test_of_a_solid_the_moments_are_in_balance_too():
    (problem,), (sample,) = setting("a solid", square())
    for law, small in ((problem.law, True), (dataclasses.replace(problem.law, kernel=constants), False)):
        space = coarse_space(dataclasses.replace(problem, law=law), sample)
        u = space.correct(noise(problem))
        r, x = problem.reduce(problem.residual(u)), problem.points
        moment = float((x[:, 0] * r[:, 1] - x[:, 1] * r[:, 0]).sum())
        assert (abs(moment) < 1e-10) == small


def test_reactions_equal_loads():
    (problem,), (sample,) = setting("flux and exchange", square())
    problem = build_problem(square(), diffusion, HEAT, [Dirichlet("left", 1.0), Neumann("right", 2.0)])
    u = coarse_space(problem, sample).correct(noise(problem))
    reactions = float(problem.residual(u)[problem.fixed].sum())
    assert reactions == pytest.approx(-(1.0 + 2.0), abs=1e-11)  # all of the source and of the flux leaves on the left


@pytest.mark.parametrize("name", SETTINGS)
def test_the_error_in_the_norm_of_the_energy_never_rises_and_given_values_stay(name):
    (problem,), (sample,) = setting(name, square(7, skew=0.4))
    solution, space = solve(problem).values, sample.coarse_space
    for seed in range(8):
        size = 10.0 ** (seed - 4)
        u = problem.lift(solution + size * noise(problem, seed))
        corrected = space.correct(u)
        assert energy_error(problem, corrected, solution) <= energy_error(problem, u, solution) * (1 + 1e-12)
        assert torch.equal(corrected, problem.lift(corrected))
        torch.testing.assert_close(space.correct(corrected), corrected, rtol=1e-9, atol=1e-9 * max(1, size))
    torch.testing.assert_close(space.correct(solution), solution, rtol=1e-8, atol=1e-9)


def test_a_batch_is_its_meshes_and_spaces_can_be_joined_again():
    problems, samples = setting("a solid", square(8), square(6, skew=0.3), square(5))
    fields = [noise(problem, k) for k, problem in enumerate(problems)]
    alone = torch.cat([s.coarse_space.correct(u) for s, u in zip(samples, fields, strict=True)])
    batch = collate(samples)
    torch.testing.assert_close(batch.coarse_space.correct(torch.cat(fields)), alone, rtol=1e-10, atol=1e-10)
    again = CoarseSpace.join([CoarseSpace.join([s.coarse_space for s in samples[1:]]), samples[0].coarse_space])
    order = torch.cat([again.correct(torch.cat([*fields[1:], fields[0]]))])
    torch.testing.assert_close(order, torch.cat([alone[len(fields[0]) :], alone[: len(fields[0])]]))


def test_the_numbering_of_nodes_does_not_matter():
    mesh = square(7, skew=0.3)
    order = np.random.default_rng(0).permutation(mesh.n_nodes)  # new node k is old node order[k]
    place = np.argsort(order)
    other = Mesh(
        mesh.points[order],
        [dataclasses.replace(block, nodes=place[block.nodes]) for block in mesh.cells],
        point_fields={"k": mesh.point_fields["k"][order]},
        point_sets={name: place[nodes] for name, nodes in mesh.point_sets.items()},
    )
    (here,), (sample,) = setting("a solid", mesh)
    _, (shuffled,) = setting("a solid", other)
    u = noise(here)
    torch.testing.assert_close(
        shuffled.coarse_space.correct(u[order]), sample.coarse_space.correct(u)[order], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", ["periodic", "a solid"])
def test_gradients(name):
    problems, samples = setting(name, square(3), square(4))
    space = collate(samples).coarse_space
    u = torch.cat([noise(problem) for problem in problems]).requires_grad_()
    assert torch.autograd.gradcheck(space.correct, u)


def test_the_level_is_the_finest_that_has_few_enough_unknowns():
    (problem,), (sample,) = setting("all around", square(12))
    sizes = [coarse_space(problem, sample, most=most).factor.shape[1] for most in (400, len(sample.pos_2), 1)]
    assert len(sample.pos_2) < sizes[0] <= len(sample.pos_1) and sizes[1] == sizes[2] <= len(sample.pos_2)


@pytest.mark.parametrize(
    ("law", "parameters", "message"),
    [
        (neo_hookean, {"young": 1.0, "poisson": 0.3}, "linear equation that has an energy, got one that is not linear"),
        (advection_diffusion, {"velocity": (1.0, 0.0), "conductivity": 1.0}, "got one without an energy"),
        (diffusion, {"conductivity": -1.0}, "finite and positive parameters"),
    ],
)
def test_what_cannot_be_corrected_is_said(law, parameters, message):
    mesh = square(4)
    problem = build_problem(mesh, law, parameters, [Dirichlet("boundary", 0.0)])
    with pytest.raises(ValueError, match=message):
        coarse_space(problem, build_sample(mesh, SampleSpec.fit([mesh], inputs=["k"], targets=[], n_levels=3)))
