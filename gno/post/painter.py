"""Panels as pixels on a machine without OpenGL: painted from back to front by matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from gno.post.color import GHOST, INK, NO_VALUE_COLOR, SHEET
from gno.post.scene import VALUE, Panel, View

if TYPE_CHECKING:
    import pyvista as pv

_DPI = 100
_FINE = 15_000  # pieces; enough for colours that look smooth
Layer = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Pieces (n, 3, 3) in the picture's axes, colours (n, 4) of their faces and of their sides, and the sides' widths."""


def painted(panels: Sequence[Panel], view: View, size: tuple[int, int]) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Each panel without any text, on white, exactly `size` = (width, height) pixels.

    Flat colours per triangle and a painter's order make this plainer than OpenGL's picture.
    """
    return [_paint(panel, view, size) for panel in panels]


def _paint(panel: Panel, view: View, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    half = view.half_height(size[0] / size[1])
    axes.set(xlim=(-half * size[0] / size[1], half * size[0] / size[1]), ylim=(-half, half))
    layers = list(_layers(panel, view))
    shapes, faces, sides, widths = (np.concatenate([layer[k] for layer in layers]) for k in range(4))
    order = np.argsort(shapes[:, :, 2].mean(1), kind="stable")
    axes.add_collection(
        PolyCollection(
            list(shapes[order, :, :2]), facecolors=faces[order], edgecolors=sides[order], linewidths=widths[order]
        )
    )
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def _layers(panel: Panel, view: View) -> Iterator[Layer]:
    """What the panel shows; what lies on a surface comes nearer by a little, so that it is painted later."""
    from matplotlib.colors import to_rgba

    step = 0.01 * max(view.width, view.height)
    if panel.stage is not None:
        shapes, _ = _pieces(_cut(panel.stage), view)
        shapes[:, :, 2] -= 10 * view.depth + step
        yield _layer(shapes, to_rgba(SHEET), to_rgba(SHEET), 0.3)
    shapes, colors = _body(panel, view)
    # Sides in the face's own colour close the hairlines between neighbours; lines are nothing but sides.
    yield _layer(shapes, colors, colors, np.where(_is_line(shapes), 4.0, 0.4))
    for lines, rise, ink, opacity, width in (
        (panel.ghost, -3 * step, GHOST, 1.0, 0.8),
        (panel.edges, step, INK, 0.25, 0.5),
        (panel.outline, 2 * step, INK, 0.9, 0.9),
    ):
        if lines is not None:
            shapes = _short(_pieces(lines, view)[0], 2 * step)
            shapes[:, :, 2] += rise
            yield _layer(shapes, to_rgba(ink, 0.0), to_rgba(ink, opacity), width)


def _layer(shapes: np.ndarray, faces: Any, sides: Any, widths: Any) -> Layer:
    n = len(shapes)
    return shapes, np.broadcast_to(faces, (n, 4)), np.broadcast_to(sides, (n, 4)), np.broadcast_to(widths, (n,))


def _pieces(surface: pv.PolyData, view: View) -> tuple[Float[np.ndarray, "n 3 3"], Int[np.ndarray, "n 3"]]:
    """Segments, with the second end twice, then triangles: their corners in the picture's axes, and their points."""
    lines = surface.lines.reshape(-1, 3)[:, [1, 2, 2]]
    corners = np.concatenate([lines, surface.faces.reshape(-1, 4)[:, 1:]])
    axes = np.stack([view.right, view.up, view.toward_eye])
    return ((np.asarray(surface.points, float) - view.center) @ axes.T)[corners], corners


def _cut(surface: pv.PolyData) -> pv.PolyData:
    """Polygons in triangles, and lines in segments."""
    # VTK's filter itself: pyvista's method drops the lines in older versions.
    import pyvista as pv
    from vtkmodules.vtkFiltersCore import vtkTriangleFilter

    cut = vtkTriangleFilter()
    cut.SetInputData(surface)
    cut.PassVertsOff()
    cut.PassLinesOn()
    cut.Update()
    return pv.wrap(cut.GetOutput())


def _is_line(shapes: Float[np.ndarray, "n 3 3"]) -> Bool[np.ndarray, " n"]:
    return (shapes[:, 1] == shapes[:, 2]).all(1)


def _body(panel: Panel, view: View) -> tuple[Float[np.ndarray, "n 3 3"], Float[np.ndarray, "n 4"]]:
    """The body's pieces and their colours, a little darker where they turn away from the eye."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize, to_rgba

    surface = _cut(panel.body)
    shapes, corners = _pieces(surface, view)
    if not panel.colored:
        colors = np.tile(to_rgba(panel.plain), (len(shapes), 1))
    else:
        if VALUE in surface.cell_data:
            values = np.asarray(surface.cell_data[VALUE])
        else:
            shapes, values = _refined(shapes, np.asarray(surface.point_data[VALUE])[corners])
        colors = colormaps[panel.colors](Normalize(*panel.limits)(values))
        colors[np.isnan(values)] = to_rgba(NO_VALUE_COLOR)
    if not panel.flat:
        a, b, c = shapes.transpose(1, 0, 2)
        normal = np.cross(b - a, c - a)
        slope = np.abs(normal[:, 2]) / np.maximum(np.linalg.norm(normal, axis=1), 1e-300)
        colors[:, :3] *= np.where(_is_line(shapes), 1.0, 0.65 + 0.35 * slope)[:, None]
    return shapes, colors


def _short(segments: Float[np.ndarray, "n 3 3"], length: float) -> Float[np.ndarray, "m 3 3"]:
    """Segments halved until each has one depth, as good as."""
    while (long := np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1) > length).any():
        a, b, _ = segments[long].transpose(1, 0, 2)
        middle = (a + b) / 2
        halves = [np.stack(ends, axis=1) for ends in ((a, middle, middle), (middle, b, b))]
        segments = np.concatenate([segments[~long], *halves])
    return segments


def _refined(
    shapes: Float[np.ndarray, "n 3 3"], values: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "m 3 3"], Float[np.ndarray, " m"]]:
    """Pieces small enough for one colour each, and their mean values: every round cuts each into four."""
    together = np.concatenate([shapes, values[:, :, None]], axis=2)
    while 0 < len(together) < _FINE:
        a, b, c = together.transpose(1, 0, 2)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        parts = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        together = np.concatenate([np.stack(part, axis=1) for part in parts])
    return together[:, :, :3], together[:, :, 3].mean(1)
