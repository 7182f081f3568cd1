"""What a picture of a field or of a hierarchy consists of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from gno.mesh import Mesh, cell_volume, node_mass
from gno.mesh.geometry import domain_dim
from gno.post.color import SIGNED_COLORS, UNSIGNED_COLORS, VALUE_COLORS, color_limits, error_limits
from gno.post.quantity import Location, Quantity, component_names, difference, is_per_scale, quantity, rows_of
from gno.post.samples import PREDICTED, STD
from gno.post.scene import Panel, displaced, seen_cells, surface_panel


@dataclasses.dataclass(frozen=True)
class Look:
    """What all panels of a picture have in common.

    Args:
        warp: a vector field on nodes that moves the mesh.
        factor: on that movement.
        limits: ends of the colour scale of values; None for their range.
        others: ends of that of errors, or of standard deviations where nothing is compared; None for their range.
        edges: whether to draw the sides of cells; None where they are few enough to be told apart.
    """

    warp: str | None = None
    factor: float = 1.0
    limits: tuple[float, float] | None = None
    others: tuple[float, float] | None = None
    edges: bool | None = None

    def __post_init__(self) -> None:
        if self.limits is not None and not self.limits[0] < self.limits[1]:
            raise ValueError(f"limits: expected low < high, got {self.limits[0]:g} and {self.limits[1]:g}")

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


def field_panels(
    mesh: Mesh,
    field: str,
    *,
    compare: Mesh | str | None = None,
    component: int | str | None = None,
    look: Look = Look(),
) -> list[Panel]:
    """The panels of `gno.post.show.show`: one; one per component; or truth, prediction and error."""
    if component is None and is_per_scale(field):
        component = "each"
    if component == "each":
        if compare is not None:
            raise ValueError(
                f"component 'each' of '{field}': expected nothing to compare with, got some ({mesh.source})"
            )
        return _component_panels(mesh, field, look)
    if compare is not None:
        return _comparison(mesh, field, compare, component, look)
    values = quantity(mesh, field, component)
    limits = look.limits or color_limits(_seen(mesh, values))
    own = look.panel(mesh, values, values.label, Path(mesh.source).name, limits)
    return [own, *_doubt_panels(mesh, field, component, look)]


def level_panels(mesh: Mesh, levels: Sequence[Mesh], field: str | None, component: int | str | None) -> list[Panel]:
    """The panels of `gno.post.show.show_levels`: the mesh, then each coarser level in front of it."""
    everyone = [mesh, *levels]
    values = [quantity(level, field, component) if field else None for level in everyone]
    limits = color_limits(*(_seen(level, v) for level, v in zip(everyone, values, strict=True) if v is not None))
    stage = surface_panel(mesh, None, "", edges=False)
    panels = []
    for s, (level, value) in enumerate(zip(everyone, values, strict=True)):
        count = f"{level.n_nodes:,} {'anchors' if s else 'nodes'}".replace(",", "\u202f")
        note = _note(level, value, value.label if value else "", count)
        panel = surface_panel(level, value, f"level {s}", note=note, limits=limits)
        if s and domain_dim(mesh) > 0:
            panel = dataclasses.replace(panel, outline=stage.outline, stage=stage.body)
        panels.append(panel)
    return panels


def _component_panels(mesh: Mesh, field: str, look: Look) -> list[Panel]:
    rows, location = rows_of(mesh, field)
    names = component_names(field, rows.shape[1])
    parts = [Quantity(rows[:, k], location, f"{field}, {name}") for k, name in enumerate(names)]
    limits = look.limits or color_limits(*(_seen(mesh, part) for part in parts))
    return [look.panel(mesh, part, part.label, Path(mesh.source).name, limits) for part in parts]


def _comparison(mesh: Mesh, field: str, compare: Mesh | str, component: int | str | None, look: Look) -> list[Panel]:
    prediction, other = (mesh, compare) if isinstance(compare, str) else (compare, _predicted(compare, field))
    error = difference(mesh, field, prediction, other, component)
    truth_values = quantity(mesh, field, component, error.location)
    guess_values = quantity(prediction, other, component, error.location)
    limits = look.limits or color_limits(_seen(mesh, truth_values), _seen(mesh, guess_values))
    ends = look.others or error_limits(_seen(mesh, error))
    colors = SIGNED_COLORS if ends[0] < 0 else UNSIGNED_COLORS
    error_note = f"{error.label} · {_relative(mesh, error, truth_values)}"
    own_warp = look.warp and (other if look.warp == field else _predicted(prediction, look.warp))
    return [
        look.panel(mesh, truth_values, "truth", truth_values.label, limits),
        look.panel(prediction, guess_values, "prediction", guess_values.label, limits, own_warp=own_warp),
        look.panel(mesh, error, "error", error_note, ends, colors),
        *_doubt_panels(prediction, other, component, look, (0.0, ends[1]), error.location),
    ]


def _doubt_panels(
    mesh: Mesh,
    field: str,
    component: int | str | None,
    look: Look,
    limits: tuple[float, float] | None = None,
    location: Location | None = None,
) -> list[Panel]:
    """The standard deviation of a predicted field, where it lies beside it: one panel, or none.

    Of a vector the root of the summed variances, as large as the magnitude of the error where it is calibrated; of a
    tensor only single components.
    """
    name = STD + field.removeprefix(PREDICTED)
    if not field.startswith(PREDICTED) or (name not in mesh.point_fields and name not in mesh.cell_fields):
        return []
    if component == "von_mises" or (component is None and rows_of(mesh, name, location)[0].shape[1] > 3):
        return []
    std = quantity(mesh, name, component, location)
    limits = limits or (0.0, (look.others or color_limits(_seen(mesh, std)))[1])
    return [look.panel(mesh, std, "standard deviation", std.label, limits, UNSIGNED_COLORS)]


def _predicted(mesh: Mesh, field: str) -> str:
    """The name that a prediction of the field has in the mesh: there the field itself may be the truth."""
    name = f"predicted_{field}"
    return name if name in mesh.point_fields or name in mesh.cell_fields else field


def _relative(mesh: Mesh, error: Quantity, truth: Quantity) -> str:
    """√(Σ m e² / Σ m u²), with masses of nodes or sizes of cells; what has no value does not count."""
    if truth.location == "node":
        weights = node_mass(mesh)
    else:
        weights = np.ones(mesh.n_cells) if mesh.is_cloud else cell_volume(mesh) * seen_cells(mesh)
    known = np.isfinite(error.values) & np.isfinite(truth.values)
    wrong, size = (float((weights[known] * values[known] ** 2).sum()) for values in (error.values, truth.values))
    return f"relative L² {np.sqrt(wrong / size):.2%}" if size else "the truth is 0"


def _seen(mesh: Mesh, values: Quantity) -> Float[np.ndarray, " n"]:
    """Values that the picture is about: none of stray nodes, nor of cells that only mark a boundary."""
    if domain_dim(mesh) == 0:
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
