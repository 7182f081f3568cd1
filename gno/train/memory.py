"""Memory of large tensors on a CPU: kept while meshes are predicted."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator

from torch import Tensor

# Nodes from which features of 64 channels are larger than the 32 MB up to which glibc keeps what is freed.
LARGE = 1 << 17
# Numbers of what may be set (malloc.h), and where glibc's own adjustment ends.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT, _MAPPED = 32 << 20, 65536


@contextlib.contextmanager
def pages_kept(nodes: Tensor) -> Iterator[None]:
    """Within, memory that is freed serves what comes next; at the end the system has it back.

    By itself glibc returns every larger tensor as soon as it is freed, and asks for new pages for the next one, which
    the kernel has to find and to clear: a fifth of the time of passes without gradients over a million nodes (measured:
    3.2 to 4.8 s each; within, 2.9 to 3.6 s; 1.2 and 1.4 GB of memory). A step of training would take 1.8 times the
    memory. Of no effect on fewer than :data:`LARGE` nodes, and without glibc.

    Args:
        nodes: any tensor with a row for each node of the mesh or batch, where the operator is.
    """
    library = _glibc() if len(nodes) >= LARGE and nodes.device.type == "cpu" else None
    if library is None:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MAPPED)
        library.mallopt(_MMAP_THRESHOLD, _KEPT)
        library.mallopt(_TRIM_THRESHOLD, 2 * _KEPT)
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
