"""Triton kernels for CUDA: each does what a function of plain torch does, in one pass and without a tensor per edge.

The plain twins stand in :mod:`gno.graph.segment` and :mod:`gno.nn`, which call these where :func:`on_triton` says so.
No kernel uses atomics: every sum runs over a compressed row in a fixed order, so results are the same on every run.
"""

from __future__ import annotations

import importlib.util
import os

from torch import Tensor

# Found out once, and not by a call that torch.compile would have to look into.
INSTALLED = importlib.util.find_spec("triton") is not None


def on_triton(values: Tensor) -> bool:
    """Whether the kernels take these values: they do on CUDA, where Triton is installed.

    For tests the environment decides: ``GNO_KERNELS=plain`` keeps to torch, ``GNO_KERNELS=triton`` takes the kernels
    on every device, which on a CPU needs ``TRITON_INTERPRET=1``.
    """
    wanted = os.environ.get("GNO_KERNELS")
    return wanted != "plain" and (values.is_cuda or wanted == "triton") and INSTALLED
