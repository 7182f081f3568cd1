"""What is wrong with a case, in one line: key, expected, got."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any

import pydantic

# What to write where a section is missing, as little as will do.
_MISSING = {
    "data": 'a section [data] with files = "results/*.vtu", inputs = ["load"] and targets = ["displacement"]',
    "training": "a section [training] with minutes = 30, or epochs = 200",
}
_HELP = "; `gno train --help` shows a whole case"


def explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """The first problem of a validation, in one line: key, expected, got.

    What is missing comes last: where a key is misspelt, that is the reason.
    """
    first = min(error.errors(include_url=False), key=lambda found: found["type"] == "missing")
    keys = [str(key) for key in first["loc"] if not _is_branch(key)]
    where = ".".join(keys)
    if first["type"] == "extra_forbidden":
        if not keys[:-1] and (section := _section_of(keys[-1], model)):
            return f"{where}: expected in the section [{section}], got it above all sections"
        return f"{where}: {did_you_mean(keys[-1], _keys(model, keys[:-1]))}"
    if first["type"] == "missing":
        return f"{where}: expected {_MISSING.get(where, 'a value')}, got none{_HELP if where in _MISSING else ''}"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "expected to")
    if first["type"] == "value_error" and not where:  # of sections that do not go together, which it names
        return message
    if first["type"] == "value_error":
        return f"{where}: {message}" if not message.split(":")[0].isidentifier() else f"{where}.{message}"
    return f"{where}: {message.replace('expected to be', 'expected')}, got {first['input']!r}"


def did_you_mean(name: str, known: Iterable[str], what: str = "key") -> str:
    """What to say about a name that does not exist.

    >>> did_you_mean("epoch", ["epochs", "minutes"])
    "unknown key 'epoch', did you mean 'epochs'? Keys: epochs, minutes"
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean '{close[0]}'?" if close else "."
    return f"unknown {what} '{name}'{hint} {what.capitalize()}s: {', '.join(known)}"


def _is_branch(key: Any) -> bool:
    # pydantic names the branch of a union or a function validator in the location of an error
    return isinstance(key, str) and ("[" in key or key in ("tuple", "int", "float", "none", "str"))


def _section_of(key: str, model: type[pydantic.BaseModel]) -> str | None:
    """The section whose key stands outside of it, if any."""
    return next((name for name, part in _sections(model).items() if key in part.model_fields), None)


def _keys(model: type[pydantic.BaseModel], path: list[str]) -> list[str]:
    for key in path:
        model = _sections(model)[key]
    return list(model.model_fields)


def _sections(model: type[pydantic.BaseModel]) -> dict[str, type[pydantic.BaseModel]]:
    """The keys that are tables of keys."""
    found: dict[str, type[pydantic.BaseModel]] = {}
    for key, field in model.model_fields.items():
        for part in typing.get_args(field.annotation) or (field.annotation,):  # a union where it may be absent
            if isinstance(part, type) and issubclass(part, pydantic.BaseModel):
                found[key] = part
    return found
