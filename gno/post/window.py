"""Panels through PyVista: as pixels, or as a window that a person turns."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gno.post.color import GHOST, INK, NO_VALUE_COLOR, SHEET
from gno.post.scene import SHARP, VALUE, Panel, View

_THICK = 4.0  # of lines in pictures: twice the density, drawn twice as large and scaled down
_X11 = ("libX11.so.6", "libX11.so")
_OSMESA = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so", "osmesa.dll")


def has_display() -> bool:
    """Whether a window could open here."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or not sys.platform.startswith("linux")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing that VTK, Mesa or X write from C reaches the terminal; exceptions pass."""
    from vtkmodules.vtkCommonCore import vtkLogger

    level = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    with contextlib.ExitStack() as restore:
        restore.callback(vtkLogger.SetStderrVerbosity, level)
        with contextlib.suppress(OSError):  # there may be no stderr at all
            saved = os.dup(2)
            restore.callback(os.close, saved)
            restore.callback(os.dup2, saved, 2)
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
        yield


def has_opengl() -> bool:
    """Whether VTK can draw here; where it cannot and tries, it takes the whole process down."""
    # On Linux VTK asks X11 first, also off screen, and does not survive its absence.
    if sys.platform.startswith("linux") and not any(map(_loads, _X11)):
        return False
    from vtkmodules.vtkRenderingCore import vtkRenderWindow
    from vtkmodules.vtkRenderingOpenGL2 import vtkOpenGLRenderWindow  # noqa: F401  (makes the drivers known)

    with quiet():
        kind = type(vtkRenderWindow()).__name__
    # OSMesa is what VTK falls back to in the end, whether it is installed or not.
    return kind != "vtkOSOpenGLRenderWindow" or any(map(_loads, _OSMESA))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def pixels(panels: Sequence[Panel], view: View, size: tuple[int, int]) -> list[UInt8[np.ndarray, "height width 3"]]:
    """Each panel without any text, on white, exactly `size` = (width, height) pixels."""
    images = []
    with quiet():
        plotter = _plotter(off_screen=True, window_size=list(size))
        try:
            plotter.enable_anti_aliasing("ssaa")
            for panel in panels:
                plotter.clear_actors()
                _draw(plotter, panel, view, thickness=_THICK)
                _aim(plotter, view, size[0] / size[1])
                plotter.render()
                images.append(np.array(plotter.screenshot(return_img=True))[:, :, :3])
        finally:
            plotter.close()
    return images


def open_window(panels: Sequence[Panel], view: View) -> None:
    """Panels side by side with linked cameras; returns when the person closes the window."""
    with quiet():
        interactive_plotter(panels, view, off_screen=False).show()


def interactive_plotter(panels: Sequence[Panel], view: View, *, off_screen: bool) -> Any:
    """The PyVista plotter behind `open_window`, not shown yet."""
    size = [min(1800, 640 * len(panels)), 640]
    plotter = _plotter(shape=(1, len(panels)), window_size=size, off_screen=off_screen)
    bar = {"color": INK, "n_labels": 3, "fmt": "%.3g", "label_font_size": 13, "unconstrained_font_size": True}
    for i, panel in enumerate(panels):
        plotter.subplot(0, i)
        plotter.set_background("white")
        body = _draw(plotter, panel, view, thickness=1.0)
        _aim(plotter, view, size[0] / len(panels) / size[1], margin=1.35)
        plotter.add_text(f"{panel.title}\n{panel.note}", position=(0.03, 0.92), viewport=True, font_size=9, color=INK)
        if panel.colored:
            # PyVista tells bars apart by their titles; the panel's own title says it all.
            plotter.add_scalar_bar(
                title=" " * (i + 1), mapper=body.mapper, width=0.6, height=0.06, position_x=0.2, position_y=0.02, **bar
            )
    if not all(panel.flat for panel in panels):
        plotter.subplot(0, 0)
        plotter.add_axes()
    plotter.link_views()
    return plotter


def _plotter(**options: Any) -> Any:
    # Any: PyVista's annotations do not let keyword arguments be collected in a dict.
    import pyvista as pv

    plotter: Any = pv.Plotter(border=False, lighting="none", **options)
    plotter.set_background("white")
    # One lamp beside the eye: faces keep nearly the colours of the bar, and still differ.
    lamp = pv.Light(position=(-0.2, 0.4, 1.0), light_type="camera light", intensity=1.0)
    for renderer in plotter.renderers:
        renderer.add_light(lamp)
    return plotter


def _draw(plotter: Any, panel: Panel, view: View, thickness: float) -> Any:
    """Add the panel to the current renderer; the body's actor comes back."""
    still = {"reset_camera": False, "render": False}
    look: dict[str, Any] = {"lighting": not panel.flat, "show_scalar_bar": False, **still}
    if panel.colored:
        look |= {"scalars": VALUE, "clim": panel.limits, "cmap": panel.colors, "nan_color": NO_VALUE_COLOR}
    else:
        look |= {"color": panel.plain}
    if not panel.flat and panel.body.GetNumberOfPolys():
        look |= {"smooth_shading": True, "split_sharp_edges": True, "feature_angle": SHARP}
        look |= {"ambient": 0.6, "diffuse": 0.45, "specular": 0.0}
    body = plotter.add_mesh(panel.body, line_width=4 * thickness, point_size=6 * thickness, **look)
    # Faces step back a little, or lines on them would be drawn in dashes.
    body.mapper.SetResolveCoincidentTopologyToPolygonOffset()
    body.mapper.SetRelativeCoincidentTopologyPolygonOffsetParameters(2.0, 4.0)
    for lines, width, ink, opacity in (
        (_behind(panel.ghost, view), 0.8, GHOST, 1.0),
        (panel.edges, 0.5, INK, 0.25),
        (panel.outline, 0.9, INK, 0.9),
    ):
        if lines is not None:
            plotter.add_mesh(lines, color=ink, line_width=width * thickness, opacity=opacity, lighting=False, **still)
    if panel.stage is not None:
        glass = {"color": SHEET, "opacity": 1.0 if panel.flat else 0.12, "lighting": not panel.flat}
        plotter.add_mesh(_behind(panel.stage, view) if panel.flat else panel.stage, **glass, **still)
    return body


def _behind(lines: Any, view: View) -> Any:
    """Moved away from the eye by so little that only what coincides is hidden."""
    step = 0.003 * max(view.width, view.height)
    return None if lines is None else lines.translate(-step * view.toward_eye, inplace=False)


def _aim(plotter: Any, view: View, aspect: float, margin: float = 1.0) -> None:
    camera = plotter.camera
    camera.enable_parallel_projection()
    distance = 2 * (view.width + view.height + view.depth)
    camera.focal_point = view.center
    camera.position = view.center + distance * view.toward_eye
    camera.up = view.up
    camera.parallel_scale = margin * view.half_height(aspect)
    plotter.renderer.ResetCameraClippingRange()
