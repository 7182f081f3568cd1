"""A local law in explicit steps: exact where it is linear, the same in batches, under the scales, on small cells."""

import numpy as np
import pytest
import torch
from graph_cases import operator_for, samples_of, spec_of, square
from scipy.sparse.linalg import eigs

from gno.graph import collate
from gno.mesh import interpolation, laplacian
from gno.mesh.laplacian import STEEPEST, even
from gno.nn.stencil import LocalLaw, MeshLaplacian
from gno.train import Case, Data, Model, Training
from gno.train.case import Time


def batch_of(*meshes, seed=0):
    """Samples with a state to start from and the usual change of a step."""
    return with_state(collate(samples_of(*meshes, spec=spec_of(*meshes, n_substeps=3))), seed)


def with_state(batch, seed=0):
    batch.state = torch.randn(len(batch.x), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    batch.change = torch.tensor([[0.3, 0.2, 0.1]] * batch.num_graphs, dtype=torch.float64)
    return batch


def test_a_linear_law_is_a_power_of_one_small_step():
    batch = batch_of(square(6))
    law = LocalLaw(operator_for(batch, n_substeps=3).config).double()
    decay, spread, gate = -0.4, 0.05, 1.3
    with torch.no_grad():  # value: decay z + spread L z; gate: a constant
        for weight in law.parameters():
            weight.zero_()
        n = batch.state.shape[1]
        law.split.weight[:n, :n], law.split.weight[:n, n : 2 * n] = decay * torch.eye(n), spread * torch.eye(n)
        law.split.bias[32:] = gate
        law.join.weight[:, :n] = torch.eye(n) / torch.nn.functional.silu(torch.tensor(gate))
    laplace = MeshLaplacian.of(batch)
    matrix = torch.stack([laplace(e[:, None])[:, 0] for e in torch.eye(len(batch.state), dtype=torch.float64)], 1)
    rate = law(torch.zeros(len(batch.state), 32, dtype=torch.float64), laplace, batch)
    for c, change in enumerate(batch.change[0]):
        step = torch.eye(len(matrix)) + change / 3 * (decay * torch.eye(len(matrix)) + spread * matrix)
        end = step @ step @ step @ batch.state[:, c]
        torch.testing.assert_close(batch.state[:, c] + change * rate[:, c], end, rtol=1e-6, atol=1e-6)


def test_scales_add_to_the_law_and_keep_integrals():
    batch = batch_of(square(7))
    model = operator_for(batch, n_substeps=3)
    laws = []
    model.law.register_forward_hook(lambda module, inputs, output: laws.append(output))
    output = model(batch)
    assert torch.allclose(output.fields[0], laws[0], atol=1e-12)  # heads start from nothing
    with torch.no_grad():
        for head in model.heads:
            head[1][2].weight.normal_()
        model.law.scales.weight.normal_()
    changed = model(batch)
    assert not torch.allclose(changed.fields[0], laws[0], atol=1e-3)
    for u, mass in zip(changed.fields[1:], changed.mass[1:], strict=True):
        assert torch.allclose(mass @ u, changed.mass[0] @ changed.fields[0], atol=1e-12)
    changed.fields[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.law.parameters())


def test_a_batch_is_its_meshes():
    meshes = [square(5), square(7, seed=1)]
    spec = spec_of(meshes[0], n_substeps=3)  # so that the second has smaller cells than the training
    together = with_state(collate(samples_of(*meshes, spec=spec)))
    assert together.n_substeps.tolist()[0] == 3 < together.n_substeps.tolist()[1] == together.most_substeps
    model = operator_for(together, n_substeps=3)
    output = model(together)
    for k, mesh in enumerate(meshes):
        alone, mine = collate(samples_of(mesh, spec=spec)), together.pos_0_batch == k
        alone.state, alone.change = together.state[mine], together.change[k : k + 1]
        assert torch.allclose(model(alone).fields[0], output.fields[0][mine], atol=1e-12)


def test_diffusion_learned_on_a_mesh_holds_on_one_four_times_as_fine():
    coarse, fine = square(9), square(33)
    spec = spec_of(coarse, n_substeps=3)
    ends = []
    for mesh in (coarse, fine):
        batch = collate(samples_of(mesh, spec=spec))
        x = torch.as_tensor(mesh.points, dtype=torch.float64)
        batch.state = torch.cos(np.pi * x).prod(1, keepdim=True).expand(-1, 3)
        batch.change = torch.ones(1, 3, dtype=torch.float64)
        law = LocalLaw(operator_for(batch, n_substeps=3).config).double()
        with torch.no_grad():
            for weight in law.parameters():
                weight.zero_()
            law.split.weight[:3, 3:6], law.split.weight[:3, 6:9] = 0.4 * torch.eye(3), 0.4 * torch.eye(3)
            law.split.bias[32:], law.join.weight[:, :3] = 1.0, torch.eye(3)
        with torch.no_grad():
            rate = law(torch.zeros(len(batch.state), 32, dtype=torch.float64), MeshLaplacian.of(batch), batch)
        ends.append((batch.state + rate)[:, 0])
        assert ends[-1].abs().max() <= 1  # with three steps on the fine mesh it is 1e5
    to = torch.as_tensor(interpolation(fine, coarse.points) @ ends[1].numpy())
    assert ends[0].norm() < 0.9 * np.linalg.norm(np.cos(np.pi * coarse.points).prod(1))
    torch.testing.assert_close(ends[0], to, rtol=0, atol=0.02)


def test_the_smoothed_laplacian_is_no_larger_and_tends_to_the_laplacian():
    differences = []
    for n in (17, 33):
        mesh = square(n)
        mesh = mesh.replace(points=np.round(mesh.points * (n - 1)) / (n - 1))  # no jitter: L is right to second order
        batch = collate(samples_of(mesh, spec=spec_of(mesh, n_substeps=3)))
        laplacian = MeshLaplacian.of(batch)
        noise = torch.randn(len(batch.x), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert laplacian.smoothed(laplacian(noise)).norm() < 0.8 * laplacian(noise).norm()
        x = torch.as_tensor(mesh.points, dtype=torch.float64)
        bent = laplacian(torch.cos(np.pi * x).prod(1, keepdim=True))
        inside = ((x - 0.5).abs() < 0.4).all(1)
        differences.append(((laplacian.smoothed(bent) - bent)[inside].norm() / bent[inside].norm()).item())
    assert differences[1] < 0.35 * differences[0] < 0.05


def test_rows_of_small_cells_are_scaled_down_and_others_left():
    mesh = square(9)
    points = mesh.points.copy()
    near = np.linalg.norm(points - points[40], axis=1) < 0.2
    points[near] = points[40] + 0.1 * (points[near] - points[40])  # a knot of cells a tenth as large
    operator = laplacian(mesh.replace(points=points))
    limited, size = even(operator), -operator.diagonal()
    kept = size <= STEEPEST * np.median(size)
    assert 0 < (~kept).sum() < len(size) / 2
    assert (
        np.abs((limited - operator)[kept]).max() == 0 and np.abs(limited @ np.ones(len(size))).max() < 1e-9 * size.max()
    )
    largest = [abs(eigs(m, k=1, return_eigenvectors=False)[0]) / np.median(size) for m in (operator, limited)]
    assert largest[0] > 10 and largest[1] < 2.5 * STEEPEST


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"model.n_substeps: expected 0 in a case without \[time\], got 4"),
        ({"time": Time(), "training": Training(epochs=1, compile=True)}, "expected false with model.n_substeps"),
        ({"time": Time(), "training": Training(epochs=1, curriculum=0.5)}, "expected 0 with model.n_substeps"),
    ],
)
def test_cases_that_have_no_use_for_it_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Case(**{"data": Data(targets=["u"]), "model": Model(n_substeps=4), "training": Training(epochs=1), **options})
