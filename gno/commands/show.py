"""`gno show`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from gno.progress import status


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file of any format.")],
    field: Annotated[str | None, typer.Option("-f", "--field", help="Field to show.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Another file with the same field, or another field of this file.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Picture to write instead of a window.")] = None,
    component: Annotated[
        str | None, typer.Option(help="Component of a vector or tensor: number, name or each.")
    ] = None,
    warp: Annotated[str | None, typer.Option(help="Vector field that moves the mesh.")] = None,
    around: Annotated[str | None, typer.Option(help="Point set to look at closely.")] = None,
    levels: Annotated[bool, typer.Option("--levels", help="Draw FILE and its coarser levels beside it.")] = False,
    space_time: Annotated[
        bool, typer.Option("--space-time", help="Draw a series along a line through the middle, against time.")
    ] = False,
) -> None:
    """Show a field in a window, or as a picture where there is no display or -o is given.

    \b
    Examples:
      gno show plate.vtu --field von_mises
      gno show predicted/plate.vtu -f displacement --compare predicted_displacement --warp displacement -o error.png
      gno show predicted/plate.vtu -f predicted_von_mises --levels -o levels.png
      gno show predicted/wing.vtu -f pressure --compare predicted_pressure --around wall -o wall.png
      gno show predicted/wave.pvd -f u --compare predicted_u -o wave.gif
      gno show predicted/wave.pvd -f u --compare predicted_u --space-time -o wave.png
    """
    if compare and field == f"predicted_{compare}":  # the error is that of the prediction, whichever is named first
        field, compare = compare, field
    if space_time or (output is not None and output.suffix.lower() in (".gif", ".mp4")):
        for name, given in (("--warp", warp), ("--around", around), ("--levels", levels)):
            if given:
                raise ValueError(f"{name}: expected a picture, got a film or --space-time")
        return _show_series(file, field, compare, component, output, space_time)
    from gno.mesh import read
    from gno.post.show import show as show_field
    from gno.post.show import show_levels

    part = _component(component)
    with status("drawing") if output else contextlib.nullcontext():  # a window stays as long as it is looked at
        mesh = read(file)
        if levels:
            coarse = [read(path) for path in _level_files(file)]
            picture = show_levels(mesh, coarse, field, component=part, output=output, around=around)
        else:
            name = _chosen(field, file, [*mesh.point_fields, *mesh.cell_fields])
            other = read(compare) if compare and Path(compare).is_file() else compare
            picture = show_field(mesh, name, compare=other, output=output, component=part, warp=warp, around=around)
    if picture:
        typer.echo(str(picture))


def _show_series(
    file: Path, field: str | None, compare: str | None, component: str | None, output: Path | None, still: bool
) -> None:
    """A film of a series, or its picture in space and time."""
    from gno.mesh import read_series
    from gno.post import animate
    from gno.post import space_time as draw_space_time

    series = read_series(file)
    name = _chosen(field, file, list(series[0].point_fields))
    draw = draw_space_time if still else animate
    target = output or Path(f"{file.stem.replace('*', '')}-{name}-time.png")
    typer.echo(str(draw(series, name, target, compare=compare, component=_component(component), progress=True)))


def _chosen(field: str | None, file: Path, known: list[str]) -> str:
    if field is None:
        there = ", ".join(known) or "no field at all"
        raise ValueError(f"{file}: expected --field, one of those in the file, got none; there are: {there}")
    return field


def _component(text: str | None) -> str | int | None:
    return int(text) if text and text.isdigit() else text


def _level_files(file: Path) -> list[Path]:
    """The coarser levels that ``gno predict`` wrote beside a file, finest first."""
    found = sorted(
        (
            path
            for path in file.parent.glob(f"{file.stem}_level*")
            if path.stem.removeprefix(f"{file.stem}_level").isdigit()
        ),
        key=lambda path: int(path.stem.rpartition("_level")[2]),
    )
    if not found:
        raise ValueError(f"{file}: expected {file.stem}_level1.vtu, … beside it, got none; `gno predict` writes them")
    return found
