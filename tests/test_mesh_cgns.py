"""CGNS of several zones: solutions at vertices and cells, times, boundary conditions with and without elements."""

import contextlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from gno.mesh import cell_volume, components, read, read_series
from gno.mesh.cgns import boundaries

KINDS = {"i": "I4", "f": "R8"}
N = 4  # nodes along each side of a zone


def node(parent, name: str, label: str, data=None):
    """A node of the tree as CGNS keeps it in HDF5."""
    group = parent.create_group(name)
    kind = "MT" if data is None else "C1"
    if data is not None:
        data = np.frombuffer(data.encode(), np.int8) if isinstance(data, str) else np.asarray(data)
        kind = kind if data.dtype == np.int8 else KINDS[data.dtype.kind]
        group[" data"] = data
    for key, text, width in (("name", name, 33), ("label", label, 33), ("type", kind, 3)):
        group.attrs.create(key, np.array(text.encode(), f"S{width}"))
    return group


def add_zone(base, name: str, place: int, n_steps: int) -> None:
    """A square of quadrilaterals at x = ``place``; its outer side is a boundary, of line elements or of nodes."""
    x, y = (p.ravel() for p in np.meshgrid(place + np.linspace(0, 1, N), np.linspace(0, 1, N), indexing="ij"))
    corner = (np.arange(N - 1)[:, None] * N + np.arange(N - 1)).ravel()
    quads = np.stack([corner, corner + N, corner + N + 1, corner + 1], axis=1).astype(np.int32) + 1
    side = np.arange(N) + (0 if place == 0 else N * (N - 1))
    lines = np.stack([side[:-1], side[1:]], axis=1).astype(np.int32) + 1
    zone = node(base, name, "Zone_t", np.array([[N * N], [len(quads)], [0]], np.int32))
    node(zone, "ZoneType", "ZoneType_t", "Unstructured")
    grid = node(zone, "GridCoordinates", "GridCoordinates_t")
    node(grid, "CoordinateX", "DataArray_t", x)
    node(grid, "CoordinateY", "DataArray_t", y)
    first = 1
    for what, kind, cells in (("Quads", 7, quads), ("Lines", 3, lines)):
        section = node(zone, what, "Elements_t", np.array([kind, 0], np.int32))
        node(section, "ElementRange", "IndexRange_t", np.array([first, first + len(cells) - 1], np.int32))
        node(section, "ElementConnectivity", "DataArray_t", cells.ravel())
        first += len(cells)
    conditions = node(zone, "ZoneBC", "ZoneBC_t")
    if place == 0:
        condition = node(conditions, "inlet", "BC_t", "BCInflow")
        node(condition, "GridLocation", "GridLocation_t", "EdgeCenter")
        node(condition, "PointRange", "IndexRange_t", np.array([[len(quads) + 1], [first - 1]], np.int32))
    else:
        node(
            node(conditions, "outlet", "BC_t", "BCOutflow"),
            "PointList",
            "IndexArray_t",
            side.astype(np.int32)[:, None] + 1,
        )
    seam = np.arange(N) + (N * (N - 1) if place == 0 else 0)
    joints = node(zone, "Joints", "ZoneGridConnectivity_t")
    joint = node(joints, "to the other", "GridConnectivity_t", f"Zone{1 - place}")
    node(joint, "PointList", "IndexArray_t", seam.astype(np.int32)[:, None] + 1)
    for step in range(n_steps):
        for what, values in (
            ("Vertex", {"p": x + step, "VelocityX": y, "VelocityY": -x}),
            ("CellCenter", {"rho": corner * 1.0}),
        ):
            solution = node(zone, f"{what}{step}", "FlowSolution_t")
            node(solution, "GridLocation", "GridLocation_t", what)
            for field, numbers in values.items():
                node(solution, field, "DataArray_t", numbers)
    if n_steps > 1:
        names = np.array([list(f"Vertex{step}".ljust(32).encode()) for step in range(n_steps)], np.int8)
        node(node(zone, "Steps", "ZoneIterativeData_t"), "FlowSolutionPointers", "DataArray_t", names)


