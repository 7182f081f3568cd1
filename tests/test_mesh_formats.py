"""Each small file gives the body that it was made of, with its fields, sets and times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mesh_cases import TINY

from gno.mesh import CellBlock, Mesh, MeshError, MeshWarning, boundary_facets, cell_volume, node_mass, read, write

PLATES = [
    *("plate.vtu", "plate_ascii.vtu", "plate.vtk", "plate_ascii.vtk", "plate.xdmf", "plate.avs", "plate.su2"),
    *("plate.mesh", "series.pvd", "surface.vtp"),
]
BLOCKS = [
    *("block.e", "block.frd", "block.inp", "block.bdf", "block.med", "block.mesh", "block.meshb"),
    *("grid.vtk", "grid.vti"),
]
GMSH = [
    *("gmsh22.msh", "gmsh22_binary.msh", "gmsh41.msh", "gmsh41_binary.msh", "gmsh_quadratic.msh", "gmsh.med"),
    *("gmsh.inp", "gmsh.bdf", "gmsh.cgns"),
]


@pytest.mark.parametrize("name", PLATES)
def test_plate(name: str) -> None:
    mesh = read(TINY / name)
    sizes = Counter(block.type for block in mesh.cells for _ in range(len(block)))
    assert mesh.n_nodes == 9
    assert (sizes["quad"], sizes["triangle"], sizes["line"] or 8) == (2, 4, 8)
    assert node_mass(mesh).sum() == pytest.approx(2, rel=1e-12)
    assert len(boundary_facets(mesh)) == 8
    np.testing.assert_array_equal(mesh.points.max(0)[:2], [2, 1])
    if "T" in mesh.point_fields:
        factor = mesh.time or 1.0
        np.testing.assert_array_equal(mesh.point_fields["T"], factor * (mesh.points[:, 0] + 2 * mesh.points[:, 1]))
        assert mesh.point_fields["v"].shape == (9, 3)
        assert sorted(mesh.cell_fields["k"]) == list(range(mesh.n_cells))
        # Each cell keeps its own value: cells 0 and 1 are the quads, of size 1/2.
        np.testing.assert_allclose(cell_volume(mesh)[np.isin(mesh.cell_fields["k"], [0, 1])], 0.5)


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str) -> None:
    mesh = read(TINY / name)
    assert repr(mesh) == "Mesh(12 nodes, 2 hexahedron, 3-D)"
    np.testing.assert_allclose(cell_volume(mesh), [1, 1], rtol=1e-6)
    assert len(boundary_facets(mesh)) == 20


@pytest.mark.parametrize("name", GMSH)
def test_gmsh(name: str) -> None:
    mesh = read(TINY / name)
    sizes = {block.type: len(block) for block in mesh.cells}
    assert mesh.n_nodes == (39 if "quadratic" in name else 13)
    assert 14 in sizes.values()
    assert node_mass(mesh).sum() == pytest.approx(2, rel=1e-6)
    if name.endswith((".bdf", ".cgns")):
        return
    left = mesh.points[mesh.point_sets["left"]]
    assert len(left) == (5 if "quadratic" in name else 3)
    assert not left[:, 0].any()
    assert cell_volume(mesh)[mesh.cell_sets["left"]].sum() == pytest.approx(1)
    assert cell_volume(mesh)[mesh.cell_sets["plate"]].sum() == pytest.approx(2)
    if name.endswith(".msh"):
        assert (mesh.points[mesh.point_sets["curve 5"], 0] == 2).all()


@pytest.mark.parametrize("name", ["surface.stl", "surface_binary.stl", "surface.ply", "surface.obj", "surface.off"])
def test_surfaces(name: str) -> None:
    mesh = read(TINY / name)
    assert {block.type for block in mesh.cells} == {"triangle"}
    assert mesh.n_cells == 4
    assert cell_volume(mesh).sum() == pytest.approx(1)


def test_exodus_steps_and_sets() -> None:
    first, last = read(TINY / "block.e", step=0), read(TINY / "block.e")
    assert (first.time, last.time) == (0.0, 0.25)
    np.testing.assert_array_equal(last.point_fields["T"], 3 * last.points[:, 0])
    np.testing.assert_array_equal(first.cell_fields["k"], [1, 2])
    assert last.global_fields["energy"].tolist() == [6]
    assert last.cell_sets["steel"].tolist() == [0, 1]
    assert (last.points[last.point_sets["left"], 0] == 0).all()
    # A side set: the face of the second element at x = 2.
    right = last.points[last.point_sets["right"]]
    assert right.shape == (4, 3)
    assert (right[:, 0] == 2).all()


def test_frd_steps() -> None:
    assert read(TINY / "block.frd", step=0).time == 0.5
    mesh = read(TINY / "block.frd")
    np.testing.assert_allclose(mesh.point_fields["NDTEMP"], mesh.points[:, 0])
    assert mesh.cell_fields["material"].tolist() == [1, 1]


def test_markers_become_sets() -> None:
    su2, mfem = read(TINY / "plate.su2"), read(TINY / "plate.mesh")
    for mesh, name in ((su2, "left"), (mfem, "boundary 2")):
        assert mesh.points.shape[1] == 2
        # The marker has one of the two segments on the left.
        assert mesh.point_sets[name].tolist() == [0, 3]
        assert cell_volume(mesh)[mesh.cell_sets[name]].tolist() == [0.5]
    assert mfem.cell_fields["attribute"][:6].tolist() == [1, 1, 2, 2, 2, 2]


def test_set_in_abaqus() -> None:
    mesh = read(TINY / "block.inp")
    assert (mesh.points[mesh.point_sets["left"], 0] == 0).all()
    assert mesh.cell_sets["first"].tolist() == [0]


def test_planar_points_keep_their_columns() -> None:
    assert read(TINY / "plate.vtu").points.shape[1] == 3
    assert read(TINY / "plate.vtu").dim == 2


def mfem(tmp_path: Path, nodes: str) -> Path:
    head = "MFEM mesh v1.0\ndimension\n2\nelements\n1\n1 3 0 1 2 3\nboundary\n0\nvertices\n4\n\nnodes\n"
    path = tmp_path / "a.mesh"
    path.write_text(head + nodes)
    return path


def test_mfem_nodes(tmp_path: Path) -> None:
    space = "FiniteElementSpace\nFiniteElementCollection: {}\nVDim: 2\nOrdering: {}\n\n{}\n"
    by_node = read(mfem(tmp_path, space.format("H1_2D_P1", 0, "0 3 3 0\n0 0 1 1")))
    by_axis = read(mfem(tmp_path, space.format("Linear", 1, "0 0\n3 0\n3 1\n0 1")))
    np.testing.assert_array_equal(by_node.points, by_axis.points)
    assert cell_volume(by_node).tolist() == [3]
    curved = mfem(tmp_path, space.format("H1_2D_P2", 1, "0 0\n3 0\n3 1\n0 1\n" + "0 0\n" * 5))
    with pytest.warns(MeshWarning, match=r"curved sides \('H1_2D_P2'\) were replaced by straight ones"):
        np.testing.assert_array_equal(read(curved).points, by_node.points)
    with pytest.raises(MeshError, match="no values at corners"):
        read(mfem(tmp_path, space.format("L2_T1_2D_P1", 1, "0 0\n3 0\n0 1\n3 1")))


def test_pieces_of_a_vtu_are_joined(tmp_path: Path) -> None:
    corners = "0 0 0  1 0 0  0 1 0"
    piece = (
        '<Piece NumberOfPoints="3" NumberOfCells="1"><PointData><DataArray type="Float32" Name="T" format="ascii">'
        '1 2 3</DataArray></PointData><Points><DataArray type="Float32" NumberOfComponents="3" format="ascii">'
        f'{corners}</DataArray></Points><Cells><DataArray type="Int32" Name="connectivity" format="ascii">0 1 2'
        '</DataArray><DataArray type="Int32" Name="offsets" format="ascii">3</DataArray><DataArray type="UInt8" '
        'Name="types" format="ascii">5</DataArray></Cells></Piece>'
    )
    path = tmp_path / "two.vtu"
    path.write_text(f'<VTKFile type="UnstructuredGrid"><UnstructuredGrid>{piece}{piece}</UnstructuredGrid></VTKFile>')
    mesh = read(path)
    assert mesh.cells[0].nodes.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert mesh.point_fields["T"].tolist() == [1, 2, 3, 1, 2, 3]
    assert mesh.point_fields["T"].dtype == np.float32


@pytest.mark.parametrize("mode", ["ascii", "binary", "appended raw", "appended base64", "lzma", "lz4"])
def test_every_coding_of_vtu(mode: str, tmp_path: Path) -> None:
    xml = pytest.importorskip("vtkmodules.vtkIOXML")
    pv = pytest.importorskip("pyvista")
    grid = pv.read(TINY / "plate.vtu")
    writer = xml.vtkXMLUnstructuredGridWriter()
    writer.SetInputData(grid)
    writer.SetFileName(str(tmp_path / "a.vtu"))
    {"ascii": writer.SetDataModeToAscii, "binary": writer.SetDataModeToBinary}.get(mode, writer.SetDataModeToAppended)()
    writer.SetEncodeAppendedData(mode == "appended base64")
    if mode == "lzma":
        writer.SetCompressorTypeToLZMA()
    elif mode == "lz4":
        writer.SetCompressorTypeToLZ4()
    elif mode == "appended raw":
        writer.SetCompressorTypeToNone()
        writer.SetHeaderTypeToUInt64()
    writer.Write()
    mesh, plain = read(tmp_path / "a.vtu"), read(TINY / "plate.vtu")
    np.testing.assert_array_equal(mesh.points, plain.points)
    np.testing.assert_array_equal(mesh.point_fields["v"], plain.point_fields["v"])
    assert [block.nodes.tolist() for block in mesh.cells] == [block.nodes.tolist() for block in plain.cells]


def test_a_rare_format_in_a_process_of_its_own(tmp_path: Path) -> None:
    import meshio

    block = read(TINY / "block.e")
    path = tmp_path / "a.tec"
    meshio.write(path, meshio.Mesh(block.points, [("hexahedron", block.cells[0].nodes)]), "tecplot")
    np.testing.assert_array_equal(read(path).points, block.points)
    path.write_text("nothing that any program wrote")
    with pytest.raises(MeshError, match=r"a\.tec: not a readable tecplot file"):
        read(path)


@pytest.mark.parametrize("suffix", [".vtr", ".vts", ".vtm", ".pvtu"])
def test_other_files_of_vtk(suffix: str, tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    image = pv.ImageData(dimensions=(3, 2, 2))
    image["T"] = image.points[:, 0]
    path = tmp_path / f"a{suffix}"
    if suffix == ".vtm":
        pv.MultiBlock({"a": image.cast_to_unstructured_grid()}).save(path)
    elif suffix == ".pvtu":
        image.cast_to_unstructured_grid().save(tmp_path / "a_0.vtu")
        path.write_text(
            '<VTKFile type="PUnstructuredGrid" version="0.1"><PUnstructuredGrid GhostLevel="0"><PPointData>'
            '<PDataArray type="Float64" Name="T"/></PPointData><PPoints><PDataArray type="Float64" Name="Points" '
            'NumberOfComponents="3"/></PPoints><Piece Source="a_0.vtu"/></PUnstructuredGrid></VTKFile>'
        )
    else:
        (image.cast_to_rectilinear_grid() if suffix == ".vtr" else image.cast_to_structured_grid()).save(path)
    mesh = read(path)
    assert repr(mesh) == "Mesh(12 nodes, 2 hexahedron, 3-D)"
    np.testing.assert_allclose(mesh.point_fields["T"], mesh.points[:, 0])
    np.testing.assert_allclose(cell_volume(mesh), 1)


def test_lagrange_hexahedra_of_old_files_are_renumbered(tmp_path: Path) -> None:
    mesh = Mesh(np.random.default_rng(0).random((64, 3)), (CellBlock("VTK_LAGRANGE_HEXAHEDRON", np.arange(64)[None]),))
    write(mesh, tmp_path / "a.vtu")
    (tmp_path / "a.vtu").write_bytes((tmp_path / "a.vtu").read_bytes().replace(b'version="2.2"', b'version="1.0"'))
    nodes = read(tmp_path / "a.vtu").cells[0].nodes[0]
    assert nodes[26:34].tolist() == [26, 27, 30, 31, 28, 29, 32, 33]
    pv = pytest.importorskip("pyvista")
    np.testing.assert_array_equal(pv.read(tmp_path / "a.vtu").cells[1:], nodes)


def test_prisms_of_gmsh_have_their_nodes_between_their_corners(tmp_path: Path) -> None:
    gmsh = pytest.importorskip("gmsh")
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        square = gmsh.model.occ.addRectangle(0, 0, 0, 1, 1)
        gmsh.model.occ.extrude([(2, square)], 0, 0, 1, numElements=[1], recombine=True)
        gmsh.model.occ.synchronize()
        gmsh.option.setNumber("Mesh.MeshSizeMin", 2)
        gmsh.model.mesh.generate(3)
        gmsh.model.mesh.setOrder(2)
        gmsh.write(str(tmp_path / "prisms.msh"))
    finally:
        gmsh.finalize()
    mesh = read(tmp_path / "prisms.msh")
    assert {block.type for block in mesh.cells if len(block)} >= {"wedge18"}
    assert node_mass(mesh).sum() == pytest.approx(1)
    for block in mesh.cells:
        if block.type == "wedge18":
            corners = mesh.points[block.nodes[:, [0, 1, 4, 3]]].mean(1)
            np.testing.assert_allclose(mesh.points[block.nodes[:, 15]], corners, atol=1e-9)
