"""Trajectory: one mesh and its states in time; windows of it are views, nothing is copied."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.graph import FieldSpec, MeshData, SampleSpec, build_sample
from gno.graph.coarsen import cluster_mean, clusters, coarsened
from gno.mesh import Mesh, MeshError, interpolation, read_series
from gno.progress import counter
from gno.train.checkpoint import load_tensors, pack, save_tensors, unpack
from gno.train.normalise import Normalisation, columns_of
from gno.train.samples import content_key

# One tensor (n_frames, n_nodes, c), or one (n_nodes, c) per frame where the mesh changes.
Frames = Tensor | list[Tensor]


@dataclasses.dataclass(frozen=True)
class Move:
    """How node values get from one mesh to the next: ``v_i = Σ_k w_ik u_{j_ik}``, rows of w sum to one."""

    node: Int[Tensor, "n_next k"]
    weight: Float[Tensor, "n_next k"]

    def __call__(self, values: Float[Tensor, "n ..."]) -> Float[Tensor, "n_next ..."]:
        weight = self.weight.to(values).reshape(*self.weight.shape, *[1] * (values.dim() - 1))
        return (values[self.node] * weight).sum(1)

    def to(self, device: torch.device) -> Move:
        """On a device."""
        return Move(self.node.to(device), self.weight.to(device))

    @staticmethod
    def between(before: Mesh, after: Mesh) -> Move | None:
        """Values stay with their nodes where the cells are the same (None), else they are interpolated."""
        if same_cells(before, after):
            return None
        matrix = interpolation(before, after.points).tocsr()
        counts = np.diff(matrix.indptr)
        place = np.arange(counts.max())[None, :] < counts[:, None]
        node, weight = np.zeros(place.shape, dtype=np.int64), np.zeros(place.shape)
        node[place], weight[place] = matrix.indices, matrix.data
        return Move(torch.as_tensor(node), torch.as_tensor(weight))


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """States of a mesh in time, in physical units until :meth:`normalised`.

    Args:
        samples: the mesh with its hierarchy; one for all frames, or one per frame where the mesh changes.
        states: fields that evolve: one tensor (n_frames, n_nodes, n_states), or one (n_nodes, n_states) per frame.
        forcing: fields that are known at all times, likewise.
        times: of the frames, in the user's unit.
        moves: where the mesh changes, how values get from each frame's mesh to the next.
        source: for messages.
        floors: what the frames leave of the losses of [physics], by name: one number per step.
    """

    samples: tuple[MeshData, ...]
    states: Frames
    forcing: Frames
    times: Float[Tensor, " n_frames"]
    moves: tuple[Move | None, ...] = ()
    source: str = "trajectory"
    floors: Mapping[str, Float[Tensor, " n_steps"]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def changes(self) -> bool:
        """Whether every frame has its own mesh."""
        return len(self.samples) > 1

    def sample(self, frame: int) -> MeshData:
        """The mesh of a frame."""
        return self.samples[frame if self.changes else 0]

    def past(self, start: int, stop: int, values: Frames | None = None) -> Float[Tensor, "n k c"]:
        """States (or other values) of frames start … stop − 1: a view, or moved to the mesh of frame ``stop``."""
        values = self.states if values is None else values
        if isinstance(values, Tensor):
            return values[start:stop].transpose(0, 1)
        frames: list[Tensor] = []
        for k in range(start, stop):
            frames.append(values[k])
            move = self.moves[k] if k < len(self.moves) else None
            frames = frames if move is None else [move(frame) for frame in frames]
        return torch.stack(frames, dim=1)

    def window(self, start: int, history: int, horizon: int) -> MeshData:
        """``history`` frames from ``start`` on and ``horizon`` frames after them, on the mesh of the first of these.

        Returns:
            The mesh's sample with ``past`` (n, history, c), ``future`` (n, horizon, c), ``forcing`` (n, horizon + 1, f)
            from the last frame of the past on, and the steps between all of them, ``steps`` (1, history − 1 + horizon);
            with physics ``floors_<name>`` (1, horizon).
        """
        now, stop = start + history, start + history + horizon
        sample = copy.copy(self.sample(now))
        sample.past = self.past(start, now)
        sample.steps = self.times[start:stop].diff()[None].to(sample.past.dtype)
        for name, floors in self.floors.items():
            sample[f"floors_{name}"] = floors[None, now - 1 : stop - 1]
        if not self.changes:
            sample.future = self.past(now, stop)
            sample.forcing = self.past(now - 1, stop, self.forcing)
            return sample
        if horizon > 1:
            raise ValueError(f"horizon: expected 1 where the mesh changes, got {horizon} ({self.source})")
        sample.future = self.states[now][:, None]
        sample.forcing = torch.cat([self.past(now - 1, now, self.forcing), self.forcing[now][:, None]], dim=1)
        return sample

    def coarsened(self, spec: SampleSpec) -> Trajectory:
        """The trajectory on clusters of its nodes; see :mod:`gno.graph.coarsen`.

        Raises:
            ValueError: its mesh changes.
        """
        if self.changes:
            raise ValueError(f"training.curriculum: expected 0 where the mesh changes, got more ({self.source})")
        sample = self.samples[0]
        owner = clusters(sample)
        assert isinstance(self.states, Tensor) and isinstance(self.forcing, Tensor)
        states, forcing = (cluster_mean(values, owner, sample.mass_0) for values in (self.states, self.forcing))
        return dataclasses.replace(self, samples=(coarsened(sample, spec, owner),), states=states, forcing=forcing)

    def normalised(self, normalisation: Normalisation, forcing: Sequence[int], dtype: torch.dtype) -> Trajectory:
        """With inputs, states and forcing (columns of the inputs) in units of their spread, and samples without y."""
        assert normalisation.states is not None
        scale, inputs = normalisation.states, normalisation.inputs
        mean, std = inputs.mean[list(forcing)], inputs.std[list(forcing)]
        return dataclasses.replace(
            self,
            samples=tuple(_ready(sample, normalisation, dtype) for sample in self.samples),
            states=_each(self.states, lambda u: ((u - scale.mean) / scale.std).to(dtype)),
            forcing=_each(self.forcing, lambda f: ((f - mean) / std).to(dtype)),
        )


def _each(values: Frames, change: Callable[[Tensor], Tensor]) -> Frames:
    return change(values) if isinstance(values, Tensor) else [change(value) for value in values]


def _ready(sample: MeshData, normalisation: Normalisation, dtype: torch.dtype) -> MeshData:
    sample = normalisation.apply(sample)
    sample.y = None
    return sample.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)


class Windows(Sequence[MeshData]):
    """All windows of some trajectories, drawn when asked for.

    Args:
        trajectories: normalised.
        history, horizon: as in :meth:`Trajectory.window`.
    """

    def __init__(self, trajectories: Sequence[Trajectory], history: int, horizon: int) -> None:
        self.trajectories, self.history, self.horizon = tuple(trajectories), history, horizon
        counts = [len(trajectory) - history - horizon + 1 for trajectory in trajectories]
        self.places = [(t, k) for t, count in enumerate(counts) for k in range(count)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        trajectory, start = self.places[index]
        return self.trajectories[trajectory].window(start, self.history, self.horizon)


def build_trajectory(
    frames: Iterable[Mesh], spec: SampleSpec, forcing: Sequence[str] = (), *, step: float | None = None
) -> Trajectory:
    """Read the frames one after the other; the hierarchy is built once, or for every frame if the mesh changes.

    Args:
        frames: meshes in time.
        spec: how the case sees a mesh; its targets are the states, and ``forcing`` names some of its inputs.
        step: time between frames, instead of the times that the frames have.

    Raises:
        ValueError: times that do not increase, a frame without a state, an input that changes and is not forcing.
    """
    fields = [field for field in spec.inputs if field.name in forcing]
    first: Mesh | None = None
    before: Mesh | None = None
    samples: list[MeshData] = []
    moves: list[Move | None] = []
    states, forces, times = [], [], []
    for number, mesh in enumerate(map(spec.seen, frames)):
        if first is None or before is None:
            first, samples = mesh, [build_sample(mesh, spec)]
        elif len(samples) > 1 or not same_mesh(first, mesh):
            samples += [samples[0]] * (number - len(samples))  # so far all were the first
            samples.append(build_sample(mesh, spec))
            moves += [None] * (number - 1 - len(moves))
            moves.append(Move.between(before, mesh))
        else:
            check_fixed(first, mesh, spec, forcing)
        states.append(values_of(mesh, spec.targets))
        forces.append(values_of(mesh, fields))
        times.append(number * step if step else float(number) if mesh.time is None else mesh.time)
        before = mesh
    if first is None:
        raise ValueError("trajectory: expected at least one frame, got none")
    check_times(times, first.source)
    static = len(samples) == 1
    return Trajectory(
        tuple(samples),
        torch.stack(states) if static else states,
        torch.stack(forces) if static else forces,
        torch.tensor(times, dtype=torch.float64),
        tuple(moves),
        first.source,
    )


def values_of(mesh: Mesh, fields: Sequence[FieldSpec]) -> Float[Tensor, "n_nodes c"]:
    """Values of fields at the nodes, beside each other.

    Raises:
        ValueError: a field that is not there, or not finite.
    """
    if not fields:
        return torch.zeros(mesh.n_nodes, 0, dtype=torch.float64)
    values = np.concatenate([field.values(mesh) for field in fields], axis=1)
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise ValueError(f"fields: expected finite values, got {values[bad[0]]} at node {bad[0]} ({mesh.source})")
    return torch.as_tensor(values)


def same_cells(a: Mesh, b: Mesh) -> bool:
    """Whether two meshes have the same nodes and cells, wherever the nodes are."""
    if a.n_nodes != b.n_nodes or len(a.cells) != len(b.cells):
        return False
    pairs = zip(a.cells, b.cells, strict=True)
    return all(p is q or (p.type == q.type and np.array_equal(p.nodes, q.nodes)) for p, q in pairs)


def same_mesh(a: Mesh, b: Mesh) -> bool:
    """Whether two meshes have the same nodes and cells, in the same places."""
    return same_cells(a, b) and np.array_equal(a.points, b.points)


def check_fixed(first: Mesh, mesh: Mesh, spec: SampleSpec, forcing: Sequence[str]) -> None:
    """Inputs that are not forcing must not change with time.

    Raises:
        ValueError: one does.
    """
    for field in spec.inputs:
        if field.name not in forcing and not np.array_equal(field.values(first), field.values(mesh)):
            raise ValueError(
                f"time.forcing: expected '{field.name}' among them, which changes between {first.source} "
                f"and {mesh.source}; got {list(forcing)}"
            )


def check_times(times: Sequence[float], source: str) -> None:
    """Times must increase.

    Raises:
        ValueError: they do not.
    """
    for before, after in itertools.pairwise(times):
        if not after > before:
            raise ValueError(f"times: expected them to increase, got {after:g} after {before:g} ({source})")


def load_trajectories(
    paths: Sequence[Path],
    spec: SampleSpec,
    forcing: Sequence[str] = (),
    *,
    stride: int = 1,
    step: float | None = None,
    cache: Path | None = None,
    bar: bool = False,
) -> list[Trajectory]:
    """The trajectories of some series, in their order, kept in ``cache`` by content.

    Raises:
        MeshError: a series that cannot be read.
        ValueError: a series that does not fit the spec, see :func:`build_trajectory`.
    """
    found = []
    with counter("trajectories", len(paths), draw=bar) as advance:
        for path in paths:
            stored = cache / f"{_key(path, spec, (tuple(forcing), stride, step))}.safetensors" if cache else None
            if stored is None or not stored.exists():
                trajectory = build_trajectory(read_series(path)[::stride], spec, forcing, step=step)
                if stored is not None:
                    save_trajectory(trajectory, stored)
            else:
                trajectory = load_trajectory(stored)
            found.append(dataclasses.replace(trajectory, source=str(path)))
            advance(1)
    return found


def _key(path: Path, spec: SampleSpec, recipe: tuple) -> str:
    series = read_series(path)
    files = dict.fromkeys(file for file, _ in series.entries)  # in their order, which names say, and times may as well
    if not files:
        raise MeshError(f"{path}: expected a series, got no file")
    digest = hashlib.sha256(repr((recipe, series.times)).encode() + Path(__file__).read_bytes())
    for file in files:
        digest.update(content_key(file, spec).encode())
    return "t" + digest.hexdigest()[:31]


def save_trajectory(trajectory: Trajectory, path: Path) -> None:
    """Store a trajectory as safetensors."""
    static = not trajectory.changes
    parts: dict[str, dict[str, Tensor]] = {"times": {"all": trajectory.times}}
    for name in ("states", "forcing"):
        values = getattr(trajectory, name)
        parts[name] = {"all": values} if static else {str(k): value for k, value in enumerate(values)}
    for k, move in enumerate(trajectory.moves):
        if move is not None:
            parts[f"move{k}"] = {"node": move.node, "weight": move.weight}
    for k, sample in enumerate(trajectory.samples):
        parts[f"sample{k}"] = {key: value for key, value in sample.to_dict().items() if isinstance(value, Tensor)}
    document = {"samples": len(trajectory.samples), "moves": len(trajectory.moves), "source": trajectory.source}
    save_tensors(path, pack(**parts), document)


def load_trajectory(path: Path) -> Trajectory:
    """The inverse of :func:`save_trajectory`."""
    tensors, document = load_tensors(path)

    def values(name: str) -> Frames:
        found = unpack(tensors, name)
        return found["all"] if "all" in found else [found[str(k)] for k in range(len(found))]

    moves = (unpack(tensors, f"move{k}") for k in range(document["moves"]))
    return Trajectory(
        tuple(MeshData(**unpack(tensors, f"sample{k}")) for k in range(document["samples"])),
        values("states"),
        values("forcing"),
        tensors["times/all"],
        tuple(Move(**move) if move else None for move in moves),
        document["source"],
    )


def state_columns(spec: SampleSpec, names: Sequence[str]) -> list[int]:
    """Columns of the inputs that belong to the named fields."""
    found = [columns for columns, field in columns_of(spec.inputs) if field.name in names]
    return [k for columns in found for k in range(columns.start, columns.stop)]
