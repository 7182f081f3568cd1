"""Losses that need no labels: within each scale, between scales, and of whatever must be conserved.

Each is a callable of a batch and an operator's output. The batch carries the physics of its meshes (``batch.physics``)
and its hierarchy; of the output only ``fields``, ``mass``, ``batch`` and ``transfers`` are used, so any model that has
scales will do. Everything is computed in float64, per mesh and relative to a size that is known beforehand, and never
pushes below the floor that a reference solution leaves (``batch.floor_<name>``, where there is one).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.physics.multilevel import Prepared, dual_norm, per_graph
from gno.physics.problem import Problem

Batch = Any
Output = Any

# The root of a relative square has no derivative at zero: where it stops to matter.
SMALL = 1e-8
# A sum that is a smaller share of its parts than this is their round-off.
CANCELLED = 1e-9


@dataclasses.dataclass(frozen=True)
class Units:
    """From an operator's columns to the unknowns of a law, in physical units.

    Args:
        mean, std: of the unknowns; physical = mean + std · normalised.
        columns: those of the output that are the unknowns, in their order.
    """

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    columns: Int[Tensor, " c"]
    _elsewhere: dict[torch.device, Units] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def on(self, device: torch.device) -> Units:
        """The same in float64 on a device, copied there once: a copy at every step would make the host wait."""
        if device not in self._elsewhere:
            moved = (self.mean.double().to(device), self.std.double().to(device), self.columns.to(device))
            self._elsewhere[device] = Units(*moved)
        return self._elsewhere[device]

    def physical(self, fields: Float[Tensor, "n n_targets"]) -> Float[Tensor, "n c"]:
        """In float64."""
        here = self.on(fields.device)
        return fields.index_select(1, here.columns).double() * here.std + here.mean

    def normalised(self, fields: Float[Tensor, "n n_targets"], u: Float[Tensor, "n c"]) -> Float[Tensor, "n n_targets"]:
        """The columns of an output, in float64, with the unknowns replaced by u; the inverse of :meth:`physical`."""
        here = self.on(fields.device)
        return fields.double().index_copy(1, here.columns, (u.double() - here.mean) / here.std)

    def on_mesh(self, output: Output, s: int) -> Float[Tensor, "n_nodes c"]:
        """The unknowns of scale s, prolonged to the mesh; the transfers carry no gradient."""
        u = self.physical(output.fields[s])
        for transfer in output.transfers[:s][::-1]:
            u = transfer.detach().prolong(u)
        return u


Measure = Callable[[Prepared, Tensor, Batch, int], Tensor]
"""Square of a field's relative error, (n_graphs,); of the physics, the field on the mesh, the batch, the scale."""


def excess_energy(physics: Prepared, u: Tensor, batch: Batch, s: int) -> Float[Tensor, " n_graphs"]:
    """``(E(u) − E*) / size``: of a linear law ``‖u − u*‖²_K / ‖u*‖²_K``, for u with its given values.

    E* is estimated beforehand, and a constant: the gradient is that of the energy. Of a coarse scale, ``u = P u_s``,
    its gradient is the Galerkin residual ``Pᵀ r(P u_s)``.
    """
    return (physics.problem.energy(physics.problem.lift(u)) - physics.lowest) / physics.size


def residual_norm(physics: Prepared, u: Tensor, batch: Batch, s: int) -> Float[Tensor, " n_graphs"]:
    """``½ rᵀ B⁻¹ r / size``, r the weak residual, of coarse scales ``Pᵀ r(P u_s)``; see :func:`dual_norm`."""
    problem = physics.problem
    r = problem.reduce(problem.residual(problem.lift(u)))
    return dual_norm(physics, r, batch, first=s) / (2 * physics.size)


