"""Time and memory of the hierarchy from a thousand to a million nodes: `python benchmarks/hierarchy.py`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import numpy as np


def triangles(n_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, masses and undirected edges of a jittered triangle grid of the unit square: about 3 edges per node."""
    n = round(n_nodes**0.5)
    index = np.arange(n * n).reshape(n, n)
    points = np.stack(np.meshgrid(*[np.arange(n)] * 2, indexing="ij"), -1).reshape(-1, 2) / n
    points += np.random.default_rng(0).uniform(-0.2, 0.2, points.shape) / n
    pairs = [(index[:-1], index[1:]), (index[:, :-1], index[:, 1:]), (index[:-1, :-1], index[1:, 1:])]
    edges = np.concatenate([np.stack([a.ravel(), b.ravel()]) for a, b in pairs], axis=1)
    return points, np.full(len(points), 1 / len(points)), edges


def one(n_nodes: int) -> dict:
    """Build once; runs in a process of its own, so that the peak memory is its own."""
    from gno.graph import build_hierarchy

    points, mass, edges = triangles(n_nodes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spacings = [2.5 * 2**s / n_nodes**0.5 for s in range(max(2, int(np.log2(n_nodes**0.5 / 10))))]
    start = time.perf_counter()
    hierarchy = build_hierarchy(points, mass, edges, spacings)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "nodes": len(points),
        "edges": 2 * edges.shape[1],
        "levels": len(hierarchy.levels),
        "seconds": seconds,
        "peak_gb": peak / 2**20,
        "own_gb": (peak - before) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}\n")
    print(
        "|  nodes | directed edges | levels | seconds | µs per node | peak GB | growth |\n|--:|--:|--:|--:|--:|--:|--:|"
    )
    last = None
    for n in (1_000, 10_000, 100_000, 1_000_000):
        command = [sys.executable, __file__, "--one", str(n)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(options.repeats)]
        row = sorted(runs, key=lambda r: r["seconds"])[len(runs) // 2]
        growth = (
            ""
            if last is None
            else f"N^{np.log(row['seconds'] / last['seconds']) / np.log(row['nodes'] / last['nodes']):.2f}"
        )
        print(
            f"| {row['nodes']:,} | {row['edges']:,} | {row['levels']} | {row['seconds']:.3f} "
            f"| {1e6 * row['seconds'] / row['nodes']:.1f} | {row['peak_gb']:.2f} | {growth} |",
            flush=True,
        )
        last = row


if __name__ == "__main__":
    main()
