"""Finite volumes: fluxes through the faces of any cells, polygons and prisms too.

Unknowns are one value per cell and one per boundary face, in this order. A flux is a number per face, positive from
the face's owner to its neighbour or out of the domain; :attr:`FiniteVolume.divergence` adds fluxes up cell by cell, so
that what leaves one cell enters the next and the sum over all cells is what passes the boundary.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gno.mesh import Mesh, MeshError
from gno.mesh.geometry import domain_dim, groups, matched, signed_volume, simplex_volumes
from gno.mesh.shapes import Shape
from gno.physics.sparse import Sparse


@dataclasses.dataclass(frozen=True)
class FiniteVolume:
    """Cells and faces of a mesh.

    Args:
        cell: number of each control volume in the mesh, through all blocks.
        volume: of the cells.
        centre: centroids of the cells.
        owner: cell on the side that the face's area vector points away from.
        neighbour: what it points to: a cell, or ``n_cells + k`` for the k-th boundary face.
        area: area vectors, normal times size.
        face_centre: centroids of the faces.
    """

    cell: Int[np.ndarray, " n_cells"]
    volume: Float[np.ndarray, " n_cells"]
    centre: Float[np.ndarray, "n_cells dim"]
    owner: Int[np.ndarray, " n_faces"]
    neighbour: Int[np.ndarray, " n_faces"]
    area: Float[np.ndarray, "n_faces dim"]
    face_centre: Float[np.ndarray, "n_faces dim"]

    @property
    def boundary(self) -> Int[np.ndarray, " n_boundary"]:
        """Numbers of the boundary faces, in the order of their unknowns."""
        return np.flatnonzero(self.neighbour >= len(self.volume))

    @property
    def n_unknowns(self) -> int:
        return len(self.volume) + len(self.boundary)

    @property
    def position(self) -> Float[np.ndarray, "n_unknowns dim"]:
        """Where the unknowns are: centres of cells, then of boundary faces."""
        return np.concatenate([self.centre, self.face_centre[self.boundary]])

    def divergence(self) -> Sparse:
        """From fluxes to ``1/|c| Σ_faces ± flux``; (n_cells, n_faces)."""
        face = np.arange(len(self.owner))
        inner = self.neighbour < len(self.volume)
        rows = np.concatenate([self.owner, self.neighbour[inner]])
        sign = np.concatenate([np.ones(len(face)), -np.ones(inner.sum())])
        entries = (sign / self.volume[rows], (rows, np.concatenate([face, face[inner]])))
        return Sparse.from_scipy(sp.coo_array(entries, shape=(len(self.volume), len(face))))

    def gradient(self) -> Sparse:
        """Least-squares gradient in each cell, exact for linear fields; (n_cells * dim, n_unknowns).

        It minimises ``Σ (u_j − u_c − g·(x_j − x_c))² / |x_j − x_c|²`` over the faces of the cell.
        """
        return Sparse.from_scipy(self._gradient())

    def diffusive_flux(self, coefficient: float | Float[np.ndarray, " n_cells"] = 1.0) -> Sparse:
        """Flux ``−k ∇u·S``: two points, corrected by gradients where faces are skew; (n_faces, n_unknowns).

        Over-relaxed splitting ``S = a d + t`` with d between the two points and ``a = S²/(S·d)``; the gradient that
        meets t is the mean of the two cells'. Exact for linear fields if k is constant; across a jump of k the flux has
        the harmonic mean.

        Args:
            coefficient: k, a number or one per control volume, positive.

        Source: Jasak, Error analysis and estimation for the finite volume method (1996), section 3.3.1.3.
        """
        k = self._face_coefficient(np.broadcast_to(np.asarray(coefficient, dtype=np.float64), self.volume.shape))
        position, n_faces, dim = self.position, len(self.owner), self.centre.shape[1]
        between = position[self.neighbour] - position[self.owner]
        pull = (self.area**2).sum(1) / (self.area * between).sum(1)
        face = np.arange(n_faces)
        rows, ones = np.concatenate([face, face]), np.ones(n_faces)
        columns = np.concatenate([self.neighbour, self.owner])
        direct = sp.csr_array((np.concatenate([ones, -ones]), (rows, columns)), shape=(n_faces, self.n_unknowns))
        skew = self.area - pull[:, None] * between
        # at the boundary the owner's gradient is all there is
        other = np.where(self.neighbour < len(self.volume), self.neighbour, self.owner)
        axis = np.arange(dim)
        columns = np.concatenate([(c[:, None] * dim + axis).ravel() for c in (self.owner, other)])
        mean = sp.coo_array(
            (np.tile(skew.ravel() / 2, 2), (np.tile(np.repeat(face, dim), 2), columns)),
            shape=(n_faces, len(self.volume) * dim),
        )
        total = sp.diags_array(pull) @ direct + sp.csr_array(mean) @ self._gradient()
        return Sparse.from_scipy(sp.diags_array(-k) @ total)

    def advective_flux(self, flow: Float[np.ndarray, " n_faces"]) -> Sparse:
        """Upwind flux ``(v·S) u``, u of the side that the flow comes from; (n_faces, n_unknowns).

        Args:
            flow: v·S through each face, from owner to neighbour.
        """
        upwind = np.where(flow >= 0, self.owner, self.neighbour)
        shape = (len(flow), self.n_unknowns)
        return Sparse.from_scipy(sp.coo_array((flow, (np.arange(len(flow)), upwind)), shape=shape))

    def extended(self, cells: Float[Tensor, "n_cells ..."], boundary: Float[Tensor, "n_boundary ..."]) -> Tensor:
        """All unknowns from values in the cells and on the boundary faces."""
        if len(cells) != len(self.volume) or len(boundary) != len(self.boundary):
            want, got = (len(self.volume), len(self.boundary)), (len(cells), len(boundary))
            raise ValueError(
                f"unknowns: expected {want[0]} cells and {want[1]} boundary faces, got {got[0]} and {got[1]}"
            )
        return torch.cat([cells, boundary])

    def _gradient(self) -> sp.csr_array:
        position, n_cells, dim = self.position, len(self.volume), self.centre.shape[1]
        inner = self.neighbour < n_cells
        here = np.concatenate([self.owner, self.neighbour[inner]])
        there = np.concatenate([self.neighbour, self.owner[inner]])
        offset = position[there] - position[here]
        weight = 1 / (offset**2).sum(1)
        moment = np.zeros((n_cells, dim, dim))
        np.add.at(moment, here, weight[:, None, None] * offset[:, :, None] * offset[:, None, :])
        entry = weight[:, None] * np.einsum("eij,ej->ei", np.linalg.inv(moment)[here], offset)
        rows = (here[:, None] * dim + np.arange(dim)).ravel()
        values = np.concatenate([entry.ravel(), -entry.ravel()])
        columns = np.concatenate([np.repeat(there, dim), np.repeat(here, dim)])
        shape = (n_cells * dim, self.n_unknowns)
        return sp.csr_array(sp.coo_array((values, (np.tile(rows, 2), columns)), shape=shape))

    def _face_coefficient(self, k: np.ndarray) -> np.ndarray:
        """Harmonic mean, weighted by the distances of the two cells from the face."""
        normal = self.area / np.linalg.norm(self.area, axis=1)[:, None]
        inner = self.neighbour < len(self.volume)
        other = np.where(inner, self.neighbour, self.owner)
        near = np.abs(((self.face_centre - self.centre[self.owner]) * normal).sum(1))
        far = np.where(inner, np.abs(((self.face_centre - self.centre[other]) * normal).sum(1)), 0.0)
        return (near + far) / (near / k[self.owner] + far / k[other])


def finite_volume(mesh: Mesh) -> FiniteVolume:
    """Control volumes and faces of a mesh: a cell is a volume, whatever its form; curved sides are cut into flat ones.

    Raises:
        MeshError: cells that do not fill the plane or the space, or cells of no size.

    >>> from gno.mesh import CellBlock
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
    >>> square = finite_volume(Mesh(corners, (CellBlock("quad", np.array([[0, 1, 2, 3]])),)))
    >>> square.volume, square.area.sum(0)
    (array([2.]), array([0., 0.]))
    """
    dim = domain_dim(mesh)
    if dim != mesh.dim or dim < 2:
        raise MeshError(f"cells: expected some that fill 2-D or 3-D space, got {dim}-D in {mesh.dim}-D ({mesh.source})")
    kinds = list(groups(mesh, dim))
    cell = np.concatenate([index for _, _, index in kinds])
    signed = signed_volume(mesh)[cell]
    flat = np.flatnonzero(signed == 0)
    if len(flat):
        got = f"{len(flat)} of no size, the first is cell {cell[flat[0]]}"
        raise MeshError(f"cells: expected each with a size, got {got} ({mesh.source})")
    centre = np.concatenate([_centroids(mesh, kind, nodes) for kind, nodes, _ in kinds])
    owner, neighbour, loops = _faces(kinds, signed)
    area, face_centre = _measured(mesh.points[:, :dim].astype(np.float64), loops)
    outer = np.flatnonzero(neighbour < 0)
    neighbour[outer] = len(cell) + np.arange(len(outer))
    return FiniteVolume(cell, np.abs(signed), centre, owner, neighbour, area, face_centre)


def _centroids(mesh: Mesh, kind: Shape, nodes: np.ndarray) -> np.ndarray:
    points = mesh.points[:, : mesh.dim].astype(np.float64)[nodes]
    middle = np.concatenate([np.eye(kind.n_nodes), kind.centres])[kind.simplices].mean(1)
    size = np.concatenate([part for _, part in simplex_volumes(mesh, kind, nodes)])
    return np.einsum("cs,sn,cnd->cd", size / size.sum(1)[:, None], middle, points, optimize=True)


def _faces(kinds: list, signed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner, neighbour (−1 outside) and loop of nodes (padded with −1), outward from the owner."""
    width = max(len(facet) for kind, _, _ in kinds for facet in kind.facets)
    loops, cells, first = [], [], 0
    for kind, nodes, _ in kinds:
        for facet in kind.facets:
            turned = np.where(signed[first : first + len(nodes), None] < 0, nodes[:, facet[::-1]], nodes[:, facet])
            loops.append(np.pad(turned, ((0, 0), (0, width - len(facet))), constant_values=-1))
            cells.append(first + np.arange(len(nodes)))
        first += len(nodes)
    loop, cell = np.concatenate(loops), np.concatenate(cells)
    order, same = matched(loop)
    same = np.concatenate([same, [False]])
    start = np.concatenate([[True], ~same[:-1]])
    owner, neighbour = cell[order[start]], np.full(start.sum(), -1)
    neighbour[same[start]] = cell[order[1:][same[:-1]]] if same.any() else []
    return owner, neighbour, loop[order[start]]


def _measured(points: np.ndarray, loops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Area vectors and centroids of faces."""
    if points.shape[1] == 2:
        a, b = points[loops[:, 0]], points[loops[:, 1]]
        side = b - a
        return np.stack([side[:, 1], -side[:, 0]], axis=1), (a + b) / 2
    area, centre = np.zeros((len(loops), 3)), np.zeros((len(loops), 3))
    for n in range(3, loops.shape[1] + 1):
        here = (loops >= 0).sum(1) == n
        corner = points[loops[here, :n]]
        middle = corner.mean(1, keepdims=True)
        following = np.roll(corner, -1, axis=1)
        part = np.cross(corner - middle, following - middle) / 2
        size = np.linalg.norm(part, axis=-1, keepdims=True)
        area[here] = part.sum(1)
        centre[here] = (size * (corner + following + middle) / 3).sum(1) / size.sum(1)
    return area, centre
