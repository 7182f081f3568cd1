"""Triton kernels against their plain twins: on a CUDA device where there is one, else by Triton's interpreter."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gno.graph.segment import Edges, expansion, gather_sum, gather_sum_t, moments
from gno.kernels import on_triton
from gno.nn.kernel import kernel_sum

pytest.importorskip("triton", reason="Triton is not installed (pip install gno[gpu])")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu" and os.environ.get("TRITON_INTERPRET") not in ("0", "1"):  # before anything imports Triton
    pytest.skip("no CUDA device: TRITON_INTERPRET=1 interprets the kernels", allow_module_level=True)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1.5e-3}
N_SENDERS, N_RECEIVERS, N_EDGES = 29, 41, 190


@pytest.fixture
def edges() -> Edges:
    """Ragged: rows of none, of one and of many edges, at both ends; the last sender sends nothing."""
    g = torch.Generator().manual_seed(0)
    receiver = (torch.rand(N_EDGES, generator=g).square() * N_RECEIVERS).long().sort().values
    receiver[receiver == 3] = 4
    sender = torch.randint(0, N_SENDERS - 1, (N_EDGES,), generator=g)
    built = Edges.build(sender, receiver, N_SENDERS, N_RECEIVERS)
    degrees = built.ptr.diff()
    assert degrees.min() == 0 and degrees.max() > 20 and built.ptr_t.diff()[-1] == 0
    return on_device(built)


def on_device(edges: Edges) -> Edges:
    return Edges(*(getattr(edges, field.name).to(DEVICE) for field in dataclasses.fields(edges)))


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()


def both(monkeypatch, function, *inputs: torch.Tensor) -> list[list[torch.Tensor]]:
    """Value and gradients of the plain twin and of the kernel."""
    found = []
    for way in ("plain", "triton"):
        monkeypatch.setenv("GNO_KERNELS", way)
        value = function(*inputs)
        grad = torch.linspace(-1, 1, value.numel(), device=DEVICE).view_as(value).to(value.dtype)
        wanted = [x for x in inputs if x.requires_grad]
        found.append([value, *torch.autograd.grad(value, wanted, grad)])
    return found


def assert_equal(plain: list[torch.Tensor], fused: list[torch.Tensor]) -> None:
    """Within the precision of the values, relative to the size of the whole."""
    tolerance = TOLERANCE[plain[0].dtype]
    for one, two in zip(plain, fused, strict=True):
        assert one.dtype == two.dtype and one.shape == two.shape
        size = one.double().abs().max()
        assert size > 0
        assert ((one.double() - two.double()).abs().max() / size).item() < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_channels", [1, 5, 160])
def test_sparse_products(edges, monkeypatch, dtype, n_channels):
    w = random(N_EDGES, dtype=torch.promote_types(dtype, torch.float32))
    v, u = random(N_SENDERS, n_channels, dtype=dtype), random(N_RECEIVERS, n_channels, dtype=dtype)
    assert_equal(*both(monkeypatch, lambda v, w: gather_sum(v, w, edges), v, w))
    assert_equal(*both(monkeypatch, lambda u, w: gather_sum_t(u, w, edges), u, w))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_sets", [3, 4])
def test_several_sets_of_weights(edges, monkeypatch, dtype, n_sets):
    w = [random(N_EDGES, dtype=torch.promote_types(dtype, torch.float32), seed=k) for k in range(n_sets)]
    v, side = random(N_SENDERS, 12, dtype=dtype), random(N_SENDERS, 12 * n_sets, dtype=dtype)
    assert_equal(*both(monkeypatch, lambda v, *w: moments(v, w, edges), v, *w))
    assert_equal(*both(monkeypatch, lambda v, *w: expansion(v, w, edges), side, *w))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_channels", [5, 160])
def test_kernel_integral(edges, monkeypatch, dtype, n_channels):
    w = random(N_EDGES, dtype=torch.promote_types(dtype, torch.float32)).detach()
    a, b = random(N_RECEIVERS, n_channels, dtype=dtype), random(N_SENDERS, n_channels, dtype=dtype, seed=2)
    assert_equal(*both(monkeypatch, lambda a, b: kernel_sum(a, b, w, edges), a, b))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_channels", "dim"), [(5, 1), (5, 2), (160, 3)])
def test_kernel_integral_of_offsets(edges, monkeypatch, dtype, n_channels, dim):
    long = torch.promote_types(dtype, torch.float32)
    w = random(N_EDGES, dtype=long).detach()
    a, b = random(N_RECEIVERS, n_channels, dtype=dtype), random(N_SENDERS, n_channels, dtype=dtype, seed=2)
    x, c = ((0.3 * random(n, dim, dtype=long, seed=n)).detach().requires_grad_() for n in (N_EDGES, n_channels))
    assert_equal(*both(monkeypatch, lambda a, b, x, c: kernel_sum(a, b, w, edges, x, c), a, b, x, c))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows_of_many_edges_are_cut(monkeypatch, dtype):
    receiver = torch.tensor([0] * 3 + [2] * 450 + [3] * 64 + [4] * 65)  # and row 1 is empty
    sender = torch.arange(len(receiver)) % 7
    few, w = on_device(Edges.build(sender, receiver, 7, 5)), random(len(receiver))
    v, u = random(7, 3, dtype=dtype), random(5, 3, dtype=dtype)
    assert_equal(*both(monkeypatch, lambda v, w: moments(v, (w, w.square()), few), v, w))
    assert_equal(*both(monkeypatch, lambda u, w: gather_sum_t(u, w, few), u, w))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # numpy's; the infinity is what is wanted
def test_activations_far_from_zero(edges, monkeypatch):
    a, b = random(N_RECEIVERS, 4) * 200, random(N_SENDERS, 4, seed=2) * 200
    assert_equal(*both(monkeypatch, lambda a, b: kernel_sum(a, b, torch.ones(N_EDGES, device=DEVICE), edges), a, b))


def test_non_contiguous_input(edges, monkeypatch):
    w, v = random(2 * N_EDGES)[::2], random(6, N_SENDERS).T
    a, b = random(N_RECEIVERS, 12)[:, 3:9], random(N_SENDERS, 12)[:, ::2]
    assert not any(x.is_contiguous() for x in (w, v, a, b))
    assert_equal(*both(monkeypatch, lambda v, w: gather_sum(v, w, edges), v, w))
    assert_equal(*both(monkeypatch, lambda v, w: moments(v, (w, w.square()), edges), v, w))
    assert_equal(*both(monkeypatch, lambda a, b: kernel_sum(a, b, w.detach(), edges), a, b))


def test_a_graph_without_edges_gives_zeros(monkeypatch):
    monkeypatch.setenv("GNO_KERNELS", "triton")
    none = torch.empty(0, dtype=torch.long, device=DEVICE)
    edges, w = Edges.build(none, none, 3, 2), random(0)
    v, a = random(3, 4), random(2, 4)
    for value in (gather_sum(v, w, edges), kernel_sum(a, v, w.detach(), edges)):
        assert value.shape == (2, 4) and not value.any()
    value.sum().backward()
    assert not v.grad.any() and not a.grad.any()


def test_the_same_bits_on_every_run(edges, monkeypatch):
    w, v, a = random(N_EDGES), random(N_SENDERS, 16), random(N_RECEIVERS, 16)
    for function, inputs in (
        (lambda v, w: moments(v, (w, 2 * w), edges), (v, w)),
        (lambda a, b: kernel_sum(a, b, w.detach(), edges), (a, v)),
    ):
        one, two = both(monkeypatch, function, *inputs)[1], both(monkeypatch, function, *inputs)[1]
        assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


def test_gradients_are_those_of_the_function(edges, monkeypatch):
    monkeypatch.setenv("GNO_KERNELS", "triton")
    receiver, sender = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 0, 1, 1, 3])
    few = on_device(Edges.build(sender, receiver, 4, 3))
    w, v, a = (random(*shape, dtype=torch.float64) for shape in ((5,), (4, 2), (3, 2)))
    side = random(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v, w: moments(v, (w, w.square()), few), (v, w))
    assert torch.autograd.gradcheck(lambda v, w: expansion(v, (w, w.square()), few), (side, w))
    assert torch.autograd.gradcheck(lambda a, b: kernel_sum(a, b, w.detach(), few), (a, v))
    x, c = random(5, 3, dtype=torch.float64, seed=3), random(2, 3, dtype=torch.float64, seed=4)
    assert torch.autograd.gradcheck(lambda a, b, x, c: kernel_sum(a, b, w.detach(), few, x, c), (a, v, x, c))


def test_the_environment_decides(monkeypatch):
    values = torch.ones(1, device=DEVICE)
    for wanted, used in (("plain", False), ("triton", True)):
        monkeypatch.setenv("GNO_KERNELS", wanted)
        assert on_triton(values) == used
    monkeypatch.delenv("GNO_KERNELS")
    assert on_triton(values) == values.is_cuda and not on_triton(torch.ones(1))


def traced() -> None:
    """Trace an operator whose kernels are launched, as on CUDA; torch raises where it cannot see through."""
    import graph_cases
    import torch.utils._triton

    from gno.graph import collate
    from gno.graph.padding import Ladder
    from gno.nn.compiled import Compiled

    torch.utils._triton.has_triton = lambda *_: True  # it is asked for a device, to which nothing comes here
    kernels = []

    def stop_at(graph, _):
        names = [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"]
        kernels.extend(name for name in names if "triton" in name or name == "autograd_function_apply")
        raise KeyboardInterrupt

    samples = graph_cases.samples_of(graph_cases.square(7))
    operator = graph_cases.operator_for(samples[0], n_blocks=1, conduction=True)
    try:
        Compiled(operator, backend=stop_at, fullgraph=True)(Ladder.fit(samples, 1).pad(collate(samples)))
    except KeyboardInterrupt:
        sys.stdout.write(f"{len(kernels)} kernels")


def test_torch_compile_sees_through_the_launch_of_a_kernel():
    # in a process where Triton does not interpret: what is interpreted is not a kernel to torch
    path = os.pathsep.join([*(str(Path(__file__).parents[n]) for n in (0, 1)), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "GNO_KERNELS": "triton", "TRITON_INTERPRET": "0"}
    program = [sys.executable, "-c", "import test_kernels_triton; test_kernels_triton.traced()"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 30
