"""Draft: a first case.toml for a folder of results, with what else the files have as comments."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydantic

from gno.graph.fields import FieldSpec, fields_at, find_field
from gno.mesh import Mesh, read
from gno.mesh.address import split_address, stem
from gno.mesh.index import without_parts
from gno.mesh.io import step_times
from gno.progress import counter
from gno.train.case import Case
from gno.train.explain import explain
from gno.train.splits import series_files

# Fields are looked at in at most this many files, at even distances in the list.
FILES_TO_LOOK_AT = 20
# Coefficients that vary by more than this factor are better read as logarithms.
SPAN_FOR_LOG = 10.0
# Names of fields that say nothing; a file of ParaView can have a hundred.
MOST_NAMES = 12
# Values that stray less than this, relative to the largest, are one value.
ROUND_OFF = 1e-9
# Of fewer than three files, by their number: not every purpose has one.
_SPLITS = {
    1: ["split = [1.0, 0.0, 0.0]    # all to train; nothing says how well that went"],
    2: ["split = [0.5, 0.5, 0.0]    # one to train, one to validate, none to test"],
}
_TIMES = "# The files are of different times; if they are frames of a series: `gno init --time …`"
_TIME = [
    "",
    '[time]    # steps from frame to frame are learned; each frame by itself: files like "run.xyz@:", and no [time]',
    "# forcing = []    # those inputs that change with time",
]


@dataclasses.dataclass(frozen=True)
class Known:
    """A field as the files have it: where, how large, and whether it says anything.

    Args:
        field: where it is, and its components.
        low, high: smallest and largest value in all files.
        varies: whether it has more than one value, over nodes, cells or files.
    """

    field: FieldSpec
    low: float
    high: float
    varies: bool

    @property
    def spans(self) -> bool:
        """Whether it is a positive quantity that varies by factors."""
        return self.low > 0 and self.high > SPAN_FOR_LOG * self.low

    def __str__(self) -> str:
        n = self.field.n_components
        components = f", {n} components" if n > 1 else ""
        return f"{self.field.name}  ({self.field.location}{components}; {self.low:.4g} … {self.high:.4g})"


def draft_case(
    files: Sequence[Path],
    *,
    targets: Sequence[str],
    inputs: Sequence[str] = (),
    minutes: float = 30.0,
    time: bool | None = None,
    folder: Path = Path(),
    progress: bool = False,
) -> str:
    """The text of a case that learns ``targets`` from ``inputs``; other fields and sets of the files are in comments.

    Args:
        files: results, one file each, or series.
        targets: fields to learn.
        inputs: fields or sets that are known beforehand.
        minutes: budget of the training.
        time: whether the files are series in time, or frames of them; by default, whether the first has several steps.
        folder: of the case, where its globs start.
        progress: draw a bar while files are read.

    Raises:
        ValueError: no such field, or a field that not all files have; one line.
    """
    files = without_parts(files)
    time = len(step_times(files[0])) > 1 if time is None else time
    looked_at = files[:: -(-len(files) // FILES_TO_LOOK_AT)]
    with counter("files", len(looked_at), draw=progress) as advance:
        meshes = []
        for file in looked_at:
            meshes.append(read(file))
            advance(1)
    known = known_fields(meshes)
    sets = sorted({name for mesh in meshes for name in (*mesh.point_sets, *mesh.cell_sets)})
    _check(targets, inputs, meshes, known, sets)
    text = "\n".join(
        [
            "# Written by `gno init`; `gno train --help` and docs/case.md say what else there is.",
            "",
            "[data]",
            f"files = {_names(pattern_of(files, folder))}",
            f"inputs = {_names(inputs)}",
            f"targets = {_names(targets)}",
            *_SPLITS.get(len(series_files(split_address(file)[0] for file in files) if time else files), ()),
            *_logarithms(known, inputs),
            *_comments(known, sets, (*inputs, *targets)),
            *([_TIMES] if not time and len({mesh.time for mesh in meshes}) > 1 else []),
            "",
            "[training]",
            f"minutes = {minutes:g}",
            *(_TIME if time else []),
            "",
        ]
    )
    try:
        Case.model_validate(tomllib.loads(text))
    except pydantic.ValidationError as error:
        raise ValueError(explain(error, Case)) from None
    return text


def _check(
    targets: Sequence[str], inputs: Sequence[str], meshes: Sequence[Mesh], known: dict[str, Known], sets: Sequence[str]
) -> None:
    """Something is to be learned, and every name is there, in all files, with values that can be learned from."""
    if not targets:
        raise ValueError(f"targets: expected at least one field to learn (--target NAME), got none; {_listed(known)}")
    if other := next((mesh for mesh in meshes if mesh.dim != meshes[0].dim), None):
        like = f"{meshes[0].dim}-D like {meshes[0].source}"
        raise ValueError(f"meshes: expected all {like}, got {other.dim}-D ({other.source})")
    for name in (*targets, *inputs):
        if name in sets and name not in known:
            if name in targets:
                raise ValueError(f"targets: expected fields, got the set '{name}'; {_listed(known)}")
            continue
        first = find_field(meshes[0], name)  # raises where there is none, and says what is there
        for mesh in meshes:
            if (found := find_field(mesh, name)) != first:
                raise ValueError(
                    f"field '{name}': expected {_kind(first)} as elsewhere, got {_kind(found)} ({mesh.source})"
                )
            found.values(mesh)  # raises at one that is not finite


def _kind(field: FieldSpec) -> str:
    return f"a {field.location} field with {field.n_components} component{'s'[: field.n_components > 1]}"


def known_fields(meshes: Sequence[Mesh]) -> dict[str, Known]:
    """Numeric fields that all meshes have in the same place with the same number of components, by name."""
    names = dict.fromkeys(name for location in ("point", "cell", "global") for name in fields_at(meshes[0], location))
    found = {}
    for name in names:
        try:
            field = find_field(meshes[0], name)
            same = all(find_field(mesh, name) == field for mesh in meshes[1:])
        except ValueError:  # text, or not in every file
            continue
        if same and (known := _known(field, meshes)):
            found[name] = known
    return found


def _known(field: FieldSpec, meshes: Sequence[Mesh]) -> Known | None:
    values = [np.asarray(fields_at(mesh, field.location)[field.name], np.float64) for mesh in meshes]
    values = [value.reshape(-1, field.n_components) for value in values]
    values = [value[np.isfinite(value).all(1)] for value in values]
    if not all(map(len, values)):
        return None
    low, high = (np.array([bound(value, axis=0) for value in values]) for bound in (np.min, np.max))
    size = max(np.abs(low).max(), np.abs(high).max())
    varies = bool((high.max(0) - low.min(0) > ROUND_OFF * size).any())
    return Known(field, float(low.min()), float(high.max()), varies)


def pattern_of(files: Sequence[Path], folder: Path) -> list[str]:
    """One glob that matches these files and no others, where there is one, else their names; relative to ``folder``."""
    files = [file.resolve() for file in files]
    if whole := _whole_trajectory(files):
        return [_relative(whole.parent, folder) + f"{whole.name}@:"]
    parents, suffixes = {file.parent for file in files}, {file.name[len(stem(file)) :] for file in files}
    if len(files) > 1 and len(parents) == len(suffixes) == 1:
        parent, suffix = parents.pop(), suffixes.pop()
        for start in ("", os.path.commonprefix([stem(file) for file in files])):  # noqa: RUF071 (letters, not folders)
            pattern = f"{glob.escape(start)}*{suffix}"
            if set(without_parts(sorted(parent.glob(pattern)))) == set(files):
                return [glob.escape(_relative(parent, folder)) + pattern]
    return [_relative(file.parent, folder) + file.name for file in files]


def _whole_trajectory(files: Sequence[Path]) -> Path | None:
    """The file of which these are all frames, if they are."""
    of, frames = zip(*map(split_address, files), strict=True)
    alone = len(set(of)) == 1 and None not in frames
    return of[0] if alone and len(set(frames)) == len(step_times(of[0])) else None


def _relative(parent: Path, folder: Path) -> str:
    path = Path(os.path.relpath(parent, folder.resolve())).as_posix()
    return "" if path == "." else f"{path}/"


def _names(names: Iterable[str]) -> str:
    quoted = [json.dumps(name, ensure_ascii=False) for name in names]
    return f"[{', '.join(quoted)}]"


def _logarithms(known: dict[str, Known], inputs: Sequence[str]) -> list[str]:
    spans = [name for name in inputs if name in known and known[name].spans]
    return [f"log = {_names(spans)}    # positive, and by factors larger here than there"] if spans else []


def _comments(known: dict[str, Known], sets: Sequence[str], taken: Sequence[str]) -> list[str]:
    free = [field for name, field in known.items() if name not in taken and field.varies]
    same = [name for name, field in known.items() if name not in taken and not field.varies]
    other = [name for name in sets if name not in taken]
    return [
        *(["# Other fields of the files; what is known before the solver runs can be an input:"] if free else []),
        *(f"#   {field}" for field in free),
        *([f"# The same everywhere, in every file: {_some(same)}"] if same else []),
        *([f"# Sets, which can be inputs too: {', '.join(other)}"] if other else []),
    ]


def _some(names: Sequence[str]) -> str:
    """Names, and how many more there are where they are many."""
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _listed(known: dict[str, Known]) -> str:
    return f"fields: {', '.join(known) or 'none'}"
