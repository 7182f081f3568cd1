"""What homogenisation knows without learning: bounds, mean fields, coarse and multiscale finite elements.

Coarse methods live on a grid of squares over the cell. On each the potential is E + c, E the unit gradients at its
corners and c periodic; what differs is the 4 × 4 stiffness of a coarse element and the shape functions behind it:

- averaged coefficients: bilinear functions, the mean of a over the element;
- multiscale finite elements (T. Y. Hou, X.-H. Wu, J. Comput. Phys. 134 (1997) 169): functions φ with ∇·(a∇φ) = 0 inside
  the element, solved on its own fine grid. On its sides φ is the solution of the equation along the side, or, with
  oversampling, φ is cut out of a solution on a larger patch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from microstructure_cells import Grains, centred, effective, gradients, slopes
from scipy.ndimage import map_coordinates

from gno.mesh import Mesh, repeats

FINE = 64  # squares along a side of length 1 that coefficients are sampled on
COARSE = 8  # coarse elements along it
CORNERS = np.array(list(itertools.product((0, 1), repeat=2)))
Field = Callable[[Float[np.ndarray, "n 2"]], Float[np.ndarray, "n 2"]]
"""χ at points."""


# ── closed formulas, of two isotropic phases in the plane ──


def voigt(share: float, soft: float, hard: float) -> float:
    """``⟨a⟩``, never exceeded."""
    return share * hard + (1 - share) * soft


def reuss(share: float, soft: float, hard: float) -> float:
    """``1 / ⟨1/a⟩``, never fallen short of."""
    return 1 / (share / hard + (1 - share) / soft)


def hashin_shtrikman(share: float, soft: float, hard: float) -> tuple[float, float]:
    """Bounds of what is isotropic. The lower one is also Mori and Tanaka's estimate of hard discs in a soft matrix.

    Z. Hashin, S. Shtrikman, J. Appl. Phys. 33 (1962) 3125; in the plane the shape factor is one half.
    """
    lower = soft + share / (1 / (hard - soft) + (1 - share) / (2 * soft))
    upper = hard + (1 - share) / (1 / (soft - hard) + share / (2 * hard))
    return lower, upper


def self_consistent(share: float, soft: float, hard: float) -> float:
    """Discs of both phases in the medium that is sought (D. A. G. Bruggeman, Ann. Phys. 416 (1935) 636).

    s (c − A)/(c + A) + (1 − s)(1 − A)/(1 + A) = 0
    """
    b = (2 * share - 1) * (hard - soft)
    return (b + np.sqrt(b * b + 4 * soft * hard)) / 2


# ── linear elements on the mesh itself ──


def on_mesh(mesh: Mesh) -> tuple[Float[np.ndarray, "n_nodes 2"], Float[np.ndarray, "2 2"]]:
    """χ and A by linear elements on the mesh, with a sparse LU."""
    nodes, (slope, area) = mesh.cells[0].nodes, slopes(mesh)
    weight = area * mesh.cell_fields["conductivity"]
    local = np.einsum("n,nik,njk->nij", weight, slope, slope)
    load = -np.einsum("n,nik->nik", weight, slope)
    chi = _periodic(repeats(mesh)[nodes], local, load, mesh.n_nodes)[repeats(mesh)]
    chi = centred(mesh, chi)
    return chi, effective(mesh, gradients(mesh, chi))


def _periodic(
    nodes: Int[np.ndarray, "n k"], local: Float[np.ndarray, "n k k"], load: Float[np.ndarray, "n k 2"], n_nodes: int
) -> Float[np.ndarray, "n_nodes 2"]:
    """Solution of the sum of elements; a node without any is left out, the first with one is held at zero."""
    row, column = (np.broadcast_to(x, local.shape).ravel() for x in (nodes[:, :, None], nodes[:, None]))
    matrix = sp.coo_array((local.ravel(), (row, column)), shape=(n_nodes, n_nodes)).tocsc()
    right = np.zeros((n_nodes, 2))
    np.add.at(right, nodes.ravel(), load.reshape(-1, 2))
    free = np.unique(nodes)[1:]
    found = np.zeros((n_nodes, 2))
    found[free] = sp.linalg.splu(matrix[free][:, free].tocsc()).solve(right[free])
    return found


# ── on grids ──


def pixels(grains: Grains, fine: int = FINE) -> Float[np.ndarray, "n n"]:
    """Conductivity at the centres of squares, ``fine`` of them along a length of 1; [i, j] lies at (i, j)."""
    n = round(fine * grains.side)
    middle = (np.arange(n) + 0.5) * grains.side / n
    return grains.at(np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)).reshape(n, n)


def averaged(a: Float[np.ndarray, "n n"], side: float, n: int) -> tuple[Field, Float[np.ndarray, "2 2"]]:
    """χ and A by bilinear elements, n along a side, with the mean of the coefficient over each."""
    part = len(a) // n
    mean = a.reshape(n, part, n, part).mean((1, 3))
    c, tensor = solve_grid(mean[..., None, None] * bilinear(), side)
    return periodic_field(c[:-1, :-1], side), tensor


def multiscale(
    a: Float[np.ndarray, "n n"], side: float, n: int, oversampling: int = 0
) -> tuple[Field, Float[np.ndarray, "2 2"]]:
    """χ and A by multiscale finite elements, n along a side.

    Args:
        a: on the fine squares. side: of the cell.
        oversampling: fine squares by which the patch that a function is solved on is larger, to all sides; 0 for the
            equation along the sides of the element.
    """
    m = len(a) // n
    shape = _cut_out(a, n, m, oversampling) if oversampling else _inside(a, n, m)
    stiffness = np.einsum("eip,eij,ejq->epq", shape, _stiffness(_patches(a, n, m, 0)), shape, optimize=True)
    c, tensor = solve_grid(stiffness.reshape(n, n, 4, 4), side)
    corners = np.stack([c[i : n + i, j : n + j] for i, j in CORNERS], axis=2).reshape(n * n, 4, 2)
    corners = corners + CORNERS * side / n
    inner = np.stack(np.meshgrid(*2 * [np.arange(m + 1)], indexing="ij"), -1).reshape(-1, 2) * side / len(a)
    chi = (np.einsum("eip,epk->eik", shape, corners) - inner).reshape(n, n, m + 1, m + 1, 2)
    return periodic_field(_joined(chi), side), tensor


def bilinear() -> Float[np.ndarray, "4 4"]:
    """Stiffness of a square with coefficient one; corners as in ``CORNERS``."""
    away = np.abs(CORNERS[:, None] - CORNERS[None]).sum(-1)
    return np.array([4.0, -1.0, -2.0])[away] / 6


def solve_grid(
    stiffness: Float[np.ndarray, "n n 4 4"], side: float
) -> tuple[Float[np.ndarray, "m m 2"], Float[np.ndarray, "2 2"]]:
    """Periodic c of least energy of E + c, with its repeated row and column, and the energy per area, A."""
    n = len(stiffness)
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    nodes = np.stack([((i + p) % n) * n + (j + q) % n for p, q in CORNERS], axis=-1).reshape(-1, 4)
    local, unit = stiffness.reshape(-1, 4, 4), CORNERS * side / n
    c = _periodic(nodes, local, -local @ unit, n * n)
    total = c[nodes] + unit
    tensor = np.einsum("epj,epq,eqk->jk", total, local, total, optimize=True) / side**2
    return np.pad(c.reshape(n, n, 2), ((0, 1), (0, 1), (0, 0)), mode="wrap"), tensor


def periodic_field(values: Float[np.ndarray, "n n 2"], side: float) -> Field:
    """A field by its values on a grid, bilinear in between."""

    def field(points: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "m 2"]:
        places = points.T * len(values) / side
        return np.stack([map_coordinates(values[..., k], places, order=1, mode="grid-wrap") for k in range(2)], 1)

    return field


def _patches(a: np.ndarray, n: int, m: int, more: int) -> Float[np.ndarray, "e k k"]:
    """The fine squares of each coarse element, and of its surroundings."""
    wide = np.pad(a, more, mode="wrap")
    return np.stack(
        [wide[i : i + m + 2 * more, j : j + m + 2 * more] for i in range(0, n * m, m) for j in range(0, n * m, m)]
    )


def _stiffness(a: Float[np.ndarray, "e k k"]) -> Float[np.ndarray, "e v v"]:
    """Of all nodes of the fine squares in each patch."""
    return np.einsum("ep,pij->eij", a.reshape(len(a), -1), _assembly(a.shape[1]), optimize=True)


@functools.cache
def _assembly(k: int) -> Float[np.ndarray, "p v v"]:
    """Stiffness of every square of a patch alone, in the numbering of its nodes."""
    number = np.arange((k + 1) ** 2).reshape(k + 1, k + 1)
    nodes = np.stack([number[p : k + p, q : k + q] for p, q in CORNERS], axis=-1).reshape(-1, 4)
    found = np.zeros((k * k, number.size, number.size))
    found[np.arange(k * k)[:, None, None], nodes[:, :, None], nodes[:, None]] = bilinear()
    return found


def _harmonic(stiffness: np.ndarray, values: Float[np.ndarray, "e k k 4"]) -> Float[np.ndarray, "e v 4"]:
    """Solutions inside each patch with the values on its rim."""
    k = values.shape[1]
    on_rim = np.ones((k, k), dtype=bool)
    on_rim[1:-1, 1:-1] = False
    rim, inside = np.flatnonzero(on_rim), np.flatnonzero(~on_rim)
    found = values.reshape(len(values), -1, 4).copy()
    right = stiffness[:, inside[:, None], rim] @ found[:, rim]
    found[:, inside] = -np.linalg.solve(stiffness[:, inside[:, None], inside], right)
    return found


def _inside(a: np.ndarray, n: int, m: int) -> Float[np.ndarray, "e v 4"]:
    """Shape functions that solve the equation along the sides, with the mean of both sides' squares, and inside."""
    along = [_along((a + np.roll(a, 1, axis=1))[:, ::m].T, n), _along((a + np.roll(a, 1, axis=0))[::m], n)]
    lower, upper = along[0], np.roll(along[0], -1, axis=0)  # [j, i]: the sides along x below and above element (i, j)
    left, right = along[1], np.roll(along[1], -1, axis=0)  # [i, j]
    values = np.zeros((n, n, m + 1, m + 1, 4))
    for corner, (p, q) in enumerate(CORNERS):
        x = [side if p else 1 - side for side in (lower, upper)]
        y = [side if q else 1 - side for side in (left, right)]
        values[..., :, (m if q else 0), corner] = np.swapaxes(x[q], 0, 1)
        values[..., (m if p else 0), :, corner] = y[p]
    return _harmonic(_stiffness(_patches(a, n, m, 0)), values.reshape(-1, m + 1, m + 1, 4))


