"""The data generators: are they solutions of the equations they claim, and the same ones every time?"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skfem

from gno.demo import plates
from gno.demo.shapes import Star, random_star, scatter_stars, triangulate
from gno.mesh import read

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
data, diffusion, flow = (importlib.import_module(name) for name in ("data", "diffusion", "flow"))

GENERATORS = [
    pytest.param(plates.plate, 0.11, id="plate"),
    pytest.param(data.plates, 0.11, id="plates"),
    pytest.param(data.diffusion_smooth, 0.06, id="diffusion_smooth"),
    pytest.param(data.diffusion_grains, 0.06, id="diffusion_grains"),
    pytest.param(data.flow, 0.12, id="flow"),
]


def disc(radius: float, center=(0.0, 0.0)) -> Star:
    return Star(np.array(center), radius, np.zeros(4), np.zeros(4))


def plain_plate(traction, holes=(), modulus=lambda x: np.full(len(x), 2e3)) -> plates.Plate:
    return plates.Plate(150.0, holes, np.array(traction), modulus)


def without_clock(mesh):
    fields = {key: value for key, value in mesh.global_fields.items() if key != "solver_seconds"}
    return mesh.replace(global_fields=fields)


def arrays(mesh) -> dict[str, bytes]:
    mesh = without_clock(mesh)
    kinds = ("point_fields", "cell_fields", "global_fields", "point_sets")
    fields = {f"{kind} {key}": value.tobytes() for kind in kinds for key, value in getattr(mesh, kind).items()}
    return {"points": mesh.points.tobytes(), "cells": mesh.cells[0].nodes.tobytes(), **fields}


# --- plates -----------------------------------------------------------------------------------------------------------


def test_uniform_tension_is_exact():
    problem = plain_plate([30.0, 0.0])
    mesh = plates.plate_mesh(problem, 0.2)
    basis, stiffness, load = plates.assemble_plane_stress(mesh, problem.modulus, problem.traction)
    strain = np.array([[30 / 2e3], [-plates.POISSON * 30 / 2e3]])
    exact = np.empty(basis.N)
    for i in range(2):
        dofs = np.concatenate([basis.nodal_dofs[i], basis.facet_dofs[i]])
        exact[dofs] = strain[i] * basis.doflocs[i, dofs]
    left = np.flatnonzero(basis.doflocs[0] == 0)
    u = plates.solve_with_values(stiffness, load, left, exact[left])
    np.testing.assert_allclose(u, exact, atol=1e-12 * np.abs(exact).max())
    stress = plates.nodal_stress(basis, problem.modulus, exact)
    np.testing.assert_allclose(stress, np.tile([30.0, 0, 0], (mesh.n_nodes, 1)), atol=1e-10)


def test_reaction_of_the_clamp_balances_the_traction():
    problem = plates.random_plate(5, heterogeneous=True)
    mesh = plates.plate_mesh(problem, 0.11)
    basis, stiffness, load = plates.assemble_plane_stress(mesh, problem.modulus, problem.traction)
    clamped = np.flatnonzero(basis.doflocs[0] == 0)
    u = plates.solve_with_values(stiffness, load, clamped, np.zeros(len(clamped)))
    residual = stiffness @ u - load
    applied = problem.traction * plates.HEIGHT
    for i in range(2):
        dofs = np.intersect1d(clamped, np.concatenate([basis.nodal_dofs[i], basis.facet_dofs[i]]))
        assert residual[dofs].sum() == pytest.approx(-applied[i], rel=1e-9)
    delivered = plates.plate(5, 0.11, heterogeneous=True).point_fields["displacement"]
    np.testing.assert_allclose(delivered, u[basis.nodal_dofs].T, atol=1e-12 * np.abs(u).max())
    assert not delivered[mesh.point_sets["left"]].any()


def test_stress_concentration_at_a_round_hole():
    # Pilkey, Peterson's Stress Concentration Factors, chart 4.1: circular hole in a strip of finite width, d/W = 0.1
    narrowing = 1 - 0.1
    factor = (2 + 0.284 * narrowing - 0.6 * narrowing**2 + 1.32 * narrowing**3) / narrowing
    problem = plain_plate([10.0, 0.0], holes=(disc(5.0, (75.0, 50.0)),))
    mesh = plates.plate_mesh(problem, 0.025)
    _, stress = plates.solve_plane_stress(mesh, problem.modulus, problem.traction)
    assert stress[mesh.point_sets["holes"], 0].max() / 10 == pytest.approx(factor, rel=0.03)


def test_compliance_converges_at_second_order():
    problem = plates.random_plate(2, heterogeneous=True)

    def compliance(spacing):
        mesh = plates.plate_mesh(problem, spacing)
        displacement, _ = plates.solve_plane_stress(mesh, problem.modulus, problem.traction)
        right = mesh.point_sets["right"][np.argsort(mesh.points[mesh.point_sets["right"], 1])]
        return np.trapezoid(displacement[right] @ problem.traction, mesh.points[right, 1])

    coarse, middle, fine = (compliance(h) for h in (0.11, 0.055, 0.0275))
    # (1 − 1/16) / (1/4 − 1/16) = 5 for errors that fall like h², 2.5 − 1 + … = 3 for errors that fall like h
    assert abs(coarse - fine) / abs(middle - fine) > 4
    assert abs(middle - fine) / fine < 0.01


def test_stress_of_a_plate_scales_with_its_traction():
    problem = plates.random_plate(1)
    mesh = plates.plate_mesh(problem, 0.2)
    once, _ = plates.solve_plane_stress(mesh, problem.modulus, problem.traction)
    twice, _ = plates.solve_plane_stress(mesh, problem.modulus, 2 * problem.traction)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-9, atol=1e-12)


# --- diffusion --------------------------------------------------------------------------------------------------------


def test_diffusion_on_a_disc_converges_at_second_order():
    # a = 1 / (1 + r²) and −∇·(a∇u) = 1 give u = (1 − r²)/4 + (1 − r⁴)/8; the polygon's sides make the error h²
    def error(spacing):
        mesh = diffusion.region_mesh(disc(1.0), (), spacing)
        basis = skfem.Basis(plates.skfem_mesh(mesh), skfem.ElementTriP2(), intorder=6)
        x, y = np.asarray(basis.global_coordinates())
        u, _ = diffusion.solve_diffusion(basis, 1 / (1 + x**2 + y**2))
        r = np.linalg.norm(mesh.points, axis=1)
        return np.abs(u - (1 - r**2) / 4 - (1 - r**4) / 8).max()

    errors = np.array([error(h) for h in (0.2, 0.1, 0.05)])
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2, atol=0.25)


@pytest.mark.parametrize("generator", [data.diffusion_smooth, data.diffusion_grains])
def test_diffusion_obeys_the_maximum_principle(generator):
    for seed in range(3):
        mesh = generator(seed, 0.05)
        u = mesh.point_fields["u"]
        border = np.concatenate([mesh.point_sets["outside"], mesh.point_sets["holes"]])
        inner = np.setdiff1d(np.arange(mesh.n_nodes), border)
        assert not u[border].any()
        assert u[inner].min() > 0
        # on the disc around the region, with the lowest conductivity everywhere, u would be larger
        lowest = min(
            field["conductivity"].min() for field in (mesh.point_fields, mesh.cell_fields) if "conductivity" in field
        )
        assert u.max() < (np.linalg.norm(mesh.points, axis=1).max() ** 2) / (4 * lowest)


def test_grains_have_two_conductivities():
    values, counts = np.unique(data.diffusion_grains(0, 0.05).cell_fields["conductivity"], return_counts=True)
    assert values.tolist() == [1.0, 40.0]
    assert counts.min() > 0.1 * counts.sum()


# --- flow -------------------------------------------------------------------------------------------------------------


def test_flow_between_plates_is_exact():
    problem = flow.Channel((), lambda y: 4 * y * (1 - y))
    mesh = flow.channel_mesh(problem, 0.25)
    velocity, pressure = flow.solve_flow(mesh, problem.inlet).nodal_values()
    x, y = mesh.points.T
    np.testing.assert_allclose(velocity, np.stack([4 * y * (1 - y), 0 * y], axis=1), atol=1e-9)
    np.testing.assert_allclose(pressure, 8 * flow.VISCOSITY * (flow.LENGTH - x), atol=1e-9)


def test_flow_is_free_of_divergence_and_keeps_its_volume():
    problem = flow.random_channel(3)
    mesh = flow.channel_mesh(problem, 0.12)
    solution = flow.solve_flow(mesh, problem.inlet)
    inflow = np.trapezoid(problem.inlet(np.linspace(0, 1, 1001)), dx=1e-3)
    assert np.abs(solution.divergence @ solution.velocity).max() < 1e-11 * inflow
    facets = mesh_facets(solution.velocity_basis.mesh, lambda x: x[0] == flow.LENGTH)
    outlet = skfem.FacetBasis(solution.velocity_basis.mesh, solution.velocity_basis.elem, facets=facets, intorder=4)
    outflow = skfem.Functional(lambda w: w["u"][0]).assemble(outlet, u=outlet.interpolate(solution.velocity))
    assert outflow == pytest.approx(inflow, rel=1e-3)
    velocity, _ = solution.nodal_values()
    assert not velocity[mesh.point_sets["obstacles"]].any()
    assert not velocity[mesh.point_sets["walls"]].any()
    inlet = mesh.point_sets["inlet"]
    np.testing.assert_array_equal(velocity[inlet, 0], problem.inlet(mesh.points[inlet, 1]))
    assert not velocity[inlet, 1].any()


def mesh_facets(triangles, where):
    return triangles.facets_satisfying(where, boundaries_only=True)


# --- the same problem, every time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("generator", "spacing"), GENERATORS)
def test_same_seed_gives_the_same_bits(generator, spacing):
    generator(8, spacing)  # what gmsh has done before must not matter
    first, again, other = generator(7, spacing), generator(7, spacing), generator(8, spacing)
    assert arrays(first) == arrays(again)
    assert arrays(first) != arrays(other)


@pytest.mark.parametrize(("generator", "spacing"), GENERATORS)
def test_another_spacing_is_the_same_problem(generator, spacing):
    coarse, fine = generator(4, spacing), generator(4, spacing / 2)
    assert fine.n_nodes > 2.5 * coarse.n_nodes
    assert coarse.point_sets.keys() == fine.point_sets.keys()
    for key, value in without_clock(coarse).global_fields.items():
        np.testing.assert_array_equal(value, fine.global_fields[key])
    assert area(fine) == pytest.approx(area(coarse), rel=0.02)
    for name in set(coarse.point_fields) - {"von_mises"}:
        a, b = mean(coarse, name), mean(fine, name)
        np.testing.assert_allclose(a, b, atol=0.1 * np.abs(fine.point_fields[name]).max())


def area(mesh) -> float:
    return float(skfem.Basis(plates.skfem_mesh(mesh), skfem.ElementTriP1()).dx.sum())


def mean(mesh, name: str) -> np.ndarray:
    values = mesh.point_fields[name][mesh.cells[0].nodes].mean(1)
    weights = skfem.Basis(plates.skfem_mesh(mesh), skfem.ElementTriP1()).dx.sum(-1)
    return np.average(values, axis=0, weights=weights)


def test_nodes_of_holes_lie_on_their_curves():
    problem = plates.random_plate(3)
    for spacing in (0.1, 0.05):
        mesh = plates.plate_mesh(problem, spacing)
        nodes = mesh.points[mesh.point_sets["holes"]]
        offsets = [nodes - hole.center for hole in problem.holes]
        misses = [
            np.linalg.norm(d, axis=1) - h.radii(np.arctan2(d[:, 1], d[:, 0]))
            for d, h in zip(offsets, problem.holes, strict=True)
        ]
        assert np.abs(misses).min(0).max() < 1e-3  # mm


def test_stars_keep_their_distance():
    rng = np.random.default_rng(0)
    box = np.array([[0.0, 0.0], [2.0, 1.0]])
    stars = scatter_stars(
        rng, 4, box=box, radius=(0.05, 0.15), gap=0.1, inside=lambda x: np.all((x > box[0]) & (x < box[1]), axis=1)
    )
    outlines = [star.polygon(0.01) for star in stars]
    for i, a in enumerate(outlines):
        assert np.minimum(a - box[0], box[1] - a).min() >= 0.1 - 1e-3
        for b in outlines[:i]:
            assert np.linalg.norm(a[:, None] - b, axis=-1).min() >= 0.1
    assert all(np.ptp(star.radii(np.linspace(0, 6.3, 500))) > 0.05 * star.radius for star in stars)


# --- gmsh and processes -----------------------------------------------------------------------------------------------


def test_meshing_is_silent_and_leaves_gmsh_as_it_was(capfd):
    gmsh = pytest.importorskip("gmsh")
    outline = random_star(np.random.default_rng(0), np.zeros(2), 1.0).polygon(0.2)
    nodes, _ = triangulate(outline)
    assert not gmsh.isInitialized()
    gmsh.initialize(interruptible=False)
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.add("mine")
        gmsh.model.add("another")
        gmsh.model.setCurrent("mine")
        np.testing.assert_array_equal(triangulate(outline)[0], nodes)
        assert gmsh.isInitialized()
        assert gmsh.model.getCurrent() == "mine"
    finally:
        gmsh.finalize()
    assert capfd.readouterr() == ("", "")


def test_after_meshing_a_broken_pipe_is_still_an_exception():
    code = (
        "import os, numpy as np\n"
        "from gno.demo.shapes import triangulate\n"
        "triangulate(np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]))\n"
        "reader, writer = os.pipe()\n"
        "os.close(reader)\n"
        "os.write(writer, b'x')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "BrokenPipeError" in done.stderr, done


def test_written_plates_are_the_computed_ones(tmp_path):
    paths = plates.write_plates(tmp_path / "new", 3, spacing=0.2, heterogeneous=True, seed0=4, workers=2)
    assert [path.name for path in paths] == ["plate_000004.vtu", "plate_000005.vtu", "plate_000006.vtu"]
    for seed, path in zip((4, 5, 6), paths, strict=True):
        assert arrays(read(path)) == arrays(plates.plate(seed, 0.2, heterogeneous=True))


def test_cached_data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "CACHE", tmp_path)
    train = data.dataset("diffusion_grains", "train", 2, 0.1)
    test = data.dataset("diffusion_grains", "test", 2, 0.1, workers=1)
    assert not {mesh.source for mesh in train} & {mesh.source for mesh in test}
    assert arrays(train[1]) == arrays(data.diffusion_grains(1, 0.1))
    assert sorted(path.suffix for path in tmp_path.glob("*/*")) == [".vtu"] * 4
    monkeypatch.setitem(data.GENERATORS, "diffusion_grains", None)  # a second call computes nothing
    assert arrays(data.dataset("diffusion_grains", "train", 2, 0.1)[0]) == arrays(train[0])


@pytest.mark.parametrize(("name", "split"), [("plate", "train"), ("plates", "validation")])
def test_unknown_data_set(name, split):
    with pytest.raises(ValueError, match="expected one of plates, diffusion_smooth"):
        data.dataset(name, split, 1)


def test_a_script_without_guard_may_use_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"from gno.demo.plates import write_plates\nwrite_plates({str(tmp_path)!r}, 2, spacing=0.3, workers=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(list(tmp_path.glob("plate_*.vtu"))) == 2
