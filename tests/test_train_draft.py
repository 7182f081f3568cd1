"""`gno init`: a first case from the files themselves, that a training can start from."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cli_cases import gno
from train_cases import square

from gno.mesh import write, write_series
from gno.train import load_case
from gno.train.draft import draft_case, pattern_of


@pytest.fixture
def results(tmp_path):
    """Six files with a coefficient that varies by factors, a load, a constant, and a text."""
    (tmp_path / "results").mkdir()
    files = []
    for seed in range(6):
        mesh = square(seed)
        more = {"gravity": np.array(9.81), "load": np.array(1.0 + seed), "program": np.array("a name")}
        sets = {**mesh.point_sets, "corner": np.array([0])}
        mesh = mesh.replace(global_fields={**mesh.global_fields, **more}, point_sets=sets)
        mesh = mesh.with_point_fields(stiffness=np.geomspace(1, 100, mesh.n_nodes))
        files.append(tmp_path / "results" / f"part_{seed}.vtu")
        write(mesh, files[-1])
    return files


def test_a_draft_can_be_trained_from_and_names_what_else_there_is(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["-t", "u", "-i", "load", "-i", "stiffness", "-i", "left", "--minutes", "2"]
    status, out, err = gno(capsys, monkeypatch, "init", *results, *arguments, "-o", "cases/part.toml")
    assert status == 0, err
    assert "gno train cases/part.toml" in out
    case = load_case("cases/part.toml")
    assert case.data.inputs == ("load", "stiffness", "left") and case.data.targets == ("u",)
    assert case.data.log == ("stiffness",)  # a hundredfold, and the load only sixfold
    assert case.training.minutes == 2 and case.time is None
    assert sorted(path for paths in case.data.paths().values() for path in paths) == results
    text = (tmp_path / "cases" / "part.toml").read_text()
    assert 'files = ["../results/*.vtu"]' in text
    assert "#   heat  (cell" in text and "# The same everywhere, in every file: gravity" in text
    assert "program" not in text  # a text is no field to learn from
    assert "# Sets, which can be inputs too: corner\n" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "targets: expected at least one field to learn (--target NAME), got none; fields: "),
        (["-t", "displacement"], "field 'displacement': expected in the file, got point: "),
        (["-t", "u", "-i", "u"], "data.inputs: expected no target among them, got 'u'"),
        (["-t", "left"], "targets: expected fields, got the set 'left'; fields: "),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(results, tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = gno(capsys, monkeypatch, "init", *results, *arguments)
    assert status == 2 and says in err and err.count("\n") == 1
    assert not (tmp_path / "case.toml").exists()


def test_a_case_is_not_written_over(results, tmp_path, capsys, monkeypatch):
    (tmp_path / "case.toml").write_text("mine")
    monkeypatch.chdir(tmp_path)
    status, _, err = gno(capsys, monkeypatch, "init", *results, "-t", "u")
    assert status == 2 and "--overwrite" in err and (tmp_path / "case.toml").read_text() == "mine"
    status, _, _ = gno(capsys, monkeypatch, "init", *results, "-t", "u", "--overwrite")
    assert status == 0 and load_case("case.toml").data.targets == ("u",)


def test_a_field_that_only_some_files_have_is_refused_by_name(results):
    mesh = square(7)
    write(mesh.replace(global_fields={}), results[-1])
    with pytest.raises(ValueError, match=rf"field 'load': expected in the file, got point: .*{results[-1].name}"):
        draft_case(results, targets=["u"], inputs=["load"])
    assert "load" not in draft_case(results, targets=["u"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda mesh: mesh.replace(point_fields={**mesh.point_fields, "u": mesh.point_fields["u"][:, :1]}),
            "field 'u': expected a point field with 2 components as elsewhere, got a point field with 1 component",
        ),
        (
            lambda mesh: mesh.with_point_fields(
                u=np.where(np.arange(mesh.n_nodes) == 3, np.nan, 1.0)[:, None] + [0, 0]
            ),
            "point field 'u': expected finite values, got .* at node 3",
        ),
        (
            lambda mesh: mesh.replace(points=np.c_[mesh.points, mesh.points[:, 0] ** 2]),
            "meshes: expected all 2-D like .*, got 3-D",
        ),
    ],
)
def test_what_training_would_stop_at_is_said_before(results, change, says):
    write(change(square(7)), results[-1])
    with pytest.raises(ValueError, match=f"{says}.*{results[-1].name}"):
        draft_case(results, targets=["u"])


def test_without_targets_the_fields_are_listed_beside_a_case_that_is_there(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case.toml").write_text("mine")
    status, _, err = gno(capsys, monkeypatch, "init", *results)
    assert status == 2 and "got none; fields: " in err
    status, _, err = gno(capsys, monkeypatch, "init", *results, "-t", "u", "-o", ".")
    assert status == 2 and "expected the name of a file, got a folder" in err


def test_files_with_steps_are_series(tmp_path):
    frames = [square(0).replace(time=float(k)) for k in range(3)]
    write_series(frames, tmp_path / "wave.pvd")
    text = draft_case([tmp_path / "wave.pvd"], targets=["u"], folder=tmp_path)
    assert "time" in tomllib.loads(text) and tomllib.loads(text)["data"]["files"] == ["wave.pvd"]
    assert "time" not in tomllib.loads(draft_case([tmp_path / "wave.pvd"], targets=["u"], time=False))
    numbered = draft_case(sorted(tmp_path.glob("wave_*.vtu")), targets=["u"])  # or results of as many problems
    assert "time" not in tomllib.loads(numbered) and "# The files are of different times" in numbered


def test_frames_of_a_trajectory_are_one_pattern(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    salt = Path(__file__).parents[1] / "meshes" / "salt.lammpstrj"
    shutil.copy(salt, "salt.lammpstrj")
    status, _, err = gno(capsys, monkeypatch, "init", "salt.lammpstrj@:", "-t", "q")
    assert status == 0, err
    case = load_case("case.toml")
    assert case.data.files == ("salt.lammpstrj@:",) and case.time is None
    assert pattern_of([Path("salt.lammpstrj@0")], tmp_path) == ["salt.lammpstrj@0"]
    status, _, _ = gno(capsys, monkeypatch, "init", "salt.lammpstrj", "-t", "q", "--overwrite")
    assert status == 0 and load_case("case.toml").time is not None


def test_a_glob_matches_these_files_and_no_others(results, tmp_path):
    folder = tmp_path
    assert pattern_of(results, folder) == ["results/*.vtu"]
    (results[0].parent / "other.vtu").touch()
    assert pattern_of(results, folder) == ["results/part_*.vtu"]
    assert pattern_of(results[1:3], folder) == ["results/part_1.vtu", "results/part_2.vtu"]
    assert pattern_of(results[:1], folder / "results") == ["part_0.vtu"]
    (folder / "run [1]").mkdir()
    results[0].parent.rename(folder / "run [1]" / "results")
    moved = sorted((folder / "run [1]" / "results").glob("part*"))
    assert pattern_of(moved, folder) == ["run [[]1]/results/part_*.vtu"]


@pytest.mark.parametrize(("n", "counts"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
@pytest.mark.parametrize("in_time", [False, True])
def test_a_draft_for_few_files_can_be_trained_from(tmp_path, n, counts, in_time):
    files = [tmp_path / f"{k}.xdmf" for k in range(n)]
    for k, file in enumerate(files):
        write_series([square(k).replace(time=float(j)) for j in range(2)], file)
    text = draft_case(files, targets=["u"], time=in_time, folder=tmp_path)
    (tmp_path / "case.toml").write_text(text)
    assert [len(paths) for paths in load_case(tmp_path / "case.toml").paths().values()] == counts
