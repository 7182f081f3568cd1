"""A network of conductors between anchors, learned and solved: how what is elliptic reaches across a domain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch_geometric.data import Batch

from gno.graph.batch import measure
from gno.graph.segment import Edges, received, segment_sum, spread
from gno.nn.attention import Tokens
from gno.nn.condition import Condition, Norm
from gno.nn.config import OperatorConfig

# Networks side by side, each for its share of the channels; one where the width is odd.
NETWORKS = 2
# Logarithms of conductivities stay within this, smoothly: a factor of 3,000 from place to place, which a Cholesky
# factor in float32 bears.
BOUND = 4.0
# The least leak, and what it is at the start, before softplus: little is lost across a domain. Sources, which leaks
# alone bound where nothing else does, start as weak.
LEAST, LEAK, SOURCE = 1e-3, -4.5, 0.1


@dataclasses.dataclass(frozen=True)
class Lattice:
    """The anchors of one level as places that conductors join.

    Args:
        rows: where they are among the anchors of all levels.
        edges: where conductors may be. offset: of the sender from the receiver, in spacings. near: exp(−|offset|²), or
            0 where an end has no mass.
        mass: over the mean of the anchors of the mesh.
        tokens: their places in a padded table.
    """

    rows: slice
    edges: Edges
    offset: Float[Tensor, "n_edges dim"]
    near: Float[Tensor, " n_edges"]
    mass: Float[Tensor, " n"]
    tokens: Tokens

    @staticmethod
    def of(
        batch: Batch, s: int, first: int, mass: Float[Tensor, " n"], edges: Edges, offset: Float[Tensor, "n_edges dim"]
    ) -> Lattice:
        """Level s, whose anchors are those from ``first`` on; the geometry carries no gradient."""
        mesh = batch[f"pos_{s}_batch"]
        mass, offset = measure(batch, s, mass.detach()), offset.detach()
        longest = batch.longest[s]
        tokens = Tokens.build(batch[f"pos_{s}"], mass, torch.zeros_like(mesh), mesh, batch.num_graphs, longest)
        total = (tokens.pad(mass[:, None])[..., 0] * tokens.filled).sum(1)
        mean = (total / tokens.filled.sum(1).clamp_min(1)).index_select(0, mesh)
        both = mass.index_select(0, edges.sender) * mass.index_select(0, edges.receiver)
        near = torch.where(both > 0, (-offset.square().sum(1)).exp(), 0.0)
        return Lattice(slice(first, first + len(mass)), edges, offset, near, mass / mean, tokens)


class Conduction(nn.Module):
    """The answer u of a network of conductors to sources S v̂ and to uniform gradients τ of each channel,

        Σ_j c_ij (u_i − u_j − τ·x_ij) + m_i g_i u_i = m_i S v̂_i,      x_ij = x_j − x_i
        c_ij = 2 e^{−|x_ij|²} / (1/κ_i(x_ij) + 1/κ_j(x_ji)),    log κ_i(x) = (a + B x)·v̂_i,    g_i = softplus(d·v̂_i)

    and ``v_i ← v_i + W [u_i, J_i]`` with the currents ``J_i = Σ_j c_ij (u_j − u_i + τ·x_ij) x_ij``, whose mean under a
    uniform gradient is what an effective conductivity is. Half of a conductor belongs to either end and halves are in
    series, as in finite volumes. g is a leak: where it is large, u is held at zero. What leaves i for j comes from i to
    j, so nothing is lost but by the leaks, and u is the answer of a symmetric positive definite matrix, dense, of the
    anchors of one level. An implicit step of diffusion with learned conductivities: cf. Chamberlain et al. 2021, GRAND.
    """

    def __init__(self, c: OperatorConfig) -> None:
        super().__init__()
        self.dim, networks = c.dim, math.gcd(NETWORKS, c.width)
        self.norm = Norm(c)
        self.conductivity = nn.Linear(c.width, (1 + c.dim) * networks)
        self.leak = nn.Linear(c.width, networks)
        self.source = nn.Linear(c.width, c.width)
        self.gradient = nn.Parameter(0.5 * torch.randn(c.dim, c.width))
        self.out = nn.Linear(c.width * (1 + c.dim), c.width)
        with torch.no_grad():  # from conductors that differ little
            self.conductivity.weight.mul_(0.5)
            self.conductivity.bias.zero_()
            self.leak.weight.mul_(0.5)
            self.leak.bias.fill_(LEAK)
            self.source.weight.mul_(SOURCE)
            self.source.bias.zero_()

    def forward(
        self, v: Float[Tensor, "n_anchors width"], lattice: Lattice, condition: Condition | None
    ) -> Float[Tensor, "n_anchors width"]:
        rows = lattice.rows
        with torch.autocast(v.device.type, enabled=False):  # a matrix to be factored is no place for short numbers
            own = v[rows] + self.out(self._answer(self.norm(v, condition)[rows], lattice))
        return torch.cat([v[: rows.start], own, v[rows.stop :]])

    def _answer(self, n: Float[Tensor, "n width"], lattice: Lattice) -> Float[Tensor, "n c"]:
        """u, and its currents by direction, side by side."""
        edges, mass = lattice.edges, lattice.mass[:, None]
        conductance = self._conductances(n, lattice)
        leak = (nn.functional.softplus(self.leak(n)) + LEAST) * mass
        applied = lattice.offset @ self.gradient  # (n_edges, width)
        load = self.source(n) * mass + segment_sum(_times(applied, conductance), edges.ptr)
        u = solve(conductance, leak, load, edges, lattice.tokens)
        current = _times(spread(u, edges) - received(u, edges) + applied, conductance)
        return torch.cat([u, *(segment_sum(current * x[:, None], edges.ptr) for x in lattice.offset.T)], dim=1)

    def _conductances(self, n: Float[Tensor, "n width"], lattice: Lattice) -> Float[Tensor, "n_edges networks"]:
        """Of both directions of an edge the same."""
        edges, offset = lattice.edges, lattice.offset
        log = self.conductivity(n)

        def resistance(end: Callable[[Tensor, Edges], Tensor], offset: Tensor) -> Tensor:
            level, *slopes = end(log, edges).chunk(1 + self.dim, dim=1)
            for x, slope in zip(offset.T, slopes, strict=True):
                level = level + x[:, None] * slope
            return (-_bounded(level)).exp()

        return 2 * lattice.near[:, None] / (resistance(received, offset) + resistance(spread, -offset))


def _bounded(log: Tensor) -> Tensor:
    return BOUND * (log / BOUND).tanh()


def _times(
    values: Float[Tensor, "n_edges c"], conductance: Float[Tensor, "n_edges networks"]
) -> Float[Tensor, "n_edges c"]:
    """Each network's share of the channels times its conductance."""
    return (values.unflatten(1, (conductance.shape[1], -1)) * conductance[..., None]).flatten(1)


