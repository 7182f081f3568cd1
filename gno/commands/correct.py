"""`gno correct`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gno.commands.options import Json
from gno.progress import status


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
    tolerance: Annotated[float, typer.Option(min=0.0, help="Residual relative to the load.")] = 1e-8,
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
    with status("solving"):
        found = correct_field(mesh, command.fields(field), equation, tolerance=tolerance, guesses=others)
        write(found.mesh, output)
    typer.echo(json.dumps(found.facts, indent=2) if as_json else f"{found}\n{output}")
