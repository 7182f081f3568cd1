"""Binary trajectories: what MDAnalysis, which writes them, has written, and what a file beside them says."""

from __future__ import annotations

import os
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from cli_cases import gno
from mesh_cases import within

from gno.mesh import Mesh, MeshError, MeshWarning, mdreader, read, read_series
from gno.mesh.index import without_parts
from gno.mesh.particles import upright
from gno.train.samples import _content

xdr = pytest.importorskip("MDAnalysis.lib.formats.libmdaxdr")
dcd = pytest.importorskip("MDAnalysis.lib.formats.libdcd")

N, BOX = 24, np.diag([3.0, 4.0, 5.0])
SUFFIXES = (".dcd", ".trr", ".xtc")


def positions(k: int, n: int = N) -> np.ndarray:
    return (np.random.default_rng(k).random((n, 3)) * np.diag(BOX)).astype(np.float32).round(3)


def trajectory(path: Path, n: int = N, n_frames: int = 4) -> Path:
    """Frames half a picosecond apart; of .trr every second one has velocities, and one has no positions."""
    if path.suffix == ".xtc":
        with xdr.XTCFile(str(path), "w") as file:
            for k in range(n_frames):
                file.write(positions(k, n), BOX, 10 * k, 0.1 * k, 1000)
    elif path.suffix == ".trr":
        with xdr.TRRFile(str(path), "w") as file:
            for k in range(n_frames):
                velocity = positions(100 + k, n) if k % 2 == 0 else None
                file.write(positions(k, n), velocity, positions(200 + k, n), BOX, 10 * k, 0.1 * k, 0.0, n)
                if k == 1:
                    file.write(None, velocity, positions(300, n), BOX, 15, 0.15, 0.0, n)
    else:
        with dcd.DCDFile(str(path), "w") as file:
            file.write_header(remarks="", natoms=n, istart=0, nsavc=10, delta=0.01, is_periodic=1)
            for k in range(n_frames):
                file.write(positions(k, n), [BOX[0, 0], 90.0, BOX[1, 1], 90.0, 90.0, BOX[2, 2]])
    return path


def gro(path: Path, n: int = N, kinds: str = "OH", shift: float = 0.0) -> Path:
    rows = (f"{1 + k // 3:5d}SOL  {kinds[k % len(kinds)]:>5s}{k + 1:5d}" + 3 * f"{shift + 0.1:8.3f}" for k in range(n))
    path.write_text("\n".join(["water", f"{n}", *rows, "3 4 5", ""]))
    return path


