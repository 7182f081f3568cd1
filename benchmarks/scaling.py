"""Time and memory of the operator against the number of nodes, and how far from the floor.

    python benchmarks/scaling.py                                    # a CPU: 1k to 100k nodes, one thread
    python benchmarks/scaling.py --device cuda --nodes 1000 10000 100000 1000000 4000000 --width 128 --precision bf16

Meshes are structured, with nodes shifted at random: triangles of the square, tetrahedra of the cube. `own`: spacings of
the anchors follow from each mesh, as when training on it; the number of anchors grows with the nodes, and the finest
level that is attended to is chosen as training does. `fixed`: spacings of the smallest mesh, as when a trained operator
meets finer meshes. A step is forward, losses, backward, clipping and optimiser. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from floor import Products, measure, seconds

from gno.graph import FieldSpec, SampleSpec, build_sample, collate
from gno.graph.neighbours import edges_of
from gno.mesh import CellBlock, Mesh
from gno.nn import NeuroScale, OperatorConfig
from gno.train import Training
from gno.train.blueprint import DENSE, finest_dense_level
from gno.train.loop import Objective
from gno.train.losses import data_terms
from gno.train.memory import pages_kept
from gno.train.normalise import Scale
from gno.train.optimisers import muon

RESULTS = Path(__file__).parent / "results" / "scaling.md"
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}


def grid(n_nodes: int, dim: int) -> Mesh:
    """A structured mesh of the unit square or cube, cubes cut along their diagonals (Kuhn), inner nodes shifted."""
    n = round(n_nodes ** (1 / dim))
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * dim, indexing="ij"), -1).reshape(-1, dim)
    inner = ((points > 0) & (points < 1)).all(1)
    points[inner] += np.random.default_rng(0).uniform(-0.2, 0.2, (inner.sum(), dim)) / n
    index = np.arange(n**dim).reshape([n] * dim)
    step = n ** np.arange(dim)[::-1]
    corner = index[(slice(None, -1),) * dim].ravel()
    cells = []
    for order in itertools.permutations(range(dim)):
        nodes = np.stack([corner + sum(step[axis] for axis in order[:k]) for k in range(dim + 1)], axis=1)
        odd = sum(a > b for a, b in itertools.combinations(order, 2)) % 2
        cells.append(nodes[:, [1, 0, *range(2, dim + 1)]] if odd else nodes)
    a = np.sin(3 * points[:, 0]) + points[:, 1] ** 2
    block = CellBlock("triangle" if dim == 2 else "tetra", np.concatenate(cells))
    return Mesh(points, (block,), {"a": a, "u": np.stack([a**2] * dim, axis=1)})


def one(options: argparse.Namespace) -> dict:
    """Build one mesh and measure; runs in a process of its own."""
    device, dtype = options.device, DTYPES[options.precision]
    names = {"inputs": ["a"], "targets": ["u"], "n_levels": options.levels}
    mesh = grid(options.nodes[0], options.dim)
    spec = SampleSpec.fit([grid(options.smallest, options.dim) if options.spacing == "fixed" else mesh], **names)
    sample = build_sample(mesh, spec)
    config = OperatorConfig(
        dim=spec.dim, n_inputs=1, n_geometry=sample.geometry.shape[1], n_outputs=spec.n_targets, n_levels=spec.n_levels,
        key_level=finest_dense_level([sample], DENSE), mesh_key_level=finest_dense_level([sample], DENSE, first=2),
        width=options.width, n_blocks=options.blocks, n_heads=options.heads, checkpoint=options.checkpoint,
    )  # fmt: skip
    model, batch = NeuroScale(config).to(device), collate([sample]).to(device)
    ones = torch.ones(spec.n_targets, dtype=torch.float64, device=device)
    objective = Objective(model, data_terms((FieldSpec("u", "point", spec.n_targets),), Scale(0 * ones, ones, ones)))
    optimiser = muon(model, Training(epochs=1))
    autocast = torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)

    def forward(mode=torch.inference_mode) -> None:
        with mode(), autocast, pages_kept(batch.mass_0):  # as a prediction is made
            model(batch)

    def step() -> None:
        with autocast:
            losses = objective(batch, 0.0)
        losses.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    row = {"nodes": mesh.n_nodes, "edges": 2 * edges_of(mesh).shape[1], "levels": config.n_levels}
    row["held_gb"] = torch.cuda.memory_allocated() / 1e9 if device == "cuda" else 0.0  # weights, and the batch
    row["keys"] = sum(sample[f"pos_{s}"].shape[0] for s in range(config.key_level, config.n_levels))
    floors: dict[str, Products] = {}
    for name, work in {"forward": forward, "step": step}.items():
        if name == "step" and mesh.n_nodes > options.largest_step:
            continue
        try:
            with Peak(device) as peak:
                work()
        except torch.OutOfMemoryError as error:
            print(f"{mesh.n_nodes} nodes, {name}: {error}", file=sys.stderr)
            break
        products = Products()
        with products.counting():  # inference mode would not show what a product is made of
            work(torch.no_grad) if work is forward else work()
        row[name] = seconds(work, device, repeats=5 if mesh.n_nodes <= 20_000 or device == "cuda" else 2)
        row[f"{name}_gb"], floors[name] = peak.gb, products
    machine = measure(device, dtype)
    row["machine"] = [machine.bandwidth, machine.peak]
    row |= {f"{name}_floor": products.seconds(machine) for name, products in floors.items()}
    return row


class Peak:
    """Most memory that was taken within, GB beyond what was there before."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:  # Linux: give back what is free, or taking it again would not be seen; forget this process's highest mark
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        top = torch.cuda.max_memory_allocated() if self.device == "cuda" else resident("VmHWM")
        self.gb = (top - self.before) / 1e9


