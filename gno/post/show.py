"""Look at a field: one picture, truth beside prediction beside error, or the levels of a hierarchy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from gno.mesh import Mesh, cell_volume, node_mass
from gno.post.color import SIGNED_COLORS, UNSIGNED_COLORS, VALUE_COLORS, color_limits, error_limits
from gno.post.picture import save_picture
from gno.post.quantity import Quantity, component_names, difference, is_per_scale, quantity, rows_of
from gno.post.scene import Panel, displaced, round_factor, seen_cells, surface_panel, view_of
from gno.post.window import has_display, open_window


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
) -> Path | None:
    """Show a field in a window, or write its picture where `output` is given or there is no display.

    With `compare` there are three panels: truth and prediction on one colour scale, and the error.

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

    Returns:
        the picture's path, or None after a window.

    Raises:
        ValueError: a field or component that is not there, or meshes that do not match.
    """
    look = _look(mesh, warp, warp_factor, limits, edges)
    if compare is None:
        panels = _value_panels(mesh, field, component, look)
    else:
        panels = _comparison(mesh, field, compare, component, look)
    return _present(panels, output, f"{Path(mesh.source).stem}-{field}")


def show_levels(
    mesh: Mesh,
    levels: Sequence[Mesh],
    field: str | None = None,
    *,
    component: int | str | None = None,
    output: str | Path | None = None,
) -> Path | None:
    """Show a hierarchy, one panel per level: the mesh, then the anchors, each as large as its mass.

    Args:
        mesh: the finest level.
        levels: coarser levels as point clouds with the point field ``mass``, finest first.
        field: a field that all levels have, shown on one colour scale; by default only places and sizes.
        component, output: as in `show`.

    Returns:
        the picture's path, or None after a window.

    Raises:
        ValueError: a level lacks the field.
    """
    everyone = [mesh, *levels]
    values = [quantity(level, field, component) if field else None for level in everyone]
    limits = color_limits(*(_seen(level, v) for level, v in zip(everyone, values, strict=True) if v is not None))
    stage = surface_panel(mesh, None, "", edges=False)
    panels = []
    for s, (level, value) in enumerate(zip(everyone, values, strict=True)):
        count = f"{level.n_nodes:,} {'anchors' if s else 'nodes'}".replace(",", "\u202f")
        note = _note(level, value, value.label if value else "", count)
        panel = surface_panel(level, value, f"level {s}", note=note, limits=limits)
        if s and mesh.n_cells:
            panel = dataclasses.replace(panel, outline=stage.outline, stage=stage.body)
        panels.append(panel)
    return _present(panels, output, f"{Path(mesh.source).stem}-levels")


@dataclasses.dataclass(frozen=True)
class _Look:
    """What all panels of a picture have in common."""

    warp: str | None
    factor: float
    limits: tuple[float, float] | None
    edges: bool | None

    def panel(
        self,
        mesh: Mesh,
        values: Quantity,
        title: str,
        note: str,
        limits: tuple[float, float],
        colors: str = VALUE_COLORS,
        own_warp: str | None = None,
    ) -> Panel:
        warp = own_warp or self.warp
        moved = displaced(mesh, warp, self.factor) if warp else None
        note = _note(mesh, values, note, f"moved by {self.factor:g} × {warp}" if warp else "")
        return surface_panel(
            mesh, values, title, note=note, limits=limits, colors=colors, displacement=moved, edges=self.edges
        )


def _look(
    mesh: Mesh, warp: str | None, factor: float | None, limits: tuple[float, float] | None, edges: bool | None
) -> _Look:
    if warp is None and factor is not None:
        raise ValueError(f"warp_factor: expected a field to warp by as well, got {factor:g} alone")
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits: expected low < high, got {limits[0]:g} and {limits[1]:g}")
    if warp is not None and factor is None:
        factor = round_factor(mesh, warp)
    return _Look(warp, 1.0 if factor is None else factor, limits, edges)


def _value_panels(mesh: Mesh, field: str, component: int | str | None, look: _Look) -> list[Panel]:
    if component is None and is_per_scale(field):
        component = "each"
    if component != "each":
        values = quantity(mesh, field, component)
        limits = look.limits or color_limits(_seen(mesh, values))
        return [look.panel(mesh, values, values.label, Path(mesh.source).name, limits)]
    rows, location = rows_of(mesh, field)
    names = component_names(field, rows.shape[1])
    parts = [Quantity(rows[:, k], location, f"{field}, {name}") for k, name in enumerate(names)]
    limits = look.limits or color_limits(*(_seen(mesh, part) for part in parts))
    return [look.panel(mesh, part, part.label, "", limits) for part in parts]


def _comparison(mesh: Mesh, field: str, compare: Mesh | str, component: int | str | None, look: _Look) -> list[Panel]:
    if component == "each":
        raise ValueError("component 'each': expected nothing to compare with, got some")
    prediction, other = (mesh, compare) if isinstance(compare, str) else (compare, _predicted(compare, field))
    truth_values = quantity(mesh, field, component)
    error = difference(mesh, field, prediction, other, component)
    guess_values = quantity(prediction, other, component)
    limits = look.limits or color_limits(_seen(mesh, truth_values), _seen(mesh, guess_values))
    ends = error_limits(_seen(mesh, error))
    colors = SIGNED_COLORS if ends[0] < 0 else UNSIGNED_COLORS
    error_note = f"{error.label} · {_relative(mesh, error, truth_values)}"
    own_warp = look.warp and (other if look.warp == field else _predicted(prediction, look.warp))
    return [
        look.panel(mesh, truth_values, "truth", truth_values.label, limits),
        look.panel(prediction, guess_values, "prediction", guess_values.label, limits, own_warp=own_warp),
        look.panel(mesh, error, "error", error_note, ends, colors),
    ]


def _predicted(mesh: Mesh, field: str) -> str:
    """The name that a prediction of the field has in the mesh: there the field itself may be the truth."""
    name = f"predicted_{field}"
    return name if name in mesh.point_fields or name in mesh.cell_fields else field


def _relative(mesh: Mesh, error: Quantity, truth: Quantity) -> str:
    """√(Σ m e² / Σ m u²), with masses of nodes or sizes of cells; what has no value does not count."""
    weights = node_mass(mesh) if truth.location == "node" else cell_volume(mesh) * seen_cells(mesh)
    known = np.isfinite(error.values) & np.isfinite(truth.values)
    wrong, size = (float((weights[known] * values[known] ** 2).sum()) for values in (error.values, truth.values))
    return f"relative L² {np.sqrt(wrong / size):.2%}" if size else "the truth is 0"


def _seen(mesh: Mesh, values: Quantity) -> Float[np.ndarray, " n"]:
    """Values that the picture is about: none of stray nodes, nor of cells that only mark a boundary."""
    if not mesh.n_cells:
        return values.values
    cells = seen_cells(mesh)
    return values.values[cells if values.location == "cell" else _nodes_of(mesh)]


def _nodes_of(mesh: Mesh) -> Bool[np.ndarray, " n_nodes"]:
    used = np.zeros(mesh.n_nodes, bool)
    for block in mesh.cells:
        used[block.nodes] = True
    return used


def _note(mesh: Mesh, values: Quantity | None, *parts: str) -> str:
    missing = int(np.isnan(_seen(mesh, values)).sum()) if values else 0
    grey = f"grey: {missing} {values.location}{'s'[: missing > 1]} without a value" if values and missing else ""
    return " · ".join(part for part in (*parts, grey) if part)


def _present(panels: Sequence[Panel], output: str | Path | None, name: str) -> Path | None:
    view = view_of(panels)
    if output is None and has_display():
        open_window(panels, view)
        return None
    safe_name = re.sub(r"[^\w.-]+", "_", name)
    return save_picture(panels, view, Path(output) if output is not None else Path(f"{safe_name}.png"))
