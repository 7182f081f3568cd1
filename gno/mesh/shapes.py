"""Every cell type as linear pieces over its own nodes: volumes, masses, edges and boundaries come from these.

A cell of any order is cut into linear pieces (a triangle with mid-side nodes into four triangles, a 27-node
hexahedron into eight hexahedra). A piece with more corners than a simplex is cut further into simplices around
the mean of its corners, which treats both diagonals of a quadrilateral alike and gives the exact volume of a
cell with bilinear faces. Corner order is meshio's throughout.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections import Counter

import numpy as np
from jaxtyping import Float, Int

from gno.mesh.mesh import MeshError
from gno.mesh.ordering import CORNERS, lattice

Loop = tuple[int, ...]
"""Corners of a polygon in order around it."""

_FACES: dict[str, tuple[Loop, ...]] = {
    "tetra": ((0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)),
    "pyramid": ((0, 3, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)),
    "wedge": ((0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)),
    "hexahedron": ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)),
    "octahedron": ((0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4), (1, 0, 5), (2, 1, 5), (3, 2, 5), (0, 3, 5)),
}
"""Faces of the linear solids, seen from outside counter-clockwise."""

_PRISM_SIDES = {"penta_prism": 5, "hexa_prism": 6}

_MID_EDGES: dict[str, tuple[tuple[int, int], ...]] = {
    "quad8": ((0, 1), (1, 2), (2, 3), (3, 0)),
    "hexahedron20": (
        *((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4)),
        *((0, 4), (1, 5), (2, 6), (3, 7)),
    ),
    "wedge15": ((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (1, 4), (2, 5)),
    "pyramid13": ((0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4), (2, 4), (3, 4)),
    "pyramid14": ((0, 1), (0, 3), (0, 4), (1, 2), (1, 4), (2, 3), (2, 4), (3, 4)),
}
"""Edges that carry the mid-edge nodes of serendipity cells, in the order of those nodes."""
_MID_EDGES["hexahedron24"] = _MID_EDGES["hexahedron20"]

_MID_FACES: dict[str, tuple[frozenset[int], ...]] = {
    "pyramid14": (frozenset((0, 1, 2, 3)),),
    "hexahedron24": tuple(map(frozenset, ((0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4), (3, 2, 6, 7)))),
}
"""Faces that carry a node at their centre, in the order of those nodes (after the mid-edge nodes)."""

_IRREGULAR = {
    "triangle7": ((0, 1), (1, 2), (2, 0), (0, 1, 2)),
    "quad6": ((0, 1), (2, 3)),
    "wedge12": ((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)),
}
"""Corners between which the other nodes of cells of mixed order lie."""

_FAMILY_DIM = {
    "vertex": 0,
    "poly_vertex": 0,
    "line": 1,
    "poly_line": 1,
    "triangle": 2,
    "quad": 2,
    "polygon": 2,
    "triangle_strip": 2,
    "tetra": 3,
    "pyramid": 3,
    "wedge": 3,
    "hexahedron": 3,
    "penta_prism": 3,
    "hexa_prism": 3,
}
_LAGRANGE = {
    "VTK_LAGRANGE_CURVE": "line",
    "VTK_LAGRANGE_TRIANGLE": "triangle",
    "VTK_LAGRANGE_QUADRILATERAL": "quad",
    "VTK_LAGRANGE_TETRAHEDRON": "tetra",
    "VTK_LAGRANGE_HEXAHEDRON": "hexahedron",
    "VTK_LAGRANGE_WEDGE": "wedge",
    "VTK_LAGRANGE_PYRAMID": "pyramid",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """One cell type as simplices, edges and facets.

    Args:
        dim: topological dimension.
        n_nodes: nodes per cell.
        centres: weights of the cell's nodes in each added centre; rows sum to 1.
        simplices: corners of each simplex, in the cell's nodes followed by the added centres.
        share: part of each simplex's volume that goes to each of the cell's nodes; rows sum to 1.
        edges: pairs of nodes that the pieces join.
        facets: loops of nodes on the cell's boundary, outward oriented; 1 (1-D), 2 (2-D), 3 or more (3-D) nodes.
    """

    dim: int
    n_nodes: int
    centres: Float[np.ndarray, "n_centres n_nodes"]
    simplices: Int[np.ndarray, "n_simplices corners"]
    share: Float[np.ndarray, "n_simplices n_nodes"]
    edges: Int[np.ndarray, "n_edges 2"]
    facets: tuple[Loop, ...]


def family(cell_type: str) -> str:
    """Name of the cell's form without its order: ``hexahedron20`` is a ``hexahedron``.

    >>> family("VTK_LAGRANGE_CURVE"), family("wedge15")
    ('line', 'wedge')
    """
    name = _LAGRANGE.get(cell_type) or re.sub(r"\d+$", "", cell_type)
    if name not in _FAMILY_DIM:
        raise MeshError(f"cell type '{cell_type}' is not known; expected one of meshio's, without polyhedra")
    return name


def cell_dim(cell_type: str) -> int:
    """Topological dimension of a cell type: 0 vertex, 1 line, 2 surface, 3 volume."""
    return _FAMILY_DIM[family(cell_type)]


@functools.cache
def shape(cell_type: str, n_nodes: int) -> Shape:
    """The linear pieces of a cell type; ``n_nodes`` tells polygons and Lagrange cells apart.

    >>> quad = shape("quad", 4)
    >>> len(quad.simplices), quad.share.sum(0) / 4
    (4, array([0.25, 0.25, 0.25, 0.25]))
    """
    try:
        dim = cell_dim(cell_type)
        if dim < 2:
            return _curve(dim, n_nodes, _line_order(cell_type, n_nodes) if dim else [])
        pieces = _pieces_2d(cell_type, n_nodes) if dim == 2 else _pieces_3d(cell_type, n_nodes)
    except (KeyError, IndexError) as error:
        raise MeshError(f"cell type '{cell_type}' with {n_nodes} nodes is not supported") from error
    return _assemble(dim, n_nodes, pieces)


def reference_nodes(cell_type: str, n_nodes: int) -> Float[np.ndarray, "n_nodes dim"]:
    """Positions of a cell's nodes on a straight-sided reference cell.

    >>> reference_nodes("quad8", 8)[4:].tolist()
    [[0.5, 0.0], [1.0, 0.5], [0.5, 1.0], [0.0, 0.5]]
    """
    name = family(cell_type)
    corners = np.array(CORNERS[name], dtype=np.float64)
    if len(corners) == n_nodes:
        return corners
    if cell_type in _MID_EDGES:
        groups = [*_MID_EDGES[cell_type], *map(sorted, _MID_FACES.get(cell_type, ()))]
        return np.vstack([corners, *(corners[list(group)].mean(0) for group in groups)])
    if cell_type in _IRREGULAR:
        return np.vstack([corners, *(corners[list(group)].mean(0) for group in _IRREGULAR[cell_type])])
    position = lattice(name, n_nodes, vtk=cell_type in _LAGRANGE)
    return position / position.max()


def _line_order(cell_type: str, n_nodes: int) -> list[int]:
    if cell_type == "poly_line":
        return list(range(n_nodes))
    return np.argsort(lattice("line", n_nodes, vtk=False)[:, 0]).tolist()


def _curve(dim: int, n_nodes: int, order: list[int]) -> Shape:
    edges = np.array(list(itertools.pairwise(order)), dtype=np.int64).reshape(-1, 2)
    simplices = edges if dim else np.arange(n_nodes)[:, None]
    facets: tuple[Loop, ...] = ((order[0],), (order[-1],)) if dim else ()
    return Shape(dim, n_nodes, np.zeros((0, n_nodes)), simplices, _share(simplices, np.eye(n_nodes)), edges, facets)


def _pieces_2d(cell_type: str, n_nodes: int) -> list[list[Loop]]:
    """Polygons that a surface cell is made of; each is a list with its one loop."""
    if cell_type == "polygon":
        return [[tuple(range(n_nodes))]]
    if cell_type == "triangle_strip":
        return [[(i, i + 1 + i % 2, i + 2 - i % 2)] for i in range(n_nodes - 2)]
    if cell_type == "triangle7":
        ring = (0, 3, 1, 4, 2, 5, 0)
        return [[(a, b, 6)] for a, b in itertools.pairwise(ring)]
    if cell_type == "quad6":
        return [[(0, 4, 5, 3)], [(4, 1, 2, 5)]]
    if cell_type in _MID_EDGES:
        return [[loop] for loop in _face_loops((0, 1, 2, 3), *_mids(cell_type))]
    name = family(cell_type)
    position = lattice(name, n_nodes, vtk=cell_type in _LAGRANGE)
    return [[loop] for loop in _lattice_loops(name, position)]


def _lattice_loops(name: str, position: np.ndarray) -> list[Loop]:
    at = {tuple(row): index for index, row in enumerate(position.tolist())}
    order = position.max()
    square = itertools.product(range(order), repeat=2)
    if name == "quad":
        return [(at[i, j], at[i + 1, j], at[i + 1, j + 1], at[i, j + 1]) for i, j in square]
    loops: list[Loop] = []
    for i, j in square:
        if i + j < order:
            loops.append((at[i, j], at[i + 1, j], at[i, j + 1]))
        if i + j < order - 1:
            loops.append((at[i + 1, j], at[i + 1, j + 1], at[i, j + 1]))
    return loops


def _pieces_3d(cell_type: str, n_nodes: int) -> list[list[Loop]]:
    """Polyhedra that a volume cell is made of; each is a list of faces."""
    name = family(cell_type)
    if name in _PRISM_SIDES:
        return [_prism(_PRISM_SIDES[name])]
    if cell_type in _MID_EDGES:
        mids = _mids(cell_type)
        return [[loop for face in _FACES[name] for loop in _face_loops(face, *mids)]]
    if cell_type == "pyramid" or (name == "pyramid" and n_nodes == 5):
        return [list(_FACES["pyramid"])]
    if cell_type == "wedge12":
        corners = ((0, 6, 8, 3, 9, 11), (6, 1, 7, 9, 4, 10), (8, 7, 2, 11, 10, 5), (6, 7, 8, 9, 10, 11))
        return [_faces("wedge", piece) for piece in corners]
    position = lattice(name, n_nodes, vtk=cell_type in _LAGRANGE)
    return _lattice_solids(name, position)


def _prism(n: int) -> list[Loop]:
    sides = [(i, (i + 1) % n, n + (i + 1) % n, n + i) for i in range(n)]
    return [tuple(reversed(range(n))), tuple(range(n, 2 * n)), *sides]


def _faces(name: str, corners: Loop) -> list[Loop]:
    return [tuple(corners[i] for i in face) for face in _FACES[name]]


def _mids(cell_type: str) -> tuple[dict[frozenset[int], int], dict[frozenset[int], int]]:
    """Node on each edge and on each face of a serendipity cell."""
    edges = _MID_EDGES[cell_type]
    n_corners = 1 + max(map(max, edges))
    edge_node = {frozenset(edge): n_corners + k for k, edge in enumerate(edges)}
    first = n_corners + len(edges)
    return edge_node, {face: first + k for k, face in enumerate(_MID_FACES.get(cell_type, ()))}


def _face_loops(face: Loop, edge_node: dict[frozenset[int], int], face_node: dict[frozenset[int], int]) -> list[Loop]:
    """A face with mid-edge nodes as loops: a triangle per corner and the middle, or quads around a centre."""
    n = len(face)
    mid = [edge_node[frozenset((face[i], face[(i + 1) % n]))] for i in range(n)]
    centre = face_node.get(frozenset(face))
    if centre is not None:
        return [(face[i], mid[i], centre, mid[i - 1]) for i in range(n)]
    return [*((face[i], mid[i], mid[i - 1]) for i in range(n)), tuple(mid)]


def _lattice_solids(name: str, position: np.ndarray) -> list[list[Loop]]:
    at = {tuple(row): index for index, row in enumerate(position.tolist())}
    order = position.max()
    pieces = []
    for origin in itertools.product(range(order), repeat=3):
        for kind, offsets in _LATTICE_PIECES[name]:
            corners = [tuple(o + d for o, d in zip(origin, offset, strict=True)) for offset in offsets]
            # Pieces that stick out of the slanted side of the lattice are not part of the cell.
            if all(corner in at for corner in corners):
                pieces.append(_faces(kind, tuple(at[corner] for corner in corners)))
    return pieces


_LATTICE_PIECES = {
    "hexahedron": [
        (
            "hexahedron",
            [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
        )
    ],
    "wedge": [
        ("wedge", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)]),
        ("wedge", [(1, 0, 0), (1, 1, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), (0, 1, 1)]),
    ],
    "tetra": [
        ("tetra", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]),
        ("octahedron", [(1, 0, 0), (1, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (0, 1, 0)]),
        ("tetra", [(1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]),
    ],
}


def _assemble(dim: int, n_nodes: int, pieces: list[list[Loop]]) -> Shape:
    centres: list[np.ndarray] = []
    simplices: list[Loop] = []

    def centre(corners: set[int]) -> int:
        weights = np.zeros(n_nodes)
        weights[sorted(corners)] = 1 / len(corners)
        centres.append(weights)
        return n_nodes + len(centres) - 1

    def triangles(loop: Loop) -> list[Loop]:
        if len(loop) == 3:
            return [loop]
        middle = centre(set(loop))
        return [(a, b, middle) for a, b in itertools.pairwise((*loop, loop[0]))]

    for faces in pieces:
        corners = set(itertools.chain(*faces))
        if dim == 2:
            simplices += triangles(faces[0])
        elif len(corners) == 4:
            # The first face looks outward, so the tetrahedron that lies behind it lists it inward first.
            a, b, c = faces[0]
            simplices.append((a, c, b, *(corners - {a, b, c})))
        else:
            middle = centre(corners)
            simplices += [(a, c, b, middle) for face in faces for a, b, c in triangles(face)]
    weights = np.array(centres).reshape(-1, n_nodes)
    table = np.array(simplices, dtype=np.int64)
    share = _share(table, np.vstack([np.eye(n_nodes), weights]))
    loops = [loop for faces in pieces for loop in faces]
    return Shape(dim, n_nodes, weights, table, share, _loop_edges(loops), _boundary(dim, loops))


def _share(simplices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights[simplices].mean(axis=1)


def _sides(loop: Loop) -> list[tuple[int, int]]:
    return list(itertools.pairwise((*loop, loop[0])))


def _loop_edges(loops: list[Loop]) -> np.ndarray:
    return np.array(sorted({(min(side), max(side)) for loop in loops for side in _sides(loop)}), dtype=np.int64)


def _boundary(dim: int, loops: list[Loop]) -> tuple[Loop, ...]:
    """Sides (2-D) or faces (3-D) that belong to one piece only, so lie on the cell's boundary."""
    facets: list[Loop] = [side for loop in loops for side in _sides(loop)] if dim == 2 else loops
    count = Counter(frozenset(facet) for facet in facets)
    return tuple(facet for facet in facets if count[frozenset(facet)] == 1)
