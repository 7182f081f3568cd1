"""The kernel integral ``y_i = Σ_j w_ij silu(a_i + b_j + C x_ij)``: gather, add, activation and sum in one pass.

Nothing per edge is kept. The way back recomputes the activation, once by receiver (for a, x and C) and once by sender
(for b). The offsets x with their map C may be left out.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from gno.kernels.launch import WARPS, accumulator, blocks, grid

Offset = Float[Tensor, "n_edges dim"] | None
Place = Float[Tensor, "c dim"] | None


def kernel_sum(
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    weights: Float[Tensor, " n_edges"],
    sender: Int[Tensor, " n_edges"],
    ptr: Int[Tensor, " n_receivers_1"],
    offset: Offset = None,
    place: Place = None,
) -> Float[Tensor, "n_receivers c"]:
    """``y_i = Σ_j w_ij silu(a_i + b_j + C x_ij)``."""
    return _run(a, b, None, weights, sender, ptr, None, offset, place)[0]


def kernel_sum_backward(
    grad: Float[Tensor, "n_receivers c"],
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    weights: Float[Tensor, " n_edges"],
    offset: Offset,
    place: Place,
    by_receiver: tuple[Tensor, Tensor],
    by_sender: tuple[Tensor, Tensor, Tensor],
) -> tuple[Float[Tensor, "n_receivers c"], Float[Tensor, "n_senders c"], Offset, Place]:
    """Gradients of a, b, x and C; ``by_receiver`` is (sender, ptr), ``by_sender`` is (receiver, ptr_t, perm)."""
    sender, ptr = by_receiver
    receiver, ptr_t, perm = by_sender
    da, dx, dc = _run(a, b, grad, weights, sender, ptr, None, offset, place)
    db = _run(b, a, grad, weights, receiver, ptr_t, perm, offset, place)[0]
    return da, db, dx, dc


def _run(own, other, grad, weights, index, ptr, perm, offset, place) -> tuple[Tensor, Tensor | None, Tensor | None]:
    n_rows, n_channels = own.shape
    own, other = own.contiguous(), other.contiguous()
    backward, by_sender = grad is not None, perm is not None
    out, dim = torch.empty_like(own), 0 if offset is None else offset.shape[1]
    rows, _, channels = blocks(n_channels)
    cut = grid(n_rows, rows, n_channels, channels)
    x, c = (own, own) if offset is None else (offset.contiguous(), place.contiguous())
    dx, dc = x, c
    if dim and backward and not by_sender:  # a share for each block of channels, and one for each block of rows
        dx, dc = x.new_zeros(cut[1], *x.shape), c.new_zeros(cut[0], *c.shape)
    if out.numel():
        _integral[cut](
            own, other, grad.contiguous() if backward else own, weights.contiguous(),
            index, ptr, perm if by_sender else index, x, c, out, dx, dc, n_rows, len(weights),
            N_CHANNELS=n_channels, DIM=dim, BACKWARD=backward, BY_SENDER=by_sender, ACC=accumulator(own),
            ROWS=rows, CHANNELS=channels, num_warps=WARPS,
        )  # fmt: skip
    return (out, dx.sum(0), dc.sum(0)) if dx is not x else (out, None, None)


@triton.jit
def _integral(
    own, other, grad, weights, index, ptr, perm, x, c, out, dx, dc, n_rows, n_edges,
    N_CHANNELS: tl.constexpr, DIM: tl.constexpr, BACKWARD: tl.constexpr, BY_SENDER: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Rows are receivers on the way forward and for the gradients of a, x and c, senders for that of b."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, known = row < n_rows, channel < N_CHANNELS
    here = row[:, None] * N_CHANNELS + channel[None, :]
    mine = tl.load(own + here, inside[:, None] & known[None, :], 0).to(ACC)
    start = tl.load(ptr + row, inside, 0)
    degree = tl.load(ptr + row + 1, inside, 0) - start
    total = tl.zeros((ROWS, CHANNELS), ACC)
    PLACES: tl.constexpr = DIM > 0 and BACKWARD and not BY_SENDER  # gradients of x and c are wanted
    if DIM > 0:
        c0 = tl.load(c + channel * DIM, known, 0).to(ACC)
        c1 = tl.load(c + channel * DIM + 1, known & (DIM > 1), 0).to(ACC)
        c2 = tl.load(c + channel * DIM + 2, known & (DIM > 2), 0).to(ACC)
    if PLACES:
        g = tl.load(grad + here, inside[:, None] & known[None, :], 0).to(ACC)
        t0 = tl.zeros((ROWS, CHANNELS), ACC)
        t1 = tl.zeros((ROWS, CHANNELS), ACC)
        t2 = tl.zeros((ROWS, CHANNELS), ACC)
    for k in range(0, tl.max(degree, 0)):
        live = k < degree
        edge = start + k
        if BY_SENDER:
            edge = tl.load(perm + edge, live, 0)
        node = tl.load(index + edge, live, 0)
        w = tl.load(weights + edge, live, 0).to(ACC)  # zero where this row has no edge left
        at = node[:, None] * N_CHANNELS + channel[None, :]
        mask = live[:, None] & known[None, :]
        z = mine + tl.load(other + at, mask, 0).to(ACC)
        if DIM > 0:
            x0 = tl.load(x + edge * DIM, live, 0).to(ACC)
            x1 = tl.load(x + edge * DIM + 1, live & (DIM > 1), 0).to(ACC)
            x2 = tl.load(x + edge * DIM + 2, live & (DIM > 2), 0).to(ACC)
            z += x0[:, None] * c0[None, :] + x1[:, None] * c1[None, :] + x2[:, None] * c2[None, :]
        share = 1 / (1 + tl.exp(-z))
        if BACKWARD:
            value = share * (1 + z * (1 - share))
            if BY_SENDER:
                value *= tl.load(grad + at, mask, 0).to(ACC)
        else:
            value = z * share
        value *= w[:, None]
        total += value
        if PLACES:
            value *= g
            t0 += value * x0[:, None]
            t1 += value * x1[:, None]
            t2 += value * x2[:, None]
            to = dx + (tl.program_id(1).to(tl.int64) * n_edges + edge) * DIM
            tl.store(to, tl.sum(value * c0[None, :], 1), live)
            tl.store(to + 1, tl.sum(value * c1[None, :], 1), live & (DIM > 1))
            tl.store(to + 2, tl.sum(value * c2[None, :], 1), live & (DIM > 2))
    if PLACES:
        to = dc + (tl.program_id(0).to(tl.int64) * N_CHANNELS + channel) * DIM
        tl.store(to, tl.sum(t0, 0), known)
        tl.store(to + 1, tl.sum(t1, 0), known & (DIM > 1))
        tl.store(to + 2, tl.sum(t2, 0), known & (DIM > 2))
    if BACKWARD and not BY_SENDER:
        total *= tl.load(grad + here, inside[:, None] & known[None, :], 0).to(ACC)
    tl.store(out + here, total, inside[:, None] & known[None, :])
