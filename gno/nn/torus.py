"""Where coordinates repeat: how the levels of a batch measure offsets and distances."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

from gno.graph.segment import Edges
from gno.mesh import Lattice, nearest_image
from gno.mesh.periodic import Images, from_rows


def torus_on(batch: Batch, edges: Edges, sender: int, receiver: int) -> Images | None:
    """How offsets on edges from nodes of one level to those of the same or a finer one are measured, in units of the
    case; None if nothing repeats."""
    if f"torus_{sender}" not in batch:
        return None
    rows = batch[f"torus_{sender}"]
    if f"size_{sender}" not in batch:  # one for each mesh
        mesh = batch[f"pos_{receiver}_batch"].index_select(0, edges.receiver)
        return from_rows(rows if len(rows) == 1 else rows.index_select(0, mesh))
    here, there = batch[f"torus_{receiver}"].index_select(0, edges.receiver), rows.index_select(0, edges.sender)
    return from_rows(there).meet(from_rows(here))  # type: ignore[arg-type]  # all of a batch are of one kind


def between(
    fine: Float[Tensor, "n dim"], coarse: Float[Tensor, "n_coarse dim"], edges: Edges, torus: Images | None
) -> Float[Tensor, "n_edges dim"]:
    """Offset of the sender, or of its nearest image, from the receiver on each edge."""
    return nearest_image(coarse.index_select(0, edges.sender) - fine.index_select(0, edges.receiver), torus)


def placed(batch: Batch, s: int, position: Float[Tensor, "n dim"], mesh: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """Positions of level s whose distances are those that attention is to see.

    A coordinate that repeats after L becomes two, on a circle of length L. The distance d of two places is then
    (L/π) sin(π d/L): what it was for near ones, smooth where they are opposite, and the same wherever the cut is. In
    a cell that is not rectangular each wave of the lattice is such a circle.
    """
    if f"torus_{s}" not in batch:
        return position
    rows = batch[f"torus_{s}"]
    torus = from_rows(rows if f"size_{s}" in batch or len(rows) == 1 else rows.index_select(0, mesh))
    if isinstance(torus, Lattice):
        return _on_waves(torus, position)
    angle, radius = 2 * math.pi * torus.wave * position, torus.length / (2 * math.pi)
    straight = torch.where(torus.length > 0, 0.0, torus.seen) * position
    return torch.cat([straight + radius * angle.sin(), radius * angle.cos()], dim=1)


def _on_waves(lattice: Lattice, position: Float[Tensor, "n 3"]) -> Float[Tensor, "n 15"]:
    vectors, waves, radii = lattice.part(2), lattice.part(4), lattice.part(5).flatten(1) / (2 * math.pi)
    straight = torch.where(vectors.abs().sum(1) > 0, 0.0, lattice.seen) * position
    angle = 2 * math.pi * (position[:, None] * waves).sum(2)
    return torch.cat([straight, radii * angle.sin(), radii * angle.cos()], dim=1)
