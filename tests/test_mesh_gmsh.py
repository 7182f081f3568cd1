"""Gmsh's files as Gmsh, GetDP and their users write them: old versions, groups that overlap, values in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mesh_cases import TINY

from gno.mesh import MeshError, MeshWarning, cell_volume, read, read_series, write
from gno.mesh.io import step_times

gmsh = pytest.importorskip("gmsh")

SQUARE = """$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
3
1 5 "left"
2 1 "all of it"
2 2 "half"
$EndPhysicalNames
$Nodes
4
10 0 0 0
20 1 0 0
30 1 1 0
40 0 1 0
$EndNodes
$Elements
4
1 1 2 5 1 40 10
2 2 2 1 1 10 20 30
3 2 2 2 1 10 20 30
4 2 2 1 1 10 30 40
$EndElements
"""


def values(kind: str, name: str, time: float, rows: dict[int, float]) -> str:
    lines = "\n".join(f"{tag} {value}" for tag, value in rows.items())
    return f'${kind}\n1\n"{name}"\n1\n{time}\n3\n0\n1\n{len(rows)}\n{lines}\n$End{kind}\n'


def written(path: Path, *parts: str) -> Path:
    path.write_text("".join((SQUARE, *parts)))
    return path


def test_a_cell_of_two_groups_is_there_once(tmp_path: Path) -> None:
    mesh = read(written(tmp_path / "a.msh"))
    assert [(block.type, len(block)) for block in mesh.cells] == [("line", 1), ("triangle", 2)]
    assert cell_volume(mesh)[1:].sum() == pytest.approx(1)
    assert {name: index.tolist() for name, index in mesh.cell_sets.items()} == {
        "left": [0],
        "all of it": [1, 2],
        "half": [1],
    }
    assert sorted(mesh.points[mesh.point_sets["left"]].tolist()) == [[0, 0, 0], [0, 1, 0]]
    assert mesh.cell_fields["gmsh:physical"].tolist() == [5, 1, 1]


def test_values_go_to_the_nodes_and_cells_that_they_name(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.msh",
        values("NodeData", "x plus 2y", 0, {40: 2, 30: 3, 10: 0, 20: 1}),
        values("NodeData", "corner", 0, {30: 7}),
        values("ElementData", "upper", 0, {4: 1, 2: 0}),
    )
    mesh = read(path)
    assert mesh.point_fields["x plus 2y"] == pytest.approx(mesh.points @ [1, 2, 0])
    corner = mesh.point_fields["corner"]
    assert np.isnan(corner).sum() == 3 and mesh.points[corner == 7].tolist() == [[1, 1, 0]]
    np.testing.assert_array_equal(mesh.cell_fields["upper"], [np.nan, 0, 1])
    assert mesh.time is None and step_times(path) == []


def test_values_at_several_times_are_steps(tmp_path: Path) -> None:
    steps = [values("NodeData", "T", time, {10: time, 20: 0, 30: 0, 40: 0}) for time in (0.5, 2.5)]
    path = written(tmp_path / "a.msh", *steps, values("NodeData", "k", 0.5, {10: 4, 20: 4, 30: 4, 40: 4}))
    assert step_times(path) == [0.5, 2.5]
    for mesh, time in zip(read_series(path), (0.5, 2.5), strict=True):
        assert mesh.time == time and mesh.point_fields["T"].max() == time and (mesh.point_fields["k"] == 4).all()


def test_values_in_the_corners_of_cells_are_said_to_be_left_out(tmp_path: Path) -> None:
    corners = '$ElementNodeData\n1\n"s"\n1\n0\n3\n0\n1\n1\n2 3 1 2 3\n$EndElementNodeData\n'
    with pytest.warns(MeshWarning, match=r"a\.msh: values at the nodes of each cell .* are left out"):
        assert not read(written(tmp_path / "a.msh", corners)).point_fields


def test_a_file_cut_off_is_an_error(tmp_path: Path) -> None:
    text = written(tmp_path / "a.msh", values("NodeData", "T", 0, {10: 1, 20: 1, 30: 1, 40: 1})).read_text()
    for end in ("3 2 2 2 1", "20 1\n30"):
        (tmp_path / "cut.msh").write_text(text[: text.index(end)])
        with pytest.raises(MeshError, match=r"cut\.msh"):
            read(tmp_path / "cut.msh")


@pytest.fixture
def model():
    gmsh.initialize(readConfigFiles=False)
    gmsh.option.setNumber("General.Terminal", 0)
    yield gmsh.model
    gmsh.finalize()


def build(model, recombine: bool, incomplete: int) -> None:
    """A cube of one layer of quadratic hexahedra or prisms."""
    square = model.occ.addRectangle(0, 0, 0, 1, 1)
    model.occ.extrude([(2, square)], 0, 0, 1, numElements=[1], recombine=True)
    model.occ.synchronize()
    if recombine:
        model.mesh.setRecombine(2, 1)
    gmsh.option.setNumber("Mesh.MeshSizeMin", 2)
    gmsh.option.setNumber("Mesh.SecondOrderIncomplete", incomplete)
    model.mesh.generate(3)
    model.mesh.setOrder(2)


def saved(path: Path, version: float, **options: int) -> Path:
    for name, value in {"MshFileVersion": version, **options}.items():
        gmsh.option.setNumber(f"Mesh.{name}", value)
    gmsh.write(str(path))
    return path


@pytest.mark.parametrize(("version", "parametric"), [(1, 0), (4.0, 0), (4.1, 1)])
def test_versions_that_meshio_refuses(version: float, parametric: int, model, tmp_path: Path) -> None:
    gmsh.open(str(TINY / "gmsh41.msh"))
    expected, mesh = read(TINY / "gmsh41.msh"), read(saved(tmp_path / "a.msh", version, SaveParametric=parametric))
    assert cell_volume(mesh).sum() == pytest.approx(cell_volume(expected).sum())
    left = "curve 3" if version == 1 else "left"  # the first version has no names
    assert sorted(mesh.points[mesh.point_sets[left]].tolist()) == sorted(
        expected.points[expected.point_sets["left"]].tolist()
    )


@pytest.mark.parametrize(("recombine", "incomplete"), [(True, 0), (True, 1), (False, 0)])
def test_gmsh_and_meshio_order_nodes_alike(recombine: bool, incomplete: int, model, tmp_path: Path) -> None:
    build(model, recombine, incomplete)
    by_meshio = read(saved(tmp_path / "a.msh", 2.2))
    by_gmsh = read(saved(tmp_path / "b.msh", 4.0))
    assert by_meshio.cells[-1].type == by_gmsh.cells[-1].type
    nodes = [mesh.points[mesh.cells[-1].nodes] for mesh in (by_meshio, by_gmsh)]
    np.testing.assert_allclose(*nodes, atol=1e-12)


def test_prisms_of_fifteen_nodes_and_their_fields(model, tmp_path: Path) -> None:
    build(model, recombine=False, incomplete=1)
    path = saved(tmp_path / "a.msh", 4.1)
    with path.open("a") as file:
        file.write(values("NodeData", "T", 0, {1: 3}))
    mesh = read(path)
    assert mesh.cells[-1].type == "wedge15" and cell_volume(mesh)[-len(mesh.cells[-1]) :].sum() == pytest.approx(1)
    assert mesh.points[mesh.point_fields["T"] == 3].tolist() == [[0, 0, 0]] and list(mesh.point_fields) == ["T"]


@pytest.mark.parametrize("binary", [0, 1])
@pytest.mark.parametrize("version", [2.2, 4.1])
def test_fields_that_gmsh_writes(version: float, binary: int, model, tmp_path: Path) -> None:
    gmsh.open(str(TINY / "gmsh41.msh"))
    name = model.getCurrent()
    path = saved(tmp_path / "a.msh", version, Binary=binary)
    gmsh.option.setNumber("PostProcessing.SaveMesh", 0)
    tags, places, _ = model.mesh.getNodes()
    (cells,) = model.mesh.getElements(2)[1]
    given = {
        "place": ("NodeData", tags[::-1], places.reshape(-1, 3)[::-1]),
        "number": ("ElementData", cells[3:], cells[3:, None].astype(float)),
    }
    for title, (kind, owners, rows) in given.items():
        view = gmsh.view.add(title)
        gmsh.view.addModelData(view, 0, name, kind, owners, rows.tolist(), numComponents=rows.shape[1])
        gmsh.view.write(view, str(path), append=True)
    mesh = read(path)
    np.testing.assert_array_equal(mesh.point_fields["place"], mesh.points)
    number = mesh.cell_fields["number"]
    assert np.isnan(number).sum() == mesh.n_cells - len(cells) + 3 and np.nanmax(number) == cells.max()
    assert mesh.n_cells == read(TINY / "gmsh41.msh").n_cells and "left" in mesh.point_sets


def test_what_gno_writes_comes_back(tmp_path: Path) -> None:
    mesh = read(TINY / "block.e").replace(time=None, global_fields={}).with_point_fields(T=np.arange(12.0))
    write(mesh, tmp_path / "a.msh")
    again = read(tmp_path / "a.msh")
    np.testing.assert_array_equal(again.point_fields["T"], np.arange(12.0))
    assert again.cell_sets.keys() == mesh.cell_sets.keys() and again.point_sets.keys() == mesh.point_sets.keys()


def test_groups_of_some_cells_only(model, tmp_path: Path) -> None:
    gmsh.open(str(TINY / "gmsh41.msh"))
    model.removePhysicalGroups([(2, 7)])
    mesh = read(saved(tmp_path / "a.msh", 4.1, SaveAll=1))
    assert cell_volume(mesh).sum() == pytest.approx(2 + 2) and set(mesh.cell_sets) == {"left", "curve 5"}
    assert (mesh.points[mesh.point_sets["left"], 0] == 0).all()
