"""The look of all plots: a sheet, its axes, and the colours of lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gno.post.color import INK, PALE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#2f6db3", "#d9722e", "#3a9a5b", "#b5477d", "#7b5fc0", "#8a6d3b", "#17a2b0", "#6b6b6b")


def sheet(width: float, height: float) -> Figure:
    """An empty figure without a window, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Any, title: str = "", x: str = "", *, legend: str = "best") -> None:
    """Title and name of the x axis, a pale grid, and a legend at ``legend`` where lines have names."""
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
    axes.set_xlabel(x, fontsize=8.5, color=PALE)
    axes.grid(visible=True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(which="both", labelsize=8, color="#bdbdbd", labelcolor=INK)
    if axes.get_legend_handles_labels()[0]:
        for name in axes.legend(fontsize=8, frameon=False, loc=legend).get_texts():
            name.set_parse_math(False)  # a field may be called a$b
