"""Files to samples: read and build in worker processes, keep the result on disk by content."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import torch

import gno.graph
import gno.mesh
from gno.graph import MeshData, SampleSpec, build_sample
from gno.mesh import MeshError, read
from gno.mesh.address import split_address
from gno.mesh.index import files_in
from gno.mesh.particles import remembered
from gno.progress import counter
from gno.train.checkpoint import load_tensors, save_tensors
from gno.workers import answering, cores, end, send, start

# Work that is expected to take longer than this is given to worker processes (their start costs seconds).
PATIENCE = 10.0


def load_samples(
    paths: Sequence[Path],
    spec: SampleSpec,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    bar: bool = False,
) -> list[MeshData]:
    """The samples of some files, in their order.

    Args:
        paths: mesh files.
        spec: what to take from each.
        cache: folder of samples built before; a temporary one if absent.
        workers: processes to build in; one per core, at most 8, if absent, and none for little work.
        bar: whether to draw a progress bar.

    Raises:
        MeshError: a file that cannot be read, or a worker that its file brought down.
        ValueError: a file that lacks a field of the spec.
    """
    with contextlib.ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs = [(path, folder / f"{content_key(path, spec)}.safetensors") for path in paths]
        todo = [job for job in dict.fromkeys(jobs) if not job[1].exists()]
        with counter("samples", len(jobs), draw=bar and bool(todo)) as advance:
            advance(len(jobs) - len(todo))
            for _ in _build_all(todo, spec, workers):
                advance(1)
        return [load_sample(stored) for _, stored in jobs]


def content_key(path: Path, spec: SampleSpec) -> str:
    """A name for a sample that changes with the content of the file, the spec, or the code that builds samples."""
    recipe = json.dumps(spec.to_dict(), sort_keys=True)
    return hashlib.sha256(recipe.encode() + _code() + _content(path)).hexdigest()[:32]


def save_sample(sample: MeshData, path: Path) -> None:
    """Store a sample as safetensors; what is not a tensor goes into the header."""
    items = sample.to_dict()
    tensors = {key: value for key, value in items.items() if isinstance(value, torch.Tensor)}
    save_tensors(
        path, tensors, {key: value for key, value in items.items() if key not in tensors and value is not None}
    )


def load_sample(path: Path) -> MeshData:
    """The inverse of :func:`save_sample`."""
    tensors, others = load_tensors(path)
    return MeshData(**tensors, **others)


@functools.cache
def _code() -> bytes:
    """A digest of the rooms that make a sample of a file, so that no sample outlives the code that built it."""
    digest = hashlib.sha256()
    for package in (gno.mesh, gno.graph):
        for source in sorted(Path(package.__path__[0]).glob("*.py")):
            digest.update(source.read_bytes())
    return digest.digest()


def _content(path: Path) -> bytes:
    file, frame = split_address(path)
    if frame is not None:
        return frame.encode() + _whole(file)
    try:
        with path.open("rb") as data:  # in pieces: a trajectory may be larger than memory
            digest = hashlib.file_digest(data, "sha256")
    except OSError as error:
        got = "a folder" if path.is_dir() else "none" if not path.exists() else error.strerror or error
        raise MeshError(f"{path}: expected a file, got {got}") from None
    digest.update(path.suffix.lower().encode())
    for other in files_in(path):
        digest.update(_content(other))
    return digest.digest()


@remembered
def _whole(path: Path) -> bytes:
    """A file of many frames is digested once."""
    return _content(path)


def _build_all(todo: Sequence[tuple[Path, Path]], spec: SampleSpec, workers: int | None) -> Iterator[Path]:
    """Build one after the other for a while; when that proves slow, hand over to processes."""
    workers = min(8, cores()) if workers is None else workers
    start, rest = time.monotonic(), list(todo)
    while rest:
        built = len(todo) - len(rest)
        expected = (time.monotonic() - start) / max(1, built) * len(rest)
        if workers > 1 and built and expected > PATIENCE:
            break
        _build(*rest[0], spec)
        yield rest.pop(0)[0]
    if rest:
        yield from _build_parallel(rest, spec, workers)


def _build(source: Path, stored: Path, spec: SampleSpec) -> None:
    save_sample(build_sample(read(source), spec), stored)


def _build_parallel(todo: Sequence[tuple[Path, Path]], spec: SampleSpec, workers: int) -> Iterator[Path]:
    pool = [Worker(spec) for _ in range(min(workers, len(todo)))]
    free: SimpleQueue[Worker] = SimpleQueue()
    for worker in pool:
        free.put(worker)

    def run(job: tuple[Path, Path]) -> Path:
        worker = free.get()
        try:
            worker.build(*job)
        finally:
            free.put(worker)
        return job[0]

    with ThreadPoolExecutor(len(pool)) as threads:
        try:
            yield from threads.map(run, todo)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in pool:
                worker.close()


class Worker:
    """A process that builds samples, one JSON line per job."""

    def __init__(self, spec: SampleSpec) -> None:
        self.process = start(__name__)
        send(self.process, spec.to_dict())

    def build(self, source: Path, stored: Path) -> None:
        """Build one sample; errors arrive as they were raised."""
        try:
            send(self.process, [str(source), str(stored)])
            answer = self.process.stdout.readline() if self.process.stdout else ""
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise MeshError(f"{source}: expected a mesh, got a file that brings its reader down")
        kind, message = json.loads(answer)
        if kind:
            raise (MeshError if kind == "MeshError" else ValueError)(message)

    def close(self) -> None:
        """End the process."""
        end(self.process)


def serve() -> None:
    """The program of a :class:`Worker`."""
    answer = answering()
    torch.set_num_threads(1)
    spec = SampleSpec.from_dict(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        source, stored = json.loads(line)
        said: tuple[str, str] = ("", "")
        try:
            _build(Path(source), Path(stored), spec)
        except ValueError as error:
            said = (type(error).__name__, str(error))
        except Exception as error:  # a worker must answer; the parent raises it again, with the file's name
            said = ("ValueError", f"{source}: {type(error).__name__}: {error}")
        answer(said)
