"""Rollouts with doubt: every sample goes its own way through time; in memory against a known series, or to disk.

The detector looks at each step: at what the first sample's operator was given and made of it, and at the spread of the
states over the samples.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import FieldSpec, SampleSpec
from gno.mesh import Mesh, node_mass, read_series, write
from gno.mesh.pvd import write_collection
from gno.nn import Output
from gno.post.samples import sample_folder
from gno.train.dynamics import rolled_along
from gno.train.predict import PREFIX, with_values
from gno.train.rollout import Rollout, earlier_rollout, evolution_of, frame_file, mesh_changes
from gno.train.rollout import roll_out as roll_out_one
from gno.train.sources import trajectories_of
from gno.train.trajectory import state_columns, values_of
from gno.uncertain import Uncertain
from gno.uq.features import last_layers
from gno.uq.novelty import Detector, Look, Novelty, Squares, with_novelty
from gno.uq.whole import shape_of

if TYPE_CHECKING:
    from gno.uq.sampler import Sampler

# A batch, what an operator made of it, and what the last layer of each of its heads was given.
Call = tuple[Batch, Output, list[Tensor]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a rollout along a known series, physical units.

    Args:
        quantity: the states after it, (n_nodes, n_targets). truth: of the series. mass: shares.
        look: what the detector sees of it; much larger than the rest, so that it is not kept.
    """

    quantity: Uncertain
    truth: Float[np.ndarray, "n_nodes n_targets"]
    mass: Float[np.ndarray, " n_nodes"]
    look: Look | None

    def widened(self, sampler: Sampler, step: int) -> Step:
        """With the spread that a sampler gives it."""
        return dataclasses.replace(self, quantity=sampler.widened(self.quantity, step))

    def without_look(self) -> Step:
        """What is kept of it."""
        return dataclasses.replace(self, look=None)


@dataclasses.dataclass(frozen=True)
class SampledRollout(Rollout):
    """A rollout of all samples.

    Args:
        found: what the detector says of each step, if there is one.
    """

    found: tuple[Novelty, ...] = ()


@torch.inference_mode()
def follow(sampler: Sampler, frames: Sequence[Mesh]) -> Iterator[Step]:
    """Roll out all samples side by side from the first frames of a series, step by step to its end.

    Raises:
        ValueError: a series without a state, or of too few frames.
    """
    blueprint, models = sampler.operator.blueprint, sampler.models
    _, settings = evolution_of(models[0], blueprint)
    (raw,) = trajectories_of([frames], blueprint.spec, blueprint.case)
    h, scale, weights = settings.history, blueprint.normalisation.states, next(models[0].parameters())
    if len(raw) <= h or scale is None:
        raise ValueError(f"{raw.source}: expected at least {h + 1} frames, got {len(raw)}")
    ready = raw.normalised(blueprint.normalisation, state_columns(blueprint.spec, settings.forcing), weights.dtype)
    ways = [
        rolled_along(evolution_of(model, blueprint)[0], ready, settings, len(raw) - h, scale, weights.device)
        for model in models
    ]
    kept, shapes = frames[:: settings.stride], _Shapes(blueprint.spec)
    calls: list[Call] = []
    with watched(models[0], lambda *call: calls.append(call)):
        for k, states in enumerate(zip(*ways, strict=True), start=h):
            known = Uncertain(torch.stack(states).double().cpu().numpy())
            mass, truth = raw.sample(k).mass_0.double().numpy(), raw.states[k].double().numpy()
            shape = shapes(kept, k if raw.changes else 0)
            look = Look.of(*calls.pop(), shape, _disagreement(known, sampler).to(weights.device))
            yield Step(sampler.widened(known, k - h + 1), truth, mass / mass.sum(), look)


class _Shapes:
    """The shape of each mesh of a series, computed once for frames that share theirs."""

    def __init__(self, spec: SampleSpec) -> None:
        self.spec = spec
        self.known: dict[int, Tensor] = {}

    def __call__(self, frames: Sequence[Mesh], k: int) -> Float[Tensor, "1 width"]:
        if k not in self.known:
            self.known = {k: shape_of(frames[k], self.spec)}
        return self.known[k]


def _disagreement(known: Uncertain, sampler: Sampler) -> Float[Tensor, " n_nodes"]:
    """Variance between the samples, in that of the states of the training data, mean over the targets."""
    scale = sampler.operator.blueprint.normalisation.states
    assert scale is not None
    return torch.as_tensor((known.epistemic / scale.std.double().numpy() ** 2).mean(1))


