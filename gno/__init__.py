"""gno: neural operators on the meshes engineers already have."""

from gno.mesh import Mesh, MeshError, read, read_series, write

__version__ = "0.1.0"
__all__ = ["Mesh", "MeshError", "__version__", "read", "read_series", "write"]
