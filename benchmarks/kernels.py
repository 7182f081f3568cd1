"""Each Triton kernel beside its plain twin and its floor, at the sizes of a mesh of a million nodes.

    python benchmarks/kernels.py                   # needs CUDA
    python benchmarks/kernels.py --compile-only    # needs only Triton: registers and spills on an H100 or H200
    python benchmarks/kernels.py --device cpu --nodes 400    # the same lines, each twin beside itself

Nodes of a square grid hang on five anchors each (level 1 at 2.5 spacings), anchors on their 20 neighbours. The floor of
a kernel is what it has to read and write once, tables of node values included, over the bandwidth of a copy measured in
the same run; gathers that miss the cache are what is above it. `twin` is the same function by torch alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from floor import measure, seconds, size
from torch import Tensor

from gno.graph.segment import Edges, expansion, gather_sum, gather_sum_t, moments
from gno.nn.kernel import kernel_sum

HOPPER = 90
POINTERS = {
    "weights": "*fp32",
    "x": "*fp32",
    "c": "*fp32",
    "dx": "*fp32",
    "dc": "*fp32",
    "index": "*i64",
    "ptr": "*i64",
    "perm": "*i64",
    "at_single": "*i64",
    "at_several": "*i64",
}
SHORT = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def compiled(width: int) -> Iterator[str]:
    """A row of a table for every kernel in every form: registers, spills, shared memory."""
    import triton.language as tl

    from gno.kernels import integral, sparse
    from gno.kernels.launch import blocks

    for name in SHORT.values():
        rows, _, channels = blocks(width)
        shared = {"ACC": tl.float32, "N_CHANNELS": width, "CHANNELS": channels}
        for dim, (back, by_sender) in itertools.product((0, 2, 3), ((False, False), (True, False), (True, True))):
            form = {"DIM": dim, "BACKWARD": back, "BY_SENDER": by_sender, "ROWS": rows}
            yield resources(integral._integral, name, {**shared, **form})
        for n_sets, permuted in ((1, False), (1, True), (3, False), (3, True), (4, False), (4, True)):
            rows_of_sets, sets, _ = blocks(width, n_sets)
            form = {"N_SETS": n_sets, "SETS": sets, "PERMUTED": permuted, "ROWS": rows_of_sets}
            for kernel in (sparse._moments, sparse._expansion) if n_sets > 1 else (sparse._expansion,):
                yield resources(kernel, name, {**shared, **form})
        yield resources(sparse._edge_products, name, {**shared, "N_SETS": 3, "ROWS": rows})


def resources(kernel: Callable, values: str, constants: dict) -> str:
    """Compile for Hopper and ask the assembler what the kernel takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gno.kernels.launch import WARPS

    signature = {}
    for name in kernel.arg_names:
        kind = "i32" if name.startswith("n_") else POINTERS.get(name, f"*{values}")
        signature[name] = "constexpr" if name in constants else kind
    place = {name: (kernel.arg_names.index(name),) for name in signature}
    aligned = {place[name]: [["tt.divisibility", 16]] for name, kind in signature.items() if kind.startswith("*")}
    source = ASTSource(kernel, signature, {place[name]: value for name, value in constants.items()}, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", HOPPER, 32), options={"num_warps": WARPS})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(built.asm["ptx"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
        done = subprocess.run(
            [tool, "-v", f"--gpu-name=sm_{HOPPER}a", "-o", os.devnull, path], capture_output=True, text=True
        )
    registers = re.search(r"Used (\d+) registers", done.stderr)
    spilled = re.search(r"(\d+) bytes spill stores", done.stderr)
    if not registers or not spilled:
        raise RuntimeError(f"{kernel.__name__}: expected a report of ptxas, got {done.stderr.strip()}")
    form = ", ".join(
        f"{k}={v}" for k, v in constants.items() if k in ("DIM", "BACKWARD", "BY_SENDER", "PERMUTED", "N_SETS")
    )
    numbers = f"{registers[1]} | {spilled[1]} | {built.metadata.shared}"
    return f"| {kernel.__name__.strip('_')} | {form} | {values} | {numbers} |"


def links(n_nodes: int, device: str) -> Edges:
    """From anchors, 2.5 nodes apart, to the nodes of a square grid: the nearest and its four neighbours."""
    n, m = round(n_nodes**0.5), max(3, round(n_nodes**0.5 / 2.5))
    x = (torch.arange(n, device=device) * m) // n
    own = torch.cartesian_prod(x, x)
    near = own[:, None] + torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], device=device)
    near = near.clamp(0, m - 1)
    receiver = torch.arange(n * n, device=device).repeat_interleave(5)
    return Edges.build((near[..., 0] * m + near[..., 1]).flatten(), receiver, m * m, n * n)


