"""How a rollout went: its errors over time as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gno.post.curves import read_log
from gno.post.picture import write_figure
from gno.post.plot import COLORS, dress, sheet

_TITLES = {
    "vrmse": "VRMSE",
    "relative_l2": "relative L²",
    "correlation": "correlation with the truth",
    "drift": "drift of the integral",
    "spectrum": "energy per scale, |log₁₀| off",
    "spread": "std of the samples, as VRMSE",
    "distribution": "distribution of values, spreads off",
}
# What keeps a linear axis: it is about 1, or about 0.
_LINEAR = ("correlation",)


def draw_rollout(table: str | Path, output: str | Path | None = None) -> Path:
    """Metrics of rollouts against time, one panel per metric, one line per field.

    Args:
        table: CSV file with the columns ``step``, ``time`` and ``<metric> <field>``.
        output: picture file; by default the table's name with ``.png``.

    Returns:
        the picture's path.

    Raises:
        ValueError: there is no such file, or it has no row of numbers.
    """
    table = Path(table)
    columns = read_log(table)
    return write_figure(_figure(columns), Path(output) if output is not None else table.with_suffix(".png"))


def _figure(columns: dict[str, np.ndarray]) -> Any:
    metrics = list(dict.fromkeys(name.partition(" ")[0] for name in columns if " " in name))
    n_columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    figure = sheet(4 * n_columns, 2.8 * n_rows)
    time = columns.get("time", columns["step"])
    for k, metric in enumerate(metrics):
        axes = figure.add_subplot(n_rows, n_columns, k + 1)
        fields = [name.partition(" ")[2] for name in columns if name.startswith(f"{metric} ")]
        for field, color in zip(fields, COLORS * len(fields), strict=False):
            values = columns[f"{metric} {field}"]
            axes.plot(time, values, color=color, lw=1.6, marker="o", ms=2, label=f"{field}  {values[-1]:.3g}")
        positive = all((columns[f"{metric} {field}"] > 0).all() for field in fields)
        if metric not in _LINEAR and positive:
            axes.set_yscale("log")
        dress(axes, _TITLES.get(metric, metric), x="time")
    return figure
