"""Kernel integrals: the neural-operator layer, without a matrix product or a learned tensor over edges.

Two kernels. Between anchors, where edges are few, a network of both ends and their offset, split into node products.
On the mesh and along the links, where edges are many, a kernel that is linear in the offset: then the integral is a
few sparse products of node values, about twenty times cheaper than one tensor per edge (measured on a CPU). With the
weights ``w_ij`` and ``w_ij (x_j − x_i)_k``, a linear map of the :func:`~gno.graph.segment.moments` of v is the integral
of ``W_0 + Σ_k W_k (x_j − x_i)_k`` against v.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gno.graph.segment import Edges, sum_received, sum_sent
from gno.kernels import on_triton
from gno.nn.precision import in_full


class KernelIntegral(nn.Module):
    """``W_o Σ_j w_ij σ(W₁ v_i + W₂ v_j + W₃ (x_j − x_i))``, a weighted mean over the neighbours when Σ_j w_ij = 1.

    The first linear map, offset included, is a difference of node terms, and the last one is applied after the sum:
    exact, and far fewer operations than a network per edge (Li et al. 2020, Neural Operator: Graph Kernel Network,
    eq. 4, split in this way).
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.receive = nn.Linear(width, width)
        self.send = nn.Linear(width, width, bias=False)
        self.place = nn.Linear(dim, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        values: Float[Tensor, "n width"],
        position: Float[Tensor, "n dim"] | None,
        edges: Edges,
        weights: Float[Tensor, " n_edges"],
        offset: Float[Tensor, "n_edges dim"] | None = None,
    ) -> Float[Tensor, "n width"]:
        """``position`` in spacings of each node's level; without it the ``offset`` of the sender on each edge."""
        receive, send = self.receive(values), self.send(values)
        if position is None:
            return self.out(kernel_sum(receive, send, weights, edges, offset, self.place.weight))
        place = in_full(self.place, position)
        return self.out(kernel_sum(receive - place, send + place, weights, edges))


def kernel_sum(
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    weights: Float[Tensor, " n_edges"],
    edges: Edges,
    offset: Float[Tensor, "n_edges dim"] | None = None,
    place: Float[Tensor, "c dim"] | None = None,
) -> Float[Tensor, "n_receivers c"]:
    """``y_i = Σ_j w_ij silu(a_i + b_j)``, or with offsets x and C, the ``place``, ``silu(a_i + b_j + C x_ij)``. The
    weights are a quadrature and carry no gradient.

    Sums are gathers in a fixed order, so results do not change between runs. The plain form keeps one edge tensor for
    the way back, the kernel none.
    """
    return _KernelSum.apply(a, b, weights, edges, offset, place)


class _KernelSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, weights, edges, offset, place):
        ctx.edges, ctx.fused = edges, on_triton(a)
        if ctx.fused:
            from gno.kernels import integral

            ctx.save_for_backward(a, b, weights, offset, place)
            return integral.kernel_sum(a, b, weights, edges.sender, edges.ptr, offset, place)
        z = a.index_select(0, edges.receiver)
        z += b.index_select(0, edges.sender)
        if offset is not None:
            z += offset @ place.T
        ctx.save_for_backward(z, weights, offset, place)
        return sum_received(nn.functional.silu(z), weights.to(z.dtype), edges)

    @staticmethod
    def backward(ctx, grad):
        edges = ctx.edges
        if ctx.fused:
            from gno.kernels import integral

            by_receiver, by_sender = (edges.sender, edges.ptr), (edges.receiver, edges.ptr_t, edges.perm)
            da, db, *others = integral.kernel_sum_backward(grad, *ctx.saved_tensors, by_receiver, by_sender)
            return da, db, None, None, *others
        z, weights, offset, place = ctx.saved_tensors
        dz = grad.index_select(0, edges.receiver).mul_(weights.to(z.dtype)[:, None])
        dz = torch.ops.aten.silu_backward(dz, z)
        da, db = sum_received(dz, None, edges), sum_sent(dz, None, edges)
        if offset is None:
            return da, db, None, None, None, None
        dz = dz.to(offset.dtype)
        return da, db, None, None, dz @ place, dz.T @ offset
