"""The near field: what surrounds a node, by distance and by direction, as far as anchors are apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.batch import near_edges
from gno.graph.segment import Edges, moments
from gno.mesh import nearest_image
from gno.nn.condition import Condition, Norm
from gno.nn.config import OperatorConfig
from gno.nn.mlp import mlp, side_by_side
from gno.nn.precision import shortened
from gno.nn.torus import torus_on

# Values that a node shows to its neighbours, over all shells; at least as many as there are dimensions and a scalar.
SHOWN = 32
LEAST_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Shells:
    """The shells around each node of the mesh, and what lies in them.

    Shell k of K is the hat ``max(0, 1 − |K r − k|)``, r the distance in radii: a kernel over the shells is linear
    between its values at r = k / K, and zero from r = 1 on.

    Args:
        edges: from nodes to shells, shell k of node i being number ``i K + k``.
        weights: of a node in a shell, its part of a ball of one radius times the hat: alone, and times each component
            of its direction.
        condition: global parameters of each mesh.
    """

    edges: Edges
    weights: Sequence[Float[Tensor, " n_entries"]]
    condition: Condition | None

    @staticmethod
    def of(batch: Batch, n_shells: int) -> Shells:
        edges = near_edges(batch, n_shells)
        receiver, shell = edges.receiver // n_shells, edges.receiver % n_shells
        torus = torus_on(batch, dataclasses.replace(edges, receiver=receiver), 0, 0)
        offset = batch.pos_0.index_select(0, edges.sender) - batch.pos_0.index_select(0, receiver)
        offset = nearest_image(offset, torus) / batch.near_radius.index_select(0, receiver)[:, None]
        distance = torch.linalg.vector_norm(offset, dim=1)
        hat = 1 - (n_shells * distance - shell).abs().clamp(max=1)
        weight = hat * batch.near_mass.index_select(0, edges.sender)
        direction = nn.functional.normalize(offset).T.unbind(0)
        condition = Condition.of(batch, [batch.pos_0_batch])
        return Shells(edges, [weight, *(weight * component for component in direction)], condition)


class NearField(nn.Module):
    """``v_i ← v_i + MLP[v̂_i, y_i]``, ``y_ik = Σ_j q_j b_k(r_ij) (1, e_ij) V v̂_j`` for every shell k.

    A kernel integral over a ball of fixed size, by quadrature with the parts q of the domain that belong to nodes: the
    same on a finer mesh, where more nodes lie in the ball, and exact for any function of distance that the shells can
    say, along the direction e as well. Few values V v̂ are shown, or their moments would be too many.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        shown = max(LEAST_SHOWN, SHOWN // c.n_shells)
        self.norm, self.show = Norm(c), nn.Linear(c.width, shown)
        self.mlp = mlp(c.width + shown * c.n_shells * (1 + c.dim), c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], shells: Shells) -> Float[Tensor, "n width"]:
        n = shortened(self.norm(v, shells.condition))
        seen = moments(self.show(n), shells.weights, shells.edges).view(len(v), -1)
        inner, activation, outer = self.mlp
        return v + outer(activation(side_by_side(cast(nn.Linear, inner), n, seen)))
