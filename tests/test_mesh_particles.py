"""Files of molecular dynamics: what ASE, an independent reader, sees in them, and every column in the file's units."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gno.mesh import Mesh, MeshError, MeshWarning, node_mass, read, read_series
from gno.mesh.io import each_frame
from gno.train.splits import series_of

ase = pytest.importorskip("ase")
ase_io = pytest.importorskip("ase.io")

BOX = np.array([8.0, 9.0, 10.0])


def atoms(seed: int = 0, n: int = 12, *, box=None):
    """Salt water in a box, moved a little, with columns and with what belongs to the frame."""
    rng = np.random.default_rng(seed)
    cell = BOX if box is None else box
    found = ase.Atoms(rng.choice(["Na", "Cl", "O"], n), rng.random((n, 3)) @ np.diag(BOX), cell=cell, pbc=True)
    found.arrays["q"] = rng.normal(size=n)
    found.arrays["forces"] = rng.normal(size=(n, 3))
    found.arrays["molecule"] = np.arange(n)
    found.info.update(energy=1.5 * seed, virial=rng.normal(size=(3, 3)), config_type="salt water", time=0.25 * seed)
    return found


def dump_frame(
    step: int, rows: np.ndarray, columns: str, bounds: str, flags: str = "pp pp pp", before: str = ""
) -> str:
    table = "\n".join(" ".join(f"{x:.10g}" if isinstance(x, float) else str(x) for x in row) for row in rows)
    return (
        f"{before}ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(rows)}\n"
        f"ITEM: BOX BOUNDS {flags}\n{bounds}\nITEM: ATOMS {columns}\n{table}\n"
    )


def test_a_dump_may_have_any_name(tmp_path: Path) -> None:
    truth = [unsorted_dump(tmp_path / f"dump.{number}", 1)[0] for number in (900, 1000)]
    np.testing.assert_allclose(read(tmp_path / "dump.1000").points, truth[1]["points"])
    assert [mesh.source for mesh in read_series(tmp_path / "dump.*")] == [f"{tmp_path}/dump.{k}" for k in (900, 1000)]
    assert series_of(tmp_path / "dump.900") == tmp_path / "dump.*"
    unsorted_dump(tmp_path / "melt.out", 3)
    assert len(read_series(tmp_path / "melt.out")) == 3 and read(tmp_path / "melt.out@1").n_nodes == 7
    (tmp_path / "melt.log").write_text("LAMMPS (2 Aug 2023)")
    with pytest.raises(MeshError, match=r"expected one of .*, got '\.log'"):
        read(tmp_path / "melt.log")


def unsorted_dump(path: Path, n_frames: int = 3) -> list[dict[str, np.ndarray]]:
    """Frames with other boxes and numbers of atoms, in the order of no one; returns the truth, by id."""
    truth, text = [], ""
    for k in range(n_frames):
        rng, n = np.random.default_rng(k), 6 + k
        x, low, side = rng.random((n, 3)), np.array([-1.0, 2.0, 0.5 * k]), BOX + k
        order, kind, pe = rng.permutation(n), rng.integers(1, 3, n), rng.normal(size=n)
        f, stress = rng.normal(size=(n, 3)), rng.normal(size=(n, 6))
        rows = [[i + 1, kind[i], *x[i], *f[i], pe[i], *stress[i]] for i in order]
        rows = [[v.item() if hasattr(v, "item") else v for v in row] for row in rows]
        bounds = "\n".join(f"{a} {a + b}" for a, b in zip(low, side, strict=True))
        columns = "id type xs ys zs fx fy fz c_pe " + " ".join(f"c_s[{j}]" for j in range(1, 7))
        before = ("ITEM: UNITS\nlj\n" if k == 0 else "") + f"ITEM: TIME\n{0.005 * k}\n"
        text += dump_frame(100 * k, rows, columns, bounds, before=before)
        truth.append({"points": low + x * side, "period": side, "type": kind, "f": f, "c_pe": pe, "c_s": stress})
    path.write_text(text)
    return truth


@pytest.mark.parametrize("suffix", [".xyz", ".extxyz"])
def test_extended_xyz_is_what_ase_wrote(suffix: str, tmp_path: Path) -> None:
    path, written = tmp_path / f"a{suffix}", [atoms(k, 10 + k, box=BOX + k) for k in range(3)]
    ase_io.write(path, written, format="extxyz")
    series = read_series(path)
    assert series.times == (0.0, 0.25, 0.5)
    for mesh, frame, there in zip(series, written, ase_io.read(path, ":"), strict=True):
        np.testing.assert_allclose(mesh.points, there.positions, rtol=0, atol=1e-12)
        np.testing.assert_allclose(mesh.period, frame.cell.lengths())
        np.testing.assert_allclose(mesh.point_fields["q"], frame.arrays["q"], atol=1e-7)
        np.testing.assert_allclose(mesh.point_fields["forces"], there.get_forces(), rtol=0, atol=1e-12)
        assert mesh.point_fields["molecule"].tolist() == list(range(len(frame)))
        assert mesh.global_fields["energy"] == there.get_potential_energy()
        np.testing.assert_allclose(mesh.global_fields["virial"], frame.info["virial"], rtol=1e-6)
        names = np.array(frame.get_chemical_symbols())
        assert {k: v.tolist() for k, v in mesh.point_sets.items()} == {
            name: np.flatnonzero(names == name).tolist() for name in sorted(set(names))
        }
        assert mesh.time == frame.info["time"] and not mesh.cells
    assert read(path).time == 0.5 and read(path, step=0).n_nodes == 10


def test_axes_that_do_not_repeat_and_names_that_are_no_elements(tmp_path: Path) -> None:
    path = tmp_path / "beads.xyz"
    path.write_text(
        '2\nLattice="4 0 0 0 5 0 0 0 6" Properties=species:S:1:pos:R:3:fixed:L:1:resname:S:1:tag:I:1 pbc="T F T"\n'
        "bead 1 2 3 T SOL 7\nPOLYMER 0.5 0 9 F ALA 9\n"
    )
    mesh = read(path)
    assert mesh.period == (4.0, 0.0, 6.0)
    assert set(mesh.point_sets) == {"bead", "POLYMER", "resname ALA", "resname SOL"}
    assert mesh.point_fields["fixed"].tolist() == [True, False] and mesh.point_fields["tag"].dtype == np.int64
    plain = tmp_path / "plain.xyz"
    plain.write_text('3\nAtoms. "Timestep: 0\nO 0 0 0\nH 1 0 0.5 0.1\nH 0 1 0\n')
    mesh = read(plain)
    assert (mesh.n_nodes, mesh.period, mesh.time, dict(mesh.global_fields)) == (3, (), None, {})
    assert mesh.point_sets["H"].tolist() == [1, 2]


def test_a_dump_keeps_every_column_sorted_by_id_with_boxes_that_change(tmp_path: Path) -> None:
    path = tmp_path / "a.lammpstrj"
    truth = unsorted_dump(path)
    series = read_series(path)
    assert series.times == pytest.approx((0.0, 0.005, 0.01))
    for mesh, wanted, there in zip(series, truth, ase_io.read(path, ":", format="lammps-dump-text"), strict=True):
        np.testing.assert_allclose(mesh.points, wanted["points"], rtol=1e-8)
        np.testing.assert_allclose(mesh.points, there.positions + there.get_celldisp().ravel(), rtol=1e-8)
        np.testing.assert_allclose(mesh.period, wanted["period"])
        assert mesh.point_fields["id"].tolist() == list(range(1, mesh.n_nodes + 1))
        for name in ("type", "f", "c_pe", "c_s"):
            np.testing.assert_allclose(mesh.point_fields[name], wanted[name], rtol=1e-8)
        members = {name: v.tolist() for name, v in mesh.point_sets.items()}
        assert members == {f"type {k}": np.flatnonzero(wanted["type"] == k).tolist() for k in set(wanted["type"])}
    assert read(path, step=1).time == 0.005


def test_steps_are_times_where_there_are_none_and_elements_are_sets(tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    rows = [[2, 1, "Si", 1.0, 2.0, 0.0, 0.5, 1, 0, -1], [1, 2, "O", 3.0, 1.0, 0.0, 0.25, 0, 0, 0]]
    frames = [dump_frame(k, rows, "id type element xu yu zu v_x ix iy iz", "0 4\n0 5\n-0.5 0.5") for k in (1000, 2000)]
    path.write_text("".join(frames))
    mesh = read(path)
    assert read_series(path).times == (1000.0, 2000.0)
    assert (mesh.dim, mesh.period) == (3, (4.0, 5.0, 1.0))  # flat now, and in no other frame perhaps
    assert set(mesh.point_sets) == {"O", "Si", "type 1", "type 2"}
    assert mesh.point_fields["i"].tolist() == [[0, 0, 0], [1, 0, -1]]
    assert mesh.point_fields["v_x"].tolist() == [0.25, 0.5]
    path.write_text(dump_frame(0, rows, "id type element x y z q ix iy iz", "0 4\n0 5\n-1 1", "pp ss fs"))
    assert read(path).period == (4.0, 0.0, 0.0)


@pytest.mark.parametrize(("xy", "xz"), [(1.5, -0.5), (1.5, 0.5), (-1.5, -0.5)])
def test_a_triclinic_dump_is_unfolded_and_repeats_by_its_cell(xy, xz, tmp_path: Path) -> None:
    path, cell = tmp_path / "a.dump", np.array([[6.0, 0, 0], [xy, 7, 0], [xz, 0.8, 8]])
    scaled = np.random.default_rng(0).random((5, 3))
    corners = np.stack(np.meshgrid(*[[0, 1]] * 3), axis=-1).reshape(-1, 3) @ cell  # what the box reaches is in the file
    tilts = zip(corners.min(0), corners.max(0), (xy, xz, 0.8), strict=True)
    bounds = "\n".join(f"{a} {b} {t}" for a, b, t in tilts)
    rows = [[k + 1, 1, *row] for k, row in enumerate(scaled.tolist())]
    path.write_text(dump_frame(0, rows, "id type xs ys zs", bounds, "xy xz yz pp pp pp"))
    mesh = read(path)
    np.testing.assert_allclose(mesh.points, scaled @ cell, rtol=1e-8)
    turns = np.array(mesh.period) @ np.linalg.inv(cell)
    assert np.abs(turns - turns.round()).max() < 1e-12 and abs(np.linalg.det(turns)) == pytest.approx(1.0)
    hexagonal = atoms(box=[[4.0, 0, 0], [-2.0, 3.5, 0], [0, 0, 20]])
    ase_io.write(tmp_path / "a.xyz", hexagonal, format="extxyz")
    assert read(tmp_path / "a.xyz").period == ((4.0, 0.0, 0.0), (2.0, 3.5, 0.0), (0.0, 0.0, 20.0))
    hexagonal.pbc = [True, True, False]
    ase_io.write(tmp_path / "a.xyz", hexagonal, format="extxyz")
    assert read(tmp_path / "a.xyz").period == ((4.0, 0.0, 0.0), (2.0, 3.5, 0.0), (0.0, 0.0, 0.0))
    hexagonal.pbc = [False, True, True]
    ase_io.write(tmp_path / "a.xyz", hexagonal, format="extxyz")
    with pytest.warns(MeshWarning, match="period along y, so particles"):
        assert read(tmp_path / "a.xyz").period == (0.0, 0.0, 20.0)  # z stands square on the others


def test_gromacs_in_nanometres_with_velocities_and_time(tmp_path: Path) -> None:
    path, frame = tmp_path / "a.gro", atoms()
    frame.set_velocities(np.random.default_rng(1).normal(size=(12, 3)) * 0.01)
    ase_io.write(path, frame)
    there, mesh = ase_io.read(path), read(path)
    np.testing.assert_allclose(10 * mesh.points, there.positions, atol=1e-9)
    np.testing.assert_allclose(mesh.period, BOX / 10, rtol=1e-4)
    speed = there.get_velocities() / (ase.units.nm / (1000 * ase.units.fs))
    np.testing.assert_allclose(mesh.point_fields["velocity"], speed, rtol=1e-6)
    line = "    1SOL     OW    1   0.12345  -1.62456   1.67789\n    2SOL    HW1    2   0.22345   1.62456   1.57789\n"
    text = "".join(f"water t= {0.5 * k:.3f} step= {k}\n 2\n{line}   1.0  2.0  3.0  0 0 0 0 0 0\n" for k in range(3))
    path.write_text(text)
    assert read_series(path).times == (0.0, 0.5, 1.0)
    mesh = read(path)
    assert mesh.points[0].tolist() == [0.12345, -1.62456, 1.67789] and mesh.period == (1.0, 2.0, 3.0)
    assert set(mesh.point_sets) == {"OW", "HW1", "residue SOL"} and mesh.point_fields["residue"].tolist() == [1, 2]


def test_pdb_models_share_the_box(tmp_path: Path) -> None:
    path, frames = tmp_path / "a.pdb", [atoms(), atoms()]
    frames[1].positions += 0.5
    ase_io.write(path, frames)
    series = read_series(path)
    assert len(series) == 2
    np.testing.assert_allclose(series[1].points, frames[1].positions, atol=1e-3)
    assert series[0].period == series[1].period == tuple(BOX)
    assert "residue MOL" in series[1].point_sets and {"Na", "Cl", "O"} <= set(series[1].point_sets)


def test_particles_weigh_the_same(tmp_path: Path) -> None:
    ase_io.write(tmp_path / "a.xyz", atoms(), format="extxyz")
    np.testing.assert_allclose(node_mass(read(tmp_path / "a.xyz")), 1 / 12)


def test_frames_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    ase_io.write(path, [atoms(k) for k in range(5)], format="extxyz")
    assert read(f"{path}@3").time == read(f"{path}@-2").time == 0.75
    assert read(f"{path}@3").source == f"{path}@3"
    assert [p.name for p in each_frame(tmp_path / "a.xyz@1::2")] == ["a.xyz@1", "a.xyz@3"]
    assert len(each_frame(tmp_path / "a.xyz@:")) == 5 and each_frame(path) == [path]
    with pytest.raises(MeshError, match=r"a\.xyz@7: expected a frame from 0 to 4, got '7'"):
        read(f"{path}@7")
    with pytest.raises(MeshError, match=r"a\.xyz@9:: expected frames from 0 to 4"):
        each_frame(tmp_path / "a.xyz@9:")
    named = tmp_path / "b@2"
    named.mkdir()
    (named / "c@1.xyz").write_bytes(path.read_bytes())
    assert read(named / "c@1.xyz").time == 1.0  # a file may have such a name


def test_a_trajectory_that_grew_is_indexed_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.lammpstrj"
    unsorted_dump(path, 2)
    assert len(read_series(path)) == 2
    unsorted_dump(path, 3)
    assert len(read_series(path)) == 3


def cut(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xyz", "3\n\nO 0 0 0\nH 1 0 0\n", "frame 0: expected 3 particles with 4 columns, got 8 values"),
        ("a.xyz", "2\n\nO 0 0 0\nH 1 0 x\n", "column 'pos': expected numbers, got 'x' in row 2"),
        ("a.xyz", "-1\n\n", "frame at byte 0: expected a number of particles, got '-1'"),
        ("a.xyz", '1\npbc="T T" Properties=species:S:1:pos:R:3\nO 0 0 1\n', "pbc: expected three of T and F"),
        ("a.xyz", '1\nLattice="1 0 0" Properties=species:S:1:pos:R:3\nO 0 0 1\n', "line of comment: .*Lattice"),
        ("a.xyz", "1\n\nO 0 0 0\n\n?\n", "frame at byte 11: expected a number of particles, got ''"),
        ("a.xyz", "1\nProperties=species:S:1:pos:R:2\nO 0 0\n", r"expected pos:R:3 among the columns"),
        ("a.xyz", "1\nProperties=species:S\nO 0 0\n", "expected name:type:columns"),
        ("a.xyz", "1\nProperties=species:Q:1:pos:R:3\nO 0 0 1\n", "a type of R, I, S or L, got 'Q'"),
        ("a.xyz", "0\n\n", "expected particles, got none"),
        ("a.xyz", "1\n\nO nan 0 0\n", "expected finite coordinates"),
        ("a.gro", "t\n 2\n    1SOL     OW    1   0.123  -1.624   1.677\n", "expected 2 atoms and the line of the box"),
        ("a.gro", "t\n 1\n    1SOL     OW    1   0.1\n 1 2 3\n", "expected three positions"),
        ("a.gro", "t\n 1\n    1SOL     OW    1   0.123  -1.624   1.677\n 1 2\n", "box: expected 3 or 9 numbers"),
        ("a.gro", "t\n 1\n    xSOL     OW    1   0.123  -1.624   1.677\n 1 2 3\n", "residue: expected whole numbers"),
        ("a.dump", dump_frame(0, [[2, 0, 0, 0], ["a", 0, 0, 0]], "id x y z", "0 1\n0 1\n0 1"), "'id': .*'a' in row 2"),
        (
            "a.dump",
            dump_frame("one", [[1, 0, 0, 0]], "id x y z", "0 1\n0 1\n0 1"),
            "TIMESTEP: .*'one'",
        ),
        ("a.dump", "ITEM: TIMESTEP\n0\n", "expected 'ITEM: ATOMS' in each frame, got none"),
        ("a.dump", "nothing", "expected a dump of LAMMPS in text"),
        ("a.dump", dump_frame(0, [[1, 2.0]], "id x", "0 1\n0 1\n0 1"), "expected columns x y z"),
        ("a.dump", dump_frame(0, [[1, 1]], "id id", "0 1\n0 1\n0 1"), "expected each name once, got 'id' twice"),
        ("a.dump", dump_frame(0, [[1, 1, 1, 1]], "id x y z", "0 1\n0 1"), "BOX BOUNDS: expected three lines"),
        ("a.dump", dump_frame(0, [[1, 1, 1, 1]] * 2, "id x y z", "0 1\n0 1\n0 1")[:-3], "2 particles with 4 columns"),
        ("a.pdb", "REMARK nothing\n", "expected lines ATOM or HETATM, got none"),
    ],
)
def test_broken_files_are_one_error(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = cut(tmp_path, name, text)
    with pytest.raises(MeshError, match=message) as caught:
        read(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_that_was_killed_loses_its_last_frame_only(tmp_path: Path) -> None:
    path = tmp_path / "a.lammpstrj"
    unsorted_dump(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert read(path, step=1).n_nodes == 7
    with pytest.raises(MeshError, match=r"frame 2: expected 8 particles .*cut off"):
        read(path)


def test_without_ase_one_line_says_what_to_install(tmp_path: Path) -> None:
    ase_io.write(tmp_path / "a.xyz", atoms(), format="extxyz")
    (tmp_path / "plain.xyz").write_text("1\n\nO 0 0 0\n")
    code = (
        "import sys; sys.modules['ase'] = None\nfrom gno.mesh import MeshError, read\n"
        f"assert read(r'{tmp_path / 'plain.xyz'}').n_nodes == 1\n"
        f"try:\n    read(r'{tmp_path / 'a.xyz'}')\nexcept MeshError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and 'pip install "gno[md]"' in done.stdout


def test_sets_of_a_cloud_are_kinds_and_no_places() -> None:
    from gno.graph import SampleSpec

    points = np.random.default_rng(0).random((50, 3))
    mesh = Mesh(points, point_sets={"O": np.arange(20), "H": np.arange(20, 50)}, period=(1, 1, 1))
    spec = SampleSpec.fit([mesh], inputs=["O", "H"], targets=[])
    assert spec.sets == () and spec.n_inputs == 2
    assert SampleSpec.fit([mesh], inputs=["O"], targets=[], sets=["H"]).sets == ("H",)


def test_a_kind_that_a_frame_lacks_is_in_it_nowhere() -> None:
    from gno.graph import SampleSpec

    points = np.random.default_rng(0).random((30, 3))
    water, oxygen = (
        Mesh(points, point_sets=sets) for sets in ({"O": np.array([0]), "H": np.array([1, 2])}, {"O": np.arange(30)})
    )
    spec = SampleSpec.fit([oxygen, water], inputs=["O", "H"], targets=[])
    assert spec.inputs[1].values(oxygen).sum() == 0 and spec.inputs[1].values(water).sum() == 2
    with pytest.raises(ValueError, match="point_set field 'H': expected in the file, got none"):
        spec.inputs[1].values(Mesh(points))
    with pytest.raises(ValueError, match="field 'He': expected in the file, got point_set: O"):
        SampleSpec.fit([oxygen], inputs=["He"], targets=[])
