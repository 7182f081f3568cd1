"""What VTK leaves out of a CGNS file in HDF5: its times, and boundary conditions that name no family.

A node of the CGNS tree is a group with a label; its data lie in `` data``. The layout: CGNS/SIDS and its HDF5 mapping,
https://cgns.github.io.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SUFFIX = ".cgns"
_CORNERS = {
    2: 1,
    3: 2,
    4: 3,
    5: 3,
    6: 6,
    7: 4,
    8: 8,
    9: 9,
    10: 4,
    11: 10,
    12: 5,
    13: 14,
    14: 6,
    15: 15,
    16: 18,
    17: 8,
    18: 20,
    19: 27,
}
"""Nodes of an element by CGNS's number of its type."""
_MIXED = 20


def cgns_times(path: Path) -> list[float]:
    """Times of the solutions; empty if there is one, or if the file is ADF, of which the first is read."""
    import h5py

    if not h5py.is_hdf5(path):
        return []
    with h5py.File(path, "r") as file:
        found = [times for _, base in _children(file, "CGNSBase_t") for times in _times(base)]
    return found[0] if found and len(found[0]) > 1 else []


def boundaries(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """By zone and name the nodes of each boundary condition, numbered within the zone."""
    import h5py

    if not h5py.is_hdf5(path):
        return {}
    with h5py.File(path, "r") as file:
        zones = (zone for _, base in _children(file, "CGNSBase_t") for zone in _children(base, "Zone_t"))
        return {name: dict(_conditions(zone)) for name, zone in zones}


def _times(base: Any) -> Iterator[list[float]]:
    for _, steps in _children(base, "BaseIterativeData_t"):
        if "TimeValues" in steps:
            yield _data(steps["TimeValues"]).ravel().astype(float).tolist()


def _conditions(zone: Any) -> Iterator[tuple[str, np.ndarray]]:
    size = _data(zone)[0].astype(np.int64)  # nodes along each axis, or all of them
    elements = None
    for _, group in _children(zone, "ZoneBC_t"):
        for name, condition in _children(group, "BC_t"):
            where = next(iter(_children(condition, "GridLocation_t")), None)
            at_nodes = where is None or bytes(_data(where[1]).astype(np.uint8)).strip(b"\0 ") == b"Vertex"
            listed, ranged = condition.get("PointList"), condition.get("PointRange")
            if len(size) > 1:
                if ranged is not None and at_nodes:
                    yield name, _box(_data(ranged), size)
                continue
            if listed is not None:
                numbers = _data(listed).ravel() - 1
            elif ranged is not None:
                first, last = _data(ranged).ravel()
                numbers = np.arange(first - 1, last)
            else:
                continue
            if at_nodes:
                yield name, np.unique(numbers)
            else:
                elements = dict(_elements(zone)) if elements is None else elements
                yield name, np.unique(np.concatenate([elements.get(k, _NONE) for k in numbers.tolist()] or [_NONE]))


_NONE = np.zeros(0, np.int64)


def _box(corners: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Numbers of the nodes of a structured zone between two corners; the first axis runs fastest."""
    axes = [np.arange(min(a, b) - 1, max(a, b)) for a, b in zip(*corners, strict=True)]
    places = [part.ravel() for part in np.meshgrid(*axes, indexing="ij")]
    return np.unique(np.ravel_multi_index(tuple(places), tuple(size), order="F"))


def _elements(zone: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Nodes of each element by its number, both from zero."""
    for _, section in _children(zone, "Elements_t"):
        kind, number = int(_data(section)[0]), int(_data(section["ElementRange"])[0]) - 1
        nodes = _data(section["ElementConnectivity"]).astype(np.int64)
        if kind in _CORNERS:
            for k, row in enumerate(nodes.reshape(-1, _CORNERS[kind])):
                yield number + k, row - 1
        elif kind == _MIXED:
            place = 0
            while place < len(nodes):
                width = _CORNERS[int(nodes[place])]
                yield number, nodes[place + 1 : place + 1 + width] - 1
                place, number = place + 1 + width, number + 1


def _children(group: Any, label: str) -> Iterator[tuple[str, Any]]:
    for name, child in group.items():
        if child.attrs.get("label", b"") == label.encode():
            yield name, child


def _data(node: Any) -> np.ndarray:
    return node[" data"][()]
