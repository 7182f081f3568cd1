"""Members of an ensemble at the same time: the same as one after another, stopped, killed, failing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from train_cases import case, square, squares

from gno.mesh import MeshError, write
from gno.train import Interrupted
from gno.uq import at_once, train_ensemble
from gno.uq.at_once import Member, how_many, threads_each, train_at_once
from gno.workers import end, start

# Speaks as a worker does. What it does with a member is the word that its title ends with.
IMPOSTOR = """
import json, os, sys
answer = lambda document: print(json.dumps(document), flush=True)
sys.stdin.readline()
for line in sys.stdin:
    order = json.loads(line)
    with open(order["folder"], "a") as note:
        note.write(f"{os.getpid()} {order['threads']}")
    word = order["title"].split()[-1]
    if word == "done":
        answer(["done"])
    elif word == "killed":
        os.kill(os.getpid(), 9)
    elif word != "waits":
        answer(["error", word, "so it is", "Traceback"])
else:
    answer(["stopped"])
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Sums of another number of threads are other bits; pictures take longer than the training here."""
    monkeypatch.setattr("gno.post.curves.draw_curves", lambda *_: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files to train on, and a case that keeps no cache of them."""
    folder = tmp_path_factory.mktemp("data")
    for seed in range(5):
        write(square(seed, n=4), folder / f"{seed}.vtu")
    files = {"train": ["[0-2].vtu"], "validation": ["3.vtu"], "test": ["4.vtu"], "folder": folder, "cache": ""}
    return case().data.model_copy(update={key: tuple(v) if isinstance(v, list) else v for key, v in files.items()})


@pytest.fixture
def impostors(monkeypatch):
    """Processes that start at once, in place of those that train."""
    command = [sys.executable, "-c", IMPOSTOR]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    monkeypatch.setattr(at_once, "start", lambda module, threads: subprocess.Popen(command, **pipes))


def attended(data, folder, *words, n=2):
    """Train members that come to such ends; the titles of those that were told to be complete."""
    complete = []
    members = [Member(str(folder / f"{k}"), k, False, f"member {k + 1} {word}") for k, word in enumerate(words)]
    options = {"n": n, "spec": at_once.SampleSpec.fit(squares(2), inputs=["wave"], targets=["u"]), "cache": "none"}
    wanted = case().model_copy(update={"data": data})
    try:
        train_at_once(wanted, members, progress=False, done=lambda member: complete.append(member.title), **options)
    finally:
        assert all(title.endswith("done") for title in complete)
    return complete


def weights(ensemble):
    return [run.model.state_dict() for run in ensemble.runs]


