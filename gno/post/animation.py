"""A series in time as a film, or as one picture of space against time."""

from __future__ import annotations

import bisect
import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from gno.mesh import Mesh, interpolation
from gno.mesh.files import atomic
from gno.mesh.geometry import domain_dim
from gno.mesh.locate import containing_cells
from gno.mesh.shapes import cell_dim
from gno.post.color import (
    INK,
    NO_VALUE_COLOR,
    PALE,
    SIGNED_COLORS,
    UNSIGNED_COLORS,
    VALUE_COLORS,
    color_limits,
    error_limits,
)
from gno.post.panels import Look, field_panels
from gno.post.picture import page, write_figure
from gno.post.plot import sheet
from gno.post.quantity import difference, quantity
from gno.post.scene import VALUE, Panel, View, view_of
from gno.progress import counter

FILMS = (".gif", ".mp4")
# A film of more frames leaves some out, evenly.
MOST_FRAMES = 120
_WIDTH = 1000  # of a film, in pixels
_PLACES = 240  # along the line of a space–time picture


def animate(
    series: Sequence[Mesh],
    field: str,
    output: str | Path,
    *,
    compare: str | None = None,
    component: int | str | None = None,
    frames_per_second: float = 12.0,
    progress: bool = False,
) -> Path:
    """Write a film of a field; with `compare`, another field of the frames, truth, prediction and error.

    Colours mean the same in all frames.

    Args:
        series: meshes in time; read one after the other, twice.
        field, compare, component: as in `gno.post.show.show`.
        output: .gif, or .mp4 where ffmpeg is installed (``pip install imageio-ffmpeg`` brings one).
        progress: whether a bar counts the frames.

    Returns:
        the film's path.

    Raises:
        ValueError: another type of file, no ffmpeg, or a field that is not there.
    """
    output = Path(output)
    if output.suffix.lower() not in FILMS:
        raise ValueError(f"output '{output}': expected a name that ends in {' or '.join(FILMS)}, got '{output.suffix}'")
    series = _known(series, field, compare)
    program = _ffmpeg(output) if output.suffix.lower() == ".mp4" else ""
    chosen = np.unique(np.linspace(0, len(series) - 1, min(len(series), MOST_FRAMES)).round().astype(int)).tolist()
    output.parent.mkdir(parents=True, exist_ok=True)
    with counter(output.name, 2 * len(chosen), draw=progress) as advance, atomic(output) as part:
        look, view = _common(_counted(series, chosen, advance), field, compare, component)
        images = _images(_counted(series, chosen, advance), field, compare, component, look, view)
        if program:
            _write_mp4(images, part, frames_per_second, program)
        else:
            _write_gif(images, part, frames_per_second)
    return output


def space_time(
    series: Sequence[Mesh],
    field: str,
    output: str | Path,
    *,
    compare: str | None = None,
    component: int | str | None = None,
    line: tuple[Sequence[float], Sequence[float]] | None = None,
    progress: bool = False,
) -> Path:
    """Draw a field along a line against time; with `compare`, truth, prediction and error beside each other.

    Args:
        series: meshes in time.
        field, compare, component: as in `gno.post.show.show`; fields on nodes.
        output: picture file.
        line: its ends; by default along the longest side of the domain, through the cell nearest its middle.
        progress: whether a bar counts the frames.

    Returns:
        the picture's path.

    Raises:
        ValueError: fewer than two frames, a field that is not on nodes, ends of another dimension, or a line that
            does not meet the mesh.
    """
    series = _known(series, field, compare)
    if len(series) < 2:
        raise ValueError(f"{series[0].source}: expected a series of at least 2 frames, got {len(series)}")
    ends = np.array(_line(series[0]) if line is None else line, dtype=float)
    places = ends[0] + np.linspace(0, 1, _PLACES)[:, None] * (ends[1] - ends[0])
    rows: list[list[Float[np.ndarray, " n"]]] = []
    times: list[float] = []
    before: Mesh | None = None
    with counter(Path(output).name, len(series), draw=progress) as advance:
        for k, mesh in _counted(series, range(len(series)), advance):
            if before is None or before.n_nodes != mesh.n_nodes or not np.array_equal(before.points, mesh.points):
                at, inside = interpolation(mesh, places), containing_cells(mesh, places) >= 0
            if not inside.any():
                a, b = (f"({', '.join(f'{x:.4g}' for x in end)})" for end in ends)
                raise ValueError(f"line: expected one that meets the mesh, got {a} to {b} ({mesh.source})")
            known = _on_nodes(mesh, field, compare, component)
            rows.append([np.where(inside, at @ values, np.nan) for values in known])
            times.append(float(k) if mesh.time is None else mesh.time)
            before = mesh
    images = [np.stack(column) for column in zip(*rows, strict=True)]
    titles = [field] if compare is None else ["truth", "prediction", "error"]
    length = float(np.linalg.norm(ends[1] - ends[0]))
    return write_figure(_space_time_figure(images, titles, np.array(times), length), Path(output))


