"""Sampler: whatever answers a mesh with several equally likely outputs, and the uncertain prediction that follows."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph import MeshData, build_sample, collate
from gno.mesh import Mesh
from gno.nn import Output
from gno.train.blueprint import Blueprint
from gno.train.predict import PREFIX, Answer, Prediction, in_precision, prediction
from gno.train.run import Run, mesh_of
from gno.uq.uncertain import Uncertain

# What the standard deviation of a field is called, beside the mean.
STD_PREFIX = "std_"


@dataclasses.dataclass(frozen=True)
class NoisyOutput(Output):
    """An output that also says how large the noise of the data is.

    Args:
        variance: σ² at every scale, (n_s, n_outputs), in normalised units.
    """

    variance: tuple[Tensor, ...] = ()


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


@dataclasses.dataclass(frozen=True)
class UncertainPrediction(Prediction):
    """A prediction with its doubt: ``mesh`` and ``levels`` hold means and, as ``std_<target>``, standard deviations.

    Args:
        targets: names of the predicted fields.
        samples: one prediction per sample; the fields of one sample belong together, over nodes, fields and scales.
        noise: variances of the noise around each sample, in predictions of the same form; empty if there is none.
    """

    targets: tuple[str, ...]
    samples: tuple[Prediction, ...]
    noise: tuple[Prediction, ...] = ()

    def field(self, name: str, *, level: int = 0) -> Uncertain:
        """A target at the nodes of a level, 0 being the mesh.

        Raises:
            ValueError: no such target or level.
        """
        if name not in self.targets:
            raise ValueError(f"field: expected one of {', '.join(self.targets)}, got '{name}'")
        if not 0 <= level <= len(self.levels):
            raise ValueError(f"level: expected 0 to {len(self.levels)}, got {level}")
        return _stacked(self.samples, self.noise, lambda p: (p.mesh, *p.levels)[level].point_fields[PREFIX + name])

    def map(self, function: Callable[[Mesh], np.ndarray]) -> Uncertain:
        """What follows from the predicted fields (stress, a reaction, an energy), from each sample as a whole.

        Args:
            function: a mesh that holds the targets, as one that a solver left, to whatever follows from them.
        """
        return Uncertain(np.stack([np.asarray(function(solved(p, self.targets)), float) for p in self.samples]))


class Sampler(abc.ABC):
    """A way to know how sure an operator is: equally likely outputs for a batch."""

    @property
    @abc.abstractmethod
    def operator(self) -> Run:
        """The operator, or one of them: how it sees a mesh, its units, device and precision."""

    @abc.abstractmethod
    def outputs(self, batch: Batch) -> Iterator[Output]:
        """Samples of the output for a normalised batch; the same ones in every call."""

    def predict(self, mesh: Mesh | str | Path) -> UncertainPrediction:
        """Fields on one mesh (or file), and on its coarser levels, with their doubt.

        Raises:
            ValueError: the mesh lacks an input.
        """
        return next(self.predict_many([mesh]))

    def predict_many(self, meshes: Iterable[Mesh | str | Path]) -> Iterator[UncertainPrediction]:
        """Predictions in the order of the meshes, computed as they are asked for."""
        for source in meshes:
            mesh, start = mesh_of(source), time.perf_counter()
            sample = build_sample(mesh, self.operator.blueprint.spec)
            prepared = time.perf_counter()
            levels = self.levels(sample)
            yield _prediction(mesh, levels, self.operator.blueprint, time.perf_counter() - prepared, prepared - start)

    @torch.inference_mode()
    def levels(self, sample: MeshData) -> list[Level]:
        """The samples for one raw sample, finest level first."""
        parameter = next(self.operator.model.parameters())
        ready = in_precision(self.operator.blueprint.normalisation.apply(sample), parameter.dtype)
        batch = collate([ready]).to(parameter.device)
        outputs = list(self.outputs(batch))
        return [self._level(outputs, s, batch) for s in range(len(outputs[0].fields))]

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


def solved(prediction: Prediction, targets: Sequence[str]) -> Mesh:
    """The mesh with predicted fields in the place of the targets, as if a solver had left them."""
    mesh = prediction.mesh
    stores = {
        name: {**store, **{t: store[PREFIX + t] for t in targets if PREFIX + t in store}}
        for name, store in _stores(mesh).items()
    }
    return mesh.replace(**stores)


def _stores(mesh: Mesh) -> dict[str, dict[str, np.ndarray]]:
    return {name: dict(getattr(mesh, name)) for name in ("point_fields", "cell_fields", "global_fields")}


def _mapped(tensors: Iterable[Tensor], function: Callable[[Tensor], Tensor]) -> np.ndarray:
    return np.stack([function(tensor.cpu()).numpy() for tensor in tensors])


def _stacked(
    samples: Sequence[Prediction], noise: Sequence[Prediction], values: Callable[[Prediction], np.ndarray]
) -> Uncertain:
    variances = np.stack([values(p) for p in noise]) if noise else None
    return Uncertain(np.stack([values(p) for p in samples]), variances)


def _prediction(
    mesh: Mesh, levels: Sequence[Level], blueprint: Blueprint, seconds: float, prepare_seconds: float
) -> UncertainPrediction:
    def one(fields: Sequence[np.ndarray]) -> Prediction:
        mass, position = ([torch.as_tensor(getattr(x, name)) for x in levels] for name in ("mass", "position"))
        answer = Answer([torch.as_tensor(f) for f in fields], mass, position, None, seconds)
        return prediction(mesh, answer, blueprint, prepare_seconds)

    quantities = [level.quantity for level in levels]
    samples = tuple(one([q.samples[k] for q in quantities]) for k in range(quantities[0].n_samples))
    noise: tuple[Prediction, ...] = ()
    if quantities[0].noise is not None:
        noise = tuple(one([q.noise[k] for q in quantities if q.noise is not None]) for k in range(len(samples)))
    mean, targets = one([q.mean for q in quantities]), tuple(field.name for field in blueprint.spec.targets)
    meshes = [
        _with_std(at, [(p.mesh, *p.levels)[s] for p in samples], [(p.mesh, *p.levels)[s] for p in noise], targets)
        for s, at in enumerate((mean.mesh, *mean.levels))
    ]
    return UncertainPrediction(meshes[0], tuple(meshes[1:]), seconds, prepare_seconds, targets, samples, noise)


def _with_std(mean: Mesh, samples: Sequence[Mesh], noise: Sequence[Mesh], targets: Sequence[str]) -> Mesh:
    """The mean with the standard deviation of every predicted field beside it, at nodes, on cells, and as a whole."""
    stores = _stores(mean)
    for name, store in stores.items():
        for target in targets:
            key = PREFIX + target
            if key in getattr(samples[0], name):
                variances = np.stack([getattr(m, name)[key] for m in noise]) if noise else None
                values = np.stack([getattr(m, name)[key] for m in samples])
                store[STD_PREFIX + target] = Uncertain(values, variances).std
    return mean.replace(**stores)
