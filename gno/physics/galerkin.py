"""Conservation by construction: a Galerkin correction of a field on the anchors, after which every patch is in balance.

    u ← u + B a,     Bᵀ r(u + B a) = 0,     B = Z [P_a m_k, u − g]

P_a are the weights of anchor a at the nodes, m_k the fields that the law's stiffness does not see (constants; of a
solid rotations too), Z leaves given values as they are. The weights of all anchors sum to one, so the residual vanishes
in sum over the patch of every anchor and over all that is not given: reactions equal loads, in force and in moment.
With the field's own shape among the columns, r(u)·(u − g) = 0 as well: the work of the loads is stored, all of it. Of
all fields u + B a this one has the least energy, so the error in the norm of the energy never rises.

It is the coarse half of a two-grid method, J. Xu, Iterative methods by space decomposition and subspace correction,
SIAM Rev. 34 (1992) 581–613, in the coarse space of smoothed aggregation (gno.physics.solve.multigrid).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_geometric.data import Data

from gno.graph.segment import segment_sum
from gno.physics.forms import Energy
from gno.physics.multilevel import constraint, has_energy, prolongations
from gno.physics.problem import Problem
from gno.physics.sparse import Sparse

# The correction is made on the finest level that has at most so many unknowns: their dense matrix is kept per mesh.
MOST = 400
# Columns of B whose energy beside that of the others is below this share of their own are left out.
DEPENDENT = 1e-13
WANTED = "physics.conservative: expected a linear equation that has an energy, got"


@dataclasses.dataclass(frozen=True)
class CoarseSpace:
    """Where a field of one mesh, or of a batch of meshes, may be corrected, and all that this needs; in float64.

    Args:
        stiffness: K, of law and boundary terms, (n_nodes c, n_nodes c).
        basis: B without the field's own column, (n_nodes c, m).
        factor: lower Cholesky factor of BᵀKB of each mesh, filled up with the identity.
        place: of each coarse unknown in the rows of all factors.
        load: minus the residual of the bare given values.
        fixed, values, repeats: as of the problem.
        ptr: first node of each mesh, and their number.
    """

    stiffness: Sparse
    basis: Sparse
    factor: Float[Tensor, "n_graphs most most"]
    place: Int[Tensor, " m"]
    load: Float[Tensor, "n_nodes c"]
    fixed: Bool[Tensor, "n_nodes c"]
    values: Float[Tensor, "n_nodes c"]
    repeats: Int[Tensor, " n_nodes"]
    ptr: Int[Tensor, " n_graphs_1"]

    def correct(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_nodes c"]:
        """The field with its given values, and in balance; differentiable.

        Args:
            u: in physical units and float64.
        """
        v = torch.where(self.fixed, 0.0, u[self.repeats])
        v = v + self._solve(self.load - self._times(v))
        force = self._times(v)
        own = v - self._solve(force)  # what the field has beside the coarse space, orthogonal to it in energy
        stored = self._per_mesh(own * force)
        known = stored > DEPENDENT * self._per_mesh(v * force)
        share = torch.where(known, self._per_mesh(own * (self.load - force)) / torch.where(known, stored, 1.0), 0.0)
        v = v + own * share.repeat_interleave(self.ptr.diff(), output_size=len(v))[:, None]
        return torch.where(self.fixed, self.values, v)

    def _times(self, v: Tensor) -> Tensor:
        return (self.stiffness @ v.reshape(-1)).view_as(v)

    def _solve(self, r: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_nodes c"]:
        """``B (BᵀKB)⁻¹ Bᵀ r``."""
        n_graphs, most, _ = self.factor.shape
        right = r.new_zeros(n_graphs * most).index_copy(0, self.place, self.basis.T @ r.reshape(-1))
        found = torch.cholesky_solve(right.view(n_graphs, most, 1), self.factor).flatten()
        return (self.basis @ found[self.place]).view_as(r)

    def _per_mesh(self, values: Float[Tensor, "n_nodes c"]) -> Float[Tensor, " n_graphs"]:
        return segment_sum(values.sum(1, keepdim=True), self.ptr)[:, 0]

    @staticmethod
    def join(parts: Sequence[CoarseSpace]) -> CoarseSpace:
        """A batch."""
        most = max(part.factor.shape[1] for part in parts)
        nodes = np.cumsum([0, *(len(part.load) for part in parts)])
        graphs = np.cumsum([0, *(len(part.factor) for part in parts)])
        return CoarseSpace(
            Sparse.join([part.stiffness for part in parts]),
            Sparse.join([part.basis for part in parts]),
            torch.cat([_filled_up(part.factor, most) for part in parts]),
            torch.cat([_moved(part, most) + int(k) * most for part, k in zip(parts, graphs, strict=False)]),
            torch.cat([part.load for part in parts]),
            torch.cat([part.fixed for part in parts]),
            torch.cat([part.values for part in parts]),
            torch.cat([part.repeats + int(n) for part, n in zip(parts, nodes, strict=False)]),
            torch.cat([parts[0].ptr[:1], *(part.ptr[1:] + int(n) for part, n in zip(parts, nodes, strict=False))]),
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> CoarseSpace:
        """A copy on another device; it stays in float64, in which alone a balance is one."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=non_blocking)

        return CoarseSpace(
            self.stiffness.to(device),
            self.basis.to(device),
            *map(move, (self.factor, self.place, self.load, self.fixed, self.values, self.repeats, self.ptr)),
        )


