"""Where the nodes of a Lagrange cell of any order sit: integer lattice positions in node order.

Quadratic cells follow VTK (as meshio does); higher orders follow Gmsh, ``VTK_LAGRANGE_*`` VTK's own rule.
Rules after the Gmsh manual, section "High-order elements", and VTK's vtkHigherOrder cells.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from jaxtyping import Int

from gno.mesh.mesh import MeshError

Corners = tuple[tuple[int, ...], ...]

CORNERS: dict[str, tuple[tuple[float, ...], ...]] = {
    "line": ((0,), (1,)),
    "triangle": ((0, 0), (1, 0), (0, 1)),
    "quad": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "tetra": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "wedge": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)),
    "pyramid": ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0.5, 0.5, 1)),
    "hexahedron": ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
}
"""Corners of the reference cells."""

_HEX_RING = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_GMSH: dict[str, tuple[Corners, Corners]] = {
    "line": (((0, 1),), ()),
    "triangle": (((0, 1), (1, 2), (2, 0)), ()),
    "quad": (((0, 1), (1, 2), (2, 3), (3, 0)), ()),
    "tetra": (
        ((0, 1), (1, 2), (2, 0), (3, 0), (3, 2), (3, 1)),
        ((0, 2, 1), (0, 1, 3), (0, 3, 2), (3, 1, 2)),
    ),
    "wedge": (
        ((0, 1), (0, 2), (0, 3), (1, 2), (1, 4), (2, 5), (3, 4), (3, 5), (4, 5)),
        ((0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (0, 3, 5, 2), (1, 2, 5, 4)),
    ),
    "hexahedron": (
        (
            *((0, 1), (0, 3), (0, 4), (1, 2), (1, 5), (2, 3), (2, 6), (3, 7)),
            *((4, 5), (4, 7), (5, 6), (6, 7)),
        ),
        ((0, 3, 2, 1), (0, 1, 5, 4), (0, 4, 7, 3), (1, 2, 6, 5), (2, 3, 7, 6), (4, 5, 6, 7)),
    ),
}
"""Edges and faces in Gmsh's order; nodes on them run from the first to the last corner named."""
_VTK: dict[str, tuple[Corners, Corners]] = {
    "line": _GMSH["line"],
    "triangle": _GMSH["triangle"],
    "quad": (((0, 1), (1, 2), (3, 2), (0, 3)), ()),
    "tetra": (
        ((0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)),
        ((0, 1, 3), (2, 3, 1), (0, 3, 2), (0, 2, 1)),
    ),
    "wedge": (
        ((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (1, 4), (2, 5)),
        ((0, 1, 2), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)),
    ),
    "hexahedron": (
        (
            *((0, 1), (1, 2), (3, 2), (0, 3), (4, 5), (5, 6), (7, 6), (4, 7)),
            *((0, 4), (1, 5), (2, 6), (3, 7)),
        ),
        ((0, 3, 7, 4), (1, 2, 6, 5), (0, 1, 5, 4), (3, 2, 6, 7), (0, 1, 2, 3), (4, 5, 6, 7)),
    ),
}
"""Edges and faces in VTK's order."""


@functools.cache
def lattice(name: str, n_nodes: int, *, vtk: bool, gmsh: bool = False) -> Int[np.ndarray, "n_nodes dim"]:
    """Integer position of each node of a complete Lagrange cell, in its node order.

    Args:
        name: the cell's form: line, triangle, quad, tetra, wedge or hexahedron.
        n_nodes: nodes per cell; says the order.
        vtk: order nodes as ``VTK_LAGRANGE_*`` does, not as Gmsh.
        gmsh: order nodes as Gmsh does, also where meshio does not.

    Raises:
        MeshError: no order of this form has so many nodes.

    >>> lattice("triangle", 6, vtk=False).tolist()
    [[0, 0], [2, 0], [0, 2], [1, 0], [1, 1], [0, 1]]
    """
    order = _order(name, n_nodes)
    # Up to order 2 meshio's order is VTK's for every form.
    rule = _VTK if vtk or (order <= 2 and not gmsh) else _GMSH
    return np.array(_cell(name, order, rule), dtype=np.int64).reshape(n_nodes, -1)


def _order(name: str, n_nodes: int) -> int:
    count = {
        "line": lambda p: p + 1,
        "triangle": lambda p: math.comb(p + 2, 2),
        "quad": lambda p: (p + 1) ** 2,
        "tetra": lambda p: math.comb(p + 3, 3),
        "wedge": lambda p: math.comb(p + 2, 2) * (p + 1),
        "hexahedron": lambda p: (p + 1) ** 3,
    }
    for order in range(1, 21):
        if name in count and count[name](order) == n_nodes:
            return order
    raise MeshError(f"cell form '{name}': expected a complete Lagrange cell, got {n_nodes} nodes")


def _cell(name: str, order: int, rule: dict[str, tuple[Corners, Corners]]) -> list[tuple[int, ...]]:
    corners = np.array(CORNERS[name]) * order
    if order == 0:
        return [tuple(corners[0].tolist())]
    edges, faces = rule[name]
    nodes = corners.tolist()
    for a, b in edges:
        nodes += [((order - k) * corners[a] + k * corners[b]) // order for k in range(1, order)]
    for face in faces:
        nodes += _on_face(corners[list(face)], order, rule)
    nodes += _inside(name, order, rule)
    return [tuple(int(x) for x in node) for node in nodes]


def _on_face(corners: np.ndarray, order: int, rule: dict[str, tuple[Corners, Corners]]) -> list[np.ndarray]:
    """Inner nodes of a face of a solid, numbered like those of the plane cell with these corners."""
    name = "triangle" if len(corners) == 3 else "quad"
    along, across = (corners[1] - corners[0]) // order, (corners[-1] - corners[0]) // order
    return [corners[0] + i * along + j * across for i, j in _inside(name, order, rule)]


def _inside(name: str, order: int, rule: dict[str, tuple[Corners, Corners]]) -> list[tuple[int, ...]]:
    """Inner nodes: a smaller cell of the same form, except that VTK numbers the inside of quads by rows."""
    if name == "line":
        return []
    inner = range(1, order)
    if name == "wedge":
        return [(i, j, k) for k in inner for i, j in _inside("triangle", order, rule)]
    if rule is _VTK and name in ("quad", "hexahedron"):
        dim = len(CORNERS[name][0])
        return [tuple(reversed(index)) for index in itertools.product(inner, repeat=dim)]
    smaller = order - {"triangle": 3, "tetra": 4, "quad": 2, "hexahedron": 2}[name]
    if smaller < 0:
        return []
    return [tuple(x + 1 for x in node) for node in _cell(name, smaller, rule)]
