"""How a training went: its log as one picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gno.post.color import PALE
from gno.post.picture import write_figure
from gno.post.plot import COLORS, dress, sheet

_LOSS, _WEIGHT, _FLOOR, _SCORE = "loss ", "weight ", "floor ", "validation "
_MEAN = "score"


def draw_curves(log: str | Path, output: str | Path | None = None) -> Path:
    """Losses and validation errors of a run against its steps, on log axes, with the best step marked.

    Args:
        log: CSV file with the columns ``step``, ``seconds``, ``lr``, ``loss <term>``, ``weight <term>``,
            ``floor <term>``, ``validation <field>``, ``validation <field>@<level>`` and ``validation score``; cells may
            be empty.
        output: picture file; by default ``curves.png`` beside the log.

    Returns:
        the picture's path.

    Raises:
        ValueError: there is no such file, or it has no row of numbers.
    """
    log = Path(log)
    columns = read_log(log)
    return write_figure(_figure(columns), Path(output) if output is not None else log.with_name("curves.png"))


def read_log(log: Path) -> dict[str, Float[np.ndarray, " n_rows"]]:
    """Columns of a CSV log by name; NaN for empty cells and for whatever a killed process left half written."""
    if not log.is_file():
        raise ValueError(f"log '{log}': expected a CSV file, got none")
    with log.open(newline="", encoding="utf-8", errors="replace") as handle:
        reader = csv.DictReader(handle)
        rows = list(reader)
        names = [name for name in reader.fieldnames or () if name]
    columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
    if "step" not in columns or not np.isfinite(columns["step"]).any():
        raise ValueError(
            f"log '{log}': expected rows with a step, got {len(rows)} rows of {', '.join(names) or 'nothing'}"
        )
    return columns


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")


def _figure(columns: dict[str, np.ndarray]) -> Any:
    figure = sheet(11, 4.6)
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 1), hspace=0.05, wspace=0.06)
    losses = figure.add_subplot(grid[0, 0])
    rate = figure.add_subplot(grid[1, 0], sharex=losses)
    scores = figure.add_subplot(grid[:, 1], sharex=losses)
    _draw_losses(losses, columns)
    _draw_scores(scores, columns)
    _draw(rate, columns["step"], columns.get("lr", np.zeros(0)), color=PALE, lw=1.2)
    _draw_weights(rate, columns)
    losses.tick_params(labelbottom=False)
    _logarithmic(losses, rate, scores)
    dress(losses, "training loss")
    dress(rate, x="step")
    dress(scores, "validation error, relative L²", x="step")
    rate.set_ylabel("rate, weights" if len(rate.lines) > 1 else "rate", fontsize=8, color=PALE)
    rate.grid(visible=False)
    return figure


def _draw_losses(axes: Any, columns: dict[str, np.ndarray]) -> None:
    """Each term pale as it was, and in full colour averaged over a fortieth of the run; dotted its floor."""
    for k, (name, values) in enumerate(_part(columns, _LOSS).items()):
        color = COLORS[k % len(COLORS)]
        known = np.isfinite(values) & np.isfinite(columns["step"])
        steps, values = columns["step"][known], values[known]
        width = max(1, len(values) // 40)
        _draw(axes, steps, values, color=color, lw=0.7, alpha=0.3)
        if len(values) >= width:
            smooth = np.convolve(values, np.ones(width) / width, mode="valid")
            _draw(axes, steps[width // 2 :][: len(smooth)], smooth, color=color, lw=1.6, label=name)
        _draw(axes, columns["step"], columns.get(f"{_FLOOR}{name}", np.zeros(0)), color=color, lw=0.8, ls=":")


def _draw_weights(axes: Any, columns: dict[str, np.ndarray]) -> None:
    """The weights of the terms in the colours of their losses, where they change."""
    for k, values in enumerate(_part(columns, _WEIGHT).values()):
        if np.isfinite(values).any() and np.nanmin(values) < np.nanmax(values):
            _draw(axes, columns["step"], values, color=COLORS[k % len(COLORS)], lw=1.0)


def _draw_scores(axes: Any, columns: dict[str, np.ndarray]) -> None:
    """Fields on the mesh in full, on coarser levels dashed; a ring where the mean of all was best."""
    fields = _part(columns, _SCORE)
    mean = fields.pop(_MEAN, np.zeros(0))
    best = int(np.nanargmin(mean)) if np.isfinite(mean).any() else None
    colors: dict[str, str] = {}
    for name, values in fields.items():
        field, _, level = name.rpartition("@")
        field, level = (field, level) if field in fields else (name, "")  # a field may be called so, too
        color = colors.setdefault(field, COLORS[len(colors) % len(COLORS)])
        if level:
            _draw(axes, columns["step"], values, color=color, lw=0.8, alpha=0.6, ls=(0, (4, int(level) + 1)))
            continue
        label = field if best is None else f"{field}  {values[best]:.2%}"
        _draw(axes, columns["step"], values, color=color, lw=1.6, marker="o", ms=2.5, label=label)
        if best is not None:
            axes.plot(columns["step"][best], values[best], "o", ms=9, mfc="none", mec=color, mew=1.2)
    if best is not None:
        axes.axvline(columns["step"][best], color=PALE, lw=0.8, ls=":")
        axes.annotate(
            f"best: step {columns['step'][best]:.0f}{_after(columns, best)}",
            (columns["step"][best], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-5, -10),
            textcoords="offset points",
            ha="right" if columns["step"][best] > np.nanmax(columns["step"]) / 2 else "left",
            fontsize=8,
            color=PALE,
        )


def _after(columns: dict[str, np.ndarray], row: int) -> str:
    seconds = columns.get("seconds", np.full(len(columns["step"]), np.nan))[row]
    if not np.isfinite(seconds):
        return ""
    return f", {seconds / 60:.1f} min" if seconds >= 90 else f", {seconds:.0f} s"


def _part(columns: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}


def _draw(axes: Any, steps: np.ndarray, values: np.ndarray, **look: Any) -> None:
    """A line through what there is; zeros and less have no place on a log axis."""
    if len(values) != len(steps):
        return
    seen = np.isfinite(steps) & np.isfinite(values) & (values > 0)
    if seen.any():
        axes.plot(steps[seen], values[seen], **look)


def _logarithmic(*several: Any) -> None:
    """Log axes with plain numbers; where few powers of ten are in sight, 2 and 5 of them have numbers too."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for axes in several:
        if axes.lines:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
