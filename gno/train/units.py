"""Coordinates that look wrong: in another unit of length, which no file states, or rounded away."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Shaped

# Meshes larger or smaller than the usual one by more than this are asked about: inches for millimetres are 25.4.
MOST = 20.0
# Rounding of coordinates that is told of, as a share of the spacing of the finest anchors, which is a few edges.
COARSE = 0.005


class UnitWarning(UserWarning):
    """A mesh is so much larger or smaller than those of the training that its unit of length may be another, or so far
    from the origin that its coordinates are rounded away."""


def check_unit(extent: float, usual: float, source: str) -> None:
    """Compare the longest side of a mesh with the usual one of the training meshes.

    Warns:
        UnitWarning: they differ by more than a factor of 20.
    """
    if extent > 0 and not usual / MOST < extent < usual * MOST:
        text = f"{source}: longest side {extent:.3g}, usually {usual:.3g} in training; is it the same unit of length?"
        warnings.warn(text, UnitWarning, stacklevel=2)


def check_rounding(points: Shaped[np.ndarray, "n_nodes dim"], spacing: float, source: str) -> None:
    """Compare the step between neighbouring numbers, at the largest coordinate and in its type, with the anchors.

    Warns:
        UnitWarning: it is a part of their spacing that counts, as of single precision far from the origin.
    """
    step = float(np.spacing(np.abs(points).max()))
    if step > COARSE * spacing:
        what = f"coordinates near {np.abs(points).max():.3g} in {points.dtype} are rounded to {step:.2g}"
        text = f"{source}: {what}, which blurs cells this small; store doubles, or move the meshes to the origin"
        warnings.warn(text, UnitWarning, stacklevel=2)
