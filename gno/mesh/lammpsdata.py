"""Data files of LAMMPS (.data, .lmp): a start of a simulation, and the topology of its binary trajectories.

The format is described in the LAMMPS manual, "read_data command".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from gno.mesh.lammps import type_sets
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import number_of_particles, numbers, particles

T = TypeVar("T")
SUFFIXES = (".data", ".lmp")
_MOLECULAR = "id mol type x y z"
_STYLES = {
    "atomic": "id type x y z",
    "charge": "id type q x y z",
    "dipole": "id type q x y z mux muy muz",
    "full": "id mol type q x y z",
    "sphere": "id type diameter density x y z",
    **dict.fromkeys(("angle", "bond", "molecular"), _MOLECULAR),
}
"""Columns of the atoms by their style; images of the box may follow as three more."""
_SURE = {5: "atomic", 8: "atomic", 7: "full", 10: "full"}
"""Styles that are taken for granted by the number of columns, where the file does not say."""
_BOUNDS = tuple(f"{axis}lo {axis}hi" for axis in "xyz")
_VECTORS = ("avec", "bvec", "cvec")
_TILT = "xy xz yz"
_KEYWORDS = ("atoms", *_BOUNDS, *_VECTORS, _TILT)
"""Of the header, as far as it is read."""
_TITLE = re.compile(r"[A-Z][A-Za-z ]+")


def read_lammps_data(path: Path) -> Mesh:
    """Read particles sorted by ``id``, with what their style holds, masses and velocities; types as sets.

    Raises:
        MeshError: cut off, a style whose columns are not known, or a type without a mass or a label.
    """
    head, sections = _sections(path.read_text(encoding="utf-8", errors="replace"))
    if "Atoms" not in sections or "atoms" not in head:
        raise MeshError("expected a data file of LAMMPS with 'N atoms' and a section 'Atoms', got none (file cut off?)")
    count = number_of_particles(head["atoms"], "atoms")
    if not count:
        raise MeshError("atoms: expected at least one, got 0")
    style, rows = sections["Atoms"]
    names = _columns(style, rows)
    table = dict(zip(names, _rows("Atoms", rows, count).T, strict=False))
    kept = {name: np.int64 for name in ("id", "mol")} | {name: np.float64 for name in ("q", "diameter", "density")}
    fields = {name: numbers(table[name], f"Atoms: {name}", kind) for name, kind in kept.items() if name in table}
    labels = _of_types("Atom Type Labels", sections)
    of_label = {label: number for number, label in labels.items()}
    types = [of_label.get(word, word) for word in table["type"].tolist()]
    table["type"] = fields["type"] = numbers(types, "Atoms: type", np.int64)
    if "Masses" in sections:
        of_type = _of_types("Masses", sections)
        masses = dict(zip(of_type, numbers(list(of_type.values()), "Masses").tolist(), strict=True))
        masses = {of_label.get(word, word): mass for word, mass in masses.items()}
        fields["mass"] = np.array(_each(types, masses, "Masses"))
    if labels:
        table["typelabel"] = np.array(_each(types, labels, "Atom Type Labels"))
    points = numbers(np.stack([table[axis] for axis in "xyz"], axis=1), "Atoms: x y z")
    order = _order("Atoms", table["id"])
    fields = {name: values[order] for name, values in fields.items()}
    if "Velocities" in sections:
        rows_of_v = _rows("Velocities", sections["Velocities"][1], count, least=4)
        fields["v"] = numbers(rows_of_v[:, 1:4], "Velocities")[_order("Velocities", rows_of_v[:, 0])]
    return particles(
        points[order],
        box=_box(head),
        source=str(path),
        point_fields=fields,
        point_sets=type_sets({name: values[order] for name, values in table.items()}),
    )


def _sections(text: str) -> tuple[dict[str, str], dict[str, tuple[str, list[str]]]]:
    """Values in the header by their keywords, and of each section the comment behind its title and its lines."""
    head: dict[str, str] = {}
    sections: dict[str, tuple[str, list[str]]] = {}
    rows: list[str] | None = None
    for line in text.splitlines()[1:]:
        words, _, comment = line.partition("#")
        if not (words := words.strip()):
            continue
        if _TITLE.fullmatch(words):
            rows = []
            sections[words] = (comment.strip(), rows)
        elif rows is None:
            words = " ".join(words.split())
            head.update({key: words.removesuffix(key) for key in _KEYWORDS if words.endswith(f" {key}")})
        else:
            rows.append(words)
    return head, sections


def _of_types(title: str, sections: dict[str, tuple[str, list[str]]]) -> dict[str, str]:
    """The second word of each line of a section, by the first, which is a type."""
    rows = [row.split() for row in sections.get(title, ("", []))[1]]
    if short := next((row for row in rows if len(row) < 2), None):
        raise MeshError(f"{title}: expected a type and a value in each line, got '{short[0]}' (file cut off?)")
    return {row[0]: row[1] for row in rows}


def _each(types: list[str], known: Mapping[str, T], title: str) -> list[T]:
    """What a section says of the type of each particle."""
    if missing := sorted(set(types) - set(known)):
        raise MeshError(f"{title}: expected a line for each type of the atoms, got none for type {missing[0]}")
    return [known[kind] for kind in types]


def _order(title: str, ids: np.ndarray) -> np.ndarray:
    """Places of the lines of a section, sorted by the numbers of their atoms."""
    known = numbers(ids, f"{title}: id", np.int64)
    order = np.argsort(known)
    if len(twice := known[order][1:][np.diff(known[order]) == 0]):
        raise MeshError(f"{title}: expected each id once, got {twice[0]} twice")
    return order


def _columns(style: str, rows: list[str]) -> list[str]:
    width = len(rows[0].split()) if rows else 0
    says = len(style.split()) == 1 or style.startswith("hybrid")  # else the comment is about something else
    known = style.split()[0] if says else _SURE.get(width, "")
    if known not in _STYLES:
        got = f"'{style}'" if says else f"none and {width} columns"
        raise MeshError(f"Atoms: expected a comment with a style ({', '.join(_STYLES)}), as 'Atoms # full', got {got}")
    names = _STYLES[known].split()
    if width not in (len(names), len(names) + 3):
        raise MeshError(f"Atoms: expected {len(names)} or {len(names) + 3} columns of style {known}, got {width}")
    return names


def _rows(title: str, rows: list[str], count: int, least: int = 1) -> np.ndarray:
    words = [row.split() for row in rows]
    if len(words) != count:
        raise MeshError(f"{title}: expected {count} lines, got {len(words)} (file cut off?)")
    width = max(least, len(words[0]))
    if odd := next((row for row in words if len(row) != width), None):
        raise MeshError(f"{title}: expected {width} words in each line, got {len(odd)} in '{' '.join(odd)}'")
    return np.array(words)


def _box(head: dict[str, str]) -> np.ndarray:
    """Vectors of the box, one per row."""
    if all(key in head for key in _VECTORS):
        return np.stack([_values(head, key, 3) for key in _VECTORS])
    bounds = np.array([_values(head, key, 2) if key in head else (-0.5, 0.5) for key in _BOUNDS])
    for key, (low, high) in zip(_BOUNDS, bounds, strict=True):
        if not low < high:
            raise MeshError(f"{key}: expected a lower and a higher bound, got {low:g} and {high:g}")
    box = np.diag(bounds[:, 1] - bounds[:, 0])
    if _TILT in head:
        box[[1, 2, 2], [0, 0, 1]] = _values(head, _TILT, 3)
    return box


def _values(head: dict[str, str], key: str, count: int) -> np.ndarray:
    found = numbers(head[key].split(), key)
    if len(found) != count:
        raise MeshError(f"{key}: expected {count} numbers, got {len(found)}")
    return found
