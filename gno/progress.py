"""A bar for whatever takes longer than a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counter(what: str, total: int, *, draw: bool) -> Iterator[Callable[[int], None]]:
    """A bar that counts things; gives the function that advances it."""
    if not draw:
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:  # a log file gets no lines
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
