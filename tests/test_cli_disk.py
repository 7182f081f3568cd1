"""Disks that are full or may not be written: one line that names the file, and nothing half-written."""

import errno
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from cli_cases import gno
from train_cases import square

from gno.commands.train import _train_uncertain
from gno.mesh import quality, write
from gno.mesh.files import Sink, atomic
from gno.train import Case, train
from gno.train.folder import alone_in
from gno.train.sources import CacheWarning
from gno.train.units import UnitWarning


def case_of(folder: Path, **data) -> Case:
    """Six meshes beside a case that trains for a moment."""
    for seed in range(6):
        write(square(seed), folder / f"{seed}.vtu")
    return Case.model_validate(
        {
            "data": {"folder": folder, "files": "*.vtu", "inputs": ["wave"], "targets": ["u"], **data},
            "model": {"width": 8, "n_blocks": 1, "n_heads": 1},
            "training": {"epochs": 1, "device": "cpu"},
        }
    )


def test_a_full_disk_is_told_with_the_name_of_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match=r"a\.vtu") as told, atomic(tmp_path / "a.vtu") as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert told.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_other_files_keep_their_names(tmp_path):
    with pytest.raises(OSError, match=r"b\.vtu"), atomic(tmp_path / "a.vtu"):
        (tmp_path / "b.vtu").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_hdf5_on_a_full_disk_does_not_bring_the_program_down():
    import h5py

    with pytest.raises(OSError, match="No space left"), Sink(Path("/dev/full")) as sink, h5py.File(sink, "w") as file:
        for k in range(20):
            file.create_dataset(f"d{k}", data=np.random.rand(500), compression="gzip")


FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from train_cases import square
from gno.mesh import write
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as a disk that has room for so much
for path in sys.argv[2:]:
    try:
        write(square(0), path)
    except OSError as error:
        print(error.strerror, error.filename)
