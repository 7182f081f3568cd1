"""`gno init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gno.commands.options import Files, quoted


def init(
    files: Files,
    target: Annotated[list[str] | None, typer.Option("-t", "--target", help="Field to learn; may be repeated.")] = None,
    known: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="Field or set known beforehand; may be repeated.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Budget of the training.")] = 30.0,
    time: Annotated[
        bool | None, typer.Option("--time/--steady", help="Files are series in time, or frames of one; seen by itself.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Case to write.")] = Path("case.toml"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a case that is there.")] = False,
) -> None:
    """Write a first case.toml for a folder of results, with what else is in the files as comments.

    \b
    Examples:
      gno init results/*.vtu                                        # says which fields there are
      gno init results/*.vtu --input load --target displacement --target von_mises
      gno init runs/*.pvd --target temperature --minutes 10 -o heat.toml
      gno init run.xyz@: --input O --input H --target energy        # each frame a sample
    """
    from gno.mesh.files import atomic
    from gno.train.draft import draft_case

    if output.is_dir():
        raise ValueError(f"{output}: expected the name of a file, got a folder")
    if target and output.exists() and not overwrite:  # without a target nothing is written
        raise ValueError(f"{output}: expected no file, got one; --overwrite, or -o OTHER.toml")
    text = draft_case(
        files,
        targets=target or (),
        inputs=known or (),
        minutes=minutes,
        time=time,
        folder=output.parent,
        progress=True,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic(output) as part:
        part.write_text(text, encoding="utf-8")
    typer.echo(f"{output}:\n\n{text}\nnext:  gno train {quoted(output)}")
