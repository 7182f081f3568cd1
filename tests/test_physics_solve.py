"""Solving: solvers agree, guesses save iterations, batches are their meshes, and failures say so."""

import numpy as np
import pytest
import torch
from equation_cases import box

from gno.physics import (
    ConvergenceError,
    Dirichlet,
    Energy,
    Neumann,
    Problem,
    Weak,
    build_problem,
    diffusion,
    direct,
    dot,
    elasticity,
    implicit_step,
    inner,
    multigrid,
    neo_hookean,
    plane_strain,
    solve,
)

SOLID = {"young": 1.0, "poisson": 0.3}


def heated(n=8, **parameters):
    k = 1 + 9 * (box(n).points[:, 0] > 0.5)
    return build_problem(box(n), diffusion, {"conductivity": k, "source": 1.0, **parameters}, [Dirichlet("left", 3.0)])


def bent_block(load, n=6):
    return build_problem(box(n, "quad"), neo_hookean, SOLID, [Dirichlet("left"), Neumann("right", (0.0, load))])


def test_multigrid_and_lu_agree():
    mesh = box(3, "tetra")
    problem = build_problem(mesh, elasticity, SOLID, [Dirichlet("left"), Neumann("right", (0.0, 0.0, -0.1))])
    one, other = solve(problem, linear=multigrid), solve(problem, linear=direct)
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-8)
    assert (one.iterations, other.iterations) == (1, 1)
    assert one.linear_iterations > 0 == other.linear_iterations
    assert one.residual_norms[0] == 1 and one.residual_norms[-1] < 1e-10 and one.seconds > 0


def test_rigid_motions_help_the_multigrid():
    problem = build_problem(box(24, "quad"), plane_strain, SOLID, [Dirichlet("left"), Neumann("right", (0.0, 0.1))])
    plain = Energy(plane_strain.density, plane_strain.components)
    without = Problem(**{**vars(problem), "law": plain})
    assert solve(problem).linear_iterations < 0.8 * solve(without).linear_iterations


def test_a_guess_saves_iterations_and_the_solution_needs_none():
    problem = heated(16)
    cold = solve(problem)
    warm = solve(problem, cold.values + 1e-6 * torch.randn_like(cold.values))
    assert warm.linear_iterations < cold.linear_iterations
    torch.testing.assert_close(warm.values, cold.values, rtol=0, atol=1e-8)
    done = solve(problem, cold.values)
    assert done.iterations == 0 and torch.equal(done.values, cold.values)


def test_newton_converges_quadratically_and_a_guess_shortens_it():
    problem = bent_block(0.03)
    cold = solve(problem)
    tip = cold.values[problem.points[:, 0] == 1, 1]
    assert tip.min() > 0.1  # not a small strain
    *_, third, second, last = np.log(cold.residual_norms)
    assert second < 1.5 * third or last < 1.5 * second
    warm = solve(problem, cold.values * 1.01)
    assert warm.iterations < cold.iterations
    torch.testing.assert_close(warm.values, cold.values, rtol=0, atol=1e-7)


def test_the_line_search_saves_a_step_that_overshoots():
    law = Weak(lambda u, grad, v, grad_v, x, p: inner(grad, grad_v) + torch.atan(30 * u[..., 0]) * v[..., 0])
    mesh = box(4)
    problem = build_problem(mesh, law, {}, [Neumann("right", 0.5)])
    guess = torch.full_like(problem.values, 3.0)
    solution = solve(problem, guess)
    assert solution.residual_norms[-1] <= 1e-10 and (np.diff(solution.residual_norms) < 0).all()


def test_a_batch_is_solved_as_its_meshes():
    problems = [heated(4), heated(5), heated(3)]
    values = solve(Problem.join(problems)).values
    singles = torch.cat([solve(problem).values for problem in problems])
    torch.testing.assert_close(values, singles, rtol=0, atol=1e-8)


