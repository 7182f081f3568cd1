"""A user's own law: its residual, energy and tangent, and what is said when it does not fit."""

import pytest
import scipy.sparse as sp
import torch
from equation_cases import box

from gno.mesh import Mesh
from gno.physics import (
    Dirichlet,
    Domain,
    Energy,
    OnCells,
    Weak,
    build_domain,
    build_problem,
    dot,
    energy,
    fluxes,
    inner,
    residual,
    tangent,
    tangent_product,
)


def density(u, grad, x, p):
    return p["k"] * (1 + u[..., 0] ** 2) * inner(grad, grad) + torch.cos(u).sum(-1) * x[..., 0]


def form(u, grad, v, grad_v, x, p):
    turned = torch.stack([grad[..., 1], -grad[..., 0]], -1)
    return p["k"] * dot(u, v) ** 1 * u[..., 1] + inner(turned, grad_v) * torch.exp(u[..., 0]) + p["f"] * v[..., 1]


LAW, FORM = Energy(density, 2), Weak(form, 2)


def case(n=2, kind="triangle"):
    torch.manual_seed(n)
    domain = build_domain(box(n, kind))
    u = torch.randn(domain.n_nodes, 2, dtype=torch.float64)
    return domain, u, {"k": torch.rand(domain.n_nodes, dtype=torch.float64), "f": torch.rand(domain.n_cells).double()}


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_the_residual_is_the_gradient_of_the_energy(kind):
    domain, u, p = case(kind=kind)
    p.pop("f")
    (expected,) = torch.autograd.grad(energy(LAW, domain, u.requires_grad_(), p).sum(), u)
    torch.testing.assert_close(residual(LAW, domain, u, p), expected)


@pytest.mark.parametrize("law", [LAW, FORM])
def test_the_tangent_is_the_derivative_of_the_residual(law):
    domain, u, p = case()
    p = p if law is FORM else {"k": p["k"]}
    matrix, du = tangent(law, domain, u, p), torch.randn_like(u)
    assert sp.issparse(matrix)
    expected = torch.autograd.functional.jacobian(lambda u: residual(law, domain, u, p).flatten(), u)
    torch.testing.assert_close(torch.from_numpy(matrix.toarray()), expected.flatten(1))
    product = tangent_product(law, domain, u, du, p)
    torch.testing.assert_close(product.flatten(), torch.from_numpy(matrix @ du.numpy().ravel()))


def test_the_tangent_does_not_depend_on_the_pieces_it_is_made_in(monkeypatch):
    domain, u, p = case()
    whole = tangent(FORM, domain, u, p)
    monkeypatch.setattr("gno.physics.forms.CHUNK", 1)
    assert abs(tangent(FORM, domain, u, p) - whole).max() < 1e-14


def test_gradients_through_fields_and_parameters_are_right_to_second_order():
    domain, u, p = case(1)
    leaves = [x.requires_grad_() for x in (u, p["k"], p["f"])]

    def value(u, k, f):
        return residual(FORM, domain, u, {"k": k, "f": f})

    assert torch.autograd.gradcheck(value, leaves)
    assert torch.autograd.gradgradcheck(value, leaves)
    assert torch.autograd.gradcheck(lambda u, k: energy(LAW, domain, u, {"k": k}), leaves[:2])


def test_a_batch_of_different_meshes_is_its_meshes():
    cases = [case(2), case(3, "quad"), case(1)]
    batch = Domain.join([domain for domain, _, _ in cases])
    u = torch.cat([u for _, u, _ in cases])
    p = {name: torch.cat([p[name] for _, _, p in cases]) for name in ("k", "f")}
    singles = [residual(FORM, domain, u, p) for domain, u, p in cases]
    torch.testing.assert_close(residual(FORM, batch, u, p), torch.cat(singles))
    energies = [energy(LAW, domain, u, {"k": p["k"]}) for domain, u, p in cases]
    torch.testing.assert_close(energy(LAW, batch, u, {"k": p["k"]}), torch.cat(energies))


def test_one_value_per_mesh_of_a_batch():
    (a, u, _), (b, w, _) = case(2), case(3)
    batch = energy(LAW, Domain.join([a, b]), torch.cat([u, w]), {"k": torch.tensor([2.0, 5.0])})
    torch.testing.assert_close(batch, torch.cat([energy(LAW, a, u, {"k": 2.0}), energy(LAW, b, w, {"k": 5.0})]))


