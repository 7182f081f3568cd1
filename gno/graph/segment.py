"""Sums over the edges of a graph: one module, one result, whether by torch, torch-scatter or Triton.

Edges are stored sorted by receiver (compressed rows), together with the permutation that sorts them by sender, so that
every sum and every gradient is a gather: nothing is scattered, no atomics, the same bits on every run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.kernels import on_triton

try:  # an optional accelerator: its results equal those of plain torch
    from torch_scatter import segment_csr
except ImportError:
    segment_csr = None


@dataclasses.dataclass(frozen=True)
class Edges:
    """Directed edges sorted by receiver, with their transpose.

    Args:
        sender: node that sends, per edge.
        receiver: node that receives, per edge, ascending.
        ptr: edges of receiver r are ``ptr[r]:ptr[r + 1]``.
        perm: edge numbers sorted by sender.
        ptr_t: edges sent by s are ``perm[ptr_t[s]:ptr_t[s + 1]]``.
    """

    sender: Int[Tensor, " n_edges"]
    receiver: Int[Tensor, " n_edges"]
    ptr: Int[Tensor, " n_receivers_1"]
    perm: Int[Tensor, " n_edges"]
    ptr_t: Int[Tensor, " n_senders_1"]

    @staticmethod
    def build(sender: Tensor, receiver: Tensor, n_senders: int, n_receivers: int) -> Edges:
        """Sort and transpose; ``receiver`` must be ascending."""
        return Edges.from_perm(sender, receiver, torch.argsort(sender, stable=True), n_senders, n_receivers)

    @staticmethod
    def from_perm(sender: Tensor, receiver: Tensor, perm: Tensor, n_senders: int, n_receivers: int) -> Edges:
        """As :meth:`build`, with the transpose known."""
        return Edges(sender, receiver, _ptr(receiver, n_receivers), perm, _ptr(sender, n_senders))

    def transpose(self) -> Edges:
        """The same edges with sender and receiver exchanged, in the order of ``perm``."""
        back = torch.empty_like(self.perm)
        back[self.perm] = torch.arange(len(back), device=back.device)
        return Edges(self.receiver[self.perm], self.sender[self.perm], self.ptr_t, back, self.ptr)

    def first(self, n_edges: int, n_receivers: int, n_senders: int) -> Edges:
        """The first edges, of the first nodes, where no other edge touches these."""
        n, r, s = n_edges, n_receivers + 1, n_senders + 1
        return Edges(self.sender[:n], self.receiver[:n], self.ptr[:r], self.perm[:n], self.ptr_t[:s])

    def of(self, rows: slice) -> slice:
        """Which edges those to some of the receivers are, where all receivers have as many."""
        n = len(self.ptr) - 1
        start, stop, _ = rows.indices(n)
        return slice(start * len(self.sender) // n, stop * len(self.sender) // n)

    @staticmethod
    def union(parts: Sequence[Edges]) -> Edges:
        """Disjoint graphs, each on as many senders as receivers, as one graph."""
        sender, receiver, perm, n, e = [], [], [], 0, 0
        ptr: list[Tensor] = []
        ptr_t: list[Tensor] = []
        for part in parts:
            sender.append(part.sender + n)
            receiver.append(part.receiver + n)
            perm.append(part.perm + e)
            rest = 1 if ptr else 0  # where one ends, the next begins
            ptr.append(part.ptr[rest:] + e)
            ptr_t.append(part.ptr_t[rest:] + e)
            n, e = n + len(part.ptr) - 1, e + len(part.sender)
        return Edges(*(torch.cat(x) for x in (sender, receiver, ptr, perm, ptr_t)))


def kept(index: np.ndarray | Tensor) -> Int[Tensor, ...]:
    """Numbers of nodes or edges as samples keep them: 32 bits. What is computed with, is made 64 bits again.

    Raises:
        ValueError: larger ones than 32 bits hold.
    """
    index = torch.as_tensor(index)
    if index.numel() and (largest := int(index.max())) > torch.iinfo(torch.int32).max:
        raise ValueError(f"expected fewer than 2³¹ nodes and edges on a level of a mesh, got number {largest:,}")
    return index.to(torch.int32)


def order(sender: Int[Tensor, " n_edges"]) -> Int[Tensor, " n_edges"]:
    """``perm`` of :class:`Edges` as samples keep it."""
    return kept(torch.argsort(sender, stable=True))


def _ptr(index: Tensor, n: int) -> Tensor:
    count = torch.zeros(n + 1, dtype=torch.long, device=index.device)
    return count.index_add_(0, index + 1, torch.ones_like(index)).cumsum(0)


def segment_sum(values: Float[Tensor, "n_edges c"], ptr: Int[Tensor, " n_1"]) -> Float[Tensor, "n c"]:
    """Sum of consecutive rows: ``y_r = Σ values[ptr[r]:ptr[r+1]]``.

    >>> segment_sum(torch.tensor([[1.], [2.], [4.]]), torch.tensor([0, 2, 2, 3])).T
    tensor([[3., 0., 4.]])
    """
    if segment_csr is not None:
        return segment_csr(values, ptr, reduce="sum")
    return _SegmentSum.apply(values, ptr)


def gather_sum(
    values: Float[Tensor, "n_senders c"], weights: Float[Tensor, " n_edges"], edges: Edges
) -> Float[Tensor, "n_receivers c"]:
    """Weighted sum over incoming edges, ``y_r = Σ_e w_e v_{sender(e)}``: a sparse product whose entries may be learned.

    No tensor with one row per edge and channel is made on the way forward.
    """
    return _Product.apply(values, edges, False, False, weights)


def gather_sum_t(
    values: Float[Tensor, "n_receivers c"], weights: Float[Tensor, " n_edges"], edges: Edges
) -> Float[Tensor, "n_senders c"]:
    """The transpose of :func:`gather_sum`: ``y_s = Σ_e w_e v_{receiver(e)}`` over the edges that s sends."""
    return _Product.apply(values, edges, True, False, weights)


def moments(
    values: Float[Tensor, "n_senders c"], weights: Sequence[Float[Tensor, " n_edges"]], edges: Edges
) -> Float[Tensor, "n_receivers sets_c"]:
    """``y_r^k = Σ_e w_e^k v_{sender(e)}`` for each set of weights k, side by side."""
    return _Product.apply(values, edges, False, False, *weights)


def expansion(
    values: Float[Tensor, "n_senders sets_c"], weights: Sequence[Float[Tensor, " n_edges"]], edges: Edges
) -> Float[Tensor, "n_receivers c"]:
    """``y_r = Σ_k Σ_e w_e^k v_{sender(e)}^k``: values that lie side by side, one part for each set of weights k."""
    return _Product.apply(values, edges, False, True, *weights)


def rows_of_expansion(
    values: Float[Tensor, "n_senders sets_c"], weights: Sequence[Float[Tensor, " n_edges"]], edges: Edges, rows: slice
) -> Float[Tensor, "n c"]:
    """Some rows of :func:`expansion`, without a gradient, where all receivers have as many edges."""
    part = edges.of(rows)
    values, index, weight = _as_one_set(values, edges.sender[part], [w[part] for w in weights])
    n = len(range(*rows.indices(len(edges.ptr) - 1)))
    return bag(values, index, torch.arange(n + 1, device=index.device) * (len(index) // n), weight)


def spread(values: Float[Tensor, "n_senders c"], edges: Edges) -> Float[Tensor, "n_edges c"]:
    """The sender's value on each edge; its gradient is a sum in a fixed order."""
    return _Spread.apply(values, edges, False)