def test_constants_that_differ_become_one_per_mesh_and_batches_keep_boundary_terms():
    def stretched(young, traction, n):
        conditions = [Dirichlet("left"), Neumann("right", traction)]
        return build_problem(box(n), plane_strain, {"young": young, "poisson": 0.3}, conditions)

    problems = [stretched(1.0, (0.1, 0.0), 2), stretched(5.0, (0.0, 0.3), 3)]
    batch = Problem.join(problems)
    assert batch.parameters["young"].tolist() == [1.0, 5.0]
    torch.manual_seed(0)
    u = torch.randn_like(batch.values)
    parts = u.split([problem.domain.n_nodes for problem in problems])
    residuals = [problem.residual(part) for problem, part in zip(problems, parts, strict=True)]
    torch.testing.assert_close(batch.residual(u), torch.cat(residuals))
    energies = [problem.energy(part) for problem, part in zip(problems, parts, strict=True)]
    torch.testing.assert_close(batch.energy(u), torch.cat(energies))


def test_different_laws_make_no_batch():
    with pytest.raises(ValueError, match="expected the same law"):
        Problem.join([heated(2), build_problem(box(2), plane_strain, SOLID)])


def test_steps_in_time_decay_as_they_should():
    mesh = box(8, bend=0.0)
    u = torch.from_numpy(np.sin(np.pi * mesh.points[:, :1]))
    given = {"conductivity": 1.0, "previous": u, "step": 0.01}
    problem = build_problem(mesh, implicit_step(diffusion), given, [Dirichlet("left"), Dirichlet("right")])
    for _ in range(3):
        u = solve(problem.given(previous=u)).values
    expected = (1 + 0.01 * np.pi**2) ** -3
    assert float(u.max()) == pytest.approx(expected, rel=1e-2)
    with pytest.raises(ValueError, match=r"parameters\['now'\]: expected one of conductivity, previous, step"):
        problem.given(now=u)


def test_single_precision_comes_back_from_a_solve_in_double():
    problem = heated(6)
    low = solve(problem.to(dtype=torch.float32))
    assert low.values.dtype == torch.float32
    torch.testing.assert_close(low.values.double(), solve(problem).values, rtol=1e-5, atol=1e-5)


def test_nodes_without_cells_are_left_at_zero():
    mesh = box(3)
    with_centre = mesh.replace(points=np.vstack([mesh.points, [[9.0, 9.0]]]))
    values = [
        solve(
            build_problem(m, diffusion, {"conductivity": 1.0, "source": 1.0}, [Dirichlet("left")]), linear=linear
        ).values
        for m, linear in ((mesh, direct), (with_centre, direct), (with_centre, multigrid))
    ]
    for found in values[1:]:
        torch.testing.assert_close(found[:-1], values[0], rtol=0, atol=1e-9)
        assert found[-1] == 0


def test_no_load_gives_no_displacement():
    problem = build_problem(box(2), plane_strain, SOLID, [Dirichlet("left")])
    solution = solve(problem)
    assert not solution.values.any() and solution.iterations == 0


def test_what_does_not_converge_says_so():
    with pytest.raises(ConvergenceError, match=r"expected convergence in 1 steps, got relative residuals 1.0e\+00"):
        solve(bent_block(0.03), max_iterations=1)
    with pytest.raises(ConvergenceError, match="expected a finite residual, got relative residuals"):
        solve(build_problem(box(4), neo_hookean, SOLID, [Dirichlet("left"), Dirichlet("right", (-2.0, 0.0))]))
    with pytest.raises(ConvergenceError) as caught:
        free = Weak(lambda u, grad, v, grad_v, x, p: inner(grad, grad_v) - dot(u * 0 + 1, v))
        solve(build_problem(box(2), free))
    assert "singular" in str(caught.value) or "relative residuals" in str(caught.value)


def test_a_guess_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"guess: expected \(9, 1\), got \(9,\)"):
        solve(heated(2), torch.zeros(9))
