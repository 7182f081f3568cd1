"""Inspection: what is in a mesh, what is wrong with it, and which hierarchy it would get."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gno.mesh import Mesh, nearest_image, quality, torus_of
from gno.mesh.periodic import said

# Longer lists are cut when printed.
MOST_LINES = 40


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Facts about one mesh; printing it shows them as text.

    Args:
        mesh: the mesh.
        facts: JSON-able: ``file``, ``nodes``, ``dim``, ``cells``, ``fields``, ``sets``, ``quality``, ``levels``, ….
        hierarchy: the table of levels as text.
    """

    mesh: Mesh
    facts: Mapping[str, Any]
    hierarchy: str

    def to_json(self) -> str:
        """All facts, for machines."""
        return json.dumps(self.facts, indent=2)

    def __str__(self) -> str:
        facts = self.facts
        cells = ", ".join(f"{n:,} {kind}" for kind, n in facts["cells"].items()) or "none (point cloud)"
        time = "" if facts["time"] is None else f", time {facts['time']:g}"
        time += f", the last of {facts['steps']} steps" if facts["steps"] > 1 else ""
        extent = " × ".join(f"{x:.4g}" for x in facts["extent"])
        repeated = said(facts["period"])
        lines = [
            f"{facts['file']}: {facts['nodes']:,} nodes, {facts['dim']}-D, extent {extent}{time}",
            *([f"topology   {facts['topology']}"] if facts["topology"] else []),
            *([f"repeats    {', '.join(repeated)}"] if repeated else []),
            f"cells      {cells}",
            *_table("fields", [_field_line(field) for field in facts["fields"]]),
            *_table("sets", [f"{s['name']}  {s['members']:,} {s['of']}" for s in facts["sets"]]),
            *_table("quality", _quality_lines(facts["quality"])),
            *_table("hierarchy", self.hierarchy.splitlines()),
        ]
        return "\n".join(lines)


def inspect(mesh: Mesh, *, n_steps: int = 1, topology: Path | None = None) -> Inspection:
    """Look at a mesh, one of ``n_steps`` in its file, whose particles another file describes.

    >>> from gno.mesh import CellBlock
    >>> triangle = Mesh(np.eye(3)[:, :2], (CellBlock("triangle", np.array([[0, 1, 2]])),))
    >>> inspect(triangle).facts["cells"]
    {'triangle': 1}
    """
    from gno.graph import SampleSpec, hierarchy_of

    spec = SampleSpec.fit([mesh], inputs=(), targets=())
    hierarchy = hierarchy_of(mesh, spec)
    hierarchy = dataclasses.replace(hierarchy, levels=tuple(level.scaled(spec.unit) for level in hierarchy.levels))
    facts = {
        "file": mesh.source,
        "nodes": mesh.n_nodes,
        "dim": mesh.dim,
        "extent": np.ptp(mesh.points, axis=0).tolist(),
        "period": list(mesh.period),
        "time": mesh.time,
        "steps": n_steps,
        "topology": topology and str(topology),
        "cells": _cells(mesh),
        "fields": _fields(mesh),
        "sets": _sets(mesh),
        "quality": _quality(mesh),
        "levels": hierarchy.rows(),
        "complexity": hierarchy.complexity,
    }
    return Inspection(mesh, facts, str(hierarchy))


def _cells(mesh: Mesh) -> dict[str, int]:
    counts: dict[str, int] = {}
    for block in mesh.cells:
        counts[block.type] = counts.get(block.type, 0) + len(block)
    return counts


def _fields(mesh: Mesh) -> list[dict[str, Any]]:
    stores = (("point", mesh.point_fields), ("cell", mesh.cell_fields), ("global", mesh.global_fields))
    return [
        {"name": name, "location": location, "shape": list(np.shape(values)), **_range(np.asarray(values))}
        for location, fields in stores
        for name, values in fields.items()
    ]


def _range(values: np.ndarray) -> dict[str, Any]:
    if values.dtype.kind not in "fiub" or not values.size:
        return {"type": str(values.dtype), "min": None, "max": None, "not_finite": 0}
    finite = np.isfinite(values)
    seen = values[finite] if finite.any() else np.zeros(1)
    low, high = float(seen.min()), float(seen.max())
    return {"type": str(values.dtype), "min": low, "max": high, "not_finite": int((~finite).sum())}


def _sets(mesh: Mesh) -> list[dict[str, Any]]:
    stores = (("nodes", mesh.point_sets), ("cells", mesh.cell_sets))
    return [{"name": name, "of": of, "members": len(index)} for of, sets in stores for name, index in sets.items()]


def _quality(mesh: Mesh) -> dict[str, Any]:
    found = quality(mesh)
    counts = {
        name: len(getattr(found, name))
        for name in ("inverted", "zero_size", "duplicate_nodes", "unreferenced_nodes", "massless_nodes")
    }
    lengths = _distances(mesh) if mesh.is_cloud else list(found.edge_length)
    sizes = {"cell_size": list(found.cell_size), "edge_length": lengths}
    return {**counts, "parts": found.n_parts, "volume": found.volume, **sizes, "problems": list(found.problems())}


def _distances(mesh: Mesh) -> list[float]:
    """Shortest, median and longest distance of neighbours in a point cloud."""
    from gno.graph.neighbours import edges_of

    a, b = mesh.points[:, : mesh.dim].astype(np.float64)[edges_of(mesh)]
    length = np.linalg.norm(nearest_image(a - b, torus_of(np.array(mesh.period)) if mesh.period else None), axis=1)
    return [float(f(length)) for f in (np.min, np.median, np.max)] if len(length) else [0.0] * 3


def _quality_lines(facts: Mapping[str, Any]) -> list[str]:
    low, median, high = facts["edge_length"]
    what = f"volume {facts['volume']:.6g}, edges" if facts["cell_size"][-1] else "neighbours"
    sizes = f"{what} {low:.4g} … {median:.4g} … {high:.4g} (shortest, median, longest)"
    return [sizes, *(facts["problems"] or ["sound, in one part"])]


def _field_line(field: Mapping[str, Any]) -> str:
    shape = "×".join(str(n) for n in field["shape"]) or "single value"
    low, high = field["min"], field["max"]
    span = field["type"] if low is None else f"{low:.6g}" if low == high else f"{low:.6g} … {high:.6g}"
    bad = f", {field['not_finite']} not finite" if field["not_finite"] else ""
    return f"{field['name']}  {field['location']}  {shape}  {span}{bad}"


def _table(title: str, lines: list[str]) -> list[str]:
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES} more (all of them with --json)"]
    return [f"{title if k == 0 else '':10} {line}" for k, line in enumerate(lines or ["none"])]
