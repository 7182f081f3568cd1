"""NeuroScale: encode the mesh, pass messages between its scales, decode fields at every scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.sample import level_edges, link_edges
from gno.graph.segment import Edges, sum_received
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.config import OperatorConfig
from gno.nn.kernel import KernelIntegral, moments
from gno.nn.pooling import GeometricPooling, LearnedPooling, Transfer


@dataclasses.dataclass(frozen=True)
class Output:
    """Fields at every scale s, finest first, in the units of the (normalised) targets.

    Args:
        fields: (n_s, n_outputs). mass: (n_s,), one per mesh in sum. position: (n_s, dim), in units of the case.
        batch: mesh of each node, (n_s,). transfers: between level s and s + 1.
        attention: α_{s,s′}, (n_s, n_levels), if asked for.
    """

    fields: tuple[Tensor, ...]
    mass: tuple[Tensor, ...]
    position: tuple[Tensor, ...]
    batch: tuple[Tensor, ...]
    transfers: tuple[Transfer, ...]
    attention: tuple[Tensor, ...] | None = None

    def restrict(self, values: Float[Tensor, "n_0 c"]) -> list[Float[Tensor, "n_s c"]]:
        """Values of level 0 at every scale, by the pooling's own restriction; no gradient reaches the pooling."""
        levels = [values.detach()]
        for transfer in self.transfers:
            levels.append(transfer.detach().restrict(levels[-1]))
        return levels


def mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))


@dataclasses.dataclass(frozen=True)
class AnchorGraph:
    """The anchors of all coarse levels as one graph, and as tokens; the last of them are the keys.

    Positions are in spacings of each anchor's level.
    """

    edges: Edges
    weights: Float[Tensor, " n_edges"]
    position: Float[Tensor, "n dim"]
    tokens: Tokens
    keys: Tokens


class Block(nn.Module):
    """One round among the anchors of all levels: near (kernel), far and across scales (attention), at the node."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm_kernel, self.norm_mlp = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.kernel = KernelIntegral(c.width, c.dim)
        self.norm_attention = nn.RMSNorm(c.width) if c.attention else None
        self.attention = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if c.attention else None
        self.mlp = mlp(c.width, 2 * c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], graph: AnchorGraph) -> Float[Tensor, "n width"]:
        v = v + self.kernel(self.norm_kernel(v), graph.position, graph.edges, graph.weights)
        if self.attention is not None and self.norm_attention is not None:
            n = self.norm_attention(v)
            v = v + self.attention(n, n[-len(graph.keys.place) :], graph.tokens, graph.keys)
        return v + self.mlp(self.norm_mlp(v))


class MeshLayer(nn.Module):
    """Level 0: the node's value with its gradient on the mesh through a node network; a PyG convolution may stand in.

    The gradient keeps its meaning when the mesh is refined, where a sum over mesh neighbours would shrink.
    """

    def __init__(self, c: OperatorConfig, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.convolution = nn.RMSNorm(c.width), convolution
        self.mlp = mlp(c.width * (1 + c.dim if convolution is None else 2), c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], edges: Edges, slope: Sequence[Tensor]) -> Float[Tensor, "n width"]:
        n = self.norm(v)
        if self.convolution is not None:
            around = [self.convolution(n, torch.stack([edges.sender, edges.receiver]))]
        else:
            around = [
                g - n * sum_received(w[:, None], None, edges)
                for g, w in zip(moments(n, slope, edges), slope, strict=True)
            ]
        return v + self.mlp(torch.cat([n, *around], dim=1))


class Link(nn.Module):
    """Kernel integral along the links between two levels: the transferred value with its moments of the offset."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(c.width)
        self.map = nn.Linear(c.width * (1 + c.dim), c.width)

    def forward(self, sender: Tensor, weights: Sequence[Tensor], edges: Edges) -> Tensor:
        return self.map(torch.cat(moments(self.norm(sender), weights, edges), dim=1))


