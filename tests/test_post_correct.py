"""From a prediction to the solver's answer, by one criterion for all guesses."""

import numpy as np
import pytest
from post_cases import grid

from gno.physics import (
    ConvergenceError,
    Dirichlet,
    Neumann,
    build_problem,
    diffusion,
    nonlinear_diffusion,
    plane_stress,
)
from gno.post.correct import correct


def beam(error):
    """A plate in tension and bending with a prediction that is off by a smooth field."""
    mesh = grid(24, 8, lambda s: s * [3, 1], "quad")
    conditions = [Dirichlet("left"), Neumann("right", (1.0, 0.3))]
    problem = build_problem(mesh, plane_stress, {"young": 10.0, "poisson": 0.3}, conditions)
    exact = correct(mesh.with_point_fields(u=np.zeros((mesh.n_nodes, 2))), "u", problem, tolerance=1e-12)
    u = exact.mesh.point_fields["corrected_u"]
    x, y = mesh.points.T
    smooth = np.stack([x * np.cos(y), x * np.sin(2 * x)], axis=1)
    return mesh.with_point_fields(predicted_u=u + error * smooth, old=0.9 * u, truth=u), problem


def test_all_guesses_lead_to_the_same_answer_and_a_better_guess_takes_fewer_iterations():
    mesh, problem = beam(1e-4)
    found = correct(mesh, "predicted_u", problem, tolerance=1e-6, guesses={"old": "old"})
    ours, zero, multigrid, old = found.attempts
    assert [a.guess for a in found.attempts] == ["predicted_u", "zero", "full multigrid", "old"]
    assert found.residual <= 1e-6 and all(a.steps == 1 for a in found.attempts)
    assert ours.iterations < min(zero.iterations, old.iterations) and multigrid.iterations <= zero.iterations + 1
    assert zero.residual == pytest.approx(1) and ours.residual < old.residual < 1
    truth = mesh.point_fields["truth"]
    assert np.allclose(found.mesh.point_fields["corrected_u"], truth, atol=1e-4 * np.abs(truth).max())
    assert "predicted_u" in found.mesh.point_fields and 0 < found.change["predicted_u"] < 0.01
    text = str(found)
    assert "1e-06 as asked" in text and "saved against zero" in text and "CG iterations" in text


def test_the_answer_itself_takes_no_step():
    mesh, problem = beam(0.0)
    found = correct(mesh, "truth", problem, tolerance=1e-6)
    assert found.attempts[0].steps == 0 and found.attempts[0].iterations == 0
    assert found.facts["attempts"][0]["residual"] <= 1e-6


def test_a_nonlinear_problem_saves_newton_steps():
    mesh = grid(10, 10, lambda s: s, "triangle")
    law = nonlinear_diffusion(lambda u, x, p: 1 + u**2)
    problem = build_problem(mesh, law, {"source": 60.0}, [Dirichlet("boundary")])
    exact = correct(mesh.with_point_fields(u=np.zeros(mesh.n_nodes)), "u", problem, tolerance=1e-12)
    u = exact.mesh.point_fields["corrected_u"]
    assert u.shape == (mesh.n_nodes,)
    found = correct(mesh.with_point_fields(predicted_u=1.01 * u), "predicted_u", problem)
    assert [a.guess for a in found.attempts] == ["predicted_u", "zero"]
    assert found.attempts[0].steps < found.attempts[1].steps
    assert "Newton steps" in str(found)


def test_a_planar_vector_in_three_columns_keeps_its_shape():
    mesh, problem = beam(1e-3)
    wide = np.pad(mesh.point_fields["predicted_u"], ((0, 0), (0, 1)))
    found = correct(mesh.with_point_fields(predicted_u=wide), "predicted_u", problem)
    assert found.mesh.point_fields["corrected_u"].shape == wide.shape
    assert not found.mesh.point_fields["corrected_u"][:, 2].any()


def test_bad_input_is_named():
    mesh, problem = beam(0.0)
    with pytest.raises(ValueError, match="guess 'w': expected 2 components on 225 nodes, got 1"):
        correct(mesh.with_point_fields(w=np.zeros(mesh.n_nodes)), "w", problem)
    free = build_problem(mesh, diffusion, {"conductivity": 1.0, "source": 1.0})
    with pytest.raises(ConvergenceError, match="expected a solution to 1e-08, got none from any guess"):
        correct(mesh.with_point_fields(w=np.zeros(mesh.n_nodes)), "w", free)
