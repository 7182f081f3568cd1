"""Sparse operators: products, gradients, transposes, batches."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gno.physics.sparse import Sparse


def random(n_rows, n_columns, seed=0):
    return sp.random_array((n_rows, n_columns), density=0.3, format="csr", rng=np.random.default_rng(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tail", [(), (1,), (3,), (2, 2)])
def test_a_product_and_its_transpose_are_those_of_scipy(dtype, tail):
    matrix = random(7, 5)
    A = Sparse.from_scipy(matrix).to(dtype=dtype)
    x, y = torch.randn(5, *tail, dtype=dtype), torch.randn(7, *tail, dtype=dtype)
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 1e-14}
    dense = torch.from_numpy(matrix.toarray()).to(dtype)
    torch.testing.assert_close(A @ x, torch.tensordot(dense, x, 1), **close)
    torch.testing.assert_close(A.T @ y, torch.tensordot(dense.T, y, 1), **close)
    assert (A @ x).dtype == dtype


def test_gradients_of_first_and_second_order_are_right():
    A = Sparse.from_scipy(random(7, 5))
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(A.__matmul__, x)
    assert torch.autograd.gradcheck(lambda v: A @ v, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v: (A @ v) ** 3, x)


def test_a_view_that_is_not_contiguous_is_no_other_value():
    A = Sparse.from_scipy(random(7, 5))
    x = torch.randn(3, 5, dtype=torch.float64).T
    assert torch.equal(A @ x, A @ x.contiguous())


def test_a_batch_is_its_meshes():
    parts = [Sparse.from_scipy(random(n, n + 2, seed=n)) for n in (3, 6, 4)]
    x = [torch.randn(n + 2, 2, dtype=torch.float64) for n in (3, 6, 4)]
    joined = Sparse.join(parts)
    assert torch.equal(joined @ torch.cat(x), torch.cat([A @ v for A, v in zip(parts, x, strict=True)]))
    same = joined.to_scipy() - sp.block_diag([A.to_scipy() for A in parts])
    assert abs(same).max() == 0
    y = torch.randn(13, 1, dtype=torch.float64)
    assert torch.equal(joined.T @ y, torch.cat([A.T @ v for A, v in zip(parts, y.split((3, 6, 4)), strict=True)]))


def test_scipy_and_back_keeps_every_entry():
    matrix = random(6, 6)
    A = Sparse.from_scipy(sp.coo_array(matrix))
    assert abs(A.to_scipy() - matrix).max() == 0
    assert (A.T.to_scipy() != sp.csr_array(matrix.T)).nnz == 0
    assert A.shape == (6, 6) and A.T.to_scipy().shape == (6, 6)
    np.testing.assert_array_equal(A.diagonal(), matrix.diagonal())


def test_entries_at_one_place_are_added():
    A = Sparse.from_scipy(sp.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)))
    assert A.n_entries == 2
    assert torch.equal(A @ torch.ones(2, dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(4, dtype=torch.float64), "expected 5 values of torch.float64, got 4"),
        (torch.zeros(5), "expected 5 values of torch.float64, got 5 of torch.float32"),
    ],
)
def test_what_does_not_fit_is_said(x, message):
    with pytest.raises(ValueError, match=message):
        Sparse.from_scipy(random(7, 5)) @ x


def test_no_operators_are_no_batch():
    with pytest.raises(ValueError, match="expected one operator or more"):
        Sparse.join([])
