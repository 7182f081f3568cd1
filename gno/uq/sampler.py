"""Sampler: whatever answers a mesh with several equally likely outputs."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph import MeshData, build_sample, collate
from gno.mesh import Mesh
from gno.nn import NoisyOutput, Output
from gno.train.physics import with_given
from gno.train.predict import Answer, Prediction, in_precision, prediction
from gno.train.run import Run, mesh_of
from gno.uncertain import Uncertain


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

    def outputs(self, batch: Batch) -> Iterator[Output]:
        """Samples of the output for a normalised batch."""
        return (model(batch) for model in self.models)

    def predict(self, mesh: Mesh | str | Path) -> Prediction:
        """Fields on one mesh (or file), and on its coarser levels, with their doubt.

        Raises:
            ValueError: the mesh lacks an input.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[Prediction]:
        """Predictions in the order of the meshes, computed as they are asked for."""
        for source in meshes:
            mesh, start = mesh_of(source), time.perf_counter()
            sample = self.sample(mesh)
            prepared = time.perf_counter()
            levels = self.levels(sample)
            seconds = time.perf_counter() - prepared
            fields, mass, position = (
                [torch.as_tensor(value) for value in column]
                for column in zip(*((x.quantity.mean, x.mass, x.position) for x in levels), strict=True)
            )
            answer = Answer(fields, mass, position, None, seconds)
            quantities = [level.quantity for level in levels]
            yield prediction(mesh, answer, self.operator.blueprint, prepared - start, quantities)

    def sample(self, mesh: Mesh) -> MeshData:
        """What the operator sees of a mesh, given values of its physics included."""
        blueprint = self.operator.blueprint
        return with_given(build_sample(mesh, blueprint.spec), mesh, blueprint.case, blueprint.spec)

    def batch(self, sample: MeshData) -> Batch:
        """One raw sample, normalised, in the operator's precision and on its device."""
        parameter = next(self.operator.model.parameters())
        ready = in_precision(self.operator.blueprint.normalisation.apply(sample), parameter.dtype)
        return collate([ready]).to(parameter.device)

    @torch.inference_mode()
    def levels(self, sample: MeshData) -> list[Level]:
        """The samples for one raw sample, finest level first."""
        batch = self.batch(sample)
        outputs = list(self.outputs(batch))
        levels = [self._level(outputs, s, batch) for s in range(len(outputs[0].fields))]
        if "fixed" in sample:
            levels[0] = dataclasses.replace(levels[0], quantity=_given(levels[0].quantity, sample))
        return levels

    def _level(self, outputs: Sequence[Output], s: int, batch: Batch) -> Level:
        scale, noise, truth = self.operator.blueprint.normalisation.targets, None, None
        if isinstance(outputs[0], NoisyOutput):
            noise = _mapped((o.variance[s] for o in outputs if isinstance(o, NoisyOutput)), Tensor.double)
            noise *= scale.std.numpy() ** 2
        if batch.y is not None:
            pooled = {id(output.transfers): output for output in outputs}.values()
            truth = _mapped((output.restrict(batch.y)[s] for output in pooled), scale.decode).mean(0)
        quantity = Uncertain(_mapped((output.fields[s] for output in outputs), scale.decode), noise)
        mass, position = (_mapped((getattr(o, n)[s] for o in outputs), Tensor.double) for n in ("mass", "position"))
        return Level(quantity, mass.mean(0), position.mean(0), truth)


def _given(quantity: Uncertain, sample: MeshData) -> Uncertain:
    """With given values to the bit, and without noise there."""
    fixed, given = sample.fixed.numpy(), sample.given.numpy()
    noise = None if quantity.noise is None else np.where(fixed, 0.0, quantity.noise)
    return Uncertain(np.where(fixed, given, quantity.samples), noise)


def _mapped(tensors: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> np.ndarray:
    return np.stack([function(tensor.cpu()).numpy() for tensor in tensors])
