"""Named sets of nodes from named sets of cells."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gno.mesh.mesh import Mesh
from gno.mesh.shapes import cell_dim


def boundary_nodes(mesh: Mesh, cell_sets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Nodes of those cell sets that lie below the domain's dimension: lines around a surface, faces of a solid."""
    if not mesh.n_cells or not cell_sets:
        return {}
    dims = np.concatenate([np.full(len(block), cell_dim(block.type)) for block in mesh.cells])
    widths = np.concatenate([np.full(len(block), block.nodes.shape[1]) for block in mesh.cells])
    flat = np.concatenate([block.nodes.ravel() for block in mesh.cells])
    ends = np.cumsum(widths)
    found = {}
    for name, index in cell_sets.items():
        if len(index) and dims[index].max() < dims.max():
            parts = [flat[ends[cell] - widths[cell] : ends[cell]] for cell in index.tolist()]
            found[name] = np.unique(np.concatenate(parts))
    return found
