"""The unit of length of a mesh, which no file states: a guess from its size, and a warning where it looks wrong."""

from __future__ import annotations

import warnings

# Meshes larger or smaller than the usual one by more than this are asked about: inches for millimetres are 25.4.
MOST = 20.0


class UnitWarning(UserWarning):
    """A mesh is so much larger or smaller than those of the training that its unit of length may be another."""


def check_unit(extent: float, usual: float, source: str) -> None:
    """Compare the longest side of a mesh with the usual one of the training meshes.

    Warns:
        UnitWarning: they differ by more than a factor of 20.
    """
    if extent > 0 and not usual / MOST < extent < usual * MOST:
        text = f"{source}: longest side {extent:.3g}, usually {usual:.3g} in training; is it the same unit of length?"
        warnings.warn(text, UnitWarning, stacklevel=2)