class NeuroScale(nn.Module):
    """Neural operator on a mesh and its hierarchy, conservative between scales.

    ``u_{S−1} = w_{S−1}``, ``u_s = P u_{s+1} + (I − PR) w_s``, hence ∫u_s = ∫u_{s+1}.

    Args:
        config: sizes.
        convolutions: two torch_geometric convolutions (width → width) that take the place of the kernel on mesh edges.
    """

    def __init__(self, config: OperatorConfig, convolutions: tuple[nn.Module, nn.Module] | None = None) -> None:
        super().__init__()
        c, (first, last) = config, convolutions or (None, None)
        self.config = c
        self.encode = mlp(c.n_inputs + c.n_geometry, c.width, c.width)
        self.mesh_in, self.mesh_out = MeshLayer(c, first), MeshLayer(c, last)
        pooling = LearnedPooling if c.learned_pooling else GeometricPooling
        sizes = (c.width, c.dim) if c.learned_pooling else ()
        self.pooling = nn.ModuleList(pooling(*sizes) for _ in range(c.n_levels - 1))
        self.up = nn.ModuleList(Link(c) for _ in range(c.n_levels - 1))
        self.scale = nn.Parameter(torch.randn(c.n_levels, c.width) * 0.02)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_blocks))
        self.down = Link(c)
        self.norm_query, self.norm_key = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.attend = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if c.attention else None
        self.heads = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(c.width), mlp(c.width, c.width, c.n_outputs)) for _ in range(c.n_levels)
        )

    def forward(self, batch: Batch, *, return_attention: bool = False) -> Output:
        mesh, slope = level_edges(batch, 0), [g.contiguous() for g in batch.slope.unbind(1)]
        slope = [g * _spacing(batch, 1) for g in slope]  # slopes per spacing of level 1, not per unit
        v = self.encode(torch.cat([batch.x, batch.geometry], dim=1))  # (n_0, width)
        v = self.mesh_in(v, mesh, slope)
        levels = self._coarsen(v, batch)
        graph = _anchor_graph(levels, batch, self.config.key_level)
        anchors = torch.cat([x.v for x in levels[1:]])  # all anchors of all levels, (n_1 + n_2 + …, width)
        anchors = anchors + self.scale.index_select(0, graph.tokens.scale)
        for block in self.blocks:
            anchors = block(anchors, graph)
        v, attention = self._decode(v, anchors, levels, graph, batch, return_attention)
        v = self.mesh_out(v, mesh, slope)
        return self._outputs(v, anchors, levels, attention)

    def _coarsen(self, v: Tensor, batch: Batch) -> list[_LevelState]:
        position, mass = batch.pos_0, batch.mass_0
        levels = []
        for s, (pooling, up) in enumerate(zip(self.pooling, self.up, strict=True)):
            edges, spacing, place = link_edges(batch, s), _spacing(batch, s + 1), batch[f"pos_{s + 1}"]
            weights = pooling(v, mass, edges, batch[f"log_b_{s}"], position / spacing, place / spacing)
            transfer = Transfer.build(edges, weights, mass)
            levels.append(_LevelState(v, position, mass, batch[f"pos_{s}_batch"], transfer))
            moved = transfer.restrict(position)
            moved = torch.where((transfer.coarse_mass > 0)[:, None], moved, place)
            share = transfer.restriction_weights()
            offset = _offsets(position, moved, edges, spacing)
            upwards = [x.index_select(0, edges.perm) for x in (share, *(share.detach() * o for o in offset))]
            v = up(v, upwards, edges.transpose())
            position, mass = moved, transfer.coarse_mass
        levels.append(_LevelState(v, position, mass, batch[f"pos_{len(levels)}_batch"], None))
        return levels

    def _decode(self, v, anchors, levels, graph, batch, return_attention):
        fine, transfer, attention = levels[0], levels[0].transfer, None
        offset = _offsets(fine.position, levels[1].position, transfer.edges, _spacing(batch, 1))
        weights = [transfer.weights, *(transfer.weights.detach() * o for o in offset)]
        v = v + self.down(anchors[: len(levels[1].v)], weights, transfer.edges)
        if self.attend is None:
            return v, None
        here = torch.zeros_like(fine.batch)
        at = Tokens.build(fine.position, fine.mass, here, fine.batch, batch.num_graphs, batch.longest_mesh)
        queries, anchors = self.norm_query(v), self.norm_key(anchors)
        keys = anchors[-len(graph.keys.place) :]
        if return_attention:
            coarse = self.attend.scale_attention(anchors, keys, graph.tokens, graph.keys)
            coarse = coarse.split([len(x.v) for x in levels[1:]])
            attention = (self.attend.scale_attention(queries, keys, at, graph.keys), *coarse)
        return v + self.attend(queries, keys, at, graph.keys), attention

    def _outputs(self, v: Tensor, anchors: Tensor, levels: list[_LevelState], attention) -> Output:
        values = [v, *anchors.split([len(x.v) for x in levels[1:]])]
        w = [head(x) for head, x in zip(self.heads, values, strict=True)]
        transfers = tuple(x.transfer for x in levels if x.transfer is not None)
        u = [w[-1]]
        for free, transfer in zip(w[-2::-1], transfers[::-1], strict=True):
            u.insert(0, free + transfer.prolong(u[0] - transfer.restrict(free)))
        return Output(
            tuple(u),
            tuple(x.mass for x in levels),
            tuple(x.position for x in levels),
            tuple(x.batch for x in levels),
            transfers,
            attention,
        )


