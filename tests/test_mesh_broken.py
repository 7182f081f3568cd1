"""Broken files of every kind: one MeshError of one line that names the file, or the mesh; quickly and quietly."""

from __future__ import annotations

import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from mesh_cases import TINY, TINY_FILES, within

from gno.mesh import READABLE, CellBlock, Mesh, MeshError, quality, read, read_series, write
from gno.mesh.meshioreader import RARE

# Their readers need a process of their own, so they are tried less often.
SLOW = (".cgns", ".vti", *RARE)
# These say nowhere how much is to come, so a file cut between two lines looks whole.
UNCOUNTED = (".inp", ".bdf", ".stl", ".obj", ".pvd", ".pdb")


def outcome(path: Path) -> Mesh | str:
    """The mesh, or the message of the one error that is allowed."""
    with within(60), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path)
        except MeshError as error:
            assert "\n" not in str(error)
            assert path.name in str(error)
            return str(error)


@pytest.mark.parametrize("path", TINY_FILES, ids=lambda path: path.name)
def test_cut_off_files(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = read(path)
    data = path.read_bytes()
    shutil.copy(TINY / "plate.h5", tmp_path)
    for other in TINY.glob("series_*"):
        shutil.copy(other, tmp_path)
    broken = tmp_path / path.name
    parts = (0.5,) if path.suffix in SLOW else (0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    capfd.readouterr()
    for part in parts:
        broken.write_bytes(data[: int(part * len(data))])
        found = outcome(broken)
        if isinstance(found, Mesh) and path.suffix not in UNCOUNTED:
            # All nodes and cells are there: only fields or sets behind them were cut away.
            assert (found.n_nodes, found.n_cells) == (whole.n_nodes, whole.n_cells)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [s for s in READABLE if s not in (".pvtu", ".vtm", ".vtr", ".vts", ".vti", *RARE)])
def test_empty_and_garbage(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    assert "expected a mesh, got an empty file" in str(outcome(path)) or suffix == ".pvd"
    noise = random.Random(suffix)
    path.write_bytes(noise.randbytes(2000))
    assert isinstance(outcome(path), str)
    path.write_text("nothing that any program wrote\n" * 20)
    assert isinstance(outcome(path), str)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", [p for p in TINY_FILES if p.suffix not in SLOW], ids=lambda path: path.name)
def test_flipped_bytes(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = random.Random(path.name)
    shutil.copy(TINY / "plate.h5", tmp_path)
    for _ in range(10):
        data = bytearray(path.read_bytes())
        for _ in range(noise.choice((1, 5, 30))):
            data[noise.randrange(len(data))] = noise.randrange(256)
        broken = tmp_path / path.name
        broken.write_bytes(bytes(data))
        outcome(broken)
    assert capfd.readouterr() == ("", "")


def test_damaged_cgns_does_not_end_the_program(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray((TINY / "gmsh.cgns").read_bytes())
    data[200:9000] = random.Random(0).randbytes(8800)
    (tmp_path / "a.cgns").write_bytes(bytes(data))
    assert isinstance(outcome(tmp_path / "a.cgns"), str)
    assert capfd.readouterr() == ("", "")


def test_no_file_a_folder_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"no\.vtu: expected a file, got none"):
        read(tmp_path / "no.vtu")
    with pytest.raises(MeshError, match="expected a file, got a folder"):
        read(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(MeshError, match=r"expected one of .*\.vtu.*, got '\.docx'"):
        read(tmp_path / "a.docx")
    with pytest.raises(MeshError, match="expected a step from 0 to 0, got 1"):
        read(TINY / "plate.vtu", step=1)


ASCII = (TINY / "plate_ascii.vtu").read_text()


def damaged_vtu(tmp_path: Path, old: str, new: str) -> Path:
    assert old in ASCII
    path = tmp_path / "damaged.vtu"
    path.write_text(ASCII.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.00000000000e+00\n", "nan\n", "expected finite coordinates"),
        ('NumberOfPoints="9"', 'NumberOfPoints="10"', r"points: expected \(10, 3\), got \(9, 3\)"),
        ('NumberOfCells="14"', 'NumberOfCells="13"', "cells: expected 13, got 14"),
        ('Name="v"', 'Name="T"', "expected each name once, got 'T' twice"),
        ('type="Float64" Name="T"', 'type="Float65" Name="T"', "expected a number type, got 'Float65'"),
        ("<Points>", "<Dots>", "mismatched tag"),
        ("UnstructuredGrid", "Hyperpyramid", "expected an UnstructuredGrid or PolyData, got 'Hyperpyramid'"),
    ],
)
def test_damage_in_vtu_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=message) as caught:
        read(damaged_vtu(tmp_path, old, new))
    assert "damaged.vtu" in str(caught.value)


def test_cells_that_point_to_missing_nodes(tmp_path: Path) -> None:
    path = tmp_path / "plate.su2"
    path.write_text((TINY / "plate.su2").read_text().replace("5 4 8 7 5", "5 4 8 9 5"))
    with pytest.raises(MeshError, match=r"cells 'triangle': expected nodes 0 to 8, got 9 .*plate\.su2"):
        read(path)


def test_fields_of_the_wrong_length(tmp_path: Path) -> None:
    import h5py

    for name in ("plate.xdmf", "plate.h5"):
        shutil.copy(TINY / name, tmp_path)
    text = (tmp_path / "plate.xdmf").read_text()
    place = text.split('Name="T"')[1].split("plate.h5:")[1].split("<")[0]
    with h5py.File(tmp_path / "plate.h5", "a") as data:
        del data[place]
        data[place] = np.zeros(8)
    with pytest.raises(MeshError, match=r"data item 'plate\.h5:.*': expected \[9\] values, got \(8,\)"):
        read(tmp_path / "plate.xdmf")
    (tmp_path / "plate.xdmf").write_text(text.replace('Dimensions="9"', 'Dimensions="8"'))
    with pytest.raises(MeshError, match=r"point_fields\['T'\]: expected 9 nodes, got 8"):
        read(tmp_path / "plate.xdmf")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plate.h5:", "missing.h5:", r"expected the file .*missing\.h5 next to it, got none"),
        ("plate.h5:/", "plate.h5:/no/", "expected an array '/no/"),
        ("<Geometry", "<Geometrie", "mismatched tag"),
        ('TopologyType="Mixed"', 'TopologyType="Knot"', "topology 'knot' is not supported"),
        ("</Xdmf>", "", "expected an XDMF file"),
        ('Name="v"', 'Name="T"', "expected each name once, got 'T' twice"),
    ],
)
def test_damage_in_xdmf_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    shutil.copy(TINY / "plate.h5", tmp_path)
    text = (TINY / "plate.xdmf").read_text()
    assert old in text
    (tmp_path / "plate.xdmf").write_text(text.replace(old, new))
    with pytest.raises(MeshError, match=message):
        read(tmp_path / "plate.xdmf")


def test_a_pvd_with_a_missing_file_or_several_parts(tmp_path: Path) -> None:
    path = tmp_path / "series.pvd"
    shutil.copy(TINY / "series.pvd", path)
    with pytest.raises(MeshError, match=r"expected the file .*series_0\.vtu, got none"):
        read_series(path)
    path.write_text(path.read_text().replace('timestep="0.5"', 'timestep="0.0"'))
    with pytest.raises(MeshError, match="several parts of one time"):
        read_series(path)


def test_zero_size_inverted_and_unused_are_told_and_kept(tmp_path: Path) -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 0]])
    cells = (CellBlock("triangle", np.array([[0, 1, 2], [0, 3, 2], [0, 1, 1]])),)
    write(Mesh(points, cells), tmp_path / "a.vtu")
    found = quality(read(tmp_path / "a.vtu"))
    assert found.problems() == (
        "1 cells are turned over or folded, the first is 1",
        "1 cells have no size, the first is 2",
        "1 nodes belong to no cell, the first is 4",
    )
