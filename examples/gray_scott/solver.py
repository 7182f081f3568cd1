"""Gray–Scott on any mesh: linear finite elements in space, second-order IMEX steps in time.

    ∂u/∂t = D_u Δu − u v² + F (1 − u)
    ∂v/∂t = D_v Δv + u v² − (F + k) v          no flux through the boundary; Δ is Laplace–Beltrami's on a surface

Diffusion and decay are implicit, so the two matrices are constant and factorised once; the reaction u v² and the feed
are explicit, at the nodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import SuperLU, splu
from skfem import BilinearForm
from skfem.helpers import dot, grad

from gno.mesh import Mesh
from gno.physics.fem import skfem_basis

State = Float[np.ndarray, "n_nodes 2"]
"""u in the first column, v in the second."""


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Rates and diffusivities; the unit of length is Pearson's, the one of time 1 / (rate of the reaction).

    Args:
        feed: F, per unit of time.
        kill: k, per unit of time.
        diffusion: D_u and D_v, in length² per time.

    Source: Pearson, Complex patterns in a simple system, Science 261 (1993).
    """

    feed: float
    kill: float
    diffusion: tuple[float, float] = (2e-5, 1e-5)

    @property
    def decay(self) -> tuple[float, float]:
        """Rates at which u and v leave: F and F + k."""
        return self.feed, self.feed + self.kill

    def reaction(self, state: State) -> State:
        """The explicit part, F − u v² and u v², at the nodes."""
        u, v = state.T
        rate = u * v**2
        return np.stack([self.feed - rate, rate], axis=1)


@dataclasses.dataclass(frozen=True)
class Operators:
    """Mass and stiffness matrix of a mesh, in unknowns.

    Args:
        mass: mean of the consistent and the lumped mass matrix; see `assemble`.
        stiffness: ∫ ∇φ_i·∇φ_j.
        unknown: number of the unknown at each node; nodes that a periodic square identifies share one.
    """

    mass: csr_matrix
    stiffness: csr_matrix
    unknown: Int[np.ndarray, " n_nodes"]

    def restrict(self, state: State) -> State:
        """Values of the unknowns from those at the nodes."""
        first = np.unique(self.unknown, return_index=True)[1]
        return state[first]


@BilinearForm
def _mass(u, v, _):
    return u * v


@BilinearForm
def _stiffness(u, v, _):
    return dot(grad(u), grad(v))


def assemble(mesh: Mesh, unknown: Int[np.ndarray, " n_nodes"] | None = None) -> Operators:
    """Mass and stiffness matrix of a mesh of the plane or of a surface in space, by scikit-fem.

    On equilateral triangles the stiffness acts as M(Δ + h²/16 Δ²) and the consistent mass as 1 + h²/8 Δ, so half
    consistent and half lumped the errors of order h² cancel. On meshes of nearly equilateral triangles, as mesh
    generators make them, what is left of them is small; `benchmarks/gray_scott_solver.py` has the figures.

    Args:
        mesh: its cells may be of any type that scikit-fem knows; surfaces get tangential gradients.
        unknown: number of the unknown at each node; by default every node has its own.
    """
    unknown = np.arange(mesh.n_nodes) if unknown is None else unknown
    bases = skfem_basis(mesh)
    mass = sum(_mass.assemble(basis) for basis in bases)
    stiffness = sum(_stiffness.assemble(basis) for basis in bases)
    mass = (mass + diags(np.asarray(mass.sum(1)).ravel())) / 2
    return Operators(_gather(mass, unknown), _gather(stiffness, unknown), unknown)


def _gather(matrix: csr_matrix, unknown: np.ndarray) -> csr_matrix:
    """The matrix with the rows and columns of nodes that share an unknown added up."""
    entries = coo_matrix(matrix)
    n = int(unknown.max()) + 1
    return coo_matrix((entries.data, (unknown[entries.row], unknown[entries.col])), shape=(n, n)).tocsr()


