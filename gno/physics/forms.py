"""A user's own physics: an energy density or a weak form, in a few lines of torch.

A law is written at one point and evaluated at all quadrature points of a mesh at once. It sees the unknowns u (…, c),
their gradient (…, c, dim), the position x (…, dim) and its parameters by name; residual, energy and tangent follow by
automatic differentiation. The heat equation with a conductivity that grows with temperature:

>>> def heat(u, grad, v, grad_v, x, p):
...     conductivity = p["k"] * (1 + u[..., 0] ** 2)
...     return conductivity * inner(grad, grad_v) - p["source"] * v[..., 0]

>>> from gno.mesh import CellBlock, Mesh
>>> from gno.physics import Dirichlet, Weak, build_problem, solve
>>> corners_and_centre = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
>>> triangles = CellBlock("triangle", np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]))
>>> mesh = Mesh(corners_and_centre, [triangles])
>>> problem = build_problem(mesh, Weak(heat), {"k": 1.0, "source": 12.0}, [Dirichlet("boundary", 0.0)])
>>> round(float(solve(problem).values.max()), 4)
0.8846

Besides its parameters a law finds in ``p`` the length ``"h" = 2 / √Σ_i |∇N_i|²`` over which shape functions change (the
leg of a right isosceles triangle) and, on facets, the outward unit ``"normal"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad as gradient_of
from torch.func import vjp, vmap

from gno.graph.segment import segment_sum
from gno.physics.quadrature import Domain, FacetQuadrature, Quadrature

# Entries of the pointwise tangents held at once: bounds the memory of an assembly, whatever the size of the mesh.
CHUNK = 2**24

Density = Callable[[Tensor, Tensor, Tensor, "Parameters"], Tensor]
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, "Parameters"], Tensor]


@dataclasses.dataclass(frozen=True)
class OnCells:
    """A field on the cells, said so: where nodes and cells are equally many, a plain tensor is one at the nodes.

    Args:
        values: one row per cell of the mesh, numbered through all blocks.
    """

    values: Float[Tensor, "n_cells ..."]


Parameter = float | Sequence[float] | Tensor | OnCells | Callable[[Tensor], Tensor]
"""A constant, a field, or a function of the positions (n_cells, n_points, dim)."""


def inner(a: Float[Tensor, "*points c dim"], b: Float[Tensor, "*points c dim"]) -> Float[Tensor, "*points"]:
    """``A : B``, the sum of products over components and directions."""
    return (a * b).sum((-2, -1))


def dot(a: Float[Tensor, "*points k"], b: Float[Tensor, "*points k"]) -> Float[Tensor, "*points"]:
    """``a · b``, the sum of products over the last axis."""
    return (a * b).sum(-1)


def vector(dim: int) -> int:
    """As many unknowns per node as the space has directions."""
    return dim


def constants(points: Float[Tensor, "n_nodes dim"], c: int) -> Float[Tensor, "n_nodes c modes"]:
    """Fields that a stiffness without boundary conditions does not see: one constant per component."""
    return torch.eye(c, dtype=points.dtype, device=points.device).repeat(len(points), 1, 1)


@dataclasses.dataclass(frozen=True)
class Energy:
    """A law that minimises ``∫ ψ(u, ∇u, x, p)``; its tangent is symmetric.

    Args:
        density: ψ, of u (…, c), ∇u (…, c, dim), x (…, dim) and the parameters; returns (…).
        components: number of unknowns per node, c, or a function of the dimension; None if the law fits any.
        kernel: fields (n_nodes, c, modes) without energy, for the multigrid solver.
    """

    density: Density
    components: int | Callable[[int], int] | None = 1
    kernel: Callable[[Tensor, int], Tensor] = constants

    def flux(self, u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        """``∂ψ/∂u`` (…, c) and ``∂ψ/∂∇u`` (…, c, dim)."""
        return gradient_of(lambda u, grad: _one_per_point(self.density(u, grad, x, p), u).sum(), (0, 1))(u, grad)


@dataclasses.dataclass(frozen=True)
class Weak:
    """A law ``∫ f(u, ∇u, v, ∇v, x, p) = 0`` for all test functions v, in which f is linear.

    Args:
        form: f, of u and v (…, c), ∇u and ∇v (…, c, dim), x (…, dim) and the parameters; returns (…).
        components: number of unknowns per node, c, or a function of the dimension; None if the law fits any.
    """

    form: Form
    components: int | Callable[[int], int] | None = 1

    def flux(self, u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> tuple[Tensor, Tensor]:
        """``∂f/∂v`` (…, c) and ``∂f/∂∇v`` (…, c, dim)."""

        def total(v: Tensor, grad_v: Tensor) -> Tensor:
            return _one_per_point(self.form(u, grad, v, grad_v, x, p), u).sum()

        return gradient_of(total, (0, 1))(torch.zeros_like(u), torch.zeros_like(grad))


Law = Energy | Weak


def n_components(law: Law, dim: int) -> int | None:
    """Unknowns per node in a space of some dimension; None if the law fits any number."""
    return law.components(dim) if callable(law.components) else law.components


def _one_per_point(values: Tensor, u: Tensor) -> Tensor:
    if values.shape != u.shape[:-1]:
        got, expected = tuple(values.shape), tuple(u.shape[:-1])
        raise ValueError(f"law: expected one value per point, {expected} (cells, points), got {got}")
    return values


class Parameters:
    """Parameters by name at the quadrature points of some cells or facets.

    Numbers and sequences of numbers are constants. Tensors are fields at the nodes, on the cells, or per mesh of a
    batch, whichever the length of their first axis fits. Functions are called with the positions.
    """

    def __init__(self, values: Mapping[str, Parameter], domain: Domain, part: Quadrature) -> None:
        self.names_read: set[str] = set()
        self._part = part
        self._given = {name: _at_points(value, name, domain, part) for name, value in values.items()}

    def __contains__(self, name: str) -> bool:
        self.names_read.add(name)
        return name in self._given

    def get(self, name: str, default: float) -> Tensor | float:
        """The parameter, or a constant where it is not given."""
        self.names_read.add(name)
        return self._given.get(name, default)

    def __getitem__(self, name: str) -> Tensor:
        self.names_read.add(name)
        part = self._part
        if name in self._given:
            return self._given[name]
        if name == "h":
            return 2 / part.gradient.square().sum((-2, -1)).sqrt()
        if name == "normal" and isinstance(part, FacetQuadrature):
            return part.normal
        given = ", ".join(sorted(self._given)) or "none"
        raise ValueError(f"parameters['{name}']: expected by the law, got {given}")

    def vector(self, name: str, like: Float[Tensor, "*points c"]) -> Tensor:
        """The parameter with as many components as ``like``, (c,) or (…, c); a scalar only where c is one.

        Raises:
            ValueError: another number of components.
        """
        value = self[name]
        if like.shape[-1] == 1 and value.shape in ((), like.shape[:-1]):
            value = value[..., None]
        if value.shape not in (like.shape[-1:], like.shape):
            expected, got = like.shape[-1], tuple(value.shape)
            raise ValueError(f"parameters['{name}']: expected {expected} components, got shape {got} at the points")
        return value


def _at_points(value: Parameter, name: str, domain: Domain, part: Quadrature) -> Tensor:
    if isinstance(value, OnCells):
        return domain.cell_values(value.values.to(part.weight), [part])[0]
    if callable(value):
        return value(part.position)
    if not isinstance(value, Tensor) or value.ndim == 0:
        value = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        return value.to(part.weight)
    value = value.to(part.weight)
    if len(value) == domain.n_nodes:
        return domain.node_values(value, [part])[0]
    if len(value) in (domain.n_cells, domain.n_graphs):
        return domain.at_points(value, [part])[0]
    if value.shape == (domain.dim,):  # a vector, the same everywhere
        return value
    expected = f"{domain.n_nodes} nodes, {domain.n_cells} cells or {domain.n_graphs} meshes"
    raise ValueError(f"parameters['{name}']: expected {expected}, got {len(value)}")


def fluxes(
    law: Law, domain: Domain, u: Float[Tensor, "n_nodes c"], p: Mapping[str, Parameter]
) -> list[tuple[Tensor, Tensor]]:
    """``∂f/∂v`` and ``∂f/∂∇v`` at the quadrature points, per kind of cell: of elasticity the second is the stress.

    Args:
        u: nodal values. p: parameters.
    Returns:
        per ``domain.cells`` (n_cells, n_points, c) and (n_cells, n_points, c, dim).
    """
    return [_flux(law, domain, part, u, p) for part in domain.cells]


def residual(
    law: Law,
    domain: Domain,
    u: Float[Tensor, "n_nodes c"],
    p: Mapping[str, Parameter],
    parts: Sequence[Quadrature] | None = None,
) -> Float[Tensor, "n_nodes c"]:
    """``r_i = ∫ ∂f/∂v N_i + ∂f/∂∇v · ∇N_i``: what each node's equation lacks; of an energy its gradient.

    Differentiable in u and in the parameters. Boundary conditions are not in it.

    Args:
        u: nodal values, of the domain's type and device.
        p: parameters: numbers, node fields, cell fields, or functions of the position.
        parts: what to integrate over; by default the domain's cells.
    Raises:
        ValueError: values, parameters or a law that do not fit.
    """
    _check(law, domain, u)
    total = torch.zeros_like(u)
    for part in domain.cells if parts is None else parts:
        value, slope = _flux(law, domain, part, u, p)
        w = part.weight
        local = torch.einsum("eqc,qi,eq->eic", value, part.shape, w)
        local = local + torch.einsum("eqcd,eqid,eq->eic", slope, part.gradient, w)
        total = total + part.scatter(local)
    return total


def energy(
    law: Energy,
    domain: Domain,
    u: Float[Tensor, "n_nodes c"],
    p: Mapping[str, Parameter],
    parts: Sequence[Quadrature] | None = None,
) -> Float[Tensor, " n_graphs"]:
    """``∫ ψ(u, ∇u, x, p)`` of each mesh of the batch, summed in float64.

    Args, Raises: as of :func:`residual`.
    """
    _check(law, domain, u)
    total = u.new_zeros(domain.n_graphs, dtype=torch.float64)
    for part in domain.cells if parts is None else parts:
        values, grad = _interpolate(part, u)
        density = law.density(values, grad, part.position, Parameters(p, domain, part))
        cells = (_one_per_point(density, values).double() * part.weight).sum(1)
        ptr = torch.searchsorted(part.graph, torch.arange(domain.n_graphs + 1, device=u.device))
        total = total + segment_sum(cells[:, None], ptr)[:, 0]
    return total.to(u.dtype)


def tangent_product(
    law: Law,
    domain: Domain,
    u: Float[Tensor, "n_nodes c"],
    du: Float[Tensor, "n_nodes c"],
    p: Mapping[str, Parameter],
    parts: Sequence[Quadrature] | None = None,
) -> Float[Tensor, "n_nodes c"]:
    """``∂r/∂u du`` without a matrix; not differentiable further.

    Args, Raises: as of :func:`residual`.
    """
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        w = torch.zeros_like(u).requires_grad_()
        r = residual(law, domain, u, p, parts)
        if not r.requires_grad:  # a law without unknowns in its residual, as that of a dead load
            return torch.zeros_like(du)
        # The pull-back is linear in w, so its own pull-back is the push-forward.
        (pulled,) = torch.autograd.grad(r, u, w, create_graph=True)
        return torch.autograd.grad(pulled, w, du)[0]


def tangent(
    law: Law,
    domain: Domain,
    u: Float[Tensor, "n_nodes c"],
    p: Mapping[str, Parameter],
    parts: Sequence[Quadrature] | None = None,
) -> sp.csr_array:
    """``∂r/∂u`` as scipy's CSR (n_nodes·c, n_nodes·c), unknown ``node · c + component``.

    Args, Raises: as of :func:`residual`.
    """
    _check(law, domain, u)
    c = u.shape[1]
    component = np.arange(c)
    rows, columns, entries = [], [], []
    for whole in domain.cells if parts is None else parts:
        for part in _chunks(whole, c):
            blocks = _tangent_blocks(law, domain, part, u.detach(), p).cpu().numpy()
            dofs = (part.nodes.cpu().numpy()[..., None] * c + component).reshape(len(blocks), -1)
            rows.append(np.repeat(dofs, dofs.shape[1], axis=1).ravel())
            columns.append(np.tile(dofs, dofs.shape[1]).ravel())
            entries.append(blocks.ravel())
    n = domain.n_nodes * c
    index = (np.concatenate(rows), np.concatenate(columns))
    return sp.coo_array((np.concatenate(entries), index), shape=(n, n)).tocsr()


def _interpolate(part: Quadrature, u: Tensor) -> tuple[Tensor, Tensor]:
    local = part.gather(u)
    return torch.einsum("qi,eic->eqc", part.shape, local), torch.einsum("eqid,eic->eqcd", part.gradient, local)


def _flux(law: Law, domain: Domain, part: Quadrature, u: Tensor, p: Mapping[str, Parameter]) -> tuple[Tensor, Tensor]:
    values, grad = _interpolate(part, u)
    return law.flux(values, grad, part.position, Parameters(p, domain, part))


def _tangent_blocks(law: Law, domain: Domain, part: Quadrature, u: Tensor, p: Mapping[str, Parameter]) -> Tensor:
    """Cell matrices (n_cells, n_local, c, n_local, c): ``Σ_q w B_i · ∂flux/∂(u, ∇u) · B_j`` with ``B = (N, ∇N)``."""
    values, grad = _interpolate(part, u)
    known = Parameters(p, domain, part)
    state = torch.cat([values[..., None], grad], -1)  # (cells, points, c, 1 + dim)

    def flux(state: Tensor) -> Tensor:
        value, slope = law.flux(state[..., 0], state[..., 1:], part.position, known)
        return torch.cat([value[..., None], slope], -1)

    # One pull-back per component of the flux, for all points at once: points do not see each other.
    pull = vjp(flux, state)[1]
    each = state.shape[2:]
    unit = torch.eye(each.numel(), dtype=u.dtype, device=u.device).reshape(-1, 1, 1, *each)
    (slopes,) = vmap(lambda row: pull(row.expand_as(state)))(unit)
    slopes = slopes.unflatten(0, each)  # (c, 1 + dim, cells, points, c, 1 + dim)
    basis = torch.cat([part.shape.expand(len(part.nodes), -1, -1)[..., None], part.gradient], -1)
    right = torch.einsum("ckeqdl,eqjl->eqckjd", slopes, basis)
    return torch.einsum("eqik,eqckjd->eicjd", basis * part.weight[..., None, None], right)


def _chunks(part: Quadrature, c: int) -> Iterator[Quadrature]:
    """The part in pieces, so that the tangents at its points fit CHUNK numbers."""
    n_points, n_local, dim = part.gradient.shape[1:]
    size = max(1, CHUNK // (n_points * c * c * (1 + dim) * max(1 + dim, n_local)))
    for start in range(0, len(part.nodes), size):
        yield cells_of(part, slice(start, start + size))


def cells_of(part: Quadrature, index: slice) -> Quadrature:
    """Some of the cells; only for evaluation at points, sums to nodes need all."""
    by_cell = {"nodes", "gradient", "weight", "position", "cell", "graph", "normal"}
    names = [field.name for field in dataclasses.fields(part) if field.name in by_cell]
    return dataclasses.replace(part, **{name: getattr(part, name)[index] for name in names})


def _check(law: Law, domain: Domain, u: Tensor) -> None:
    expected = (domain.n_nodes, n_components(law, domain.dim) or u.shape[-1])
    dtype = domain.cells[0].weight.dtype
    if u.shape != expected or u.dtype != dtype:
        raise ValueError(f"u: expected {expected} of {dtype}, got {tuple(u.shape)} of {u.dtype}")