def psf(path: Path, n: int = N) -> Path:
    rows = (
        f"{k + 1:8d} A    {1 + k // 3:<4d} TIP3 {'O' if k % 3 == 0 else 'H':<4s} {'OT' if k % 3 == 0 else 'HT':<4s}"
        f" {0.417 if k % 3 else -0.834:10.6f} {1.008 if k % 3 else 15.9994:13.4f}           0"
        for k in range(n)
    )
    path.write_text("\n".join(["PSF", "", "       1 !NTITLE", " REMARKS", "", f"{n:8d} !NATOM", *rows, "", ""]))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_frames_are_what_was_written(suffix: str, tmp_path: Path) -> None:
    gro(tmp_path / "a.gro")
    series = read_series(trajectory(tmp_path / f"a{suffix}"))
    assert series.times == pytest.approx((0.0, 0.1, 0.2, 0.3), abs=1e-15)
    for k, mesh in enumerate(series):
        np.testing.assert_allclose(mesh.points, positions(k), rtol=0, atol=1e-6)
        assert mesh.points.dtype == np.float32 and mesh.period == (3.0, 4.0, 5.0)
        assert mesh.point_sets["H"].tolist() == list(range(1, N, 2)) and len(mesh.point_sets["residue SOL"]) == N
        assert mesh.point_fields["residue"].tolist() == [1 + i // 3 for i in range(N)]
        if suffix == ".trr":
            assert ("velocity" in mesh.point_fields) == (k % 2 == 0)
            np.testing.assert_array_equal(mesh.point_fields["force"], positions(200 + k))
    assert read(f"{tmp_path}/a{suffix}@1").time == pytest.approx(0.1, abs=1e-15)


def test_few_particles_are_not_packed(tmp_path: Path) -> None:
    gro(tmp_path / "a.gro", 5)
    series = read_series(trajectory(tmp_path / "a.xtc", 5))
    assert len(series) == 4
    np.testing.assert_array_equal(series[3].points, positions(3, 5))


def records(order: str, *parts: bytes) -> bytes:
    return b"".join(struct.pack(f"{order}i", len(part)) + part + struct.pack(f"{order}i", len(part)) for part in parts)


def dcd_by_hand(order: str = "<", cell: tuple | None = None, *, charmm: bool = True, fourth: bool = False) -> bytes:
    """A file as VMD's plugin describes it, with two frames of ones and twos."""
    numbers = [2, 100, 50, *[0] * 17]
    numbers[10], numbers[11], numbers[19] = cell is not None, fourth, 24 * charmm
    head = bytearray(b"CORD" + struct.pack(f"{order}20i", *numbers))
    struct.pack_into(f"{order}f" if charmm else f"{order}d", head, 40, 0.1)
    data = records(order, bytes(head), struct.pack(f"{order}i", 2) + b" " * 160, struct.pack(f"{order}i", 3))
    for k in (1.0, 2.0):
        axes = [struct.pack(f"{order}3f", k, k + axis, 3.0) for axis in range(3 + fourth)]
        data += records(order, *([struct.pack(f"{order}6d", *cell)] if cell else []), *axes)
    return data


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("charmm", "fourth"), [(True, False), (True, True), (False, False)])
def test_all_kinds_of_dcd(order: str, charmm: bool, fourth: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.dcd"
    path.write_bytes(
        dcd_by_hand(order, (4.0, 90.0, 5.0, 90.0, 90.0, 6.0) if charmm else None, charmm=charmm, fourth=fourth)
    )
    gro(tmp_path / "a.gro", 3)
    mesh = read(path)
    assert mesh.points.tolist() == [[2, 2, 2], [2, 3, 4], [3, 3, 3]] and mesh.time == pytest.approx(15.0, abs=1e-12)
    assert mesh.period == ((4.0, 5.0, 6.0) if charmm else ())


@pytest.mark.parametrize(
    "cell",
    [
        (4.0, 60.0, 5.0, 80.0, 70.0, 6.0),  # degrees: γ, β, α
        (4.0, 0.5, 5.0, np.cos(np.deg2rad(80.0)), np.cos(np.deg2rad(70.0)), 6.0),
        (4.0, 1.5, 5.0, -0.25, 2.0, 6.0),  # CHARMM's symmetric matrix
    ],
)
def test_cells_of_dcd(cell: tuple, tmp_path: Path) -> None:
    from gno.mesh.dcd import _box

    box = _box(np.array(cell))
    if abs(cell[1]) == 1.5:
        assert box.tolist() == [[4.0, 1.5, -0.25], [1.5, 5.0, 2.0], [-0.25, 2.0, 6.0]]
    else:
        gram = box @ box.T
        lengths = np.sqrt(np.diag(gram))
        angles = np.rad2deg(np.arccos((gram / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]))
        np.testing.assert_allclose([*lengths, *angles], [4, 5, 6, 70, 80, 60], rtol=1e-12)
    with pytest.raises(MeshError, match="cell: expected one with a volume"):
        upright(np.ones(3), np.array([0.9, 0.9, -0.9]))


def test_the_topology_has_the_name_or_is_in_the_folder(tmp_path: Path) -> None:
    path = trajectory(tmp_path / "a.dcd")
    with pytest.warns(MeshWarning, match="expected a topology of 24 particles .* got no such file: read without kinds"):
        assert not read(path).point_sets
    (tmp_path / "stray.pdb").write_text("nothing")
    gro(tmp_path / "other.gro", 7)
    with pytest.warns(MeshWarning, match=r"got 7 in other\.gro and stray\.pdb, which cannot be read \(expected"):
        read(path)
    gro(tmp_path / "start.gro")
    gro(tmp_path / "end.gro", shift=0.5)  # of the same particles
    assert set(read(path).point_sets) == {"O", "H", "residue SOL"}
    gro(tmp_path / "end.gro", kinds="OHH")
    with pytest.raises(MeshError, match=r"got end.gro and start.gro, which differ; link .* as a\.gro"):
        read(path)
    psf(tmp_path / "system.psf")  # says more
    mesh = read(path)
    assert mesh.point_fields["charge"][:3].tolist() == pytest.approx([-0.834, 0.417, 0.417])
    assert mesh.point_fields["mass"][0] == pytest.approx(15.9994) and mesh.point_fields["residue"][5] == 2
    assert {"O", "H", "type OT", "type HT", "residue TIP3"} == set(mesh.point_sets)
    gro(tmp_path / "a.gro", kinds="X")  # named after it
    assert set(read(path).point_sets) == {"X", "residue SOL"}
    gro(tmp_path / "a.gro", 9)
    with pytest.raises(MeshError, match=r"a\.dcd: expected a topology of 24 particles .* got 9 in a\.gro"):
        read(path)


def test_a_topology_belongs_to_its_trajectory(tmp_path: Path, capsys, monkeypatch) -> None:
    path, beside = trajectory(tmp_path / "a.dcd"), gro(tmp_path / "a.gro")
    assert without_parts([path, beside]) == [path]
    before = _content(path)
    gro(tmp_path / "a.gro", kinds="XY")
    assert _content(path) != before  # samples are kept by it
    code, out, err = gno(capsys, monkeypatch, "inspect", f"{path}@0")
    assert code == 0 and f"topology   {beside}" in out and "residue SOL  24 nodes" in out, err
    beside.unlink()
    code, out, err = gno(capsys, monkeypatch, "inspect", path)
    assert code == 0 and "\ntopology" not in out and err.count("expected a topology of 24 particles") == 1


def outcome(path: Path) -> Mesh | str:
    with within(60), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path, step=0)
        except MeshError as error:
            assert "\n" not in str(error) and path.name in str(error)
            return str(error)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_off_and_damaged(suffix: str, tmp_path: Path) -> None:
    path = trajectory(tmp_path / f"a{suffix}")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    path.write_bytes(whole[:-9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(path, step=2).n_nodes == N
        with pytest.raises(MeshError, match=r"frame 3: .*cut off"):
            read(path)
    for part in (1, 9, 50, 90, 150):
        path.write_bytes(whole[:part])
        assert isinstance(outcome(path), str)
    for _ in range(25):
        data = bytearray(whole)
        data[rng.integers(200)] = rng.integers(256)
        path.write_bytes(data)
        outcome(path)


def test_what_brings_its_reader_down_is_one_error_and_the_next_file_is_read(tmp_path: Path) -> None:
    path = trajectory(tmp_path / "a.xtc", 500, 1)
    whole, found = path.read_bytes(), set()
    for seed in range(8):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        data[92:] = rng.integers(0, 256, len(data) - 92, dtype=np.uint8).tobytes()
        path.write_bytes(data)
        found.add(str(outcome(path)))
        if f"{path}: damaged: it brings its reader down" in found:
            break
    assert f"{path}: damaged: it brings its reader down" in found
    path.write_bytes(whole)
    assert isinstance(outcome(path), Mesh)


def test_after_an_interruption_the_next_frame_is_not_answered_with_the_last_one(tmp_path: Path, monkeypatch) -> None:
    path, ask = trajectory(gro(tmp_path / "a.gro").with_suffix(".xtc")), mdreader.send

    def interrupted(*question):
        ask(*question)
        raise KeyboardInterrupt

    monkeypatch.setattr(mdreader, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outcome(path)
    monkeypatch.setattr(mdreader, "send", ask)
    np.testing.assert_allclose(read(path, step=2).points, positions(2), atol=1e-3)


def test_a_topology_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    path = trajectory(tmp_path / "a.dcd")
    (tmp_path / "b.gro").write_text("water\nmany\n")
    with pytest.warns(MeshWarning, match=r"got b\.gro, which cannot be read \(.*many.*\): read without kinds"):
        read(path)
    (tmp_path / "b.gro").rename(tmp_path / "a.gro")
    with pytest.raises(MeshError, match=r"a\.gro: .*many"):
        read(path)


def test_without_mdanalysis_one_line_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "MDAnalysis.py").write_text("raise ImportError")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "hidden"), *sys.path])
    mdreader._helper(os.getpid()).close()
    try:
        with pytest.raises(MeshError, match=r'\.xtc is read with MDAnalysis, .*pip install "gno\[md\]"'):
            read(trajectory(tmp_path / "a.xtc"))
        gro(tmp_path / "a.gro")
        assert read(trajectory(tmp_path / "a.dcd")).n_nodes == read(trajectory(tmp_path / "a.trr")).n_nodes == N
    finally:
        mdreader._helper(os.getpid()).close()


