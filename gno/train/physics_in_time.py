"""[physics] in a case with [time]: every step of a rollout is asked whether it is one of the equation.

Of what the operator gives, rates of change at every scale, ``OnStep`` makes the state in between two frames and the
problem of that step (:mod:`gno.physics.stepping`); then the losses of a law without time serve as they are.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph import MeshData, SampleSpec
from gno.mesh import Mesh
from gno.nn import Output
from gno.physics import losses
from gno.physics.problem import Problem
from gno.physics.stepping import at_step, build_step, prepare_step
from gno.train.case import Case
from gno.train.losses import Loss, Term
from gno.train.normalise import Normalisation, Scale, columns_of
from gno.train.physics import (
    CONSERVED,
    as_given,
    collate,
    conditions,
    law_of,
    physics_terms,
    units_of,
    unknown_columns,
    with_floor,
    with_given,
)
from gno.train.trajectory import Trajectory, state_columns

# A given value may be so far from the reference's, in spreads of the field, before it is said to be another one.
TOLERANCE = 1e-3
# Sizes are means over at most so many states of a trajectory.
SIZES = 8


@dataclasses.dataclass(frozen=True)
class Forced:
    """A parameter of the equation that changes with time: columns of the forcing, and how they were normalised."""

    columns: Sequence[int]
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    log: bool

    def __call__(self, forcing: Float[Tensor, "n f"]) -> Float[Tensor, "n ..."]:
        """In physical units, float64; without a last axis where there is one component."""
        values = forcing[:, self.columns].double() * self.std.to(forcing.device) + self.mean.to(forcing.device)
        values = values.exp() if self.log else values
        return values[:, 0] if len(self.columns) == 1 else values


@dataclasses.dataclass(frozen=True)
class OnStep:
    """A loss of a law without time, for one step in time.

        w_s = R_s u_n + θ Δt r û_s,     M (w_0 − u_n)/(θ Δt) + A(w_0) = f

    Args:
        loss: of (batch, output), whose fields are the w_s of all scales.
        units: of the unknowns: states, normalised.
        theta: θ.
        forced: parameters that change with time, by name.
    """

    loss: Loss
    units: losses.Units
    theta: float
    forced: Mapping[str, Forced]

    def __call__(self, batch: Batch, output: Output) -> Float[Tensor, ""]:
        """Of a batch that has the state at the beginning, ``state`` (n, c), what û is multiplied by, ``change``
        (n_graphs, c), the step in the user's unit ``step`` (n_graphs,), and the forcing at both ends."""
        change = self.theta * batch.change.double()
        before = [batch.state.double(), *output.restrict(batch.state.double())[1:]]
        fields = (
            z + change.index_select(0, graph) * rate.double()
            for z, rate, graph in zip(before, output.fields, output.batch, strict=True)
        )
        ready, forcing = copy.copy(batch), torch.lerp(batch.forcing[:, 0], batch.forcing[:, 1], self.theta)
        others = {name: forced(forcing) for name, forced in self.forced.items()}
        problem = at_step(
            batch.physics.problem, self.units.physical(batch.state), self.theta * batch.step.double(), **others
        )
        ready.physics = dataclasses.replace(batch.physics, problem=problem)
        return self.loss(ready, dataclasses.replace(output, fields=tuple(fields)))


def step_terms(case: Case, spec: SampleSpec, normalisation: Normalisation) -> list[Term]:
    """The losses that [physics] asks for, of each step of a rollout."""
    physics, states = case.physics, normalisation.states
    assert physics is not None and states is not None
    units, forced = units_of(case, spec, states), forced_of(case, spec, normalisation.inputs)
    return [
        Term(term.name, OnStep(term.loss, units, physics.theta, forced), term.weight)
        for term in physics_terms(case, spec, states)
    ]


def forced_of(case: Case, spec: SampleSpec, inputs: Scale) -> dict[str, Forced]:
    """The parameters of the equation that are forcing, by name; ``inputs`` is how inputs are normalised."""
    assert case.physics is not None and case.time is not None
    fields = {field.name: (columns, field) for columns, field in columns_of(spec.inputs)}
    names = [field.name for _, field in columns_of(spec.inputs) if field.name in case.time.forcing]
    starts = dict(zip(names, np.cumsum([0, *(fields[name][1].n_components for name in names)]), strict=False))
    found = {}
    for parameter, name in case.physics.parameters.items():
        if isinstance(name, str) and name in starts:
            columns, field = fields[name]
            place = list(range(starts[name], starts[name] + field.n_components))
            found[parameter] = Forced(place, inputs.mean[columns], inputs.std[columns], field.log)
    return found


def with_step_physics(trajectory: Trajectory, frames: Sequence[Mesh], case: Case, spec: SampleSpec) -> Trajectory:
    """The trajectory with all that training needs: problems, sizes, and the floors that its own frames leave.

    Raises:
        ValueError: an equation without a rate of change, or whatever does not fit the mesh.
    """
    physics = case.physics
    assert physics is not None
    steps, states = trajectory.times.diff(), _states(trajectory, case, spec)
    samples = []
    for k, sample in enumerate(trajectory.samples):
        first, last = (k - 1, k) if trajectory.changes else (0, len(trajectory) - 1)
        if last > max(first, 0):  # the first of many meshes has no step that leads to it
            starts = [before for before, _ in states[first:last]]
            sample = _with_problem(sample, frames[k], starts, physics.theta * steps[first:last], case, spec)
        samples.append(sample)
    trajectory = dataclasses.replace(trajectory, samples=tuple(samples))
    return dataclasses.replace(trajectory, floors=_floors(trajectory, states, case, spec))


