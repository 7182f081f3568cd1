"""Problem: a law on a mesh with its parameters and boundary conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gno.mesh import Mesh
from gno.mesh import repeats as repeats_in
from gno.physics import forms
from gno.physics.conditions import BoundaryTerm, Dirichlet, Periodic, points_of
from gno.physics.forms import Energy, Law, OnCells, Parameter, Parameters, Weak
from gno.physics.quadrature import Domain, Quadrature, build_domain

Given = Parameter | str | np.ndarray
"""A parameter as a user gives it: also the name of a field of the mesh, or an array."""
Condition = Dirichlet | Periodic | BoundaryTerm


@dataclasses.dataclass(frozen=True)
class Problem:
    """A law on a mesh, or on a batch of meshes, with all it needs; as tensors.

    Args:
        law: the equation.
        domain: the mesh, as quadrature points.
        parameters: of the law, by name.
        terms: what is integrated over the boundary.
        points: of the nodes.
        fixed: which unknowns are given. values: what they are, zero elsewhere.
        repeats: node that each node repeats, itself where nothing is periodic.
    """

    law: Law
    domain: Domain
    parameters: Mapping[str, Parameter]
    terms: tuple[BoundaryTerm, ...]
    points: Float[Tensor, "n_nodes dim"]
    fixed: Bool[Tensor, "n_nodes c"]
    values: Float[Tensor, "n_nodes c"]
    repeats: Int[Tensor, " n_nodes"]

    def lift(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_nodes c"]:
        """``g + χ u``: the field with the given values, to the bit, and its periodic sides equal."""
        return torch.where(self.fixed, self.values, u[self.repeats])

    def reduce(self, r: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_nodes c"]:
        """The transpose of :meth:`lift`: zero where values are given, sums of what repeats."""
        free = torch.where(self.fixed, torch.zeros_like(r), r)
        return torch.zeros_like(r).index_add(0, self.repeats, free)

    def residual(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, "n_nodes c"]:
        """Residual of law and boundary terms at every node; at given values it is minus the reaction."""
        return sum(forms.residual(law, self.domain, u, p, parts) for law, p, parts in self._pieces())  # type: ignore[return-value]

    def energy(self, u: Float[Tensor, "n_nodes c"]) -> Float[Tensor, " n_graphs"]:
        """Energy of law and boundary terms, of each mesh.

        Raises:
            ValueError: one of them is a weak form, which has none.
        """
        total = u.new_zeros(self.domain.n_graphs)
        for law, p, parts in self._pieces():
            if not isinstance(law, Energy):
                raise ValueError("energy: expected laws with an energy density, got a weak form")
            total = total + forms.energy(law, self.domain, u, p, parts)
        return total

    def tangent(self, u: Float[Tensor, "n_nodes c"]) -> sp.csr_array:
        """``∂r/∂u`` of law and boundary terms, unknown ``node · c + component``."""
        return sum(forms.tangent(law, self.domain, u, p, parts) for law, p, parts in self._pieces())  # type: ignore[return-value]

    def tangent_product(
        self, u: Float[Tensor, "n_nodes c"], du: Float[Tensor, "n_nodes c"]
    ) -> Float[Tensor, "n_nodes c"]:
        """``∂r/∂u du``, without a matrix."""
        pieces = self._pieces()
        return sum(forms.tangent_product(law, self.domain, u, du, p, parts) for law, p, parts in pieces)  # type: ignore[return-value]

    def _pieces(self) -> Iterator[tuple[Law, Mapping[str, Parameter], Sequence[Quadrature]]]:
        yield self.law, self.parameters, self.domain.cells
        for term in self.terms:
            yield term.law, term.parameters, self.domain.facets[term.on]

    def given(self, **parameters: Parameter) -> Problem:
        """A copy with some parameters exchanged: the next step in time, another load.

        Raises:
            ValueError: a name that the problem does not have.
        """
        for name in parameters:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ValueError(f"parameters['{name}']: expected one of {known}")
        return dataclasses.replace(self, parameters=MappingProxyType({**self.parameters, **parameters}))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Problem:
        """A copy on another device or with another floating point type."""
        move = _mover(device, dtype)
        return dataclasses.replace(
            self,
            domain=self.domain.to(device, dtype),
            parameters=_each(self.parameters, move),
            terms=tuple(dataclasses.replace(t, parameters=_each(t.parameters, move)) for t in self.terms),
            points=move(self.points),
            fixed=move(self.fixed),
            values=move(self.values),
            repeats=move(self.repeats),
        )

    @staticmethod
    def join(problems: Sequence[Problem]) -> Problem:
        """A batch: the same law and boundary terms on different meshes, as one problem.

        Raises:
            ValueError: laws, boundary terms or names of parameters differ.
        """
        first, domains = problems[0], [problem.domain for problem in problems]
        for problem in problems[1:]:
            same = [(t.on, t.law) for t in problem.terms] == [(t.on, t.law) for t in first.terms]
            if problem.law != first.law or not same:
                raise ValueError("problems: expected the same law and boundary terms in all, got different ones")
        shift = np.cumsum([0, *(domain.n_nodes for domain in domains)])
        terms = [
            BoundaryTerm(term.on, term.law, _join([p.terms[i].parameters for p in problems], domains))
            for i, term in enumerate(first.terms)
        ]
        return Problem(
            first.law,
            Domain.join(domains),
            _join([problem.parameters for problem in problems], domains),
            tuple(terms),
            torch.cat([problem.points for problem in problems]),
            torch.cat([problem.fixed for problem in problems]),
            torch.cat([problem.values for problem in problems]),
            torch.cat([problem.repeats + int(n) for problem, n in zip(problems, shift, strict=False)]),
        )


def build_problem(
    mesh: Mesh,
    law: Law,
    parameters: Mapping[str, Given] | None = None,
    conditions: Sequence[Condition] = (),
    *,
    order: int | None = None,
) -> Problem:
    """A law on a mesh, in float64, checked.

    Args:
        mesh: its sets and fields are what names refer to.
        law: the equation.
        parameters: by name: a number, one per component, an array at nodes or cells, a function of the positions, or
            the name of a field of the mesh.
        conditions: Dirichlet, Neumann, Robin, Periodic and other boundary terms; where nothing is said nothing flows.
        order: polynomial order that the quadrature is exact for; by default that of the mass matrix.

    Raises:
        MeshError: cells that cannot be integrated over.
        ValueError: a set, field, parameter or law that does not fit, a parameter that the law does not use.

    >>> from gno.mesh import CellBlock
    >>> from gno.physics import Dirichlet, Neumann, diffusion, solve
    >>> points = np.array([[0, 0], [2, 0], [2, 1], [0, 1]])
    >>> sets = {"left": np.array([0, 3]), "right": np.array([1, 2])}
    >>> square = Mesh(points, [CellBlock("quad", np.array([[0, 1, 2, 3]]))], point_sets=sets)
    >>> conditions = [Dirichlet("left", 1.0), Neumann("right", 2.0)]
    >>> problem = build_problem(square, diffusion, {"conductivity": 4.0}, conditions)
    >>> solve(problem).values[:, 0].round(decimals=6)
    tensor([1., 2., 2., 1.], dtype=torch.float64)
    """
    terms = [condition for condition in conditions if isinstance(condition, BoundaryTerm)]
    domain = build_domain(mesh, order=order, sets=tuple({term.on for term in terms} - {"boundary"}))
    c = forms.n_components(law, domain.dim) or 1
    fixed, values = np.zeros((mesh.n_nodes, c), dtype=bool), np.zeros((mesh.n_nodes, c))
    repeats = repeats_in(mesh)
    for condition in conditions:
        if isinstance(condition, Dirichlet):
            condition.apply(mesh, domain, fixed, values)
        elif isinstance(condition, Periodic):
            here, there = condition.pairs(mesh, domain)
            new = repeats[here] != repeats[there] if mesh.period else slice(None)
            repeats[here[new]] = there[new]
    repeats = _follow(repeats, fixed, values)
    problem = Problem(
        law,
        domain,
        _resolve(mesh, parameters or {}),
        tuple(BoundaryTerm(term.on, term.law, _resolve(mesh, term.parameters)) for term in terms),
        torch.from_numpy(points_of(mesh)),
        torch.from_numpy(fixed[repeats]),
        torch.from_numpy(values[repeats]),
        torch.from_numpy(repeats),
    )
    for piece in problem._pieces():
        _check_law(problem, *piece)
    return problem


def _follow(repeats: np.ndarray, fixed: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The last node of each chain of repeats; what is given at a repeating node is given there."""
    while (repeats[repeats] != repeats).any():  # a corner repeats along one side, then along the other
        repeats = repeats[repeats]
    node, component = np.nonzero(fixed & (repeats != np.arange(len(repeats)))[:, None])
    values[repeats[node], component] = values[node, component]
    fixed[repeats[node], component] = True
    return repeats


