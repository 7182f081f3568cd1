"""Trainings as processes of their own and lines of a file: what is there is not trained again."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def apart(script: str, job: dict, *, threads: int = 1) -> dict:
    """What ``script --one JOB`` prints last, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, script, "--one", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{job}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def collect(jobs: Iterable[dict], path: Path, run: Callable[[dict], dict]) -> list[dict]:
    """All rows of a file, after those that jobs still lack were computed and appended."""
    path.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for job in jobs:
        if any(all(row.get(key) == value for key, value in job.items()) for row in rows):
            continue
        rows.append(run(job))
        with path.open("a") as handle:
            handle.write(json.dumps(rows[-1]) + "\n")
        print(json.dumps(job), flush=True)
    return rows


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of percentages.

    >>> spread([1.0, 2.0])
    '1.50 ± 0.71 %'
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f} %"