def neighbours(n_nodes: int, device: str) -> Edges:
    """From the 20 neighbours of a square grid's nodes."""
    n = round(n_nodes**0.5)
    here = torch.cartesian_prod(*[torch.arange(n, device=device)] * 2)
    offset = torch.cartesian_prod(*[torch.arange(-2, 3, device=device)] * 2)
    offset = offset[(offset.square().sum(1) > 0) & (offset.square().sum(1) < 8)]
    near = (here[:, None] + offset).clamp(0, n - 1)
    receiver = torch.arange(n * n, device=device).repeat_interleave(len(offset))
    return Edges.build((near[..., 0] * n + near[..., 1]).flatten(), receiver, n * n, n * n)


def cases(
    n_nodes: int, width: int, dtype: torch.dtype, device: str
) -> Iterator[tuple[str, Callable, list[Tensor], float]]:
    """Name, function, inputs, and the bytes of its indices and weights."""
    link, near = links(n_nodes, device), neighbours(n_nodes // 6, device)
    n_fine, n_coarse, n_near = len(link.ptr) - 1, len(link.ptr_t) - 1, len(near.ptr) - 1

    def values(n: int, channels: int = width) -> Tensor:
        return torch.randn(n, channels, device=device).to(dtype).requires_grad_()

    w = [torch.rand(len(link.sender), device=device) for _ in range(3)]
    learned, near_w, index = w[0].clone().requires_grad_(), torch.rand(len(near.sender), device=device), 8
    once = (index + 4) * len(link.sender)
    back = once + 2 * index * len(link.sender)
    yield "prolong, learned weights", lambda v, w: gather_sum(v, w, link), [values(n_coarse), learned], once
    yield "restrict, learned weights", lambda u, w: gather_sum_t(u, w, link), [values(n_fine), learned], back
    yield "moments down, 3 sets", lambda v: moments(v, w, link), [values(n_coarse)], once + 8 * len(link.sender)
    yield (
        "expansion down, 3 sets",
        lambda v: expansion(v, w, link),
        [values(n_coarse, 3 * width)],
        once + 8 * len(link.sender),
    )
    turned = link.transpose()
    yield "moments up, 3 sets", lambda v: moments(v, w, turned), [values(n_fine)], once + 8 * len(link.sender)
    pair = [values(n_near), values(n_near)]
    yield "kernel integral", lambda a, b: kernel_sum(a, b, near_w, near), pair, (index + 4) * len(near.sender)
    place = [torch.randn(n, 2, device=device).requires_grad_() for n in (len(near.sender), width)]
    yield (
        "kernel integral, offsets",
        lambda a, b, x, c: kernel_sum(a, b, near_w, near, x, c),
        [*pair, *place],
        (index + 4) * len(near.sender),
    )


def measured(n_nodes: int, width: int, dtype: torch.dtype, device: str) -> Iterator[dict]:
    """Rows of forward, and of forward and backward together, in milliseconds."""
    bandwidth = measure(device, dtype).bandwidth
    for name, function, inputs, topology in cases(n_nodes, width, dtype, device):
        times = {}
        for way in ("plain", "triton") if device == "cuda" else ("plain", "plain again"):
            os.environ["GNO_KERNELS"] = way.split()[0]
            out = function(*inputs)
            grad = torch.randn_like(out)
            del out
            times[way] = [
                1000 * seconds(lambda function=function, inputs=inputs: function(*inputs), device),
                1000 * seconds(lambda f=function, x=inputs, g=grad: torch.autograd.grad(f(*x), x, g), device),
            ]
        # forward reads the inputs and writes the result; backward reads both and the gradient, writes those of inputs
        floor = [size(*inputs) + size(grad) + topology]
        floor.append(floor[0] + 2 * size(*inputs) + size(grad) + 2 * topology)
        for what, plain, fused, least in zip(("forward", "and back"), *times.values(), floor, strict=True):
            known = {"kernel": name, "way": what, "values": SHORT[dtype], "twin_ms": plain, "ms": fused}
            yield known | {"floor_ms": 1000 * least / bandwidth}


def line(row: dict) -> str:
    """A row of the table."""
    numbers = f"{row['twin_ms']:.3f} | {row['ms']:.3f} | {row['twin_ms'] / row['ms']:.1f}"
    floor = f"{row['floor_ms']:.3f} | {row['ms'] / row['floor_ms']:.1f}"
    return f"| {row['kernel']} | {row['way']} | {row['values']} | {numbers} | {floor} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--rows", type=Path, help="file that gets a line of JSON per row")
    options = parser.parse_args()
    if options.compile_only:
        import triton

        from gno.kernels.launch import WARPS

        print(f"Triton {triton.__version__}, sm_{HOPPER}, {options.width} channels, {WARPS} warps\n")
        print("| kernel | form | values | registers | bytes spilled | bytes shared |\n|---|---|---|--:|--:|--:|")
        for row in compiled(options.width):
            print(row, flush=True)
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}; {options.nodes:,} nodes\n")
    print("| kernel | | values | twin ms | Triton ms | ratio | floor ms | × floor |\n|---|---|---|--:|--:|--:|--:|--:|")
    for dtype in SHORT:
        for row in measured(options.nodes, options.width, dtype, options.device):
            print(line(row), flush=True)
            if options.rows:
                with options.rows.open("a") as rows:
                    print(json.dumps(row), file=rows)


if __name__ == "__main__":
    main()
