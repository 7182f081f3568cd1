"""`gno post`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gno.commands.options import Json, on_stop
from gno.progress import counter, status

if TYPE_CHECKING:
    from gno.mesh import Mesh
    from gno.post.report import Report


def post(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file with fields, a solver's or a prediction's.")],
    stress: Annotated[str | None, typer.Option(metavar="FIELD", help="Displacement; or ux,uy,uz in fields.")] = None,
    young: Annotated[str | None, typer.Option(metavar="E", help="Young's modulus: number or field.")] = None,
    poisson: Annotated[str | None, typer.Option(metavar="NU", help="Poisson's ratio: number or field.")] = None,
    plane: Annotated[str | None, typer.Option(metavar="stress|strain", help="What a planar mesh stands for.")] = None,
    flux: Annotated[str | None, typer.Option(metavar="FIELD", help="Temperature or pressure: flux -k grad u.")] = None,
    conductivity: Annotated[str, typer.Option(metavar="K", help="k: number or field.")] = "1",
    gradient: Annotated[list[str] | None, typer.Option(metavar="FIELD", help="Gradient of any field.")] = None,
    reactions: Annotated[
        list[str] | None, typer.Option(metavar="SET", help="Reaction of a support, or inflow, at a set of nodes.")
    ] = None,
    error: Annotated[bool, typer.Option("--error", help="Estimate the error of each cell (Zienkiewicz-Zhu).")] = False,
    drag: Annotated[str | None, typer.Option(metavar="SET", help="Force of a flow on a body.")] = None,
    velocity: Annotated[str, typer.Option(metavar="FIELD", help="For --drag.")] = "velocity",
    pressure: Annotated[str, typer.Option(metavar="FIELD", help="For --drag.")] = "pressure",
    viscosity: Annotated[float | None, typer.Option(help="Dynamic viscosity, for --drag.")] = None,
    density: Annotated[float, typer.Option(help="For --drag.")] = 1.0,
    speed: Annotated[float | None, typer.Option(help="Of the free flow, for coefficients of drag and lift.")] = None,
    length: Annotated[float | None, typer.Option(help="Length or area of reference, for the coefficients.")] = None,
    line: Annotated[list[str] | None, typer.Option(metavar="X,Y:X,Y", help="Fields along a line.")] = None,
    cut: Annotated[
        list[str] | None, typer.Option(metavar="POINT:NORMAL", help="Fields on a plane through a solid.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Predictions of known truth (gno predict --samples): calibrated intervals."
        ),
    ] = None,
    recovery: Annotated[str, typer.Option(metavar="patch|l2", help="How node values are made.")] = "patch",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; probes go beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Stress, fluxes, reactions, drag, probes and error estimates, from a solver's field or a prediction.

    Derived fields are written at nodes (recovered) and under the same name on cells (mean). Stress is xx, yy, zz, xy,
    yz, xz in units of E; von_mises, tresca, principal_stress and strain come with it. What derives from predicted_u is
    called predicted_... as well. A reaction is the force with which a support holds the body.

    Beside a file of `gno predict --samples` lie its samples: the same is derived from each of them, and the standard
    deviation is printed, and written as std_.... With --held-out, a folder with predictions of files that have the true
    fields, which were not trained on, every number gets an interval that holds it at 90 %.

    \b
    Examples:
      gno post beam.frd --stress DISP --young 210e3 --poisson 0.3 -o beam_stress.vtu
      gno post plate.vtu --stress displacement --young 210e9 --poisson 0.3 --plane stress --reactions left -o out.vtu
      gno post predicted.vtu --stress predicted_displacement --young 7e4 --poisson 0.3 --plane stress --error -o out.vtu
      gno post room.vtu --flux temperature --conductivity k --reactions window --line 0,0:4,3 -o out.vtu
      gno post flow.vtu --drag cylinder --viscosity 1e-3 --speed 0.2 --length 0.1
      gno predict runs/case held_out/*.vtu -o held --samples
      gno post predicted/new.vtu --stress predicted_u --young 7e4 --poisson 0.3 --reactions left --held-out held

    \b
    Next:  gno show out.vtu -f von_mises     gno show out.vtu -f error_estimate
    """
    from gno.mesh import read, write
    from gno.post import command, report
    from gno.post.recovery import l2_recovery, patch_recovery
    from gno.post.samples import sample_files, with_spread

    if recovery not in ("patch", "l2"):
        raise ValueError(f"--recovery: expected patch or l2, got '{recovery}'")
    if not any((stress, flux, gradient, drag, line, cut)):
        raise ValueError("gno post: expected --stress, --flux, --gradient, --drag, --line or --cut, got none of them")
    if (reactions or error) and not (stress or flux):
        raise ValueError("--reactions, --error: expected --stress or --flux with them, got neither")
    if output is None and (line or cut):
        raise ValueError("--output: expected a file for --line and --cut to be written beside, got none")
    if drag and viscosity is None:
        raise ValueError("--viscosity: expected a number for --drag, got none")
    how: dict[str, Any] = {"recovery": l2_recovery if recovery == "l2" else patch_recovery}
    asked: dict[str, Any] = {"reactions": reactions or [], "error": error, **how}

    def derived(mesh: Mesh, said: Callable[[str], str] = str) -> report.Report:
        found = report.report_on(mesh)
        if stress:
            law = command.material(young, poisson, plane, mesh)
            found = report.report_solid(found, command.fields(said(stress)), law, **asked)
        if flux:
            options = {**asked, "error": error and not stress}
            found = report.report_flux(found, said(flux), command.parameter(conductivity), **options)
        for name in gradient or []:
            found = report.report_gradient(found, said(name), **how)
        if drag and viscosity is not None:
            flow: dict[str, Any] = {"viscosity": viscosity, "density": density, "speed": speed, "length": length}
            names = command.fields(said(velocity))
            found = report.report_fluid(found, drag, velocity=names, pressure=said(pressure), **flow)
        return found

    with status("deriving"):
        found, each = derived(read(file)), [derived(read(sample)) for sample in sample_files(file)]
    if held_out is not None:
        found = _with_intervals(found, each, file, held_out, derived)
    elif each:
        found = with_spread(found, each)
    files = [(found.mesh, output), *_probes(found.mesh, line or [], cut or [], output)] if output else []
    typer.echo(found.to_json() if as_json else str(found))
    written: list[str] = []
    with on_stop(lambda: f"written: {', '.join(written) or 'nothing'}"):
        for made, path in files:
            write(made, path)
            written.append(str(path))
            typer.echo(str(path), err=as_json)