def received(values: Float[Tensor, "n_receivers c"], edges: Edges) -> Float[Tensor, "n_edges c"]:
    """The receiver's own value on each edge; its gradient is a sum in a fixed order."""
    return _Spread.apply(values, edges, True)


def over_sum(weights: Float[Tensor, " n_edges"], edges: Edges) -> Float[Tensor, " n_edges"]:
    """Weights over their sum at the receiver; zero where that sum is zero."""
    total = segment_sum(weights[:, None], edges.ptr)[:, 0]
    return weights / torch.where(total > 0, total, torch.ones_like(total)).index_select(0, edges.receiver)


def bag(values: Tensor, index: Tensor, ptr: Tensor, weights: Tensor | None = None) -> Tensor:
    """``y_r = Σ_{e in ptr[r]:ptr[r+1]} w_e values[index_e]``, without a gradient.

    embedding_bag is torch's fused gather–scale–sum; it accumulates 16-bit values in float32.
    """
    if len(index) == 0:
        return values.new_zeros(len(ptr) - 1, values.shape[1])
    return torch.nn.functional.embedding_bag(
        index, values.contiguous(), ptr, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def sum_received(values: Tensor, weights: Tensor | None, edges: Edges) -> Tensor:
    """Sum of edge values at their receivers, without a gradient."""
    return bag(values, torch.arange(len(values), device=values.device), edges.ptr, weights)


def sum_sent(values: Tensor, weights: Tensor | None, edges: Edges) -> Tensor:
    """Sum of edge values at their senders, without a gradient."""
    return bag(values, edges.perm, edges.ptr_t, None if weights is None else weights.index_select(0, edges.perm))


class _SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, ptr):
        ctx.save_for_backward(ptr)
        ctx.n_values = len(values)
        return bag(values, torch.arange(len(values), device=values.device), ptr)

    @staticmethod
    def backward(ctx, grad):
        (ptr,) = ctx.saved_tensors
        # the size is given, or the host would have to wait for it
        return grad.repeat_interleave(ptr.diff(), dim=0, output_size=ctx.n_values), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, edges, own):
        ctx.edges, ctx.own = edges, own
        return values.index_select(0, edges.receiver if own else edges.sender)

    @staticmethod
    def backward(ctx, grad):
        return (sum_received if ctx.own else sum_sent)(grad, None, ctx.edges), None, None


