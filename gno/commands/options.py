"""Arguments and options that several commands share, and how they complain."""

from __future__ import annotations

import contextlib
import glob
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that `gno train` made.")]


def each_frame(files: list[Path] | None) -> list[Path] | None:
    """Files as they are, those that match a pattern that no shell has replaced, and the frames of ``file@:``."""
    if not files:
        return files
    from gno.mesh import io

    return [frame for pattern in files for file in _matching(pattern) for frame in io.each_frame(file)]


def _matching(path: Path) -> list[Path]:
    from gno.mesh.address import split_address

    file, frame = split_address(path)
    if file.exists() or not glob.has_magic(str(file)):
        return [path]
    if not (found := sorted(glob.glob(str(file)))):  # noqa: PTH207 (as a shell does, from any folder)
        raise ValueError(f"{path}: expected files that match, got none")
    return [Path(name if frame is None else f"{name}@{frame}") for name in found]


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE", help="Mesh files of any format; frames as file@12 or file@0:99:3.", callback=each_frame
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]


def quoted(path: Path) -> str:
    """A path as it is typed in a shell, for commands that are printed to be copied.

    >>> quoted(Path("runs/plate")), quoted(Path("first run"))
    ('runs/plate', "'first run'")
    """
    return shlex.quote(str(path))


@contextlib.contextmanager
def on_stop(say: Callable[[], str]) -> Iterator[None]:
    """What Ctrl-C is answered with: how much is done, and where it is."""
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error):  # who was stopped has said so
            raise
        raise KeyboardInterrupt(f"stopped; {say()}") from None


def complain(error: BaseException) -> None:
    """One line on stderr, whatever the message looks like."""
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.filename2 or error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    typer.echo(f"gno: {' '.join(message.split()) or type(error).__name__}", err=True)
