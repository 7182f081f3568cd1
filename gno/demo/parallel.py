"""One function over many numbers in several processes, under a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, description: str
) -> list[Result]:
    """Results of `function`, in the order of the items.

    The processes are spawned, because a fork of a process whose threads are at work may hang. A script that calls
    this with more than one worker therefore has to do so under ``if __name__ == "__main__":``.

    >>> map_processes(abs, [-1, 2], workers=1, description="absolute values")
    [1, 2]
    """
    if not items:
        return []
    return list(track(_results(function, items, workers), description, total=len(items), transient=True))


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers <= 1 or len(items) == 1:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(function, items, chunksize=1)
    finally:
        pool.shutdown(cancel_futures=True)
