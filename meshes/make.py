"""Makes the meshes of this folder, each with the program that users of its format have.

Two bodies in many formats: a plate of 2 × 1 (9 nodes, 2 quads, 4 triangles, 8 boundary lines; T = x + 2y at its nodes,
k = number of the cell) and a block of 2 × 1 × 1 (12 nodes, 2 hexahedra). Gmsh makes its own files of a plate with
named groups, ASE and LAMMPS have a crystal of salt. Run it in this folder: ``python make.py``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import ase.io
import gmsh
import meshio
import netCDF4
import numpy as np
import pyvista as pv
from ase.build import bulk

HERE = Path(__file__).parent

POINTS = np.array([[x, y, 0.0] for y in (0.0, 0.5, 1.0) for x in (0.0, 1.0, 2.0)])
QUADS = np.array([[0, 1, 4, 3], [3, 4, 7, 6]])
TRIANGLES = np.array([[1, 2, 5], [1, 5, 4], [4, 5, 8], [4, 8, 7]])
LINES = np.array([[0, 1], [1, 2], [2, 5], [5, 8], [8, 7], [7, 6], [6, 3], [3, 0]])
T = POINTS[:, 0] + 2 * POINTS[:, 1]

BLOCK = np.array([[x, y, z] for z in (0.0, 1.0) for y in (0.0, 1.0) for x in (0.0, 1.0, 2.0)])
HEXAHEDRA = np.array([[0, 1, 4, 3, 6, 7, 10, 9], [1, 2, 5, 4, 7, 8, 11, 10]])


def plate(*, lines: bool = True) -> meshio.Mesh:
    """The plate with its fields."""
    cells = [("quad", QUADS), ("triangle", TRIANGLES), ("line", LINES)][: 3 if lines else 2]
    numbers = np.split(np.arange(14.0), [2, 6])[: len(cells)]
    velocity = np.stack([T, -T, 0 * T], axis=1)
    return meshio.Mesh(POINTS, cells, {"T": T, "v": velocity}, {"k": numbers})


def block() -> meshio.Mesh:
    """The block with a field and sets."""
    return meshio.Mesh(
        BLOCK,
        [("hexahedron", HEXAHEDRA)],
        {"T": BLOCK[:, 0]},
        point_sets={"left": np.flatnonzero(BLOCK[:, 0] == 0)},
        cell_sets={"first": [np.array([0])]},
    )


def with_meshio() -> None:
    """Formats that meshio writes."""
    meshio.write(HERE / "plate_ascii.vtu", plate(), binary=False)
    meshio.write(HERE / "plate_ascii.vtk", plate(), binary=False)
    meshio.write(HERE / "plate.xdmf", plate(lines=False))
    meshio.write(HERE / "plate.avs", plate(lines=False), "avsucd")
    bare = meshio.Mesh(BLOCK, block().cells)
    for name in ("block.bdf", "block.mesh", "block.meshb"):
        meshio.write(HERE / name, bare)
    meshio.write(HERE / "block.inp", block())
    meshio.write(HERE / "block.med", meshio.Mesh(BLOCK, block().cells, {"T": BLOCK[:, 0]}))
    surface = meshio.Mesh(POINTS, [("triangle", TRIANGLES)])
    for name in ("surface.stl", "surface.ply", "surface.obj", "surface.off"):
        meshio.write(HERE / name, surface)
    meshio.write(HERE / "surface_binary.stl", surface, "stl", binary=True)


def with_vtk() -> None:
    """Formats that VTK writes, and a series in time."""
    grid = pv.from_meshio(plate())
    grid.save(HERE / "plate.vtu")
    grid.save(HERE / "plate.vtk")
    grid.extract_surface(algorithm="geometry").save(HERE / "surface.vtp")
    image = pv.ImageData(dimensions=(3, 2, 2))
    image["T"] = image.points[:, 0]
    image.save(HERE / "grid.vti")
    image.save(HERE / "grid.vtk", binary=False)
    lines = ['<VTKFile type="Collection" version="0.1"><Collection>']
    for step, time in enumerate((0.0, 0.5, 2.0)):
        grid["T"] = T * time
        grid.save(HERE / f"series_{step}.vtu")
        lines.append(f'<DataSet timestep="{time}" file="series_{step}.vtu"/>')
    (HERE / "series.pvd").write_text("\n".join([*lines, "</Collection></VTKFile>\n"]))


def with_gmsh() -> None:
    """Gmsh's formats and CGNS: a plate with a named boundary, linear and quadratic, text and binary."""
    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add("plate")
    rectangle = gmsh.model.occ.addRectangle(0, 0, 0, 2, 1)
    gmsh.model.occ.synchronize()
    gmsh.model.addPhysicalGroup(2, [rectangle], 7, "plate")
    gmsh.model.addPhysicalGroup(1, [4], 3, "left")
    gmsh.model.addPhysicalGroup(1, [2], 5)
    gmsh.option.setNumber("Mesh.MeshSizeMin", 0.9)
    gmsh.model.mesh.generate(2)
    for version, name in ((2.2, "gmsh22"), (4.1, "gmsh41")):
        for binary in (0, 1):
            gmsh.option.setNumber("Mesh.MshFileVersion", version)
            gmsh.option.setNumber("Mesh.Binary", binary)
            gmsh.write(str(HERE / f"{name}{'_binary' if binary else ''}.msh"))
    # Gmsh writes the path that it is given into some of its files.
    with contextlib.chdir(HERE):
        for name in ("gmsh.cgns", "gmsh.med", "gmsh.bdf", "gmsh.inp"):
            gmsh.write(name)
    gmsh.model.mesh.setOrder(2)
    gmsh.option.setNumber("Mesh.Binary", 0)
    gmsh.write(str(HERE / "gmsh_quadratic.msh"))
    gmsh.finalize()


