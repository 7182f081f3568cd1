"""NeuroScale: encode the mesh, pass messages between its scales, decode fields at every scale."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.sample import level_edges, link_edges
from gno.graph.segment import Edges, bag
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.config import OperatorConfig
from gno.nn.kernel import KernelIntegral
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


@dataclasses.dataclass(frozen=True)
class _Stencil:
    """Edges of one or more levels with what the kernel integral wants to know of them."""

    edges: Edges
    features: Tensor
    weights: Tensor
    slope: Tensor | None = None


def mlp(n_in: int, width: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, n_out))


class Block(nn.Module):
    """One round among the anchors of all levels: near (kernel integral), far and across scales (attention), at the node."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm_kernel, self.norm_mlp = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.kernel = KernelIntegral(c.width, c.dim + 1)
        self.norm_attention = nn.RMSNorm(c.width) if c.attention else None
        self.attention = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if c.attention else None
        self.mlp = mlp(c.width, 2 * c.width, c.width)

    def forward(
        self, v: Float[Tensor, "n width"], stencil: _Stencil, tokens: Tokens
    ) -> Float[Tensor, "n width"]:
        n = self.norm_kernel(v)
        v = v + self.kernel(n, n, stencil.edges, stencil.features, stencil.weights)
        if self.attention is not None:
            n = self.norm_attention(v)
            v = v + self.attention(n, n, tokens, tokens)
        return v + self.mlp(self.norm_mlp(v))


class MeshKernel(nn.Module):
    """Kernel integral over mesh edges with difference quotients, then a node network. A PyG convolution may stand in."""

    def __init__(self, c: OperatorConfig, convolution: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.convolution = convolution
        self.kernel = KernelIntegral(c.width, c.dim) if convolution is None else None
        self.mlp = mlp(c.width, 2 * c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], stencil: _Stencil) -> Float[Tensor, "n width"]:
        n = self.norm(v)
        if self.convolution is not None:
            v = v + self.convolution(n, torch.stack([stencil.edges.sender, stencil.edges.receiver]))
        else:
            v = v + self.kernel(n, n, stencil.edges, stencil.features, stencil.weights, stencil.slope)
        return v + self.mlp(self.norm_mlp(v))


