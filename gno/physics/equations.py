"""The built-in equations, written as a user would write their own.

Each is a law for :func:`gno.physics.build_problem`; its parameters are named in its docstring, those in brackets are
optional. Equations in time are laws for one step: ``implicit_step(law)`` is backward Euler for any law, ``imex_step``
takes the diffusion implicitly and the reaction explicitly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from gno.physics.forms import Energy, Law, Parameters, Weak, dot, inner, vector

Rate = Callable[[Tensor, Tensor, Parameters], Tensor]
"""Reaction rate (…, c) of the unknowns (…, c), the position and the parameters."""


def _work(name: str, u: Tensor, p: Parameters) -> Tensor | float:
    return dot(p.vector(name, u), u) if name in p else 0.0


def _diffusion(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    return p["conductivity"] / 2 * inner(grad, grad) - _work("source", u, p)


diffusion = Energy(_diffusion)
"""Diffusion, heat conduction, Darcy flow: ``−∇·(k ∇u) = f``. Parameters: conductivity k, [source f]."""


def nonlinear_diffusion(conductivity: Callable[[Tensor, Tensor, Parameters], Tensor]) -> Weak:
    """Diffusion whose conductivity depends on the solution: ``−∇·(k(u) ∇u) = f``.

    Args:
        conductivity: k, of u (…), x (…, dim) and the parameters; returns (…).
    Returns:
        a law with the parameters of ``conductivity``, and [source f].

    >>> law = nonlinear_diffusion(lambda u, x, p: p["k"] * (1 + u**2))
    """

    def form(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor, p: Parameters) -> Tensor:
        return conductivity(u[..., 0], x, p) * inner(grad, grad_v) - _work("source", v, p)

    return Weak(form)


def rigid_motions(points: Float[Tensor, "n_nodes dim"], c: int) -> Float[Tensor, "n_nodes c modes"]:
    """Translations and infinitesimal rotations about the centre, of unit size.

    >>> rigid_motions(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 2)[1]
    tensor([[1., 0., -0.],
            [0., 1., 1.]])
    """
    dim = points.shape[1]
    offset = points - points.mean(0)
    offset = offset / offset.square().sum(1).mean().sqrt()
    modes = [torch.eye(dim, dtype=points.dtype, device=points.device).expand(len(points), dim, dim)]
    for i in range(dim):
        for j in range(i + 1, dim):
            turn = torch.zeros_like(points)
            turn[:, i], turn[:, j] = -offset[:, j], offset[:, i]
            modes.append(turn[..., None])
    return torch.cat(modes, -1)


def _lame(p: Parameters) -> tuple[Tensor, Tensor]:
    young, poisson = p["young"], p["poisson"]
    return young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))


def _hooke(grad: Tensor, first: Tensor, shear: Tensor) -> Tensor:
    strain = (grad + grad.mT) / 2
    trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
    return first / 2 * trace**2 + shear * inner(strain, strain)


def _elasticity(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    return _hooke(grad, *_lame(p)) - _work("load", u, p)


def _plane_stress(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    young, poisson = p["young"], p["poisson"]
    return _hooke(grad, young * poisson / (1 - poisson**2), young / (2 * (1 + poisson))) - _work("load", u, p)


elasticity = Energy(_elasticity, vector, rigid_motions)
"""Linear elasticity, ``−∇·σ = f``, ``σ = λ tr(ε) 1 + 2μ ε``. Parameters: young, poisson, [load f per volume]."""

plane_strain = elasticity
"""Linear elasticity of a thick body in its plane: the three-dimensional law without strain across."""

plane_stress = Energy(_plane_stress, vector, rigid_motions)
"""Linear elasticity of a thin plate in its plane, no stress across. Parameters: as of ``elasticity``."""


def _determinant(f: Tensor) -> Tensor:
    if f.shape[-1] == 2:
        return f[..., 0, 0] * f[..., 1, 1] - f[..., 0, 1] * f[..., 1, 0]
    return dot(torch.linalg.cross(f[..., 0, :], f[..., 1, :]), f[..., 2, :])


def _neo_hooke(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    first, shear = _lame(p)
    stretch = torch.log(_determinant(grad + torch.eye(grad.shape[-1], dtype=grad.dtype, device=grad.device)))
    # tr(FᵀF) − dim = 2 tr ∇u + ∇u:∇u, without the difference of large numbers.
    growth = 2 * grad.diagonal(dim1=-2, dim2=-1).sum(-1) + inner(grad, grad)
    return shear / 2 * (growth - 2 * stretch) + first / 2 * stretch**2 - _work("load", u, p)


neo_hookean = Energy(_neo_hooke, vector, rigid_motions)
"""Compressible neo-Hookean solid, ``ψ = μ/2 (tr FᵀF − 3 − 2 ln J) + λ/2 (ln J)²``, ``F = 1 + ∇u``; plane strain in 2-D.

