"""NeuroScale: encode the mesh, pass messages between its scales, decode fields at every scale."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch

from gno.graph.batch import link_edges
from gno.nn.anchor_block import AnchorGraph, Block, LevelState
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.conduction import Conduction
from gno.nn.config import OperatorConfig
from gno.nn.link import DownLink, Link, down_weights, offsets, spacing, up_weights
from gno.nn.mesh_layer import MeshLayer, Surroundings
from gno.nn.mlp import mlp
from gno.nn.near import NearField, Shells
from gno.nn.norm import RMSNorm
from gno.nn.output import NoisyOutput, Output, restricted
from gno.nn.pooling import GeometricPooling, LearnedPooling, Transfer
from gno.nn.rows import by_rows
from gno.nn.stencil import LocalLaw, MeshLaplacian, Stencil
from gno.nn.stochastic import let_draw
from gno.nn.torus import between, placed, torus_on

# log σ² is kept within these bounds, in units of the normalised targets: beyond them is round-off, or no information.
LOG_VARIANCE = (-18.0, 6.0)
# log σ² at the start: a third of the spread of the targets, everywhere.
START = -2.2


class Head(nn.Sequential):
    """Fields of a level from its values, and in further columns, if wanted, log σ² of the noise around them."""

    def __init__(self, c: OperatorConfig) -> None:
        network = mlp(c.width, c.width, c.n_outputs * (1 + c.noise_head))
        super().__init__(RMSNorm(c.width), network)
        weight, bias = network[2].parameters()
        nn.init.zeros_(weight[c.n_outputs :])
        nn.init.constant_(bias[c.n_outputs :], START)
        if c.n_substeps:  # what is added to a local law, at first nothing
            nn.init.zeros_(weight[: c.n_outputs])
            nn.init.zeros_(bias[: c.n_outputs])


class Fine(NamedTuple):
    """What the layers on the mesh read of it, besides the values at its nodes."""

    around: Surroundings
    laplacian: MeshLaplacian | None
    shells: Shells | None

    @staticmethod
    def of(batch: Batch, c: OperatorConfig, *, edges: bool) -> Fine:
        return Fine(
            Surroundings.of(batch, c.n_levels, edges=edges),
            MeshLaplacian.of(batch) if c.n_stencils or c.n_substeps else None,
            Shells.of(batch, c.n_shells) if c.n_near else None,
        )


class NeuroScale(nn.Module):
    """Neural operator on a mesh and its hierarchy, conservative between scales.

    ``u_{S−1} = w_{S−1}``, ``u_s = P u_{s+1} + (I − PR) w_s``, hence ∫u_s = ∫u_{s+1}. With a local law ℓ on the mesh,
    w_s is Rˢ ℓ and what the head of level s adds to it, at first nothing.

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
        self.reads_edges = convolutions is not None
        self.stencils_in, self.stencils_out = (nn.ModuleList(Stencil(c) for _ in range(c.n_stencils)) for _ in range(2))
        self.near_in, self.near_out = (nn.ModuleList(NearField(c) for _ in range(c.n_near)) for _ in range(2))
        pooling = LearnedPooling if c.learned_pooling else GeometricPooling
        sizes = (c.width, c.dim) if c.learned_pooling else ()
        self.pooling = nn.ModuleList(pooling(*sizes) for _ in range(c.n_levels - 1))
        self.up = nn.ModuleList(Link(c) for _ in range(c.n_levels - 1))
        self.scale = nn.Parameter(torch.randn(c.n_levels, c.width) * 0.02)
        self.blocks = nn.ModuleList(Block(c) if c.n_levels > 1 else MeshLayer(c) for _ in range(c.n_blocks))
        self.conduction = Conduction(c) if c.conduction and c.n_levels > 1 else None
        self.down = DownLink(c) if c.n_levels > 1 else None
        self.norm_query, self.norm_key = RMSNorm(c.width), RMSNorm(c.width)
        across = c.attention and c.n_levels > 1
        self.attend = CrossScaleAttention(c.width, c.n_heads, c.n_levels, c.dim) if across else None
        self.heads = nn.ModuleList(Head(c) for _ in range(c.n_levels))
        self.law = LocalLaw(c) if c.n_substeps else None
        let_draw(self, c)

    def forward(self, batch: Batch, *, return_attention: bool = False) -> Output:
        mesh = Fine.of(batch, self.config, edges=self.reads_edges)
        levels = self._encode(batch, mesh)
        v, anchors, attention = levels[0].v, levels[0].v[:0], None
        if len(levels) == 1:  # the mesh alone: what the scales are measured against
            for block in self.blocks:
                v = self._run(block, v, mesh.around)
        else:
            anchors, graph, attention = self._process(levels, batch, return_attention)
            v = self._decode(v, anchors, levels, graph, batch)
        v = self._run(self.mesh_out, v, mesh.around)
        for layer in self.near_out:
            v = self._run(layer, v, mesh.shells)
        for layer in self.stencils_out:
            v = self._run(layer, v, mesh.laplacian)
        law = None if self.law is None else self._run(self.law, v, mesh.laplacian, batch)
        return self._outputs([v, *_split(anchors, levels[1:])], levels, attention, law)

    def coarse(self, batch: Batch) -> Output:
        """The fields of the anchors alone, level 1 first, as :meth:`forward` has them: the mesh is read, and nothing is
        computed for its nodes that they do not need.

        Raises:
            ValueError: an operator without anchors.
        """
        if self.config.n_levels == 1:
            raise ValueError("coarse: expected an operator with anchors, got n_levels = 1")
        levels = self._encode(batch, Fine.of(batch, self.config, edges=self.reads_edges))
        anchors, *_ = self._process(levels, batch)
        return self._outputs(_split(anchors, levels[1:]), levels[1:], None)

    def _encode(self, batch: Batch, mesh: Fine) -> list[LevelState]:
        # under autocast layers answer in short numbers; what they are added to is in full
        v = by_rows(self._read, batch.x, batch.geometry).to(batch.mass_0)  # (n_0, width)
        for layer in self.stencils_in:
            v = self._run(layer, v, mesh.laplacian)
        for layer in self.near_in:
            v = self._run(layer, v, mesh.shells)
        v = self._run(self.mesh_in, v, mesh.around)
        return self._coarsen(v, batch, mesh.around)

    def _read(self, inputs: Tensor, geometry: Tensor) -> Tensor:
        return self._run(self.encode, torch.cat([inputs, geometry], dim=1))

    def _process(
        self, levels: list[LevelState], batch: Batch, return_attention: bool = False
    ) -> tuple[Tensor, AnchorGraph, tuple[Tensor, ...] | None]:
        """The anchors after all blocks, and if wanted the shares of the scales in the attention of the last one."""
        graph = AnchorGraph.of(levels, batch, self.config)
        anchors = torch.cat([x.v for x in levels[1:]])  # all anchors of all levels, (n_1 + n_2 + …, width)
        anchors = anchors + graph.tokens.one_hot(len(self.scale), anchors.dtype) @ self.scale
        before, middle = anchors, len(self.blocks) // 2
        for k, block in enumerate(self.blocks):
            if self.conduction is not None and k == middle:
                anchors = self._run(self.conduction, anchors, graph.lattice, graph.condition)
            before, anchors = anchors, self._run(block, anchors, graph)
        if not (return_attention and self.attend is not None and len(self.blocks)):
            return anchors, graph, None
        shares = _split(cast(Block, self.blocks[-1]).shares(before, graph), levels[1:])
        transfer = levels[0].transfer
        assert transfer is not None
        return anchors, graph, (transfer.detach().prolong(shares[0]), *shares)

    def _run(self, layer: nn.Module, *inputs: Any) -> Any:
        """A layer, whose inner values are kept for the way back or computed again there."""
        if self.config.checkpoint and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def _coarsen(self, v: Tensor, batch: Batch, around: Surroundings) -> list[LevelState]:
        position, mass, graded = batch.pos_0, batch.mass_0, "size_0" in batch
        levels = []
        for s, (pooling, up) in enumerate(zip(self.pooling, self.up, strict=True)):
            edges = link_edges(batch, s) if s else around.from_anchors
            upward, place = edges.transpose() if s else around.to_anchors, batch[f"pos_{s + 1}"]
            unit = spacing(batch, s + 1, edges.sender)
            torus = torus_on(batch, edges, s + 1, s)
            plain = torus is None and not graded  # else differences of positions are not the offsets that are meant
            here, there = (position / unit, place / unit) if plain else (None, None)
            apart = None if plain else between(position, place, edges, torus)
            within = None if apart is None else apart / unit
            weights = self._run(pooling, v, mass, edges, batch[f"log_b_{s}"], here, there, within)
            transfer = Transfer.build(edges, weights, mass)
            levels.append(LevelState(v, position, mass, batch[f"pos_{s}_batch"], transfer))
            moved = transfer.restrict(position) if apart is None else place - transfer.centre(apart)
            moved = torch.where((transfer.coarse_mass > 0)[:, None], moved, place)
            offset = offsets(position, moved, edges, unit, torus)
            # P learns where it decides the answer, in the outputs and in where anchors stand; through the features that
            # travel along it the gradient is noise: measured on grains, it cost 12.3 % against 11.1 % at equal time.
            v = self._run(up, v, up_weights(transfer.detach(), offset), upward).to(mass)
            position, mass = moved, transfer.coarse_mass
        levels.append(LevelState(v, position, mass, batch[f"pos_{len(levels)}_batch"], None))
        return levels

    def _decode(self, v, anchors, levels, graph, batch):
        fine, transfer = levels[0], levels[0].transfer.detach()
        torus = torus_on(batch, transfer.edges, 1, 0)
        offset = offsets(
            fine.position, levels[1].position, transfer.edges, spacing(batch, 1, transfer.edges.sender), torus
        )
        sent = anchors[: len(levels[1].v)], down_weights(transfer, offset), transfer.edges
        near = self._run(self.down, *sent) if torch.is_grad_enabled() else self.down.rows(*sent)
        keys = self.norm_key(anchors[-len(graph.mesh_keys.place) :])

        def tokens(rows: slice) -> Tokens:
            mesh, mass = fine.batch[rows], fine.mass[rows]
            longest = batch.longest[0] if rows == slice(None) else len(mass)
            place = placed(batch, 0, fine.position[rows], mesh)
            return Tokens.build(place, mass, torch.zeros_like(mesh), mesh, batch.num_graphs, longest)

        def hear(v: Tensor, near: Tensor, at: Tokens) -> Tensor:
            v = v + near
            if self.attend is None:
                return v
            return v + self._run(self.attend, self.norm_query(v), keys, at, graph.mesh_keys)

        # parts of several meshes would be padded to tables that are mostly empty
        return by_rows(hear, v, near, tokens, into=v, whole=batch.num_graphs > 1)

    def _outputs(self, values: list[Tensor], levels: list[LevelState], attention, law: Tensor | None = None) -> Output:
        heads = list(self.heads)[-len(levels) :]
        # conservation is a matter of the last digits: fields are never short
        w = [by_rows(partial(self._run, head), x).to(levels[0].mass) for head, x in zip(heads, values, strict=True)]
        n = self.config.n_outputs
        transfers = tuple(x.transfer for x in levels if x.transfer is not None)
        if law is not None:
            w = [
                torch.cat([x[:, :n] + own, x[:, n:]], dim=1)
                for x, own in zip(w, restricted(law, transfers), strict=True)
            ]
        u = [w[-1][:, :n]]
        for free, transfer in zip(w[-2::-1], transfers[::-1], strict=True):
            free = free[:, :n]
            u.insert(0, free + transfer.prolong(u[0] - transfer.restrict(free)))
        mass, position, batch = (tuple(getattr(x, name) for x in levels) for name in ("mass", "position", "batch"))
        if not self.config.noise_head:
            return Output(tuple(u), mass, position, batch, transfers, attention)
        variance = tuple(x[:, n:].clamp(*LOG_VARIANCE).exp() for x in w)
        return NoisyOutput(tuple(u), mass, position, batch, transfers, attention, variance)


def _split(anchors: Tensor, levels: list[LevelState]) -> list[Tensor]:
    return list(anchors.split([len(level.v) for level in levels]))