@contextlib.contextmanager
def base_of(path: Path, dim: int = 2):
    """A new file with a base, to which zones are added."""
    with h5py.File(path, "w") as file:
        for key, text, width in (
            ("name", "HDF5 MotherNode", 33),
            ("label", "Root Node of HDF5 File", 33),
            ("type", "MT", 3),
        ):
            file.attrs.create(key, np.array(text.encode(), f"S{width}"))
        file[" format"] = np.frombuffer(b"IEEE_LITTLE_32\0", np.int8)
        file[" hdf5version"] = np.frombuffer(b"HDF5 Version 1.8.17".ljust(33, b"\0"), np.int8)
        version = node(file, "CGNSLibraryVersion", "CGNSLibraryVersion_t", np.array([3.4]))
        del version[" data"]
        version[" data"] = np.array([3.4], np.float32)
        version.attrs["type"] = np.array(b"R4", "S3")
        yield node(file, "Base", "CGNSBase_t", np.array([dim, dim], np.int32))


def build(path: Path, n_steps: int = 1) -> Path:
    with base_of(path) as base:
        if n_steps > 1:
            steps = node(base, "Steps", "BaseIterativeData_t", np.array([n_steps], np.int32))
            node(steps, "TimeValues", "DataArray_t", 0.5 * np.arange(n_steps))
        for place in (0, 1):
            add_zone(base, f"Zone{place}", place, n_steps)
    return path


def test_solutions_of_all_zones_at_vertices_and_cells(tmp_path):
    mesh = read(build(tmp_path / "a.cgns"))
    assert np.allclose(mesh.point_fields["p"], mesh.points[:, 0])
    assert np.allclose(mesh.point_fields["Velocity"][:, :2], np.stack([mesh.points[:, 1], -mesh.points[:, 0]], axis=1))
    assert mesh.cell_fields["rho"].shape == (2 * (N - 1) ** 2,)


def test_boundary_conditions_without_a_family_are_sets(tmp_path):
    mesh = read(build(tmp_path / "a.cgns"))
    assert {name: len(index) for name, index in mesh.point_sets.items()} == {"inlet": N, "outlet": N}
    assert np.allclose(mesh.points[mesh.point_sets["inlet"], 0], 0) and np.allclose(
        mesh.points[mesh.point_sets["outlet"], 0], 2
    )


def test_times_are_steps(tmp_path):
    series = read_series(build(tmp_path / "a.cgns", n_steps=2))
    assert [frame.time for frame in series] == pytest.approx([0, 0.5])
    assert [frame.point_fields["p"].min() for frame in series] == pytest.approx([0, 1])


def test_zones_are_joined_where_the_file_says_so_and_nowhere_else(tmp_path):
    path = build(tmp_path / "a.cgns")
    mesh = read(path)
    assert mesh.n_nodes == 2 * N * N - N and components(mesh).max() == 0
    assert np.allclose(cell_volume(mesh).sum(), 2)
    with h5py.File(path, "a") as file:
        for zone in (0, 1):
            del file[f"Base/Zone{zone}/Joints"]
    apart = read(path)
    assert apart.n_nodes == 2 * N * N and components(apart).max() == 1


def condition(parent, name: str, location: str, key: str, numbers) -> None:
    found = node(parent, name, "BC_t", "BCWall")
    node(found, "GridLocation", "GridLocation_t", location)
    node(found, key, "IndexRange_t" if key.endswith("Range") else "IndexArray_t", np.array(numbers, np.int32))


