"""The picture of results/channel.md: what a wall feels, the flow above it, and what is predicted of it.

python benchmarks/channel_picture.py docs/pictures/channel.png      # after benchmarks/channel.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import channel
import channel_run
import channel_solver
import numpy as np
from matplotlib.figure import Figure

from gno.post.picture import write_figure

FINE = 128  # points along a side of the picture; sums of waves are exact between the nodes
SHOWN = ("u15", "u50")


def fine(planes: np.ndarray) -> np.ndarray:
    """Values on the grid of training, continued between its nodes by their waves."""
    side = channel_run.SIDE
    found = np.fft.rfft2(planes.reshape(side + 1, side + 1, -1)[:-1, :-1], axes=(0, 1), norm="forward")
    n_x, n_z = channel_run.CHANNEL.n_modes
    found = found[channel_solver.wave_numbers(2 * n_x + 1), : n_z + 1]
    return channel_run.values(found[None], channel_run.grid(FINE).points).reshape(FINE + 1, FINE + 1, -1)


def draw(columns: dict[str, np.ndarray], path: Path) -> None:
    """A row for each plane, a column for truth, predictions and the error of the first of them."""
    truth, *_ = columns.values()
    long, wide = channel_run.CHANNEL.lengths
    figure = Figure(figsize=(2.9 * len(columns), 3.3), layout="compressed", dpi=110)
    grid = figure.subplots(len(SHOWN), len(columns), squeeze=False)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=10)
    for line, name in zip(grid, SHOWN, strict=True):
        k = channel_run.COLUMNS.index(name)
        limit = np.abs(truth[..., k]).max()
        for axes, values in zip(line, columns.values(), strict=True):
            image = axes.imshow(
                values[..., k].T,
                origin="lower",
                extent=(0, long, 0, wide),
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                interpolation="bilinear",
            )
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"$u'$ at $y^+ = {name[1:]}$")
        figure.colorbar(image, ax=line, shrink=0.9, label="$u'/u_{rms}$")
    write_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    folder = channel_solver.CACHE
    parts = channel_run.data(folder)
    test, points = parts["test"].part(slice(1)), channel_run.grid(FINE).points
    truth, linear = (
        channel_run.values(flow, points).reshape(FINE + 1, FINE + 1, -1)
        for flow in (test.flow, channel_run.Linear(parts["train"])(test.wall))
    )
    rows = [json.loads(line) for line in channel.RESULTS.read_text().splitlines()]
    best = channel_run.Job("gno", **channel.chosen(rows, "gno"))
    predicted = fine(np.load(folder / "predicted" / best.file))
    draw({"simulation": truth, "gno": predicted, "gno − simulation": predicted - truth, "linear": linear}, output)


if __name__ == "__main__":
    main()
