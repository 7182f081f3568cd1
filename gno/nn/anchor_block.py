"""The layer among the anchors of all levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.batch import level_edges, measure
from gno.graph.segment import Edges, over_sum
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.condition import Condition, Norm
from gno.nn.conduction import Lattice
from gno.nn.config import OperatorConfig
from gno.nn.kernel import KernelIntegral
from gno.nn.link import spacing
from gno.nn.mlp import mlp
from gno.nn.norm import RMSNorm
from gno.nn.pooling import Transfer
from gno.nn.torus import between, placed, torus_on


@dataclasses.dataclass(frozen=True)
class LevelState:
    """The nodes of one level, finest first, and what carries values to the next coarser one."""

    v: Float[Tensor, "n width"]
    position: Float[Tensor, "n dim"]
    mass: Float[Tensor, " n"]
    batch: Int[Tensor, " n"]
    transfer: Transfer | None


@dataclasses.dataclass(frozen=True)
class AnchorGraph:
    """The anchors of all coarse levels as one graph, and as tokens; the last of them are the keys.

    ``keys`` are for anchors, ``mesh_keys`` for the nodes of the mesh. Positions are in spacings of each anchor's level.
    Where coordinates repeat or meshes are graded, differences of such positions are not what is meant: there are none,
    and ``offset`` is that of the sender from the receiver, in the mean of both spacings. ``lattice`` is of the finest
    level that is dense enough to attend to, where conduction is wanted.
    """

    edges: Edges
    weights: Float[Tensor, " n_edges"]
    position: Float[Tensor, "n dim"] | None
    tokens: Tokens
    keys: Tokens
    mesh_keys: Tokens
    condition: Condition | None
    offset: Float[Tensor, "n_edges dim"] | None
    lattice: Lattice | None

    @staticmethod
    def of(levels: Sequence[LevelState], batch: Batch, c: OperatorConfig) -> AnchorGraph:
        """Edges among the anchors of each level with weights m_j b_ij over their sum, b = exp(−|x_ij|²)."""
        coarse, edges, weights, place, offsets = levels[1:], [], [], [], []
        for s, level in enumerate(coarse, start=1):
            near = level_edges(batch, s)
            torus = torus_on(batch, near, s, s)
            unit = (spacing(batch, s, near.sender) + spacing(batch, s, near.receiver)) / 2
            offset = between(level.position, level.position, near, torus) / unit
            if torus is None and "size_0" not in batch:
                place.append(level.position / unit)
            w = level.mass.index_select(0, near.sender) * (-offset.square().sum(1)).exp()
            edges.append(near)
            weights.append(over_sum(w.detach(), near))
            offsets.append(offset)
        tokens, keys, mesh_keys = (_tokens(levels, first, batch) for first in (1, c.key_level, c.mesh_key_level))
        condition = Condition.of(batch, [level.batch for level in coarse])
        near, all_weights = Edges.union(edges), torch.cat(weights)
        where = (torch.cat(place), None) if place else (None, torch.cat(offsets))
        lattice, k = None, c.key_level
        if c.conduction:
            first = sum(len(level.v) for level in levels[1:k])
            lattice = Lattice.of(batch, k, first, levels[k].mass, edges[k - 1], offsets[k - 1])
        return AnchorGraph(near, all_weights, where[0], tokens, keys, mesh_keys, condition, where[1], lattice)


class Block(nn.Module):
    """One round among the anchors of all levels: near (kernel), far and across scales (attention), at the node."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm_kernel, self.norm_mlp = Norm(c), Norm(c)
        self.kernel = KernelIntegral(c.width, c.dim)
        self.norm_attention = RMSNorm(c.width) if c.attention else None
        self.attention = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if c.attention else None
        self.mlp = mlp(c.width, 2 * c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], graph: AnchorGraph) -> Float[Tensor, "n width"]:
        v = self._near(v, graph)
        if self.attention is not None and self.norm_attention is not None:
            n = self.norm_attention(v)
            v = v + self.attention(n, n[-len(graph.keys.place) :], graph.tokens, graph.keys)
        return v + self.mlp(self.norm_mlp(v, graph.condition))

    def shares(self, v: Float[Tensor, "n width"], graph: AnchorGraph) -> Float[Tensor, "n n_levels"]:
        """α_{s,s′}: how much of what each anchor attends to in this round is of scale s′."""
        assert self.attention is not None and self.norm_attention is not None
        n = self.norm_attention(self._near(v, graph))
        return self.attention.scale_attention(n, n[-len(graph.keys.place) :], graph.tokens, graph.keys)

    def _near(self, v: Float[Tensor, "n width"], graph: AnchorGraph) -> Float[Tensor, "n width"]:
        n = self.norm_kernel(v, graph.condition)
        return v + self.kernel(n, graph.position, graph.edges, graph.weights, graph.offset)


def _tokens(levels: Sequence[LevelState], first: int, batch: Batch) -> Tokens:
    """The nodes of the levels from ``first`` up as tokens."""
    part = levels[first:]
    scale = torch.cat([torch.full_like(x.batch, s) for s, x in enumerate(part, start=first)])
    mass = torch.cat([measure(batch, s, x.mass) for s, x in enumerate(part, start=first)])
    mesh = torch.cat([x.batch for x in part])
    position = torch.cat([placed(batch, s, x.position, x.batch) for s, x in enumerate(part, start=first)])
    return Tokens.build(position, mass, scale, mesh, batch.num_graphs, batch.longest_from[first])