def solve(
    conductance: Float[Tensor, "n_edges networks"],
    leak: Float[Tensor, "n networks"],
    load: Float[Tensor, "n c"],
    edges: Edges,
    tokens: Tokens,
) -> Float[Tensor, "n c"]:
    """u of ``Σ_j c_ij (u_i − u_j) + g_i u_i = f_i`` in every mesh, and for each network's share of the channels.

    Edges come in both directions, of one conductance. A node without conductors and without a leak has u = f.
    """
    return _Solve.apply(conductance, leak, load, edges, tokens)


class _Solve(torch.autograd.Function):
    """By a Cholesky factor; the way back is another solve with it, and no gradient of the whole matrix is formed."""

    @staticmethod
    def forward(ctx, conductance, leak, load, edges, tokens):
        n_meshes, longest = tokens.table.shape
        row, column = (tokens.place.index_select(0, end) for end in (edges.receiver, edges.sender))
        matrix = conductance.new_zeros(conductance.shape[1], n_meshes * longest * longest)
        matrix.index_copy_(1, row * longest + column % longest, -conductance.T)
        matrix = matrix.view(-1, n_meshes, longest, longest)
        diagonal = leak + segment_sum(conductance, edges.ptr)
        diagonal = torch.where(diagonal > 0, diagonal, 1.0)
        diagonal = torch.where(tokens.filled[..., None], tokens.pad(diagonal), 1.0)
        matrix.diagonal(dim1=2, dim2=3).copy_(diagonal.movedim(2, 0))
        factor = torch.linalg.cholesky_ex(matrix).L  # whether there is one is not asked, which would wait for a device
        u = _substituted(factor, load, tokens)
        ctx.edges, ctx.tokens = edges, tokens
        ctx.save_for_backward(factor, u)
        return u

    @staticmethod
    def backward(ctx, grad):
        factor, u = ctx.saved_tensors
        edges, adjoint = ctx.edges, _substituted(factor, grad, ctx.tokens)
        drop = u.index_select(0, edges.receiver) - u.index_select(0, edges.sender)
        by_conductance, by_leak = (
            -x.unflatten(1, (len(factor), -1)).sum(2)
            for x in (adjoint.index_select(0, edges.receiver) * drop, adjoint * u)
        )
        return by_conductance, by_leak, adjoint, None, None


def _substituted(
    factor: Float[Tensor, "networks meshes longest longest"], load: Float[Tensor, "n c"], tokens: Tokens
) -> Float[Tensor, "n c"]:
    """``L⁻ᵀ L⁻¹ f``: as fast as ``cholesky_solve``, which on CUDA solves one matrix after the other, or waits."""
    table = tokens.pad(load).unflatten(2, (len(factor), -1)).movedim(2, 0)
    half = torch.linalg.solve_triangular(factor, table, upper=False)
    whole = torch.linalg.solve_triangular(factor.mT, half, upper=True)
    return tokens.unpad(whole.movedim(0, 2).flatten(2))
