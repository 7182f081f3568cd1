"""A step of every kind of training with all tensors on another device than the host, where there is no GPU.

The device is torch's `meta`, which knows shapes and no values. So whatever was made on the host and forgotten there
fails, and so does whatever the host would have to wait for: values, shapes that depend on them, copies.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import test_physics_in_time as physics_in_time
import test_physics_training as physics
import time_cases
import torch
import train_cases
from test_periodic import torus
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gno.train import Case, Data, Model, Training
from gno.train.blueprint import Blueprint
from gno.train.case import Time, Uncertainty
from gno.train.interrupt import Stop
from gno.train.loop import Loop
from gno.train.physics import WEIGHTINGS
from gno.train.sources import prepare
from gno.train.task import task_of

ELSEWHERE = torch.device("meta")
LAW = Model(width=16, n_blocks=1, n_heads=1, n_levels=2, n_substeps=2, n_stencils=1)


class OneDevice(TorchDispatchMode):
    """Fails on operators with tensors of two devices, single numbers aside, and on copies between devices."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor) and x.dim()]
        kinds = {x.device.type for x in tensors}
        assert len(kinds) < 2, f"{function} has tensors on {' and '.join(sorted(kinds))}"
        return result


class Elsewhere:
    """What a loop asks of Fabric, on one device."""

    world_size, global_rank = 1, 0

    def __init__(self, device):
        self.device = device

    def setup(self, module, optimiser):
        return module.to(self.device), optimiser

    def backward(self, loss):
        loss.backward()

    def clip_gradients(self, module, optimiser, *, max_norm, error_if_nonfinite):
        return torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)


def steady(**uncertainty):
    case = train_cases.case()
    return case.model_copy(update={"uncertainty": Uncertainty(**uncertainty)}) if uncertainty else case


def periodic(**options):
    model = Model(width=16, n_blocks=1, n_heads=1, **options)
    return Case(data=Data(inputs=["a"], targets=["u"]), model=model, training=Training(epochs=1, device="cpu"))


def with_physics(**changes):
    return physics.case(changes), [physics.domain(0, labelled=True), physics.domain(1), physics.domain(2)]


def in_time(time, **more):
    case = time_cases.case(time, targets=("u", "v"))
    return case.model_copy(update=more), [time_cases.decay(seed) for seed in range(3)]


CASES = {
    "steady": lambda: (steady(), train_cases.squares(3)),
    "dropout": lambda: (steady(method="dropout", noise="beta_nll"), train_cases.squares(3)),
    "variational": lambda: (steady(method="variational", noise="crps"), train_cases.squares(3)),
    "checkpoint": lambda: (periodic(checkpoint=True), [torus(9), torus(11)]),
    "periodic": lambda: (periodic(), [torus(9), torus(11)]),
    "graded": lambda: (periodic(graded=True), [torus(n).replace(period=()) for n in (9, 11)]),
    "graded periodic": lambda: (periodic(graded=True), [torus(9), torus(11)]),
    "conduction": lambda: (periodic(conduction=True), [torus(n).replace(period=()) for n in (9, 11)]),
    "no levels": lambda: (periodic(n_levels=1), [torus(9), torus(11)]),
    "physics": with_physics,
    "all physics": lambda: with_physics(**physics.ALL, weights="relobralo"),
    "residual": lambda: with_physics(**physics.ALL, loss="residual", weights="gradient_norm"),
    "conservative": lambda: with_physics(conservative=True),
    "time": lambda: in_time(Time(unroll=3, gradient=2, history=2, conserve="u")),
    "local law": lambda: in_time(Time(unroll=2), model=LAW),
    "physics in time": lambda: (
        physics_in_time.case(physics_in_time.EVERYTHING),
        [physics_in_time.heat(seed) for seed in range(3)],
    ),
}  # fmt: skip


def loop_of(case, meshes, device=ELSEWHERE):
    """The loop of a training, and a batch of it, both elsewhere."""
    prepared = prepare(case, {"train": meshes}, progress=False)
    blueprint = Blueprint.fit(case, prepared.spec, prepared.samples["train"])
    model = blueprint.model()
    task = task_of(blueprint, prepared.samples, model)
    task.objective.to(device)  # before there is an optimiser: there are no weights to keep
    loop = Loop(
        Elsewhere(device),
        model,
        task.samples,
        task.terms,
        task.validate,
        case.training.model_copy(update={"log_every": 100}),
        save=lambda *parts: None,
        report=SimpleNamespace(),
        stop=Stop(),
        objective=task.objective,
        collate=task.collate,
        weighting=WEIGHTINGS[case.physics.weights] if case.physics else None,
    )
    return loop, task.collate([task.samples[0], task.samples[1]]).to(device)


@pytest.mark.parametrize("kind", CASES)
def test_a_step_stays_on_its_device_and_never_waits(kind, monkeypatch):
    loop, batch = loop_of(*CASES[kind]())
    for group in loop.optimiser.param_groups:  # `meta` has no fused form
        group["fused"] = False
    monkeypatch.setattr(torch, "autocast", lambda *options, **more: contextlib.nullcontext())  # unknown to `meta`
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: False)
    loop.step(batch, 0.5)  # what is moved to the device once
    with OneDevice():
        loop.step(batch, 0.9)


@pytest.mark.parametrize(
    "forgets",
    [
        lambda here, there: here @ there.T,
        lambda here, there: here.index_select(0, torch.zeros(2, dtype=torch.long)),
        lambda here, there: here + there.to(here.device),
        lambda here, there: here.sum().item(),
        lambda here, there: here[here > 0],
    ],
)
def test_what_was_forgotten_is_seen(forgets):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OneDevice():
        forgets(torch.empty(4, 3, device=ELSEWHERE), torch.ones(4, 3))
