"""Dynamics: an operator that predicts rates of change, stepped through time; how it is trained.

    u_{n+1} = u_n + Δt r û(u_n, …, u_{n−h+1}; inputs; forcing at both ends of the step; Δt, parameters)

r is the usual rate of each field, fitted on the training trajectories. The operator that returns zero leaves the state
as it is, to the bit, and the smaller the step the smaller the change. Δt and the parameters of a whole mesh reach every
scale through FiLM.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from gno.graph import SampleSpec, collate
from gno.graph.batch import measure
from gno.graph.mirror import turned
from gno.graph.segment import segment_sum
from gno.nn import Output
from gno.nn.output import restricted
from gno.train.evaluate import ROUND_OFF, with_mean
from gno.train.losses import Term
from gno.train.normalise import Normalisation, Scale, columns_of, fit_scale
from gno.train.sections import Time
from gno.train.trajectory import Trajectory, state_columns

# Validation rolls out at most so many steps.
VALIDATION_STEPS = 30


class Evolution(nn.Module):
    """The operator as a step in time, on normalised states z = (u − mean) / spread.

    Args:
        operator: maps a batch to rates, û.
        normalisation: of inputs, rates (``targets``), states and log Δt.
        spec: its targets are the states.
        forcing: names of the inputs that change with time.
        conserve: names of the states whose integrals stay as they are: their rates have no mean, ``û − ⟨û⟩``, on any
            scale.
    """

    forced: Tensor
    whole: Tensor
    kept: Tensor
    gain: Tensor
    log_step: Tensor

    def __init__(
        self,
        operator: nn.Module,
        normalisation: Normalisation,
        spec: SampleSpec,
        forcing: Sequence[str] = (),
        conserve: Sequence[str] = (),
    ) -> None:
        super().__init__()
        assert normalisation.states is not None and normalisation.step is not None
        self.operator = operator
        # columns as tensors that live on the device: a list would be copied there at every step
        self.register_buffer("forced", torch.tensor(state_columns(spec, forcing), dtype=torch.long), persistent=False)
        self.register_buffer("whole", torch.tensor(global_columns(spec, forcing), dtype=torch.long), persistent=False)
        kept = torch.cat([torch.full((field.n_components,), field.name in conserve) for field in spec.targets])
        self.register_buffer("kept", kept, persistent=False)
        self.conserves = bool(conserve)
        # in the precision of the operator: there are devices without float64
        dtype = next((weight.dtype for weight in operator.parameters()), torch.float64)
        gain = normalisation.targets.std / normalisation.states.std
        self.register_buffer("gain", gain.to(dtype), persistent=False)
        step = torch.cat([normalisation.step.mean, normalisation.step.std])
        self.register_buffer("log_step", step.to(dtype), persistent=False)

    def batch(
        self,
        mesh: Batch,
        past: Float[Tensor, "n history c"],
        forcing: Float[Tensor, "n 2 f"],
        steps: Float[Tensor, "n_graphs history"],
    ) -> Batch:
        """What the operator reads for one step.

        Args:
            mesh: batch of meshes with normalised inputs x.
            past: the latest states, oldest first.
            forcing: at the beginning and at the end of the step.
            steps: Δt between the states of the past, and the one to take last, in the user's unit.
        """
        ready, x = copy.copy(mesh), mesh.x.index_copy(1, self.forced, forcing[:, 0])
        x = torch.cat([x, forcing[:, 1], past.flatten(1)], dim=1)
        mean, std = self.log_step.to(x.dtype)
        parameters = x.index_select(0, mesh.ptr[:-1]).index_select(1, self.whole)
        ready.x, ready.parameters = x, torch.cat([parameters, (steps.log().to(x.dtype) - mean) / std], dim=1)
        ready.state, ready.change = past[:, -1], self.changes(steps[:, -1], past.dtype)
        if "given" in mesh:  # the rate that leads to the given values
            ready.given = (mesh.given - past[:, -1]) / ready.change.index_select(0, mesh.batch)
        return ready

    def forward(self, ready: Batch) -> Output:
        """Rates at every scale, of what :meth:`batch` made ready."""
        output = self.operator(ready)
        if not self.conserves:
            return output
        levels = zip(output.fields, output.mass, output.batch, strict=True)
        means = (self.kept * graph_means(u, mass, graph, ready.num_graphs) for u, mass, graph in levels)
        fields = (u - mean for u, mean in zip(output.fields, means, strict=True))
        return dataclasses.replace(output, fields=tuple(fields))

    def change(self, steps: Float[Tensor, " n_graphs"], mesh: Batch, dtype: torch.dtype) -> Float[Tensor, "n c"]:
        """The usual change of each state over a step, in units of its spread: what û is multiplied by."""
        return self.changes(steps, dtype).index_select(0, mesh.batch)

    def changes(self, steps: Float[Tensor, " n_graphs"], dtype: torch.dtype) -> Float[Tensor, "n_graphs c"]:
        """The same, one row for each mesh."""
        return self.gain.to(dtype) * steps.to(dtype)[:, None]


def graph_means(
    u: Float[Tensor, "n c"], mass: Float[Tensor, " n"], graph: Int[Tensor, " n"], n_graphs: int
) -> Float[Tensor, "n c"]:
    """The mean by mass over its mesh, at every node; meshes follow one another.

    >>> u, mass, graph = torch.tensor([[1.0], [4.0], [5.0]]), torch.tensor([2.0, 1.0, 1.0]), torch.tensor([0, 0, 1])
    >>> graph_means(u, mass, graph, 2).tolist()
    [[2.0], [2.0], [5.0]]
    """
    ptr = torch.searchsorted(graph, torch.arange(n_graphs + 1, device=graph.device))
    mass = mass.detach().to(u)[:, None]
    return (segment_sum(mass * u, ptr) / segment_sum(mass, ptr)).index_select(0, graph)


def global_columns(spec: SampleSpec, forcing: Sequence[str]) -> list[int]:
    """Columns of (x, forcing at the end of the step) that are one number for the whole mesh."""
    columns = [(field, k) for c, field in columns_of(spec.inputs) for k in range(c.start, c.stop)]
    here = [k for field, k in columns if field.location == "global"]
    ends = [field for field, _ in columns if field.name in forcing]
    return here + [spec.n_inputs + k for k, field in enumerate(ends) if field.location == "global"]


def operator_sizes(spec: SampleSpec, time: Time) -> dict[str, int]:
    """Columns that the operator of a case in time reads, and what it is conditioned on."""
    n_forcing = len(state_columns(spec, time.forcing))
    return {
        "n_inputs": spec.n_inputs + n_forcing + time.history * spec.n_targets,
        "n_globals": len(global_columns(spec, time.forcing)) + time.history,
    }


def fit_normalisation(
    trajectories: Sequence[Trajectory], spec: SampleSpec, forcing: Sequence[str] = (), axes: Sequence[int] = ()
) -> Normalisation:
    """The scales of inputs, rates, states and steps, from the training trajectories only.

    Args:
        trajectories: raw.
        spec: how the case sees a mesh.
        forcing: names of the inputs that change with time.
        axes: of mirrors whose images count, too.

    Raises:
        ValueError: no trajectory has two frames.
    """
    frames = [_frame(t, k, t.states[k]) for t in trajectories for k in range(len(t))]
    rates = [_frame(t, k, _rate(t, k)) for t in trajectories for k in range(1, len(t))]
    if not rates:
        raise ValueError("data.train: expected trajectories of at least two frames, got single frames")
    steps = torch.cat([t.times.diff() for t in trajectories]).log()
    spread = steps.std(correction=0)
    step = Scale(
        steps.mean()[None], torch.where(spread > 1e-6, spread, torch.ones_like(spread))[None], steps.exp().mean()[None]
    )
    targets = fit_scale(rates, "y", spec.targets)
    zero, rms = torch.zeros_like(targets.mean), targets.rms.clone()
    std = torch.cat([rms[c] / f.n_components**0.5 for c, f in columns_of(spec.targets)])
    states = fit_scale(frames, "y", spec.targets, turned(spec.targets, spec.dim, axes))
    return Normalisation(_inputs_scale(trajectories, spec, forcing, axes), Scale(zero, std, rms), states, step)


def _inputs_scale(
    trajectories: Sequence[Trajectory], spec: SampleSpec, forcing: Sequence[str], axes: Sequence[int]
) -> Scale:
    """The columns of the forcing are fitted on all frames, not on the first alone."""
    samples = [sample for t in trajectories for sample in t.samples]
    inputs = fit_scale(samples, "x", spec.inputs, turned(spec.inputs, spec.dim, axes))
    if not forcing:
        return inputs
    frames = [_frame(t, k, t.forcing[k]) for t in trajectories for k in range(len(t))]
    fields = [field for field in spec.inputs if field.name in forcing]
    scale = fit_scale(frames, "y", fields, turned(fields, spec.dim, axes))
    columns = torch.tensor(state_columns(spec, forcing))
    return Scale(*(getattr(inputs, n).index_copy(0, columns, getattr(scale, n)) for n in ("mean", "std", "rms")))


def _frame(trajectory: Trajectory, k: int, values: Tensor) -> Data:
    sample = trajectory.sample(k)
    return Data(y=values, mass_0=measure(sample, 0, sample.mass_0))


def _rate(trajectory: Trajectory, k: int) -> Float[Tensor, "n c"]:
    before = trajectory.past(k - 1, k)[:, 0]
    return (trajectory.states[k] - before) / (trajectory.times[k] - trajectory.times[k - 1])


def longest_horizon(trajectories: Sequence[Trajectory], time: Time) -> int:
    """Steps that can be unrolled in every trajectory: one where a mesh changes.

    Raises:
        ValueError: a trajectory without a single step.
    """
    shortest = min(trajectories, key=len)
    if len(shortest) <= time.history:
        raise ValueError(
            f"{shortest.source}: expected at least {time.history + 1} frames for time.history = {time.history}, "
            f"got {len(shortest)}"
        )
    changes = any(trajectory.changes for trajectory in trajectories)
    return 1 if changes else min(time.unroll, len(shortest) - time.history)


class Unrolled(nn.Module):
    """The losses of a rollout whose length grows during training; gradients pass through its last steps.

    Every step asks the operator for the rate that leads from where the rollout is to the next true state, so errors
    that it made before, and noise, are to be undone. The noise fades over the training: an operator that undoes noise
    to the end takes what is sharp in a field for some of it. With ``gradient = 1`` this is the pushforward of
    Brandstetter et al. 2022, Message Passing Neural PDE Solvers, section 3.1; noise as in Sanchez-Gonzalez et al. 2020,
    Learning to Simulate Complex Physics with Graph Networks.

    Args:
        evolution: a step in time.
        terms: losses of (batch, output), as for a steady operator; the batch has the rates wanted as ``y``.
        time: length, gradient and noise.
        longest: steps that the windows allow.
        floors: names of the losses that have a floor in each step.
    """

    def __init__(
        self, evolution: Evolution, terms: Sequence[Term], time: Time, longest: int, floors: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.evolution, self.terms, self.time, self.longest = evolution, tuple(terms), time, longest
        self.floors = tuple(floors)

    def horizon(self, share: float) -> int:
        """Steps to unroll when a share of the budget is spent: 1 at first, growing evenly to the longest."""
        return min(self.longest, 1 + int(share * self.longest))

    def forward(self, batch: Batch, share: float = 1.0) -> Float[Tensor, " n_terms"]:
        n_steps, history = self.horizon(share), self.time.history
        first = n_steps - min(n_steps, self.time.gradient)  # from this step on there is a gradient
        past, losses = batch.past, []
        for k in range(n_steps):
            steps = batch.steps[:, k : k + history]
            change = self.evolution.change(steps[:, -1], batch, past.dtype)
            if k == 0 and self.time.noise:
                past = past + (1 - share) * self.time.noise * change[:, None] * torch.randn_like(past)
            ready = self.evolution.batch(batch, past, batch.forcing[:, k : k + 2], steps)
            with torch.set_grad_enabled(k >= first):
                output = self.evolution(ready)
            ready.y = (batch.future[:, k] - past[:, -1].detach()) / change
            ready.step, ready.forcing = steps[:, -1], batch.forcing[:, k : k + 2]
            for name in self.floors:
                ready[f"floor_{name}"] = batch[f"floors_{name}"][:, k]
            if k >= first:
                led = led_here(output, past[:, -1] / change) if k > first else output
                losses.append(self.losses(ready, led))
            if k + 1 < n_steps:
                state = past[:, -1] + change * output.fields[0].to(past.dtype)
                past = torch.cat([past[:, 1:], state[:, None]], dim=1)
        return torch.stack(losses).mean(0)

    def losses(self, batch: Batch, output: Output) -> Float[Tensor, " n_terms"]:
        """Of one step; sums over nodes stay in full precision."""
        with torch.autocast(batch.mass_0.device.type, enabled=False):
            return torch.stack([term.loss(batch, output) for term in self.terms])


def led_here(output: Output, state: Float[Tensor, "n c"]) -> Output:
    """The same rates; their gradient is also that of the state where they set out, in units of the change, so that the
    error at the end of a step is the fault of all steps before."""
    levels = zip(output.fields, restricted(state, output.transfers), strict=True)
    return dataclasses.replace(output, fields=tuple(u + (s - s.detach()) for u, s in levels))


@torch.no_grad()
def rolled(
    evolution: Evolution,
    mesh: Batch,
    past: Float[Tensor, "n history c"],
    forcing: Float[Tensor, "n n_frames f"],
    steps: Float[Tensor, "n_graphs n_steps"],
    spread: Scale,
) -> Iterator[Tensor]:
    """The states that follow, one after the other, in physical units; nothing here waits for the device.

    Args:
        evolution: a step in time, in evaluation mode.
        mesh: batch of meshes with normalised inputs; with ``held``, physical values where ``fixed``.
        past: physical states, oldest first; in float64 the rollout is the same however often it is stopped.
        forcing: normalised, from the last frame of the past on.
        steps: Δt between all frames, those of the past first.
        spread: scale of the states.

    Yields:
        States (n, c), in the precision of ``past``.
    """
    history, dtype = past.shape[1], mesh.x.dtype
    mean, std = spread.mean.to(past), spread.std.to(past)
    for k in range(steps.shape[1] - history + 1):
        dt = steps[:, k : k + history]
        ready = evolution.batch(mesh, ((past - mean) / std).to(dtype), forcing[:, k : k + 2], dt)
        rate = evolution(ready).fields[0].to(past.dtype)
        state = past[:, -1] + evolution.change(dt[:, -1], mesh, past.dtype) * std * rate
        state = torch.where(mesh.fixed, mesh.held, state) if "held" in mesh else state
        past = torch.cat([past[:, 1:], state[:, None]], dim=1)
        yield state


@torch.no_grad()
def rolled_along(
    evolution: Evolution, trajectory: Trajectory, time: Time, n_steps: int, spread: Scale, device: torch.device
) -> Iterator[Tensor]:
    """The states that follow the first frames of a normalised trajectory, on the mesh of each; see :func:`rolled`."""
    h, dtype = time.history, precision(device)
    past = spread.decode(trajectory.past(0, h)).to(device, dtype)
    if not trajectory.changes:
        mesh = collate([trajectory.samples[0]]).to(device)
        forcing = trajectory.past(h - 1, h + n_steps, trajectory.forcing).to(device)
        yield from rolled(
            evolution,
            mesh,
            past,
            forcing,
            trajectory.times.diff()[None].to(device, dtype)[:, : h - 1 + n_steps],
            spread,
        )
        return
    for k in range(n_steps):
        window = trajectory.window(k, h, 1)
        move = trajectory.moves[h + k - 1]
        past = past if move is None or k == 0 else move.to(device)(past)
        mesh, forcing = collate([trajectory.samples[h + k]]).to(device), window.forcing.to(device)
        state = next(rolled(evolution, mesh, past, forcing, window.steps.to(device, dtype), spread))
        past = torch.cat([past[:, 1:], state[:, None]], dim=1)
        yield state


def precision(device: torch.device) -> torch.dtype:
    """What states are kept in: as exact as the device can."""
    return torch.float32 if device.type == "mps" else torch.float64


class RolloutScores:
    """Validation of a model in training: relative errors of whole rollouts, and of their first step.

    Args:
        trajectories: normalised, of the validation files.
        normalisation, spec, time: how the case sees them.
    """

    def __init__(
        self, trajectories: Sequence[Trajectory], normalisation: Normalisation, spec: SampleSpec, time: Time
    ) -> None:
        self.trajectories = [t for t in trajectories if len(t) > time.history]
        self.normalisation, self.spec, self.time = normalisation, spec, time

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        fields = [field.name for field in self.spec.targets]
        return ["score", *fields, *(f"{name} one step" for name in fields)] if self.trajectories else []

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.trajectories:
            return {}
        model.eval()
        evolution = Evolution(model, self.normalisation, self.spec, self.time.forcing, self.time.conserve)
        device = next(model.parameters()).device
        rows = [self._errors(evolution.to(device), t, device) for t in self.trajectories]
        mean = torch.stack([row.mean(0) for row in rows]).mean(0).tolist()
        first = torch.stack([row[0] for row in rows]).mean(0).tolist()
        names = [field.name for field in self.spec.targets]
        one_step = {f"{name} one step": value for name, value in zip(names, first, strict=True)}
        return with_mean({**dict(zip(names, mean, strict=True)), **one_step}, statistics.fmean(mean))

    def _errors(
        self, evolution: Evolution, trajectory: Trajectory, device: torch.device
    ) -> Float[Tensor, "n_steps n_fields"]:
        scale, h = self.normalisation.states, self.time.history
        assert scale is not None
        n_steps = min(VALIDATION_STEPS, len(trajectory) - h)
        rows = []
        for k, u in enumerate(rolled_along(evolution, trajectory, self.time, n_steps, scale, device)):
            truth = scale.decode(trajectory.states[h + k]).to(u)
            mass = trajectory.sample(h + k).mass_0.to(u)
            usual = scale.rms.to(u)
            errors = [relative(u[:, c], truth[:, c], mass, usual[c][0]) for c, _ in columns_of(self.spec.targets)]
            rows.append(torch.stack(errors))
        # a rollout that diverged is a large error, not a number that no comparison is true for
        return torch.stack(rows).nan_to_num(nan=1e9, posinf=1e9).clamp(max=1e9).cpu()


def relative(
    u: Float[Tensor, "n c"], truth: Float[Tensor, "n c"], mass: Float[Tensor, " n"], usual: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """``√(Σ m |u − y|² / Σ m |y|²)``; where the field is zero, as before it sets in, relative to its usual size."""
    error2, size2, usual2 = mass @ (u - truth).square().sum(1), mass @ truth.square().sum(1), mass.sum() * usual**2
    return (error2 / torch.where(size2 > ROUND_OFF**2 * usual2, size2, usual2)).sqrt()