Parameters: young and poisson (of small strains), [load per reference volume].
J. Bonet, R. D. Wood, Nonlinear Continuum Mechanics for Finite Element Analysis, 2nd ed., section 6.4.3.
"""


def _allen_cahn(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
    return p["diffusivity"] / 2 * inner(grad, grad) + (u[..., 0] ** 2 - 1) ** 2 / 4 - _work("source", u, p)


allen_cahn = Energy(_allen_cahn)
"""Phase field, ``∂u/∂t = D ∇²u + u − u³ + f``. Parameters: diffusivity D, [source f]."""


def allen_cahn_rate(u: Tensor, x: Tensor, p: Parameters) -> Tensor:
    """``u − u³``, for :func:`imex_step`."""
    return u - u**3


def gray_scott_rate(u: Tensor, x: Tensor, p: Parameters) -> Tensor:
    """``(−a b² + F (1 − a), a b² − (F + k) b)``. Parameters: feed F, kill k.

    J. E. Pearson, Complex patterns in a simple system, Science 261 (1993) 189–192.
    """
    a, b = u.unbind(-1)
    made = a * b**2
    return torch.stack([p["feed"] * (1 - a) - made, made - (p["feed"] + p["kill"]) * b], -1)


def reaction_diffusion(rate: Rate, components: int | Callable[[int], int] = 1) -> Weak:
    """``∂u/∂t = D ∇²u + R(u) + f``, at rest; ``implicit_step`` of it is a step in time.

    Args:
        rate: R. components: number of unknowns, or a function of the dimension.
    Returns:
        a law with the parameters of ``rate``, diffusivity D (one per component), and [source f].
    """

    def form(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor, p: Parameters) -> Tensor:
        spread = p.vector("diffusivity", u)[..., None] * grad
        return inner(spread, grad_v) - dot(rate(u, x, p), v) - _work("source", v, p)

    return Weak(form, components)


gray_scott = reaction_diffusion(gray_scott_rate, 2)
"""Two reacting species; unknowns a, b. Parameters: feed, kill, diffusivity (two), [source]."""


def implicit_step(law: Law) -> Law:
    """One step of backward Euler: ``c (u − previous)/step`` joins the law.

    Args:
        law: the equation at rest.
    Returns:
        a law of the same kind with the further parameters previous (…, c), step, [capacity c].

    >>> heat = implicit_step(diffusion)
    """

    if isinstance(law, Energy):
        at_rest = law.density

        def density(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
            change = u - p.vector("previous", u)
            return at_rest(u, grad, x, p) + p.get("capacity", 1.0) / (2 * p["step"]) * dot(change, change)

        return dataclasses.replace(law, density=density)
    balance = law.form

    def form(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor, p: Parameters) -> Tensor:
        change = u - p.vector("previous", u)
        return balance(u, grad, v, grad_v, x, p) + p.get("capacity", 1.0) / p["step"] * dot(change, v)

    return dataclasses.replace(law, form=form)


def imex_step(rate: Rate, components: int | Callable[[int], int] = 1) -> Energy:
    """One step of ``∂u/∂t = D ∇²u + R(u) + f``, diffusion implicit, reaction at the previous time: one SPD system.

    Args:
        rate: R. components: number of unknowns, or a function of the dimension.
    Returns:
        a law with the parameters of ``rate``, diffusivity (one per component), previous (…, c), step, [source f].

    U. M. Ascher, S. J. Ruuth, B. T. R. Wetton, Implicit-explicit methods for time-dependent partial differential
    equations, SIAM J. Numer. Anal. 32 (1995) 797–823.

    >>> step = imex_step(gray_scott_rate, 2)
    """

    def density(u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> Tensor:
        previous = p.vector("previous", u)
        change = u - previous
        diffusing = inner(p.vector("diffusivity", u)[..., None] * grad, grad) / 2
        return dot(change, change) / (2 * p["step"]) + diffusing - dot(rate(previous, x, p), u) - _work("source", u, p)

    return Energy(density, components)


def _advect(velocity: Tensor, grad: Tensor) -> Tensor:
    """``(a·∇) u``, (…, c)."""
    return (grad * velocity[..., None, :]).sum(-1)


def _advection_diffusion(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor, p: Parameters) -> Tensor:
    velocity, conductivity = p.vector("velocity", x), p["conductivity"]
    along, along_v = _advect(velocity, grad), _advect(velocity, grad_v)
    gain = along - p.vector("source", u) if "source" in p else along
    rate = 1 / p["step"] if "step" in p else 0.0
    if "step" in p:
        gain = gain + (u - p.vector("previous", u)) / p["step"][..., None]
    time = _intrinsic_time(velocity, conductivity, p["h"], rate)
    return conductivity * inner(grad, grad_v) + dot(gain, v) + time * dot(gain, along_v)


advection_diffusion = Weak(_advection_diffusion)
"""``∂u/∂t + a·∇u − ∇·(k ∇u) = f``, streamline-upwind Petrov–Galerkin.

