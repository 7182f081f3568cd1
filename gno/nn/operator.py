"""NeuroScale: encode the mesh, pass messages between its scales, decode fields at every scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch

from gno.graph.sample import level_edges, link_edges, stencil_edges
from gno.graph.segment import Edges, expansion, moments, segment_sum
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.condition import Condition, Norm
from gno.nn.config import OperatorConfig
from gno.nn.kernel import KernelIntegral
from gno.nn.norm import RMSNorm
from gno.nn.pooling import GeometricPooling, LearnedPooling, Transfer
from gno.nn.precision import shortened
from gno.nn.stochastic import let_draw

# log σ² is kept within these bounds, in units of the normalised targets: beyond them is round-off, or no information.
LOG_VARIANCE = (-18.0, 6.0)
# log σ² at the start: a third of the spread of the targets, everywhere.
START = -2.2


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

    def first(self, sizes: Sequence[int]) -> Output:
        """The first n_s nodes of every scale, which the rest of the nodes have nothing to do with."""
        cut = {
            name: tuple(x[:n] for x, n in zip(values, sizes, strict=True))
            for name, values in vars(self).items()
            if values and name != "transfers"
        }
        transfers = tuple(t.first(n, m) for t, n, m in zip(self.transfers, sizes[:-1], sizes[1:], strict=True))
        return dataclasses.replace(self, **cut, transfers=transfers)


@dataclasses.dataclass(frozen=True)
class NoisyOutput(Output):
    """An output that also says how large the noise of the data is.

    Args:
        variance: σ² at every scale, (n_s, n_outputs), in normalised units.
    """

    variance: tuple[Tensor, ...] = ()


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
    condition: Condition | None


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
        v = v + self.kernel(self.norm_kernel(v, graph.condition), graph.position, graph.edges, graph.weights)
        if self.attention is not None and self.norm_attention is not None:
            n = self.norm_attention(v)
            v = v + self.attention(n, n[-len(graph.keys.place) :], graph.tokens, graph.keys)
        return v + self.mlp(self.norm_mlp(v, graph.condition))


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What lies within about one spacing of level 1 around each node of the mesh.

    Args:
        edges: of the mesh.
        to_anchors, from_anchors: along the links, and on them ``gather`` and ``spread``: geometric weights of the
            transfer, alone and times each component of the offset in spacings.
        mean: mean over mesh neighbours, alone and times their direction; used where there are no anchors.
        condition: global parameters of each mesh.
    """

    edges: Edges
    to_anchors: Edges
    from_anchors: Edges
    gather: Sequence[Tensor] = ()
    spread: Sequence[Tensor] = ()
    mean: Sequence[Tensor] = ()
    condition: Condition | None = None


class LocalKernel(nn.Module):
    """Kernel integral over a fixed physical radius, factorised through the anchors a of level 1.

    ``y_i = Σ_a b_ia (A_a + B_a·(x_i − y_a)),  (A_a, B_a) = W Σ_j r_aj (1, x_j − y_a) v_j``: averages with their slopes,
    O(N) and the same on every mesh of the domain. A stencil of mesh edges would shrink with h, and a gradient grows
    without bound where the inputs jump: measured on grains, that made the error 4 times as large at h/4.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(c.width * (1 + c.dim), c.width * (1 + c.dim))

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
        seen = self.mix(moments(v, around.gather, around.to_anchors))
        return expansion(seen, around.spread, around.from_anchors)


class EdgeKernel(nn.Module):
    """Mean over mesh neighbours with its moments of their direction: for an operator that has no anchors."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.mix = nn.Linear(c.width * (1 + c.dim), c.width)

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
        return self.mix(moments(v, around.mean, around.edges))


