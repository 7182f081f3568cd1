"""Which numbers the colours run between, and which colours."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

VALUE_COLORS = "viridis"
SIGNED_COLORS = "RdBu_r"
UNSIGNED_COLORS = "magma_r"
INK = "#202020"
PALE = "#5f5f5f"
GHOST = "#9a9a9a"  # where a mesh was before it moved
NO_VALUE_COLOR = "#b4b4b4"
SHEET = "#e9edf1"  # a surface without values
MARKER = "#4a7aa7"  # points without values


def color_limits(*values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The common range of several arrays, for a shared colour scale.

    Args:
        values: arrays of any length; NaN does not count.

    Returns:
        low < high: a constant c gives c ∓ |c|/10 (∓ 1 at 0), and no number at all 0 to 1.

    >>> color_limits(np.array([0., 2.]), np.array([-1., np.nan]))
    (-1.0, 2.0)
    >>> color_limits(np.full(3, 5.))
    (4.5, 5.5)
    """
    finite = np.concatenate([np.zeros(0), *(array[np.isfinite(array)] for array in values)])
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    # Round-off around a constant, in single precision too, is no variation worth colours.
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        room = abs(low) / 10 or 1.0
        return low - room, high + room
    return low, high


def error_limits(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Symmetric around 0 if there are negative errors, else from 0.

    >>> error_limits(np.array([-3., 1.])), error_limits(np.array([0., 2.]))
    ((-3.0, 3.0), (0.0, 2.0))
    """
    finite = np.abs(values[np.isfinite(values)])
    largest = float(finite.max()) if len(finite) else 0.0
    largest = largest or 1.0
    return (-largest if (values < 0).any() else 0.0), largest
