"""What a solver left: Mesh, reading and writing of every format, geometry."""

from gno.mesh.geometry import boundary_facets, cell_volume, cells_to_nodes, components, mesh_edges, node_mass
from gno.mesh.io import READABLE, read
from gno.mesh.laplacian import laplacian
from gno.mesh.lattice import Lattice
from gno.mesh.locate import interpolation
from gno.mesh.mesh import CellBlock, Mesh, MeshError, MeshWarning
from gno.mesh.periodic import Torus, nearest_image, repeats, torus_of
from gno.mesh.quality import Quality, quality
from gno.mesh.series import Series, read_series, write_series
from gno.mesh.writer import WRITABLE, write

__all__ = [
    "READABLE",
    "WRITABLE",
    "CellBlock",
    "Lattice",
    "Mesh",
    "MeshError",
    "MeshWarning",
    "Quality",
    "Series",
    "Torus",
    "boundary_facets",
    "cell_volume",
    "cells_to_nodes",
    "components",
    "interpolation",
    "laplacian",
    "mesh_edges",
    "nearest_image",
    "node_mass",
    "quality",
    "read",
    "read_series",
    "repeats",
    "torus_of",
    "write",
    "write_series",
]
