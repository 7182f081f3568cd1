"""The floor on paper of a piece of code: what its products have to read, write and multiply, on a machine's own rates.

Every product (matrix, sparse, attention) reads its operands once and writes its result once; everything that is element
by element counts as nothing, since it could be fused into the products beside it. The floor of a product is the longer
of its bytes over the bandwidth and its operations over the peak; floors add up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of one device, measured: bytes and floating-point operations per second."""

    bandwidth: float
    peak: float


class Products(TorchDispatchMode):
    """Collects (bytes, operations) of every product that runs; kernels of gno run as their plain twins meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[float, float]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        tensors = [x for x in args if isinstance(x, Tensor)]
        if name in ("mm", "addmm", "bmm"):
            a, b = tensors[-2:]
            self.found.append((size(a, b, out), 2 * a.numel() * b.shape[-1]))
        elif name.startswith("_embedding_bag"):
            weights = [x for x in (*args[3:], *(kwargs or {}).values()) if isinstance(x, Tensor)]
            self.found.append((size(*tensors[:2], *weights, out[0]), 2 * tensors[1].numel() * out[0].shape[1]))
        elif "scaled_dot_product" in name:
            q, k, v = tensors[1:4] if "backward" in name else tensors[:3]
            once = 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
            several = [x for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, Tensor) and x.ndim == 4]
            self.found.append((size(*tensors[:4], *several), once * (2.5 if "backward" in name else 1)))
        return out

    def seconds(self, machine: Machine) -> float:
        return sum(max(b / machine.bandwidth, f / machine.peak) for b, f in self.found)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        before = os.environ.get("GNO_KERNELS")
        os.environ["GNO_KERNELS"] = "plain"
        try:
            with self:
                yield
        finally:
            os.environ.pop("GNO_KERNELS")
            if before is not None:
                os.environ["GNO_KERNELS"] = before


def size(*tensors: Tensor) -> float:
    return float(sum(x.numel() * x.element_size() for x in tensors))


def seconds(work: Callable[[], object], device: str, *, repeats: int = 5, least: float = 0.3) -> float:
    """Median time of one call: on CUDA by its events, on a CPU the processor's, which is fair on a busy machine."""
    times: list[float] = []
    while len(times) < repeats or (sum(times) < least and len(times) < 100):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            begin = time.process_time()
            work()
            times.append(time.process_time() - begin)
    return sorted(times)[len(times) // 2]


def measure(device: str, dtype: torch.dtype) -> Machine:
    """Bandwidth of a copy (read and write), and the rate of a large matrix product."""
    n, m = (2**30, 8192) if device == "cuda" else (2**26, 1024)
    one, two = (torch.empty(n // 4, device=device).normal_() for _ in range(2))
    a, b = (torch.randn(m, m, device=device).to(dtype) for _ in range(2))
    two.copy_(one), torch.mm(a, b)
    return Machine(2 * n / seconds(lambda: two.copy_(one), device), 2 * m**3 / seconds(lambda: torch.mm(a, b), device))
