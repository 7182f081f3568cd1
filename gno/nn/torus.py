"""Where coordinates repeat: how the levels of a batch measure offsets and distances."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph.segment import Edges
from gno.mesh import Torus, nearest_image


def torus_of(batch: Batch, s: int, mesh: Int[Tensor, " n"]) -> Torus | None:
    """How offsets to and among the nodes of level s are measured, in units of the case; None if nothing repeats.

    Args:
        mesh: which mesh of the batch each offset belongs to.
    """
    if f"torus_{s}" not in batch:
        return None
    rows = batch[f"torus_{s}"]
    return Torus(*(rows if len(rows) == 1 else rows.index_select(0, mesh)).unbind(1))


def between(
    fine: Float[Tensor, "n dim"], coarse: Float[Tensor, "n_coarse dim"], edges: Edges, torus: Torus | None
) -> Float[Tensor, "n_edges dim"]:
    """Offset of the sender, or of its nearest image, from the receiver on each edge."""
    return nearest_image(coarse.index_select(0, edges.sender) - fine.index_select(0, edges.receiver), torus)


def placed(batch: Batch, s: int, position: Float[Tensor, "n dim"], mesh: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """Positions of level s whose distances are those that attention is to see.

    A coordinate that repeats after L becomes two, on a circle of length L. The distance d of two places is then
    (L/π) sin(π d/L): what it was for near ones, smooth where they are opposite, and the same wherever the cut is.
    """
    torus = torus_of(batch, s, mesh)
    if torus is None:
        return position
    angle, radius = 2 * math.pi * torus.wave * position, torus.length / (2 * math.pi)
    straight = torch.where(torus.length > 0, 0.0, torus.seen) * position
    return torch.cat([straight + radius * angle.sin(), radius * angle.cos()], dim=1)
