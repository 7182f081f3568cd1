"""How the kernels cut their work: a program takes some rows of a compressed graph and a block of channels."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

# Numbers that one program holds: 16 bytes of a bfloat16 row in each of its 128 threads.
ELEMENTS = 1024
WIDEST = 128
WARPS = 4


def accumulator(values: Tensor) -> tl.dtype:
    """Sums of 16-bit values are taken in float32, those of float64 in float64."""
    return tl.float64 if values.dtype == torch.float64 else tl.float32


def blocks(n_channels: int, n_sets: int = 1) -> tuple[int, int, int]:
    """Rows, sets and channels of one program, powers of two.

    >>> blocks(64), blocks(64, 3), blocks(3), blocks(192)
    ((16, 1, 64), (4, 4, 64), (128, 1, 4), (8, 1, 128))
    """
    sets = power_of_2(n_sets)
    channels = min(WIDEST, power_of_2(n_channels))
    return max(1, min(128, ELEMENTS // (sets * channels))), sets, channels


def grid(n_rows: int, row_block: int, n_channels: int, channel_block: int) -> tuple[int, int]:
    return blocks_of(n_rows, row_block), blocks_of(n_channels, channel_block)


def blocks_of(n: int, size: int) -> int:
    """Blocks that cover n. This and the next are plain arithmetic: torch.compile does not see through Triton's own.

    >>> blocks_of(9, 4)
    3
    """
    return -(-n // size)


def power_of_2(n: int) -> int:
    """The least that is not below n.

    >>> [power_of_2(n) for n in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << (n - 1).bit_length()
