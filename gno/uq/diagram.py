"""Pictures of the doubt: reliability diagrams, and what averaging does to variance, error and doubt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gno.post.color import INK, PALE
from gno.post.picture import write_figure
from gno.post.plot import COLORS, dress, sheet
from gno.uq.evaluate import Judged
from gno.uq.metrics import Reliability
from gno.uq.rollout_scores import RolloutUncertainty, in_words
from gno.uq.scales import ScaleVariance


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
    figure = sheet(5.2, 5.2)
    _diagonal(figure.add_subplot(), diagrams, "share of truth below the predicted quantile")
    return figure


def _diagonal(axes: Any, diagrams: Mapping[str, Reliability], title: str) -> None:
    axes.plot([0, 1], [0, 1], color=PALE, lw=0.8, ls=":")
    for k, (name, diagram) in enumerate(diagrams.items()):
        label = f"{name}  ECE {diagram.calibration_error:.3f}"
        axes.plot(diagram.expected, diagram.observed, color=COLORS[k % len(COLORS)], lw=1.6, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    dress(axes, title, x="predicted quantile", legend="upper left")


def draw_rollout_doubt(found: RolloutUncertainty, output: str | Path, *, nominal: float = 0.9) -> Path:
    """A row per field: reliability by windows of steps, error and standard deviation, coverage against the step.

    Args:
        found: of rollouts against known series.
        output: picture file.
        nominal: coverage of the intervals that are drawn.

    Returns:
        the picture's path.
    """
    figure = sheet(12.0, 4.0 * len(found.steps))
    for (name, steps), (left, middle, right) in zip(
        found.steps.items(), figure.subplots(len(found.steps), 3, squeeze=False), strict=True
    ):
        windows = {in_words(w): found.window(name, *w).reliability for w in found.windows}
        _diagonal(left, windows, f"{name}: share below the quantile")
        x, dot = range(1, len(steps) + 1), {"lw": 1.6, "marker": "o", "ms": 3}
        middle.plot(x, [s.scores.error for s in steps], color=COLORS[1], label="RMS error", **dot)
        middle.plot(x, [s.scores.sharpness for s in steps], color=COLORS[0], label="std", **dot)
        middle.set_ylim(bottom=0)
        right.axhline(nominal, color=PALE, lw=0.8, ls=":")
        right.plot(x, [s.scores.coverage[nominal] for s in steps], color=COLORS[0], label="as Gaussian", **dot)
        known = [(k, c) for k, s in zip(x, steps, strict=True) if (c := _calibrated(s, nominal)) is not None]
        if known:
            right.plot(*zip(*known, strict=True), color=COLORS[2], label="calibrated", **dot)
        right.set_ylim(0, 1)
        dress(middle, f"{name}: error and standard deviation", x="step")
        dress(right, f"{name}: inside intervals of {nominal:.0%}", x="step")
    return write_figure(figure, Path(output))


def _calibrated(step: Judged, nominal: float) -> float | None:
    return step.calibrated.coverage.get(nominal) if step.calibrated else None


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
    figure = sheet(9.0, 3.2 * len(scales))
    rows = figure.subplots(len(scales), 2, squeeze=False)
    for (name, parts), (left, right) in zip(scales.items(), rows, strict=True):
        lost = [fine.minus(coarse) for fine, coarse in itertools.pairwise(parts)]
        total = parts[0].reference or 1.0
        x, between = range(len(parts)), [s + 0.5 for s in range(len(lost))]
        left.plot(x, [p.reference / total for p in parts], color=INK, lw=1.6, marker="o", ms=4, label="truth")
        left.plot(x, [p.samples / total for p in parts], color=COLORS[0], lw=1.6, marker="o", ms=4, label="predicted")
        left.bar([b - 0.08 for b in between], [p.reference / total for p in lost], 0.16, color=INK, alpha=0.5)
        left.bar([b + 0.08 for b in between], [p.samples / total for p in lost], 0.16, color=COLORS[0], alpha=0.5)
        right.plot(x, [p.error**0.5 for p in parts], color=COLORS[1], lw=1.6, marker="o", ms=4, label="RMS error")
        right.plot(x, [p.doubt**0.5 for p in parts], color=COLORS[0], lw=1.6, marker="o", ms=4, label="std")
        right.set_ylim(bottom=0)
        dress(left, f"{name}: variance (bars: lost)")
        dress(right, f"{name}: error and standard deviation")
        for axes in (left, right):
            axes.set_xticks(x, [f"{'mesh' if s == 0 else s}\n{p.nodes:.0f}" for s, p in enumerate(parts)])
    return write_figure(figure, Path(output))
