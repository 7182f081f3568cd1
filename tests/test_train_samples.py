"""Samples: the same from the cache, a worker or in place; the cache notices what changes a sample."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_cases import case, squares

from gno.graph import build_sample
from gno.mesh import MeshError, read, write
from gno.train import samples as room
from gno.train.samples import content_key, load_samples
from gno.train.sources import fit_spec


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k}.vtu" for k in range(4)]
    for path, mesh in zip(paths, squares(4), strict=True):
        write(mesh, path)
    return paths


@pytest.fixture
def spec(files):
    return fit_spec(case(), files)


def assert_same(one, two):
    assert set(one.keys()) == set(two.keys())
    for key in one.keys():  # noqa: SIM118 (not a mapping)
        same = torch.equal(one[key], two[key]) if isinstance(one[key], torch.Tensor) else one[key] == two[key]
        assert same, key


def test_a_stored_sample_is_the_sample_to_the_bit(files, spec, tmp_path):
    for _ in range(2):  # the second time from the cache
        loaded = load_samples(files, spec, cache=tmp_path / "cache")
    for path, sample in zip(files, loaded, strict=True):
        assert_same(sample, build_sample(read(path), spec))


def test_a_sample_holds_nothing_that_is_not_read(files, spec, tmp_path):
    (sample,) = load_samples(files[:1], spec, cache=tmp_path / "cache")
    numbers = [value for value in sample.to_dict().values() if isinstance(value, torch.Tensor)]
    assert all(value.dtype in (torch.float32, torch.int32) for value in numbers) and "edge_index_0" not in sample
    assert sum(value.nbytes for value in numbers) < 220 * sample.num_nodes


def test_the_cache_is_used_and_follows_the_content(files, spec, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    load_samples(files, spec, cache=cache)
    write(squares(6)[5], files[0])
    built = []
    monkeypatch.setattr(room, "read", lambda path: built.append(path) or read(path))
    again = load_samples(files, spec, cache=cache)
    assert built == files[:1]
    assert_same(again[0], build_sample(read(files[0]), spec))


def test_the_key_follows_the_spec_and_files_behind_an_index(files, spec, tmp_path):
    other = fit_spec(case().model_copy(update={"data": case().data.model_copy(update={"inputs": ()})}), files)
    assert content_key(files[0], spec) != content_key(files[0], other)
    index = tmp_path / "series.pvd"
    index.write_text(f'<VTKFile><Collection><DataSet file="{files[0].name}"/></Collection></VTKFile>')
    before = content_key(index, spec)
    write(squares(6)[5], files[0])
    assert content_key(index, spec) != before


def test_workers_build_the_same_and_name_a_bad_file(files, spec, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "PATIENCE", -1.0)  # hand over after the first file
    bad = tmp_path / "bad.vtu"
    bad.write_text("this is not a mesh")
    loaded = load_samples(files, spec, workers=2)
    for path, sample in zip(files, loaded, strict=True):
        assert_same(sample, build_sample(read(path), spec))
    with pytest.raises(MeshError, match=r"bad\.vtu"):
        load_samples([*files, bad], spec, workers=2)


def test_a_worker_that_dies_is_an_error_that_names_the_file(files, spec, tmp_path):
    worker = room.Worker(spec)
    worker.process.kill()
    worker.process.wait()
    with pytest.raises(MeshError, match=r"0\.vtu: expected a mesh, got a file that brings its reader down"):
        worker.build(files[0], tmp_path / "stored")
    worker.close()


def test_scripts_need_no_main_guard_for_workers(files, tmp_path):
    script = tmp_path / "script.py"
    tests = str(Path(__file__).parent)
    script.write_text(
        f"import sys; sys.path.insert(0, {tests!r})\n"
        "from pathlib import Path\n"
        "from train_cases import case\n"
        "from gno.train import samples\n"
        "from gno.train.sources import fit_spec\n"
        "samples.PATIENCE = -1.0\n"
        f"files = sorted(Path({str(tmp_path)!r}).glob('*.vtu'))\n"
        "print(len(samples.load_samples(files, fit_spec(case(), files), workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["4"], done.stderr
