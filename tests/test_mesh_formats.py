"""Each small file gives the body that it was made of, with its fields, sets and times."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mesh_cases import REAL, TINY

from gno.mesh import (
    CellBlock,
    Mesh,
    MeshError,
    MeshWarning,
    boundary_facets,
    cell_volume,
    node_mass,
    read,
    read_series,
    write,
)
from gno.mesh.ordering import CORNERS
from gno.mesh.shapes import family, reference_nodes

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


@pytest.mark.parametrize("name", ["salt.extxyz", "salt.gro", "salt.lammpstrj", "salt.pdb"])
def test_salt(name: str) -> None:
    mesh, unit = read(TINY / name), 0.1 if name.endswith(".gro") else 1.0
    assert repr(mesh) == "Mesh(8 nodes, no cells, 3-D)"
    np.testing.assert_allclose(mesh.period, [5.64 * unit] * 3, rtol=1e-5)
    sodium = mesh.point_sets["type 1" if name.endswith("trj") else "Na"]
    np.testing.assert_allclose(np.ptp(mesh.points[sodium], axis=0), 2.82 * unit, rtol=1e-3)
    if "q" in mesh.point_fields:
        assert mesh.point_fields["q"][sodium].tolist() == [1] * 4 and mesh.point_fields["q"].sum() == 0
        assert read_series(TINY / name).times == (0.0, 0.5)


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


def test_quadratic_frd_cells_have_their_nodes_between_their_corners() -> None:
    path = REAL / "vtk-data__mesh.frd"
    if not path.is_file():
        pytest.skip("the file is not here; GNO_MESHES names its folder")
    between_corners(read(path))


FENICS = """<?xml version="1.0"?>
<Xdmf Version="3.0" xmlns:xi="http://www.w3.org/2001/XInclude"><Domain>
<Grid Name="TimeSeries" GridType="Collection" CollectionType="Temporal">
<Grid Name="mesh" GridType="Uniform">
<Topology NumberOfElements="2" TopologyType="Triangle" NodesPerElement="3">
<DataItem Dimensions="2 3" NumberType="UInt" Format="XML">0 1 2 0 2 3</DataItem></Topology>
<Geometry GeometryType="XY"><DataItem Dimensions="4 2" Format="XML">0 0 1 0 1 1 0 1</DataItem></Geometry>
<Time Value="0" />
<Attribute Name="u" AttributeType="Scalar" Center="Node">
<DataItem Dimensions="4 1" Precision="8" Format="XML">1 2 3 4</DataItem></Attribute></Grid>
<Grid>
<xi:include xpointer="xpointer(//Grid[@Name=&quot;TimeSeries&quot;]/*[1]/*[self::Topology or self::Geometry])" />
<Time Value="0.5" />
<Attribute Name="u" AttributeType="Scalar" Center="Node">
<DataItem ItemType="HyperSlab" Dimensions="4 1"><DataItem Dimensions="3 2" Format="XML">1 0 2 1 4 1</DataItem>
<DataItem Dimensions="8 2" NumberType="Float" Precision="8" Format="XML">0 0 1 0 2 0 3 0 4 0 5 0 6 0 7 0</DataItem>
</DataItem></Attribute></Grid>
</Grid></Domain></Xdmf>"""


def test_xdmf_as_fenics_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "u.xdmf"
    path.write_text(FENICS)
    series = read_series(path)
    assert series.times == (0.0, 0.5)
    for mesh, values in zip(series, ([1, 2, 3, 4], [1, 3, 5, 7]), strict=True):
        assert cell_volume(mesh).tolist() == [0.5, 0.5]
        assert mesh.points.shape == (4, 2)
        assert mesh.point_fields["u"].tolist() == values
    path.write_text(FENICS.replace("TimeSeries&quot;", "Elsewhere&quot;"))
    with pytest.raises(MeshError, match="expected a Topology in each grid, got none"):
        read(path)


def between_corners(mesh: Mesh) -> None:
    """Every mid-side node lies in the middle of the corners that it belongs to."""
    for block in mesh.cells:
        n_nodes = block.nodes.shape[1]
        if n_nodes == 1:
            continue
        n_corners = len(CORNERS[family(block.type)])
        position = reference_nodes(block.type, n_nodes)
        groups = [g for size in (2, 4, 8) for g in itertools.combinations(range(n_corners), size)]
        for k in range(n_corners, n_nodes):
            ends = next(g for g in groups if np.allclose(position[list(g)].mean(0), position[k]))
            middle = mesh.points[block.nodes[:, ends]].mean(1)
            np.testing.assert_allclose(mesh.points[block.nodes[:, k]], middle, atol=1e-6, err_msg=f"{block.type} {k}")


@pytest.mark.parametrize("cell", ["HEX20", "HEX27", "WEDGE15", "TETRA10", "PYRAMID13", "QUAD8", "QUAD9", "TRI6"])
def test_quadratic_exodus_cells_are_what_vtk_makes_of_them(cell: str, tmp_path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    netcdf = pytest.importorskip("netCDF4")
    n_nodes = int(cell.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    path = tmp_path / "a.e"
    with netcdf.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as data:
        data.setncatts({"api_version": 4.98, "version": 4.98, "floating_point_word_size": 8, "file_size": 1})
        sizes = {"num_nodes": n_nodes, "num_el_in_blk1": 1, "num_nod_per_el1": n_nodes}
        for name, size in {**sizes, "num_dim": 3, "num_elem": 1, "num_el_blk": 1, "time_step": None}.items():
            data.createDimension(name, size)
        data.createVariable("eb_prop1", "i4", ("num_el_blk",))[:] = [1]
        data.createVariable("eb_status", "i4", ("num_el_blk",))[:] = [1]
        for axis in "xyz":
            data.createVariable(f"coord{axis}", "f8", ("num_nodes",))[:] = np.arange(n_nodes)
        connect = data.createVariable("connect1", "i4", ("num_el_in_blk1", "num_nod_per_el1"))
        connect.elem_type = cell
        connect[:] = np.arange(n_nodes)[None] + 1
    grid = pv.read(path)["Element Blocks"][0]
    # VTK renumbers the nodes that it keeps; their coordinates say which they are.
    theirs = grid.points[grid.cell_connectivity, 0].astype(int)
    assert read(path).cells[0].nodes[0].tolist() == theirs.tolist()


@pytest.mark.parametrize("suffix", ["avs", "vtu", "vtk"])
@pytest.mark.parametrize(("cell_type", "n_nodes"), [("tetra", 4), ("wedge", 6), ("pyramid", 5), ("hexahedron", 8)])
def test_solids_of_meshio_keep_their_node_order(cell_type: str, n_nodes: int, suffix: str, tmp_path: Path) -> None:
    import meshio

    nodes = np.random.default_rng(0).permutation(n_nodes)[None]
    points = np.random.default_rng(1).random((n_nodes, 3))
    path = tmp_path / f"a.{suffix}"
    meshio.write(path, meshio.Mesh(points, [(cell_type, nodes)]), "avsucd" if suffix == "avs" else None)
    mesh = read(path)
    np.testing.assert_array_equal(mesh.cells[0].nodes, nodes)
    np.testing.assert_allclose(mesh.points, points, rtol=1e-12)


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
    write(mesh, tmp_path / "a.vtk")
    (tmp_path / "a.vtk").write_bytes((tmp_path / "a.vtk").read_bytes().replace(b"Version 5.1", b"Version 5.0", 1))
    np.testing.assert_array_equal(read(tmp_path / "a.vtk").cells[0].nodes[0], nodes)
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
    between_corners(mesh)