@contextlib.contextmanager
def watched(model: nn.Module, see: Callable[[Batch, Output, list[Tensor]], object]) -> Iterator[None]:
    """While it is open, tell what the model is given, what it makes of it, and what its last layers are given."""
    features: dict[int, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, s=s: features.__setitem__(s, inputs[0]))
        for s, layer in enumerate(last_layers(model))
    ]
    told = lambda _, inputs, output: see(inputs[0], output, [features[s] for s in range(len(features))])  # noqa: E731
    hooks.append(model.register_forward_hook(lambda *call: told(*call) and None))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def roll_out(
    sampler: Sampler,
    frames: Sequence[Mesh],
    path: Path,
    *,
    detector: Detector | None = None,
    finish: Callable[[int, Mesh, Uncertain], Mesh] = lambda step, mesh, known: mesh,
    **options: Any,
) -> SampledRollout:
    """Roll out each sample from the same first frames, then write mean and standard deviation frame by frame.

    The samples are joint through time: frame n of sample k follows from frame n − 1 of sample k. They lie in
    ``<stem>_samples/<k>.pvd``; an interrupted rollout goes on from them.

    Args:
        sampler: of a case with [time].
        frames, path, options: as for :func:`gno.train.rollout.roll_out`.
        detector: says of each step how new it is; the frames get its map and scores.
        finish: what else a frame gets, from the number of its step, the mesh and its states.

    Returns:
        What became of it; where samples diverged, as many frames as all of them have.

    Raises:
        ValueError, Interrupted: as :func:`gno.train.rollout.roll_out`.
    """
    start, parts = time.monotonic(), []
    squares: list[Squares] = []
    blueprint, resume = sampler.operator.blueprint, options.pop("resume", False)
    shapes, settings = _Shapes(blueprint.spec), blueprint.case.time
    assert settings is not None
    kept = frames[:: settings.stride]
    changes, old = mesh_changes(kept), earlier_rollout(path, blueprint.spec.targets)

    def see(batch: Batch, output: Output, features: list[Tensor]) -> None:
        assert settings is not None and detector is not None
        k = min(settings.history + len(squares), len(kept) - 1) if changes else 0
        unknown = torch.zeros_like(batch.mass_0, dtype=torch.float64)
        look = Look.of(batch, output, features, shapes(kept, k), unknown)
        squares.append(detector.squares(look))

    for k, model in enumerate(sampler.models):
        target, looks = sample_folder(path) / f"{k}.pvd", k == 0 and detector is not None
        with watched(model, see) if looks else contextlib.nullcontext():
            # what is looked at must be computed, also where the frames are there
            goes_on = resume and not looks
            part = roll_out_one(model, blueprint, frames, target, resume=goes_on, **options)
        parts.append(part)
    for file in old:
        file.unlink(missing_ok=True)
    found = _write_mean(path, [part.path for part in parts], sampler, settings.history, squares, detector, finish)
    lost = [f"sample {k} {part.diverged}" for k, part in enumerate(parts) if part.diverged]
    said = f"{len(lost)} of {len(parts)} samples diverged; {lost[0]}" if lost else None
    n_frames = min(part.n_frames for part in parts)
    return SampledRollout(path, n_frames, time.monotonic() - start, said, tuple(found))


def _write_mean(
    path: Path,
    paths: Sequence[Path],
    sampler: Sampler,
    history: int,
    squares: Sequence[Squares],
    detector: Detector | None,
    finish: Callable[[int, Mesh, Uncertain], Mesh],
) -> list[Novelty]:
    """The frames of all samples as one; what the detector says of each step."""
    targets = sampler.operator.blueprint.spec.targets
    predicted = [FieldSpec(PREFIX + field.name, "point", field.n_components) for field in targets]
    series = [read_series(source) for source in paths]
    n_frames, files, found = min(map(len, series)), [], []
    for j in range(n_frames):
        meshes, step = [frames[j] for frames in series], j - history
        known = Uncertain(np.stack([values_of(mesh, predicted).double().numpy() for mesh in meshes]))
        wide = sampler.widened(known, step + 1) if step >= 0 else known
        mesh = with_values(meshes[0], wide, node_mass(meshes[0]), targets, PREFIX)
        if detector is not None:
            novelty = None
            if 0 <= step < len(squares):
                novelty = detector.judge(squares[step].disagreeing(_disagreement(known, sampler), detector.usual))
                found.append(novelty)
            mesh = with_novelty(mesh, novelty)
        files.append(frame_file(path, j))
        write(finish(step + 1, mesh, wide), files[-1])
    write_collection(path, files, list(series[0].times[:n_frames]))
    return found