def _states(trajectory: Trajectory, case: Case, spec: SampleSpec) -> list[tuple[Tensor, Tensor]]:
    """Unknowns at the beginning and at the end of every step, on the mesh of its end."""
    columns = unknown_columns(case, spec)
    return [
        (trajectory.past(k - 1, k)[:, 0, columns].double(), trajectory.states[k][:, columns].double())
        for k in range(1, len(trajectory))
    ]


def _with_problem(
    sample: MeshData, mesh: Mesh, starts: Sequence[Tensor], steps: Tensor, case: Case, spec: SampleSpec
) -> MeshData:
    assert case.physics is not None
    problem, sample = step_problem(mesh, case), copy.copy(sample)
    chosen = torch.linspace(0, len(starts) - 1, min(len(starts), SIZES)).round().long().tolist()
    sample.physics = prepare_step(problem, sample, [starts[k] for k in chosen], steps[chosen])
    graph = torch.zeros(mesh.n_nodes, dtype=torch.long)
    for name in case.physics.conserve:
        still = [(at_step(problem, starts[k], steps[k, None]), starts[k]) for k in chosen]
        size, parts = (
            torch.stack([_functional(name, at, u, graph, **of).abs() for at, u in still]).mean(0)
            for of in ({}, {"of": torch.abs})
        )
        sample[f"size_{name}"] = losses.not_nothing(size, parts)
    if case.data.mirror:
        sample.turn = torch.ones(1, spec.n_targets)
        sample.turn_forcing = torch.ones(1, len(state_columns(spec, case.time.forcing if case.time else ())))
    return sample


def step_problem(mesh: Mesh, case: Case) -> Problem:
    """The problem of a step that a case states on a mesh; see :func:`gno.physics.stepping.at_step`.

    Raises:
        ValueError: an equation without a rate of change, or one that does not fit the mesh.
    """
    physics = case.physics
    assert physics is not None
    parameters = {name: as_given(value) for name, value in physics.parameters.items()}
    try:
        return build_step(mesh, law_of(physics, case.data.folder), parameters, conditions(physics), mesh.dim)
    except ValueError as error:
        raise ValueError(f"physics.equation '{physics.equation}' in a case with [time]: {error}") from None


def _functional(name: str, problem: Problem, u: Tensor, graph: Tensor, **of: Callable[[Tensor], Tensor]) -> Tensor:
    return CONSERVED[name][0](problem, problem.lift(u), graph, **of)


def _floors(
    trajectory: Trajectory, states: Sequence[tuple[Tensor, Tensor]], case: Case, spec: SampleSpec
) -> dict[str, Float[Tensor, " n_steps"]]:
    """What the frames themselves leave of each loss, step by step: the error of the rule in time, and of the mesh."""
    physics, columns = case.physics, unknown_columns(case, spec)
    assert physics is not None
    units = losses.Units(torch.zeros(len(columns)), torch.ones(len(columns)), columns)
    measured = with_floor(case, units)
    batches = [collate([sample]) for sample in trajectory.samples]
    zero, one = torch.zeros(spec.n_inputs), torch.ones(spec.n_inputs)
    physical = forced_of(case, spec, Scale(zero, one, one))
    floors: dict[str, list[Tensor]] = {loss.name: [] for loss in measured}
    with torch.no_grad():
        for k, (before, after) in enumerate(states):
            batch = copy.copy(batches[k + 1 if trajectory.changes else 0])
            step = physics.theta * trajectory.times.diff()[k, None]
            forcing = trajectory.past(k, k + 1, trajectory.forcing)[:, 0], trajectory.forcing[k + 1]
            others = {name: forced(torch.lerp(*forcing, physics.theta)) for name, forced in physical.items()}
            problem = at_step(batch.physics.problem, before, step, **others)
            batch.physics = dataclasses.replace(batch.physics, problem=problem)
            for loss in measured:
                value = loss.of_field(batch, torch.lerp(before, after, physics.theta))
                floors[loss.name].append(value.clamp(min=0))
    return {name: torch.cat(values) for name, values in floors.items()}


def with_given_in_time(trajectory: Trajectory, frames: Sequence[Mesh], case: Case, spec: SampleSpec) -> Trajectory:
    """The trajectory with its given values on every mesh: ``fixed`` and ``given``, physical units.

    Raises:
        ValueError: given values that the frames do not have, for example since they change with time.
    """
    if case.physics is None or not case.physics.dirichlet:
        return trajectory
    samples = tuple(with_given(copy.copy(sample), frames[k], case, spec) for k, sample in enumerate(trajectory.samples))
    for k in range(len(trajectory)):
        sample, state = samples[k if trajectory.changes else 0], trajectory.states[k]
        for columns, field in columns_of(spec.targets):
            fixed, given, u = sample.fixed[:, columns], sample.given[:, columns], state[:, columns].double()
            gap = torch.where(fixed, (given - u).abs(), 0.0).max() if fixed.any() else torch.zeros(())
            if gap > TOLERANCE * max(float(u.abs().max()), float(given.abs().max())):
                raise ValueError(
                    f"physics.dirichlet: expected the values of '{field.name}' that the frames have, got values up to "
                    f"{float(gap):.3g} away at time {float(trajectory.times[k]):g} ({trajectory.source}); given values "
                    "must not change with time"
                )
    return dataclasses.replace(trajectory, samples=samples)