"""


def test_a_disk_that_is_full_is_told_whatever_the_writer_says_of_it(tmp_path):
    paths = [tmp_path / f"a{suffix}" for suffix in (".med", ".e", ".msh", ".xdmf", ".vtk", ".inp")]
    command = [sys.executable, "-c", FULL, Path(__file__).parent, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    heavy = [path.with_suffix(".h5") if path.suffix == ".xdmf" else path for path in paths]
    assert done.stdout.splitlines() == [f"File too large {path}" for path in heavy], done.stderr
    assert done.returncode == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [("predict", "run", "a.vtu", "-o", "taken/b"), ("init", "a.vtu", "-t", "u", "-o", "taken/c.toml")]
)
def test_what_cannot_be_written_is_one_line(arguments, tmp_path, capsys, monkeypatch):
    case = case_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    train(case, "run", progress=False)
    write(square(0), tmp_path / "a.vtu")
    (tmp_path / "taken").write_text("a file")
    status, out, err = gno(capsys, monkeypatch, *arguments)
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("gno: taken")


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    case = case_of(tmp_path)
    (tmp_path / ".gno").write_text("not a folder")
    with pytest.warns(CacheWarning, match=r"\.gno/samples: .*prepared again each time"):
        train(case, tmp_path / "run", progress=False)


def test_a_run_where_a_file_is(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match=r"run: expected a folder for the run, got a file"):
        train(case_of(tmp_path), tmp_path / "run", progress=False)


class Watched:
    """Shows a training by doing something at its first validation."""

    def __init__(self, act):
        self.act = act

    def show(self, share, **facts):
        pass

    def say(self, line):
        self.act()


def test_a_run_folder_that_is_deleted_in_training_is_told_and_the_weights_are_kept(tmp_path):
    case, run = case_of(tmp_path).with_training(epochs=8, validations=4, log_every=1), tmp_path / "run"
    with pytest.raises(OSError, match=r"log\.csv: no such file.*stopped and saved in .*run; resume to go on"):
        train(case, run, progress=Watched(lambda: shutil.rmtree(run, ignore_errors=True)))
    train(case, run, resume=True, progress=False)
    assert (run / "best.safetensors").exists()


def test_where_the_disk_of_a_run_is_gone_its_weights_go_elsewhere(tmp_path, monkeypatch):
    case, run, spare = case_of(tmp_path).with_training(epochs=8, log_every=1), tmp_path / "run", tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spare))

    def gone():
        shutil.rmtree(run)
        run.write_text("nobody can write below this")

    with pytest.raises(
        OSError, match=r"; the training was stopped and saved in .*spare/run-\w+; move that to .*run and"
    ):
        train(case, run, progress=Watched(gone))
    assert [path.name for path in spare.glob("*/*")] == ["last.safetensors"]


def test_files_that_vanish_before_the_calibration_cost_no_training(tmp_path, monkeypatch):
    def gone(sampler, files):
        raise ValueError("5.vtu: expected a file, got none")

    monkeypatch.setattr("gno.uq.train_uncertain", lambda *arguments, **options: None)
    monkeypatch.setattr("gno.commands.train._labelled", gone)
    with pytest.raises(ValueError, match=r"5\.vtu: .* got none; trained and saved in run, not calibrated yet; resume"):
        _train_uncertain(case_of(tmp_path), Path("run"))


def test_a_folder_takes_one_training_at_a_time(tmp_path):
    case, run = case_of(tmp_path), tmp_path / "run"
    with alone_in(run), pytest.raises(ValueError, match=r"run: expected a folder for this training alone, got one"):
        train(case, run, progress=False)
    assert not run.exists()  # where nothing came of it
    run.mkdir()
    with alone_in(run):
        pass
    assert run.is_dir()  # somebody else made it
    train(case, run, progress=False)


def test_values_beyond_single_precision_are_told_before_training(tmp_path):
    case = case_of(tmp_path)
    mesh = square(1)
    write(mesh.with_point_fields(u=mesh.point_fields["u"] * 1e200), tmp_path / "1.vtu")
    with pytest.raises(ValueError, match=r"field 'u': expected values up to 3\.4e38, got .*1\.vtu"):
        train(case, tmp_path / "run", progress=False)


def test_coordinates_that_single_precision_rounds_away_are_told(tmp_path):
    case, far = case_of(tmp_path), [4.5e5, 5.4e6]
    with pytest.warns(UnitWarning, match=r"near 5\.4e\+06 in float32 are rounded to 0\.5"):
        for seed in range(6):
            mesh = square(seed)
            write(mesh.replace(points=(mesh.points + far).astype(np.float32)), tmp_path / f"{seed}.vtu")
        train(case, tmp_path / "run", progress=False)
    assert any(
        "rounded to 0.5" in line for line in quality(mesh.replace(points=np.float32(mesh.points + far))).problems()
    )
    assert not quality(mesh.replace(points=mesh.points + far)).problems()


def test_init_lists_fields_that_say_nothing_on_one_line(tmp_path, capsys, monkeypatch):
    same = {f"Camera:{k}": np.array([float(k)]) for k in range(40)}
    for seed in range(3):
        write(square(seed).replace(global_fields=same), tmp_path / f"{seed}.vtu")
    monkeypatch.chdir(tmp_path)
    _, out, _ = gno(capsys, monkeypatch, "init", "0.vtu", "1.vtu", "2.vtu", "-t", "u")
    assert out.count("Camera") == 12 and "and 28 more" in out and "wave  (point;" in out
    status, out, _ = gno(capsys, monkeypatch, "inspect", "0.vtu", "--json")
    assert status == 0 and len(json.loads(out)[0]["fields"]) > 40


def test_a_gradient_where_vertices_lie_among_the_cells(tmp_path, capsys, monkeypatch):
    from gno.mesh import CellBlock

    mesh = square(0)
    marked = mesh.replace(cells=(*mesh.cells, CellBlock("vertex", np.array([[0]]))), cell_fields={})
    write(marked, tmp_path / "a.vtu")
    status, out, err = gno(capsys, monkeypatch, "post", tmp_path / "a.vtu", "--gradient", "wave")
    assert status == 0 and "wave_gradient" in out, err
