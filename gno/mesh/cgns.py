"""What VTK leaves out of a CGNS file in HDF5: its times, boundary conditions that name no family, joints of zones.

A node of the CGNS tree is a group with a label; its data lie in `` data``. The layout: CGNS/SIDS and its HDF5 mapping,
https://cgns.github.io.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gno.mesh.files import DAMAGE
from gno.mesh.mesh import CellBlock, Mesh

# Nodes that are nearer than this share of the whole are at one place.
TOGETHER = 1e-6

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
    return _by_zone(path, "ZoneBC_t", "BC_t")


def interfaces(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """By zone and name the nodes where it goes on in another zone, or in itself, node by node."""
    return _by_zone(path, "ZoneGridConnectivity_t", "GridConnectivity1to1_t", "GridConnectivity_t")


def joined(mesh: Mesh, listed: Int[np.ndarray, " n"]) -> Mesh:
    """The mesh in which those of some nodes that lie on each other are one, with the values of the first."""
    points = mesh.points[listed].astype(np.float64)
    pairs = cKDTree(points).query_pairs(TOGETHER * np.ptp(mesh.points, axis=0).max(), output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs), bool), listed[pairs].T), (mesh.n_nodes, mesh.n_nodes))
    _, place = connected_components(graph, directed=False)
    _, first, number = np.unique(place, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.argsort(order)[number]  # nodes keep their order
    return Mesh(
        mesh.points[np.sort(first)],
        tuple(CellBlock(block.type, number[block.nodes]) for block in mesh.cells),
        {name: values[np.sort(first)] for name, values in mesh.point_fields.items()},
        mesh.cell_fields,
        point_sets={name: np.unique(number[index]) for name, index in mesh.point_sets.items()},
        cell_sets=mesh.cell_sets,
        source=mesh.source,
    )


def _by_zone(path: Path, where: str, *what: str) -> dict[str, dict[str, np.ndarray]]:
    import h5py

    if not h5py.is_hdf5(path):
        return {}
    with h5py.File(path, "r") as file:
        zones = (zone for _, base in _children(file, "CGNSBase_t") for zone in _children(base, "Zone_t"))
        try:
            return {name: dict(_patches(zone, where, *what)) for name, zone in zones}
        except DAMAGE:  # whether the file is damaged is for VTK to say
            return {}


def _times(base: Any) -> Iterator[list[float]]:
    for _, steps in _children(base, "BaseIterativeData_t"):
        if "TimeValues" in steps:
            yield _data(steps["TimeValues"]).ravel().astype(float).tolist()


def _patches(zone: Any, where: str, *what: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and nodes of what lies in a part of a zone."""
    size = _data(zone)[0].astype(np.int64)  # nodes along each axis, or all of them
    elements = None
    for _, group in _children(zone, where):
        for name, patch in (found for label in what for found in _children(group, label)):
            location = next(iter(_children(patch, "GridLocation_t")), None)
            at_nodes = location is None or bytes(_data(location[1]).astype(np.uint8)).strip(b"\0 ") == b"Vertex"
            listed, ranged = patch.get("PointList"), patch.get("PointRange")
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