def _along(a: Float[np.ndarray, "n nm"], n: int) -> Float[np.ndarray, "n n m"]:
    """What rises from 0 to 1 along each side with a constant flux."""
    steps = 1 / a.reshape(n, n, -1)
    rise = np.cumsum(steps, axis=2) / steps.sum(2, keepdims=True)
    return np.concatenate([np.zeros((n, n, 1)), rise], axis=2)


def _cut_out(a: np.ndarray, n: int, m: int, more: int) -> Float[np.ndarray, "e v 4"]:
    """Shape functions that are parts of solutions on larger patches, linear on the rim of these."""
    size = m + 2 * more
    t = np.arange(size + 1) / size
    ramp = np.stack([1 - t, t])
    rims = np.einsum("pi,qj->ijpq", ramp, ramp).reshape(size + 1, size + 1, 4)
    patches = _patches(a, n, m, more)
    wide = _harmonic(_stiffness(patches), np.broadcast_to(rims, (len(patches), *rims.shape)))
    own = wide.reshape(-1, size + 1, size + 1, 4)[:, more : more + m + 1, more : more + m + 1].reshape(len(wide), -1, 4)
    at_corners = own[:, [i * m * (m + 1) + j * m for i, j in CORNERS]]
    return own @ np.linalg.inv(at_corners)


def _joined(chi: Float[np.ndarray, "n n k k 2"]) -> Float[np.ndarray, "f f 2"]:
    """Values on the fine grid of the cell; elements that meet at a node share it equally."""
    n, m = len(chi), chi.shape[2] - 1
    total, count = np.zeros((n * m, n * m, 2)), np.zeros((n * m, n * m, 1))
    place = (np.arange(n)[:, None] * m + np.arange(m + 1)) % (n * m)
    at = (place[:, None, :, None], place[None, :, None, :])
    np.add.at(total, at, chi)
    np.add.at(count, at, 1.0)
    return total / count
