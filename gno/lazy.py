"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def on_demand(package: str, **homes: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package, for names whose modules take seconds to load.

    Args:
        package: its name.
        homes: the module, inside the package, of each name.

    >>> on_demand("gno.mesh", read="io")("read").__module__
    'gno.mesh.io'
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find