class Convolution(nn.Module):
    """A torch_geometric convolution (width → width) on the mesh edges."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, v: Float[Tensor, "n width"], around: Surroundings) -> Float[Tensor, "n width"]:
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
        return v + self.mlp(torch.cat([n, self.kernel(n, around)], dim=1))


@dataclasses.dataclass(frozen=True)
class MeshLaplacian:
    """The Laplacian on the mesh, ``L v = Σ_j w_ij (v_j − v_i)``, in units of 4 / h₁², h₁ the spacing of level 1.

    With this unit L v is about as large as v where v varies over some eight nodes of the training meshes.
    """

    edges: Edges
    weights: Float[Tensor, " n_edges"]
    total: Float[Tensor, "n 1"]
    condition: Condition | None

    @staticmethod
    def of(batch: Batch) -> MeshLaplacian:
        edges = stencil_edges(batch)
        total = segment_sum(batch.stencil[:, None], edges.ptr)
        return MeshLaplacian(edges, batch.stencil, total, Condition.of(batch, [batch.pos_0_batch]))

    def __call__(self, v: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        return moments(v, [self.weights], self.edges) - self.total * v


class Stencil(nn.Module):
    """Reaction and diffusion: ``v_i ← v_i + W (A z_i ⊙ silu(B z_i))``, z_i = (v̂_i, L v̂_i), L the Laplacian on the mesh.

    Here are the details of the size of the cells, which a kernel through anchors cannot see, and the products of values
    that reactions are made of. L belongs to the domain where v is smooth and has no direction, so the weights mean the
    same on a finer mesh and on a surface. Diffusion and a network at each node are enough for learning on surfaces:
    Sharp et al. 2022, DiffusionNet. The gate: Dauphin et al. 2017, Language modeling with gated convolutional networks.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = Norm(c)
        self.split, self.join = nn.Linear(2 * c.width, 2 * c.width), nn.Linear(c.width, c.width)

    def forward(self, v: Float[Tensor, "n width"], laplacian: MeshLaplacian) -> Float[Tensor, "n width"]:
        n = shortened(self.norm(v, laplacian.condition))
        value, gate = self.split(torch.cat([n, laplacian(n)], dim=1)).chunk(2, dim=1)
        return v + self.join(value * nn.functional.silu(gate))


class Link(nn.Module):
    """Kernel integral along the links between two levels: the transferred value with its moments of the offset."""

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(c.width)
        self.map = nn.Linear(c.width * (1 + c.dim), c.width)

    def forward(self, sender: Tensor, weights: Sequence[Tensor], edges: Edges) -> Tensor:
        return self.map(moments(shortened(self.norm(sender)), weights, edges))


class Head(nn.Sequential):
    """Fields of a level from its values, and in further columns, if wanted, log σ² of the noise around them."""

    def __init__(self, c: OperatorConfig) -> None:
        network = mlp(c.width, c.width, c.n_outputs * (1 + c.noise_head))
        super().__init__(RMSNorm(c.width), network)
        weight, bias = network[2].parameters()
        nn.init.zeros_(weight[c.n_outputs :])
        nn.init.constant_(bias[c.n_outputs :], START)


