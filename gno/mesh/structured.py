"""Cells of a structured grid, in VTK's numbering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Corners of a line, quad and hexahedron, as steps along the axes that have more than one point.
_CORNERS: dict[int, list[tuple[int, ...]]] = {
    0: [()],
    1: [(0,), (1,)],
    2: [(0, 0), (1, 0), (1, 1), (0, 1)],
    3: [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
}
_CODES = {0: 1, 1: 3, 2: 9, 3: 12}


def grid_cells(dimensions: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Connectivity, offsets and VTK types of the cells between points of a grid; the first axis runs fastest.

    >>> grid_cells([3, 2, 1])[0].tolist()
    [0, 1, 4, 3, 1, 2, 5, 4]
    """
    strides = np.cumprod([1, *dimensions[:-1]])
    axes = [(n, stride) for n, stride in zip(dimensions, strides.tolist(), strict=True) if n > 1]
    first = np.zeros(1, dtype=np.int64)
    for n, stride in axes:
        first = (first[None, :] + stride * np.arange(n - 1)[:, None]).ravel()
    corners = _CORNERS[len(axes)]
    steps = [sum(k * stride for k, (_, stride) in zip(corner, axes, strict=True)) for corner in corners]
    cells = first[:, None] + np.array(steps, dtype=np.int64)
    size, width = cells.shape
    return cells.ravel(), width * np.arange(1, size + 1), np.full(size, _CODES[len(axes)], np.uint8)