DATA = """LAMMPS data file via write_data

3 atoms
2 atom types

-1 9 xlo xhi
0 5 ylo yhi
0 4 zlo zhi
{tilt}
Masses

1 15.9994
2 1.008

Pair Coeffs # lj/cut

1 0.1 3.0
2 0.0 1.0

Atoms{style}

{rows}

Velocities

2 0.1 0.2 0.3
1 0 0 0
3 1 2 3
"""


def lammps(path: Path, style: str, rows: tuple[str, ...], tilt: str = "") -> Path:
    path.write_text(DATA.format(style=style and f" # {style}", rows="\n".join(rows), tilt=tilt))
    return path


FULL = ("3 1 2 0.417 1 2 3 0 0 0", "1 1 1 -0.834 1 1 1 0 0 1", "2 1 2 0.417 2 1 1 0 -1 0")


def test_data_files_of_lammps(tmp_path: Path) -> None:
    io = pytest.importorskip("ase.io.lammpsdata")
    mesh, path = read(lammps(tmp_path / "a.data", "full", FULL, "1 0 0.5 xy xz yz")), tmp_path / "a.data"
    there = io.read_lammps_data(path, units="metal", read_image_flags=False)
    np.testing.assert_allclose(mesh.points, there.positions)
    np.testing.assert_allclose(mesh.point_fields["q"], there.get_initial_charges())
    np.testing.assert_allclose(mesh.point_fields["mass"], there.get_masses(), rtol=1e-6)
    assert mesh.point_fields["mol"].tolist() == [1, 1, 1] and mesh.point_fields["type"].tolist() == [1, 2, 2]
    assert mesh.point_fields["v"].tolist() == [[0, 0, 0], [0.1, 0.2, 0.3], [1, 2, 3]]
    assert {name: nodes.tolist() for name, nodes in mesh.point_sets.items()} == {"type 1": [0], "type 2": [1, 2]}
    turns = np.array(mesh.period) @ np.linalg.inv(np.asarray(there.cell))
    assert np.abs(turns - turns.round()).max() < 1e-12
    charged = read(lammps(tmp_path / "b.lmp", "charge", ("1 1 0.5 1 2 3", "2 2 -1 0 0 1", "3 1 0.5 3 3 3")))
    assert charged.point_fields["q"].tolist() == [0.5, -1, 0.5] and charged.period == (10.0, 5.0, 4.0)
    for comment in ("", "of my best run"):  # by its columns
        assert read(lammps(tmp_path / "c.lmp", comment, FULL)).point_fields["q"][0] == -0.834


