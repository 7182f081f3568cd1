"""The layer on the mesh: a node's value with what surrounds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.batch import level_edges, link_edges
from gno.graph.segment import Edges, moments, over_sum
from gno.mesh import nearest_image
from gno.nn.condition import Condition, Norm
from gno.nn.config import OperatorConfig
from gno.nn.link import down_weights, offsets, spacing, up_weights
from gno.nn.mlp import mlp, side_by_side
from gno.nn.pooling import Transfer
from gno.nn.precision import shortened
from gno.nn.rows import Rows, by_rows, expanded
from gno.nn.torus import torus_on


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What lies within about one spacing of level 1 around each node of the mesh.

    Args:
        edges: of the mesh; None where nothing reads them.
        to_anchors, from_anchors: along the links, and on them ``gather`` and ``spread``: geometric weights of the
            transfer, alone and times each component of the offset in spacings.
        mean: mean over mesh neighbours, alone and times their direction; used where there are no anchors.
        condition: global parameters of each mesh.
    """

    edges: Edges | None
    to_anchors: Edges
    from_anchors: Edges
    gather: Sequence[Tensor] = ()
    spread: Sequence[Tensor] = ()
    mean: Sequence[Tensor] = ()
    condition: Condition | None = None

    @staticmethod
    def of(batch: Batch, n_levels: int, *, edges: bool = False) -> Surroundings:
        """Those of a batch; with the edges of the mesh, which only convolutions read where there are anchors."""
        mass, condition = batch.mass_0, Condition.of(batch, [batch.pos_0_batch])
        if n_levels == 1:
            mesh = level_edges(batch, 0)
            mean = over_sum(mass.index_select(0, mesh.sender), mesh)
            offset = batch.pos_0.index_select(0, mesh.sender) - batch.pos_0.index_select(0, mesh.receiver)
            offset = nearest_image(offset, torus_on(batch, mesh, 0, 0))
            direction = nn.functional.normalize(offset).T.unbind(0)
            return Surroundings(mesh, mesh, mesh, mean=[mean, *(mean * x for x in direction)], condition=condition)
        links = link_edges(batch, 0)
        transfer = Transfer.build(links, batch.log_b_0.softmax(1).flatten(), mass)
        torus = torus_on(batch, links, 1, 0)
        offset = offsets(batch.pos_0, batch.pos_1, links, spacing(batch, 1, links.sender), torus)
        up, down = up_weights(transfer, offset), down_weights(transfer, offset)
        mesh_edges = level_edges(batch, 0) if edges else None
        return Surroundings(mesh_edges, links.transpose(), links, up, down, condition=condition)


class LocalKernel(nn.Module):
    """Kernel integral over a fixed physical radius, factorised through the anchors a of level 1.

    ``y_i = Σ_a b_ia (A_a + B_a·(x_i − y_a)),  (A_a, B_a) = W Σ_j r_aj (1, x_j − y_a) v_j``: averages with their slopes,
    O(N) and the same on every mesh of the domain. A stencil of mesh edges would shrink with h, and a gradient grows
    without bound where the inputs jump: measured on grains, that made the error 4 times as large at h/4.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(c.width * (1 + c.dim), c.width * (1 + c.dim))

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Rows:
        seen = self.mix(moments(v, around.gather, around.to_anchors))
        return expanded(seen, around.spread, around.from_anchors)


class EdgeKernel(nn.Module):
    """Mean over mesh neighbours with its moments of their direction: for an operator that has no anchors."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(c.width * (1 + c.dim), c.width)

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
        assert around.edges is not None
        return self.mix(moments(v, around.mean, around.edges))


class Convolution(nn.Module):
    """A torch_geometric convolution (width → width) on the mesh edges."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
        assert around.edges is not None
        return self.convolution(v, torch.stack([around.edges.sender, around.edges.receiver]))


class MeshLayer(nn.Module):
    """Level 0: a node's value with what surrounds it through a node network."""

    def __init__(self, c: OperatorConfig, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = Norm(c)
        own = LocalKernel if c.n_levels > 1 else EdgeKernel
        self.kernel = own(c) if convolution is None else Convolution(convolution)
        self.mlp = mlp(2 * c.width, c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
        n = shortened(self.norm(v, around.condition))
        return by_rows(self._at_node, v, n, self.kernel(n, around), into=n)

    def _at_node(self, v: Tensor, n: Tensor, seen: Tensor) -> Tensor:
        inner, activation, outer = self.mlp
        return v + outer(activation(side_by_side(cast(nn.Linear, inner), n, seen)))
