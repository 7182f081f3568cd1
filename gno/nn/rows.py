"""Predictions on large meshes part by part: where a row of an answer needs that row alone, what is between is never
whole. That takes less memory, and less time: new memory has to be cleared, and is read from outside the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gno.graph.segment import Edges, expansion, rows_of_expansion, spread

# Rows at once for each thread; of 64 channels they take 2 MB.
TILE = 8192

Rows = Tensor | Callable[[slice], object]
"""What has a row for each node: a tensor, or what gives some of them when they are asked for."""


def by_rows(function: Callable[..., Tensor], *rows: Rows, into: Tensor | None = None, whole: bool = False) -> Tensor:
    """``function`` of all rows, at once or part by part.

    In parts only on a CPU, in inference mode, which has no gradients and no weights that are drawn anew at each call.

    Args:
        function: of as many arguments as there are ``rows``; row i of its answer depends on row i of each alone.
        rows: the first is a tensor.
        into: one of the rows that nobody needs afterwards. In parts the answer takes its memory, if it fits.
        whole: at once in any case.

    >>> x = torch.arange(6.0).view(3, 2)
    >>> by_rows(lambda a, b: a + b, x, lambda rows: 10 * x[rows]).tolist()
    [[0.0, 11.0], [22.0, 33.0], [44.0, 55.0]]
    """
    first = rows[0]
    assert isinstance(first, Tensor)
    compiled = torch.compiler.is_compiling()  # which does not see through the next line
    at_once = whole or compiled or first.device.type != "cpu" or not torch.is_inference_mode_enabled()
    tile = len(first) if at_once else TILE * torch.get_num_threads()
    if len(first) <= tile:
        return function(*(x if isinstance(x, Tensor) else x(slice(None)) for x in rows))
    answer = first[:0]
    for start in range(0, len(first), tile):
        rows_here = slice(start, start + tile)
        part = function(*(x[rows_here] if isinstance(x, Tensor) else x(rows_here) for x in rows))
        if not start:
            fits = into is not None and (into.dtype, into.shape[1:]) == (part.dtype, part.shape[1:])
            answer = into if into is not None and fits else part.new_empty(len(first), *part.shape[1:])
        answer[rows_here] = part
    return answer


def expanded(values: Tensor, weights: Sequence[Tensor], edges: Edges) -> Callable[[slice], Tensor]:
    """Rows of :func:`~gno.graph.segment.expansion` along links, of which each node has as many."""

    def at(rows: slice) -> Tensor:
        if rows == slice(None):
            return expansion(values, weights, edges)
        return rows_of_expansion(values, weights, edges, rows)

    return at


def spread_to(values: Tensor, edges: Edges) -> Callable[[slice], Tensor]:
    """What the anchors at the links of each node have, (rows, links, channels)."""
    n = len(edges.ptr) - 1

    def at(rows: slice) -> Tensor:
        if rows == slice(None):
            return spread(values, edges).unflatten(0, (n, -1))
        return values.index_select(0, edges.sender[edges.of(rows)]).unflatten(0, (-1, len(edges.sender) // n))

    return at