def coarse_space(problem: Problem, sample: Data, *, most: int = MOST) -> CoarseSpace:
    """The space of one mesh, from the finest level of its hierarchy that has few enough unknowns.

    Args:
        problem: on the mesh that the sample was made of.
        sample: its hierarchy (``link_s``, ``log_b_s``).
        most: unknowns, at most; the coarsest level is taken if it has more.

    Raises:
        ValueError: a law that is not linear or has no energy, or a stiffness that is not positive.
    """
    if not (isinstance(problem.law, Energy) and has_energy(problem)):
        raise ValueError(f"{WANTED} one without an energy")
    bare = problem.lift(torch.zeros_like(problem.values))
    load, matrix = -problem.residual(bare), problem.tangent(bare).tocsr()
    _check_linear(problem, matrix, bare, load)
    modes = problem.law.kernel(problem.points, bare.shape[1]).numpy()
    levels = prolongations(sample)
    chosen = next((p for p in levels[1:] if p.shape[1] * modes.shape[2] <= most), levels[-1])
    basis = (constraint(problem) @ _with_modes(chosen, modes)).tocsr()
    kept, factor = _factorised(basis.T @ matrix @ basis)
    return CoarseSpace(
        Sparse.from_scipy(matrix),
        Sparse.from_scipy(basis[:, kept]),
        torch.from_numpy(factor)[None],
        torch.arange(len(kept)),
        load,
        problem.fixed,
        problem.values,
        problem.repeats,
        torch.tensor([0, len(bare)]),
    )


def _check_linear(problem: Problem, matrix: sp.csr_array, bare: Tensor, load: Tensor) -> None:
    wave = torch.arange(load.numel(), dtype=load.dtype).sin().view_as(load)
    found = problem.residual(bare + wave) + load
    expected = torch.from_numpy(matrix @ wave.numpy().ravel()).view_as(wave)
    if not torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())):
        raise ValueError(f"{WANTED} one that is not linear")


def _with_modes(prolong: sp.csr_array, modes: Float[np.ndarray, "n c k"]) -> sp.csr_array:
    """``P_a m_k`` as columns ``anchor · k + mode`` over the unknowns ``node · c + component``."""
    entries, (n, c, k) = prolong.tocoo(), modes.shape
    value = entries.data[:, None, None] * modes[entries.row]
    row = entries.row[:, None, None] * c + np.arange(c)[:, None]
    column = entries.col[:, None, None] * k + np.arange(k)
    index = tuple(np.broadcast_to(x, value.shape).ravel() for x in (row, column))
    return sp.coo_array((value.ravel(), index), (n * c, prolong.shape[1] * k)).tocsr()


def _factorised(matrix: sp.csr_array) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m m"]]:
    """Columns that do not depend on each other, in some order, and the lower Cholesky factor of their matrix.

    Near given values little is left of an anchor, and two of them may be left with the same node.
    """
    diagonal = matrix.diagonal()
    if not np.isfinite(matrix.data).all() or (diagonal < 0).any():
        raise ValueError("physics.conservative: expected finite and positive parameters, got others")
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    dense = matrix.toarray() / scale[:, None] / scale
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(dense, lower=1, tol=DEPENDENT)
    kept = pivots[:rank] - 1
    return kept, np.tril(factor[:rank, :rank]) * scale[kept][:, None]


def _filled_up(factor: Tensor, most: int) -> Tensor:
    n_graphs, m, _ = factor.shape
    whole = torch.eye(most, dtype=factor.dtype, device=factor.device).repeat(n_graphs, 1, 1)
    whole[:, :m, :m] = factor
    return whole


def _moved(part: CoarseSpace, most: int) -> Tensor:
    """Places in the rows of factors that are ``most`` wide."""
    m = part.factor.shape[1]
    return part.place // m * most + part.place % m