def _resolve(mesh: Mesh, parameters: Mapping[str, Given]) -> Mapping[str, Parameter]:
    return MappingProxyType({name: _resolved(mesh, name, value) for name, value in parameters.items()})


def _resolved(mesh: Mesh, name: str, value: Given) -> Parameter:
    if isinstance(value, str):
        return _field(mesh, name, value)
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, np.ndarray) else value


def _field(mesh: Mesh, name: str, field: str) -> Parameter:
    kinds = [kind for kind in (mesh.point_fields, mesh.cell_fields, mesh.global_fields) if field in kind]
    if len(kinds) != 1:
        known = ", ".join([*mesh.point_fields, *mesh.cell_fields, *mesh.global_fields]) or "none"
        got = f"'{field}' at points and on cells" if kinds else f"'{field}'"
        raise ValueError(f"parameters['{name}']: expected a field of the mesh ({known}), got {got} ({mesh.source})")
    values = np.asarray(kinds[0][field], dtype=np.float64)
    if kinds[0] is mesh.cell_fields:
        return OnCells(torch.tensor(values))  # a copy: fields of a mesh may be read-only
    if kinds[0] is mesh.global_fields:
        return values.item() if values.size == 1 else tuple(values.tolist())
    return torch.tensor(values)


def _mover(device: torch.device | str | None, dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def _each(parameters: Mapping[str, Parameter], change: Callable[[Tensor], Tensor]) -> Mapping[str, Parameter]:
    def changed(value: Parameter) -> Parameter:
        if isinstance(value, OnCells):
            return OnCells(change(value.values))
        return change(value) if isinstance(value, Tensor) else value

    return MappingProxyType({name: changed(value) for name, value in parameters.items()})


def _join(parameters: Sequence[Mapping[str, Parameter]], domains: Sequence[Domain]) -> Mapping[str, Parameter]:
    names = list(parameters[0])
    for other in parameters:
        if set(other) != set(names):
            raise ValueError(f"problems: expected parameters {', '.join(names)} in all, got {', '.join(other)}")
    return MappingProxyType({name: _joined(name, [p[name] for p in parameters], domains) for name in names})


def _joined(name: str, values: Sequence[Parameter], domains: Sequence[Domain]) -> Parameter:
    """Fields one after the other; constants stay if they are the same in all meshes, or become one per mesh."""
    cells = [value.values for value in values if isinstance(value, OnCells)]
    fields = [value for value in values if isinstance(value, Tensor) and value.ndim]
    if len(cells) == len(values):
        return OnCells(torch.cat(cells))
    if len(fields) == len(values):
        kinds = {_kind(len(field), domain) for field, domain in zip(fields, domains, strict=True)}
        if len(kinds) == 1:
            return OnCells(torch.cat(fields)) if kinds == {"cells"} else torch.cat(fields)
    elif all(value is values[0] for value in values):
        return values[0]
    elif not fields and not cells and not any(callable(value) for value in values):
        rows: list[Tensor] = [torch.as_tensor(value, dtype=torch.float64) for value in values]
        if len({row.shape for row in rows}) == 1:
            counts = [domain.n_graphs for domain in domains]
            return torch.cat([row.expand(n, *row.shape) for row, n in zip(rows, counts, strict=True)])
    raise ValueError(f"parameters['{name}']: expected the same kind of value in all problems, got different ones")


def _kind(length: int, domain: Domain) -> str:
    return "nodes" if length == domain.n_nodes else "cells" if length == domain.n_cells else "meshes"


def _check_law(problem: Problem, law: Law, p: Mapping[str, Parameter], parts: Sequence[Quadrature]) -> None:
    """One evaluation at one cell of each kind, so that what does not fit is said before anything is solved."""
    c, read = problem.fixed.shape[1], set[str]()
    for whole in parts:
        part = forms.cells_of(whole, slice(0, 1))
        known = Parameters(p, problem.domain, part)
        u = torch.zeros(*part.weight.shape, c, dtype=part.weight.dtype)
        grad = torch.zeros(*u.shape, part.gradient.shape[-1], dtype=u.dtype)
        try:
            law.flux(u, grad, part.position, known)
            if isinstance(law, Weak):
                _check_linear(law, u, grad, part.position, known)
        except (RuntimeError, IndexError, TypeError) as error:
            shapes = f"u {tuple(u.shape)} and ∇u {tuple(grad.shape)}"
            raise ValueError(f"law: expected to work on {shapes}, got {str(error).splitlines()[0]}") from error
        read |= known.names_read
    for name in p:
        if name not in read:
            raise ValueError(f"parameters['{name}']: expected one of {', '.join(sorted(read))}, which the law uses")


def _check_linear(law: Weak, u: Tensor, grad: Tensor, x: Tensor, p: Parameters) -> None:
    """That twice the test function gives twice the form: a term that forgot it would be lost without a word."""
    u, grad, v, grad_v = u + 0.1, grad + 0.1, torch.ones_like(u), torch.ones_like(grad)  # at zero much is linear
    once, twice = law.form(u, grad, v, grad_v, x, p), law.form(u, grad, 2 * v, 2 * grad_v, x, p)
    if not torch.allclose(twice, 2 * once, equal_nan=True):
        raise ValueError("law: expected a form that is linear in v and ∇v, got one that is not")