def _known(series: Sequence[Mesh], field: str, compare: str | None) -> Sequence[Mesh]:
    """The frames up to the last one that has the fields: where a rollout goes on, the truth ends.

    Raises:
        ValueError: the first frame lacks one.
    """
    if compare is None:
        return series
    quantity(series[0], field), quantity(series[0], compare)
    stop = bisect.bisect_left(range(1, len(series)), True, key=lambda k: not _has(series[k], field, compare))
    return series[: stop + 1]


def _has(mesh: Mesh, *names: str) -> bool:
    return all(name in mesh.point_fields or name in mesh.cell_fields for name in names)


def _counted(
    series: Sequence[Mesh], chosen: Iterable[int], advance: Callable[[int], None]
) -> Iterator[tuple[int, Mesh]]:
    for k in chosen:
        yield k, series[k]
        advance(1)


def _line(mesh: Mesh) -> Float[np.ndarray, "2 dim"]:
    low, high = mesh.points.min(0), mesh.points.max(0)
    middle = (low + high) / 2
    blocks = [block for block in mesh.cells if cell_dim(block.type) == domain_dim(mesh) and len(block)]
    if blocks and containing_cells(mesh, middle[None])[0] < 0:  # a hollow body, or an L
        centres = np.concatenate([mesh.points[block.nodes].mean(1) for block in blocks])
        middle = centres[np.linalg.norm(centres - middle, axis=1).argmin()]
    axis, ends = int((high - low).argmax()), np.array([middle] * 2)
    ends[0, axis], ends[1, axis] = low[axis], high[axis]
    return ends


def _on_nodes(mesh: Mesh, field: str, compare: str | None, component: int | str | None) -> list[np.ndarray]:
    found = [quantity(mesh, field, component)]
    if compare is not None:
        found += [quantity(mesh, compare, component), difference(mesh, field, mesh, compare, component)]
    for values in found:
        if values.location != "node":
            raise ValueError(f"field '{field}': expected one on nodes, got one on {values.location}s ({mesh.source})")
    return [values.values for values in found]


def _space_time_figure(images: Sequence[np.ndarray], titles: Sequence[str], times: np.ndarray, length: float) -> Any:
    from matplotlib import colormaps

    figure = sheet(4.2 * len(images) + 0.6, 4.6)
    values = color_limits(*(image[np.isfinite(image)] for image in images[:2]))
    middle = (times[1:] + times[:-1]) / 2
    sides = np.concatenate([[2 * times[0] - middle[0]], middle, [2 * times[-1] - middle[-1]]])
    place = np.linspace(0, length, images[0].shape[1] + 1)
    for axes, image, title in zip(figure.subplots(1, len(images), squeeze=False)[0], images, titles, strict=True):
        ends, colors = values, VALUE_COLORS
        if title == "error":
            ends = error_limits(image[np.isfinite(image)])
            colors = SIGNED_COLORS if ends[0] < 0 else UNSIGNED_COLORS
        look = colormaps[colors].with_extremes(bad=NO_VALUE_COLOR)
        drawn = axes.pcolormesh(place, sides, image, vmin=ends[0], vmax=ends[1], cmap=look, rasterized=True)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
        axes.set_xlabel("along the line", fontsize=8.5, color=PALE)
        axes.tick_params(labelsize=8, color=PALE, labelcolor=INK)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.8, aspect=30)
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.ax.tick_params(labelsize=8, color=PALE, labelcolor=INK)
    figure.axes[0].set_ylabel("time", fontsize=8.5, color=PALE)
    return figure


