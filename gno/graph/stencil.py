"""The Laplacian on the mesh as samples carry it, and as explicit steps can bear it."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags, vstack
from torch import Tensor

from gno.graph.segment import kept, order

# Rows of the Laplacian that explicit steps are made with, against the median row of the mesh.
STEEPEST = 1.5


def even(operator: csr_matrix) -> csr_matrix:
    """A Laplacian whose rows are at most :data:`STEEPEST` times as large as usual on this mesh.

    Explicit steps are stable up to a size that the smallest cells decide. A node of such cells follows its neighbours
    at once in any case; with a row that is scaled down it does so a little later, and steps may be as large as the
    usual cells allow.
    """
    size = -operator.diagonal()
    usual = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    return (diags(np.minimum(1.0, STEEPEST * usual / np.maximum(size, usual))) @ operator).tocsr()


def steepest(operator: csr_matrix) -> float:
    """The largest row, as its diagonal measures it, in one over the square of the user's unit of length."""
    return float(-operator.diagonal().min(initial=0.0))


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