class NeuroScale(nn.Module):
    """Neural operator on a mesh and its hierarchy, conservative between scales.

    ``u_{S−1} = w_{S−1}``, ``u_s = P u_{s+1} + (I − PR) w_s``, hence ∫u_s = ∫u_{s+1}.

    Args:
        config: sizes.
        convolutions: two torch_geometric convolutions (width → width) that take the place of the kernel on the mesh.
    """

    def __init__(self, config: OperatorConfig, convolutions: tuple[nn.Module, nn.Module] | None = None) -> None:
        super().__init__()
        c, (first, last) = config, convolutions or (None, None)
        self.config = c
        self.encode = mlp(c.n_inputs + c.n_geometry, c.width, c.width)
        self.mesh_in, self.mesh_out = MeshLayer(c, first), MeshLayer(c, last)
        self.near_in, self.near_out = (nn.ModuleList(Stencil(c) for _ in range(c.n_stencils)) for _ in range(2))
        pooling = LearnedPooling if c.learned_pooling else GeometricPooling
        sizes = (c.width, c.dim) if c.learned_pooling else ()
        self.pooling = nn.ModuleList(pooling(*sizes) for _ in range(c.n_levels - 1))
        self.up = nn.ModuleList(Link(c) for _ in range(c.n_levels - 1))
        self.scale = nn.Parameter(torch.randn(c.n_levels, c.width) * 0.02)
        self.blocks = nn.ModuleList(Block(c) if c.n_levels > 1 else MeshLayer(c) for _ in range(c.n_blocks))
        self.down = Link(c) if c.n_levels > 1 else None
        self.norm_query, self.norm_key = RMSNorm(c.width), RMSNorm(c.width)
        across = c.attention and c.n_levels > 1
        self.attend = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if across else None
        self.heads = nn.ModuleList(Head(c) for _ in range(c.n_levels))
        let_draw(self, c)

    def forward(self, batch: Batch, *, return_attention: bool = False) -> Output:
        laplacian = MeshLaplacian.of(batch) if self.config.n_stencils else None
        levels, around = self._encode(batch, laplacian)
        v, anchors, attention = levels[0].v, levels[0].v[:0], None
        if len(levels) == 1:  # the mesh alone: what the scales are measured against
            for block in self.blocks:
                v = self._run(block, v, around)
        else:
            anchors, graph = self._process(levels, batch)
            v, attention = self._decode(v, anchors, levels, graph, batch, return_attention)
        v = self._run(self.mesh_out, v, around)
        for layer in self.near_out:
            v = self._run(layer, v, laplacian)
        return self._outputs([v, *_split(anchors, levels[1:])], levels, attention)

    def coarse(self, batch: Batch) -> Output:
        """The fields of the anchors alone, level 1 first, as :meth:`forward` has them: the mesh is read, and nothing is
        computed for its nodes that they do not need.

        Raises:
            ValueError: an operator without anchors.
        """
        if self.config.n_levels == 1:
            raise ValueError("coarse: expected an operator with anchors, got n_levels = 1")
        levels, _ = self._encode(batch, MeshLaplacian.of(batch) if self.config.n_stencils else None)
        anchors, _ = self._process(levels, batch)
        return self._outputs(_split(anchors, levels[1:]), levels[1:], None)

    def _encode(self, batch: Batch, laplacian: MeshLaplacian | None) -> tuple[list[_LevelState], Surroundings]:
        around = _surroundings(batch, self.config.n_levels)
        # under autocast layers answer in short numbers; what they are added to is in full
        v = self._run(self.encode, torch.cat([batch.x, batch.geometry], dim=1)).to(batch.mass_0)  # (n_0, width)
        for layer in self.near_in:
            v = self._run(layer, v, laplacian)
        return self._coarsen(self._run(self.mesh_in, v, around), batch), around

    def _process(self, levels: list[_LevelState], batch: Batch) -> tuple[Tensor, AnchorGraph]:
        graph = _anchor_graph(levels, batch, self.config.key_level)
        anchors = torch.cat([x.v for x in levels[1:]])  # all anchors of all levels, (n_1 + n_2 + …, width)
        anchors = anchors + graph.tokens.one_hot(len(self.scale), anchors.dtype) @ self.scale
        for block in self.blocks:
            anchors = self._run(block, anchors, graph)
        return anchors, graph

    def _run(self, layer: nn.Module, *inputs: Any) -> Any:
        """A layer, whose inner values are kept for the way back or computed again there."""
        if self.config.checkpoint and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def _coarsen(self, v: Tensor, batch: Batch) -> list[_LevelState]:
        position, mass = batch.pos_0, batch.mass_0
        levels = []
        for s, (pooling, up) in enumerate(zip(self.pooling, self.up, strict=True)):
            edges, spacing, place = link_edges(batch, s), _spacing(batch, s + 1), batch[f"pos_{s + 1}"]
            weights = self._run(pooling, v, mass, edges, batch[f"log_b_{s}"], position / spacing, place / spacing)
            transfer = Transfer.build(edges, weights, mass)
            levels.append(_LevelState(v, position, mass, batch[f"pos_{s}_batch"], transfer))
            moved = transfer.restrict(position)
            moved = torch.where((transfer.coarse_mass > 0)[:, None], moved, place)
            # P learns where it decides the answer, in the outputs and in where anchors stand; through the features that
            # travel along it the gradient is noise: measured on grains, it cost 12.3 % against 11.1 % at equal time.
            share = transfer.detach().restriction_weights()
            offset = _offsets(position, moved, edges, spacing)
            upwards = [x.index_select(0, edges.perm) for x in (share, *(share * o for o in offset))]
            v = self._run(up, v, upwards, edges.transpose()).to(mass)
            position, mass = moved, transfer.coarse_mass
        levels.append(_LevelState(v, position, mass, batch[f"pos_{len(levels)}_batch"], None))
        return levels

    def _decode(self, v, anchors, levels, graph, batch, return_attention):
        fine, transfer, attention = levels[0], levels[0].transfer.detach(), None
        offset = _offsets(fine.position, levels[1].position, transfer.edges, _spacing(batch, 1))
        weights = [transfer.weights, *(transfer.weights * o for o in offset)]
        v = v + self._run(self.down, anchors[: len(levels[1].v)], weights, transfer.edges)
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
        return v + self._run(self.attend, queries, keys, at, graph.keys), attention

    def _outputs(self, values: list[Tensor], levels: list[_LevelState], attention) -> Output:
        heads = list(self.heads)[-len(levels) :]
        # conservation is a matter of the last digits: fields are never short
        w = [self._run(head, x).to(levels[0].mass.dtype) for head, x in zip(heads, values, strict=True)]
        n = self.config.n_outputs
        transfers = tuple(x.transfer for x in levels if x.transfer is not None)
        u = [w[-1][:, :n]]
        for free, transfer in zip(w[-2::-1], transfers[::-1], strict=True):
            free = free[:, :n]
            u.insert(0, free + transfer.prolong(u[0] - transfer.restrict(free)))
        mass, position, batch = (tuple(getattr(x, name) for x in levels) for name in ("mass", "position", "batch"))
        if not self.config.noise_head:
            return Output(tuple(u), mass, position, batch, transfers, attention)
        variance = tuple(x[:, n:].clamp(*LOG_VARIANCE).exp() for x in w)
        return NoisyOutput(tuple(u), mass, position, batch, transfers, attention, variance)


