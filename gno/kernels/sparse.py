"""Sparse products whose entries may be learned, for several sets of entries on the same pattern in one pass.

Rows are compressed: the edges of row r are ``ptr[r]:ptr[r + 1]``, through ``perm`` where the pattern is transposed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from gno.kernels.launch import WARPS, accumulator, blocks, blocks_of, grid

# Edges that a program adds up one after the other, where rows are long.
PIECE = 64


def moments(
    values: Float[Tensor, "n c"],
    weights: Float[Tensor, "n_sets n_edges"],
    index: Int[Tensor, " n_edges"],
    ptr: Int[Tensor, " n_rows_1"],
    perm: Int[Tensor, " n_edges"] | None,
) -> Float[Tensor, "n_rows n_sets_c"]:
    """``y_r^k = Σ_e w_e^k v_{index(e)}`` over the edges e of row r, side by side for each set k."""
    return _product(_moments, values, weights, index, ptr, perm, values.shape[1], len(weights) * values.shape[1])


def expansion(
    values: Float[Tensor, "n n_sets_c"],
    weights: Float[Tensor, "n_sets n_edges"],
    index: Int[Tensor, " n_edges"],
    ptr: Int[Tensor, " n_rows_1"],
    perm: Int[Tensor, " n_edges"] | None,
) -> Float[Tensor, "n_rows c"]:
    """``y_r = Σ_k Σ_e w_e^k v_{index(e)}^k`` over the edges e of row r and the sets k."""
    n_channels = values.shape[1] // len(weights)
    return _product(_expansion, values, weights, index, ptr, perm, n_channels, n_channels)


def edge_products(
    single: Float[Tensor, "n c"],
    several: Float[Tensor, "m n_sets_c"],
    at_single: Int[Tensor, " n_edges"],
    at_several: Int[Tensor, " n_edges"],
) -> Float[Tensor, "n_sets n_edges"]:
    """``p_e^k = Σ_c x_{at_single(e)} y_{at_several(e)}^k``: what both products above need for the gradient of w."""
    single, several = single.contiguous(), several.contiguous()
    n_channels, n_edges = single.shape[1], len(at_single)
    n_sets = several.shape[1] // n_channels
    dtype = torch.promote_types(single.dtype, torch.float32)
    out = torch.empty(n_sets, n_edges, dtype=dtype, device=single.device)
    rows, _, channels = blocks(n_channels)
    if n_edges:
        _edge_products[(blocks_of(n_edges, rows), n_sets)](
            single, several, at_single, at_several, out, n_edges, N_CHANNELS=n_channels, N_SETS=n_sets,
            ACC=accumulator(single), ROWS=rows, CHANNELS=channels, num_warps=WARPS,
        )  # fmt: skip
    return out


def _product(kernel, values, weights, index, ptr, perm, n_channels: int, n_out: int) -> Tensor:
    pieces = _pieces(ptr, len(index))
    if pieces is None:
        return _rows(kernel, values, weights, index, ptr, perm, n_channels, n_out, values.dtype)
    cut, of_row = pieces  # sums of pieces, then the sum of those of each row, again in a fixed order
    full = torch.promote_types(values.dtype, torch.float32)
    sums = _rows(kernel, values, weights, index, cut, perm, n_channels, n_out, full)
    here = torch.arange(len(sums), device=sums.device)
    return expansion(sums, torch.ones_like(here, dtype=full)[None], here, of_row, None).to(values.dtype)


def _rows(kernel, values, weights, index, ptr, perm, n_channels: int, n_out: int, dtype: torch.dtype) -> Tensor:
    n_rows, n_edges = len(ptr) - 1, len(index)
    out = torch.empty(n_rows, n_out, dtype=dtype, device=values.device)
    rows, sets, channels = blocks(n_channels, len(weights))
    if out.numel():
        kernel[grid(n_rows, rows, n_channels, channels)](
            values.contiguous(), weights.contiguous(), index, ptr, index if perm is None else perm, out,
            n_rows, n_edges, N_CHANNELS=n_channels, N_SETS=len(weights), PERMUTED=perm is not None,
            ACC=accumulator(values), ROWS=rows, SETS=sets, CHANNELS=channels, num_warps=WARPS,
        )  # fmt: skip
    return out


def _pieces(ptr: Int[Tensor, " n_rows_1"], n_edges: int) -> tuple[Tensor, Tensor] | None:
    """Long rows cut into pieces: edges of each piece and pieces of each row, compressed; None where rows are short.

    A row is worked off by one program. Where a few rows have most edges (few anchors under a fine mesh), one after the
    other would take long. How many pieces there are at most is known without a look at the device; the rest are empty.
    """
    n_rows = len(ptr) - 1
    if n_edges <= PIECE * n_rows:
        return None
    most = n_rows + n_edges // PIECE
    of_row = torch.zeros_like(ptr)
    torch.cumsum((ptr.diff() + PIECE - 1) // PIECE, 0, out=of_row[1:])
    piece = torch.arange(most + 1, device=ptr.device)
    row = torch.searchsorted(of_row, piece, right=True).sub_(1).clamp_(max=n_rows - 1)
    start = ptr.index_select(0, row) + PIECE * (piece - of_row.index_select(0, row))
    return torch.minimum(start, ptr.index_select(0, row + 1)), of_row


@triton.jit
def _moments(
    values, weights, index, ptr, perm, out, n_rows, n_edges,
    N_CHANNELS: tl.constexpr, N_SETS: tl.constexpr, PERMUTED: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, SETS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = tl.arange(0, SETS)
    inside, known, used = row < n_rows, channel < N_CHANNELS, place < N_SETS
    start = tl.load(ptr + row, inside, 0)
    degree = tl.load(ptr + row + 1, inside, 0) - start
    total = tl.zeros((ROWS, SETS, CHANNELS), ACC)
    for k in range(0, tl.max(degree, 0)):
        live = k < degree
        edge = start + k
        if PERMUTED:
            edge = tl.load(perm + edge, live, 0)
        node = tl.load(index + edge, live, 0)
        w = tl.load(weights + place[None, :] * n_edges + edge[:, None], live[:, None] & used[None, :], 0).to(ACC)
        at = node[:, None, None] * N_CHANNELS + channel[None, None, :]
        v = tl.load(values + at, live[:, None, None] & known[None, None, :], 0).to(ACC)
        total += w[:, :, None] * v
    at = (row[:, None] * N_SETS + place[None, :])[:, :, None] * N_CHANNELS + channel[None, None, :]
    tl.store(out + at, total, inside[:, None, None] & used[None, :, None] & known[None, None, :])


@triton.jit
def _expansion(
    values, weights, index, ptr, perm, out, n_rows, n_edges,
    N_CHANNELS: tl.constexpr, N_SETS: tl.constexpr, PERMUTED: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, SETS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = tl.arange(0, SETS)
    inside, known, used = row < n_rows, channel < N_CHANNELS, place < N_SETS
    start = tl.load(ptr + row, inside, 0)
    degree = tl.load(ptr + row + 1, inside, 0) - start
    total = tl.zeros((ROWS, SETS, CHANNELS), ACC)
    for k in range(0, tl.max(degree, 0)):
        live = k < degree
        edge = start + k
        if PERMUTED:
            edge = tl.load(perm + edge, live, 0)
        node = tl.load(index + edge, live, 0)
        here = live[:, None] & used[None, :]
        w = tl.load(weights + place[None, :] * n_edges + edge[:, None], here, 0).to(ACC)
        at = (node[:, None] * N_SETS + place[None, :])[:, :, None] * N_CHANNELS + channel[None, None, :]
        v = tl.load(values + at, here[:, :, None] & known[None, None, :], 0).to(ACC)
        total += w[:, :, None] * v
    at = row[:, None] * N_CHANNELS + channel[None, :]
    tl.store(out + at, tl.sum(total, 1), inside[:, None] & known[None, :])


@triton.jit
def _edge_products(
    single, several, at_single, at_several, out, n_edges,
    N_CHANNELS: tl.constexpr, N_SETS: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    edge = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    place = tl.program_id(1)
    inside = edge < n_edges
    one = tl.load(at_single + edge, inside, 0)
    other = tl.load(at_several + edge, inside, 0) * N_SETS + place
    total = tl.zeros((ROWS,), ACC)
    for first in range(0, N_CHANNELS, CHANNELS):
        channel = first + tl.arange(0, CHANNELS)
        here = inside[:, None] & (channel < N_CHANNELS)[None, :]
        x = tl.load(single + one[:, None] * N_CHANNELS + channel[None, :], here, 0).to(ACC)
        y = tl.load(several + other[:, None] * N_CHANNELS + channel[None, :], here, 0).to(ACC)
        total += tl.sum(x * y, 1)
    tl.store(out + place.to(tl.int64) * n_edges + edge, total, inside)