class _Product(torch.autograd.Function):
    """Moments, or the expansion (``summed``); each is, on the transposed edges, the other one's gradient."""

    @staticmethod
    def forward(ctx, values, edges, transposed, summed, *weights):
        ctx.edges, ctx.transposed, ctx.summed = edges, transposed, summed
        ctx.save_for_backward(values, *weights)
        return _product(values, weights, edges, transposed, summed)

    @staticmethod
    def backward(ctx, grad):
        values, *weights = ctx.saved_tensors
        edges, grad_values, grad_weights = ctx.edges, None, [None] * len(weights)
        if ctx.needs_input_grad[0]:
            grad_values = _product(grad, weights, edges, not ctx.transposed, not ctx.summed)
        if any(ctx.needs_input_grad[4:]):
            out, into = (edges.sender, edges.receiver) if ctx.transposed else (edges.receiver, edges.sender)
            single, several = ((grad, out), (values, into)) if ctx.summed else ((values, into), (grad, out))
            products = _edge_products(*single, *several, len(weights))
            grad_weights = [p.to(w.dtype) for p, w in zip(products, weights, strict=True)]
        return grad_values, None, None, None, *grad_weights


def _product(values: Tensor, weights: Sequence[Tensor], edges: Edges, transposed: bool, summed: bool) -> Tensor:
    index, ptr, perm = edges.sender, edges.ptr, None
    if transposed:
        index, ptr, perm = edges.receiver, edges.ptr_t, edges.perm
    if on_triton(values):
        from gno.kernels import sparse

        one_pass = sparse.expansion if summed or len(weights) == 1 else sparse.moments
        return one_pass(values, torch.stack(tuple(weights)), index, ptr, perm)
    if perm is not None:
        index, weights = index.index_select(0, perm), [w.index_select(0, perm) for w in weights]
    if summed and len(weights) > 1:
        ptr, (values, index, *weights) = ptr * len(weights), _as_one_set(values, index, weights)
    values = values.contiguous()
    sums = [bag(values, index, ptr, w.to(values.dtype)) for w in weights]
    return sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)


def _as_one_set(values: Tensor, index: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Each set becomes a row of its own, so that one pass adds them all up."""
    n = len(weights)
    values = values.reshape(len(values) * n, values.shape[1] // n)
    index = (index[:, None] * n + torch.arange(n, device=index.device)).flatten()
    return values, index, torch.stack(list(weights), dim=1).flatten().to(values.dtype)


def _edge_products(single: Tensor, at_single: Tensor, several: Tensor, at_several: Tensor, n: int) -> Sequence[Tensor]:
    """``Σ_c x_c y_c^k`` on each edge, for each of the n sets k that lie side by side in y."""
    if on_triton(single):
        from gno.kernels import sparse

        return sparse.edge_products(single, several, at_single, at_several).unbind()
    x = single.index_select(0, at_single).to(torch.promote_types(single.dtype, torch.float32))
    return [(x * y.index_select(0, at_several)).sum(1) for y in several.chunk(n, dim=1)]