def with_netcdf() -> None:
    """Exodus: the block with a side set, a node set and two time steps."""
    with netCDF4.Dataset(HERE / "block.e", "w", format="NETCDF3_64BIT_OFFSET") as data:
        for name, size in (
            *(("num_dim", 3), ("num_nodes", 12), ("num_elem", 2), ("num_el_blk", 1), ("len_name", 33)),
            *(("num_node_sets", 1), ("num_side_sets", 1), ("num_el_in_blk1", 2), ("num_nod_per_el1", 8)),
            *(("num_nod_ns1", 4), ("num_side_ss1", 1), ("num_nod_var", 1), ("num_elem_var", 1), ("num_glo_var", 1)),
            ("time_step", None),
        ):
            data.createDimension(name, size)
        data.createVariable("time_whole", "f8", ("time_step",))[:] = [0.0, 0.25]
        for axis, column in zip("xyz", BLOCK.T, strict=True):
            data.createVariable(f"coord{axis}", "f8", ("num_nodes",))[:] = column
        connect = data.createVariable("connect1", "i4", ("num_el_in_blk1", "num_nod_per_el1"))
        connect.elem_type = "HEX8"
        connect[:] = HEXAHEDRA + 1
        data.createVariable("node_ns1", "i4", ("num_nod_ns1",))[:] = np.flatnonzero(BLOCK[:, 0] == 0) + 1
        data.createVariable("elem_ss1", "i4", ("num_side_ss1",))[:] = [2]
        data.createVariable("side_ss1", "i4", ("num_side_ss1",))[:] = [2]
        for name, texts, count in (
            ("eb_names", ["steel"], "num_el_blk"),
            ("ns_names", ["left"], "num_node_sets"),
            ("ss_names", ["right"], "num_side_sets"),
            ("name_nod_var", ["T"], "num_nod_var"),
            ("name_elem_var", ["k"], "num_elem_var"),
            ("name_glo_var", ["energy"], "num_glo_var"),
        ):
            rows = np.array([list(text.ljust(33, "\0")) for text in texts], dtype="S1")
            data.createVariable(name, "S1", (count, "len_name"))[:] = rows
        data.createVariable("eb_prop1", "i4", ("num_el_blk",))[:] = [10]
        data.createVariable("vals_nod_var1", "f8", ("time_step", "num_nodes"))[:] = [BLOCK[:, 0], 3 * BLOCK[:, 0]]
        data.createVariable("vals_elem_var1eb1", "f8", ("time_step", "num_el_in_blk1"))[:] = [[1, 2], [3, 4]]
        data.createVariable("vals_glo_var", "f8", ("time_step", "num_glo_var"))[:] = [[5], [6]]


