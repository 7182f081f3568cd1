"""79 files that others made: each is a mesh that another reader sees alike, or one error that says why not."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path

import meshio
import numpy as np
import pytest
from mesh_cases import REAL_FILES, assert_same, within

from gno.mesh import Mesh, MeshError, node_mass, quality, read, write
from gno.mesh.exodus import SUFFIXES as EXODUS
from gno.mesh.vtkcells import blocks_to_vtk

UNREADABLE = {
    "libmesh__two_element_iga_in.e": "element type 'BEX_QUAD' is not supported",
    "mfem__blade.mesh": "nodes in the space 'L2_T4_2D_P4', which has no values at corners",
    "mfem__llnl.mesh": "got 'MFEM NURBS mesh v1.0', which is not supported",
    "mfem__nurbs-segments2d-patches.mesh": "got 'MFEM NURBS mesh v1.0', which is not supported",
    "vtk-data__out.xdmf": "expected the file .*out.h5 next to it, got none",
    "vtk-data__polyhedron2pieces.vtu": "VTK cell type 42: polyhedra are not supported",
}
GOOD = [path for path in REAL_FILES if path.name not in UNREADABLE]

pytestmark = pytest.mark.skipif(not REAL_FILES, reason="the files are not here; GNO_MESHES names their folder")


def quiet_read(path: Path) -> Mesh:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path)


def test_at_least_seventy_read() -> None:
    assert len(GOOD) >= 70 or len(REAL_FILES) < 79


@pytest.mark.parametrize("path", [p for p in REAL_FILES if p.name in UNREADABLE], ids=lambda p: p.name)
def test_the_others_say_why(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MeshError, match=UNREADABLE[path.name]) as caught:
        read(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.name)
def test_another_reader_sees_the_same(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with within(60):
        mesh = quiet_read(path)
    assert capfd.readouterr() == ("", "")
    suffix = path.suffix
    if suffix in (".vtu", ".vtp", ".vtk"):
        like_pyvista(mesh, path)
    elif suffix in EXODUS:
        like_vtk_exodus(mesh, path)
    elif suffix in (".msh", ".cgns"):
        like_gmsh(mesh, path)
    elif suffix == ".su2":
        like_meshio(mesh, path)
    else:
        like_the_text(mesh, path)


@pytest.mark.parametrize("path", GOOD, ids=lambda p: p.name)
def test_geometry_and_round_trip(path: Path, tmp_path: Path) -> None:
    mesh = quiet_read(path)
    mass = node_mass(mesh)
    found = quality(mesh)
    assert mass.min() >= 0
    assert mass.sum() == pytest.approx(found.volume, rel=1e-10)
    assert (
        mass[~np.isin(np.arange(mesh.n_nodes), np.concatenate([found.unreferenced_nodes, found.massless_nodes]))]
    ).all()
    write(mesh, tmp_path / "a.vtu")
    assert_same(mesh, read(tmp_path / "a.vtu"))


def like_pyvista(mesh: Mesh, path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    from vtkmodules.util.numpy_support import vtk_to_numpy

    grid = pv.read(path).cast_to_unstructured_grid()
    np.testing.assert_array_equal(mesh.points, grid.points)
    assert mesh.points.dtype == grid.points.dtype
    connectivity, offsets, codes = blocks_to_vtk(mesh.cells, "", "")
    np.testing.assert_array_equal(codes, grid.celltypes)
    np.testing.assert_array_equal(connectivity, grid.cell_connectivity)
    np.testing.assert_array_equal(offsets, vtk_to_numpy(grid.GetCells().GetOffsetsArray())[1:])
    for mine, theirs in ((mesh.point_fields, grid.point_data), (mesh.cell_fields, grid.cell_data)):
        # One file has two sections of cell data, of which VTK takes the last and leaves the first.
        more = {"attribute"} if path.name == "mfem__quad_material_attribute.vtu" and mine is mesh.cell_fields else set()
        assert set(mine) - more == set(theirs.keys())
        for name in theirs.keys():  # noqa: SIM118
            assert mine[name].dtype == theirs[name].dtype, name
            np.testing.assert_array_equal(mine[name], theirs[name])


def like_vtk_exodus(mesh: Mesh, path: Path) -> None:
    pv = pytest.importorskip("pyvista")
    from vtkmodules.vtkIOExodus import vtkExodusIIReader

    reader = vtkExodusIIReader()
    reader.SetFileName(str(path))
    reader.UpdateInformation()
    reader.ApplyDisplacementsOff()
    for kind in ("Element", "Point"):
        for k in range(getattr(reader, f"GetNumberOf{kind}ResultArrays")()):
            name = getattr(reader, f"Get{kind}ResultArrayName")(k)
            getattr(reader, f"Set{kind}ResultArrayStatus")(name, 1)
    first, last = reader.GetTimeStepRange()
    reader.SetTimeStep(max(first, last))
    reader.Update()
    blocks = pv.wrap(reader.GetOutput())["Element Blocks"]
    assert mesh.n_nodes == reader.GetTotalNumberOfNodes()
    assert mesh.n_cells == reader.GetTotalNumberOfElements()
    points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
    start = 0
    for own, grid in zip(mesh.cells, blocks, strict=True):
        connectivity, _, codes = blocks_to_vtk([own], "", "")
        np.testing.assert_array_equal(codes, grid.celltypes)
        np.testing.assert_array_equal(points[connectivity].astype(np.float32), grid.points[grid.cell_connectivity])
        for name, values in mesh.cell_fields.items():
            if name in grid.cell_data:
                np.testing.assert_array_equal(values[start : start + len(own)], grid.cell_data[name])
        for name, values in mesh.point_fields.items():
            # VTK joins disp_x, disp_y and disp_z to one vector.
            joined = name not in grid.point_data
            theirs = grid.point_data[name[:-1]][:, "xyz".index(name[-1])] if joined else grid.point_data[name]
            np.testing.assert_array_equal(values[connectivity], theirs[grid.cell_connectivity])
        start += len(own)


def like_gmsh(mesh: Mesh, path: Path) -> None:
    gmsh = pytest.importorskip("gmsh")
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.open(str(path))
        tags, coordinates, _ = gmsh.model.mesh.getNodes()
        order = np.argsort(tags)
        assert mesh.n_nodes == len(tags)
        points = np.pad(mesh.points, ((0, 0), (0, 3 - mesh.points.shape[1])))
        theirs = coordinates.reshape(-1, 3)[order]
        np.testing.assert_allclose(np.sort(points, axis=0), np.sort(theirs, axis=0), atol=1e-12)
        sizes = Counter()
        for kind, elements in zip(*gmsh.model.mesh.getElements()[:2], strict=True):
            sizes[gmsh.model.mesh.getElementProperties(kind)[3]] += len(elements)
        assert sizes == Counter(block.nodes.shape[1] for block in mesh.cells for _ in range(len(block)))
        for dim, tag in gmsh.model.getPhysicalGroups():
            name = gmsh.model.getPhysicalName(dim, tag)
            if name in mesh.cell_sets:
                entities = gmsh.model.getEntitiesForPhysicalGroup(dim, tag)
                count = sum(len(t) for e in entities for t in gmsh.model.mesh.getElements(dim, e)[1])
                assert len(mesh.cell_sets[name]) == count
            else:
                assert not name
        for view in gmsh.view.getTags():
            name = gmsh.view.option.getString(view, "Name")
            values = np.concatenate(gmsh.view.getModelData(view, 0)[2])
            np.testing.assert_array_equal(np.sort(mesh.cell_fields[name].ravel()), np.sort(values))
    finally:
        gmsh.finalize()


def like_meshio(mesh: Mesh, path: Path) -> None:
    text = path.read_text()
    # meshio takes the numbers behind the coordinates for coordinates, so these come from the text.
    first = next(k for k, line in enumerate(text.splitlines()) if line.startswith("NPOIN"))
    dim = int(re.search(r"NDIME=\s*(\d)", text)[1])
    points = np.loadtxt(text.splitlines()[first + 1 : first + 1 + mesh.n_nodes], usecols=range(dim))
    np.testing.assert_array_equal(mesh.points, points)
    other = meshio.read(path)
    mine, theirs = Counter(), Counter()
    for block in mesh.cells:
        mine.update({(block.type, tuple(row)) for row in block.nodes.tolist()})
    for block in other.cells:
        theirs.update({(block.type, tuple(row)) for row in block.data.tolist()})
    assert mine == theirs
    markers = re.findall(r"MARKER_TAG=\s*(\S+)\s+MARKER_ELEMS=\s*(\d+)", text)
    assert {name: len(index) for name, index in mesh.cell_sets.items()} == {name: int(n) for name, n in markers}


def like_the_text(mesh: Mesh, path: Path) -> None:
    """Counts that can be read off the file itself."""
    text = path.read_text()
    if path.suffix == ".frd":
        counts = [int(text.split(f"    {key}")[1].split()[0]) for key in ("2C", "3C")]
        second_node = re.findall(r" -4  DISP .*?\n -1         2(.{12})(.{12})(.{12})\n", text, re.S)[-1]
        assert mesh.point_fields["DISP"][1].tolist() == [float(word) for word in second_node]
    elif path.name == "vtk-data__cellsnd.ascii.inp":
        counts = [13, 12]
        assert mesh.point_fields["temperature"][:4].tolist() == [6, 5, 6.666667, 8.333333]
        assert mesh.cell_fields["pressure"].tolist() == list(range(12, 0, -1))
    elif path.suffix == ".inp":
        counts = count_abaqus(text)
    elif text.startswith("MFEM"):
        found = {key: int(re.search(rf"^{key}\n(\d+)", text, re.M)[1]) for key in ("elements", "boundary", "vertices")}
        counts = [found["vertices"], found["elements"] + found["boundary"]]
    else:
        found = re.findall(r"^\s*(Vertices|Edges|Triangles|Quadrilaterals|Tetrahedra|Hexahedra)\s+(\d+)", text, re.M)
        sizes = {key: int(n) for key, n in found}
        counts = [sizes.pop("Vertices"), sum(sizes.values())]
        first = text.split("Vertices")[1].split()[1:3]
        assert mesh.points[0, :2].tolist() == [float(word) for word in first]
    assert [mesh.n_nodes, mesh.n_cells] == counts


def count_abaqus(text: str) -> list[int]:
    """Nodes and elements of an Abaqus file, by the numbers in its blocks."""
    n_nodes = n_elements = 0
    sections = re.split(r"^\*(?!\*)", re.sub(r"^\*\*.*\n", "", text, flags=re.M), flags=re.M)
    widths = {"C3D8": 8, "C3D4": 4, "C3D20": 20, "C3D20R": 20, "CPS3": 3, "CPE3": 3, "S3": 3, "STRI3": 3}
    for section in sections:
        head, _, body = section.partition("\n")
        words = [word for word in re.split(r"[,\s]+", body) if word]
        if re.match(r"node\s*($|,(?!.*output))", head, re.I):
            n_nodes += len([line for line in body.splitlines() if line.strip()])
        elif kind := re.match(r"element\s*,.*type\s*=\s*(\w+)", head, re.I):
            n_elements += len(words) // (widths[kind[1].upper()] + 1)
    return [n_nodes, n_elements]
