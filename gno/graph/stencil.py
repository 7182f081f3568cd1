"""The Laplacian on the mesh as samples carry it."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor

from gno.graph.segment import kept, order


def stencil(operator: csr_matrix, at: csr_matrix, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of a Laplacian without its diagonal, which is minus the sum of the rest.

    Args:
        operator: the Laplacian, (n_nodes, n_nodes), in units of the case.
        at: interpolation to probes, which hear the Laplacian at their place, (n_probes, n_nodes).
        dtype: of real tensors.

    Returns:
        What :class:`gno.graph.MeshData` says of ``stencil`` and of the keys that start so.
    """
    off_diagonal = operator - diags(operator.diagonal())
    found = vstack([off_diagonal, at @ operator]).tocsr()
    found.sort_indices()
    receiver, sender = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices
    index = kept(np.stack([sender, receiver]))
    size = np.asarray(abs(off_diagonal).sum(1)).ravel()
    size[size == 0] = 1.0  # nodes without mass, where L is nothing
    return {
        "stencil_index": index,
        "stencil_perm": order(index[0]),
        "stencil": torch.as_tensor(found.data, dtype=dtype),
        "stencil_size": torch.as_tensor(np.concatenate([size, at @ size]), dtype=dtype),
    }
