"""Sparse operators on the device: compressed rows with the transpose at hand, so that both directions only gather."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.graph.segment import bag


@dataclasses.dataclass(frozen=True)
class Rows:
    """Compressed rows: entries ``value[ptr[i]:ptr[i + 1]]`` in columns ``index[ptr[i]:ptr[i + 1]]``."""

    ptr: Int[Tensor, " n_rows_1"]
    index: Int[Tensor, " n_entries"]
    value: Float[Tensor, " n_entries"]
    n_columns: int

    @staticmethod
    def of(matrix: sp.csr_matrix | sp.csr_array) -> Rows:
        # int32 halves the memory that a product has to read, and MKL copies indices of another type on every call.
        size = np.int32 if max(matrix.nnz, *matrix.shape) < 2**31 else np.int64
        ptr, index = (torch.from_numpy(a.astype(size)) for a in (matrix.indptr, matrix.indices))
        return Rows(ptr, index, torch.from_numpy(matrix.data.astype(np.float64)), matrix.shape[1])

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Rows:
        ptr, index = self.ptr.to(device=device), self.index.to(device=device)
        return Rows(ptr, index, self.value.to(device=device, dtype=dtype), self.n_columns)

    def product(self, x: Tensor) -> Tensor:
        """y = A x for values (n_columns, c), without a gradient."""
        if not x.is_cpu:
            # cuSPARSE may add in another order on the next run; this sums each row in the order of its entries
            return bag(x, self.index, self.ptr, self.value)
        if x.shape[1] == 1:
            return (self._tensor @ x.reshape(-1)).reshape(-1, 1)
        return self._tensor @ x.contiguous()

    @functools.cached_property
    def _tensor(self) -> Tensor:
        shape = (len(self.ptr) - 1, self.n_columns)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(self.ptr, self.index, self.value, shape, check_invariants=False)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """A constant sparse matrix that torch differentiates through: ``y = A x``, and ``Aᵀ`` takes the gradient back.

    Args:
        rows: the matrix in compressed rows.
        columns: its transpose in compressed rows.

    >>> A = Sparse.from_scipy(sp.csr_array(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])))
    >>> A, A @ torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    (Sparse(2 × 3, 3 entries, float64), tensor([2., 4.], dtype=torch.float64))
    """

    rows: Rows
    columns: Rows

    @staticmethod
    def from_scipy(matrix: sp.sparray | sp.spmatrix) -> Sparse:
        """From any scipy matrix, in float64 on the CPU; entries of one place are added, columns sorted."""
        compressed = sp.csr_array(matrix)
        compressed.sum_duplicates()
        return Sparse(Rows.of(compressed), Rows.of(sp.csr_array(compressed.T)))

    def to_scipy(self) -> sp.csr_array:
        """The matrix for scipy, on the CPU."""
        entries = (a.detach().cpu().numpy() for a in (self.rows.value, self.rows.index, self.rows.ptr))
        return sp.csr_array(tuple(entries), shape=self.shape)

    @staticmethod
    def join(blocks: Sequence[Sparse]) -> Sparse:
        """Block-diagonal matrix: operators of several meshes as one, on the nodes of the meshes one after the other.

        Raises:
            ValueError: there are none.
        """
        if not blocks:
            raise ValueError("blocks: expected one operator or more, got none")
        return Sparse(_join([b.rows for b in blocks]), _join([b.columns for b in blocks]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.columns.n_columns, self.rows.n_columns

    @property
    def n_entries(self) -> int:
        return len(self.rows.index)

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.value.dtype

    @property
    def T(self) -> Sparse:  # noqa: N802
        """The transpose; nothing is copied."""
        return Sparse(self.columns, self.rows)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Sparse:
        """A copy on another device or with another floating point type."""
        return Sparse(self.rows.to(device, dtype), self.columns.to(device, dtype))

    def __matmul__(self, x: Float[Tensor, "n_columns ..."]) -> Float[Tensor, "n_rows ..."]:
        """y = A x, of one column or several.

        Raises:
            ValueError: x has another length or floating point type than the matrix.
        """
        if len(x) != self.shape[1] or x.dtype != self.dtype:
            got = f"{len(x)} of {x.dtype}"
            raise ValueError(f"operator: expected {self.shape[1]} values of {self.dtype}, got {got}")
        product = _Product.apply(x.reshape(len(x), -1), self.rows, self.columns)
        return product.reshape(-1, *x.shape[1:])

    def diagonal(self) -> Float[Tensor, " n"]:
        """Entries on the diagonal, for a Jacobi preconditioner."""
        row = torch.repeat_interleave(self.rows.ptr.diff())
        here = row == self.rows.index
        found = self.rows.value.new_zeros(min(self.shape))
        found[row[here]] = self.rows.value[here]
        return found

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"Sparse({self.shape[0]} × {self.shape[1]}, {self.n_entries} entries, {kind})"


def _join(parts: Sequence[Rows]) -> Rows:
    large = sum(len(part.index) for part in parts) >= 2**31
    ptr, index, column, entry = [parts[0].ptr[:1]], [], 0, 0
    for part in parts:
        rows, columns = (part.ptr.long(), part.index.long()) if large else (part.ptr, part.index)
        ptr.append(rows[1:] + entry)
        index.append(columns + column)
        column, entry = column + part.n_columns, entry + len(part.index)
    return Rows(torch.cat(ptr), torch.cat(index), torch.cat([part.value for part in parts]), column)


class _Product(torch.autograd.Function):
    """torch's own backward of a sparse product makes a sparse gradient of the matrix, or transposes it every time."""

    @staticmethod
    def forward(x, rows, columns):
        return rows.product(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.rows, ctx.columns = inputs[1:]

    @staticmethod
    def backward(ctx, grad):
        return _Product.apply(grad, ctx.columns, ctx.rows), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Product.apply(tangent, ctx.rows, ctx.columns)
