"""What a solver left: Mesh, reading and writing of every format, geometry."""

from gno.mesh.mesh import CellBlock, Mesh, MeshError

__all__ = ["CellBlock", "Mesh", "MeshError"]
