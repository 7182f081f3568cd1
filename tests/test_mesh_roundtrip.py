"""What is written is read again, to the bit; other programs open it; the old file survives a failure."""

from __future__ import annotations

import warnings
from pathlib import Path

import meshio
import numpy as np
import pytest
from mesh_cases import TINY, TINY_FILES, assert_same, one_cell, rich

from gno.mesh import CellBlock, Mesh, MeshError, MeshWarning, quality, read, read_series, write, write_series

VTK_CELLS = [
    *(("vertex", 1), ("poly_vertex", 3), ("line", 2), ("line3", 3), ("line4", 4), ("poly_line", 5), ("line5", 5)),
    *(("triangle", 3), ("triangle6", 6), ("triangle7", 7), ("triangle10", 10), ("triangle_strip", 6), ("polygon", 6)),
    *(("quad", 4), ("quad6", 6), ("quad8", 8), ("quad9", 9), ("quad16", 16), ("tetra", 4), ("tetra10", 10)),
    *(("tetra20", 20), ("pyramid", 5), ("pyramid13", 13), ("wedge", 6), ("wedge12", 12), ("wedge15", 15)),
    *(("wedge18", 18), ("wedge40", 40), ("hexahedron", 8), ("hexahedron20", 20), ("hexahedron24", 24)),
    *(("hexahedron27", 27), ("hexahedron64", 64), ("VTK_LAGRANGE_TRIANGLE", 15), ("VTK_LAGRANGE_HEXAHEDRON", 64)),
]
XDMF_CELLS = [
    *(("vertex", 1), ("poly_vertex", 3), ("line", 2), ("line3", 3), ("poly_line", 5), ("triangle", 3)),
    *(("triangle6", 6), ("polygon", 6), ("quad", 4), ("quad8", 8), ("quad9", 9), ("tetra", 4), ("tetra10", 10)),
    *(("pyramid", 5), ("pyramid13", 13), ("wedge", 6), ("wedge15", 15), ("wedge18", 18), ("hexahedron", 8)),
    *(("hexahedron20", 20), ("hexahedron24", 24), ("hexahedron27", 27)),
]


@pytest.mark.parametrize("name", ["rich.vtu", "rich.xdmf"])
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    mesh = rich()
    write(mesh, tmp_path / name)
    assert_same(mesh, read(tmp_path / name))
    # Once more from what was read, over the file itself.
    write(read(tmp_path / name), tmp_path / name)
    assert_same(mesh, read(tmp_path / name))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({name, "rich.h5" if "xdmf" in name else name})


def test_text_is_kept_in_vtu_and_refused_by_xdmf(tmp_path: Path) -> None:
    mesh = rich().replace(global_fields={"title": np.array(["two words", "é"])})
    write(mesh, tmp_path / "a.vtu")
    assert_same(mesh, read(tmp_path / "a.vtu"))
    with pytest.raises(MeshError, match=r"global_fields\['title'\]: .xdmf cannot hold text"):
        write(mesh, tmp_path / "a.xdmf")