@dataclasses.dataclass(frozen=True)
class Intra:
    """Within each scale: how far its field is from what the law wants, relative and in the norm of the energy.

        L = Σ_s w_s ⟨ √(max(measure(u_s), floor)) ⟩

    Args:
        units: of the unknowns.
        measure: :func:`excess_energy`, :func:`residual_norm`, or your own.
        coarse_weight: of the coarse scales together, against 1 for the mesh.
        name: of its floor in the batch.
    """

    units: Units
    measure: Measure
    coarse_weight: float = 0.0
    name: str = "intra"

    def __call__(self, batch: Batch, output: Output) -> Float[Tensor, ""]:
        total = _root(_above(self.of_field(batch, self.units.on_mesh(output, 0)), batch, self.name)).mean()
        n_coarse = len(output.fields) - 1
        for s in range(1, n_coarse + 1 if self.coarse_weight else 0):
            error2 = self.measure(batch.physics, self.units.on_mesh(output, s), batch, s)
            total = total + self.coarse_weight / n_coarse * _root(error2.clamp(min=0)).mean()
        return total

    def of_field(self, batch: Batch, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, " n_graphs"]:
        """The measure of a field on the mesh."""
        return self.measure(batch.physics, u, batch, 0)


@dataclasses.dataclass(frozen=True)
class Inter:
    """Between scales: what a scale says, against the restriction of the next finer one.

        L = ⟨ ‖R u_s − u_{s+1}‖ ⟩,     ‖v‖² = Σ_i m_i |v_i|² / Σ_i m_i

    in normalised units, averaged over s. An output ``u_s = P u_{s+1} + (1 − PR) w_s`` keeps the integral, but
    ``R u_s = u_{s+1} + (RP − 1)(u_{s+1} − R w_s)``: anchors that share nodes may disagree, and so may given boundary
    values. The transfers carry no gradient.
    """

    def __call__(self, batch: Batch, output: Output) -> Float[Tensor, ""]:
        n_levels = len(output.transfers)
        parts = [_root(self.per_graph(batch, output, s)).mean() for s in range(n_levels)]
        return torch.stack(parts).mean() if parts else output.fields[0].sum() * 0

    def per_graph(self, batch: Batch, output: Output, s: int) -> Float[Tensor, " n_graphs"]:
        """``‖R u_s − u_{s+1}‖²`` of each mesh."""
        transfer = output.transfers[s].detach()
        gap = transfer.restrict(output.fields[s].to(transfer.weights.dtype)) - output.fields[s + 1]
        mass, graph, n = output.mass[s + 1].detach().double(), output.batch[s + 1], batch.num_graphs
        return per_graph(mass[:, None] * gap.double().square(), graph, n) / per_graph(mass[:, None], graph, n)


def _itself(parts: Tensor) -> Tensor:
    return parts


class Functional(Protocol):
    """Q, (n_graphs, k): of the problem, a field on the mesh (n_nodes, c), and the mesh number of each node. It is a
    sum of parts that ``of`` may change: with their absolute values it says how much there is to cancel."""

    def __call__(
        self, problem: Problem, u: Tensor, graph: Tensor, of: Callable[[Tensor], Tensor] = _itself
    ) -> Tensor: ...


def integral(
    problem: Problem, u: Tensor, graph: Tensor, of: Callable[[Tensor], Tensor] = _itself
) -> Float[Tensor, "n_graphs c"]:
    """``∫ u``: the mass, or the heat."""
    total = u.new_zeros(problem.domain.n_graphs, u.shape[1])
    for part in problem.domain.cells:
        total = total.index_add(0, part.graph, torch.einsum("eqc,eq->ec", of(part.values(u)), part.weight))
    return total


def balance(
    problem: Problem, u: Tensor, graph: Tensor, of: Callable[[Tensor], Tensor] = _itself
) -> Float[Tensor, "n_graphs c"]:
    """Sum of the residual over the free nodes: flux, force or mass that appears from nowhere."""
    r = problem.reduce(problem.residual(u))
    return r.new_zeros(problem.domain.n_graphs, r.shape[1]).index_add(0, graph, of(r))


