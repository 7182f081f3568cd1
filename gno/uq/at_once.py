"""Members of an ensemble that train at the same time, each in a process of its own.

A training of usual size has little use for a second thread, and leaves an accelerator waiting for launches; several
trainings share cores and device well. Every process finds the prepared samples on disk, takes its share of the
threads, and trains by :func:`gno.train.train`, so that members are the same as those that one process makes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from gno.graph import SampleSpec
from gno.mesh import MeshError
from gno.train import Case
from gno.train.interrupt import Interrupted, Stop
from gno.train.report import Line, bars
from gno.train.sources import prepare
from gno.train.training import train
from gno.workers import answering, cores, end, send, start

# Errors of a member that say all there is to say: they are raised as they are.
KNOWN = {"MeshError": MeshError, "ValueError": ValueError, "OSError": OSError}
# Seconds between looks at whether somebody asked to stop.
PATIENCE = 0.2


@dataclasses.dataclass(frozen=True)
class Member:
    """One training of an ensemble: its folder, its seed, whether to go on from its last save, its name in messages."""

    folder: str
    seed: int
    resume: bool
    title: str


def how_many(case: Case, wanted: int, options: Mapping[str, Any]) -> int:
    """Members that may train at the same time.

    One where a process of its own could not be told all: meshes or functions in memory, or several devices.

    Args:
        case: says where they train.
        wanted: 0 for as many as there are cores, and for one on an accelerator, whose memory they would share.
        options: of :func:`gno.train.train`.
    """
    if case.training.devices > 1 or any(value is not None for key, value in options.items() if key != "progress"):
        return 1
    return wanted or (cores() if _on_cpu(case) else 1)


def _on_cpu(case: Case) -> bool:
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return case.training.device == "cpu" or (case.training.device == "auto" and not accelerated)


@contextlib.contextmanager
def with_cache(case: Case) -> Iterator[Case]:
    """The case with a cache, for the time being where it wants none: what processes share their samples by."""
    if case.data.cache:
        yield case
        return
    with tempfile.TemporaryDirectory() as folder:
        yield case.model_copy(update={"data": case.data.model_copy(update={"cache": folder})})


def train_at_once(
    case: Case,
    members: Sequence[Member],
    *,
    n: int,
    spec: SampleSpec,
    cache: str,
    progress: bool,
    done: Callable[[Member], None],
) -> None:
    """Train members, n at a time; their samples are ready.

    Args:
        case: data, model and budget of every member.
        members: what to train.
        n: processes. They share the threads of this one; the last members, where they are fewer, have more each.
        spec: how meshes are seen.
        cache: ``data.cache`` that holds the samples.
        progress: whether to draw a bar, with a line per member.
        done: is told of each member that is complete.

    Raises:
        ValueError, OSError: as the training of a member raised it. Here and below the others are stopped and saved.
        ChildProcessError: a process that was killed, or any other error in it.
        Interrupted: Ctrl-C; everything is saved.
    """
    files = {key: [str(path) for path in paths] for key, paths in case.paths().items() if key != "test"}
    common = {"case": case.model_dump(mode="json"), "spec": spec.to_dict(), "cache": cache, "files": files}
    answers: SimpleQueue[Answer] = SimpleQueue()
    crew: list[Worker] = []
    try:
        with Stop() as stop, bars() if progress else contextlib.nullcontext() as bar:
            for first in range(0, len(members), n):
                wave = members[first : first + n]
                for spare in crew[len(wave) :]:
                    spare.stop()
                crew += [Worker(common, threads_each(len(wave)), answers) for _ in wave[len(crew) :]]
                for worker, member in zip(crew, wave, strict=False):
                    worker.train(member, threads_each(len(wave)), Line(bar, member.title) if bar else None)
                _attend(crew[: len(wave)], answers, stop, done)
    finally:
        for worker in crew:
            worker.close()


def threads_each(n: int) -> int:
    """Threads for each of n trainings at the same time: an equal share of the cores, no more than this process has."""
    return max(1, min(torch.get_num_threads(), cores() // n))


def _attend(crew: Sequence[Worker], answers: SimpleQueue[Answer], stop: Stop, done: Callable[[Member], None]) -> None:
    """Listen until the member of each worker has come to an end; where one stops or fails, the others are stopped."""
    running, failure = set(crew), None
    while running:
        if stop.requested or failure:
            for worker in running:
                worker.stop()
        try:
            worker, said = answers.get(timeout=PATIENCE)
        except Empty:
            continue
        if worker not in running or worker.show(said):
            continue
        running.remove(worker)
        if said == ["done"]:
            done(worker.member)
        elif failure is None:
            failure = worker.failure(said)
    if failure:
        raise failure


class Worker:
    """A process that trains members, one after another.

    Args:
        common: what it is told of all members.
        threads: of the libraries that ask once.
        answers: takes what the process says, and None when it has ended.
    """

    member: Member
    line: Line | None

    def __init__(self, common: Mapping[str, Any], threads: int, answers: SimpleQueue[Answer]) -> None:
        self.process = start(__name__, threads=threads)
        self.answers = answers
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self._send(common)

    def train(self, member: Member, threads: int, line: Line | None) -> None:
        """Begin with a member."""
        self.member, self.line = member, line
        self._send({**dataclasses.asdict(member), "threads": threads, "show": line is not None})

    def show(self, said: Any) -> bool:
        """Whether an answer was about progress, which is shown."""
        match said:
            case ["show", share, facts] if self.line:
                self.line.show(share, **facts)
            case ["say", text] if self.line:
                self.line.say(text)
            case _:
                return False
        return True

    def failure(self, said: Any) -> BaseException:
        """What to raise for a member that is not complete."""
        folder, title = Path(self.member.folder).parent, self.member.title
        match said:
            case ["stopped"]:
                return Interrupted(f"stopped and saved in {folder}; resume to go on")
            case ["error", kind, text, _] if kind in KNOWN:
                return KNOWN[kind](text)
            case ["error", kind, text, trace]:
                what = f"{kind}: {text}"
            case _:
                code, trace = self.process.wait(), ""
                what = f"one that was ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        error = ChildProcessError(
            f"{title}: expected a process that trains it, got {what}; all are saved in {folder}, resume to go on; "
            "where memory is short, a smaller uncertainty.at_once needs less"
        )
        error.add_note(trace)
        return error

    def stop(self) -> None:
        """Ask it to save and to end; so does the end of this process, however it comes."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.listener.join()
        end(self.process)

    def _send(self, document: Any) -> None:
        try:
            send(self.process, document)
        except BrokenPipeError:
            self.answers.put((self, None))

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            self.answers.put((self, json.loads(line)))
        self.answers.put((self, None))


