"""Pictures of the doubt: reliability diagrams, and what averaging does to variance, error and doubt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gno.post.color import INK, PALE
from gno.post.picture import write_figure
from gno.uq.metrics import Reliability
from gno.uq.scales import ScaleVariance

_COLORS = ("#2f6db3", "#d9722e", "#3a9a5b", "#b5477d", "#7b5fc0", "#8a6d3b", "#17a2b0", "#6b6b6b")
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 10, "fontweight": "bold", "color": INK}


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
    axes.set_title("share of truth below the predicted quantile", **_TITLE)
    axes.set_xlabel("predicted quantile", fontsize=8.5, color=PALE)
    _tidy(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def draw_scales(scales: Mapping[str, Sequence[ScaleVariance]], output: str | Path) -> Path:
    """What averaging to ever larger anchors does: a row per field, variance on the left, error and doubt on the right.

    Variances are relative to that of the truth on the mesh; bars between scales are what is lost from one to the next.

    Args:
        scales: by field, finest scale first.
        output: picture file.

    Returns:
        the picture's path.

    Raises:
        ValueError: no field.
    """
    if not scales:
        raise ValueError("scales: expected at least one field, got none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2 * len(scales)), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(scales), 2, squeeze=False)
    for (name, parts), (left, right) in zip(scales.items(), rows, strict=True):
        lost = [fine.minus(coarse) for fine, coarse in itertools.pairwise(parts)]
        total = parts[0].reference or 1.0
        x, between = range(len(parts)), [s + 0.5 for s in range(len(lost))]
        left.plot(x, [p.reference / total for p in parts], color=INK, lw=1.6, marker="o", ms=4, label="truth")
        left.plot(x, [p.samples / total for p in parts], color=_COLORS[0], lw=1.6, marker="o", ms=4, label="predicted")
        left.bar([b - 0.08 for b in between], [p.reference / total for p in lost], 0.16, color=INK, alpha=0.5)
        left.bar([b + 0.08 for b in between], [p.samples / total for p in lost], 0.16, color=_COLORS[0], alpha=0.5)
        left.set_title(f"{name}: variance (bars: lost)", **_TITLE)
        right.plot(x, [p.error**0.5 for p in parts], color=_COLORS[1], lw=1.6, marker="o", ms=4, label="RMS error")
        right.plot(x, [p.doubt**0.5 for p in parts], color=_COLORS[0], lw=1.6, marker="o", ms=4, label="std")
        right.set_title(f"{name}: error and standard deviation", **_TITLE)
        right.set_ylim(bottom=0)
        for axes in (left, right):
            _tidy(axes)
            axes.set_xticks(x, [f"{'mesh' if s == 0 else s}\n{p.nodes:.0f}" for s, p in enumerate(parts)])
            axes.legend(fontsize=8, frameon=False, loc="best")
    return write_figure(figure, Path(output))


def _tidy(axes: Any) -> None:
    axes.grid(visible=True, color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bdbdbd")
    axes.tick_params(labelsize=8, color="#bdbdbd", labelcolor=INK)
