"""The commands `gno post` and `gno correct`: what FEM does with a field, a solver's or a prediction's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gno.mesh import Mesh

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


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
    recovery: Annotated[str, typer.Option(metavar="patch|l2", help="How node values are made.")] = "patch",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; probes go beside it.")] = None,
    as_json: Json = False,
) -> None:
    """Stress, fluxes, reactions, drag, probes and error estimates, from a solver's field or a prediction.

    Derived fields are written at nodes (recovered) and under the same name on cells (mean). Stress is xx, yy, zz, xy,
    yz, xz in units of E; von_mises, tresca, principal_stress and strain come with it. What derives from predicted_u is
    called predicted_... as well. A reaction is the force with which a support holds the body.

    Beside a file of `gno predict --samples` lie its samples: the same is derived from each of them, and mean and
    standard deviation are printed, and written as std_....

    \b
    Examples:
      gno post beam.frd --stress DISP --young 210e3 --poisson 0.3 -o beam_stress.vtu
      gno post plate.vtu --stress displacement --young 210e9 --poisson 0.3 --plane stress --reactions left -o out.vtu
      gno post predicted.vtu --stress predicted_displacement --young 7e4 --poisson 0.3 --plane stress --error -o out.vtu
      gno post room.vtu --flux temperature --conductivity k --reactions window --line 0,0:4,3 -o out.vtu
      gno post flow.vtu --drag cylinder --viscosity 1e-3 --speed 0.2 --length 0.1

    \b
    Next:  gno show out.vtu -f von_mises     gno show out.vtu -f error_estimate
    """
    from gno.mesh import read, write
    from gno.post import command, report
    from gno.post.probes import line as line_probe
    from gno.post.probes import plane as plane_probe
    from gno.post.recovery import l2_recovery, patch_recovery
    from gno.post.samples import sample_files, with_spread

    if recovery not in ("patch", "l2"):
        raise ValueError(f"--recovery: expected patch or l2, got '{recovery}'")
    if not any((stress, flux, gradient, drag, line, cut)):
        raise ValueError("gno post: expected --stress, --flux, --gradient, --drag, --line or --cut, got none of them")
    if output is None and (line or cut):
        raise ValueError("--output: expected a file for --line and --cut to be written beside, got none")
    if drag and viscosity is None:
        raise ValueError("--viscosity: expected a number for --drag, got none")
    recover, sets = (l2_recovery if recovery == "l2" else patch_recovery), reactions or []

    def derived(mesh: Mesh) -> report.Report:
        found = report.Report(mesh)
        if stress:
            law = command.material(young, poisson, plane, mesh)
            names = command.fields(stress)
            found = report.report_solid(found, names, law, reactions=sets, error=error, recovery=recover)
        if flux:
            k = command.parameter(conductivity)
            found = report.report_flux(found, flux, k, reactions=sets, error=error and not stress, recovery=recover)
        for name in gradient or []:
            found = report.report_gradient(found, name, recover)
        if drag and viscosity is not None:
            names = command.fields(velocity)
            flow: dict[str, Any] = {"velocity": names, "pressure": pressure, "viscosity": viscosity, "density": density}
            found = report.report_fluid(found, drag, **flow, speed=speed, length=length)
        return found

    mesh = read(file)
    found = derived(mesh)
    if samples := sample_files(file):
        found = with_spread(found, [derived(read(sample)) for sample in samples])
    target = file if output is None else output
    written = [] if output is None else [(found.mesh, output)]
    for k, text in enumerate(line or [], 1):
        written.append((line_probe(found.mesh, *command.two_places(text, "--line")), command.beside(target, "line", k)))
    for k, text in enumerate(cut or [], 1):
        place, normal = command.two_places(text, "--cut")
        grid = plane_probe(found.mesh, place, normal, command.spacing_of(mesh))
        written.append((grid, command.beside(target, "cut", k)))
    typer.echo(found.to_json() if as_json else str(found))
    for made, path in written:
        write(made, path)
        typer.echo(str(path), err=as_json)


def correct(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Mesh file with a predicted field.")],
    field: Annotated[str, typer.Option("-f", "--field", help="The prediction; or fields, with commas.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, with corrected_<field>.")],
    young: Annotated[str | None, typer.Option(metavar="E", help="Elasticity: Young's modulus.")] = None,
    poisson: Annotated[str | None, typer.Option(metavar="NU", help="Elasticity: Poisson's ratio.")] = None,
    plane: Annotated[str | None, typer.Option(metavar="stress|strain", help="What a planar mesh stands for.")] = None,
    conductivity: Annotated[str | None, typer.Option(metavar="K", help="Diffusion: k, number or field.")] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="SET[.x][=VALUES]", help="Given values: left, left.x=0, wall=FIELD.")
    ] = None,
    loads: Annotated[
        list[str] | None, typer.Option("--load", metavar="SET=VALUES", help="Traction or inflow: right=100,0.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="VALUES", help="Load or source per volume.")] = None,
    problem: Annotated[
        str | None, typer.Option(metavar="FILE.py:FUNCTION", help="Physics of your own: a function Mesh -> Problem.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Another guess to compare with, as a previous step.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Residual relative to the load.")] = 1e-8,
    as_json: Json = False,
) -> None:
    """Solve from the prediction to a stated tolerance: the solver's answer, and what the prediction saved.

    Conjugate gradients with algebraic multigrid, Newton's method where the problem is nonlinear. The same problem is
    solved again from zero and from cheap guesses, all to the same residual, and the table says what each took. Values
    are numbers with commas, or the name of a field of the file.

    \b
    Examples:
      gno correct predicted/plate.vtu -f predicted_displacement --young 70e3 --poisson 0.3 --plane stress \\
          --fix left --load right=traction -o plate_corrected.vtu
      gno correct predicted/room.vtu -f predicted_temperature --conductivity k --fix walls=20 --source 5 -o room.vtu
      gno correct predicted/seal.vtu -f predicted_u --problem seal.py:problem --tolerance 1e-6 -o seal.vtu
    """
    from gno.mesh import read, write
    from gno.post import command
    from gno.post.correct import correct as correct_field

    kinds = {"--young": young, "--conductivity": conductivity, "--problem": problem}
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        raise ValueError(f"gno correct: expected one of --young, --conductivity and --problem, got {got}")
    mesh = read(file)
    if problem:
        equation = command.problem_from(problem, mesh)
    elif young:
        law = command.material(young, poisson, plane, mesh)
        equation = command.solid_problem(mesh, law, fix or [], loads or [], source)
    else:
        k = command.parameter(str(conductivity))
        equation = command.diffusion_problem(mesh, k, fix or [], loads or [], source)
    others = {name: command.fields(name) for name in against or []}
    found = correct_field(mesh, command.fields(field), equation, tolerance=tolerance, guesses=others)
    write(found.mesh, output)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else f"{found}\n{output}")
