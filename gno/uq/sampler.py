"""Sampler: whatever answers a mesh with several equally likely outputs."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import MeshData, build_sample, collate
from gno.mesh import Mesh
from gno.nn import NoisyOutput, Output
from gno.train.evaluate import Evaluation, row_of
from gno.train.memory import pages_kept
from gno.train.physics import with_given
from gno.train.predict import Answer, Prediction, in_precision, prediction
from gno.train.rollout import Rollout
from gno.train.run import Run, evaluate_series
from gno.train.sources import frames_of, mesh_of, without_targets
from gno.train.time_metrics import RolloutEvaluation
from gno.uncertain import Uncertain
from gno.uq.rollout import roll_out


@dataclasses.dataclass(frozen=True)
class Answered:
    """One mesh, what the operator sees of it, and what each sample says.

    Args:
        sample: raw, physical units. batch: normalised, on the operator's device.
        outputs: one per sample.
        seconds: that the outputs took. prepare_seconds: that the sample took.
    """

    mesh: Mesh
    sample: MeshData
    batch: Batch
    outputs: tuple[Output, ...]
    seconds: float
    prepare_seconds: float


@dataclasses.dataclass(frozen=True)
class Level:
    """One mesh on one scale, on the CPU, in physical units.

    Args:
        quantity: all targets, (n_s, n_targets).
        mass: shares, one in sum. position: in units of the case. Means over the samples, if they pool differently.
        truth: the targets of the sample under the samples' own restrictions, if it has any.
    """

    quantity: Uncertain
    mass: Float[np.ndarray, " n_s"]
    position: Float[np.ndarray, "n_s dim"]
    truth: Float[np.ndarray, "n_s n_targets"] | None


class Sampler(abc.ABC):
    """A way to know how sure an operator is: equally likely outputs for a batch."""

    @property
    @abc.abstractmethod
    def operator(self) -> Run:
        """The operator, or one of them: how it sees a mesh, its units, device and precision."""

    @property
    @abc.abstractmethod
    def models(self) -> tuple[nn.Module, ...]:
        """One operator per sample, the same ones in every call: each answers any mesh, and any step in time."""

    def outputs(self, batch: Batch, *, attention: bool = False) -> Iterator[Output]:
        """Samples of the output for a normalised batch, with the attention shares of the scales if they are wanted."""
        return (model(batch, return_attention=attention) for model in self.models)

    def noise(self, outputs: Sequence[Output]) -> Sequence[Sequence[Float[Tensor, "n_s n_targets"]]] | None:
        """Variance of the noise around each sample, by scale, normalised: what the heads of that scale say."""
        noisy = [output for output in outputs if isinstance(output, NoisyOutput)]
        return list(zip(*(output.variance for output in noisy), strict=True)) or None

    def widened(self, quantity: Uncertain, step: int | None = None) -> Uncertain:
        """All targets side by side, (n, n_targets), with the spread that held-out meshes found honest, if any did.

        Args:
            quantity: as the samples are. step: of a rollout, from 1.
        """
        return quantity

    def predict(self, mesh: Mesh | str | Path) -> Prediction:
        """Fields on one mesh (or file), and on its coarser levels, with their doubt.

        Raises:
            ValueError: the mesh lacks an input.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of the meshes, computed as they are asked for."""
        for source in meshes:
            yield self.prediction(self.answer(source, attention=True, truth=False))

    def answer(self, source: Mesh | str | Path, *, attention: bool = False, truth: bool = True) -> Answered:
        """What each sample says of one mesh or file, and if wanted which scales it attended to and what is true."""
        mesh, start = mesh_of(source, self.operator.blueprint.spec), time.perf_counter()
        sample = self.sample(mesh, truth=truth)
        prepared = time.perf_counter()
        batch, outputs = self._ask(sample, attention)
        return Answered(mesh, sample, batch, outputs, time.perf_counter() - prepared, prepared - start)

    def prediction(self, answered: Answered) -> Prediction:
        """An answer as meshes, in the user's units."""
        levels = self.levels_of(answered)
        fields, mass, position = (
            [torch.as_tensor(value) for value in column]
            for column in zip(*((x.quantity.mean, x.mass, x.position) for x in levels), strict=True)
        )
        answer = Answer(fields, mass, position, _attention(answered.outputs), answered.seconds)
        quantities = [level.quantity for level in levels]
        return prediction(answered.mesh, answer, self.operator.blueprint, answered.prepare_seconds, quantities)

    def evaluate(self, meshes: Iterable[Mesh | str | Path]) -> Evaluation:
        """Errors of the mean against the fields in the meshes or files; of the doubt, :func:`gno.uq.evaluate`.

        Raises:
            ValueError: a mesh without a target, or no mesh at all.
        """
        rows, blueprint = [], self.operator.blueprint
        targets, scale = blueprint.spec.targets, blueprint.normalisation.targets
        for answered in self.answers_with_truth(meshes):
            levels, sample, name = self.levels_of(answered), answered.sample, answered.mesh.source
            fields, truth, mass = (
                [torch.as_tensor(value) for value in column]
                for column in zip(*((x.quantity.mean, x.truth, x.mass) for x in levels), strict=True)
            )
            rows.append(row_of(name, sample, fields, truth, mass, targets, answered.seconds, scale=scale))
        return Evaluation(tuple(rows))

    def answers_with_truth(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Answered]:
        """Answers, mesh after mesh, of meshes with all targets.

        Raises:
            ValueError: a mesh without a target, or no mesh at all.
        """
        answered = None
        for source in meshes:
            answered = self.answer(source)
            if answered.sample.y is None:
                for field in self.operator.blueprint.spec.targets:
                    field.values(answered.mesh)  # raises, and says what is there
            yield answered
        if answered is None:
            raise ValueError("meshes: expected at least one, got none")

    def roll_out(self, series: Sequence[Mesh] | Mesh | str | Path, path: str | Path, **options: Any) -> Rollout:
        """As :meth:`gno.train.Run.roll_out`, each sample its own way: :func:`gno.uq.rollout.roll_out`."""
        source = Path(series) if isinstance(series, str) else series
        return roll_out(self, frames_of(source, self.operator.blueprint.spec), Path(path), **options)

    def evaluate_rollouts(self, series: Iterable[Sequence[Mesh] | str | Path]) -> RolloutEvaluation:
        """As :meth:`gno.train.Run.evaluate_rollouts`, of the mean, with the spread of the samples beside the error.

        Raises:
            ValueError: a series without a state or a step, or no series at all.
        """
        return evaluate_series(self.models, self.operator.blueprint, series)

    def sample(self, mesh: Mesh, *, truth: bool = True) -> MeshData:
        """What the operator sees of a mesh, given values of its physics included, and the targets if it has them."""
        blueprint, mesh = self.operator.blueprint, self.operator.blueprint.spec.seen(mesh)
        seen = mesh if truth else without_targets(mesh, blueprint.spec)
        return with_given(build_sample(seen, blueprint.spec), mesh, blueprint.case, blueprint.spec)

    def levels(self, sample: MeshData) -> list[Level]:
        """The samples for one raw sample, finest level first."""
        return self._levels(sample, *self._ask(sample))

    def levels_of(self, answered: Answered) -> list[Level]:
        """The samples of an answer, finest level first."""
        return self._levels(answered.sample, answered.batch, answered.outputs)

    def batch(self, sample: MeshData) -> Batch:
        """One raw sample, normalised, in the operator's precision and on its device."""
        parameter = next(self.operator.model.parameters())
        ready = in_precision(self.operator.blueprint.normalisation.apply(sample), parameter.dtype)
        return collate([ready]).to(parameter.device)

    @torch.inference_mode()
    def _ask(self, sample: MeshData, attention: bool = False) -> tuple[Batch, tuple[Output, ...]]:
        batch = self.batch(sample)
        with pages_kept(batch.mass_0):
            return batch, tuple(self.outputs(batch, attention=attention))

    @torch.inference_mode()
    def _levels(self, sample: MeshData, batch: Batch, outputs: Sequence[Output]) -> list[Level]:
        fields, noise = _on_common_anchors(outputs), self.noise(outputs)
        noises = [None] * len(fields) if noise is None else noise
        levels = [self._level(outputs, *parts, s, batch) for s, parts in enumerate(zip(fields, noises, strict=True))]
        levels = [dataclasses.replace(level, quantity=self.widened(level.quantity)) for level in levels]
        if "fixed" in sample:
            levels[0] = dataclasses.replace(levels[0], quantity=_given(levels[0].quantity, sample))
        return levels

    def _level(
        self, outputs: Sequence[Output], fields: Sequence[Tensor], noise: Sequence[Tensor] | None, s: int, batch: Batch
    ) -> Level:
        scale, truth = self.operator.blueprint.normalisation.targets, None
        variance = _mapped(noise, Tensor.double) * scale.std.numpy() ** 2 if noise else None
        if batch.y is not None:
            pooled = {id(output.transfers): output for output in outputs}.values()
            truth = _mapped((output.restrict(batch.y)[s] for output in pooled), scale.decode).mean(0)
        quantity = Uncertain(_mapped(fields, scale.decode), variance)
        mass, position = (_mapped((getattr(o, n)[s] for o in outputs), Tensor.double) for n in ("mass", "position"))
        return Level(quantity, mass.mean(0), position.mean(0), truth)


