"""Where coordinates repeat: how the levels of a batch measure offsets and distances."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph.segment import Edges
from gno.mesh import Torus, nearest_image


def torus_on(batch: Batch, edges: Edges, sender: int, receiver: int) -> Torus | None:
    """How offsets on edges from nodes of one level to those of the same or a finer one are measured, in units of the
    case; None if nothing repeats."""
    if f"torus_{sender}" not in batch:
        return None
    rows = batch[f"torus_{sender}"]
    if f"size_{sender}" not in batch:  # one for each mesh
        mesh = batch[f"pos_{receiver}_batch"].index_select(0, edges.receiver)
        return _torus(rows if len(rows) == 1 else rows.index_select(0, mesh))
    here, there = batch[f"torus_{receiver}"].index_select(0, edges.receiver), rows.index_select(0, edges.sender)
    return _torus(there).meet(_torus(here))


def _torus(rows: Float[Tensor, "n 3 dim"]) -> Torus:
    return Torus(*rows.unbind(1))


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
    if f"torus_{s}" not in batch:
        return position
    rows = batch[f"torus_{s}"]
    torus = _torus(rows if f"size_{s}" in batch or len(rows) == 1 else rows.index_select(0, mesh))
    angle, radius = 2 * math.pi * torus.wave * position, torus.length / (2 * math.pi)
    straight = torch.where(torus.length > 0, 0.0, torus.seen) * position
    return torch.cat([straight + radius * angle.sin(), radius * angle.cos()], dim=1)
