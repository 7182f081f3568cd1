"""What VTK leaves out of a CGNS file in HDF5: its times, boundary conditions that name no family, joints of zones.

A node of the CGNS tree is a group with a label; its data lie in `` data``. The layout: CGNS/SIDS and its HDF5 mapping,
https://cgns.github.io.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
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
_TO_QUAD_16 = (0, 0, 1, 2, 3, 3, 6, 4, 8, 9, 4, 10, 5, 14, 6, 15, 18, 8, 20, 27, 0, 13, 0, 0, 4, 9, 10, 12, 16)
_TO_PENTA_40 = (16, 20, 21, 29, 30, 24, 38, 40)
_TO_HEXA_125 = (32, 56, 64, 5, 12, 15, 16, 25, 22, 34, 35, 29, 50, 55, 33, 66, 75, 44, 98, 125)
_WIDTHS = (*_TO_QUAD_16, *_TO_PENTA_40, *_TO_HEXA_125)
"""Nodes of an element by CGNS's number of its type; 0 where the type does not say, or is unknown."""
_MIXED, _POLYGONS = 20, 22
_ACROSS = {"IFaceCenter": 0, "JFaceCenter": 1, "KFaceCenter": 2, "FaceCenter": None, "EdgeCenter": None}
"""Axis of a structured zone that is square on the faces of a boundary; None: the one along which they do not go on."""
_NONE = np.zeros(0, np.int64)


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
    """Name and nodes of what lies in a part of a zone; a patch that cannot be read is left out, and no other."""
    size = _data(zone)[0].astype(np.int64)  # nodes along each axis, or all of them
    elements = functools.cache(lambda: [_section(section) for _, section in _children(zone, "Elements_t")])
    for _, group in _children(zone, where):
        for name, patch in (found for label in what for found in _children(group, label)):
            nodes = _NONE
            with contextlib.suppress(*DAMAGE):
                nodes = _of_grid(patch, size) if len(size) > 1 else _of_elements(patch, elements)
            if len(nodes):
                yield name, nodes


def _location(patch: Any) -> str:
    """Where the numbers of a patch belong: ``Vertex``, ``FaceCenter``, …"""
    found = next(iter(_children(patch, "GridLocation_t")), None)
    return "Vertex" if found is None else bytes(_data(found[1]).astype(np.uint8)).strip(b"\0 ").decode()


def _of_elements(patch: Any, elements: Callable[[], list[_Section]]) -> np.ndarray:
    """Nodes of a patch of an unstructured zone, which lists nodes or elements, or the first and the last of them."""
    (key,) = (key for key in ("PointList", "PointRange", "ElementList", "ElementRange") if key in patch)
    numbers = _data(patch[key]).ravel() - 1
    if key.endswith("Range"):
        numbers = np.arange(numbers[0], numbers[1] + 1)
    if key.startswith("Point") and _location(patch) == "Vertex":
        return np.unique(numbers)
    return np.unique(np.concatenate([_NONE, *(section.nodes(numbers) for section in elements())]))


def _of_grid(patch: Any, size: np.ndarray) -> np.ndarray:
    """Nodes of a patch of a structured zone, which lists places of nodes or faces, or two corners of a box of them."""
    location = _location(patch)
    if "PointList" in patch:
        places = _data(patch["PointList"]).reshape(-1, len(size)) - 1
    else:
        low, high = np.sort(_data(patch["PointRange"]).astype(np.int64), axis=0) - 1
        axes = np.meshgrid(*map(np.arange, low, high + 1), indexing="ij")
        places = np.stack([axis.ravel() for axis in axes], axis=1)
    if location != "Vertex":  # a face has the number of its first node, and goes on to the next one along it
        across = _ACROSS[location]
        if across is None:
            (constant,) = np.flatnonzero(np.ptp(places, axis=0) == 0)
            across = int(constant)
        steps = np.meshgrid(*((0,) if axis == across else (0, 1) for axis in range(len(size))), indexing="ij")
        places = (places[:, None] + np.stack([step.ravel() for step in steps], axis=1)).reshape(-1, len(size))
    return np.unique(np.ravel_multi_index(tuple(places.T), tuple(size), order="F"))  # the first axis runs fastest


@dataclasses.dataclass(frozen=True)
class _Section:
    """Elements with numbers from ``first`` on, whose nodes stand from ``start`` to ``stop`` in ``words``."""

    first: int
    words: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def nodes(self, elements: np.ndarray) -> np.ndarray:
        """The nodes of those of some elements that are in this section."""
        mine = elements[(elements >= self.first) & (elements < self.first + len(self.start))] - self.first
        ends = [np.bincount(places[mine], minlength=len(self.words) + 1) for places in (self.start, self.stop)]
        return self.words[np.cumsum(ends[0] - ends[1])[:-1] > 0] - 1


def _section(section: Any) -> _Section:
    kind, (first, last) = int(_data(section)[0]), _data(section["ElementRange"]).ravel()
    words = _data(section["ElementConnectivity"]).astype(np.int64)
    if kind in (_MIXED, _POLYGONS) and "ElementStartOffset" in section:
        ends = _data(section["ElementStartOffset"])
        start, stop = ends[:-1] + (kind == _MIXED), ends[1:]
    elif kind in (_MIXED, _POLYGONS):
        start, stop = _one_by_one(words.tolist(), mixed=kind == _MIXED)
    else:
        width = _WIDTHS[kind] if kind < len(_WIDTHS) else 0
        start = np.arange(last - first + 1 if width else 0) * width
        stop = start + width
    return _Section(int(first) - 1, words, start, stop)


def _one_by_one(words: list[int], *, mixed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where the nodes of elements begin and end in files before CGNS 4, in which their type, or their number of nodes,
    stands before them. Elements behind one of an unknown type are not found."""
    stops = [0]
    while stops[-1] < len(words):
        word = words[stops[-1]]
        width = word if not mixed else _WIDTHS[word] if 0 <= word < len(_WIDTHS) else 0
        if width < 1:
            break
        stops.append(stops[-1] + 1 + width)
    return np.array(stops[:-1], np.int64) + 1, np.array(stops[1:], np.int64)


def _children(group: Any, label: str) -> Iterator[tuple[str, Any]]:
    for name, child in group.items():
        if child.attrs.get("label", b"") == label.encode():
            yield name, child


def _data(node: Any) -> np.ndarray:
    return node[" data"][()]
