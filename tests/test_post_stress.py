"""Gradients, strain, stress and energy are those of scikit-fem; invariants are those of the textbook."""

import numpy as np
import pytest
from post_cases import ELEMENTS, lame, stress_form, twin
from skfem.helpers import sym_grad, trace

from gno.mesh import CellBlock, Mesh
from gno.post.fields import with_stress
from gno.post.gauss import cell_mean, flux, gradient, integral
from gno.post.stress import Elastic, compliance, strain, strain_energy, stress
from gno.post.tensors import components, principal, tensor_of, tresca, von_mises


def materials(dim):
    return [Elastic(7.0, 0.3, plane) for plane in (("stress", "strain") if dim == 2 else (None,))]


def mean(basis, values):
    """Mean over cells of values (…, n_cells, n_points)."""
    return ((values * basis.dx).sum(-1) / basis.dx.sum(-1)).T


def skfem_stress(case, material):
    """Stress (3, 3, n_cells, n_points), by the textbook and scikit-fem's gradients."""
    small = sym_grad(case.vector.interpolate(case.u))
    dim = len(small)
    lam, mu = lame(7.0, 0.3, material.plane)
    full = np.zeros((3, 3, *small.shape[2:]))
    full[:dim, :dim] = 2 * mu * small + lam * trace(small) * np.eye(dim)[..., None, None]
    if material.plane == "strain":
        full[2, 2] = 0.3 * (full[0, 0] + full[1, 1])
    return full


@pytest.mark.parametrize("cell_type", ELEMENTS)
def test_gradient_stress_and_energy_are_those_of_scikit_fem(cell_type):
    case = twin(cell_type)
    slope = case.scalar.interpolate(case.mesh.point_fields["T"]).grad
    assert np.allclose(cell_mean(gradient(case.mesh, "T")), mean(case.scalar, slope), rtol=0, atol=1e-10)
    for material in materials(case.mesh.dim):
        full = skfem_stress(case, material)
        ours = cell_mean(stress(case.mesh, "u", material))
        assert np.allclose(ours, mean(case.vector, full), rtol=0, atol=1e-10)
        misses = cell_mean(stress(case.mesh, "u", material).map(von_mises)) - mean(
            case.vector, von_mises(np.moveaxis(full, (0, 1), (-2, -1)))
        )
        assert np.abs(misses).max() < 1e-10
        stiffness = stress_form(*lame(7.0, 0.3, material.plane)).assemble(case.vector)
        expected = case.u @ stiffness @ case.u / 2
        assert strain_energy(case.mesh, "u", material) == pytest.approx(expected, rel=1e-12)


def test_flux_with_fields_as_conductivity():
    case = twin("triangle")
    rng = np.random.default_rng(1)
    per_cell, per_node = rng.uniform(1, 2, case.mesh.n_cells), rng.uniform(1, 2, case.mesh.n_nodes)
    tensor = rng.normal(size=(case.mesh.n_cells, 2, 2))
    mesh = case.mesh.replace(cell_fields={"k": per_cell, "K": tensor}).with_point_fields(nodal=per_node)
    slope = np.asarray(case.scalar.interpolate(mesh.point_fields["T"]).grad)
    assert np.allclose(cell_mean(flux(mesh, "T", "k")), -per_cell[:, None] * mean(case.scalar, slope))
    at_points = np.asarray(case.scalar.interpolate(per_node))
    assert np.allclose(cell_mean(flux(mesh, "T", "nodal")), -mean(case.scalar, at_points * slope))
    anisotropic = np.einsum("cij,cj->ci", tensor, mean(case.scalar, slope))
    assert np.allclose(cell_mean(flux(mesh, "T", "K")), -anisotropic)


def test_mixed_cells_and_lines_beside_them():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 0.5]])
    blocks = (
        CellBlock("line", np.array([[0, 1]])),
        CellBlock("quad", np.array([[0, 1, 2, 3]])),
        CellBlock("triangle", np.array([[1, 4, 2]])),
    )
    mesh = Mesh(points, blocks, {"T": points @ [2.0, -1.0]})
    found = cell_mean(gradient(mesh, "T"))
    assert np.isnan(found[0]).all()
    assert np.allclose(found[1:], [2.0, -1.0])
    assert np.allclose(integral(gradient(mesh, "T")), [3.0, -1.5])