def test_a_data_file_describes_a_trajectory(tmp_path: Path) -> None:
    lammps(tmp_path / "system.data", "full", FULL)
    mesh = read(trajectory(tmp_path / "run.dcd", 3))
    assert mesh.point_fields["q"].tolist() == [-0.834, 0.417, 0.417] and "v" not in mesh.point_fields
    assert mesh.point_sets["type 2"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("style", "rows", "message"),
    [
        ("", ("1 1 0.5 1 2 3",) * 3, "a style .*, as 'Atoms # full', got none and 6 columns"),
        ("hybrid sphere charge", FULL, "got 'hybrid sphere charge'"),
        ("full", ("1 1 1 0 0 0",) * 3, "expected 7 or 10 columns of style full, got 6"),
        ("full", FULL[:2], "Atoms: expected 3 lines, got 2"),
        ("full", (*FULL[:2], "2 1 2 0.417 2 1 x 0 -1 0"), "Atoms: x y z: expected numbers, got 'x' in row 3"),
        ("full", (*FULL[:2], "2 1 2 0.417 2 1"), "Atoms: expected 10 words in each line, got 6"),
        (
            "full",
            (*FULL[:2], "2 1 3 0.417 2 1 1 0 -1 0"),
            "Masses: .* a line for each type .*, got none for type 3",
        ),
        ("full", (*FULL[:2], FULL[0]), "Atoms: expected each id once, got 3 twice"),
    ],
)
def test_data_files_that_do_not_fit_are_one_error(style: str, rows: tuple, message: str, tmp_path: Path) -> None:
    path = lammps(tmp_path / "a.data", style, rows)
    with pytest.raises(MeshError, match=message) as caught:
        read(path)
    assert "a.data" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3 atoms", "0 atoms", "atoms: expected at least one, got 0"),
        ("3 atoms", "some atoms", "atoms: expected a number of particles, got 'some'"),
        ("2 1.008", "2", "Masses: expected a type and a value in each line, got '2'"),
        ("2 1.008", "2 light", "Masses: expected numbers, got 'light' in row 2"),
        ("-1 9 xlo xhi", "9 xlo xhi", "xlo xhi: expected 2 numbers, got 1"),
        ("-1 9 xlo xhi", "9 -1 xlo xhi", "xlo xhi: expected a lower and a higher bound, got 9 and -1"),
        ("0 4 zlo zhi", "0 4 zlo zhi\n1 2 xy xz yz", "xy xz yz: expected 3 numbers, got 2"),
        ("1 0 0 0\n", "1 0 0\n", "Velocities: expected 4 words in each line, got 3"),
    ],
)
def test_what_is_wrong_in_a_data_file_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = lammps(tmp_path / "a.data", "full", FULL)
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(MeshError, match=message) as caught:
        read(path)
    assert "a.data" in str(caught.value) and "\n" not in str(caught.value)


def test_a_reader_that_takes_too_long_is_not_called_damage(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("MDAnalysis")
    mdreader._helper(os.getpid()).close()
    monkeypatch.setattr(mdreader, "_SECONDS", 0.05)  # its start alone takes longer
    gro(tmp_path / "a.gro")
    with pytest.raises(MeshError, match=r"no answer in 0\.05 s: a slow disk, a busy machine, or a damaged file"):
        read(trajectory(tmp_path / "a.xtc"))
    monkeypatch.undo()
    assert read(tmp_path / "a.xtc").n_nodes == N
