"""gno: neural operators on the meshes engineers already have."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other without spinning: as soon as anything else runs on the machine, spinning makes the many
# small operations of a training step ten times slower (measured). Read once, when torch is loaded; yours comes first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from gno.mesh import Mesh, MeshError, read, read_series, write  # noqa: E402

if TYPE_CHECKING:
    from gno.train import Case, Run, load_case

__version__ = "0.1.0"
__all__ = ["Case", "Mesh", "MeshError", "Run", "__version__", "load_case", "read", "read_series", "write"]


def __getattr__(name: str) -> Any:
    # training needs torch and reading a mesh does not: it is imported when it is asked for
    if name in ("Case", "Run", "load_case"):
        return getattr(importlib.import_module("gno.train"), name)
    raise AttributeError(f"module 'gno' has no attribute '{name}'")