@dataclasses.dataclass(frozen=True)
class _LevelState:
    v: Float[Tensor, "n width"]
    position: Float[Tensor, "n dim"]
    mass: Float[Tensor, " n"]
    batch: Int[Tensor, " n"]
    transfer: Transfer | None


def _split(anchors: Tensor, levels: list[_LevelState]) -> list[Tensor]:
    return list(anchors.split([len(level.v) for level in levels]))


def _spacing(batch: Batch, s: int) -> Tensor:
    return batch[f"spacing_{s}"][0]


def _offsets(fine: Tensor, coarse: Tensor, edges: Edges, spacing: Tensor) -> tuple[Float[Tensor, " n_edges"], ...]:
    """Offset of the node from the anchor on each link, in spacings, by component; the geometry carries no gradient."""
    offset = fine.detach().index_select(0, edges.receiver) - coarse.detach().index_select(0, edges.sender)
    return (offset / spacing).T.contiguous().unbind(0)


def _surroundings(batch: Batch, n_levels: int) -> Surroundings:
    mesh, mass = level_edges(batch, 0), batch.mass_0
    condition = Condition.of(batch, [batch.pos_0_batch])
    if n_levels == 1:
        mean = _over_sum(mass.index_select(0, mesh.sender), mesh)
        offset = batch.pos_0.index_select(0, mesh.sender) - batch.pos_0.index_select(0, mesh.receiver)
        return Surroundings(
            mesh,
            mesh,
            mesh,
            mean=[mean, *(mean * o for o in nn.functional.normalize(offset).T.unbind(0))],
            condition=condition,
        )
    links = link_edges(batch, 0)
    transfer = Transfer.build(links, batch.log_b_0.softmax(1).flatten(), mass)
    offset = _offsets(batch.pos_0, batch.pos_1, links, _spacing(batch, 1))
    share = transfer.restriction_weights()
    gather = [w.index_select(0, links.perm) for w in (share, *(share * o for o in offset))]
    spread = [transfer.weights, *(transfer.weights * o for o in offset)]
    return Surroundings(mesh, links.transpose(), links, gather, spread, condition=condition)


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
    condition = Condition.of(batch, [level.batch for level in coarse])
    return AnchorGraph(Edges.union(edges), torch.cat(weights), torch.cat(place), tokens, keys, condition)


def _tokens(levels: list[_LevelState], first: int, batch: Batch) -> Tokens:
    """The nodes of the levels from ``first`` up as tokens."""
    part = levels[first:]
    scale = torch.cat([torch.full_like(x.batch, s) for s, x in enumerate(part, start=first)])
    position, mass, mesh = (torch.cat([getattr(x, name) for x in part]) for name in ("position", "mass", "batch"))
    return Tokens.build(position, mass, scale, mesh, batch.num_graphs, batch.longest_from[first])


def _over_sum(weights: Tensor, edges: Edges) -> Tensor:
    """Weights over their sum at the receiver; zero where that sum is zero."""
    total = segment_sum(weights[:, None], edges.ptr)[:, 0]
    return weights / torch.where(total > 0, total, torch.ones_like(total)).index_select(0, edges.receiver)
