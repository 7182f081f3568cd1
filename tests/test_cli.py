"""The command line: help that teaches, one line and exit status 2 for bad input, and the whole corridor."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from cli_cases import gno
from train_cases import square

from gno import __version__, progress
from gno.mesh import read, write, write_series
from gno.train import load_case

COMMANDS = ("inspect", "init", "train", "evaluate", "predict", "show", "demo")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data, a case and a run made by `gno train`."""
    folder = tmp_path_factory.mktemp("corridor")
    (folder / "data").mkdir()
    for seed in range(8):
        write(square(seed), folder / "data" / f"{seed}.vtu")
    (folder / "case.toml").write_text(
        '[data]\nfiles = "data/*.vtu"\ninputs = ["wave", "left"]\ntargets = ["u", "heat"]\n'
        "[model]\nwidth = 16\nn_blocks = 1\nn_heads = 1\n"
        '[training]\nepochs = 3\ndevice = "cpu"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "gno.cli", "train", "case.toml"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "weights" in done.stdout and "gno evaluate runs/case" in done.stdout
    assert re.search(r"error .*% on 6 training files, .*% on 1 validation files: (more|both)", done.stdout)
    return folder


def test_help_imports_nothing_heavy():
    code = "import sys, gno.cli; print([m for m in ('torch', 'pyvista', 'gmsh', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_example(command, capsys, monkeypatch):
    status, out, _ = gno(capsys, monkeypatch, command, "--help")
    assert status == 0 and "Examples:" in out and f"gno {command}" in out


def test_no_arguments_list_the_commands(capsys, monkeypatch):
    status, out, err = gno(capsys, monkeypatch)
    assert (status, err) == (0, "") and all(f"\n  {command} " in out for command in COMMANDS)


def test_the_version_is_printed():
    done = subprocess.run([sys.executable, "-m", "gno", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gno {__version__}\n", "")


def test_what_takes_long_is_named_on_a_terminal_and_nowhere_else(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")  # a dumb one gets no line
    text, said = "reading [a].vtu", []
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
        with progress.status(text):
            end = time.monotonic() + (10 if terminal else 0.1)
            while text not in stream.getvalue() and time.monotonic() < end:
                time.sleep(0.01)
        said.append(text in stream.getvalue())
    assert said == [True, False]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "none.vtu"], "none.vtu"),
        (["train", "none.toml"], "none.toml: expected a TOML file, got none"),
        (["trian"], "Did you mean 'train'?"),
        (["train"], "CASE.toml"),
        (["train", "case.toml", "--precision", "8"], "training.precision"),
        (["train", "case.toml", "--bogus"], "--bogus"),
        (["train", "case.toml"], "--resume"),
        (["evaluate", "nowhere", "data/0.vtu"], "nowhere: expected the folder of a trained run"),
        (["evaluate", "nowhere"], "nowhere: expected the folder of a trained run"),
        (["evaluate", "data"], "data: expected the folder of a trained run"),
        (["evaluate", "old"], "expected files, since old has none for tests"),
        (["evaluate", "runs/case", "data/none.vtu"], "data/none.vtu: expected a file, got none"),
        (["evaluate", "runs/case", "data"], "data: expected a file, got a folder"),
        (["inspect", "data"], "data: expected a file, got a folder with 8 files data/*.vtu"),
        (
            ["evaluate", "runs/case", "--device", "gpu"],
            "expected auto, cpu, cuda, cuda:1 or mps",
        ),
        (
            ["evaluate", "runs/case", "--device", "cuda:99"],
            "device: expected one of this machine",
        ),
        (["train", "case.toml", "--overwrite", "--device", "cuda:99"], "training.device: expected one of this machine"),
        (["evaluate", "runs/case", "garbage.vtu"], "garbage.vtu"),
        (["evaluate", "runs/case", "bare.vtu"], "wave"),
        (["predict", "runs/case", "bare.vtu", "-o", "new"], "wave"),
        (["predict", "runs/case", "data/0.vtu", "-o", "data"], "0.vtu"),
        (["predict", "runs/case", "data/0.vtu", "data/0.vtu", "-o", "new"], "twice"),
        (["predict", "runs/case", "data/0.vtu"], "output"),
        (["predict", "runs/case", "data/0.vtu", "-o", "new", "--format", "docx"], "--format: expected one of .avs"),
        (["show", "data/0.vtu", "-f", "nothing"], "nothing"),
        (["show", "data/0.vtu"], "--field"),
        (["show", "data/0.vtu", "--levels"], "0_level1"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(trained, arguments, says, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    (trained / "garbage.vtu").write_bytes(b"\x00\x01garbage")
    (trained / "old").mkdir(exist_ok=True)
    shutil.copy(trained / "runs/case/best.safetensors", trained / "old")
    write(square(0).replace(point_fields={}, cell_fields={}, point_sets={}), trained / "bare.vtu")
    status, out, err = gno(capsys, monkeypatch, *arguments)
    assert status == 2 and out == ""
    assert says in err and len(err.strip().splitlines()) == 1 and "Traceback" not in err


def test_a_warning_of_many_files_is_told_of_two(trained, capsys, monkeypatch, tmp_path):
    from gno.mesh import MeshWarning

    whole = read

    def warned(path):
        warnings.warn(f"{path}: something is left out", MeshWarning, stacklevel=2)
        if path.stem != "0":
            warnings.warn(f"nothing known of {path.stem}", MeshWarning, stacklevel=2)
        return whole(path)

    monkeypatch.setattr("gno.mesh.read", warned)
    monkeypatch.chdir(trained)
    _, _, err = gno(capsys, monkeypatch, "inspect", *(f"data/{k}.vtu" for k in range(4)))
    assert err.splitlines() == [
        "gno: warning: data/0.vtu: something is left out",
        "gno: warning: data/1.vtu: something is left out (told of no further files)",
        *(f"gno: warning: nothing known of {k}" for k in (1, 2, 3)),
    ]


def test_ctrl_c_is_130_without_a_traceback(capsys, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("gno.mesh.read", interrupted)
    status, _, err = gno(capsys, monkeypatch, "inspect", "a.vtu", "b.vtu")
    assert status == 130 and err == "\ngno: stopped; 0 of 2 files inspected\n"


def test_ctrl_c_says_how_many_files_are_predicted_and_where(trained, capsys, monkeypatch, tmp_path):
    from gno.train.predict import Prediction

    whole = Prediction.write

    def interrupted(prediction, path, **options):
        if path.stem == "1":
            raise KeyboardInterrupt
        return whole(prediction, path, **options)

    monkeypatch.setattr(Prediction, "write", interrupted)
    monkeypatch.chdir(tmp_path)
    for name in "012":
        write(square(0), f"{name}.vtu")
    status, out, err = gno(capsys, monkeypatch, "predict", trained / "runs/case", "0.vtu", "1.vtu", "2.vtu", "-o", "p")
    assert status == 130 and out.startswith("p/0.vtu") and out.count("\n") == 1
    assert err == "\ngno: stopped; 1 of 3 files predicted, they are in p\n"


def test_a_prediction_that_is_there_has_all_its_levels(trained, monkeypatch, tmp_path):
    from gno.train import Run, predict

    written: list[str] = []
    prediction = Run.load(trained / "runs/case").predict(square(0))
    monkeypatch.setattr(predict, "write", lambda mesh, path: written.append(path.name))
    prediction.write(tmp_path / "a.vtu")
    assert len(written) > 1 and written[-1] == "a.vtu"


def test_inspect_tells_cells_fields_sets_quality_and_levels(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    status, out, _ = gno(capsys, monkeypatch, "inspect", "data/0.vtu")
    assert status == 0
    for part in ("81 nodes", "64 quad", "wave  point  81", "heat  cell  64", "left  9 nodes", "level", "complexity"):
        assert part in out
    status, out, err = gno(capsys, monkeypatch, "inspect", "data/0.vtu", "none.vtu", "--json")
    assert status == 2 and "none.vtu" in err
    (facts,) = json.loads(out)
    assert facts["cells"] == {"quad": 64} and facts["levels"][0]["nodes"] == 81
    assert facts["levels"][0]["spacing"] == pytest.approx(1 / 8)


def test_inspect_tells_how_many_steps_a_file_has(tmp_path, capsys, monkeypatch):
    write_series([square(0).replace(time=0.5 * k) for k in range(3)], tmp_path / "a.xdmf")
    assert "time 1, the last of 3 steps" in gno(capsys, monkeypatch, "inspect", tmp_path / "a.xdmf")[1]


def test_evaluate_takes_the_files_that_were_kept_for_tests_and_says_which_were_seen(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    files = json.loads((trained / "runs/case/files.json").read_text())
    assert [len(files[key]) for key in ("train", "validation", "test")] == [6, 1, 1]
    for extra in range(8, 12):  # the split of these would be another one
        write(square(extra), trained / "data" / f"{extra}.vtu")
    status, out, err = gno(capsys, monkeypatch, "evaluate", "runs/case", "--json")
    held_out_now = load_case("case.toml").paths()["test"][0]
    refused = gno(capsys, monkeypatch, "calibrate", "runs/case", held_out_now)
    monkeypatch.setattr("gno.train.train", lambda *_, **__: SimpleNamespace(summary=lambda: ""))
    monkeypatch.setattr("gno.train.advice.advise", lambda *_: "")
    monkeypatch.setattr("gno.train.splits.save_splits", lambda *_: None)
    resumed = gno(capsys, monkeypatch, "train", "case.toml", "--resume")
    for extra in range(8, 12):
        (trained / "data" / f"{extra}.vtu").unlink()
    assert (status, err) == (0, "")
    assert str(held_out_now) in files["train"] and "expected files that are not trained on" in refused[2]
    assert f"{held_out_now} was trained on and is held out now, one of 1 such" in resumed[2]
    assert [row["file"] for row in json.loads(out)["files"]] == files["test"]
    _, _, err = gno(capsys, monkeypatch, "evaluate", "runs/case", files["test"][0], *files["train"][:2])
    assert "2 of 3 files were there in training" in err


def test_a_pattern_that_no_shell_has_replaced_means_all_files_that_match(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    status, out, err = gno(capsys, monkeypatch, "predict", "runs/case", "data/[01]*.vtu", "-o", "matched")
    assert (status, err) == (0, "") and len(out.splitlines()) == 2
    assert {path.name for path in (trained / "matched").glob("?.vtu")} == {"0.vtu", "1.vtu"}
    shutil.copy("data/0.vtu", "data/part [a].vtu")
    assert gno(capsys, monkeypatch, "inspect", "data/part [a].vtu", "--json")[0] == 0
    (trained / "data" / "part [a].vtu").unlink()
    status, _, err = gno(capsys, monkeypatch, "inspect", "data/x*.vtu")
    assert (status, err) == (2, "gno: data/x*.vtu: expected files that match, got none\n")


def test_a_prediction_does_not_look_at_what_is_there_of_its_targets(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    mesh = read("data/0.vtu")
    write(mesh.with_point_fields(u=np.full((mesh.n_nodes, 2), np.nan)), tmp_path / "0.vtu")
    for file, folder in (("data/0.vtu", "known"), (tmp_path / "0.vtu", "broken")):
        status, _, err = gno(capsys, monkeypatch, "predict", "runs/case", file, "-o", folder, "--device", "auto")
        assert (status, err) == (0, "")
    known, broken = (read(f"{folder}/0.vtu").point_fields for folder in ("known", "broken"))
    assert np.array_equal(known["predicted_u"], broken["predicted_u"]) and np.isnan(broken["u"]).all()


def test_a_prediction_does_not_take_the_place_of_a_file_of_the_training(trained, tmp_path, capsys, monkeypatch):
    """As `-o results` would, where files of another study have the same names."""
    monkeypatch.chdir(trained)
    shutil.copy("data/0.vtu", tmp_path / "0.vtu")
    before = (trained / "data/0.vtu").read_bytes()
    status, _, err = gno(capsys, monkeypatch, "predict", "runs/case", tmp_path / "0.vtu", "-o", "data")
    assert status == 2 and "of the training, got data, which holds 0.vtu" in err
    assert (trained / "data/0.vtu").read_bytes() == before


def test_evaluate_prints_a_table_and_json(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    status, out, _ = gno(capsys, monkeypatch, "evaluate", "runs/case", "data/0.vtu", "data/1.vtu")
    assert status == 0 and "data/1.vtu" in out and "median" in out
    status, out, _ = gno(capsys, monkeypatch, "evaluate", "runs/case", "data/0.vtu", "--json")
    assert status == 0 and json.loads(out)["files"][0]["nodes"] == 81


@pytest.mark.parametrize("suffix", [".vtu", ".xdmf"])
def test_predict_writes_the_mesh_and_its_levels(trained, suffix, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    arguments = ("predict", "runs/case", "data/0.vtu", "data/1.vtu", "-o", f"new{suffix}", "--format", suffix)
    status, _, err = gno(capsys, monkeypatch, *arguments)
    assert status == 0, err
    before, after = read(trained / "data" / "0.vtu"), read(trained / f"new{suffix}" / f"0{suffix}")
    assert np.array_equal(before.points, after.points) and before.n_cells == after.n_cells
    assert {"predicted_u", "predicted_heat", "scale_attention"} <= set(after.point_fields)
    assert np.array_equal(after.point_sets["left"], before.point_sets["left"])
    level = read(trained / f"new{suffix}" / f"0_level1{suffix}")
    assert level.point_fields["mass"].sum() == pytest.approx(1, rel=1e-5)


def test_show_draws_comparison_and_levels(trained, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    assert gno(capsys, monkeypatch, "predict", "runs/case", "data/0.vtu", "-o", "seen")[0] == 0
    for arguments in (("--compare", "predicted_u", "--warp", "u"), ("--levels",)):
        field = "predicted_u" if "--levels" in arguments else "u"
        status, out, err = gno(capsys, monkeypatch, "show", "seen/0.vtu", "-f", field, *arguments, "-o", "a.png")
        assert status == 0, err
        assert (trained / "a.png").read_bytes().startswith(b"\x89PNG") and "a.png" in out
        (trained / "a.png").unlink()
