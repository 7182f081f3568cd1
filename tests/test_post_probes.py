"""Probes have scikit-fem's values."""

import numpy as np
import pytest
from post_cases import grid, twin

from gno.mesh import CellBlock, Mesh
from gno.post.probes import line, plane, probe_matrix


@pytest.mark.parametrize("cell_type", ["triangle", "triangle6", "quad", "quad9", "tetra", "tetra10", "hexahedron"])
def test_values_are_those_of_scikit_fem(cell_type):
    case = twin(cell_type)
    places = np.random.default_rng(3).uniform(0.1, 0.9, (20, case.mesh.dim))
    expected = case.scalar.probes(places.T) @ case.mesh.point_fields["T"]
    assert np.allclose(probe_matrix(case.mesh, places) @ case.mesh.point_fields["T"], expected, rtol=0, atol=1e-10)


def test_a_line_knows_its_distance_and_leaves_the_mesh():
    mesh = twin("triangle").mesh
    mesh = mesh.with_point_fields(T=mesh.points @ [1.0, 2.0]).replace(cell_fields={"cell": np.arange(mesh.n_cells)})
    probe = line(mesh, (0.5, 0.5), (0.5, 2.5), n=5)
    assert np.allclose(probe.point_fields["distance"], [0, 0.5, 1, 1.5, 2])
    assert np.allclose(probe.point_fields["T"][:2], [1.5, 2.5]) and np.isnan(probe.point_fields["T"][2:]).tolist()[1:]
    assert np.isnan(probe.point_fields["cell"][-1]) and len(probe.cells[0]) == 4


def test_a_curved_cell_is_probed_along_its_curve():
    def bend(s):
        return (1 + s[:, :1]) * np.stack([np.cos(s[:, 1]), np.sin(s[:, 1])], axis=1)

    mesh = grid(4, 4, bend, "quad9")
    mesh = mesh.with_point_fields(x=mesh.points[:, 0])
    probe = line(mesh, (1.1, 0.1), (0.9, 1.2), n=30)
    assert np.allclose(probe.point_fields["x"], probe.points[:, 0], atol=1e-12)


def test_a_plane_cuts_a_solid():
    mesh = twin("hexahedron").mesh
    mesh = mesh.with_point_fields(T=mesh.points @ [1.0, 2.0, 3.0])
    cut = plane(mesh, (0.5, 0.5, 0.4), (0, 0, 2), spacing=0.1)
    assert np.allclose(cut.points[:, 2], 0.4) and np.allclose(cut.point_fields["T"], cut.points @ [1.0, 2.0, 3.0])
    assert len(cut.cells[0]) == 100


def test_a_planar_mesh_at_some_height():
    points = np.array([[0.0, 0.0, 7.0], [1.0, 0.0, 7.0], [0.0, 1.0, 7.0]])
    mesh = Mesh(points, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([0.0, 1.0, 0.0])})
    assert np.allclose(line(mesh, (0, 0), (1, 0), n=3).points, [[0, 0, 7], [0.5, 0, 7], [1, 0, 7]])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda mesh: line(mesh, (0, 0, 0), (1, 1, 1)), "start: expected 2 coordinates"),
        (lambda mesh: line(mesh, (0, 0), (0, 0)), "line: expected two ends"),
        (lambda mesh: line(mesh, (5, 5), (6, 6)), "points: expected some inside the mesh"),
        (lambda mesh: plane(mesh, (0, 0), (1, 1), 0.1), "plane: expected a mesh in 3-D"),
        (lambda mesh: plane(twin("tetra").mesh, (0, 0, 0), (0, 0, 0), 0.1), "plane: expected a normal"),
        (lambda mesh: plane(twin("tetra").mesh, (0, 0, 9), (0, 0, 1), 0.1), "plane: expected squares"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=r"\w") as found:
        call(twin("triangle").mesh)
    assert says in str(found.value)