def _with_intervals(
    found: Report, samples: Sequence[Report], file: Path, folder: Path, derived: Callable[..., Report]
) -> Report:
    """Standard deviations, and intervals by the predictions in a folder, that of the file itself left out."""
    from gno.mesh import read
    from gno.post.samples import PREDICTED, sample_files, with_spread
    from gno.uq.calibrated import COVERAGE
    from gno.uq.derived import Derived, with_intervals

    files = [path for path in sorted(folder.glob("*")) if sample_files(path) and path.resolve() != file.resolve()]
    if not samples or not files:
        raise ValueError(f"--held-out: expected files of `gno predict --samples`, got {folder if samples else file}")
    known = []
    with counter("held-out files", len(files), draw=True) as advance:
        for path in files:
            mesh = read(path)
            truth = derived(mesh, lambda name: name.replace(PREDICTED, ""))
            known.append(Derived(derived(mesh), [derived(read(sample)) for sample in sample_files(path)], truth))
            advance(1)
    return with_intervals(with_spread(found, samples), Derived(found, samples), known, COVERAGE)


def _probes(mesh: Mesh, lines: list[str], cuts: list[str], output: Path) -> Iterator[tuple[Mesh, Path]]:
    """Fields along lines and on planes, and where they go."""
    from gno.post import command
    from gno.post.probes import line, plane

    for k, text in enumerate(lines, 1):
        yield line(mesh, *command.two_places(text, "--line")), command.beside(output, "line", k)
    for k, text in enumerate(cuts, 1):
        place, normal = command.two_places(text, "--cut")
        yield plane(mesh, place, normal, command.spacing_of(mesh)), command.beside(output, "cut", k)
