import pytest
import torch

from gno.graph import segment
from gno.graph.segment import Edges, gather_sum, gather_sum_t, kept, segment_sum, spread


@pytest.fixture
def edges() -> Edges:
    g = torch.Generator().manual_seed(0)
    receiver = torch.randint(0, 6, (20,), generator=g).sort().values
    receiver[receiver == 3] = 4  # a receiver without edges
    return Edges.build(torch.randint(0, 5, (20,), generator=g), receiver, 5, 6)


def dense(weights: torch.Tensor, edges: Edges) -> torch.Tensor:
    matrix = torch.zeros(6, 5, dtype=weights.dtype)
    for w, r, s in zip(weights, edges.receiver, edges.sender, strict=True):
        matrix[r, s] += w
    return matrix


def test_numbers_that_32_bits_do_not_hold_are_refused():
    assert kept(torch.tensor([0, 2**31 - 1])).tolist() == [0, 2**31 - 1]
    with pytest.raises(ValueError, match=r"fewer than 2³¹ nodes and edges .* got number 2,147,483,648"):
        kept(torch.tensor([0, 2**31]))


def test_gather_sum_is_a_matrix_product(edges):
    w, v, u = torch.rand(20).double(), torch.rand(5, 3).double(), torch.rand(6, 3).double()
    torch.testing.assert_close(gather_sum(v, w, edges), dense(w, edges) @ v)
    torch.testing.assert_close(gather_sum_t(u, w, edges), dense(w, edges).T @ u)


def test_transpose_exchanges_the_ends(edges):
    w, u = torch.rand(20).double(), torch.rand(6, 3).double()
    turned = edges.transpose()
    torch.testing.assert_close(gather_sum(u, w[edges.perm], turned), gather_sum_t(u, w, edges))
    again = turned.transpose()
    assert torch.equal(again.sender, edges.sender) and torch.equal(again.perm, edges.perm)


def test_union_keeps_graphs_apart():
    ring = Edges.build(torch.tensor([1, 2, 0]), torch.tensor([0, 1, 2]), 3, 3)
    both, v = Edges.union([ring, ring]), torch.rand(6, 2)
    apart = torch.cat([gather_sum(v[:3], torch.ones(3), ring), gather_sum(v[3:], torch.ones(3), ring)])
    assert torch.equal(gather_sum(v, torch.ones(6), both), apart)
    back = torch.cat([gather_sum_t(v[:3], torch.ones(3), ring), gather_sum_t(v[3:], torch.ones(3), ring)])
    assert torch.equal(gather_sum_t(v, torch.ones(6), both), back)


def test_gradients(edges):
    w = torch.rand(20, dtype=torch.float64, requires_grad=True)
    v = torch.rand(5, 3, dtype=torch.float64, requires_grad=True)
    u = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    e = torch.rand(20, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w: gather_sum(v, w, edges), (v, w))
    assert torch.autograd.gradcheck(lambda u, w: gather_sum_t(u, w, edges), (u, w))
    assert torch.autograd.gradcheck(lambda v: spread(v, edges), (v,))
    assert torch.autograd.gradcheck(lambda e: segment_sum(e, edges.ptr), (e,))


def test_segment_sum_equals_torch_scatter(edges, monkeypatch):
    if segment.segment_csr is None:
        pytest.skip("torch-scatter is not installed (pip install gno[scatter])")
    e = torch.rand(20, 3, dtype=torch.float64, requires_grad=True)
    with_scatter = segment_sum(e, edges.ptr)
    (gradient,) = torch.autograd.grad(with_scatter.square().sum(), e)
    monkeypatch.setattr(segment, "segment_csr", None)
    plain = segment_sum(e, edges.ptr)
    torch.testing.assert_close(with_scatter, plain, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.square().sum(), e)[0], rtol=1e-14, atol=0)
