"""What MDAnalysis reads: the packed positions of .xtc, and topologies of simulation programs.

Its code that unpacks positions writes beyond its memory where a file is damaged, so it has a process of its own, which
stays for the next frames: its start takes a second or two.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh.mesh import MeshError
from gno.mesh.particles import INSTALL, kinds
from gno.workers import answering, end, send, start

TOPOLOGIES = (".tpr", ".psf", ".prmtop", ".parm7")
"""GROMACS; CHARMM, NAMD and OpenMM; AMBER, twice."""
# Longer than any frame takes: it includes the start, from disks that may be slow.
_SECONDS = 120.0
_FIELDS = {"charges": "charge", "masses": "mass", "resids": "residue", "molnums": "molecule"}
_SETS = {"names": "", "types": "type ", "resnames": "residue "}
"""Properties of atoms in MDAnalysis, and the names of fields and the prefixes of sets that they become."""


def unpack_xtc(path: Path, at: int) -> dict[str, np.ndarray]:
    """``points`` and ``box`` of the frame of an .xtc that begins at a byte.

    Raises:
        MeshError: damaged, or no MDAnalysis.
    """
    return _asked(path, "frame", at)


def read_topology(path: Path) -> tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Number of particles, their fields (charges, masses, numbers) and their sets (names, types, residues).

    Raises:
        MeshError: damaged, or no MDAnalysis.
    """
    found = _asked(path, "topology")
    sets: dict[str, np.ndarray] = {}
    for name, prefix in _SETS.items():
        sets.update(kinds(found.get(name, ()), prefix))
    fields = {ours: found[theirs] for theirs, ours in _FIELDS.items() if theirs in found}
    return int(found["count"]), fields, sets


def _asked(path: Path, *question: Any) -> dict[str, np.ndarray]:
    answer = _helper(os.getpid()).ask([str(path.absolute()), *question])
    if isinstance(answer, str):
        raise MeshError(f"{path}: {answer}")
    return {
        key: np.frombuffer(base64.b64decode(data), kind).reshape(shape) for key, (kind, shape, data) in answer.items()
    }


@functools.cache
def _helper(process: int) -> _Helper:
    """That of this process: one that was forked must not talk into its parent's."""
    return _Helper()


class _Helper:
    """A process that reads with MDAnalysis, started when first asked, and again after a file brought it down."""

    def __init__(self) -> None:
        self._process: Any = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def ask(self, question: list[Any]) -> dict[str, Any] | str:
        """What it answers, or in words why there is none."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = start(__name__)
            guard = threading.Timer(_SECONDS, self._process.kill)
            guard.start()
            line, begun = "", time.monotonic()
            try:
                with contextlib.suppress(BrokenPipeError):
                    send(self._process, question)
                line = self._process.stdout.readline()
            finally:
                guard.cancel()
                if not line:  # dead, or interrupted: an answer that is still to come must not be taken for the next one
                    self.close()
        if not line and time.monotonic() - begun >= _SECONDS:
            return f"its reader gave no answer in {_SECONDS:g} s: a slow disk, a busy machine, or a damaged file"
        return json.loads(line) if line else "damaged: it brings its reader down"

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            end(self._process)
            self._process = None


def serve() -> None:
    """The program of a :class:`_Helper`."""
    answer = answering()
    for line in sys.stdin:
        path, what, *rest = json.loads(line)
        try:
            found = _frame(path, *rest) if what == "frame" else _topology(path)
            answer({name: (x.dtype.str, x.shape, base64.b64encode(x.tobytes()).decode()) for name, x in found.items()})
        except ImportError:
            answer(f"{Path(path).suffix} is read with MDAnalysis, which is not installed: {INSTALL}")
        except Exception as error:  # whatever a damaged file makes of a parser
            answer(f"damaged or cut off: {type(error).__name__}: {' '.join(str(error).split())[:160]}")


def _frame(path: str, at: int) -> dict[str, np.ndarray]:
    from MDAnalysis.lib.formats.libmdaxdr import XTCFile

    with XTCFile(path) as file:
        file.set_offsets(np.array([0, at]))  # the first of which it never looks at
        file.seek(1)
        found = file.read()
    return {"points": np.asarray(found.x), "box": np.asarray(found.box)}


def _topology(path: str) -> dict[str, np.ndarray]:
    from MDAnalysis import Universe

    atoms = Universe(path, to_guess=()).atoms
    numbers = {name: np.asarray(getattr(atoms, name)) for name in _FIELDS if hasattr(atoms, name)}
    words = {name: np.asarray(getattr(atoms, name)).astype(str) for name in _SETS if hasattr(atoms, name)}
    return {"count": np.array(len(atoms)), **numbers, **words}
