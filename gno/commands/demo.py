"""`gno demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gno.commands.options import on_stop


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for data, run and pictures.")] = Path("demo"),
    minutes: Annotated[float, typer.Option(min=0.05, help="Training time.")] = 2.7,
    n_train: Annotated[int, typer.Option("--plates", min=4, help="Number of plates to train on.")] = 300,
) -> None:
    """Plates with holes under load: solve some, learn from them, predict plates never seen.

    \b
    Examples:
      gno demo
      gno demo -o /tmp/demo --minutes 10 --plates 600
    """
    from gno.demo.run import run_demo

    with on_stop(lambda: f"what was made is in {output}"):
        run_demo(output, minutes=minutes, n_train=n_train, say=typer.echo)
