"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAMAGE = (
    OSError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    RuntimeError,
)
"""What damaged bytes make parsers raise."""


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``, with the same extension, that takes its place if all goes well.

    Raises:
        OSError: with the name of ``path``, where its disk is full or may not be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


class Sink(io.FileIO):
    """A file for HDF5, which brings the program down where a disk is full: it hears that all went well, and we do not.

    Args:
        path: the file to write.

    Attributes:
        error: what stopped the first write that failed; raised on leaving.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while self.error is None and len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def __exit__(self, *stopped: Any) -> None:
        super().__exit__(*stopped)
        if self.error is not None:
            raise self.error