@pytest.mark.parametrize("cell_type", ELEMENTS)
def test_rigid_motion_gives_no_stress(cell_type):
    mesh = twin(cell_type).mesh
    turn = np.triu(np.ones((mesh.dim, mesh.dim)), 1)
    mesh = mesh.with_point_fields(u=mesh.points @ (turn - turn.T) + 3.0)
    for material in materials(mesh.dim):
        assert all(np.abs(part).max() < 1e-12 for part in stress(mesh, "u", material).values)


def test_compliance_is_the_inverse_of_hooke():
    mesh = twin("quad").mesh
    for material in materials(2):
        e = strain(mesh, "u", material)
        back = compliance(stress(mesh, "u", material), material)
        assert np.allclose(back.values[0], e.values[0], atol=1e-12)


def test_plane_stress_and_strain_differ_as_they_should():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mesh = Mesh(points, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"u": points * [1e-3, 0.0]})
    thin = cell_mean(stress(mesh, "u", Elastic(200e3, 0.25, "stress")))[0]
    thick = cell_mean(stress(mesh, "u", Elastic(200e3, 0.25, "strain")))[0]
    assert np.allclose(np.diag(thin), [200 / (1 - 0.0625), 50 / (1 - 0.0625), 0])
    assert np.allclose(np.diag(thick), [240, 80, 80])


def test_invariants_of_known_states():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for values, mises, shear in (((5, 5, 5), 0, 0), ((4, 0, 0), 4, 4), ((1, 0, -1), np.sqrt(3), 2)):
        tensor = rotation @ np.diag(np.array(values, dtype=float)) @ rotation.T
        assert np.allclose(principal(tensor), values)
        assert np.allclose([von_mises(tensor), tresca(tensor)], [mises, shear])
        assert np.allclose(tensor_of(components(tensor)), tensor)


def test_fields_of_a_prediction_are_named_as_such_and_scalar_components_make_a_vector():
    case = twin("tetra")
    u = case.mesh.point_fields["u"]
    mesh = case.mesh.with_point_fields(predicted_u=u, ux=u[:, 0], uy=u[:, 1], uz=u[:, 2])
    material = Elastic(7.0, 0.3)
    plain, predicted = with_stress(mesh, "u", material), with_stress(mesh, "predicted_u", material)
    apart = with_stress(mesh, ["ux", "uy", "uz"], material)
    for name in ("strain", "stress", "von_mises", "tresca", "principal_stress"):
        assert np.array_equal(plain.point_fields[name], predicted.point_fields[f"predicted_{name}"])
        assert np.array_equal(plain.cell_fields[name], apart.cell_fields[name])
    assert plain.point_fields["stress"].shape == (mesh.n_nodes, 6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda mesh: stress(mesh, "w", Elastic(1.0, 0.3, "stress")),
            "field 'w': expected a field on nodes, one of u, T",
        ),
        (lambda mesh: stress(mesh, "T", Elastic(1.0, 0.3, "stress")), "field 'T': expected 2 components, got 1"),
        (lambda mesh: stress(mesh, "u", Elastic(1.0, 0.3)), "plane: expected 'stress' or 'strain'"),
        (lambda mesh: stress(mesh, "u", Elastic("E", 0.3, "stress")), "parameter 'E': expected a number or a field"),
        (lambda mesh: flux(mesh, "u"), "field 'u': expected a scalar for a flux, got 2 components"),
        (lambda mesh: Elastic(-1.0, 0.3), "young: expected a positive modulus, got -1"),
        (lambda mesh: Elastic(1.0, 0.5), "poisson: expected a ratio"),
        (lambda mesh: Elastic(1.0, 0.3, "x"), "plane: expected 'stress', 'strain' or None"),
        (lambda mesh: gradient(mesh.with_point_fields(T=np.full(mesh.n_nodes, np.nan)), "T"), "not finite"),
        (lambda mesh: strain(surface(mesh), "u"), "expected cells that fill the plane or the space"),
        (lambda mesh: stress(twin("tetra").mesh, "u", Elastic(1.0, 0.3, "stress")), "plane: expected none for a solid"),
    ],
)
def test_bad_input_is_named(change, says):
    with pytest.raises(ValueError, match=r"\w") as found:
        change(twin("triangle").mesh)
    assert says in str(found.value)


def surface(mesh):
    """The mesh bent into space."""
    x, y = mesh.points.T
    return mesh.replace(points=np.stack([x, y, x**2], axis=1)).with_point_fields(u=np.zeros((mesh.n_nodes, 3)))
