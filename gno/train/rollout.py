"""Rollout: a trained step taken many times, on the device; frames go to disk as they come, and it can go on later."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gno.graph import FieldSpec, MeshData, build_sample, collate
from gno.mesh import Mesh, Series, node_mass, read_series, write
from gno.mesh.pvd import write_collection
from gno.progress import counter
from gno.train.blueprint import Blueprint
from gno.train.dynamics import Evolution, precision, rolled, rolled_along
from gno.train.interrupt import Interrupted, Stop
from gno.train.memory import pages_kept
from gno.train.normalise import Scale, columns_of
from gno.train.physics import with_given
from gno.train.predict import PREFIX, in_precision, with_values
from gno.train.sections import Time
from gno.train.time_metrics import METRICS, Metric, RolloutEvaluation, RolloutRow, measured, relative_size
from gno.train.trajectory import Move, Trajectory, check_times, same_mesh, state_columns, values_of
from gno.uncertain import Uncertain

# Frames that leave the device together hold about so many numbers.
CHUNK = 2**22
# A field that is on average so many spreads of the training data away from their mean has left what was learned.
FAR = 100.0
# A start so many spreads away was never in it.
OUTSIDE = 10.0
# Digits in the names of frames.
DIGITS = 5


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What became of a rollout.

    Args:
        path: the .pvd.
        n_frames: frames in it, those that it started from included.
        seconds: time of the operator and of writing.
        diverged: what went wrong, where it did; the frames before that are written.
    """

    path: Path
    n_frames: int
    seconds: float
    diverged: str | None = None


def evolution_of(model: nn.Module, blueprint: Blueprint) -> tuple[Evolution, Time]:
    """A trained operator as a step in time.

    Raises:
        ValueError: it was trained on a steady case.
    """
    case = blueprint.case
    if case.time is None:
        raise ValueError("steps: expected a run whose case has [time], got a steady one")
    device = next(model.parameters()).device
    evolution = Evolution(model, blueprint.normalisation, blueprint.spec, case.time.forcing, case.time.conserve)
    return evolution.to(device).eval(), case.time