@dataclasses.dataclass(frozen=True)
class _LevelState:
    v: Float[Tensor, "n width"]
    position: Float[Tensor, "n dim"]
    mass: Float[Tensor, " n"]
    batch: Int[Tensor, " n"]
    transfer: Transfer | None


def _spacing(batch: Batch, s: int) -> Tensor:
    return batch[f"spacing_{s}"][0]


def _offsets(fine: Tensor, coarse: Tensor, edges: Edges, spacing: Tensor) -> tuple[Float[Tensor, " n_edges"], ...]:
    """Offset of the node from the anchor on each link, in spacings, by component; the geometry carries no gradient."""
    offset = fine.detach().index_select(0, edges.receiver) - coarse.detach().index_select(0, edges.sender)
    return (offset / spacing).T.contiguous().unbind(0)


def _anchor_graph(levels: list[_LevelState], batch: Batch, key_level: int) -> AnchorGraph:
    """Edges among the anchors of each level with weights m_j b_ij over their sum, b = exp(−|x_ij|²)."""
    coarse, edges, weights, place = levels[1:], [], [], []
    for s, level in enumerate(coarse, start=1):
        near, position = level_edges(batch, s), level.position / _spacing(batch, s)
        offset = position.index_select(0, near.sender) - position.index_select(0, near.receiver)
        w = level.mass.index_select(0, near.sender) * (-offset.square().sum(1)).exp()
        edges.append(near)
        weights.append(_over_sum(w.detach(), near))
        place.append(position)
    tokens, keys = _tokens(levels, 1, batch), _tokens(levels, key_level, batch)
    return AnchorGraph(Edges.union(edges), torch.cat(weights), torch.cat(place), tokens, keys)


def _tokens(levels: list[_LevelState], first: int, batch: Batch) -> Tokens:
    """The nodes of the levels from ``first`` up as tokens."""
    part = levels[first:]
    scale = torch.cat([torch.full_like(x.batch, s) for s, x in enumerate(part, start=first)])
    position, mass, mesh = (torch.cat([getattr(x, name) for x in part]) for name in ("position", "mass", "batch"))
    return Tokens.build(position, mass, scale, mesh, batch.num_graphs, batch.longest_from[first])


def _over_sum(weights: Tensor, edges: Edges) -> Tensor:
    """Weights over their sum at the receiver; zero where that sum is zero."""
    total = sum_received(weights[:, None], None, edges)[:, 0]
    return weights / torch.where(total > 0, total, torch.ones_like(total)).index_select(0, edges.receiver)
