"""Data files of LAMMPS (.data, .lmp): a start of a simulation, and the topology of its binary trajectories.

The format is described in the LAMMPS manual, "read_data command".
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from gno.mesh.lammps import type_sets
from gno.mesh.mesh import Mesh, MeshError
from gno.mesh.particles import particles

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
_TITLE = re.compile(r"[A-Z][A-Za-z ]+")


def read_lammps_data(path: Path) -> Mesh:
    """Read particles sorted by ``id``, with what their style holds, masses and velocities; types as sets.

    Raises:
        MeshError: cut off, or a style whose columns are not known.
    """
    head, sections = _sections(path.read_text(encoding="utf-8", errors="replace"))
    if "Atoms" not in sections or "atoms" not in head:
        raise MeshError("expected a data file of LAMMPS with 'N atoms' and a section 'Atoms', got none (file cut off?)")
    count = int(head["atoms"][0])
    style, rows = sections["Atoms"]
    names = _columns(style, rows)
    table = dict(zip(names, _rows("Atoms", rows, count).T, strict=False))
    order = np.argsort(table["id"].astype(np.int64))
    table = {name: column[order] for name, column in table.items()}
    kept = {name: np.int64 for name in ("id", "mol")} | {name: np.float64 for name in ("q", "diameter", "density")}
    fields: dict[str, np.ndarray] = {name: table[name].astype(kind) for name, kind in kept.items() if name in table}
    labels = {row.split()[0]: row.split()[1] for row in sections.get("Atom Type Labels", ("", []))[1]}
    numbers = {label: number for number, label in labels.items()}
    types = np.array([numbers.get(word, word) for word in table["type"].tolist()])
    table["type"] = fields["type"] = types.astype(np.int64)
    if "Masses" in sections:
        mass = {numbers.get(row.split()[0], row.split()[0]): float(row.split()[1]) for row in sections["Masses"][1]}
        fields["mass"] = np.array([mass[number] for number in types.tolist()])
    if "Velocities" in sections:
        velocity = _rows("Velocities", sections["Velocities"][1], count)
        fields["v"] = velocity[np.argsort(velocity[:, 0].astype(np.int64)), 1:4].astype(np.float64)
    if labels:
        table["typelabel"] = np.array([labels[number] for number in types.tolist()])
    return particles(
        np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1),
        box=_box(head),
        source=str(path),
        point_fields=fields,
        point_sets=type_sets(table),
    )


def _sections(text: str) -> tuple[dict[str, list[str]], dict[str, tuple[str, list[str]]]]:
    """Lines of the header by their words, and of each section the comment behind its title and its lines."""
    head: dict[str, list[str]] = {}
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
            values = [word for word in words.split() if re.match(r"[-+.\d]", word)]
            head[" ".join(words.split()[len(values) :])] = values
        else:
            rows.append(words)
    return head, sections


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


def _rows(title: str, rows: list[str], count: int) -> np.ndarray:
    words = [row.split() for row in rows]
    if len(words) != count or len({len(row) for row in words}) > 1:
        raise MeshError(f"{title}: expected {count} lines of as many words, got {len(words)} (file cut off?)")
    return np.array(words)


def _box(head: dict[str, list[str]]) -> np.ndarray:
    """Vectors of the box, one per row."""
    if "avec" in head:
        return np.array([[float(x) for x in head[name]] for name in ("avec", "bvec", "cvec")])
    low, high = np.array([[float(x) for x in head.get(f"{a}lo {a}hi", (-0.5, 0.5))] for a in "xyz"]).T
    box = np.diag(high - low)
    box[[1, 2, 2], [0, 0, 1]] = [float(x) for x in head.get("xy xz yz", (0, 0, 0))]
    return box
