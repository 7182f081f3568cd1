"""Trainings as processes of their own and lines of a file: what is there is not trained again."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def parser(text: str | None, results: Path, *, minutes: float, seeds: int) -> argparse.ArgumentParser:
    """What a benchmark of trainings in processes of their own is asked, with its defaults."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=minutes, help="of processor time of each training; %(default)g")
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--results", type=Path, default=results, help="file that gets a line per training")
    made.add_argument("--smoke", action="store_true", help="a few steps of gno, nothing is kept")
    made.add_argument("--table", action="store_true", help="print the table of the rows there are")
    made.add_argument("--one", help=argparse.SUPPRESS)
    return made


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
