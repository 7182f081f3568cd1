"""What a solver left: Mesh, reading and writing of every format, geometry."""

from gno.mesh.geometry import boundary_facets, cell_volume, cells_to_nodes, components, mesh_edges, node_mass
from gno.mesh.io import Series, read, read_series, write, write_series
from gno.mesh.mesh import CellBlock, Mesh, MeshError

__all__ = [
    "CellBlock",
    "Mesh",
    "MeshError",
    "Series",
    "boundary_facets",
    "cell_volume",
    "cells_to_nodes",
    "components",
    "mesh_edges",
    "node_mass",
    "read",
    "read_series",
    "write",
    "write_series",
]