def assert_same(one, other):
    for mine, theirs in zip(weights(one), weights(other), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_branches_at_once_are_those_of_one_process_to_the_bit(data, tmp_path, capfd):
    wanted = case(epochs=4).model_copy(update={"data": data})
    one = train_ensemble(wanted, tmp_path / "one", members=2, common=0.5, at_once=1, progress=False)
    two = train_ensemble(wanted, tmp_path / "two", members=2, common=0.5, at_once=2)
    assert_same(one, two)
    a, b = weights(two)
    assert any(not torch.equal(a[name], b[name]) for name in a)
    assert json.loads((tmp_path / "two" / "ensemble.json").read_text()) == {"members": ["member_0", "member_1"]}
    shown = capfd.readouterr().err
    for k in (1, 2):
        assert f"member {k} of 2  step      8" in shown and f"member {k} of 2 ━" in shown
    assert not (data.folder / ".gno").exists() and (tmp_path / "two" / "member_1" / "curves.png").exists()


def test_ctrl_c_saves_and_resume_goes_on_as_if_nothing_had_been(data, tmp_path, monkeypatch):
    wanted = case(epochs=20, log_every=1, validations=1).model_copy(update={"data": data})
    monkeypatch.setattr(at_once, "PATIENCE", 0.01)
    logs, deadline = [tmp_path / f"member_{k}" / "log.csv" for k in range(2)], time.monotonic() + 120

    def ctrl_c():
        while not any(log.exists() and log.read_text().count("\n") > 2 for log in logs) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ctrl_c).start()
    with pytest.raises(Interrupted, match=r"stopped and saved in .*; resume to go on"):
        train_ensemble(wanted, tmp_path, members=2, at_once=2, progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert any(log.with_name("last.safetensors").exists() for log in logs)
    resumed = train_ensemble(wanted, tmp_path, members=2, at_once=1, resume=True, progress=False)
    assert_same(resumed, train_ensemble(wanted, tmp_path / "whole", members=2, at_once=1, progress=False))


def test_complete_members_are_not_touched_again(data, tmp_path):
    wanted = case(epochs=1).model_copy(update={"data": data})
    train_ensemble(wanted, tmp_path, members=1, progress=False)
    before = (tmp_path / "member_0" / "last.safetensors").stat().st_mtime_ns
    again = {"resume": True, "at_once": 1, "progress": False}
    train_ensemble(wanted, tmp_path, members=2, **again)
    assert (tmp_path / "member_0" / "last.safetensors").stat().st_mtime_ns == before
    train_ensemble(wanted.with_training(epochs=2), tmp_path, members=1, **again)  # but a larger budget is a new one
    assert (tmp_path / "member_0" / "last.safetensors").stat().st_mtime_ns > before


def test_workers_go_on_with_the_next_members_and_the_last_have_more_threads(data, tmp_path, impostors, monkeypatch):
    monkeypatch.setattr(at_once, "cores", lambda: 5)
    torch.set_num_threads(4)
    assert len(attended(data, tmp_path, *["done"] * 5)) == 5
    notes = [(tmp_path / f"{k}").read_text().split() for k in range(5)]
    assert len({process for process, _ in notes}) == 2
    assert [threads for _, threads in notes] == ["2", "2", "2", "2", "4"]


@pytest.mark.parametrize(
    ("word", "kind", "says"),
    [
        ("ValueError", ValueError, "^so it is$"),
        ("MeshError", MeshError, "^so it is$"),
        (
            "OutOfMemoryError",
            ChildProcessError,
            "^member 2 .*, got OutOfMemoryError: so it is.*resume.*smaller uncertainty.at_",
        ),
        (
            "killed",
            ChildProcessError,
            "^member 2 killed: .* SIGKILL; all are saved in .*resume to go on.*uncertainty.at_",
        ),
    ],
)
def test_a_failure_stops_the_others_and_names_the_member(data, tmp_path, impostors, word, kind, says):
    with pytest.raises(kind, match=says) as raised:
        attended(data, tmp_path, "waits", word, "done")
    assert raised.type is kind and not (tmp_path / "2").exists()


def test_ctrl_c_between_members_starts_no_more(data, tmp_path, impostors):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Interrupted):
        attended(data, tmp_path, "waits", "done", "done")
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a: b"), ["error", "ValueError", "a: b"]),
        (MeshError("c"), ["error", "MeshError", "c"]),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "d"), ["error", "ValueError"]),
        (torch.OutOfMemoryError("e"), ["error", "OutOfMemoryError", "e"]),
        (KeyboardInterrupt(), ["stopped"]),
    ],
)
def test_a_worker_answers_whatever_happens(monkeypatch, error, said):
    answers = []

    def fail(*_):
        raise error

    monkeypatch.setattr(at_once, "answering", lambda: answers.append)
    monkeypatch.setattr(at_once, "_read", lambda lines: None)
    monkeypatch.setattr(at_once, "_train", fail)
    monkeypatch.setattr(os, "_exit", lambda status: answers.append(status))
    at_once.serve()
    assert answers[0][: len(said)] == said and answers[1:] == [0]


def test_how_many_and_their_threads(monkeypatch):
    monkeypatch.setattr(at_once, "cores", lambda: 6)
    on_cpu = case()
    assert how_many(on_cpu, 0, {"progress": True, "meshes": None}) == 6 and how_many(on_cpu, 3, {}) == 3
    assert how_many(on_cpu, 3, {"meshes": squares(1)}) == how_many(on_cpu, 3, {"clock": time.process_time}) == 1
    on_gpu = case(device="cuda:1")
    assert how_many(on_gpu, 0, {}) == 1 and how_many(on_gpu, 3, {}) == 3
    assert how_many(case(devices=2), 3, {}) == 1
    torch.set_num_threads(3)  # as OMP_NUM_THREADS says
    assert [threads_each(n) for n in (1, 2, 3, 5, 9)] == [3, 3, 2, 1, 1]


def test_a_case_of_commands_says_how_many(data, tmp_path, monkeypatch):
    from gno.train import Uncertainty
    from gno.uq import methods

    asked = {}
    monkeypatch.setattr(methods, "train_ensemble", lambda case, folder, **options: asked.update(options))
    wanted = case().model_copy(update={"uncertainty": Uncertainty(members=3, at_once=2)})
    methods.train_uncertain(wanted, Path(tmp_path), resume=True)
    assert asked == {"members": 3, "share": 1.0, "common": 0.0, "at_once": 2, "resume": True}


def test_a_worker_that_is_asked_to_stop_while_it_starts_says_so():
    process = start("gno.uq.at_once")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    assert json.loads(process.stdout.readline()) == ["stopped"]
    assert process.wait() == 0
    end(process)
