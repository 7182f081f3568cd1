"""A law in time: one step between two states as a problem in the state in between.

    M (u_{n+1} − u_n)/Δt + A(u_{n+θ}) = f,     u_{n+θ} = u_n + θ (u_{n+1} − u_n)

Of w = u_{n+θ} this is a step of backward Euler over θ Δt, ``M (w − u_n)/(θ Δt) + A(w) = f``. So all that is known of a
law without time (residual, tangent, weights of the levels, balances) serves for a step. θ = ½ is the midpoint rule,
of second order; θ = 1 is backward Euler.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Data

from gno.graph import collate
from gno.mesh import Mesh
from gno.physics.equations import elasticity, implicit_step, neo_hookean, plane_stress
from gno.physics.forms import Law, Parameter, n_components
from gno.physics.multilevel import Prepared, diagonals_of, dual_norm, galerkin
from gno.physics.problem import Condition, Given, Problem, build_problem

# Laws that hold at every instant; in time they would need an inertia that they do not have.
BALANCES: tuple[Law, ...] = (elasticity, plane_stress, neo_hookean)
# Parameters of a law that has its own rate of change, as those of ``implicit_step``.
PREVIOUS, STEP = "previous", "step"


@functools.cache  # laws of one batch must be the same
def law_of_step(law: Law, dim: int) -> Law:
    """The law with its rate of change: ``implicit_step`` of it, or itself if it reads ``previous`` or ``step``.

    Raises:
        ValueError: a law without a rate of change.

    >>> from gno.physics import diffusion, navier_stokes
    >>> law_of_step(navier_stokes, 2) is navier_stokes, law_of_step(diffusion, 2) is diffusion
    (True, False)
    """
    if law in BALANCES:
        raise ValueError("expected an equation with a rate of change, ∂u/∂t, got one that holds at every instant")
    return law if {PREVIOUS, STEP} & names_read(law, dim) else implicit_step(law)


class _Unity:
    """Parameters that are all one, and remember which were asked for."""

    def __init__(self) -> None:
        self.names_read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self.names_read.add(name)
        return False

    def __getitem__(self, name: str) -> Tensor:
        self.names_read.add(name)
        return torch.ones(())

    def get(self, name: str, default: float) -> float:
        self.names_read.add(name)
        return default

    def vector(self, name: str, like: Tensor) -> Tensor:
        self.names_read.add(name)
        return torch.ones_like(like)


def names_read(law: Law, dim: int) -> set[str]:
    """Names of the parameters that a law may read, found by asking it at one point."""
    known, u = _Unity(), torch.zeros(1, 1, n_components(law, dim) or 1)
    # parameters may be of other shapes: what was read until that was noticed counts
    with contextlib.suppress(RuntimeError, IndexError, TypeError, ValueError, AttributeError):
        law.flux(u, torch.zeros(1, 1, u.shape[-1], dim), torch.zeros(1, 1, dim), known)  # type: ignore[arg-type]
    return known.names_read


def build_step(
    mesh: Mesh, law: Law, parameters: Mapping[str, Given], conditions: Sequence[Condition], dim: int
) -> Problem:
    """A step of a law on a mesh; :func:`at_step` says from which state, and how long.

    Args:
        mesh, law, parameters, conditions: as of :func:`gno.physics.build_problem`; further, [capacity c] in
            ``c ∂u/∂t``.

    Raises:
        ValueError: a law without a rate of change, or what ``build_problem`` refuses.
    """
    stepped = law_of_step(law, dim)
    previous = torch.zeros(mesh.n_nodes, n_components(stepped, dim) or 1, dtype=torch.float64)
    given: dict[str, Any] = {**parameters, PREVIOUS: previous, STEP: torch.ones(1, dtype=torch.float64)}
    return build_problem(mesh, stepped, given, conditions)


def at_step(
    problem: Problem, before: Float[Tensor, "n_nodes c"], step: Float[Tensor, " n_graphs"], **others: Parameter
) -> Problem:
    """The step from a state, of a length for each mesh; ``others`` are parameters that change with time."""
    return problem.given(**{PREVIOUS: before, STEP: step, **others})


def prepare_step(
    problem: Problem, sample: Data, states: Sequence[Float[Tensor, "n_nodes c"]], steps: Float[Tensor, " n_steps"]
) -> Prepared:
    """What the losses need of a step: weights of the levels by ``M/(θ Δt) + A′`` at the usual step, and the size
    ``½ rᵀB⁻¹r`` of steps in which nothing happens, a mean over the states.

    Args:
        problem: of :func:`build_step`. sample: the hierarchy of its mesh.
        states: from which the steps start. steps: θ Δt of each.

    Raises:
        ValueError: a matrix that is not finite.
    """
    first, usual = problem.lift(states[0]), steps.log().mean().exp()[None]
    matrices = galerkin(at_step(problem, first, usual), sample, first)[1]
    one, batch = torch.ones(1, dtype=torch.float64), collate([sample])  # type: ignore[list-item]
    physics = Prepared(problem, first, one, 0 * one, diagonals_of(matrices, first.shape[1]))
    rest = []
    for u, step in zip(states, steps, strict=True):
        still = at_step(problem, problem.lift(u), step[None])
        rest.append(dual_norm(physics, still.reduce(still.residual(still.lift(u))), batch) / 2)
    size = torch.stack(rest).mean(0)
    return dataclasses.replace(physics, size=torch.where(size > 0, size, one))
