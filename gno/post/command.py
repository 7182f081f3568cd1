"""What the command line says, as values: numbers, places, materials, boundary conditions."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gno.mesh import Mesh
from gno.post.gauss import Parameter
from gno.post.stress import Elastic

if TYPE_CHECKING:
    from gno.physics import BoundaryTerm, Dirichlet, Problem

AXES = "xyz"


def parameter(text: str) -> Parameter:
    """A number where the text is one, else the name of a field.

    >>> parameter("210e9"), parameter("modulus")
    (210000000000.0, 'modulus')
    """
    try:
        return float(text)
    except ValueError:
        return text


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        ValueError: something else.

    >>> numbers("0,1.5", "--line")
    (0.0, 1.5)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option}: expected numbers with commas between them, got '{text}'") from None


def two_places(text: str, option: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two places or directions with a colon between them.

    Raises:
        ValueError: something else.

    >>> two_places("0,0:1,0", "--line")
    ((0.0, 0.0), (1.0, 0.0))
    """
    first, colon, second = text.partition(":")
    if not colon:
        raise ValueError(f"{option}: expected two places as x,y:x,y, got '{text}'")
    return numbers(first, option), numbers(second, option)


def fields(text: str) -> str | list[str]:
    """One field, or several that make a vector, with commas between them.

    >>> fields("u"), fields("ux,uy")
    ('u', ['ux', 'uy'])
    """
    names = text.split(",")
    return names if len(names) > 1 else text


def material(young: str | None, poisson: str | None, plane: str | None, mesh: Mesh) -> Elastic:
    """The material that the options name.

    Raises:
        ValueError: one that is missing.
    """
    if young is None or poisson is None:
        missing = "--young" if young is None else "--poisson"
        raise ValueError(f"{missing}: expected a number or a field of {mesh.source}, got none")
    if mesh.dim == 2 and plane is None:
        raise ValueError(f"--plane: expected stress or strain, as {mesh.source} is planar, got none")
    return Elastic(parameter(young), parameter(poisson), plane)  # type: ignore[arg-type]  # it checks


def support(text: str) -> Dirichlet:
    """``SET``, ``SET=VALUES``, ``SET=FIELD``, each also for one component as ``SET.x``: given values on a point set.

    >>> support("left.x=0.5")
    Dirichlet(on='left', value=0.5, components=0)
    """
    from gno.physics import Dirichlet

    place, _, value = text.partition("=")
    name, dot, axis = place.rpartition(".")
    if dot and axis in tuple(AXES):
        return Dirichlet(name, _given(value or "0"), AXES.index(axis))
    return Dirichlet(place, _given(value or "0"))


def load(text: str) -> BoundaryTerm:
    """``SET=VALUES`` or ``SET=FIELD``: traction or inflow per area on a point set.

    Raises:
        ValueError: no value.

    >>> load("right=100,0").parameters
    {'flux': (100.0, 0.0)}
    """
    from gno.physics import Neumann

    place, equals, value = text.rpartition("=")
    if not equals:
        raise ValueError(f"--load: expected SET=VALUES or SET=FIELD, got '{text}'")
    return Neumann(place, _given(value))


def _given(text: str) -> Any:
    if re.fullmatch(r"[-+\d.,eE]+", text) is None:
        return text
    values = numbers(text, "value")
    return values[0] if len(values) == 1 else values


def solid_problem(
    mesh: Mesh, material: Elastic, fix: Sequence[str], loads: Sequence[str], source: str | None
) -> Problem:
    """Linear elasticity with the conditions that the options name."""
    from gno.physics import build_problem, elasticity, plane_stress

    law = plane_stress if material.plane == "stress" else elasticity
    parameters: dict[str, Any] = {"young": material.young, "poisson": material.poisson}
    if source is not None:
        parameters["load"] = _given(source)
    return build_problem(mesh, law, parameters, _conditions(mesh, fix, loads))


def diffusion_problem(
    mesh: Mesh, conductivity: Parameter, fix: Sequence[str], loads: Sequence[str], source: str | None
) -> Problem:
    """Diffusion with the conditions that the options name."""
    from gno.physics import build_problem, diffusion

    parameters: dict[str, Any] = {"conductivity": conductivity}
    if source is not None:
        parameters["source"] = _given(source)
    return build_problem(mesh, diffusion, parameters, _conditions(mesh, fix, loads))


def _conditions(mesh: Mesh, fix: Sequence[str], loads: Sequence[str]) -> list[Dirichlet | BoundaryTerm]:
    if not fix:
        known = ", ".join(["boundary", *mesh.point_sets])
        raise ValueError(f"--fix: expected at least one set with given values, one of {known}, got none")
    return [*map(support, fix), *map(load, loads)]


def problem_from(text: str, mesh: Mesh) -> Problem:
    """The problem that a function of a Python file makes of a mesh, named as ``FILE.py:FUNCTION``.

    Raises:
        ValueError: no such file or function, or one that makes something else.
    """
    from gno.physics import Problem

    path, _, name = text.rpartition(":")
    specification = importlib.util.spec_from_file_location(Path(path).stem, path)
    if specification is None or specification.loader is None:
        raise ValueError(f"--problem: expected FILE.py:FUNCTION, got '{text}'")
    if not Path(path).is_file():
        raise ValueError(f"--problem: expected a file {path}, got none")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    make = getattr(module, name, None)
    found = make(mesh) if callable(make) else None
    if not isinstance(found, Problem):
        got = type(found).__name__ if callable(make) else f"no function '{name}'"
        raise ValueError(f"--problem: expected a function Mesh -> gno.physics.Problem, got {got} ({path})")
    return found


def beside(path: Path, what: str, number: int) -> Path:
    """Where a probe goes: ``<stem>_<what><number>.vtu`` beside a file."""
    return path.with_name(f"{path.stem}_{what}{number}.vtu")


def spacing_of(mesh: Mesh, n: int = 64) -> float:
    """Spacing of a plane's grid: the longest side of the mesh in ``n`` parts."""
    return float(np.ptp(mesh.points, axis=0).max()) / n
