"""gno: neural operators on the meshes engineers already have."""

import os
from typing import TYPE_CHECKING

from gno.lazy import on_demand

# A thread that waits for another spins for some microseconds, then sleeps. Without a bound it spins on, and as soon as
# anything else runs on the machine the many small operations of a training step can take ten times as long (measured;
# on a quiet machine the bound costs nothing). Read once, when torch is loaded; a setting of yours comes first.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Large tensors in large pages: a new one of 256 MB is then written in 37 ms in place of 149, most of which the kernel
# took to hand out 4 kB at a time (measured). Read by torch's allocator; of no effect where a system lacks such pages.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from gno.mesh import Mesh, MeshError, read, read_series, write
    from gno.train import Case, Run, load_case
else:  # a mesh needs scipy and training torch; neither is loaded before it is asked for, and `gno --help` comes at once
    __getattr__ = on_demand(
        __name__,
        Case="train",
        Mesh="mesh",
        MeshError="mesh",
        Run="train",
        load_case="train",
        read="mesh",
        read_series="mesh",
        write="mesh",
    )

__version__ = "0.1.0"
__all__ = ["Case", "Mesh", "MeshError", "Run", "__version__", "load_case", "read", "read_series", "write"]
