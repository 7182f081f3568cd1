"""One function over many numbers in several processes, under a progress bar."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, description: str
) -> list[Result]:
    """Results of `function`, in the order of the items; one worker means this process.

    On Linux the processes are forked, so that scripts need no guard around their main part: `function` must then keep
    away from what does not survive a fork, torch and CUDA above all. Elsewhere they are spawned, and need the guard.

    >>> map_processes(abs, range(-2, 1), workers=1, description="")
    [2, 1, 0]
    """
    workers = min(workers, len(items))
    if workers <= 1:
        return list(_tracked(map(function, items), len(items), description))
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        # All work is handed over, and with it all forks done, before the bar starts its thread.
        return list(_tracked(pool.map(function, items), len(items), description))
    finally:
        pool.shutdown(cancel_futures=True)


def _tracked(results: Iterable[Result], n: int, description: str) -> Iterable[Result]:
    """Results under a progress bar, which a terminal shows and a log file does not."""
    console = Console(stderr=True)
    return track(results, description, total=n, transient=True, console=console, disable=not console.is_terminal)
