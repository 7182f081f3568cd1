"""Applying an operator and taking its gradient: gno's Sparse against torch.sparse and scipy.

    python benchmarks/operators.py

Stiffness of triangles on a square, 10k, 160k and a million nodes, one thread. "forward" is ``y = A x``; "both" adds the
gradient of x. scipy has no gradient: its "both" is ``A x`` and ``Aᵀ g`` with a transpose that is made beforehand. The
floor is the time to read A once per product at the bandwidth that copying a large array reaches on the same machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
import scipy.sparse as sp
import skfem
import torch

from gno.mesh import CellBlock, Mesh
from gno.physics.operators import stiffness
from gno.physics.sparse import Sparse

RESULTS = Path(__file__).parent / "results" / "operators.md"
SIDES = (100, 400, 1000)


def square(n: int) -> Mesh:
    """Triangles on n × n nodes, numbered row by row."""
    grid = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, n)] * 2)
    return Mesh(grid.p.T, (CellBlock("triangle", grid.t.T.astype(np.int64)),))


def seconds(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median of processor time of each with warm caches, in turns so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            step()
            times[name].append(_timed(step))
    return {name: statistics.median(found) for name, found in times.items()}


def bandwidth() -> float:
    """Bytes per second that copying 256 MB moves, read and written."""
    source = np.ones(32_000_000)
    target = np.empty_like(source)
    best = min(_timed(lambda: np.copyto(target, source)) for _ in range(5))
    return 2 * source.nbytes / best


def _timed(step: Callable[[], object]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def contenders(A: Sparse, n_columns: int) -> dict[str, Callable[[], object]]:
    """forward and both of gno, torch and scipy."""
    matrix = A.to_scipy()
    matrix = sp.csr_array((matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), matrix.shape)
    back = sp.csr_array(matrix.T)
    entries = (torch.from_numpy(a) for a in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)))
    csr = torch.sparse_csr_tensor(*entries, torch.from_numpy(matrix.data), A.shape, check_invariants=False)
    coo = csr.to_sparse_coo().coalesce()
    x = torch.randn(A.shape[1], n_columns, dtype=A.dtype)
    leaf, g = x.clone().requires_grad_(), torch.randn_like(x)
    xn, gn = x.numpy(), g.numpy()
    return {
        "gno forward": lambda: A @ x,
        "torch CSR forward": lambda: csr @ x,
        "torch COO forward": lambda: coo @ x,
        "scipy forward": lambda: matrix @ xn,
        "gno both": lambda: torch.autograd.grad(A @ leaf, leaf, g),
        "torch CSR both": lambda: torch.autograd.grad(csr @ leaf, leaf, g),
        "torch COO both": lambda: torch.autograd.grad(coo @ leaf, leaf, g),
        "scipy both": lambda: (matrix @ xn, back @ gn),
    }


def traffic(A: Sparse, n_columns: int) -> int:
    """Bytes of one product if every number is read or written once: entries, indices, x and y."""
    word = torch.finfo(A.dtype).bits // 8
    return A.n_entries * (word + 4) + A.shape[0] * 4 + (A.shape[0] + A.shape[1]) * n_columns * word


def rows(sides: tuple[int, ...], repeats: int) -> list[str]:
    speed, found = bandwidth(), []
    for side in sides:
        whole = stiffness(square(side))
        for dtype in (torch.float32, torch.float64):
            A = whole.to(dtype=dtype)
            for n_columns in (1, 4):
                times = seconds(contenders(A, n_columns), repeats)
                floor, own = traffic(A, n_columns) / speed, times["gno forward"]
                numbers = [
                    f"{times[f'{name} {what}'] / times[f'gno {what}']:.2f}"
                    for what in ("forward", "both")
                    for name in ("torch CSR", "torch COO", "scipy")
                ]
                cells = [
                    f"{A.shape[0]:,}",
                    str(dtype).removeprefix("torch."),
                    str(n_columns),
                    f"{1e3 * own:.3f}",
                    f"{1e3 * times['gno both']:.3f}",
                    f"{traffic(A, n_columns) / 1e6:.1f}",
                    f"{own / floor:.2f}",
                    *numbers,
                ]
                found.append("| " + " | ".join(cells) + " |")
                print(found[-1], flush=True)
    return found


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    cpu = names[0] if names else platform.processor()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    return f"{cpu}, one thread; {versions}, scipy {scipy.__version__}, scikit-fem {skfem.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), help="nodes along a side")
    parser.add_argument("--repeats", type=int, default=11)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    first = ["nodes", "type", "columns", "gno forward [ms]", "gno both [ms]", "MB moved", "times the floor"]
    names = [f"{name}: {what}" for what in ("forward", "both") for name in ("torch CSR", "torch COO", "scipy")]
    header = "| " + " | ".join(first + names) + " |"
    rule = "|" + "--:|" * len(first + names)
    table = rows(tuple(chosen.sides), chosen.repeats)
    text = [
        "# Sparse operators",
        "",
        f"Written by `benchmarks/operators.py`. {machine()}; load {load:.1f} at the start.",
        "",
        "Processor time. The last six columns are times over gno's, medians taken in turns: above 1, gno is faster.",
        "",
        *(header, rule, *table),
        "",
    ]
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text("\n".join(text), encoding="utf-8")
    temporary.replace(RESULTS)


if __name__ == "__main__":
    main()
