"""The kernel integral ``y_i = Σ_j w_ij silu(a_i + b_j)``: gather, add, activation and weighted sum in one pass.

Nothing per edge is kept. The way back recomputes the activation, once by receiver (for a) and once by sender (for b).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from gno.kernels.launch import WARPS, accumulator, blocks, grid


def kernel_sum(
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    weights: Float[Tensor, " n_edges"],
    sender: Int[Tensor, " n_edges"],
    ptr: Int[Tensor, " n_receivers_1"],
) -> Float[Tensor, "n_receivers c"]:
    """``y_i = Σ_j w_ij silu(a_i + b_j)``."""
    return _run(a, b, None, weights, sender, ptr, None)


def kernel_sum_backward(
    grad: Float[Tensor, "n_receivers c"],
    a: Float[Tensor, "n_receivers c"],
    b: Float[Tensor, "n_senders c"],
    weights: Float[Tensor, " n_edges"],
    by_receiver: tuple[Tensor, Tensor],
    by_sender: tuple[Tensor, Tensor, Tensor],
) -> tuple[Float[Tensor, "n_receivers c"], Float[Tensor, "n_senders c"]]:
    """Gradients of a and b; ``by_receiver`` is (sender, ptr), ``by_sender`` is (receiver, ptr_t, perm)."""
    sender, ptr = by_receiver
    receiver, ptr_t, perm = by_sender
    return _run(a, b, grad, weights, sender, ptr, None), _run(b, a, grad, weights, receiver, ptr_t, perm)


def _run(own, other, grad, weights, index, ptr, perm) -> Tensor:
    n_rows, n_channels = own.shape
    own, other = own.contiguous(), other.contiguous()
    backward, by_sender = grad is not None, perm is not None
    out = torch.empty_like(own)
    rows, _, channels = blocks(n_channels)
    if out.numel():
        _integral[grid(n_rows, rows, n_channels, channels)](
            own, other, grad.contiguous() if backward else own, weights.contiguous(),
            index, ptr, perm if by_sender else index, out, n_rows, N_CHANNELS=n_channels,
            BACKWARD=backward, BY_SENDER=by_sender, ACC=accumulator(own), ROWS=rows, CHANNELS=channels,
            num_warps=WARPS,
        )  # fmt: skip
    return out


@triton.jit
def _integral(
    own, other, grad, weights, index, ptr, perm, out, n_rows,
    N_CHANNELS: tl.constexpr, BACKWARD: tl.constexpr, BY_SENDER: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Rows are receivers on the way forward and for the gradient of a, senders for the gradient of b."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside, known = row < n_rows, channel < N_CHANNELS
    here = row[:, None] * N_CHANNELS + channel[None, :]
    mine = tl.load(own + here, inside[:, None] & known[None, :], 0).to(ACC)
    start = tl.load(ptr + row, inside, 0)
    degree = tl.load(ptr + row + 1, inside, 0) - start
    total = tl.zeros((ROWS, CHANNELS), ACC)
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
        share = 1 / (1 + tl.exp(-z))
        if BACKWARD:
            value = share * (1 + z * (1 - share))
            if BY_SENDER:
                value *= tl.load(grad + at, mask, 0).to(ACC)
        else:
            value = z * share
        total += w[:, None] * value
    if BACKWARD and not BY_SENDER:
        total *= tl.load(grad + here, inside[:, None] & known[None, :], 0).to(ACC)
    tl.store(out + here, total, inside[:, None] & known[None, :])
