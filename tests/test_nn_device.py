"""What a GPU needs of a training step, tested where there is none: no waiting, half precision, less memory."""

from __future__ import annotations

import pytest
import torch
from graph_cases import operator_for, samples_of, square
from torch.utils._python_dispatch import TorchDispatchMode

from gno.graph import FieldSpec, collate
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
            losses = self.objective(self.batch)
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


@pytest.mark.parametrize("options", [{}, {"attention": False}, {"learned_pooling": False}, {"key_level": 2}])
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