def test_single_precision_is_close_to_double():
    domain, u, p = case()
    low = residual(FORM, domain.to(dtype=torch.float32), u.float(), p)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), residual(FORM, domain, u, p), rtol=1e-5, atol=1e-6)


def test_constants_are_in_the_precision_of_the_domain():
    domain, u, _ = case()
    number = energy(LAW, domain, u, {"k": 0.1})
    assert torch.equal(number, energy(LAW, domain, u, {"k": torch.tensor(0.1, dtype=torch.float64)}))


def test_parameters_at_nodes_on_cells_and_as_functions():
    domain, u, _ = case()
    x = torch.from_numpy(box(2).points)
    linear = energy(LAW, domain, u, {"k": x[:, 0] + 2 * x[:, 1]})
    torch.testing.assert_close(linear, energy(LAW, domain, u, {"k": lambda x: x[..., 0] + 2 * x[..., 1]}))
    cells = torch.arange(domain.n_cells, dtype=torch.float64)
    by_cell = energy(LAW, domain, u, {"k": cells})
    torch.testing.assert_close(by_cell, energy(LAW, domain, u, {"k": OnCells(cells)}))
    assert not torch.isclose(by_cell, linear)


def test_the_flux_of_a_law_is_its_derivative_at_the_points():
    domain, u, _ = case()
    ((value, slope),) = fluxes(Energy(lambda u, grad, x, p: 3 * inner(grad, grad) - u[..., 1], 2), domain, u, {})
    torch.testing.assert_close(slope, 6 * domain.gradients(u)[0])
    assert torch.equal(value[..., 1], -torch.ones_like(value[..., 1])) and not value[..., 0].any()


@pytest.mark.parametrize(
    ("law", "parameters", "message"),
    [
        (Energy(lambda u, grad, x, p: u), {}, r"law: expected one value per point, \(1, \d\) .*got \(1, \d, 1\)"),
        (Energy(lambda u, grad, x, p: u[..., 1]), {}, r"law: expected to work on u \(1, \d, 1\)"),
        (Energy(lambda u, grad, x, p: u[..., 0] * p["k"]), {}, r"parameters\['k'\]: expected by the law, got none"),
        (Energy(lambda u, grad, x, p: u[..., 0]), {"k": 1.0}, r"parameters\['k'\]: expected one of"),
        (Weak(lambda u, grad, v, grad_v, x, p: v[..., 0] + 1), {}, "linear in v"),
        (Weak(lambda u, grad, v, grad_v, x, p: u[..., 0] ** 2), {}, "linear in v"),
        (Energy(lambda u, grad, x, p: u[..., 0] * p["k"]), {"k": torch.ones(7)}, r"\['k'\]: expected 9 nodes, 8 cells"),
        (
            Energy(lambda u, grad, x, p: u[..., 0] * p["k"]),
            {"k": "kk"},
            r"\['k'\]: expected a field of the mesh \(none",
        ),
        (Energy(lambda u, grad, x, p: dot(p.vector("b", x), x)), {"b": (1.0, 2.0, 3.0)}, r"\['b'\]: expected 2 comp"),
    ],
)
def test_what_does_not_fit_is_named(law, parameters, message):
    with pytest.raises(ValueError, match=message):
        build_problem(box(2), law, parameters, [Dirichlet("boundary")])


def test_values_of_another_shape_or_type_are_named():
    domain, u, p = case()
    with pytest.raises(ValueError, match=r"u: expected \(9, 2\) of torch.float64, got \(9, 1\)"):
        residual(FORM, domain, u[:, :1], p)
    with pytest.raises(ValueError, match=r"of torch.float64, got .* of torch.float32"):
        residual(FORM, domain, u.float(), p)


def test_fields_are_found_by_name_wherever_nodes_and_cells_are_equally_many():
    mesh = box(2, "quad")
    mesh = Mesh(mesh.points, mesh.cells, cell_fields={"k": range(4)}, global_fields={"f": [2.0]})
    law = Energy(lambda u, grad, x, p: (p["k"] + p["f"]) * u[..., 0])
    problem = build_problem(mesh, law, {"k": "k", "f": "f"})
    assert isinstance(problem.parameters["k"], OnCells) and problem.parameters["f"] == 2.0
    sizes = problem.domain.cells[0].weight.sum(1)
    expected = (sizes * (2.0 + torch.arange(4))).sum()
    torch.testing.assert_close(problem.energy(torch.ones(9, 1, dtype=torch.float64))[0], expected)
