"""Through the scales: how much a field varies, and how sure it is, when it is averaged over ever larger anchors.

Averaging is the pooling's own restriction R. For any field f on a scale, with masses m of nodes and M of anchors, the
law of total variance holds exactly, whatever the weights between them,

    Σ_i m_i |f_i|² = Σ_j M_j |(Rf)_j|² + (within the anchors)

for f the deviation from its mean, for the deviation of a sample from the mean of all, and for the error. So the
variance that coarse-graining loses between two scales is the difference of the variances on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

from gno.nn import NoisyOutput, Output
from gno.nn.pooling import Transfer
from gno.train.normalise import columns_of
from gno.uncertain import Uncertain
from gno.uq.sampler import Answered, Sampler


@dataclasses.dataclass(frozen=True)
class ScaleVariance:
    """One field, averaged to one scale; sums over components, means over nodes by mass, square of the field's unit.

    Args:
        nodes: of the mesh, or anchors.
        reference: variance of the truth over the domain.
        mean: the same of the mean prediction, which is smoother than its samples.
        samples: the same of the samples, on average: what the variance is expected to be.
        doubt: variance between the samples, Var(u_s).
        error: square of the error of the mean prediction.
    """

    nodes: float
    reference: float
    mean: float
    samples: float
    doubt: float
    error: float

    @staticmethod
    def average(parts: Sequence[ScaleVariance]) -> ScaleVariance:
        """Over meshes, each counting the same."""
        names = [field.name for field in dataclasses.fields(ScaleVariance)]
        return ScaleVariance(*(float(np.mean([getattr(part, name) for part in parts])) for name in names))

    def minus(self, coarser: ScaleVariance) -> ScaleVariance:
        """What is lost on the way to a coarser scale: the mean variance within its anchors."""
        names = [field.name for field in dataclasses.fields(ScaleVariance)][1:]
        return ScaleVariance(self.nodes, *(getattr(self, name) - getattr(coarser, name) for name in names))


def scale_variances(sampler: Sampler, answered: Answered) -> dict[str, list[ScaleVariance]]:
    """By field, finest scale first; everything is averaged by the pooling of the first sample.

    Raises:
        ValueError: the mesh lacks the targets.
    """
    if answered.sample.y is None:
        raise ValueError(f"mesh: expected one with the targets, got none of them ({answered.mesh.source})")
    known, output = sampler.levels_of(answered)[0].quantity, answered.outputs[0]
    truth = answered.sample.y.double().numpy()
    fields = np.concatenate([known.samples, truth[None]])  # (n_samples + 1, n_nodes, n_targets)
    levels = list(restricted(output, fields))
    return {
        field.name: [_variances(mass, values[..., columns]) for mass, values in levels]
        for columns, field in columns_of(sampler.operator.blueprint.spec.targets)
    }


def restricted(
    output: Output, fields: Float[np.ndarray, "n n_nodes c"]
) -> Iterator[tuple[Float[np.ndarray, " n_s"], Float[np.ndarray, "n n_s c"]]]:
    """Masses, and several fields on the mesh averaged to every scale by the output's own pooling, in float64."""
    n, _, c = fields.shape
    mass, values = output.mass[0].double().cpu(), torch.from_numpy(fields).movedim(0, 1).flatten(1)
    transfers = list(output.transfers)
    while True:
        yield (mass / mass.sum()).numpy(), values.unflatten(1, (n, c)).movedim(1, 0).numpy()
        if not transfers:
            return
        pooling = transfers.pop(0)
        exact = Transfer.build(pooling.edges, pooling.weights.double(), mass.to(pooling.weights.device))
        values, mass = exact.restrict(values.to(pooling.weights.device)).cpu(), exact.coarse_mass.cpu()


def averaged_noise(outputs: Sequence[NoisyOutput]) -> list[list[Float[Tensor, "n_s n_targets"]]]:
    """By scale and output, the variance of noise that is independent from node to node: ``Σ_i R_ji² σ_i²``."""
    squares = {id(output.transfers): _squared_restrictions(output.transfers) for output in outputs}
    nodes = [output.variance[0] for output in outputs]
    coarse = [
        [torch.as_tensor(square @ v.double().cpu().numpy(), device=v.device) for square in squares[id(o.transfers)]]
        for o, v in zip(outputs, nodes, strict=True)
    ]
    return [nodes, *map(list, zip(*coarse, strict=True))]


def _squared_restrictions(transfers: Sequence[Transfer]) -> list[csr_matrix]:
    """Squares of the entries of R from the nodes to every coarser scale."""
    found, whole = [], None
    for transfer in transfers:
        weights = transfer.restriction_weights().double().cpu().numpy()
        rows, columns = (index.cpu().numpy() for index in (transfer.edges.sender, transfer.edges.receiver))
        step = csr_matrix((weights, (rows, columns)), (len(transfer.coarse_mass), len(transfer.fine_mass)))
        whole = step if whole is None else step @ whole
        found.append(whole.power(2))
    return found


def _variances(mass: Float[np.ndarray, " n"], fields: Float[np.ndarray, "n_fields n c"]) -> ScaleVariance:
    """Of the samples, and of the truth, which is the last field."""

    def square(values: np.ndarray) -> float:
        return float(mass @ (values**2).sum(-1))

    def variance(field: np.ndarray) -> float:
        return square(field - mass @ field)

    known, truth = Uncertain(fields[:-1]), fields[-1]
    return ScaleVariance(
        len(mass),
        variance(truth),
        variance(known.mean),
        float(np.mean([variance(sample) for sample in known.samples])),
        float(mass @ known.epistemic.sum(-1)),
        square(known.mean - truth),
    )
