"""A Mesh as PyVista sees it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from gno.mesh import CellBlock, Mesh
from gno.mesh.shapes import family
from gno.mesh.vtkcells import blocks_to_vtk, code_of

if TYPE_CHECKING:
    import pyvista as pv

_CORNERS = {"triangle": 3, "quad": 4, "tetra": 4, "pyramid": 5, "wedge": 6, "hexahedron": 8}


def to_pyvista(mesh: Mesh) -> pv.UnstructuredGrid | pv.PolyData:
    """The mesh with its numeric fields as a PyVista grid; a point cloud becomes ``PolyData``.

    Node and cell order stay as they are. Tensors are flattened row by row. Cells of an order that VTK has
    no type for (``pyramid14``, …) are kept by their corners.

    Args:
        mesh: any mesh.

    Returns:
        a copy; points have three coordinates, missing ones are 0.

    Raises:
        MeshError: a cell type without a VTK counterpart.

    >>> square = np.array([[0., 0.], [1., 0.], [1., 1.], [0., 1.]])
    >>> grid = to_pyvista(Mesh(square, (CellBlock("quad", np.array([[0, 1, 2, 3]])),), {"T": np.arange(4.)}))
    >>> grid.n_cells, grid.bounds[1], grid["T"].tolist()
    (1, 1.0, [0.0, 1.0, 2.0, 3.0])
    """
    import pyvista as pv

    points = points_3d(mesh)
    grid = _unstructured(mesh, points) if mesh.n_cells else pv.PolyData(points)
    for data, fields in ((grid.point_data, mesh.point_fields), (grid.cell_data, mesh.cell_fields)):
        for name, values in fields.items():
            if values.dtype.kind in "fiub":
                data[name] = values.reshape(len(values), -1) if values.ndim > 1 else values
    return grid


def points_3d(mesh: Mesh) -> Float[np.ndarray, "n_nodes 3"]:
    """Node coordinates with zeros for missing ones, in float64."""
    points = np.zeros((mesh.n_nodes, 3))
    points[:, : mesh.points.shape[1]] = mesh.points
    return points


def _unstructured(mesh: Mesh, points: Float[np.ndarray, "n_nodes 3"]) -> pv.UnstructuredGrid:
    import pyvista as pv

    connectivity, ends, codes = blocks_to_vtk([_drawable(block) for block in mesh.cells], "PyVista", mesh.source)
    # PyVista wants every cell's nodes behind their number.
    widths = np.diff(ends, prepend=0)
    cells = np.insert(connectivity, ends - widths, widths)
    return pv.UnstructuredGrid(cells, codes, points)


def _drawable(block: CellBlock) -> CellBlock:
    """The block itself where VTK has its cell type, else the linear cells between its corners."""
    linear = family(block.type)
    if code_of(block.type) is None and linear in _CORNERS:
        block = CellBlock(linear, block.nodes[:, : _CORNERS[linear]])
    if block.type == "wedge" and _wedges_face_outward():
        return CellBlock("wedge", block.nodes[:, [0, 2, 1, 3, 5, 4]])
    return block


@functools.cache
def _wedges_face_outward() -> bool:
    """Whether VTK has wedges in the order of all solvers, as since 9.6 or so, and no longer in that of its files."""
    from vtkmodules.vtkCommonDataModel import vtkWedge

    return list(vtkWedge().GetParametricCoords())[3:5] == [1.0, 0.0]
