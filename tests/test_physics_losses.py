"""Losses of physics: zero at the solution, the error's size beside it, on every mesh; scales and floors."""

import numpy as np
import pytest
import torch

from gno.graph import SampleSpec, build_sample, collate
from gno.mesh import CellBlock, Mesh
from gno.nn import NeuroScale, OperatorConfig
from gno.physics import Dirichlet, Energy, build_problem, diffusion, inner, solve
from gno.physics.losses import (
    Conserved,
    Inter,
    Intra,
    Units,
    balance,
    excess_energy,
    integral,
    residual_norm,
    size_of,
    work,
)
from gno.physics.multilevel import prepare

MEASURES = [excess_energy, residual_norm]
UNITS = Units(torch.zeros(1), torch.ones(1), torch.tensor([0]))


def grid(n, skew=0.0):
    x = np.linspace(0, 1, n + 1)
    points = np.stack([a.ravel() for a in np.meshgrid(x, x + skew * x**2, indexing="ij")], axis=1)
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([corner, corner + n + 1, corner + n + 2, corner + 1], axis=1)
    k = np.exp(np.sin(5 * points[:, 0]) + points[:, 1])
    return Mesh(points, (CellBlock("quad", quads),), point_fields={"k": k}, source=f"grid {n}")


def setting(*meshes, law=diffusion, **spec):
    """A batch with its physics, and the solutions."""
    spec = SampleSpec.fit(meshes, inputs=["k"], targets=[], **{"n_levels": 3, **spec})
    samples, solutions = [], []
    for mesh in meshes:
        problem = build_problem(mesh, law, {"conductivity": "k", "source": 1.0}, [Dirichlet("boundary", 0.0)])
        sample = build_sample(mesh, spec, torch.float64)
        sample.physics = prepare(problem, sample)
        for name, functional in (("integral", integral), ("balance", balance), ("work", work)):
            sample[f"size_{name}"] = size_of(functional, sample.physics)
        samples.append(sample)
        solutions.append(solve(problem).values)
    return collate(samples), torch.cat(solutions), spec


class Fields:
    """An output that is a field on the mesh alone."""

    transfers = ()

    def __init__(self, u):
        self.fields = (u,)


@pytest.fixture(scope="module")
def two():
    return setting(grid(10), grid(8, skew=0.3))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_loss_is_small_at_the_solution_and_the_relative_error_beside_it(two, measure):
    batch, solution, _ = two
    intra = Intra(UNITS, measure)
    at, near, far = (intra(batch, Fields(share * solution)).item() for share in (1.0, 1.1, 1.4))
    assert at < 0.02 and far / near == pytest.approx(4, rel=0.1)
    assert 0.05 < near < 0.2  # 0.1, up to the constants of the preconditioner and of the sizes


@pytest.mark.parametrize("measure", MEASURES)
def test_a_batch_is_its_meshes(two, measure):
    batch, solution, _ = two
    whole = measure(batch.physics, 0.7 * solution, batch, 0)
    for mesh, value in zip((grid(10), grid(8, skew=0.3)), whole, strict=True):
        one, alone, _ = setting(mesh, first_step=2.5)
        assert measure(one.physics, 0.7 * alone, one, 0).item() == pytest.approx(value.item(), rel=0.3)


def test_the_norm_of_the_residual_does_not_grow_with_refinement():
    """Smooth errors count the same on every mesh; of nodal noise only its energy grows, 1/h, not its residual, 1/h²."""
    slopes = {"smooth": [], "rough": [], "rough, plain": []}
    sizes = (8, 12, 16, 24, 32, 48)  # many: how well the anchors of one mesh happen to precondition varies
    for n in sizes:
        batch, solution, _ = setting(grid(n), n_levels=None)
        x, problem = torch.from_numpy(grid(n).points), batch.physics.problem
        smooth = 0.01 * (np.pi * x).sin().prod(1, keepdim=True)
        rough = 0.01 * torch.from_numpy(np.random.default_rng(0).normal(size=solution.shape))

        def plain(u, batch=batch, problem=problem):
            r = problem.reduce(problem.residual(problem.lift(u)))
            return (r.square() / batch.mass_0[:, None]).sum().sqrt()

        def norm(u, batch=batch):
            return Intra(UNITS, residual_norm)(batch, Fields(u))

        for name, error, of in (("smooth", smooth, norm), ("rough", rough, norm), ("rough, plain", rough, plain)):
            share = torch.ones((), dtype=torch.float64, requires_grad=True)
            of(solution + share * error).backward()
            slopes[name].append(share.grad.item())
    rate = {name: np.polyfit(np.log(sizes), np.log(values), 1)[0] for name, values in slopes.items()}
    assert -0.5 < rate["smooth"] < np.log(1.1) / np.log(4)
    assert rate["rough"] < np.log(6) / np.log(4) and rate["rough, plain"] > np.log(12) / np.log(4)


