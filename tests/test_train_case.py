"""case.toml: what is wrong is said in one line, with the key, what was expected and what was got."""

import pydantic
import pytest
from time_cases import decay

from gno.graph import SampleSpec
from gno.mesh import MeshError, read, read_series, write, write_series
from gno.mesh.index import files_in, without_parts
from gno.train import Training, load_case
from gno.train.samples import content_key
from gno.train.splits import split_items

GOOD = {
    "data": 'inputs = "a"\ntargets = ["b"]\nfiles = "*.vtu"',
    "model": 'size = "small"\nwidth = 32\nn_levels = 4',
    "training": "epochs = 3",
}


def write_case(folder, **changes):
    sections = {**GOOD, **changes}
    text = "".join(f"[{name}]\n{body}\n" for name, body in sections.items() if body is not None)
    path = folder / "case.toml"
    path.write_text(text)
    return path


def test_a_good_case_is_frozen_and_knows_its_knobs(tmp_path):
    case = load_case(write_case(tmp_path))
    assert (case.data.inputs, case.data.targets) == (("a",), ("b",))
    assert case.model.operator == {"width": 32} and case.model.hierarchy == {"n_levels": 4}
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        case.data.seed = 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training": "epoch = 3"}, ["training.epoch", "did you mean 'epochs'", "minutes"]),
        ({"trainin": ""}, ["trainin: unknown key", "did you mean 'training'"]),
        ({"model": "widht = 3"}, ["model.widht", "did you mean 'width'", "n_levels", "size"]),
        ({"model": "width = 'wide'"}, ["model.width: expected int, got 'wide'"]),
        ({"model": "size = 'huge'"}, ["model.size", "'small', 'medium' or 'large'", "'huge'"]),
        ({"training": ""}, ["training: expected exactly one of epochs and minutes, got neither"]),
        ({"training": "epochs = 3\nminutes = 2"}, ["exactly one", "both"]),
        ({"training": "epochs = -1"}, ["training.epochs", "greater than or equal to 1", "got -1"]),
        ({"training": "epochs = 1\ndevice = 'tpu'"}, ["training.device", "cpu, cuda", "'tpu'"]),
        ({"data": "inputs = 'b'\ntargets = 'b'\nfiles = '*'"}, ["data.inputs", "no target", "'b'"]),
        ({"data": "inputs = 'b'\ntargets = []\nfiles = '*'"}, ["data.targets: expected at least one field, got none"]),
        ({"data": "inputs = 3\ntargets = 'b'\nfiles = '*'"}, ["data.inputs", "list of strings, got 3"]),
        ({"data": "inputs = 'a'\nfiles = '*'"}, ["data.targets: expected a value, got none"]),
        ({"data": "targets = ['b', 'b']\nfiles = '*'"}, ["data.targets", "'b' twice"]),
        ({"data": "targets = 'b'\nfiles = '*'\ntrain = '*'"}, ["data.files", "either", "both"]),
        ({"data": "targets = 'b'\nfiles = '*'\nsplit = [0.5, 0.1, 0.1]"}, ["data.split", "[0.5, 0.1, 0.1]"]),
        ({"data": "targets = 'b'\nfiles = '*'\nsplit = [0.5, 0.5]"}, ["data.split: expected three", "got [0.5, 0.5]"]),
        ({"training": None}, ["training: expected a section [training] with minutes", "got none", "gno train --help"]),
        ({"data": None}, ['data: expected a section [data] with files = "results/*.vtu", inputs', "got none"]),
        ({"model": "minutes = 3"}, ["model.minutes: unknown key"]),
        ({"training": None, "trainin": "epochs = 3"}, ["trainin: unknown key", "did you mean 'training'"]),
        ({"data": "inputs = 'a'\ntargets = 'b'\nlog = 'c'\nfiles = '*'"}, ["data.log", "inputs (a), got 'c'"]),
        ({"data": "targets = "}, ["expected TOML", "line"]),
        ({"model": "n_substeps = 2"}, ["case.toml: model.n_substeps: expected 0 in a case without [time], got 2"]),
    ],
)
def test_bad_cases_are_told_in_one_line(tmp_path, changes, says):
    path = write_case(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        load_case(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in says:
        assert part in message


def test_a_key_above_all_sections_is_sent_to_its_own(tmp_path):
    (tmp_path / "case.toml").write_text('files = "*.vtu"\n[data]\ntargets = "u"\n[training]\nepochs = 3\n')
    with pytest.raises(ValueError, match=r"case\.toml: files: expected in the section \[data\], got it above"):
        load_case(tmp_path / "case.toml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: expected a TOML file, got none"):
        load_case(tmp_path / "none.toml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_cases_that_editors_of_windows_write(tmp_path, encoding):
    path = write_case(tmp_path)
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert load_case(path).training.epochs == 3
    path.write_bytes(path.read_bytes().decode(encoding).encode("utf-16"))
    with pytest.raises(ValueError, match="expected TOML, which is text in UTF-8, got something else"):
        load_case(path)
    with pytest.raises(ValueError, match="expected a TOML file, got a folder"):
        load_case(tmp_path)


def test_globs_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    for k in range(10):
        (tmp_path / "results" / f"{k}.vtu").touch()
    case = load_case(write_case(tmp_path, data="targets = 'b'\nfiles = 'results/*.vtu'"))
    monkeypatch.chdir("/")
    paths = case.data.paths()
    assert [len(paths[key]) for key in ("train", "validation", "test")] == [8, 1, 1]
    assert len({path for part in paths.values() for path in part}) == 10
    assert paths == load_case(tmp_path / "case.toml").data.paths()


def test_a_glob_without_files_is_named(tmp_path):
    case = load_case(write_case(tmp_path, data="targets = 'b'\ntrain = 'nothing/*.vtu'"))
    with pytest.raises(ValueError, match=r"data\.train: expected files, got none that match '.*nothing/\*\.vtu'"):
        case.data.paths()


def test_heavy_data_and_frames_belong_to_their_index(tmp_path):
    write_series(decay(0), tmp_path / "a.xdmf")
    write_series(decay(0), tmp_path / "b.pvd")
    assert (tmp_path / "a.h5").exists() and len(list(tmp_path.glob("b_*.vtu"))) == 8
    case = load_case(write_case(tmp_path, data="targets = 'b'\ntrain = '[!c]*'"))
    assert [path.name for path in case.data.paths()["train"]] == ["a.xdmf", "b.pvd"]
    frames = load_case(write_case(tmp_path, data="targets = 'b'\ntrain = '*.vtu'")).data.paths()["train"]
    assert len(frames) == 8
    with pytest.raises(MeshError, match=r"a\.h5: expected a mesh, got heavy data; name the \.xdmf"):
        read(tmp_path / "a.h5")


def test_a_file_belongs_to_one_split_only(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.vtu").touch()
    case = load_case(write_case(tmp_path, data="targets = 'b'\ntrain = '[01].vtu'\ntest = '[12].vtu'"))
    with pytest.raises(ValueError, match=r"data\.test: expected files that are not in data\.train, got .*1\.vtu"):
        case.data.paths()


def test_splits_depend_on_the_seed_and_cover_everything():
    one, two = (split_items(range(20), (0.6, 0.2, 0.2), seed) for seed in (0, 1))
    assert one != two and sorted(item for part in one.values() for item in part) == list(range(20))
    with pytest.raises(ValueError, match="at least 3 files"):
        split_items(range(2), (0.8, 0.1, 0.1), 0)


def test_settings_from_the_command_line_are_checked_too(tmp_path):
    case = load_case(write_case(tmp_path))
    assert case.with_training(precision="64").training == Training(epochs=3, precision="64")
    with pytest.raises(ValueError, match=r"training\.precision: expected .*'64'.* got '8'"):
        case.with_training(precision="8")
    with pytest.raises(ValueError, match=r"training\.epoch: unknown key 'epoch', did you mean 'epochs'"):
        case.with_training(epoch=3)


def test_brackets_in_names_are_no_pattern_where_they_are_there(tmp_path):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    (tmp_path / "run 1").mkdir()  # which the folder's name would match
    for parent in (folder, tmp_path / "run 1"):
        for k in range(3):
            (parent / f"part[{k}].vtu").touch()
    case = load_case(write_case(folder, data="targets = 'b'\ntrain = '*.vtu'"))
    assert case.data.paths()["train"] == [folder / f"part[{k}].vtu" for k in range(3)]
    case = load_case(write_case(folder, data=f"targets = 'b'\ntrain = ['part[0].vtu', '{tmp_path}/run 1/*[[]1].vtu']"))
    assert case.data.paths()["train"] == [tmp_path / "run 1/part[1].vtu", folder / "part[0].vtu"]


def test_a_series_of_files_with_brackets_in_their_names(tmp_path):
    for k, mesh in enumerate(decay(0)[:3]):
        write(mesh, tmp_path / f"T[K]_{k}.vtu")
    (tmp_path / "TK_7.vtu").touch()  # which the brackets would match
    case = load_case(write_case(tmp_path, data="targets = 'u'\ntrain = 'T*.vtu'", time=""))
    series = case.paths()["train"]
    assert [len(read_series(path)) for path in series] == [1, 3]
    assert len(read_series(tmp_path / "T[[]K]_[01].vtu")) == 2


@pytest.mark.parametrize("stem", ["run 0", "a & b", "t:0 ü", "it's"])
@pytest.mark.parametrize("suffix", [".pvd", ".xdmf"])
def test_an_index_knows_its_files_whatever_they_are_called(tmp_path, stem, suffix):
    """What it does not know would be a mesh of its own, and its change would leave prepared samples as they were."""
    path = tmp_path / f"{stem}{suffix}"
    write_series(decay(0)[:2], path)
    parts = sorted(file for file in tmp_path.iterdir() if file != path)
    assert files_in(path) == parts and without_parts([path, *parts]) == [path]
    spec = SampleSpec.fit([decay(0)[0]], inputs=["k"], targets=["u"])
    before = content_key(path, spec)
    parts[0].write_bytes(parts[0].read_bytes() + b"\n")
    assert content_key(path, spec) != before