def simulate(
    operators: Operators, parameters: Parameters, start: State, times: Sequence[float], *, step: float = 1.0
) -> Iterator[State]:
    """States at the given times, by steps of the second-order backward differentiation formula.

        M (3 wⁿ⁺¹ − 4 wⁿ + wⁿ⁻¹) / 2τ = −(D K + d M) wⁿ⁺¹ + M (2 r(wⁿ) − r(wⁿ⁻¹)),      w = u or v, d its decay

    An implicit Euler step of length 2τ/3 has the same matrix. One such step gives the slope at the start, and with it
    w⁻¹, to first order, which keeps the second order of the whole and needs no other factors.

    Args:
        operators: matrices of the mesh.
        parameters: rates and diffusivities.
        start: u and v at the nodes at time 0.
        times: increasing multiples of one spacing; 0 gives the start itself.
        step: largest step τ; the one taken divides the first positive time.

    Yields:
        u and v at the nodes, one array for each time.

    Raises:
        ValueError: times that are not increasing multiples of the first, or a state that is no longer finite.

    Source: Ascher, Ruuth and Wetton, Implicit-explicit methods for time-dependent PDEs (1995), SBDF.
    """
    counts, tau = steps_to(times, step)
    factors = _factorise(operators, parameters, tau)
    now = operators.restrict(np.asarray(start, float))
    before, rate_before = _step_back(operators, parameters, factors, now, tau)
    done = 0
    for count in counts:
        for _ in range(count - done):
            rate = parameters.reaction(now)
            right = operators.mass @ (2 * now - before / 2 + tau * (2 * rate - rate_before))
            before, rate_before = now, rate
            now = np.stack([lu.solve(column) for lu, column in zip(factors, right.T, strict=True)], axis=1)
        done = count
        if not np.isfinite(now).all():
            raise ValueError(f"step: expected one at which the reaction is stable, got {tau:g}, no finite state left")
        yield now[operators.unknown]


def steps_to(times: Sequence[float], step: float) -> tuple[list[int], float]:
    """Number of steps from 0 to each time, and their length: the largest that divides the first positive time.

    >>> steps_to([0.0, 10.0, 30.0], 4.0)
    ([0, 3, 9], 3.3333333333333335)
    """
    positive = [time for time in times if time > 0]
    if not positive or step <= 0:
        raise ValueError(f"times: expected a positive time and step, got {list(times)} and {step}")
    tau = positive[0] / np.ceil(positive[0] / step - 1e-9)
    counts = [round(time / tau) for time in times]
    if not np.allclose(np.multiply(counts, tau), times, rtol=1e-9, atol=0) or np.any(np.diff([-1, *counts]) <= 0):
        raise ValueError(f"times: expected increasing multiples of {positive[0]:g} / n, got {list(times)}")
    return counts, float(tau)


def _factorise(operators: Operators, parameters: Parameters, tau: float) -> tuple[SuperLU, SuperLU]:
    """Factors of (3/2 + τ d) M + τ D K for u and v."""
    made = []
    for diffusion, decay in zip(parameters.diffusion, parameters.decay, strict=True):
        matrix = (1.5 + tau * decay) * operators.mass + tau * diffusion * operators.stiffness
        # Definite matrices need no exchange of rows, and minimum degree on A + Aᵀ leaves less fill than the default.
        options = {"SymmetricMode": True}
        made.append(splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options))
    return made[0], made[1]


def _step_back(
    operators: Operators, parameters: Parameters, factors: tuple[SuperLU, SuperLU], start: State, tau: float
) -> tuple[State, State]:
    """The state one step before the start, and its reaction."""
    rate = parameters.reaction(start)
    right = operators.mass @ (1.5 * start + tau * rate)
    ahead = np.stack([lu.solve(column) for lu, column in zip(factors, right.T, strict=True)], axis=1)
    before = start - 1.5 * (ahead - start)
    return before, parameters.reaction(before)
