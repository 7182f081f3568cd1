"""Worker processes: programs of gno's own, to which JSON documents are sent and which answer with such, one a line.

Programs rather than multiprocessing: that would run the user's script again in every process, and a script without a
``__main__`` guard is a good script.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads for what this process computes: OMP_NUM_THREADS, which workers are given, or one for each core."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdigit() else cores()


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The function of each item, by several threads: for what lets others run meanwhile, as zlib does.

    >>> in_threads(len, ["a", "bc"])
    [1, 2]
    """
    n = min(threads(), len(items))
    if n < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(function, items))


def start(module: str, *, threads: int = 1) -> subprocess.Popen[str]:
    """A process that runs the function ``serve`` of a module and finds modules where this one does.

    It is no part of the terminal's group: Ctrl-C goes to the parent alone, which then ends its workers.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {module} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path, "PYTHONUTF8": "1"},
        start_new_session=True,
    )


def send(process: subprocess.Popen[str], document: Any) -> None:
    """Send a document to a worker.

    Raises:
        BrokenPipeError: it has ended.
    """
    assert process.stdin is not None
    process.stdin.write(json.dumps(document) + "\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    """Kill a worker, if it still runs."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what it was not sent any more
            if pipe:
                pipe.close()


def answering() -> Callable[[Any], None]:
    """In a worker: what answers with a document; whatever else is printed must not talk into the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(document: Any) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    return answer
