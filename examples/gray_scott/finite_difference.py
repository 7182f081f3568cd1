"""Gray–Scott on the periodic square by finite differences, to compare the finite elements with.

It shares nothing with `solver.py` but the equation: differences of fourth order in space, Runge–Kutta's classical
method in time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from solver import Parameters, steps_to

Grid = Float[np.ndarray, "n n 2"]
"""u and v at (i h, j h)."""


def simulate_grid(
    parameters: Parameters, start: Grid, times: Sequence[float], *, side: float = 1.0, step: float = 0.5
) -> Iterator[Grid]:
    """States on a periodic grid at the given times.

    Args:
        parameters: rates and diffusivities.
        start: u and v at time 0; the grid's spacing is h = side / n.
        times: increasing multiples of the first positive one.
        side: length of the square's side.
        step: largest step; stable below 0.26 h² / D_u.

    Raises:
        ValueError: a step that is not stable, or times that do not fit.
    """
    h = side / len(start)
    counts, tau = steps_to(times, step)
    limit = 0.26 * h**2 / max(parameters.diffusion)
    if tau > limit:
        raise ValueError(f"step: expected at most {limit:.3g} for a spacing of {h:.3g}, got {tau:.3g}")
    diffusion, decay = np.array(parameters.diffusion), np.array(parameters.decay)

    def slope(w: Grid) -> Grid:
        reaction = parameters.reaction(w.reshape(-1, 2)).reshape(w.shape)
        return diffusion * laplacian(w, h) - decay * w + reaction

    now, done = np.asarray(start, float), 0
    for count in counts:
        for _ in range(count - done):
            now = runge_kutta(slope, now, tau)
        done = count
        yield now


def laplacian(w: Grid, h: float) -> Grid:
    """Fourth-order differences (−1, 16, −30, 16, −1) / 12h² along both axes."""
    total = -60.0 * w
    for axis in (0, 1):
        for shift in (-1, 1):
            total += 16 * np.roll(w, shift, axis) - np.roll(w, 2 * shift, axis)
    return total / (12 * h**2)


def runge_kutta(slope: Callable[[Grid], Grid], w: Grid, tau: float) -> Grid:
    """One step of the classical method of fourth order."""
    a = slope(w)
    b = slope(w + tau / 2 * a)
    c = slope(w + tau / 2 * b)
    d = slope(w + tau * c)
    return w + tau / 6 * (a + 2 * b + 2 * c + d)