Meant for linear cells: k ∇²u is left out of the stabilising residual.
Parameters: velocity a, conductivity k, [source f]; for a step of backward Euler previous, step.
A. N. Brooks, T. J. R. Hughes, Comput. Methods Appl. Mech. Engrg. 32 (1982) 199–259.
"""


def _intrinsic_time(velocity: Tensor, viscosity: Tensor, h: Tensor, rate: Tensor | float = 0.0) -> Tensor:
    """``τ = ((2/Δt)² + (2|a|/h)² + 9 (4ν/h²)²)^(−1/2)``, smooth in a.

    F. Shakib, T. J. R. Hughes, Z. Johan, Comput. Methods Appl. Mech. Engrg. 89 (1991) 141–219.
    """
    return (4 * rate**2 + 4 * dot(velocity, velocity) / h**2 + 9 * (4 * viscosity / h**2) ** 2) ** -0.5


def _navier_stokes(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor, p: Parameters) -> Tensor:
    velocity, pressure, test, test_p = u[..., :-1], u[..., -1], v[..., :-1], v[..., -1]
    slope, slope_p, slope_test, slope_test_p = (
        grad[..., :-1, :],
        grad[..., -1, :],
        grad_v[..., :-1, :],
        grad_v[..., -1, :],
    )
    divergence, divergence_test = (s.diagonal(dim1=-2, dim2=-1).sum(-1) for s in (slope, slope_test))

    force = _advect(velocity, slope)
    if "load" in p:
        force = force - p.vector("load", x)
    rate = 1 / p["step"] if "step" in p else 0.0
    if "step" in p:
        force = force + (velocity - p.vector("previous", u)[..., :-1]) / p["step"][..., None]

    time = _intrinsic_time(velocity, p["viscosity"], p["h"], rate)
    galerkin = (
        dot(force, test) + p["viscosity"] * inner(slope, slope_test) - pressure * divergence_test + test_p * divergence
    )
    momentum = time * dot(force + slope_p, _advect(velocity, slope_test) + slope_test_p)
    return galerkin + momentum + p["h"] ** 2 / (12 * time) * divergence * divergence_test


def _velocity_and_pressure(dim: int) -> int:
    return dim + 1


navier_stokes = Weak(_navier_stokes, _velocity_and_pressure)
"""Incompressible flow, ``∂a/∂t + a·∇a − ν ∇²a + ∇p = f``, ``∇·a = 0``.

The unknowns are the velocity a, then the pressure p per density. Both live at the same nodes, so that every node of a
mesh carries the same unknowns, and any field of a solver or a network can be put in; SUPG, PSPG and grad–div terms make
that stable. Meant for linear cells: ν ∇²a is left out of the stabilising residual. A boundary without conditions is an
outflow, ``ν ∂a/∂n = p n``.

Parameters: viscosity ν (kinematic), [load f per mass]; for a step of backward Euler previous (velocity and pressure),
step.
T. E. Tezduyar, Adv. Appl. Mech. 28 (1991) 1–44.
"""
