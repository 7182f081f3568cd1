"""What a GPU needs of a training step, tested where there is none: no waiting, half precision, less memory."""

from __future__ import annotations

import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square
from torch.utils._python_dispatch import TorchDispatchMode

from gno.graph import FieldSpec, collate
from gno.graph.batch import level_edges, link_edges
from gno.nn.attention import CrossScaleAttention, Tokens
from gno.nn.kernel import KernelIntegral
from gno.nn.pooling import LearnedPooling
from gno.train import Training
from gno.train.loop import Objective, blend
from gno.train.losses import data_terms
from gno.train.normalise import Scale
from gno.train.optimisers import OPTIMISERS

# Operators whose result, or its shape, the host has to see: on CUDA each would wait for all that is still running.
# A tensor from Python numbers (lift_fresh) is a copy to the device that the host waits for.
WAITING = {
    "_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select",
    "bincount", "equal", "is_nonzero", "lift_fresh", "_linalg_check_errors",
    "cholesky_solve",  # of several matrices, where torch gives them to MAGMA
}  # fmt: skip


class NoWaiting(TorchDispatchMode):
    """Fails on operators that make the host wait."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in WAITING:
            raise AssertionError(f"{function} makes the host wait for the device")
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{function} with a mask makes the host wait for the device"
        if name == "repeat_interleave" and function._overloadname == "Tensor":
            assert (kwargs or {}).get("output_size") is not None, "repeat_interleave without its output_size waits"
        return function(*args, **(kwargs or {}))


class Step:
    """One training step, as the loop takes it."""

    def __init__(self, samples, *, device: str = "cpu", precision: torch.dtype | None = None, **options) -> None:
        self.batch = collate(samples).to(device)
        self.model = operator_for(samples[0], **options).to(device, samples[0].x.dtype)
        self.average = operator_for(samples[0], **options).to(device, samples[0].x.dtype)
        fields = (FieldSpec("u", "point", 1), FieldSpec("w", "point", samples[0].y.shape[1] - 1))
        ones = torch.ones(samples[0].y.shape[1], dtype=torch.float64, device=device)
        self.objective = Objective(self.model, data_terms(fields, Scale(0 * ones, ones, ones)))
        self.optimiser = OPTIMISERS["muon"](self.model, Training(epochs=1))
        self.device, self.precision = device, precision

    def backward(self) -> torch.Tensor:
        with torch.autocast(self.device, dtype=self.precision, enabled=self.precision is not None):
            losses = self.objective(self.batch, 0.0)
        losses.sum().backward()
        return losses.detach()

    def __call__(self) -> torch.Tensor:
        losses = self.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        blend(self.average, self.model, 0.9)
        return losses


def single(samples):
    """The samples in float32."""
    for sample in samples:
        for key, value in sample.items():
            if value.dtype == torch.float64:
                sample[key] = value.float()
    return samples


@pytest.fixture
def samples():
    return single(samples_of(square(7), square(9, seed=1)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": False},
        {"learned_pooling": False},
        {"key_level": 2},
        {"checkpoint": True},
        {"conduction": True},
    ],
)
def test_no_operator_of_a_step_makes_the_host_wait(samples, options):
    step = Step(samples, **options)
    step()  # what is moved to the device once
    with NoWaiting():
        step()


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.repeat_interleave(x.long()),
        lambda x: torch.tensor([1.0]) * x,
        lambda x: bool((x > 0).all()),
    ],
)
def test_waiting_is_seen(waits):
    with pytest.raises(AssertionError, match=r"wait"), NoWaiting():
        waits(torch.ones(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_step_on_cuda_waits(samples):
    step = Step(samples, device="cuda", precision=torch.bfloat16)
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def relative(one: torch.Tensor, two: torch.Tensor) -> float:
    return ((one.double() - two.double()).norm() / two.double().norm()).item()


@pytest.mark.filterwarnings("error:Mismatch dtype")  # of a norm that is not fused
def test_bfloat16_changes_predictions_by_its_round_off_only(samples):
    step = Step(samples)
    plain = step.model(step.batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = step.model(step.batch)
    for s in range(3):
        assert short.fields[s].dtype == short.mass[s].dtype == short.position[s].dtype == torch.float32
        assert 1e-5 < relative(short.fields[s], plain.fields[s]) < 2e-2
        assert relative(short.mass[s], plain.mass[s]) < 5e-3
    # short features, and yet ∫u_s = ∫u_{s+1} in single precision
    total = [short.mass[s] @ short.fields[s] for s in range(3)]
    assert relative(total[0], total[1]) < 1e-5 and relative(total[1], total[2]) < 1e-5


def test_bfloat16_steps_train_as_full_ones_do(samples):
    short, full = Step(samples, precision=torch.bfloat16), Step(samples)
    first, second = short.backward(), full.backward()
    assert relative(first, second) < 1e-2
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in short.model.parameters())
    one, two = (torch.cat([p.grad.flatten() for p in step.model.parameters()]) for step in (short, full))
    assert relative(one, two) < 5e-2
    losses = [short().sum().item() for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_places_far_from_the_origin_survive_short_numbers(dtype):
    """Attention that looks near, on a mesh of many spacings: the logits are differences of large numbers."""
    attend = CrossScaleAttention(32, 2, 3, 2)
    with torch.no_grad():
        attend.log_gamma.fill_(4.5)
    place = torch.rand(40, 2) * 2 - 1
    scale, batch = torch.arange(40) % 2 + 1, torch.zeros(40, dtype=torch.long)
    tokens = Tokens.build(place, torch.rand(40) + 0.1, scale, batch, 1, 40)
    v = torch.randn(40, 32)
    full = attend(v, v, tokens, tokens)
    with torch.autocast("cpu", dtype=dtype):
        short = attend(v, v, tokens, tokens)
    assert relative(short, full) < 6e-3


def test_kernel_and_pooling_feel_no_shift_of_the_origin_in_bfloat16():
    """A mesh a thousand spacings wide: only differences of places count, and they must not be lost."""
    kernel, pooling = KernelIntegral(32, 2), LearnedPooling(32, 2)
    mesh = square(9, seed=1)
    sample = collate(single(samples_of(mesh, spec=spec_of(mesh, edges=True))))
    n, edges, links = len(sample.pos_0), level_edges(sample, 0), link_edges(sample, 0)
    v, w, far = torch.randn(n, 32), torch.rand(edges.sender.shape), torch.tensor([1000.0, -700.0])
    fine, coarse = sample.pos_0 / sample.spacing_1, sample.pos_1 / sample.spacing_1
    for shift in (0 * far, far):
        place, mass = sample.pos_0 / sample.spacing_0 + shift, sample.mass_0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            one, two = (
                kernel(v, place, edges, w),
                pooling(v, mass, links, sample.log_b_0, fine + shift, coarse + shift),
            )
        assert relative(one, kernel(v, place, edges, w)) < 1e-2
        assert relative(two, pooling(v, mass, links, sample.log_b_0, fine + shift, coarse + shift)) < 1e-2


def saved_bytes(step: Step) -> int:
    """Bytes that are kept between the way forward and the way back."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {p.untyped_storage().data_ptr() for p in step.model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = step.objective(step.batch, 0.0)
    losses.sum().backward()
    return sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_checkpointing_gives_the_same_gradients(samples, precision):
    plain, again = (Step(samples, precision=precision, checkpoint=checkpoint) for checkpoint in (False, True))
    assert torch.equal(plain.backward(), again.backward())
    for one, two in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_checkpointing_keeps_less(samples):
    plain, again = (saved_bytes(Step(samples, checkpoint=checkpoint)) for checkpoint in (False, True))
    assert again < 0.5 * plain