def resident(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])


def exponent(rows: list[dict], key: str) -> float:
    """Slope of log time over log nodes, least squares."""
    known = [(row["nodes"], row[key]) for row in rows if key in row]
    return float(np.polyfit(*np.log(np.array(known)).T, 1)[0]) if len(known) > 1 else float("nan")


def table(rows: list[dict]) -> str:
    lines = ["| nodes | edges | levels | keys | forward s | GB | × floor | step s | GB | × floor | step µs per node |"]
    lines.append("|--:" * 11 + "|")
    for r in rows:
        cells = [f"{r['nodes']:,}", f"{r['edges']:,}", str(r["levels"]), f"{r['keys']:,}"]
        for name in ("forward", "step"):
            known = name in r
            cells += (
                [f"{r[name]:.4g}", f"{r[f'{name}_gb']:.2f}", f"{r[name] / r[f'{name}_floor']:.1f}"]
                if known
                else ["—"] * 3
            )
        cells.append(f"{1e6 * r['step'] / r['nodes']:.1f}" if "step" in r else "—")
        lines.append(f"| {' | '.join(cells)} |")
    large = [r for r in rows if r["nodes"] > 5000]
    if len(large) < 2:
        return "\n".join(lines)
    growth = [
        f"{name} N^{exponent(rows, name):.2f}, from 10k nodes on N^{exponent(large, name):.2f}"
        for name in ("forward", "step")
    ]
    return "\n".join([*lines, "", f"Growth: {'; '.join(growth)}."])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="32", choices=tuple(DTYPES))
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--spacings", nargs="+", default=["own", "fixed"], choices=("own", "fixed"))
    parser.add_argument("--levels", type=int, help="of the hierarchy; as training chooses if not given")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--largest-step", type=int, default=10**9, help="nodes up to which a training step is measured")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--rows", type=Path, help="file that gets a line of JSON per row")
    for name in ("--dim", "--smallest"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--spacing", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.dim:
        print(json.dumps(one(options)))
        return
    torch.set_num_threads(1)
    on_cuda = options.device == "cuda"
    text = [
        f"{torch.cuda.get_device_name() if on_cuda else platform.machine() + ', one thread'}; "
        f"Python {platform.python_version()}, torch {torch.__version__}; width {options.width}, "
        f"{options.blocks} blocks, precision {options.precision}; {'CUDA events' if on_cuda else 'processor time'}"
    ]
    for dim, spacing in itertools.product(options.dims, options.spacings):
        rows = []
        for n in options.nodes:
            command = [sys.executable, __file__, *sys.argv[1:], "--smallest", str(min(options.nodes))]
            command += ["--nodes", str(n), "--dim", str(dim), "--spacing", spacing]
            done = subprocess.run(
                command, capture_output=True, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"} if options.device == "cpu" else None,
            )  # fmt: skip
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
                print(f"{n} nodes, {dim}-D, {spacing}: {reason}", file=sys.stderr)
                continue
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
            if options.rows:
                with options.rows.open("a") as file:
                    print(json.dumps({"dim": dim, "spacing": spacing, **rows[-1]}), file=file)
        rates = np.median([r["machine"] for r in rows], axis=0) if rows else (float("nan"),) * 2
        rate = f"copy {rates[0] / 1e9:.3g} GB/s, product {rates[1] / 1e12:.3g} TFLOP/s"
        text += [f"\n{dim}-D, spacings {spacing}; measured: {rate}\n", table(rows)]
        unfinished = options.output.with_suffix(".new")
        unfinished.write_text("\n".join(text) + "\n", encoding="utf-8")
        unfinished.replace(options.output)
    print("\n".join(text))


if __name__ == "__main__":
    main()