class Link(nn.Module):
    """Kernel integral along the links between two levels, either way: places within an anchor are told apart."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm_receiver, self.norm_sender = nn.RMSNorm(c.width), nn.RMSNorm(c.width)
        self.kernel = KernelIntegral(c.width, c.dim + 1)

    def forward(self, receiver: Tensor, sender: Tensor, stencil: _Stencil) -> Tensor:
        r, s = self.norm_receiver(receiver), self.norm_sender(sender)
        return receiver + self.kernel(r, s, stencil.edges, stencil.features, stencil.weights)


class NeuroScale(nn.Module):
    """Neural operator on a mesh and its hierarchy, conservative between scales.

    ``u_{S−1} = w_{S−1}``, ``u_s = P u_{s+1} + (I − PR) w_s``, hence ∫u_s = ∫u_{s+1}.

    Args:
        config: sizes.
        convolutions: two torch_geometric convolutions (width → width) that take the place of the kernel on mesh edges.
    """

    def __init__(
        self, config: OperatorConfig, convolutions: tuple[nn.Module, nn.Module] | None = None
    ) -> None:
        super().__init__()
        c, (first, last) = config, convolutions or (None, None)
        self.config = c
        self.encode = mlp(c.n_inputs + c.n_geometry, c.width, c.width)
        self.mesh_in, self.mesh_out = MeshKernel(c, first), MeshKernel(c, last)
        pooling = LearnedPooling if c.learned_pooling else GeometricPooling
        sizes = (c.width, c.dim + 1) if c.learned_pooling else ()
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
        v = self.encode(torch.cat([batch.x, batch.geometry], dim=1))  # (n_0, width)
        mesh = _mesh_stencil(batch)
        v = self.mesh_in(v, mesh)
        levels = self._coarsen(v, batch)
        anchors = torch.cat([x.v for x in levels[1:]])  # all anchors of all levels, (n_1 + n_2 + …, width)
        tokens, stencil = _anchor_tokens(levels, batch), _anchor_stencil(levels, batch)
        anchors = anchors + self.scale.index_select(0, tokens.scale)
        for block in self.blocks:
            anchors = block(anchors, stencil, tokens)
        v, attention = self._decode(v, anchors, mesh, levels, tokens, batch, return_attention)
        return self._outputs(v, anchors, levels, attention)

    def _coarsen(self, v: Tensor, batch: Batch) -> list[_LevelState]:
        position, mass = batch.pos_0, batch.mass_0
        levels = []
        for s, (pooling, up) in enumerate(zip(self.pooling, self.up, strict=True)):
            edges, spacing = link_edges(batch, s), _spacing(batch, s + 1)
            offset = _features(batch[f"pos_{s + 1}"], position, edges, spacing)
            weights = pooling(v, mass, edges, batch[f"log_b_{s}"], offset)
            transfer = Transfer.build(edges, weights, mass)
            levels.append(_LevelState(v, position, mass, batch[f"pos_{s}_batch"], transfer))
            coarse = transfer.restrict(torch.cat([v, position], dim=1))
            width = v.shape[1]
            coarse_position = torch.where(
                (transfer.coarse_mass > 0)[:, None], coarse[:, width:], batch[f"pos_{s + 1}"]
            )
            upwards = edges.transpose()
            offset = _features(position, coarse_position, upwards, spacing)
            r = transfer.restriction_weights().index_select(0, edges.perm)
            v = up(coarse[:, :width], v, _Stencil(upwards, offset, r))
            position, mass = coarse_position, transfer.coarse_mass
        levels.append(_LevelState(v, position, mass, batch[f"pos_{len(levels)}_batch"], None))
        return levels

    def _decode(self, v, anchors, mesh, levels, tokens, batch, return_attention):
        fine = levels[0]
        edges = fine.transfer.edges
        first = anchors[: len(levels[1].v)]
        offset = _features(levels[1].position, fine.position, edges, _spacing(batch, 1))
        v = self.down(v, first, _Stencil(edges, offset, fine.transfer.weights))
        attention = None
        if self.attend is not None:
            at = Tokens.build(
                fine.position,
                fine.mass,
                torch.zeros_like(fine.batch),
                fine.batch,
                batch.num_graphs,
                batch.longest_mesh,
            )
            queries, keys = self.norm_query(v), self.norm_key(anchors)
            v = v + self.attend(queries, keys, at, tokens)
            if return_attention:
                alpha = self.attend.scale_attention(keys, keys, tokens, tokens)
                sizes = [len(x.v) for x in levels[1:]]
                attention = (self.attend.scale_attention(queries, keys, at, tokens), *alpha.split(sizes))
        return self.mesh_out(v, mesh), attention

    def _outputs(self, v: Tensor, anchors: Tensor, levels: list[_LevelState], attention) -> Output:
        values = [v, *anchors.split([len(x.v) for x in levels[1:]])]
        w = [head(x) for head, x in zip(self.heads, values, strict=True)]
        u = [w[-1]]
        for free, level in zip(w[-2::-1], levels[-2::-1], strict=True):
            u.insert(0, free + level.transfer.prolong(u[0] - level.transfer.restrict(free)))
        return Output(
            tuple(u),
            tuple(x.mass for x in levels),
            tuple(x.position for x in levels),
            tuple(x.batch for x in levels),
            tuple(x.transfer for x in levels[:-1]),
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


def _features(
    sender: Tensor, receiver: Tensor, edges: Edges, spacing: Tensor
) -> Float[Tensor, "n_edges dim_1"]:
    """Offset of the sender from the receiver and its length, in spacings."""
    offset = (sender.index_select(0, edges.sender) - receiver.index_select(0, edges.receiver)) / spacing
    return torch.cat([offset, offset.square().sum(1, keepdim=True).add(1e-12).sqrt()], dim=1)


def _mean_weights(weights: Tensor, edges: Edges) -> Tensor:
    """Weights over their sum at the receiver; zero where that sum is zero."""
    total = bag(weights[:, None], torch.arange(len(weights), device=weights.device), edges.ptr)[:, 0]
    return weights / torch.where(total > 0, total, torch.ones_like(total)).index_select(0, edges.receiver)


def _mesh_stencil(batch: Batch) -> _Stencil:
    """Mesh edges: unit directions, weights by mass, and the slope that turns differences into difference quotients."""
    edges, position = level_edges(batch, 0), batch.pos_0
    offset = position.index_select(0, edges.sender) - position.index_select(0, edges.receiver)
    length = offset.norm(dim=1).clamp_min(1e-3 * _spacing(batch, 1))
    weights = _mean_weights(batch.mass_0.index_select(0, edges.sender), edges)
    return _Stencil(edges, offset / length[:, None], weights, _spacing(batch, 1) / length)


def _anchor_stencil(levels: list[_LevelState], batch: Batch) -> _Stencil:
    """Edges among the anchors of all coarse levels as one graph; weights m_j b_ij."""
    stencils = []
    for s, level in enumerate(levels[1:], start=1):
        edges = level_edges(batch, s)
        offset = _features(level.position, level.position, edges, _spacing(batch, s))
        b = (-offset[:, -1].detach().square()).exp()
        weights = _mean_weights(level.mass.detach().index_select(0, edges.sender) * b, edges)
        stencils.append((edges, offset, weights))
    edges, offset, weights = zip(*stencils, strict=True)
    return _Stencil(Edges.union(edges), torch.cat(offset), torch.cat(weights))


def _anchor_tokens(levels: list[_LevelState], batch: Batch) -> Tokens:
    coarse = levels[1:]
    scale = torch.cat([torch.full_like(x.batch, s) for s, x in enumerate(coarse, start=1)])
    return Tokens.build(
        torch.cat([x.position for x in coarse]),
        torch.cat([x.mass for x in coarse]),
        scale,
        torch.cat([x.batch for x in coarse]),
        batch.num_graphs,
        batch.longest_anchors,
    )
