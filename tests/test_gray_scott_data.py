"""Gray–Scott: data sets as a user makes them, and the statistics of patterns."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from gno.mesh import node_mass, read_series, write

FOLDER = Path(__file__).parents[1] / "examples" / "gray_scott"
sys.path.insert(0, str(FOLDER))
make_data, domains, pattern_statistics, regimes = (
    importlib.import_module(name) for name in ("make_data", "domains", "pattern_statistics", "regimes")
)

SMALL = make_data.Settings("holes", spacing=0.1, refine=0, n_frames=2, every=5.0)


def frames(path):
    return [np.stack([mesh.point_fields["u"], mesh.point_fields["v"]]) for mesh in read_series(path)]


def test_two_processes_make_what_one_makes(tmp_path):
    counts = {"train": 2, "extrapolation": 1, "long": 1}
    one, two = (make_data.make(SMALL, tmp_path / name, counts, workers=n) for n, name in ((1, "one"), (2, "two")))
    assert [a.relative_to(tmp_path / "one") for a in one] == [b.relative_to(tmp_path / "two") for b in two]
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(frames(a), frames(b), strict=True))
    series = read_series(tmp_path / "one" / "long" / "500000" / "frames.pvd")
    assert series.times == tuple(5.0 * np.arange(21))


def test_a_stopped_run_goes_on_and_keeps_what_it_has(tmp_path):
    files = make_data.make(SMALL, tmp_path, {"train": 2}, workers=1)
    before = [file.stat().st_mtime_ns for file in files]
    there = frames(files[1])
    files[1].unlink()  # written last: without it the trajectory is not there
    make_data.make(SMALL, tmp_path, {"train": 3}, workers=1)
    after = [file.stat().st_mtime_ns for file in files]
    assert before[0] == after[0] and before[1] < after[1]
    assert all(np.array_equal(a, b) for a, b in zip(there, frames(files[1]), strict=True))
    assert (tmp_path / "train" / "000002" / "frames.pvd").exists()
    with pytest.raises(ValueError, match=r"settings.json: expected .*'spacing': 0.2.*, got .*'spacing': 0.1"):
        make_data.make(make_data.Settings("holes", spacing=0.2), tmp_path, {"train": 1}, workers=1)


def test_frames_hold_what_a_learner_needs(tmp_path):
    (file,) = make_data.make(SMALL, tmp_path, {"interpolation": 1}, workers=1)
    mesh = read_series(file)[2]
    constants = mesh.global_fields
    assert regimes.WINDOW.contains(make_data.Parameters(float(constants["F"]), float(constants["k"])))
    assert {"outside", "holes"} == set(mesh.point_sets)
    assert mesh.time == 10.0 and float(constants["solver_seconds"]) > 0
    assert 0 < mesh.point_fields["v"].max() < 1


def test_the_same_trajectory_on_a_finer_mesh_is_the_same_problem():
    meshes = [
        list(make_data.trajectory(make_data.Settings("periodic", h, 1, 1, 20.0), "train", 5)) for h in (1 / 16, 1 / 32)
    ]
    coarse, fine = (frames[1].point_fields["v"].reshape(n, n) for frames, n in zip(meshes, (17, 33), strict=True))
    assert meshes[0][0].global_fields["F"] == meshes[1][0].global_fields["F"]
    assert np.linalg.norm(coarse - fine[::2, ::2]) < 0.25 * np.linalg.norm(coarse)


def test_the_script_runs_on_a_mesh_of_the_users(tmp_path, monkeypatch, capsys):
    write(domains.torus(0, 0.08).mesh, tmp_path / "ring.vtu")
    none = [f"--{name}=0" for name in make_data.SPLITS if name != "train"]
    command = ["make_data.py", "--mesh", "ring.vtu", "--train=1", "--frames=1", "--refine=0", *none]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command)
    make_data.main()
    first, last = read_series(tmp_path / "gray_scott" / "ring" / "train" / "000000" / "frames.pvd")
    assert node_mass(first).sum() == pytest.approx(1, rel=1e-5)
    assert np.abs(last.point_fields["v"] - first.point_fields["v"]).max() > 0.01
    monkeypatch.setattr(sys, "argv", [*command, "--every=30"])
    with pytest.raises(SystemExit):
        make_data.main()
    assert "take another folder" in capsys.readouterr().err.splitlines()[-1]


def stripes(mesh, length, phase=0.0):
    return 0.2 + 0.15 * np.cos(2 * np.pi * mesh.points[:, 0] / length + phase)


@pytest.mark.parametrize("length", [0.1, 0.2])
def test_the_wavelength_of_stripes_is_found(length):
    plane = domains.holes(0, 0.02).mesh
    pattern = pattern_statistics.PatternStatistics(plane)(stripes(plane, length))
    assert pattern.wavelength == pytest.approx(length, rel=0.12)
    assert pattern.mean == pytest.approx(0.2, abs=0.02)
    assert pattern.variance == pytest.approx(0.15**2 / 2, rel=0.1)
    assert pattern.spectrum.sum() == pytest.approx(1)


def test_a_pattern_is_the_same_on_another_mesh_and_in_another_place():
    coarse, fine = (domains.holes(0, h).mesh for h in (0.03, 0.02))
    of = [pattern_statistics.PatternStatistics(mesh) for mesh in (coarse, fine)]
    here, there = of[0](stripes(coarse, 0.2)), of[1](stripes(fine, 0.2, phase=2.0))
    wider = of[1](stripes(fine, 0.3))
    same, other = (pattern_statistics.differences(found, here) for found in (there, wider))
    assert same["spectrum"] < 0.1 and same["correlation"] < 0.1
    assert other["spectrum"] > 0.4 and other["correlation"] > 0.3
    assert set(pattern_statistics.differences(here, here).values()) == {0.0}


def test_spots_are_counted_also_over_the_edge_of_a_periodic_square():
    square = domains.periodic_square(0, 1 / 60)
    centers = np.array([(0.0, 0.5), (0.5, 0.5), (0.25, 0.0)])
    offset = np.abs(square.mesh.points[:, None] - centers)
    distance = np.linalg.norm(np.minimum(offset, 1 - offset), axis=-1)
    v = 0.4 * np.exp(-((distance / 0.08) ** 2)).sum(1)
    periodic = pattern_statistics.PatternStatistics(square.mesh, unknown=square.unknown, period=1.0)(v)
    assert (periodic.n_spots, periodic.n_gaps) == (3, 1)
    assert periodic.area == pytest.approx(3 * np.pi * 0.08**2 * np.log(2), rel=0.15)
    assert pattern_statistics.PatternStatistics(square.mesh)(v).n_spots == 5


def test_a_uniform_field_has_no_pattern():
    mesh = domains.holes(0, 0.06).mesh
    pattern = pattern_statistics.PatternStatistics(mesh)(np.full(mesh.n_nodes, 0.3))
    assert pattern.area == pytest.approx(1) and pattern.variance == pytest.approx(0, abs=1e-12)
    assert np.isinf(pattern.wavelength) and not pattern.spectrum.any()
