"""Where in the plane of (F, k) patterns live, and which parts of it are for training and which for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from solver import Parameters


def saddle_node(feed: float) -> float:
    """k up to which a uniform state with v > 0 exists, k = √F / 2 − F; patterns live in a narrow band around it.

    Source: Pearson, Complex patterns in a simple system, Science 261 (1993).

    >>> round(saddle_node(0.04), 6)
    0.06
    """
    return float(np.sqrt(feed) / 2 - feed)


PEARSON: Mapping[str, Parameters] = MappingProxyType(
    {
        "alpha: spots that come and go": Parameters(0.010, 0.047),
        "beta: chaos of waves": Parameters(0.026, 0.051),
        "gamma: stripes that never rest": Parameters(0.022, 0.051),
        "delta: holes in hexagons": Parameters(0.030, 0.055),
        "epsilon: spots divide and die": Parameters(0.018, 0.055),
        "zeta: spots divide and overcrowd": Parameters(0.022, 0.061),
        "eta: spots and worms": Parameters(0.034, 0.063),
        "theta: stripes from rings": Parameters(0.030, 0.057),
        "iota: few holes": Parameters(0.046, 0.0594),
        "kappa: a maze that fills the plane": Parameters(0.050, 0.063),
        "lambda: spots divide until they rest": Parameters(0.034, 0.065),
        "mu: worms": Parameters(0.046, 0.065),
    }
)
"""One point of each of Pearson's twelve classes; places as in Munafo's gallery of them, mrob.com/pub/comp/xmorphia."""


@dataclasses.dataclass(frozen=True)
class Band:
    """A rectangle in (F, k − k_c(F)), k_c the saddle-node line: the band of patterns, made straight.

    Args:
        feed: smallest and largest F.
        offset: smallest and largest k − k_c(F).
    """

    feed: tuple[float, float]
    offset: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> Parameters:
        """A point, uniformly."""
        feed = float(rng.uniform(*self.feed))
        return Parameters(feed, saddle_node(feed) + float(rng.uniform(*self.offset)))

    def contains(self, parameters: Parameters) -> bool:
        """Whether a point lies in the rectangle."""
        offset = parameters.kill - saddle_node(parameters.feed)
        return self.feed[0] <= parameters.feed <= self.feed[1] and self.offset[0] <= offset <= self.offset[1]


TRAINING = Band((0.028, 0.048), (-0.001, 0.004))
"""Holes, mazes, worms and dividing spots; what is in `WINDOW` is left out."""
WINDOW = Band((0.036, 0.040), (0.0005, 0.0025))
"""Never trained on, and surrounded by what is: interpolation."""
BELOW = Band((0.020, 0.026), (-0.001, 0.004))
"""Extrapolation to chaos: spots and waves that do not come to rest."""
ABOVE = Band((0.050, 0.056), (-0.001, 0.002))
"""Extrapolation to slow worms."""


def draw_training(rng: np.random.Generator) -> Parameters:
    """A point of `TRAINING` outside `WINDOW`."""
    while WINDOW.contains(found := TRAINING.draw(rng)):
        pass
    return found


def draw_interpolation(rng: np.random.Generator) -> Parameters:
    """A point of `WINDOW`."""
    return WINDOW.draw(rng)


def draw_extrapolation(rng: np.random.Generator) -> Parameters:
    """A point of `BELOW` or `ABOVE`."""
    return (BELOW if rng.random() < 0.5 else ABOVE).draw(rng)
