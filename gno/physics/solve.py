"""The solution of a problem: Newton's method over conjugate gradients with multigrid, or over a sparse LU."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from gno.physics.forms import Energy, constants
from gno.physics.problem import Problem

HALVINGS = 10
"""How often the line search halves a step before it gives up."""

LinearSolver = Callable[[sp.csr_array, np.ndarray, np.ndarray, float], tuple[np.ndarray, int]]
"""Solves ``A x = b``: of A, b, near-kernel (n_nodes, c, modes) and the allowed norm of ``b − A x``; also iterations."""


class ConvergenceError(RuntimeError):
    """A solve that did not reach its tolerance.

    Args:
        residual_norms: relative, one per Newton iteration.
    """

    def __init__(self, message: str, residual_norms: tuple[float, ...] = ()) -> None:
        super().__init__(message)
        self.residual_norms = residual_norms


@dataclasses.dataclass(frozen=True)
class Solution:
    """What solve found.

    Args:
        values: of the unknowns, boundary values included.
        iterations: steps of Newton's method; a linear problem takes one.
        linear_iterations: of conjugate gradients, in all steps; 0 for LU.
        residual_norms: relative to the load, before each step and at the end.
        seconds: wall time.
    """

    values: Float[Tensor, "n_nodes c"]
    iterations: int
    linear_iterations: int
    residual_norms: tuple[float, ...]
    seconds: float


def solve(
    problem: Problem,
    guess: Float[Tensor, "n_nodes c"] | None = None,
    *,
    tolerance: float = 1e-10,
    max_iterations: int = 25,
    linear: LinearSolver | None = None,
) -> Solution:
    """The field whose residual is zero where no value is given: ``‖r‖ ≤ tolerance ‖load‖``, in float64 on the CPU.

    The load is the residual of u = 0 with its boundary values lifted by the tangent there; it does not depend on the
    guess, so a good guess saves iterations.

    Args:
        problem: what to solve.
        guess: where to start; by default the solution of the problem linearised at u = 0.
        tolerance: of the relative residual. max_iterations: steps of Newton's method.
        linear: solver of the linear systems; by default :func:`multigrid` for energies and :func:`direct` else.

    Raises:
        ConvergenceError: the tolerance is not reached.
        ValueError: a guess of another shape.
    """
    start, like = time.perf_counter(), problem.values
    problem = problem.to("cpu", torch.float64)
    if guess is not None and guess.shape != like.shape:
        raise ValueError(f"guess: expected {tuple(like.shape)}, got {tuple(guess.shape)}")
    with torch.no_grad():
        u, norms, n = _newton(problem, guess, tolerance, max_iterations, linear or _usual_solver(problem))
    return Solution(u.to(like), len(norms) - 1, n, tuple(norms), time.perf_counter() - start)


def _newton(
    problem: Problem, guess: Tensor | None, tolerance: float, max_iterations: int, linear: LinearSolver
) -> tuple[Tensor, list[float], int]:
    zero, kernel = torch.zeros_like(problem.values), _kernel(problem)
    u = problem.lift(zero)
    r = load = problem.reduce(problem.residual(zero) + problem.tangent_product(zero, u))
    at = zero
    if guess is not None:
        u = at = problem.lift(guess.detach().to(zero))
        r = problem.reduce(problem.residual(u))
    # A law that is not finite at zero, or has no load there, is measured by the residual of the guess.
    scale = next((x for x in (float(load.norm()), float(r.norm())) if math.isfinite(x) and x > 0), 1.0)
    norms, n_linear = [float(r.norm()) / scale], 0
    while not norms[-1] <= tolerance:
        if len(norms) > max_iterations or not math.isfinite(norms[-1]):
            what = f"convergence in {max_iterations} steps" if math.isfinite(norms[-1]) else "a finite residual"
            raise ConvergenceError(f"solve: expected {what}, got {_told(norms, tolerance)}", tuple(norms))
        matrix = constrained(problem, problem.tangent(at))
        step, n = linear(matrix, -r.numpy().ravel(), kernel, tolerance * scale / 4)
        n_linear += n
        direction = torch.from_numpy(step).reshape(zero.shape)
        if at is zero:  # from the problem linearised at zero, with its boundary values: no residual to compare with
            u = problem.lift(direction)
            r = problem.reduce(problem.residual(u))
            norms.append(float(r.norm()) / scale)
        else:
            u, r = _search(problem, u, direction, norms, tolerance, scale)
        at = u
    return u, norms, n_linear


def _search(
    problem: Problem, u: Tensor, direction: Tensor, norms: list[float], tolerance: float, scale: float
) -> tuple[Tensor, Tensor]:
    """The longest step, halved again and again, that lowers the residual; its norm joins the list."""
    for halving in range(HALVINGS + 1):
        part = 0.5**halving
        tried = problem.lift(u + part * direction)
        r = problem.reduce(problem.residual(tried))
        norm = float(r.norm()) / scale
        if norm <= (1 - 1e-4 * part) * norms[-1]:
            norms.append(norm)
            return tried, r
    raise ConvergenceError(
        f"solve: expected a step that lowers the residual, got {_told(norms, tolerance)}", tuple(norms)
    )


def _told(norms: list[float], tolerance: float) -> str:
    return f"relative residuals {', '.join(f'{norm:.1e}' for norm in norms)} for a tolerance of {tolerance:.1e}"


def _usual_solver(problem: Problem) -> LinearSolver:
    energies = all(isinstance(law, Energy) for law in (problem.law, *(term.law for term in problem.terms)))
    return multigrid if energies else direct


def _kernel(problem: Problem) -> np.ndarray:
    kernel = problem.law.kernel if isinstance(problem.law, Energy) else constants
    return kernel(problem.points, problem.values.shape[1]).numpy()


def constrained(problem: Problem, matrix: sp.csr_array) -> sp.csr_array:
    """The matrix of the free unknowns in the numbering of all.

    What is given, repeats another, or belongs to a node without cells gets a row of its own.
    """
    n, c = problem.fixed.shape
    owner = problem.repeats.cpu().numpy()[:, None] * c + np.arange(c)
    owner = np.where(problem.fixed.cpu().numpy(), -1, owner).ravel()
    entries = matrix.tocoo()
    row, column = owner[entries.row], owner[entries.col]
    kept = (row >= 0) & (column >= 0)
    alone = np.flatnonzero(np.bincount(row[kept], minlength=n * c) == 0)
    size = np.abs(matrix.diagonal()).mean()
    index = (np.concatenate([row[kept], alone]), np.concatenate([column[kept], alone]))
    data = np.concatenate([entries.data[kept], np.full(len(alone), size)])
    return sp.coo_array((data, index), shape=matrix.shape).tocsr()


def multigrid(
    matrix: sp.csr_array, b: np.ndarray, kernel: np.ndarray, tolerance: float, *, full: bool = False
) -> tuple[np.ndarray, int]:
    """Conjugate gradients, preconditioned by smoothed aggregation; LU where the matrix turns out to be indefinite.

    With ``full`` they begin with the solution on coarse levels, carried up: one F-cycle, counted as one iteration.

    P. Vaněk, J. Mandel, M. Brezina, Algebraic multigrid by smoothed aggregation, Computing 56 (1996) 179–196.
    """
    import pyamg

    n_nodes, c, n_modes = kernel.shape
    blocks = sp.csr_matrix(matrix) if c == 1 else sp.bsr_matrix(matrix, blocksize=(c, c))
    hierarchy = pyamg.smoothed_aggregation_solver(blocks, B=kernel.reshape(n_nodes * c, n_modes), max_coarse=200)
    count = int(full)
    first = hierarchy.solve(b, maxiter=1, cycle="F", tol=1e-300) if full else None

    def note(_: np.ndarray) -> None:
        nonlocal count
        count += 1

    precondition = hierarchy.aspreconditioner()
    x, failed = sp.linalg.cg(blocks, b, x0=first, rtol=0, atol=tolerance, maxiter=500, M=precondition, callback=note)
    if failed or not np.isfinite(x).all():
        return direct(matrix, b, kernel, tolerance)[0], count
    return x, count


def direct(matrix: sp.csr_array, b: np.ndarray, kernel: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    """Sparse LU.

    Raises:
        ConvergenceError: a singular matrix.
    """
    try:
        return sp.linalg.splu(sp.csc_matrix(matrix)).solve(b), 0
    except RuntimeError as error:
        raise ConvergenceError(f"solve: expected conditions that make the solution unique, got {error}") from None