def by_hand() -> None:
    """Text formats that no library at hand writes: CalculiX results, SU2 and MFEM."""
    lines = ["    1C", f"    2C{12:30d}{1:38d}"]
    lines += [f" -1{n:10d}{x:12.5E}{y:12.5E}{z:12.5E}" for n, (x, y, z) in enumerate(BLOCK, 1)]
    lines += [" -3", f"    3C{2:30d}{1:38d}"]
    for n, nodes in enumerate(HEXAHEDRA + 1, 1):
        lines += [f" -1{n:10d}{1:5d}{0:5d}{1:5d}", " -2" + "".join(f"{node:10d}" for node in nodes)]
    lines.append(" -3")
    for step, time in enumerate((0.5, 1.0), 1):
        lines.append(f"  100CL{100 + step:5d}{time:12.5E}{12:12d}{'':20}{0:2d}{step:5d}{1:12d}")
        lines += [" -4  NDTEMP      1    1", " -5  T           1    1    0    0"]
        lines += [f" -1{n:10d}{time * x:12.5E}" for n, (x, _, _) in enumerate(BLOCK, 1)]
        lines.append(" -3")
    (HERE / "block.frd").write_text("\n".join([*lines, " 9999\n"]))
    cells = [f"1 3 {' '.join(map(str, q))}" for q in QUADS] + [f"2 2 {' '.join(map(str, t))}" for t in TRIANGLES]
    walls = [f"{1 + (k == 7)} 1 {a} {b}" for k, (a, b) in enumerate(LINES)]
    corners = [f"{x} {y}" for x, y, _ in POINTS]
    su2 = ["NDIME= 2", "NELEM= 6", *(f"9 {' '.join(map(str, q))} {k}" for k, q in enumerate(QUADS))]
    su2 += [f"5 {' '.join(map(str, t))} {k}" for k, t in enumerate(TRIANGLES, 2)]
    su2 += ["NPOIN= 9", *(f"{corner} {k}" for k, corner in enumerate(corners))]
    su2 += ["NMARK= 2", "MARKER_TAG= wall", "MARKER_ELEMS= 7", *(f"3 {a} {b}" for a, b in LINES[:7])]
    su2 += ["MARKER_TAG= left", "MARKER_ELEMS= 1", "3 3 0", ""]
    (HERE / "plate.su2").write_text("\n".join(su2))
    parts = ["MFEM mesh v1.0", "", "dimension", "2", "", "elements", "6", *cells, "", "boundary", "8", *walls]
    (HERE / "plate.mesh").write_text("\n".join([*parts, "", "vertices", "9", "2", *corners, ""]))


def with_ase() -> None:
    """Two frames of a crystal of salt, 8 ions in a box that repeats, charge q; unsorted for LAMMPS."""
    frames = [bulk("NaCl", "rocksalt", a=5.64, cubic=True) for _ in range(2)]
    dump = ""
    for k, salt in enumerate(frames):
        salt.positions += 0.25 * k
        salt.arrays["q"] = np.where(salt.numbers == 11, 1.0, -1.0)
        salt.info["time"] = 0.5 * k
        kinds = np.where(salt.numbers == 11, 1, 2)
        rows = [
            f"{i + 1} {kinds[i]} {salt.arrays['q'][i]} {' '.join(map(str, salt.positions[i]))}"
            for i in range(7, -1, -1)
        ]
        head = [f"ITEM: TIME\n{0.5 * k}", f"ITEM: TIMESTEP\n{100 * k}", "ITEM: NUMBER OF ATOMS\n8"]
        box = ["ITEM: BOX BOUNDS pp pp pp", *["0 5.64"] * 3, "ITEM: ATOMS id type q x y z"]
        dump += "\n".join([*head, *box, *rows, ""])
    ase.io.write(HERE / "salt.extxyz", frames)
    ase.io.write(HERE / "salt.gro", frames[0])
    ase.io.write(HERE / "salt.pdb", frames[0])
    (HERE / "salt.lammpstrj").write_text(dump)


if __name__ == "__main__":
    with_meshio()
    with_vtk()
    with_gmsh()
    with_netcdf()
    by_hand()
    with_ase()
