"""What a residual weighs, and how large a solution is, from the anchors of gno's own hierarchy, without solving."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Data

from gno.graph.batch import link_edges
from gno.graph.segment import gather_sum, gather_sum_t
from gno.physics.forms import Energy
from gno.physics.problem import Problem

# The coarse system is solved on the finest level that has at most this many unknowns.
COARSE = 2000
# Steps of conjugate gradients that estimate how far the coarse solution is from the bottom of its energy.
STEPS = 20


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the losses need of a mesh, or of a batch of meshes.

    Args:
        problem: law, parameters and conditions.
        guess: a rough solution, from the anchors.
        size: ``−½ r·δ``, the energy of the way from the bare boundary values to the guess.
        lowest: estimate of the smallest energy; zero for laws that have none.
        diagonals: per level, of the Galerkin matrix ``Pᵀ K P``; level 0 is the mesh.
    """

    problem: Problem
    guess: Float[Tensor, "n_nodes c"]
    size: Float[Tensor, " n_graphs"]
    lowest: Float[Tensor, " n_graphs"]
    diagonals: tuple[Float[Tensor, "n_level c"], ...]

    @staticmethod
    def join(parts: Sequence[Prepared]) -> Prepared:
        """A batch."""
        return Prepared(
            Problem.join([part.problem for part in parts]),
            torch.cat([part.guess for part in parts]),
            torch.cat([part.size for part in parts]),
            torch.cat([part.lowest for part in parts]),
            tuple(torch.cat(level) for level in zip(*(part.diagonals for part in parts), strict=True)),
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> Prepared:
        """A copy on another device or with another floating point type."""
        guess, size, lowest, *diagonals = (
            x.to(device=device, dtype=dtype, non_blocking=non_blocking)
            for x in (self.guess, self.size, self.lowest, *self.diagonals)
        )
        return Prepared(self.problem.to(device, dtype), guess, size, lowest, tuple(diagonals))


def prepare(problem: Problem, sample: Data) -> Prepared:
    """Rough solution, sizes and diagonals of one mesh.

    One Newton step from the bare boundary values, on the anchors alone: ``Aₛ a = −Pᵀ r``, ``Aₛ = Pᵀ K P``.

    Args:
        problem: on the mesh that the sample was made of.
        sample: its hierarchy (``link_s``, ``log_b_s``).

    Raises:
        ValueError: a matrix that is not finite.
    """
    start = problem.lift(torch.zeros_like(problem.values))
    c = start.shape[1]
    bases, matrices = galerkin(problem, sample, start)
    chosen = next((s for s, a in enumerate(matrices) if s and a.shape[0] <= COARSE), len(bases) - 1)
    force = problem.residual(start).numpy().ravel()
    step = bases[chosen] @ _solved(matrices[chosen], -(bases[chosen].T @ force))
    guess = problem.lift(start + torch.from_numpy(step.reshape(-1, c)))
    size, lowest = max(abs(0.5 * float(force @ step)), np.finfo(float).tiny), 0.0
    if has_energy(problem):
        lowest = float(problem.energy(guess)) - _still_below(problem, guess, matrices[0], bases[0])
    energies = torch.tensor([[size], [lowest]]).double()
    return Prepared(problem, guess, energies[0], energies[1], diagonals_of(matrices, c))


def galerkin(
    problem: Problem, sample: Data, u: Float[Tensor, "n_nodes c"]
) -> tuple[list[sp.csr_array], list[sp.csr_array]]:
    """Bases Z of the unknowns of each level, as columns on the mesh, and the matrices ``Zᵀ K(u) Z``, K the tangent.

    Raises:
        ValueError: a matrix that is not finite.
    """
    matrix = problem.tangent(u).tocsr()
    if not np.isfinite(matrix.data).all():
        raise ValueError("physics: expected finite parameters, got a matrix with entries that are not")
    bases = _bases(problem, sample, u.shape[1])
    return bases, [basis.T @ matrix @ basis for basis in bases]


def diagonals_of(matrices: Sequence[sp.csr_array], c: int) -> tuple[Float[Tensor, "n_level c"], ...]:
    """Their diagonals, positive, for :func:`dual_norm`."""
    return tuple(torch.from_numpy(_positive(abs(a.diagonal())).reshape(-1, c)) for a in matrices)


def load_share(physics: Prepared, u: Float[Tensor, "n_nodes c"]) -> float | None:
    """How many times the loads of a problem a field belongs to, ``1 − δ·r(u) / δ·r(g)``; of a solution it is one.

    g are the bare given values, δ the way from there to the rough solution: one test function, so noise in u matters
    little, and a field in other units comes out as their ratio. None where there is no load.

    Args:
        physics: of one mesh. u: a field on it.
    """
    problem = physics.problem
    bare = problem.lift(torch.zeros_like(problem.values))
    way = physics.guess - bare
    load = -float((way * problem.residual(bare)).sum())
    lacking = float((way * problem.residual(problem.lift(u))).sum())
    return 1 + lacking / load if abs(load) > np.finfo(float).tiny else None


def per_graph(
    values: Float[Tensor, "n_nodes c"], graph: Int[Tensor, " n_nodes"], n_graphs: int
) -> Float[Tensor, " n_graphs"]:
    """Sum over the nodes and components of each mesh.

    >>> per_graph(torch.ones(3, 2), torch.tensor([0, 0, 1]), 2)
    tensor([4., 2.])
    """
    return values.new_zeros(n_graphs).index_add(0, graph, values.sum(1))


def dual_norm(
    physics: Prepared, r: Float[Tensor, "n_nodes c"], batch: Data, *, first: int = 0
) -> Float[Tensor, " n_graphs"]:
    """``rᵀ B⁻¹ r`` of each mesh, ``B⁻¹ = Σ_s P_s D_s⁻¹ P_sᵀ`` over the levels from ``first`` up.

    J. H. Bramble, J. E. Pasciak, J. Xu, Parallel multilevel preconditioners, Math. Comp. 55 (1990) 1–22. B is as large
    as the stiffness, up to constants that do not depend on the mesh, so this is the square of the error's energy norm
    up to a factor, and does not grow with refinement.

    Args:
        physics: of the batch. r: residual at the nodes, zero where values are given.
        batch: with its links.
    """
    total = r.new_zeros(len(physics.size))
    for s, diagonal in enumerate(physics.diagonals):
        if s:
            weights = batch[f"log_b_{s - 1}"].to(r.dtype).softmax(1).flatten()
            r = gather_sum_t(r, weights, link_edges(batch, s - 1))  # type: ignore[arg-type]
        if s >= first:
            total = total + per_graph(r.square() / diagonal, batch[f"pos_{s}_batch"], len(total))
    return total


def correction(physics: Prepared, r: Float[Tensor, "n_nodes c"], batch: Data) -> Float[Tensor, "n_nodes c"]:
    """``B⁻¹ r`` at the nodes, B of :func:`dual_norm`: the error of the field whose residual is −r, up to a factor.

    Args:
        physics: of the batch. r: residual at the nodes, zero where values are given.
        batch: with its links.
    """
    links = [
        (link_edges(batch, s), batch[f"log_b_{s}"].to(r.dtype).softmax(1).flatten())
        for s in range(len(physics.diagonals) - 1)
    ]
    parts = [r]
    for edges, weights in links:
        parts.append(gather_sum_t(parts[-1], weights, edges))
    total = parts[-1] / physics.diagonals[-1]
    for (edges, weights), part, diagonal in zip(links[::-1], parts[-2::-1], physics.diagonals[-2::-1], strict=True):
        total = part / diagonal + gather_sum(total, weights, edges)
    return total


def prolongations(sample: Data) -> list[sp.csr_array]:
    """Geometric weights of the anchors of each level at the nodes of the mesh, (n_0, n_s); rows sum to one."""
    found = [sp.eye_array(len(sample.pos_0), format="csr")]
    for s in range(_n_links(sample)):
        weights = sample[f"log_b_{s}"].double().softmax(1).numpy()
        n_fine, k = weights.shape
        links = (np.repeat(np.arange(n_fine), k), sample[f"link_{s}"].numpy().ravel())
        prolong = sp.csr_array((weights.ravel(), links), (n_fine, len(sample[f"pos_{s + 1}"])))
        found.append((found[-1] @ prolong).tocsr())
    return found


def constraint(problem: Problem) -> sp.csr_array:
    """Z: fields that are zero at given values and equal where they repeat, of any nodal values."""
    c = problem.fixed.shape[1]
    free = (~problem.fixed).numpy().ravel()
    source = (problem.repeats.numpy()[:, None] * c + np.arange(c)).ravel()
    n = len(free)
    return sp.csr_array((free.astype(float), (np.arange(n), source)), (n, n))


def _bases(problem: Problem, sample: Data, c: int) -> list[sp.csr_array]:
    """Fields on the mesh, zero at given values, that the unknowns of each level stand for: columns of ``Z P_0 …``."""
    zeroed = constraint(problem)
    return [(zeroed @ sp.kron(prolong, sp.eye_array(c))).tocsr() for prolong in prolongations(sample)]


def _n_links(sample: Data) -> int:
    return sum(str(key).startswith("log_b_") for key in sample.to_dict())


def _solved(matrix: sp.csr_array, right: np.ndarray) -> np.ndarray:
    """Least squares: without given values a field without energy can be added at will."""
    return np.linalg.lstsq(matrix.toarray(), right, rcond=1e-12)[0]


def _still_below(problem: Problem, guess: Tensor, matrix: sp.csr_array, basis: sp.csr_array) -> float:
    """``½ rᵀK⁻¹r``, from a few steps of conjugate gradients: how much energy there is to lose yet, nearly."""
    from scipy.sparse.linalg import cg

    right = -(basis.T @ problem.residual(guess).numpy().ravel())
    diagonal = _positive(matrix.diagonal())
    step, _ = cg(matrix, right, rtol=0.0, maxiter=STEPS, M=sp.diags_array(1 / diagonal))
    return max(0.0, 0.5 * float(right @ step))


def has_energy(problem: Problem) -> bool:
    """Whether law and boundary terms all have an energy."""
    return all(isinstance(law, Energy) for law in (problem.law, *(term.law for term in problem.terms)))


def _positive(diagonal: np.ndarray) -> np.ndarray:
    return np.where(diagonal > 0, diagonal, 1.0)