def work(
    problem: Problem, u: Tensor, graph: Tensor, of: Callable[[Tensor], Tensor] = _itself
) -> Float[Tensor, "n_graphs 1"]:
    """``r(u) · u`` over the free nodes: work of the loads that is not stored (of a diffusion ``∫ k|∇u|² − ∫ f u``)."""
    r = problem.reduce(problem.residual(u))
    return per_graph(of(r * u), graph, problem.domain.n_graphs)[:, None]


@dataclasses.dataclass(frozen=True)
class Conserved:
    """What must be conserved: a functional of the fields, equal on all scales, and equal to what is known of it.

        L = ⟨ max(|Q(u_0) − Q*|, floor) / size ⟩ + mean_s ⟨ |Q(P u_s) − Q(u_0)| / size ⟩

    Args:
        name: of ``batch.size_<name>`` (n_graphs, k), see :func:`size_of`, and of its floor in the batch.
        functional: Q. units: of the unknowns.
        goal: Q*, if it is known: zero for a balance.
        scales: whether it must be the same on all scales.
    """

    name: str
    functional: Functional
    units: Units
    goal: float | None = None
    scales: bool = False

    def __call__(self, batch: Batch, output: Output) -> Float[Tensor, ""]:
        u = self.units.on_mesh(output, 0)
        here = self._value(batch, u)
        total = here.sum() * 0
        if self.goal is not None:
            total = total + _above(((here - self.goal) / self._size(batch)).abs().mean(1), batch, self.name).mean()
        n_coarse = len(output.transfers) if self.scales else 0
        for s in range(1, n_coarse + 1):
            gap = (self._value(batch, self.units.on_mesh(output, s)) - here) / self._size(batch)
            total = total + gap.abs().mean() / n_coarse
        return total

    def of_field(self, batch: Batch, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, " n_graphs"]:
        """Violation of a field on the mesh; zero where nothing is known."""
        goal = 0.0 if self.goal is None else self.goal
        return ((self._value(batch, u) - goal) / self._size(batch)).abs().mean(1) * (self.goal is not None)

    def _value(self, batch: Batch, u: Tensor) -> Tensor:
        return self.functional(batch.physics.problem, u, batch.pos_0_batch)

    def _size(self, batch: Batch) -> Tensor:
        return batch[f"size_{self.name}"]


def size_of(functional: Functional, physics: Prepared) -> Float[Tensor, "1 k"]:
    """How large a functional of one mesh is: the most of what it is without, with half, and with all of the guess."""
    problem = physics.problem
    one = torch.zeros(len(physics.guess), dtype=torch.long)
    fields = [problem.lift(share * physics.guess) for share in (0.0, 0.5, 1.0)]
    size, parts = (torch.stack([functional(problem, u, one, of).abs() for u in fields]) for of in (_itself, torch.abs))
    return not_nothing(size.amax(0), parts.amax(0))


def not_nothing(size: Float[Tensor, "1 k"], parts: Float[Tensor, "1 k"]) -> Float[Tensor, "1 k"]:
    """The size of a sum, or where its parts cancel, as in a closed system without a source, theirs; one without any.

    >>> not_nothing(torch.tensor([[2.0, 1e-16, 0.0]]), torch.tensor([[5.0, 5.0, 0.0]]))
    tensor([[2., 5., 1.]])
    """
    parts = torch.where(parts > 0, parts, torch.ones_like(parts))
    return torch.where(size > CANCELLED * parts, size, parts)


def _above(values: Tensor, batch: Batch, name: str) -> Tensor:
    """Values, but not below the floor, where the gradient is zero."""
    floor = batch[f"floor_{name}"] if f"floor_{name}" in batch else torch.zeros_like(values)
    return torch.maximum(values, floor.to(values))


def _root(square: Tensor) -> Tensor:
    return (square + SMALL).sqrt()
