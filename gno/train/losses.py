"""Losses: named callables of a batch and an output, so that terms can be added without touching the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph import FieldSpec
from gno.graph.batch import measure
from gno.graph.segment import segment_sum
from gno.nn import Output
from gno.train.normalise import Scale, columns_of

Loss = Callable[[Batch, Output], Tensor]


@dataclasses.dataclass(frozen=True)
class Term:
    """One summand of the training loss: ``weight · loss(batch, output)``, logged without its weight.

    Args:
        name: of its columns in the log. loss: a mean over the meshes of a batch. weight: as the user wants it.
        share: of the training meshes that have it; the others count as zero in the mean.
    """

    name: str
    loss: Loss
    weight: float = 1.0
    share: float = 1.0


# A mesh whose field is much weaker than usual is not worth ever more: below this share of the usual size
# its error counts absolutely.
FLOOR = 0.1


def data_terms(fields: Sequence[FieldSpec], scale: Scale, *, coarse_weight: float = 0.3) -> list[Term]:
    """One term per target field: its relative error on the mesh and on every coarser level.

    Args:
        fields: the targets, in the order of the columns of ``batch.y``.
        scale: their normalisation.
        coarse_weight: weight of the coarse levels together, against 1 for the mesh.
    """
    return [Term(field.name, FieldLoss(columns, scale, coarse_weight)) for columns, field in columns_of(fields)]


class FieldLoss:
    """Mass-weighted relative L2 of one field, over the levels, averaged over the graphs of a batch.

        L = Σ_s w_s ⟨ ‖u_s − R_s y‖ / √(‖Y‖²/rms² + FLOOR²) ⟩,     ‖v‖² = Σ_i m_i |v_i|² / Σ_i m_i

    with the :func:`~gno.graph.batch.measure` of the nodes as m. u and y are normalised, Y is y in physical units and
    rms its usual size. So L is the relative error that evaluation reports (there by mass, also on graded meshes),
    times the constant rms/std of the field: one with a large mean and a small spread (a temperature in kelvin) trains
    as well as one around zero. The size ‖Y‖ is that of level 0 on every level, since a coarse average can be zero.
    Targets R_s y carry no gradient.
    """

    def __init__(self, columns: slice, scale: Scale, coarse_weight: float) -> None:
        self.columns = columns
        self.mean, self.std = scale.mean[columns].float(), scale.std[columns].float()
        self.rms = float(scale.rms[columns][0])
        self.coarse_weight = coarse_weight

    def __call__(self, batch: Batch, output: Output) -> Tensor:
        targets = output.restrict(batch.y[:, self.columns])
        self.mean, self.std = self.mean.to(targets[0]), self.std.to(targets[0])  # moved once
        physical = targets[0] * self.std + self.mean
        n_graphs = batch.num_graphs
        weight = [measure(batch, s, mass) for s, mass in enumerate(output.mass)]
        size2 = mean_square(physical / self.rms, weight[0], output.batch[0], n_graphs) + FLOOR**2
        total = torch.zeros((), dtype=size2.dtype, device=size2.device)
        n_coarse = max(1, len(targets) - 1)
        for s, target in enumerate(targets):
            share = 1.0 if s == 0 else self.coarse_weight / n_coarse
            difference = output.fields[s][:, self.columns].to(target.dtype) - target
            error2 = mean_square(difference, weight[s], output.batch[s], n_graphs)
            # the root has no derivative at zero: 1e-6 is where it stops to matter
            total = total + share * mean_of_labelled(((error2 + 1e-12) / size2).sqrt(), batch)
        return total


def mean_of_labelled(values: Float[Tensor, " n_graphs"], batch: Batch) -> Float[Tensor, ""]:
    """Mean over the meshes; those without targets add nothing, so that every mesh with them counts the same."""
    return torch.where(batch.labelled, values, 0.0).mean() if "labelled" in batch else values.mean()


def mean_square(
    values: Float[Tensor, "n_nodes n_columns"],
    mass: Float[Tensor, " n_nodes"],
    graph: Int[Tensor, " n_nodes"],
    n_graphs: int,
) -> Float[Tensor, " n_graphs"]:
    """Σ_i m_i |v_i|² / Σ_i m_i of every graph, whose nodes follow one another; summed in a fixed order on any device.

    >>> mean_square(torch.tensor([[3.0], [1.0]]), torch.tensor([1.0, 3.0]), torch.zeros(2, dtype=torch.long), 1)
    tensor([3.])
    """
    mass = mass.detach().to(values.dtype)
    ptr = torch.searchsorted(graph, torch.arange(n_graphs + 1, device=graph.device))
    total, square = segment_sum(torch.stack([mass, mass * values.square().sum(1)], dim=1), ptr).unbind(1)
    return square / total
