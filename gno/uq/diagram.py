"""Reliability diagrams as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gno.post.color import INK, PALE
from gno.post.picture import write_figure
from gno.uq.metrics import Reliability

_COLORS = ("#2f6db3", "#d9722e", "#3a9a5b", "#b5477d", "#7b5fc0", "#8a6d3b", "#17a2b0", "#6b6b6b")


def draw_reliability(diagrams: Mapping[str, Reliability], output: str | Path) -> Path:
    """Observed against expected quantiles, one line per name, with the diagonal of perfect calibration.

    Flatter than the diagonal in the middle means too sure, steeper too doubtful; above or below throughout, biased.

    Args:
        diagrams: by name, as it shall stand in the legend.
        output: picture file.

    Returns:
        the picture's path.

    Raises:
        ValueError: no diagram.
    """
    if not diagrams:
        raise ValueError("diagrams: expected at least one, got none")
    return write_figure(_figure(diagrams), Path(output))


def _figure(diagrams: Mapping[str, Reliability]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.2), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=PALE, lw=0.8, ls=":")
    for k, (name, diagram) in enumerate(diagrams.items()):
        label = f"{name}  ECE {diagram.calibration_error:.3f}"
        axes.plot(diagram.expected, diagram.observed, color=_COLORS[k % len(_COLORS)], lw=1.6, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title("share of truth below the predicted quantile", loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("predicted quantile", fontsize=8.5, color=PALE)
    axes.grid(visible=True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(labelsize=8, color="#bdbdbd", labelcolor=INK)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
