"""Killed, interrupted or merely stopped: a resumed run ends where an uninterrupted one ends, to the bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_cases import case, squares

from gno.mesh import write
from gno.train import Interrupted, Run, train
from gno.train.blueprint import Blueprint
from gno.train.checkpoint import load_tensors, save_tensors
from gno.train.interrupt import Stop
from gno.train.optimisers import muon
from gno.train.splits import load_splits, save_splits

EPOCHS = 4  # of 4 meshes in batches of 2: 8 steps


def settings(**training):
    return case(epochs=EPOCHS, validations=EPOCHS, log_every=1, **training)


def stop_after(n_steps, action):
    """An optimiser whose step number n does something else besides."""

    def make(model, training):
        optimiser = muon(model, training)
        steps = iter(range(1, 10_000))
        optimiser.register_step_post_hook(lambda *_: action() if next(steps) == n_steps else None)
        return optimiser

    return make


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(settings(), folder, meshes=squares(6), progress=False)
    return folder


def assert_same_end(folder, other):
    for name in ("last", "best"):
        (one, told), (two, said) = (load_tensors(f / f"{name}.safetensors") for f in (folder, other))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
        for key in ("step", "epoch", "batch", "best"):
            assert told["progress"][key] == said["progress"][key]
    rows = [(f / "log.csv").read_text().splitlines() for f in (folder, other)]
    steps = [[line.split(",")[0] for line in lines] for lines in rows]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("step", [3, 4])
def test_ctrl_c_saves_and_the_resumed_run_ends_to_the_bit(tmp_path, uninterrupted, step):
    ctrl_c = stop_after(step, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match=f"after {step} steps and saved in"):
        train(settings(), tmp_path, meshes=squares(6), progress=False, optimiser=ctrl_c)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(settings(), tmp_path, meshes=squares(6), progress=False, resume=True)
    assert_same_end(uninterrupted, tmp_path)


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_train_resume import settings, squares
from gno.train import checkpoint, train

calls = iter(range(1000))
def flush(descriptor):  # half-written files of the fourth save are what the kill leaves behind
    if next(calls) == {saves}:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.os.fsync = flush
train(settings(), {folder!r}, meshes=squares(6), progress=False)
"""


def test_a_closed_terminal_asks_to_stop_unless_that_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, asks in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            with Stop() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert stop.requested is asks
            assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_killed_in_the_middle_of_a_save_and_resumed_it_ends_to_the_bit(tmp_path, uninterrupted):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path), saves=4)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(path.name.startswith(".") for path in tmp_path.iterdir())
    train(settings(), tmp_path, meshes=squares(6), progress=False, resume=True)
    assert_same_end(uninterrupted, tmp_path)


def test_more_epochs_go_on_and_other_data_are_refused(tmp_path, uninterrupted):
    for name in ("last.safetensors", "best.safetensors", "log.csv"):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes())
    with pytest.raises(FileExistsError, match="expected a folder without a run"):
        train(settings(), tmp_path, meshes=squares(6))
    other = settings().model_copy(update={"data": settings().data.model_copy(update={"seed": 5})})
    with pytest.raises(ValueError, match=r"data\.seed: expected 0 as in the run .* got 5"):
        train(other, tmp_path, meshes=squares(6), resume=True)
    with pytest.raises(ValueError, match=r"training\.optimiser: expected 'muon' as in the run .* got 'adamw'"):
        train(settings(optimiser="adamw"), tmp_path, meshes=squares(6), resume=True)
    longer = settings().with_training(epochs=EPOCHS + 1)
    train(longer, tmp_path, meshes=squares(6), progress=False, resume=True)
    assert load_tensors(tmp_path / "last.safetensors")[1]["progress"]["step"] == 10


def test_ctrl_c_on_the_command_line_says_how_to_resume(tmp_path):
    for seed, mesh in enumerate(squares(6)):
        write(mesh, tmp_path / f"{seed}.vtu")
    (tmp_path / "case.toml").write_text(
        '[data]\nfiles = "*.vtu"\ninputs = "wave"\ntargets = "u"\n[model]\nwidth = 16\nn_heads = 1\n'
        '[training]\nminutes = 5\ndevice = "cpu"\nlog_every = 1\n'
    )
    command = [sys.executable, "-m", "gno.cli", "train", str(tmp_path / "case.toml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    log = tmp_path / "runs" / "case" / "log.csv"
    deadline = time.monotonic() + 100
    while not (log.exists() and len(log.read_text().splitlines()) > 2) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"gno train {tmp_path / 'case.toml'} --resume" in errors and "Traceback" not in errors
    document = load_tensors(log.with_name("last.safetensors"))[1]
    assert document["progress"]["step"] >= 1


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"n": 1})
    assert load_tensors(path)[1] == {"n": 1}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"a\.safetensors: expected a checkpoint"):
        load_tensors(path)
    path.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"a\.safetensors: expected a checkpoint"):
        load_tensors(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(3)}, {"n": 1})

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_tensors(path, {"x": torch.zeros(3)}, {"n": 2})
    assert load_tensors(path)[1] == {"n": 1} and list(tmp_path.iterdir()) == [path]


def test_data_that_were_moved_are_the_same_data(tmp_path, uninterrupted):
    """A project on another machine, or with its prepared samples in another place."""
    for name in ("last.safetensors", "best.safetensors", "log.csv"):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes())

    def moved(**data):
        return settings().model_copy(update={"data": settings().data.model_copy(update=data)})

    there = tmp_path / "there"
    there.mkdir()
    with pytest.raises(ValueError, match=rf"data\.folder: expected '\.' as in the run .* got '{there}'"):
        train(moved(folder=there), tmp_path, meshes=squares(6), resume=True)
    _, parts, progress = Blueprint.load(tmp_path / "last.safetensors")
    blueprint = dataclasses.replace(
        Blueprint.load(tmp_path / "last.safetensors")[0], case=moved(folder=tmp_path / "gone")
    )
    blueprint.save(tmp_path / "last.safetensors", parts, progress)
    train(moved(folder=there, cache="elsewhere"), tmp_path, meshes=squares(6), progress=False, resume=True)


def test_the_files_of_a_run_that_was_moved_with_them_are_where_they_are_now(tmp_path):
    files = {"train": [tmp_path / "old/data/0.vtu"], "validation": [], "test": [tmp_path / "fixed/1.vtu"]}
    for file in (*files["train"], *files["test"]):
        file.parent.mkdir(parents=True)
    save_splits(tmp_path / "old/runs/case", files)
    assert load_splits(tmp_path / "old/runs/case") == files
    (tmp_path / "old").rename(tmp_path / "new")
    assert load_splits(tmp_path / "new/runs/case") == {**files, "train": [tmp_path / "new/data/0.vtu"]}


def test_a_moved_project_is_not_made_again_where_it_was(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "data").mkdir(parents=True)
    for k, mesh in enumerate(squares(4)):
        write(mesh, old / "data" / f"{k}.vtu")

    def wanted(folder):
        data = settings().data.model_copy(update={"files": ("data/*.vtu",), "folder": folder})
        return settings().model_copy(update={"data": data})

    train(wanted(old), old / "run", progress=False)
    old.rename(new)
    Run.load(new / "run").evaluate([new / "data" / "0.vtu"])
    assert not old.exists()
    train(wanted(new), new / "run", progress=False, resume=True)
    assert not old.exists()