def _on_common_anchors(outputs: Sequence[Output]) -> list[Sequence[Float[Tensor, "n_s n_targets"]]]:
    """Normalised fields of all samples on each scale, without what they differ by only since their anchors differ.

    A sample that pools in its own way has anchors of its own: what its restriction makes of one and the same field, the
    mean on the mesh, is no doubt, and is replaced by the mean over all restrictions. The mean of the samples stays.
    """
    levels: list[Sequence[Tensor]] = [[output.fields[s] for output in outputs] for s in range(len(outputs[0].fields))]
    if len({id(output.transfers) for output in outputs}) == 1:
        return levels
    mean = torch.stack(list(levels[0])).mean(0)
    same = [torch.stack(level) for level in zip(*(output.restrict(mean) for output in outputs), strict=True)]
    return [levels[0], *(list(torch.stack(list(u)) - r + r.mean(0)) for u, r in zip(levels[1:], same[1:], strict=True))]


def _given(quantity: Uncertain, sample: MeshData) -> Uncertain:
    """With given values to the bit, and without noise there."""
    fixed, given = sample.fixed.numpy(), sample.given.numpy()
    noise = None if quantity.noise is None else np.where(fixed, 0.0, quantity.noise)
    return Uncertain(np.where(fixed, given, quantity.samples), noise)


def _attention(outputs: Sequence[Output]) -> list[Tensor] | None:
    """Mean over the samples, level by level; they are shares, so that theirs are too."""
    known = [output.attention for output in outputs if output.attention is not None]
    return [torch.stack(level).double().mean(0).cpu() for level in zip(*known, strict=True)] if known else None


def _mapped(tensors: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> np.ndarray:
    return np.stack([function(tensor.cpu()).numpy() for tensor in tensors])
