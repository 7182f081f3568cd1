"""Indicators: scikit-fem's jumps, nothing where there is no error, and names for what does not fit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skfem
from post_cases import twin
from skfem.helpers import dot, grad

from gno.post.fields import with_error
from gno.post.indicator import flux_error, stress_error
from gno.post.quantity import quantity
from gno.post.residual import flux_residual, stress_residual
from gno.post.stress import Elastic


def test_the_residual_of_linear_triangles_is_that_of_scikit_fem():
    case = twin("triangle")
    mesh, basis = case.mesh, case.scalar
    temperature, grid = mesh.point_fields["T"], case.scalar.mesh
    sides = [skfem.InteriorFacetBasis(grid, basis.elem, side=k) for k in (0, 1)]
    square = skfem.Functional(lambda w: dot(grad(w["a"]) - grad(w["b"]), w.n) ** 2)
    inner = square.elemental(sides[0], a=sides[0].interpolate(temperature), b=sides[1].interpolate(temperature))
    rim = skfem.FacetBasis(grid, basis.elem)
    lacking = skfem.Functional(lambda w: (3.0 * dot(grad(w["T"]), w.n) - 5.0 * (w.x[0] == 1)) ** 2)
    outer = lacking.elemental(rim, T=rim.interpolate(temperature))
    held = np.isin(grid.facets[:, rim.find], mesh.point_sets["left"]).all(0)
    around = np.zeros(mesh.n_cells)
    for k in (0, 1):
        np.add.at(around, grid.f2t[k, sides[0].find], 9.0 * inner)
    np.add.at(around, grid.f2t[0, rim.find[~held]], outer[~held])
    area = basis.dx.sum(1)
    expected = np.sqrt((area * 4.0 * area + np.sqrt(area) * around) / 24 / 3.0)
    found = flux_residual(mesh, "T", 3.0, fixed=["left"], source=2.0, inflow={"right": 5.0})
    assert np.allclose(found.cells, expected, rtol=1e-10)


@pytest.mark.parametrize("cell_type", ["triangle6", "tetra10"])
def test_an_exact_field_has_no_error(cell_type):
    mesh = twin(cell_type).mesh
    mesh = mesh.replace(point_sets={"all": np.arange(mesh.n_nodes)})
    x = mesh.points
    mesh = mesh.with_point_fields(T=x[:, 0] ** 2 + x[:, 0] * x[:, 1], u=x @ np.triu(np.ones((mesh.dim, mesh.dim))))
    material = Elastic(3.0, 0.3, "strain" if mesh.dim == 2 else None)
    for found in (
        flux_residual(mesh, "T", fixed=["all"], source=-2.0),
        flux_error(mesh, "T"),
        stress_residual(mesh, "u", material, fixed=["all"]),
        stress_error(mesh, "u", material),
    ):
        assert found.relative < 1e-9 and found.energy > 0.1
    assert flux_residual(mesh, "T", fixed=["all"], source=0.0).relative > 0.01


def test_an_estimate_is_a_cell_field_that_show_can_draw():
    mesh = twin("quad").mesh
    estimate = flux_error(mesh, "T")
    drawn = quantity(with_error(mesh, estimate), "error_estimate")
    assert drawn.location == "cell" and np.array_equal(drawn.values, estimate.cells)
    assert estimate.total == pytest.approx(np.sqrt((estimate.cells**2).sum())) and "%" in str(estimate)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda mesh: flux_residual(mesh, "T", fixed=["nose"]), "set 'nose': expected one of"),
        (lambda mesh: flux_residual(mesh, "T", fixed=[], inflow={"nose": 1.0}), "set 'nose': expected one of"),
        (lambda mesh: flux_residual(mesh, "T", fixed=[], source=np.ones((3, 2))), "load: expected shape (1,)"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=r"\w") as found:
        call(twin("quad").mesh)
    assert says in str(found.value)


def test_the_example_runs_and_its_forces_balance(tmp_path):
    script = Path(__file__).parent.parent / "examples" / "post_processing.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "0.15"], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-6
    assert (tmp_path / "error.png").is_file() and (tmp_path / "line.vtu").is_file()
