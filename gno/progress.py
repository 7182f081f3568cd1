"""A bar or a line for whatever takes longer than a moment; a log file gets neither."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

# What is done sooner than this needs no word.
PATIENCE = 0.7


@contextlib.contextmanager
def counter(what: str, total: int, *, draw: bool) -> Iterator[Callable[[int], None]]:
    """A bar that counts things; gives the function that advances it."""
    if not draw:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(what), total=total)
        yield lambda n: bar.advance(task, n)


@contextlib.contextmanager
def status(what: str) -> Iterator[None]:
    """A line on a terminal that says what is being done, once it has taken :data:`PATIENCE` seconds."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    line = Console(stderr=True).status(Text(what), refresh_per_second=4)
    timer = threading.Timer(PATIENCE, line.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        line.stop()
