"""Learned pooling: which anchors a node leans on, with masses, so that every transfer keeps constants and integrals."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gno.graph.segment import Edges, gather_sum, gather_sum_t, segment_sum
from gno.nn.precision import in_full
from gno.nn.rows import by_rows, spread_to

# Share of the geometric weights that learning cannot take away: every anchor keeps a mass.
FLOOR = 0.05


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Transfer between a level and the next coarser one: ``P`` to the finer one, ``R = diag(m')⁻¹ Pᵀ diag(m)`` back.

    Rows of P sum to one, so R1 = 1, ∫Ru = ∫u, ∫Pu = ∫u and ⟨Ru, v⟩ = ⟨u, Pv⟩ to round-off.

    Args:
        edges: from candidate anchors to nodes. weights: P, one entry per edge.
        fine_mass, coarse_mass: node masses of both levels.
    """

    edges: Edges
    weights: Float[Tensor, " n_edges"]
    fine_mass: Float[Tensor, " n_fine"]
    coarse_mass: Float[Tensor, " n_coarse"]

    @staticmethod
    def build(edges: Edges, weights: Tensor, fine_mass: Tensor) -> Transfer:
        coarse = gather_sum_t(fine_mass[:, None], weights, edges)[:, 0]
        return Transfer(edges, weights, fine_mass, coarse)

    def prolong(self, values: Float[Tensor, "n_coarse c"]) -> Float[Tensor, "n_fine c"]:
        return gather_sum(values, self.weights, self.edges)

    def restrict(self, values: Float[Tensor, "n_fine c"]) -> Float[Tensor, "n_coarse c"]:
        total = gather_sum_t(values * self.fine_mass[:, None], self.weights, self.edges)
        return total / _positive(self.coarse_mass)[:, None]

    def restriction_weights(self) -> Float[Tensor, " n_edges"]:
        """Entries of R on the same edges: they sum to one at every anchor."""
        mass = self.fine_mass.index_select(0, self.edges.receiver)
        return self.weights * mass / _positive(self.coarse_mass).index_select(0, self.edges.sender)

    def centre(self, offset: Float[Tensor, "n_edges dim"]) -> Float[Tensor, "n_coarse dim"]:
        """``Σ_i R_ia d_ia`` of something that differs from link to link."""
        perm = self.edges.perm
        return segment_sum((self.restriction_weights()[:, None] * offset).index_select(0, perm), self.edges.ptr_t)

    def first(self, n_fine: int, n_coarse: int) -> Transfer:
        """Of the first nodes and anchors, which are linked to one another only."""
        edges = self.edges.first(n_fine * (len(self.weights) // max(1, len(self.fine_mass))), n_fine, n_coarse)
        return Transfer(edges, self.weights[: len(edges.sender)], self.fine_mass[:n_fine], self.coarse_mass[:n_coarse])

    def detach(self) -> Transfer:
        return Transfer(self.edges, self.weights.detach(), self.fine_mass.detach(), self.coarse_mass.detach())


def _positive(mass: Tensor) -> Tensor:
    # An anchor of nodes without mass (probes, unreferenced nodes) has mass zero, and receives zero.
    return torch.where(mass > 0, mass, torch.ones_like(mass))


class LearnedPooling(nn.Module):
    """``P_ia = (1−ε) softmax_a(ℓ_ia + log b_ia) + ε softmax_a(log b_ia)`` over the candidate anchors a of node i.

    ``ℓ_ia = w·σ(A v_i + C (y_a − p_i)) − ‖Q v_i − K v̄_a‖²``: geometry proposes, and likeness of node and anchor (v̄ is
    what the anchor sees under the geometric weights) decides, so that an anchor need not smear across an interface.
    """

    def __init__(self, width: int, dim: int, hidden: int = 8) -> None:
        super().__init__()
        self.node = nn.Linear(width, hidden)
        self.place = nn.Linear(dim, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.query = nn.Linear(width, hidden, bias=False)
        self.key = nn.Linear(width, hidden, bias=False)
        with torch.no_grad():
            # Training starts from nearly the geometric weights: coarse targets move with P, and P needs a reason to.
            self.score.weight.mul_(0.1)
            self.query.weight.mul_(0.3)
            self.key.weight.copy_(self.query.weight)  # node and anchor are compared in the same coordinates

    def forward(
        self,
        values: Float[Tensor, "n width"],
        mass: Float[Tensor, " n"],
        edges: Edges,
        log_b: Float[Tensor, "n k"],
        fine: Float[Tensor, "n dim"] | None,
        coarse: Float[Tensor, "n_coarse dim"] | None,
        offset: Float[Tensor, "n_edges dim"] | None = None,
    ) -> Float[Tensor, " n_edges"]:
        """``fine`` and ``coarse`` positions in spacings of the coarse level; without them the ``offset`` of the anchor
        from the node on each link."""
        b = log_b.softmax(1)
        seen = Transfer.build(edges, b.flatten(), mass).restrict(self.key(values))
        anchor = seen if coarse is None else torch.cat([seen, in_full(self.place, coarse)], dim=1)
        apart = fine if offset is None else offset.view(*log_b.shape, -1)
        assert apart is not None
        return by_rows(self._leaning, values, log_b, b, spread_to(anchor, edges), apart).flatten()

    def _leaning(self, values: Tensor, log_b: Tensor, b: Tensor, anchor: Tensor, apart: Tensor) -> Tensor:
        """P of nodes: ``apart`` is where they are if what anchors say has their places in it, else the offsets."""
        seen, *place = anchor.split(self.key.out_features, dim=2)
        unlike = (self.query(values)[:, None] - seen).square().sum(2)
        own, far = self.node(values), in_full(self.place, apart)
        node, place = (own - far, place) if place else (own, [far])
        hidden = nn.functional.silu(sum(place, start=node[:, None]))
        logits = in_full(self.score, hidden).squeeze(2) - unlike + log_b
        return (1 - FLOOR) * logits.softmax(1) + FLOOR * b


class GeometricPooling(nn.Module):
    """Fixed weights, softmax of the geometric ones: what learned pooling is measured against."""

    def forward(self, values, mass, edges, log_b, fine, coarse, offset=None) -> Float[Tensor, " n_edges"]:
        return log_b.softmax(1).flatten()
