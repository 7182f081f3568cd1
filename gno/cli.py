"""The command line: thin commands over the same functions that Python users call."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections import Counter
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gno import __version__
from gno.commands.calibrate import calibrate
from gno.commands.correct import correct
from gno.commands.demo import demo
from gno.commands.evaluate import evaluate
from gno.commands.init import init
from gno.commands.inspect import inspect
from gno.commands.options import complain
from gno.commands.post import post
from gno.commands.predict import predict
from gno.commands.show import show
from gno.commands.train import train


class Commands(TyperGroup):
    """Commands that answer Ctrl-C by a line; typer itself says nothing."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            typer.echo(err=True)  # ends the line of ^C
            complain(KeyboardInterrupt(str(stopped) or "stopped; nothing was left half-written"))
            raise typer.Exit(130) from None


app = typer.Typer(
    name="gno",
    cls=Commands,
    help="Neural operators on the meshes you already have, from a folder of results to pictures and mesh files.",
    epilog="Start with `gno demo`, or with `gno inspect` and `gno init` on meshes of your own.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(f"gno {__version__}" if version else context.get_help())


for command in (inspect, init, train, evaluate, predict, show, calibrate, post, correct, demo):
    app.command()(command)

# How often each warning came, whatever the file.
_warned: Counter[str] = Counter()


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    # libraries warn their programmers; what our own rooms have to say is for the user, of many files once
    if not category.__module__.startswith("gno."):
        return
    text = " ".join(str(message).split())
    what = text.partition(": ")[2] or text
    _warned[what] += 1
    if _warned[what] < 3:
        typer.echo(f"gno: warning: {text}" + (" (told of no further files)" if _warned[what] == 2 else ""), err=True)


def main() -> NoReturn:
    """Run the command line: one line and exit status 2 for bad input, 130 for Ctrl-C, never a traceback."""
    warnings.showwarning = _warn
    _warned.clear()
    atexit.register(gc.freeze)  # on the way out, to search all of torch for garbage once more takes two seconds
    try:
        status = app(standalone_mode=False, prog_name="gno")
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stdout = None  # type: ignore[assignment]
        status = 0
    except Exception as error:
        if os.environ.get("GNO_DEBUG"):
            raise
        ours = type(error).__module__.startswith("gno.") or hasattr(error, "format_message")
        if not (ours or isinstance(error, ValueError | OSError)):
            error = RuntimeError(f"{type(error).__name__}: {error} (GNO_DEBUG=1 shows where)")
        complain(error)
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
