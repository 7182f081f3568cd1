"""What only a device can tell: the answers and gradients of the host, the same bits again, no waiting, CUDA graphs.

Without a CUDA device all of it is skipped. GNO_DEVICE=cpu walks through the same lines on a CPU.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
import train_cases
from graph_cases import operator_for, samples_of, square
from test_nn_device import Step, relative, single
from test_train_device import CASES, loop_of

from gno.graph import MeshData, build_sample, collate
from gno.mesh import Mesh
from gno.train import Run, train
from gno.train.checkpoint import load_tensors
from gno.train.sources import fit_spec

DEVICE = "cuda" if torch.cuda.is_available() else os.environ.get("GNO_DEVICE", "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="no CUDA device")

OPERATORS = {
    "plain": {},
    "coarse keys": {"key_level": 2, "mesh_key_level": 2},
    "geometric pooling": {"learned_pooling": False},
    "no attention": {"attention": False},
    "conduction": {"conduction": True},
    "checkpoint": {"checkpoint": True},
    "noise": {"noise_head": True},
}
KINDS = {"plain": {}, "graded": {"graded": True}, "stencils": {"n_stencils": 1}, "near field": {"n_near": 1}}


def test_the_device_is_told():
    if DEVICE == "cuda":
        print(torch.cuda.get_device_name(), torch.__version__, torch.backends.cudnn.version())  # noqa: T201
        assert torch.cuda.get_device_capability() >= (8, 0)


def answer(step: Step) -> list[torch.Tensor]:
    """Fields of every scale and gradient of all weights, on the host."""
    step.optimiser.zero_grad()
    fields = step.model(step.batch).fields
    step.backward()
    gradient = torch.cat([p.grad.flatten() for p in step.model.parameters() if p.grad is not None])
    return [x.detach().cpu() for x in (*fields, gradient)]


def assert_alike(found: list[torch.Tensor], known: list[torch.Tensor], tolerance: float) -> None:
    for one, two in zip(found, known, strict=True):
        assert relative(one, two) < tolerance


@pytest.mark.parametrize("kind", OPERATORS)
def test_fields_and_gradients_are_those_of_the_host(kind):
    samples = single(samples_of(square(7), square(9, seed=1)))
    here, there = (Step(copy.deepcopy(samples), device=d, **OPERATORS[kind]) for d in ("cpu", DEVICE))
    known = answer(here)
    assert_alike(answer(there), known, 2e-4)
    short = Step(copy.deepcopy(samples), device=DEVICE, precision=torch.bfloat16, **OPERATORS[kind])
    assert_alike(answer(short)[-1:], known[-1:], 8e-2)


def prepared(kind: str) -> list[MeshData]:
    """Samples of periodic meshes in a cube, which may be graded or have a Laplacian."""
    case, meshes = CASES["graded periodic" if kind == "graded" else "periodic"]()
    case = case.model_copy(update={"model": case.model.model_copy(update=KINDS[kind])})
    spec = fit_spec(case, meshes)
    return [build_sample(mesh, spec) for mesh in meshes]


@pytest.mark.parametrize("kind", KINDS)
def test_periodic_and_graded_meshes_are_as_on_the_host(kind):
    samples = prepared(kind)
    options = {"stencils": {"n_stencils": 1}, "near field": {"n_near": 1, "n_shells": 2}}
    operator = operator_for(samples[0], **options.get(kind, {})).float()
    found = []
    for device in ("cpu", DEVICE):
        model, batch = copy.deepcopy(operator).to(device), collate(samples).to(device)
        out = model(batch)
        gradient = torch.autograd.grad(
            sum(x.square().sum() for x in out.fields), list(model.parameters()), allow_unused=True
        )
        found.append(
            [x.detach().cpu() for x in (*out.fields, torch.cat([g.flatten() for g in gradient if g is not None]))]
        )
    assert_alike(*found, 5e-4)


@pytest.mark.parametrize("kind", ["no attention", "conduction"])
def test_the_same_bits_on_every_run(kind):
    """Without fused attention, whose way back adds up in no fixed order."""
    samples = single(samples_of(square(7), square(9, seed=1)))
    steps = [Step(copy.deepcopy(samples), device=DEVICE, **{**OPERATORS[kind], "attention": False}) for _ in range(2)]
    for one, two in zip(*(answer(step) for step in steps), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("kind", CASES)
def test_no_step_waits(kind):
    loop, batch = loop_of(*CASES[kind](), device=torch.device(DEVICE))
    loop.step(batch, 0.5)  # what is moved to the device once, and what is compiled
    loop.step(batch, 0.6)
    before = float(loop.sums.sum())
    strict(True)
    try:
        loop.step(batch, 0.9)
    finally:
        strict(False)
    assert float(loop.sums.sum()) != before and bool(loop.sums.isfinite().all())


def strict(on: bool) -> None:
    """Whether waiting for the device is an error."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if on else "default")


def trained(folder, **training) -> tuple[Run, dict[str, torch.Tensor], Mesh]:
    """A short training on the device, read from its folder, with its weights and a mesh it has not seen."""
    settings = {"device": DEVICE, "epochs": 2, **training}
    if DEVICE == "cpu":  # inner loops of torch.compile take a C++ compiler and a minute
        settings["compile"] = False
    train(train_cases.case(**settings), folder, meshes=train_cases.squares(5), progress=False)
    weights = load_tensors(folder / "last.safetensors")[0]
    return Run.load(folder, device=DEVICE), weights, train_cases.square(9)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_trained_saved_read_and_asked(tmp_path, precision):
    run, _, mesh = trained(tmp_path / precision, precision=precision)
    u = run.predict(mesh).mesh.point_fields["predicted_u"]
    assert u.shape == mesh.point_fields["u"].shape and abs(u).max() < 100
    host = Run.load(tmp_path / precision, device="cpu").predict(mesh).mesh.point_fields["predicted_u"]
    assert relative(torch.tensor(u), torch.tensor(host)) < (1e-4 if precision == "32" else 2e-2)


def test_an_interrupted_training_goes_on(tmp_path):
    trained(tmp_path / "run")
    case = train_cases.case(device=DEVICE, epochs=4)
    train(case, tmp_path / "run", meshes=train_cases.squares(5), resume=True, progress=False)
    weights = load_tensors(tmp_path / "run" / "last.safetensors")[0]
    assert all(x.isfinite().all() for x in weights.values())


def test_trained_through_cuda_graphs_as_without(tmp_path):
    """Full precision: what differs is the order of sums."""
    (_, plain, _), (run, filled, mesh) = (trained(tmp_path / str(c), compile=c, epochs=6) for c in (False, True))
    for key, value in plain.items():
        if value.is_floating_point() and value.numel() > 1:
            assert relative(filled[key], value) < 2e-2, key
    assert abs(run.predict(mesh).mesh.point_fields["predicted_u"]).max() < 100
