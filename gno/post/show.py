"""Look at a field: one picture, truth beside prediction beside error, or the levels of a hierarchy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh
from gno.post.grid import points_3d
from gno.post.panels import Look, field_panels, level_panels
from gno.post.picture import save_picture
from gno.post.scene import Panel, round_factor, view_of
from gno.post.window import has_display, has_opengl, open_window


def show(
    mesh: Mesh,
    field: str,
    *,
    compare: Mesh | str | None = None,
    output: str | Path | None = None,
    component: int | str | None = None,
    warp: str | None = None,
    warp_factor: float | None = None,
    limits: tuple[float, float] | None = None,
    edges: bool | None = None,
    around: str | None = None,
) -> Path | None:
    """Show a field in a window, or write its picture where `output` is given or there is no display.

    With `compare` there are three panels: truth and prediction on one colour scale, and the error. Beside a predicted
    field whose standard deviation is in the mesh (``std_…``) there is one more, on the scale of the error.

    Args:
        mesh: what to look at; with `compare`, the truth.
        field: a field on nodes or cells.
        compare: the prediction: another field of `mesh`, or a mesh with the same nodes; there the field
            ``predicted_<field>`` is taken if there is one, else `field`.
        output: picture file (.png, .pdf, .svg, .jpg, …); by default ``<mesh>-<field>.png`` in the current folder.
        component: what to show of a vector or tensor, see `gno.post.quantity.quantity`; ``"each"`` gives every
            component its own panel, on one colour scale.
        warp: a vector field on nodes that moves the mesh; a prediction is moved by its own.
        warp_factor: factor on that movement; by default a round one that makes it visible.
        limits: ends of the colour scale of values; by default their range.
        edges: whether to draw the sides of cells; by default where they are few enough to be told apart.
        around: a point set to look at closely, where the whole is much larger; the window and the picture begin there.

    Returns:
        the picture's path, or None after a window.

    Raises:
        ValueError: a field, component or set that is not there, or meshes that do not match.
    """
    if warp is None and warp_factor is not None:
        raise ValueError(f"warp_factor: expected a field to warp by as well, got {warp_factor:g} alone")
    if warp is not None and warp_factor is None:
        warp_factor = round_factor(mesh, warp)
    look = Look(warp, 1.0 if warp_factor is None else warp_factor, limits, edges=edges)
    panels = field_panels(mesh, field, compare=compare, component=component, look=look)
    return _present(panels, output, f"{Path(mesh.source).stem}-{field}", _points_of(mesh, around))


def show_levels(
    mesh: Mesh,
    levels: Sequence[Mesh],
    field: str | None = None,
    *,
    component: int | str | None = None,
    output: str | Path | None = None,
    around: str | None = None,
) -> Path | None:
    """Show a hierarchy, one panel per level: the mesh, then the anchors, each as large as its mass.

    Args:
        mesh: the finest level.
        levels: coarser levels as point clouds with the point field ``mass``, finest first.
        field: a field that all levels have, shown on one colour scale; by default only places and sizes.
        component, output, around: as in `show`.

    Returns:
        the picture's path, or None after a window.

    Raises:
        ValueError: a level lacks the field, or the mesh the set.
    """
    panels = level_panels(mesh, levels, field, component)
    return _present(panels, output, f"{Path(mesh.source).stem}-levels", _points_of(mesh, around))


def _points_of(mesh: Mesh, around: str | None) -> Float[np.ndarray, "n 3"] | None:
    if around is None:
        return None
    if not len(mesh.point_sets.get(around, ())):
        there = ", ".join(sorted(mesh.point_sets)) or "none"
        raise ValueError(f"around: expected a point set of {mesh.source} ({there}), got '{around}'")
    return points_3d(mesh)[mesh.point_sets[around]]


def _present(
    panels: Sequence[Panel], output: str | Path | None, name: str, closely: Float[np.ndarray, "n 3"] | None
) -> Path | None:
    view = view_of(panels) if closely is None else view_of(panels).around(closely)
    if output is None and has_display() and has_opengl():
        open_window(panels, view)
        return None
    safe_name = re.sub(r"[^\w.-]+", "_", name)
    return save_picture(panels, view, Path(output) if output is not None else Path(f"{safe_name}.png"))
