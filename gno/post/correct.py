"""From a prediction to the solver's answer: the prediction as the first guess of a real solve, and what it saved."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh, node_mass
from gno.post.fields import PREFIX
from gno.post.gauss import point_values

if TYPE_CHECKING:
    from gno.physics import Problem, Solution
    from gno.physics.solve import LinearSolver

CORRECTED = "corrected_"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """A solve from one first guess.

    Args:
        guess: what the guess is.
        steps: of Newton's method; None if the solve did not reach the tolerance.
        iterations: of conjugate gradients in all steps, 0 for sparse LU.
        seconds: wall time from the guess to the answer: assembly, multigrid, iterations; the prediction's own too.
        residual: relative residual of the guess.
    """

    guess: str
    steps: int | None
    iterations: int
    seconds: float
    residual: float | None


@dataclasses.dataclass(frozen=True)
class Correction:
    """The solver's answer beside the prediction; printing it shows the table of what the guess saved.

    Args:
        mesh: the mesh with ``corrected_<field>`` beside the prediction.
        attempts: the prediction first, then zero and the cheap guesses; same problem, same stopping criterion.
        tolerance: ‖r‖ ≤ tolerance ‖load‖, met by all that converged.
        residual: relative residual of the answer.
        change: ‖corrected − predicted‖ / ‖corrected‖, L2 by node masses, per field.
    """

    mesh: Mesh
    attempts: tuple[Attempt, ...]
    tolerance: float
    residual: float
    change: Mapping[str, float]

    @property
    def facts(self) -> dict[str, Any]:
        """All numbers, JSON-able."""
        return {
            "tolerance": self.tolerance,
            "residual": self.residual,
            "change": dict(self.change),
            "attempts": [dataclasses.asdict(attempt) for attempt in self.attempts],
        }

    def __str__(self) -> str:
        rows = [("first guess", "its residual", "Newton", "CG", "seconds"), *map(_row, self.attempts)]
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        moved = ", ".join(f"{name} by {100 * share:.3g} %" for name, share in self.change.items())
        said = [
            f"relative residual {self.residual:.2g}, at most {self.tolerance:.2g} as asked; changed {moved}",
            *table,
        ]
        return "\n".join([*said, *self._saved()])

    def _saved(self) -> list[str]:
        """What the prediction saved against zero and against the best other guess."""
        ours, others = self.attempts[0], [other for other in self.attempts[1:] if other.steps is not None]
        if ours.steps is None or not others:
            return []
        best = min(others, key=lambda other: (other.iterations, other.steps))
        zero = [other for other in others if other.guess == "zero" and other is not best]
        return [_against(ours, other, what) for other, what in ((*((z, "") for z in zero), (best, ", the best other")))]


def correct(
    mesh: Mesh,
    field: str | Sequence[str],
    problem: Problem,
    *,
    tolerance: float = 1e-8,
    guesses: Mapping[str, str | Sequence[str]] | None = None,
    seconds: float = 0.0,
) -> Correction:
    """Solve the problem from the prediction, and again from zero and from cheap guesses, to say what it saved.

    ‖r(u)‖ ≤ tolerance ‖load‖, the same for all guesses: conjugate gradients with algebraic multigrid inside Newton's
    method for energies, sparse LU inside it for weak forms. From zero, Newton's first step is the problem linearised
    there. For linear problems the cheap guess to beat is full multigrid: the solution on
    coarse levels, carried up.

    Args:
        mesh: a prediction's mesh, or any mesh with a guess on its nodes.
        field: the guess; for several unknowns, as velocity and pressure, their fields in the order of the problem.
        problem: law, parameters and conditions on the same mesh, from `gno.physics.build_problem`.
        tolerance: on the residual, relative to the load.
        guesses: other guesses to compare with, such as the previous time step or the nearest known sample: fields by
            what they are called.
        seconds: what the prediction itself took; added to its time.

    Raises:
        ConvergenceError: neither the prediction nor any other guess leads to a solution.
        ValueError: a field that does not fit the problem.
    """
    from gno.physics import multigrid  # torch takes a while to load

    names = [field] if isinstance(field, str) else list(field)
    trials = _Trials(problem, tolerance)
    trials.run(" ".join(names), guess=_unknowns(mesh, names, problem), seconds=seconds)
    if trials.run("zero", guess=None).steps == 1:  # a linear problem
        trials.run("full multigrid", guess=None, linear=partial(multigrid, full=True))
    for what, other in (guesses or {}).items():
        trials.run(what, guess=_unknowns(mesh, [other] if isinstance(other, str) else list(other), problem))
    return _correction(mesh, names, trials.solution(mesh), trials)


class _Trials:
    """Solves of one problem from several guesses, by the same criterion."""

    def __init__(self, problem: Problem, tolerance: float) -> None:
        self.problem, self.tolerance = problem, tolerance
        self.attempts: list[Attempt] = []
        self.solutions: list[Solution] = []

    def run(
        self, name: str, *, guess: np.ndarray | None, seconds: float = 0.0, linear: LinearSolver | None = None
    ) -> Attempt:
        """One solve; its attempt joins the list."""
        import torch

        from gno.physics import ConvergenceError, solve

        start = time.perf_counter()
        try:
            found = solve(
                self.problem,
                None if guess is None else torch.from_numpy(guess),
                tolerance=self.tolerance,
                linear=linear,
            )
        except ConvergenceError as error:
            took = seconds + time.perf_counter() - start
            attempt = Attempt(name, None, 0, took, next(iter(error.residual_norms), None))
        else:
            self.solutions.append(found)
            took = seconds + found.seconds
            attempt = Attempt(name, found.iterations, found.linear_iterations, took, found.residual_norms[0])
        self.attempts.append(attempt)
        return attempt

    def solution(self, mesh: Mesh) -> Solution:
        """The first that converged."""
        from gno.physics import ConvergenceError

        if not self.solutions:
            raise ConvergenceError(
                f"correct: expected a solution to {self.tolerance:g}, got none from any guess ({mesh.source})"
            )
        return self.solutions[0]


def _unknowns(mesh: Mesh, names: Sequence[str], problem: Problem) -> Float[np.ndarray, "n_nodes c"]:
    """The fields side by side, without components that leave the plane of a planar mesh."""
    c = problem.values.shape[1]
    values = np.concatenate([_in_plane(mesh, name) for name in names], axis=1)
    if values.shape != tuple(problem.values.shape):
        expected = f"{c} components on {len(problem.values)} nodes"
        got = f"{values.shape[1]} on {values.shape[0]}"
        raise ValueError(f"guess '{' '.join(names)}': expected {expected}, got {got} ({mesh.source})")
    return values


def _in_plane(mesh: Mesh, name: str) -> np.ndarray:
    values = point_values(mesh, name)
    return values[:, : mesh.dim] if values.shape[1] == 3 else values


def _correction(mesh: Mesh, names: Sequence[str], solution: Solution, trials: _Trials) -> Correction:
    values, mass = solution.values.numpy(), node_mass(mesh)
    fields, change, first = {}, {}, 0
    for name in names:
        guess = _in_plane(mesh, name)
        found = values[:, first : first + guess.shape[1]]
        first += guess.shape[1]
        change[name] = float(np.sqrt((mass @ (found - guess) ** 2).sum() / (mass @ found**2).sum()))
        fields[CORRECTED + name.removeprefix(PREFIX)] = _shaped_as(mesh.point_fields[name], found)
    corrected = mesh.with_point_fields(**fields)
    return Correction(corrected, tuple(trials.attempts), trials.tolerance, solution.residual_norms[-1], change)


def _shaped_as(field: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values in the shape of the given field; the third component of a planar vector is zero."""
    if field.ndim == 1:
        return values[:, 0]
    return np.pad(values, ((0, 0), (0, int(np.prod(field.shape[1:])) - values.shape[1]))).reshape(field.shape)


def _against(ours: Attempt, other: Attempt, what: str) -> str:
    saved = [
        f"{before - now} of {before} {unit}"
        for before, now, unit in (
            (other.steps or 0, ours.steps or 0, "Newton steps"),
            (other.iterations, ours.iterations, "CG iterations"),
        )
        if before > 1
    ]
    time_saved = f"{other.seconds - ours.seconds:.3f} of {other.seconds:.3f} s"
    return f"saved against {other.guess}{what}: {', '.join([*saved, time_saved])}"


def _row(attempt: Attempt) -> tuple[str, ...]:
    residual = "–" if attempt.residual is None else f"{attempt.residual:.2g}"
    if attempt.steps is None:
        return (attempt.guess, residual, "fails", "–", f"{attempt.seconds:.3f}")
    iterations = str(attempt.iterations) if attempt.iterations or not attempt.steps else "LU"
    return (attempt.guess, residual, str(attempt.steps), iterations, f"{attempt.seconds:.3f}")
