"""The folder of a run: one training at a time writes into it, and what is trained outlives it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Says which members of an ensemble are complete; these are what is predicted with. They have folders of their own, and
# one for what they have in common.
ENSEMBLE, MEMBERS, COMMON = "ensemble.json", "member_*", "common"
# The doubt of the last weights, beside them.
LAPLACE = "laplace.safetensors"


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """The folder, made if it is not there, for one training alone: while it runs, another is refused.

    The lock is the system's and ends with the process, whatever ends that. File systems without locks have none. A
    folder that was made here, and of which nothing came, goes again.

    Raises:
        ValueError: another training is going on there, or it is a file.
    """
    if directory.is_file():
        raise ValueError(f"{directory}: expected a folder for the run, got a file")
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    made = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{directory}: expected a folder for this training alone, got one with another") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                directory.rmdir()


def rescued(save: Callable[[Path], None], directory: Path, error: OSError) -> OSError:
    """Save what is trained where its folder was deleted or its disk is full or gone; the error to raise says where.

    Args:
        save: writes all that a resumed training needs into a folder, which it makes.
        directory: of the run, tried first; then a temporary one.
        error: what stopped the training.
    """
    reason = f"{error.filename or directory}: {(error.strerror or str(error)).lower()}"
    with contextlib.suppress(OSError):
        save(directory)
        return OSError(f"{reason}; the training was stopped and saved in {directory}; resume to go on")
    with contextlib.suppress(OSError):
        spare = Path(tempfile.mkdtemp(prefix=f"{directory.name}-"))
        save(spare)
        return OSError(f"{reason}; the training was stopped and saved in {spare}; move that to {directory} and resume")
    return error
