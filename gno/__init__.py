"""gno: neural operators on the meshes engineers already have."""

from gno.mesh import Mesh, MeshError

__version__ = "0.1.0"
__all__ = ["Mesh", "MeshError", "__version__"]