def roll_out(
    model: nn.Module,
    blueprint: Blueprint,
    frames: Sequence[Mesh],
    path: str | Path,
    *,
    n_steps: int | None = None,
    step: float | None = None,
    resume: bool = False,
    progress: bool = False,
) -> Rollout:
    """Predict the frames that follow the first ones of a series, and write them as they come.

    Args:
        model, blueprint: of a run in time.
        frames: the series; its first frames are started from, further ones give times, forcing, changed meshes and the
            truth that is written beside the prediction.
        path: .pvd to write; its .vtu lie beside it. Those of an earlier rollout there are removed.
        n_steps: as many as there are further frames, by default.
        step: Δt; by default that of the frames, after them the last one, and of a single frame that of the training.
        resume: go on after the frames that ``path`` holds.
        progress: whether a bar counts the frames.

    Raises:
        ValueError: too few frames for the history, the forcing or the number of steps; a series that is no rollout in
            the place of ``path``.
        Interrupted: Ctrl-C; all frames so far are written.
    """
    evolution, settings = evolution_of(model, blueprint)
    frames, path = frames[:: settings.stride], Path(path)
    plan = _Plan.of(frames, blueprint, settings, n_steps, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    start, writer = time.monotonic(), _Writer(path, plan, blueprint, resume)
    diverged = None
    label = f"{path.parent.name}/{path.stem}"
    with Stop() as stop, counter(label, len(plan.times), draw=progress) as advance:
        advance(writer.n_frames)
        for states, far in _chunks(evolution, blueprint, plan, writer):
            good = next((k for k, row in enumerate(far.tolist()) if not all(v < FAR for v in row)), len(states))
            writer.write(states[:good])
            advance(good)
            if good < len(states):
                diverged = _divergence(writer.n_frames - settings.history + 1, plan, far[good], blueprint)
                break
            if stop.requested:
                raise Interrupted(
                    f"stopped after {writer.n_frames - settings.history} steps, written to {path}; resume to go on"
                )
    return Rollout(path, writer.n_frames, time.monotonic() - start, diverged)


def mesh_changes(frames: Sequence[Mesh]) -> bool:
    """Whether a series goes on on other meshes, by its second and its last frame: to read all of them takes long."""
    ends = (frames[k] for k in {1, len(frames) - 1} if 0 < k < len(frames))
    return any(not same_mesh(frames[0], mesh) for mesh in ends)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Which frame has which mesh and time."""

    frames: Sequence[Mesh]
    history: int
    times: list[float]
    changes: bool

    @staticmethod
    def of(frames: Sequence[Mesh], blueprint: Blueprint, settings: Time, n_steps: int | None, step: float | None):
        h, source = settings.history, frames[0].source
        if len(frames) < h:
            raise ValueError(f"{source}: expected at least {h} frames for time.history, got {len(frames)}")
        n_steps = len(frames) - h if n_steps is None else n_steps
        if n_steps < 1:
            raise ValueError(f"steps: expected at least 1, got {n_steps} ({source} has {len(frames)} frames)")
        if settings.forcing and len(frames) < h + n_steps:
            raise ValueError(
                f"{source}: expected {h + n_steps} frames, since '{settings.forcing[0]}' is to be known at all times, "
                f"got {len(frames)}"
            )
        assert blueprint.normalisation.step is not None
        given = step or settings.step
        known = [mesh.time if mesh.time is not None else float(k) for k, mesh in enumerate(frames[: h + n_steps])]
        times = [k * given for k in range(len(known))] if given else known
        usual = given or (times[-1] - times[-2] if len(times) > 1 else float(blueprint.normalisation.step.rms))
        check_times(times, source)
        # twelve digits, so that steps of 0.1 do not end at a time of 299.99999999999994
        times += [float(f"{times[-1] + usual * (k + 1):.12g}") for k in range(h + n_steps - len(times))]
        return _Plan(frames, h, times, mesh_changes(frames))

    def mesh(self, k: int, targets: Sequence[FieldSpec]) -> Mesh:
        """The mesh of a frame, with its fields as far as they are known."""
        if k < len(self.frames):
            return self.frames[k].replace(time=self.times[k])
        names = {field.name for field in targets}
        kept = {kind: {n: v for n, v in getattr(self._after, kind).items() if n not in names} for kind in _KINDS}
        return self._after.replace(time=self.times[k], **kept)

    @functools.cached_property
    def _after(self) -> Mesh:
        """The mesh behind the last frame; where it does not change, with the fields that did not change either."""
        first, last = self.frames[0], self.frames[-1]
        if self.changes:
            return last
        same = {kind: {n: v for n, v in getattr(first, kind).items() if _lasts(last, kind, n, v)} for kind in _KINDS}
        return first.replace(**same)


_KINDS = ("point_fields", "cell_fields", "global_fields")


def _lasts(last: Mesh, kind: str, name: str, values: np.ndarray) -> bool:
    there = getattr(last, kind).get(name)
    return there is not None and np.array_equal(there, values, equal_nan=values.dtype.kind in "fc")


class _Writer:
    """Frames on disk: a .vtu for each, and a .pvd that lists those that are whole."""

    def __init__(self, path: Path, plan: _Plan, blueprint: Blueprint, resume: bool) -> None:
        self.path, self.plan, self.blueprint = path, plan, blueprint
        self.n_frames, self.past = 0, [values_of(plan.frames[k], blueprint.spec.targets) for k in range(plan.history)]
        if resume and path.exists():
            return self._go_on(read_series(path))
        for old in earlier_rollout(path, blueprint.spec.targets):
            old.unlink(missing_ok=True)
        self.write(self.past)

    def _go_on(self, written: Series) -> None:
        fields = [FieldSpec(PREFIX + field.name, "point", field.n_components) for field in self.blueprint.spec.targets]
        if len(written) > len(self.plan.times):
            done, asked = (n - self.plan.history for n in (len(written), len(self.plan.times)))
            raise ValueError(f"{self.path}: expected at most {asked} steps so far, got {done}; ask for more steps")
        if len(written) < self.plan.history or list(written.times) != self.plan.times[: len(written)]:
            raise ValueError(
                f"{self.path}: expected the beginning of this rollout, got {len(written)} frames of another"
            )
        self.n_frames = len(written)
        self.past = [values_of(mesh, fields) for mesh in written[-self.plan.history :]]

    def write(self, states: Sequence[Float[Tensor, "n_nodes c"]]) -> None:
        """The frames that follow."""
        for state in states:
            targets, k = self.blueprint.spec.targets, self.n_frames
            mesh, known = self.plan.mesh(k, targets), Uncertain(state.numpy()[None])
            whole = any(field.location == "global" for field in targets)
            mass = node_mass(mesh) if whole else np.ones(mesh.n_nodes)
            write(with_values(mesh, known, mass, targets, PREFIX), self._file(k))
            self.n_frames += 1
        write_collection(self.path, [self._file(k) for k in range(self.n_frames)], self.plan.times[: self.n_frames])

    def _file(self, k: int) -> Path:
        return frame_file(self.path, k)


def frame_file(path: Path, k: int) -> Path:
    """Where frame k of a rollout lies."""
    return path.with_name(f"{path.stem}_{k:0{DIGITS}d}.vtu")


def earlier_rollout(path: Path, targets: Sequence[FieldSpec]) -> list[Path]:
    """The files of an earlier rollout where another is to be written, the list of them first; none if nothing is there.

    Raises:
        ValueError: a series that is somebody's data.
    """
    if not path.exists():
        return []
    written, name = read_series(path), PREFIX + targets[0].name
    if name not in written[0].point_fields:
        raise ValueError(
            f"{path}: expected an earlier rollout or nothing where frames are to be written, got a series without "
            f"'{name}'; choose another folder"
        )
    return [path, *(frame_file(path, k) for k in range(len(written)))]


@torch.inference_mode()
def _chunks(
    evolution: Evolution, blueprint: Blueprint, plan: _Plan, writer: _Writer
) -> Iterator[tuple[list[Tensor], Float[Tensor, "k n_fields"]]]:
    """States on the host, several at a time, and how far each field is from the training data, in spreads."""
    spread, fields = blueprint.normalisation.states, blueprint.spec.targets
    assert spread is not None
    device = next(evolution.parameters()).device
    roll = _changing if plan.changes else _static
    states = roll(evolution, blueprint, plan, writer, device)
    size = 1 if plan.changes else max(1, min(64, CHUNK // writer.past[0].numel()))
    with pages_kept(writer.past[0]):
        while chunk := list(itertools.islice(states, size)):
            far = torch.stack([_distance(u, mass, spread, fields) for u, mass in chunk])
            yield [u.cpu() for u, _ in chunk], far.cpu()


def _distance(u: Tensor, mass: Tensor, spread: Scale, fields: Sequence[FieldSpec]) -> Float[Tensor, " n_fields"]:
    square = mass.to(u) @ ((u - spread.mean.to(u)) / spread.std.to(u)).square()
    return torch.stack([square[columns].mean().sqrt() for columns, _ in columns_of(fields)])


def _distance_of_start(plan: _Plan, blueprint: Blueprint) -> Float[Tensor, " n_fields"]:
    """How far each field of the last given frame is from the training data, in spreads."""
    mesh, fields, spread = plan.frames[plan.history - 1], blueprint.spec.targets, blueprint.normalisation.states
    assert spread is not None
    mass = torch.as_tensor(node_mass(mesh), dtype=torch.float64)
    return _distance(values_of(mesh, fields).double(), mass / mass.sum(), spread, fields)


def _ready(mesh: Mesh, blueprint: Blueprint, evolution: Evolution) -> MeshData:
    raw = with_given(build_sample(mesh, blueprint.spec), mesh, blueprint.case, blueprint.spec)
    weights = next(evolution.parameters())
    sample = in_precision(blueprint.normalisation.apply(raw), weights.dtype)
    sample.y = None
    if "given" in raw:  # to the bit, which no change of units keeps
        sample.held = raw.given.to(precision(weights.device))
    return sample


def _forcing(blueprint: Blueprint, plan: _Plan, k: int) -> Float[Tensor, "n f"]:
    """Normalised forcing of a frame."""
    assert blueprint.case.time is not None
    names, spec = blueprint.case.time.forcing, blueprint.spec
    columns, scale = state_columns(spec, names), blueprint.normalisation.inputs
    values = values_of(plan.frames[min(k, len(plan.frames) - 1)], [f for f in spec.inputs if f.name in names])
    return (values - scale.mean[columns]) / scale.std[columns]


def _static(
    evolution: Evolution, blueprint: Blueprint, plan: _Plan, writer: _Writer, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    sample = _ready(plan.frames[0], blueprint, evolution)
    batch, first = collate([sample]).to(device), writer.n_frames - plan.history
    past = torch.stack(writer.past, dim=1).to(device, precision(device))
    n = len(plan.times) - writer.n_frames
    ahead = range(writer.n_frames - 1, len(plan.times))
    if blueprint.case.time and blueprint.case.time.forcing:
        forcing = torch.stack([_forcing(blueprint, plan, k) for k in ahead], dim=1).to(device, sample.x.dtype)
    else:
        forcing = sample.x.new_zeros(len(sample.x), n + 1, 0).to(device)
    steps = torch.tensor(plan.times[first:], dtype=torch.float64).diff()[None].to(device, precision(device))
    assert blueprint.normalisation.states is not None
    for state in rolled(evolution, batch, past, forcing, steps, blueprint.normalisation.states):
        yield state, batch.mass_0


def _changing(
    evolution: Evolution, blueprint: Blueprint, plan: _Plan, writer: _Writer, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    dtype, h, first = precision(device), plan.history, writer.n_frames - plan.history
    before, carried = plan.mesh(first, ()), writer.past[:1]
    for k, frame in enumerate(writer.past[1:], start=first + 1):  # the history comes on the meshes of its own frames
        mesh = plan.mesh(k, ())
        move, before = Move.between(before, mesh), mesh
        carried = [*(carried if move is None else map(move, carried)), frame]
    past = torch.stack(carried, dim=1)
    assert blueprint.normalisation.states is not None
    for k in range(writer.n_frames, len(plan.times)):
        mesh = plan.mesh(k, ())
        move = Move.between(before, mesh)
        past = past if move is None else move(past)
        forcing = _forcing(blueprint, plan, k - 1)
        forcing = torch.stack([forcing if move is None else move(forcing), _forcing(blueprint, plan, k)], dim=1)
        batch = collate([_ready(mesh, blueprint, evolution)]).to(device)
        steps = torch.tensor(plan.times[k - h : k + 1], dtype=torch.float64).diff()[None].to(device, dtype)
        now = past.to(device, dtype)
        state = next(
            rolled(evolution, batch, now, forcing.to(device, batch.x.dtype), steps, blueprint.normalisation.states)
        )
        past, before = torch.cat([past[:, 1:], state.to(past)[:, None]], dim=1), mesh
        yield state, batch.mass_0


def _divergence(step: int, plan: _Plan, far: Float[Tensor, " n_fields"], blueprint: Blueprint) -> str:
    worst = max(range(len(far)), key=lambda k: float("inf") if not torch.isfinite(far[k]) else float(far[k]))
    field, when = blueprint.spec.targets[worst].name, plan.times[plan.history + step - 1]
    if not (outside := _distance_of_start(plan, blueprint)[worst]) < OUTSIDE:
        return (
            f"stopped in step {step} (time {when:g}): '{field}' starts {float(outside):.3g} standard deviations from "
            "the mean of the training data, where nothing was learned; are its units those of the training?"
        )
    how = f"{float(far[worst]):.3g} standard deviations from the mean of the training data"
    how = how if torch.isfinite(far[worst]) else "not finite any more"
    return (
        f"diverged in step {step} (time {when:g}): '{field}' is {how}; the frames before that are written. Trained "
        "longer, or with time.noise, a step can be repeated more often"
    )


def evaluate_rollouts(
    models: Sequence[nn.Module],
    blueprint: Blueprint,
    trajectories: Sequence[Trajectory],
    metrics: Mapping[str, Metric] = METRICS,
    *,
    progress: bool = False,
) -> RolloutEvaluation:
    """Roll out from the first frames of each trajectory to its end, and compare.

    Args:
        models: one, or several that go each its own way; of several the mean is compared, and one more metric,
            ``spread``, is their standard deviation in the unit of ``vrmse``: as large as that where it is calibrated.
        trajectories: raw.
        metrics: of values in units of their usual size, by name; ``correlation``, ``vrmse``, ``relative_l2`` and those
            of the table among them.
        progress: whether a bar counts the rollouts.

    Raises:
        ValueError: a trajectory without a single step.
    """
    evolutions = [evolution_of(model, blueprint)[0] for model in models]
    settings = evolution_of(models[0], blueprint)[1]
    rows = []
    with counter("rollouts", len(trajectories), draw=progress) as advance:
        for trajectory in trajectories:
            rows.append(_evaluated(evolutions, blueprint, settings, trajectory, metrics))
            advance(1)
    return RolloutEvaluation(tuple(rows))


@torch.inference_mode()
def _evaluated(
    evolutions: Sequence[Evolution],
    blueprint: Blueprint,
    settings: Time,
    raw: Trajectory,
    metrics: Mapping[str, Metric],
) -> RolloutRow:
    h, spec, scale = settings.history, blueprint.spec, blueprint.normalisation.states
    if len(raw) <= h or scale is None:
        raise ValueError(f"{raw.source}: expected at least {h + 1} frames, got {len(raw)}")
    weights = next(evolutions[0].parameters())
    ready = raw.normalised(blueprint.normalisation, state_columns(spec, settings.forcing), weights.dtype)
    samples = [sample.to(weights.device) for sample in ready.samples]
    start, rows = time.perf_counter(), []
    ways = [rolled_along(e, ready, settings, len(raw) - h, scale, weights.device) for e in evolutions]
    for k, states in enumerate(zip(*ways, strict=True)):
        sample, u = samples[h + k if raw.changes else 0], torch.stack(states)
        usual = scale.rms.to(u)
        u, truth = u / usual, raw.states[h + k].to(u) / usual
        found = measured(u.mean(0), truth, sample, spec.targets, metrics)
        if len(evolutions) > 1:
            found = torch.cat([found, measured(u.std(0), truth, sample, spec.targets, {"spread": relative_size})])
        rows.append(found)
    names = [*metrics, "spread"] if len(evolutions) > 1 else list(metrics)
    values = torch.stack(rows).cpu()  # (n_steps, n_metrics, n_fields)
    seconds = time.perf_counter() - start
    diverged = ~torch.isfinite(values[:, list(metrics).index("vrmse")])  # (n_steps, n_fields)
    values = torch.where(diverged[:, None], values.nan_to_num(nan=1e9, posinf=1e9), values)
    lost = diverged.any(1).nonzero().flatten().tolist()
    said = (
        f"diverged in step {lost[0] + 1} (time {float(raw.times[h + lost[0]]):g}): not finite any more"
        if lost
        else None
    )
    named = {
        name: {field.name: values[:, m, j].tolist() for j, field in enumerate(spec.targets)}
        for m, name in enumerate(names)
    }
    times = (raw.times[h:] - raw.times[h - 1]).tolist()
    return RolloutRow(raw.source, raw.sample(0).num_nodes, times, named, seconds, said)