def test_the_gradient_on_a_coarse_scale_is_the_galerkin_residual(two):
    batch, _, _ = two
    torch.manual_seed(0)
    config = OperatorConfig(
        dim=2, n_inputs=1, n_geometry=batch.geometry.shape[1], n_outputs=1, n_levels=3, width=16, n_blocks=1, n_heads=1
    )
    output = NeuroScale(config).double()(batch)
    coarse = output.fields[1].detach().requires_grad_()
    fields = (output.fields[0].detach(), coarse, output.fields[2].detach())
    frozen = type(output)(**{**vars(output), "fields": fields})
    u = UNITS.on_mesh(frozen, 1)
    (gradient,) = torch.autograd.grad(excess_energy(batch.physics, u, batch, 1).mean(), coarse)
    problem = batch.physics.problem
    r = problem.reduce(problem.residual(problem.lift(u.detach()))) / batch.physics.size[batch.pos_0_batch][:, None] / 2
    edges, weights = output.transfers[0].edges, output.transfers[0].weights.detach()
    expected = torch.zeros_like(gradient).index_add(0, edges.sender, weights[:, None] * r[edges.receiver])
    torch.testing.assert_close(gradient, expected)
    Intra(UNITS, excess_energy, coarse_weight=1.0)(batch, output).backward()


def test_between_scales_zero_is_what_the_restriction_says(two):
    batch, _, _ = two
    torch.manual_seed(0)
    config = OperatorConfig(
        dim=2, n_inputs=1, n_geometry=batch.geometry.shape[1], n_outputs=1, n_levels=3, width=16, n_blocks=1, n_heads=1
    )
    output = NeuroScale(config).double()(batch)
    assert Inter()(batch, output).item() > 1e-3
    agreed = [output.fields[0]]
    for transfer in output.transfers:
        agreed.append(transfer.restrict(agreed[-1]))
    assert Inter()(batch, type(output)(**{**vars(output), "fields": tuple(agreed)})).item() < 2e-4
    # without given values the integral is the same on all scales, by construction
    free = [integral(batch.physics.problem, UNITS.on_mesh(output, s), batch.pos_0_batch) for s in range(3)]
    torch.testing.assert_close(free[0], free[1], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(("name", "functional"), [("balance", balance), ("work", work)])
def test_the_solution_conserves_and_others_do_not(two, name, functional):
    batch, solution, _ = two
    loss = Conserved(name, functional, UNITS, goal=0.0)
    assert loss(batch, Fields(solution)).item() < 1e-8 and loss(batch, Fields(1.1 * solution)).item() > 0.05


def test_below_the_floor_nothing_pushes(two):
    batch, solution, _ = two
    intra = Intra(UNITS, residual_norm)
    batch["floor_intra"] = torch.tensor([0.1, 0.1]) ** 2
    slopes = []
    for share in (1.01, 1.5):
        u = (share * solution).requires_grad_()
        intra(batch, Fields(u)).backward()
        slopes.append(u.grad.abs().sum().item())
    del batch["floor_intra"]
    assert slopes[0] == 0 and slopes[1] > 0


def test_a_law_of_ones_own_and_no_given_values():
    stiff = Energy(
        lambda u, grad, x, p: p["conductivity"] / 2 * inner(grad, grad) + u[..., 0] ** 2 - p["source"] * u[..., 0]
    )
    mesh = grid(6)
    problem = build_problem(mesh, stiff, {"conductivity": "k", "source": 1.0})
    sample = build_sample(mesh, SampleSpec.fit([mesh], inputs=["k"], targets=[], n_levels=3), torch.float64)
    physics = prepare(problem, sample)
    # the solution is the constant 1/2, which the anchors have
    torch.testing.assert_close(physics.guess, torch.full_like(physics.guess, 0.5))
