"""`gno inspect`."""

from __future__ import annotations

import warnings

import typer

from gno.commands.options import Files, Json, complain, on_stop
from gno.progress import status


def inspect(files: Files, as_json: Json = False) -> None:
    """Say what is in a mesh: cells, fields, sets, quality, and the hierarchy it would get.

    \b
    Examples:
      gno inspect wing.vtu
      gno inspect results/*.vtu --json > facts.json
    """
    from gno.inspection import Inspection
    from gno.inspection import inspect as look
    from gno.mesh import MeshWarning, read
    from gno.mesh.address import split_address
    from gno.mesh.io import step_times
    from gno.mesh.topology import topology_of

    failed, found = 0, list[Inspection]()
    with on_stop(lambda: f"{len(found) + failed} of {len(files)} files inspected"):
        for file in files:
            try:
                with status(f"looking at {file.name}"):
                    mesh = read(file)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", MeshWarning)  # of what reading has said already
                        topology = topology_of(split_address(file)[0], mesh.n_nodes)
                    found.append(look(mesh, n_steps=max(1, len(step_times(file))), topology=topology))
            except (ValueError, OSError) as error:
                failed += 1
                complain(error)
                continue
            if not as_json:
                typer.echo(("\n" if len(found) > 1 else "") + str(found[-1]))
    if as_json:
        typer.echo("[" + ",\n".join(inspection.to_json() for inspection in found) + "]")
    if failed:
        raise typer.Exit(2)