def test_conditions_on_faces_of_a_structured_zone(tmp_path):
    size = np.array([3, 4, 5])
    with base_of(tmp_path / "a.cgns", dim=3) as base:
        zone = node(base, "Zone", "Zone_t", np.array([size, size - 1, 0 * size], np.int32))
        node(zone, "ZoneType", "ZoneType_t", "Structured")
        grid = node(zone, "GridCoordinates", "GridCoordinates_t")
        for axis, x in zip("XYZ", np.meshgrid(*map(np.arange, size * 1.0), indexing="ij"), strict=True):
            node(grid, f"Coordinate{axis}", "DataArray_t", x.transpose(2, 1, 0))  # the first axis runs fastest
        conditions = node(zone, "ZoneBC", "ZoneBC_t")
        condition(conditions, "in", "IFaceCenter", "PointRange", [[1, 1, 1], [1, 3, 4]])
        condition(conditions, "out", "FaceCenter", "PointRange", [[3, 1, 1], [3, 3, 4]])
        condition(conditions, "half", "JFaceCenter", "PointRange", [[1, 4, 1], [1, 4, 4]])
        condition(conditions, "spot", "KFaceCenter", "PointList", [[2, 2, 5], [2, 3, 5]])
        condition(conditions, "top", "Vertex", "PointRange", [[1, 1, 5], [3, 4, 5]])
        condition(conditions, "cells", "CellCenter", "PointRange", [[1, 1, 4], [2, 3, 4]])
        condition(conditions, "outside", "KFaceCenter", "PointList", [[9, 9, 9]])
    mesh = read(tmp_path / "a.cgns")
    x, y, z = mesh.points.T
    wanted = {
        "in": x == 0,
        "out": x == 2,
        "half": (y == 3) & (x < 2),
        "spot": (z == 4) & (x > 0) & (y > 0),
        "top": z == 4,
    }
    assert {name: nodes.tolist() for name, nodes in mesh.point_sets.items()} == {
        name: np.flatnonzero(inside).tolist() for name, inside in wanted.items()
    }


@pytest.mark.parametrize("offsets", [False, True])
def test_elements_of_an_unknown_type_take_no_other_condition_with_them(offsets, tmp_path):
    path = tmp_path / "a.cgns"
    mixed = [[7, 1, 2, 5, 4], [3, 1, 2], [26, *range(11, 21)], [3, 2, 3], [99, 1, 2, 3], [3, 4, 5]]
    with base_of(path) as base:
        zone = node(base, "Zone", "Zone_t", np.array([[20], [1], [0]], np.int32))
        for name, kind, first, rows in (("mixed", 20, 1, mixed), ("faces", 22, 7, [[3, 1, 2, 6], [4, 7, 8, 9, 10]])):
            rows = [row[1:] for row in rows] if offsets and kind == 22 else rows
            section = node(zone, name, "Elements_t", np.array([kind, 0], np.int32))
            node(section, "ElementRange", "IndexRange_t", np.array([first, first + len(rows) - 1], np.int32))
            node(section, "ElementConnectivity", "DataArray_t", np.concatenate(rows).astype(np.int32))
            if offsets:
                ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
                node(section, "ElementStartOffset", "DataArray_t", ends)
        conditions = node(zone, "ZoneBC", "ZoneBC_t")
        condition(conditions, "lines", "EdgeCenter", "PointList", [[2], [4]])
        condition(conditions, "cubic", "FaceCenter", "PointRange", [[3], [3]])
        condition(conditions, "behind", "EdgeCenter", "PointList", [[6]])
        condition(conditions, "polygons", "FaceCenter", "ElementRange", [[8], [8]])
        condition(conditions, "corner", "Vertex", "PointList", [[3]])
        node(conditions, "nothing", "BC_t", "BCWall")
    found = {name: (nodes + 1).tolist() for name, nodes in boundaries(path)["Zone"].items()}
    known = {"lines": [1, 2, 3], "cubic": list(range(11, 21)), "polygons": [7, 8, 9, 10], "corner": [3]}
    assert found == known | ({"behind": [4, 5]} if offsets else {})