@pytest.mark.parametrize(("cell_type", "n_nodes"), VTK_CELLS)
def test_every_cell_through_vtu_and_vtk_sees_the_same(cell_type: str, n_nodes: int, tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    mesh = one_cell(cell_type, n_nodes)
    write(mesh, tmp_path / "cell.vtu")
    assert_same(mesh, read(tmp_path / "cell.vtu"))
    grid = pv.read(tmp_path / "cell.vtu")
    assert (grid.n_points, grid.n_cells) == (n_nodes, 1)
    assert sorted(grid.get_cell(0).point_ids) == list(range(n_nodes))
    if cell_type in ("triangle10", "quad16", "tetra20", "wedge40", "hexahedron64"):
        # VTK's own interpolation finds each node where VTK expects it.
        local = grid.GetCell(0).GetParametricCoords()
        expected = np.array([local[k] for k in range(3 * n_nodes)]).reshape(-1, 3)
        np.testing.assert_allclose(mesh.points[grid.get_cell(0).point_ids], expected, atol=1e-12)


@pytest.mark.parametrize(("cell_type", "n_nodes"), XDMF_CELLS)
def test_every_cell_through_xdmf(cell_type: str, n_nodes: int, tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    mesh = one_cell(cell_type, n_nodes).replace(time=0.5)
    two = mesh.replace(cells=(*mesh.cells, CellBlock("line", np.array([[0, n_nodes - 1]]))))
    for each in (mesh, two):
        write(each, tmp_path / "cell.xdmf")
        assert_same(each, read(tmp_path / "cell.xdmf"))
        grid = pv.read(tmp_path / "cell.xdmf")
        assert (grid.n_points, grid.n_cells) == (each.n_nodes, each.n_cells)
        assert grid.cell_connectivity[:n_nodes].tolist() == list(range(n_nodes))


def test_cells_that_a_format_has_not_are_named(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"cells 'triangle10': .xdmf has no such cell type"):
        write(one_cell("triangle10", 10), tmp_path / "a.xdmf")
    with pytest.raises(MeshError, match=r"cells 'pyramid14': .vtu has no such cell type"):
        write(one_cell("pyramid14", 14), tmp_path / "a.vtu")
    assert list(tmp_path.iterdir()) == []


def test_legacy_vtk_keeps_all_but_shapes_and_text(tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    whole = read(TINY / "block.e").replace(cell_fields={"two words": np.ones(2)}, source="a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(whole, tmp_path / "a.vtk")
    assert_same(whole, read(tmp_path / "a.vtk"))
    grid = pv.read(tmp_path / "a.vtk")
    np.testing.assert_array_equal(grid.point_data["T"], whole.point_fields["T"])
    np.testing.assert_array_equal(grid.cell_data["two words"], [1, 1])
    np.testing.assert_array_equal(np.flatnonzero(grid.point_data["set:left"]), whole.point_sets["left"])
    with pytest.warns(MeshWarning, match=r"does not hold .*point_fields\['tensor'\], .*point_fields\['truth'\]"):
        write(rich(), tmp_path / "b.vtk")


@pytest.mark.parametrize("cells", [(), (CellBlock("triangle", np.zeros((0, 3), np.int64)),)])
@pytest.mark.parametrize("name", ["cloud.vtu", "cloud.xdmf"])
def test_point_clouds(cells: tuple, name: str, tmp_path: Path) -> None:
    cloud = Mesh(np.random.default_rng(0).random((5, 3)), cells, {"mass": np.ones(5)})
    write(cloud, tmp_path / name)
    back = read(tmp_path / name)
    assert_same(cloud.replace(cells=back.cells), back)
    assert back.n_cells == 0


def test_pyvista_and_meshio_read_our_files(tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    mesh = rich().replace(cells=rich().cells[:2], cell_fields={}, cell_sets={}, global_fields={"load": np.ones(1)})
    write(mesh, tmp_path / "a.vtu")
    grid = pv.read(tmp_path / "a.vtu")
    np.testing.assert_array_equal(grid.points[:, :2], mesh.points)
    for name in ("double", "single", "bytes", "large"):
        np.testing.assert_array_equal(grid.point_data[name], mesh.point_fields[name])
        assert grid.point_data[name].dtype == mesh.point_fields[name].dtype
    np.testing.assert_array_equal(np.flatnonzero(grid.point_data["set:left"]), [1, 2, 5])
    assert grid.field_data["TimeValue"][0] == 0.1
    assert grid.field_data["load"][0] == 1
    simple = Mesh(mesh.points, mesh.cells[:1], {"T": mesh.point_fields["double"]})
    write(simple, tmp_path / "a.xdmf")
    # PyVista wants a time in the file, meshio wants none.
    write(simple.replace(time=0.5), tmp_path / "timed.xdmf")
    drawn = pv.read(tmp_path / "timed.xdmf")
    np.testing.assert_array_equal(drawn.point_data["T"], simple.point_fields["T"])
    np.testing.assert_array_equal(drawn.cell_connectivity, simple.cells[0].nodes.ravel())
    other = meshio.read(tmp_path / "a.xdmf")
    np.testing.assert_array_equal(other.point_data["T"], simple.point_fields["T"])
    np.testing.assert_array_equal(other.cells[0].data, simple.cells[0].nodes)


def test_sets_survive_a_filter_of_another_program(tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    write(read(TINY / "plate.su2"), tmp_path / "plate.vtu")
    pv.read(tmp_path / "plate.vtu").extract_cells([0, 1]).save(tmp_path / "part.vtu")
    part = read(tmp_path / "part.vtu")
    assert part.n_cells == 2
    assert part.points[part.point_sets["left"], 0].tolist() == [0, 0, 0][: len(part.point_sets["left"])]
    assert len(part.point_sets["left"]) == 2


@pytest.mark.parametrize("path", TINY_FILES, ids=lambda path: path.name)
def test_every_small_mesh_through_vtu(path: Path, tmp_path: Path) -> None:
    mesh = read(path)
    write(mesh, tmp_path / "a.vtu")
    assert_same(mesh, read(tmp_path / "a.vtu"))


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("a.msh", "the time"),
        ("a.inp", "point_fields['T']"),
        ("a.e", "the time"),
        ("a.med", "the time"),
        ("a.bdf", "point_fields['T']"),
        ("a.mesh", "point_fields['T']"),
        ("a.avs", "the time"),
    ],
)
def test_other_formats_say_what_they_do_not_hold(name: str, lost: str, tmp_path: Path) -> None:
    block = read(TINY / "block.e")
    full = block.replace(cell_fields={"two words": np.ones(2)}, cell_sets={}, global_fields={})
    with pytest.warns(MeshWarning, match="does not hold") as caught:
        write(full, tmp_path / name)
    text = str(caught[0].message)
    assert lost in text
    assert len(caught) == 1
    back = read(tmp_path / name)
    np.testing.assert_allclose(back.points, full.points)
    for field in ("T",):
        kept = field in back.point_fields and np.array_equal(back.point_fields[field], full.point_fields[field])
        assert kept == (f"point_fields['{field}']" not in text)


def test_a_format_that_drops_cells_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a.stl"
    target.write_text("old")
    with pytest.raises(MeshError, match=r"a\.stl: cannot hold Mesh\(12 nodes"):
        write(read(TINY / "block.e"), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_format_that_drops_some_cells_is_an_error(tmp_path: Path) -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    cells = (CellBlock("triangle", np.array([[0, 1, 2], [0, 2, 3]])), CellBlock("line", np.array([[0, 1]])))
    with pytest.raises(MeshError, match=r"expected the cells of Mesh\(4 nodes, 2 triangle, 1 line, 2-D\)"):
        write(Mesh(points, cells), tmp_path / "a.off")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.vtu", "a.xdmf", "a.vtk"])
def test_a_field_that_is_no_number_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    mesh = Mesh(np.zeros((2, 3)), (), {"T": np.array(["a", "b"])})
    (tmp_path / name).write_text("old")
    with pytest.raises(MeshError, match=r"point_fields\['T'\]: expected numbers, got <U1"):
        write(mesh, tmp_path / name)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["set:left", "gno", "TimeValue", ""])
def test_reserved_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="reserved"):
        write(Mesh(np.zeros((2, 3)), (), {name: np.ones(2)}), tmp_path / "a.vtu")


def test_unknown_places_and_formats(tmp_path: Path) -> None:
    mesh = Mesh(np.zeros((2, 3)))
    with pytest.raises(MeshError, match=r"expected one of .*\.vtu.*, got '.xyz'"):
        write(mesh, tmp_path / "a.xyz")
    with pytest.raises(MeshError, match="expected an existing folder"):
        write(mesh, tmp_path / "no" / "a.vtu")


@pytest.mark.parametrize("name", ["run.pvd", "run.xdmf"])
def test_series(name: str, tmp_path: Path) -> None:
    mesh = rich()
    steps = [mesh.replace(time=0.1 * k, point_fields={"T": np.full(30, k)}) for k in range(11)]
    write_series(steps, tmp_path / name)
    series = read_series(tmp_path / name)
    assert series.times == tuple(step.time for step in steps)
    assert len(series) == 11
    assert_same(series[10], steps[10])
    assert [mesh.point_fields["T"][0] for mesh in series[2:5]] == [2, 3, 4]
    assert_same(read(tmp_path / name), steps[-1])
    assert_same(read(tmp_path / name, step=-2), steps[-2])
    with pytest.raises(MeshError, match="expected a step from 0 to 10, got 11"):
        read(tmp_path / name, step=11)


def test_numbered_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        write(Mesh(np.full((1, 3), float(number))), tmp_path / f"run_{number}.vtu")
    series = read_series(tmp_path / "run_*.vtu")
    assert series.times == (1, 2, 10)
    assert [(mesh.time, mesh.points[0, 0]) for mesh in series] == [(1, 1), (2, 2), (10, 10)]
    assert read_series(tmp_path / "run_1.vtu").times == (0,)
    with pytest.raises(MeshError, match="expected files that match"):
        read_series(tmp_path / "walk_*.vtu")
    with pytest.raises(MeshError, match="expected meshes of different times"):
        write_series([], tmp_path / "a.pvd")
    with pytest.raises(MeshError, match=r"expected \.pvd or \.xdmf"):
        write_series([Mesh(np.zeros((1, 3)))], tmp_path / "a.vtu")


def test_pvd_of_another_program() -> None:
    series = read_series(TINY / "series.pvd")
    assert series.times == (0.0, 0.5, 2.0)
    np.testing.assert_array_equal(series[1].point_fields["T"], 0.5 * read(TINY / "plate.vtu").point_fields["T"])
    assert series[1].time == 0.5


def test_reading_keeps_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    for path in TINY_FILES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mesh = read(path)
        assert (quality(mesh).volume > 0) == bool(mesh.cells)  # particles fill nothing
    assert capfd.readouterr() == ("", "")


def test_gmsh_has_plane_vectors_in_three_columns_and_leaves_out_what_it_cannot_hold(tmp_path: Path) -> None:
    n, triangle = 3, CellBlock("triangle", np.array([[0, 1, 2]]))
    fields = {"u": np.ones((n, 2)), "stress": np.ones((n, 6)), "T": np.ones(n)}
    mesh = Mesh(np.array([[0.0, 0], [1, 0], [0, 1]]), (triangle,), fields)
    with pytest.warns(MeshWarning, match=r"does not hold point_fields\['u'\], point_fields\['stress'\]$"):
        write(mesh, tmp_path / "a.msh")
    back = read(tmp_path / "a.msh").point_fields
    assert back["u"].tolist() == [[1, 1, 0]] * n and back["T"].tolist() == [1] * n and "stress" not in back


def test_exodus_holds_a_set_as_a_set_and_not_as_a_field_too(tmp_path: Path) -> None:
    mesh = read(TINY / "block.e").replace(cell_fields={}, cell_sets={}, global_fields={}, time=0.0)
    assert mesh.point_sets
    write(mesh, tmp_path / "a.e")
    back = read(tmp_path / "a.e")
    assert list(back.point_fields) == list(mesh.point_fields)
    assert {name: set(index) for name, index in back.point_sets.items()} == {
        name: set(index) for name, index in mesh.point_sets.items()
    }
