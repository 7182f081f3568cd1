"""Kernel integral: the neural-operator layer, with its edge network split so that no matrix product runs over edges."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gno.graph.segment import Edges, sum_received, sum_sent


class KernelIntegral(nn.Module):
    """``W_o Σ_j w_ij σ(W₁ v_i + W₂ v_j + W₃ e_ij)``, a weighted mean over the neighbours when Σ_j w_ij = 1.

    With a slope s_ij the second term is the difference quotient ``s_ij W₂ (v_j − v_i)``, which keeps its meaning when the
    mesh is refined. The first linear map is applied to nodes, the last one after the sum: exact, and far fewer operations
    than a network per edge (Li et al. 2020, Neural Operator: Graph Kernel Network, eq. 4, with this splitting).
    """

    def __init__(self, width: int, n_edge_features: int) -> None:
        super().__init__()
        self.receive = nn.Linear(width, width)
        self.send = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(n_edge_features, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        receiver: Float[Tensor, "n_receivers width"],
        sender: Float[Tensor, "n_senders width"],
        edges: Edges,
        features: Float[Tensor, "n_edges n_edge_features"],
        weights: Float[Tensor, " n_edges"],
        slope: Float[Tensor, " n_edges"] | None = None,
    ) -> Float[Tensor, "n_receivers width"]:
        a, b = self.receive(receiver), self.send(sender)
        return self.out(kernel_sum(a, b, features, self.edge.weight.T, weights, edges, slope))


def kernel_sum(
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    features: Float[Tensor, "n_edges f"],
    matrix: Float[Tensor, "f c"],
    weights: Float[Tensor, " n_edges"],
    edges: Edges,
    slope: Float[Tensor, " n_edges"] | None = None,
) -> Float[Tensor, "n_receivers c"]:
    """``y_i = Σ_j w_ij silu(a_i + b_j + e_ij W)``, or with ``s_ij (b_j − b_i)`` in place of ``b_j``.

    Keeps one edge tensor for the way back; sums are gathers in a fixed order, so results do not change between runs.
    """
    return _KernelSum.apply(a, b, features, matrix, weights, slope, edges)


class _KernelSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, features, matrix, weights, slope, edges):
        sent = b.index_select(0, edges.sender)
        if slope is not None:
            sent = (sent - b.index_select(0, edges.receiver)).mul_(slope[:, None])
        z = torch.addmm(sent, features.to(a.dtype), matrix.to(a.dtype))
        z += a.index_select(0, edges.receiver)
        ctx.edges = edges
        ctx.save_for_backward(z, features, matrix, weights, slope)
        return sum_received(nn.functional.silu(z), weights.to(z.dtype), edges)

    @staticmethod
    def backward(ctx, grad):
        z, features, matrix, weights, slope = ctx.saved_tensors
        edges, needs = ctx.edges, ctx.needs_input_grad
        received = grad.index_select(0, edges.receiver)
        grad_weights = (received * nn.functional.silu(z)).sum(1).to(weights.dtype) if needs[4] else None
        dz = torch.ops.aten.silu_backward(received.mul_(weights.to(z.dtype)[:, None]), z)
        grad_a = sum_received(dz, None, edges) if needs[0] else None
        grad_features = (dz @ matrix.to(dz.dtype).T).to(features.dtype) if needs[2] else None
        grad_matrix = (features.to(dz.dtype).T @ dz).to(matrix.dtype) if needs[3] else None
        grad_b = sum_sent(dz, slope, edges) if needs[1] else None
        if slope is not None and grad_b is not None:
            grad_b = grad_b - sum_received(dz, slope, edges)
        return grad_a, grad_b, grad_features, grad_matrix, grad_weights, None, None