# Who said it, and what.
Answer = tuple[Worker, Any]


def serve() -> None:
    """The program of a :class:`Worker`: the end of its input asks it to stop."""
    answer, lines = answering(), SimpleQueue[str]()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=_read, args=(lines,), daemon=True).start()  # it may ask to stop at once
        _train(iter(lines.get, None), answer)
    except KeyboardInterrupt:
        answer(["stopped"])
    except Exception as error:  # whatever it is, the parent must hear of it
        known = next((kind for kind in KNOWN.values() if isinstance(error, kind)), type(error))
        answer(["error", known.__name__, str(error), traceback.format_exc()])
    os._exit(0)  # the thread may still be reading, and nothing is left to be done


def _read(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGINT)  # a signal wakes whoever waits for a line


def _train(lines: Iterator[str], answer: Callable[[Any], None]) -> None:
    common, prepared = json.loads(next(lines)), None
    case, files = Case.model_validate(common["case"]), {k: [Path(p) for p in v] for k, v in common["files"].items()}
    stored = case.model_copy(update={"data": case.data.model_copy(update={"cache": common["cache"]})})
    for line in lines:
        order = json.loads(line)
        torch.set_num_threads(order["threads"])
        prepared = prepared or prepare(stored, files, spec=SampleSpec.from_dict(common["spec"]), progress=False)
        train(
            case.with_training(seed=order["seed"]),
            order["folder"],
            resume=order["resume"],
            title=order["title"],
            prepared=prepared,
            progress=Told(answer) if order["show"] else False,
        )
        answer(["done"])


class Told:
    """Shows a training by telling the parent of it."""

    def __init__(self, answer: Callable[[Any], None]) -> None:
        self.answer = answer

    def show(self, share: float, **facts: str) -> None:
        self.answer(["show", share, facts])

    def say(self, line: str) -> None:
        self.answer(["say", line])