def _common(
    frames: Iterable[tuple[int, Mesh]], field: str, compare: str | None, component: int | str | None
) -> tuple[Look, View]:
    """Colour scales for all frames together, and the view of the first frame."""
    values: list[float] = []
    others: list[float] = []  # errors; standard deviations where nothing is compared
    view = None
    for _, mesh in frames:
        panels = field_panels(mesh, field, compare=compare, component=component)
        view = view or view_of(panels)
        values += [end for panel in panels if panel.colors == VALUE_COLORS for end in _ends(panel)]
        others += [end for panel in panels if panel.colors != VALUE_COLORS for end in _ends(panel)][:2]
    assert view is not None
    return Look(limits=color_limits(np.array(values)), others=error_limits(np.array(others)), edges=False), view


def _ends(panel: Panel) -> list[float]:
    """Smallest and largest value that is seen, if there is one."""
    seen = np.asarray(panel.body[VALUE])
    seen = seen[np.isfinite(seen)]
    return [float(seen.min()), float(seen.max())] if len(seen) else []


def _images(frames, field, compare, component, look, view) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    from PIL import Image

    for k, mesh in frames:
        panels = field_panels(mesh, field, compare=compare, component=component, look=look)
        when = f"time {k if mesh.time is None else mesh.time:.6g}"
        shown = [dataclasses.replace(panel, note=when) for panel in panels]
        figure: Any = page(shown, view)
        figure.canvas.draw()
        picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[:, :, :3])
        width = min(_WIDTH, picture.width) // 2 * 2  # films want even sides
        height = round(picture.height * width / picture.width) // 2 * 2
        yield np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))


def _write_gif(images: Iterable[np.ndarray], path: Path, frames_per_second: float) -> None:
    pictures = map(_in_256_colors, images)
    first = next(pictures)
    duration = round(1000 / frames_per_second)
    first.save(path, save_all=True, append_images=pictures, duration=duration, loop=0)


def _in_256_colors(image: np.ndarray) -> Any:
    """A frame of a .gif, whose palette is chosen from it and from the colour scales, of which it may show little."""
    from matplotlib import colormaps
    from PIL import Image

    height, width, _ = image.shape
    scales = np.stack([colormaps[name](np.linspace(0, 1, width))[:, :3] for name in (VALUE_COLORS, SIGNED_COLORS)])
    strips = (255 * np.repeat(scales, height // 8, axis=0)).round().astype(np.uint8)
    both = Image.fromarray(np.concatenate([image, strips])).quantize(256, dither=Image.Dither.NONE)
    return both.crop((0, 0, width, height))


def _write_mp4(images: Iterable[np.ndarray], path: Path, frames_per_second: float, program: str) -> None:
    process: subprocess.Popen | None = None
    for image in images:
        if process is None:
            size = f"{image.shape[1]}x{image.shape[0]}"
            command = [program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size]
            command += ["-r", str(frames_per_second), "-i", "-", "-pix_fmt", "yuv420p", "-crf", "18", str(path)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(np.ascontiguousarray(image).tobytes())
    assert process is not None
    _, errors = process.communicate()
    if process.returncode:
        raise ValueError(f"{path}: expected a film, got from ffmpeg: {errors.decode(errors='replace').strip()[:200]}")


def _ffmpeg(output: Path) -> str:
    """The program: the user's own, or the one that imageio-ffmpeg brings."""
    found = os.environ.get("IMAGEIO_FFMPEG_EXE") or shutil.which("ffmpeg")
    if found:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise ValueError(
            f"output '{output}': expected ffmpeg for .mp4, got none; `pip install imageio-ffmpeg`, or write a .gif"
        ) from None
    return get_ffmpeg_exe()
