"""Panels on a page: titles, colour bars, and where everything goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gno.mesh.files import atomic
from gno.post.color import INK, PALE
from gno.post.painter import painted
from gno.post.scene import Panel, View
from gno.post.window import has_opengl, pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Lengths in pixels of a picture made for twice the usual density.
_DPI = 200
_MARGIN, _GAP, _HEAD, _FOOT = 50, 70, 110, 130
_BAR, _TRIAD = 24, 120
_SMALLEST = 5.0  # size of letters, in points
_WIDTHS = {1: 1400, 2: 1200, 3: 1000}  # of a panel, by number of columns


def save_picture(panels: Sequence[Panel], view: View, path: Path) -> Path:
    """Draw the panels and write them to `path`, in one piece or not at all.

    Raises:
        ValueError: a file type that cannot be written.
    """
    figure = page(panels, view)
    return write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> Path:
    """Write under a temporary name and move into place."""
    kinds = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind not in kinds:
        raise ValueError(
            f"output '{path}': expected a name that ends in one of {', '.join(sorted(kinds))}, got '{path.suffix}'"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        figure.savefig(part, format=kind, dpi=figure.dpi)
    return path


def page(panels: Sequence[Panel], view: View) -> Figure:
    """A figure with one cell per panel: title, picture, colour bar."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, width, height = layout(len(panels), view.width / view.height)
    rows = math.ceil(len(panels) / columns)
    foot = _FOOT if any(panel.colored for panel in panels) else _MARGIN
    cell = _HEAD + height + foot
    page_width = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    page_height = rows * cell + _MARGIN
    figure = Figure(figsize=(page_width / _DPI, page_height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    draw = pixels if has_opengl() else painted
    for i, (panel, image) in enumerate(zip(panels, draw(panels, view, (width, height)), strict=True)):
        left = _MARGIN + (i % columns) * (width + _GAP)
        bottom = page_height - _MARGIN // 2 - (i // columns) * cell - _HEAD - height
        figure.figimage(image, xo=left, yo=bottom, origin="upper")
        _write_title(figure, panel, left, bottom + height, width)
        box = np.array([left, bottom - foot, width, foot]) / [page_width, page_height, page_width, page_height]
        if panel.colored:
            _add_bar(figure, panel, box, page_height)
        if i == 0 and not panel.flat:
            _add_axes(figure, view, left, bottom, page_width, page_height)
    return figure


def layout(n_panels: int, aspect: float) -> tuple[int, int, int]:
    """Columns, and the width and height of a panel in pixels.

    Panels stand side by side, at most four in a row; long and low bodies (over 2.8 to 1) lie below each other.

    >>> layout(3, 1.0), layout(3, 10.0)[0], layout(5, 1.0)[0]
    ((3, 1000, 1000), 1, 3)
    """
    if aspect > 2.8:
        columns, width = 1, 1800
    else:
        columns = n_panels if n_panels <= 4 else 3
        width = _WIDTHS.get(columns, 840)
    # Tall bodies get narrower panels rather than a page that does not fit a screen.
    height = min(round(width / aspect), 1300)
    width = max(min(width, round(height * aspect)), 620)
    return columns, width, max(height, 160)


def _write_title(figure: Figure, panel: Panel, left: int, bottom: int, width: int) -> None:
    page_width, page_height = figure.get_size_inches() * _DPI
    for text, size, weight, rise, ink in ((panel.title, 11, "bold", 66, INK), (panel.note, 8, "normal", 26, PALE)):
        # A letter is some 0.6 of its size wide; long names get smaller ones rather than run into the next panel.
        room = (width + _GAP / 2) / 0.62 * 72 / _DPI
        points = max(_SMALLEST, min(size, room / max(1, len(text))))
        if len(text) * points > room:
            text = text[: int(room / points) - 1] + "…"
        place = (left / page_width, (bottom + rise) / page_height)
        figure.text(*place, text, fontsize=points, fontweight=weight, color=ink, va="baseline", parse_math=False)


def _add_bar(figure: Figure, panel: Panel, box: Any, page_height: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    x, y, width, height = box
    side = max(0.14, 0.0 if panel.flat else _TRIAD / (width * figure.get_figwidth() * _DPI))
    axes = figure.add_axes((x + side * width, y + height - 52 / page_height, 0.72 * width, _BAR / page_height))
    power = _power_of_ten(panel.limits)
    bar = figure.colorbar(
        ScalarMappable(Normalize(*panel.limits), panel.colors),
        cax=axes,
        orientation="horizontal",
        format=lambda value, _: f"{value / 10.0**power:.6g}".replace("-", "−"),
        ticks=MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]),
    )
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=8, color=PALE, labelcolor=INK, length=3, width=0.6, pad=2)
    if power:
        axes.text(
            1.02, -0.35, f"$\\times 10^{{{power}}}$", transform=axes.transAxes, fontsize=8, color=PALE, va="center"
        )


def _power_of_ten(limits: tuple[float, float]) -> int:
    """The power to write once beside the bar; 0 where plain numbers are short enough.

    >>> _power_of_ten((0.0, 3e8)), _power_of_ten((-0.05, 0.2))
    (8, 0)
    """
    power = math.floor(math.log10(max(map(abs, limits))))
    return 0 if -3 < power < 4 else power


def _add_axes(figure: Figure, view: View, left: float, bottom: float, page_width: int, page_height: int) -> None:
    """Three short arrows that say where x, y and z point, below the first panel."""
    size = 46
    axes = figure.add_axes(
        (left / page_width, (bottom - 118) / page_height, 2 * size / page_width, 2 * size / page_height)
    )
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.0, 1.6))
    axes.set_axis_off()
    for name, x, y in zip("xyz", view.right, view.up, strict=True):
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-", "color": PALE, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
        )
        axes.text(1.35 * x, 1.35 * y, name, fontsize=6.5, color=PALE, ha="center", va="center")
