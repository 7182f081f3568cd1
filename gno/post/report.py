"""Post-processing of one field as an engineer asks for it: fields added to the mesh, and the numbers to read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gno.mesh import Mesh
from gno.mesh.periodic import said
from gno.post.fields import prefix_of, with_error, with_flux, with_gradient, with_stress
from gno.post.gauss import Parameter
from gno.post.goals import largest
from gno.post.indicator import ErrorEstimate, flux_error, stress_error
from gno.post.reactions import Resultant, coefficients, fluid_force, heat_flow, reaction
from gno.post.recovery import Recovery, patch_recovery
from gno.post.stress import Elastic, strain_energy


@dataclasses.dataclass(frozen=True)
class Report:
    """A mesh with derived fields, and numbers; printing it shows the numbers.

    Args:
        mesh: the mesh with fields added.
        facts: JSON-able numbers by name.
        lines: the same as text.
    """

    mesh: Mesh
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def add(self, line: str, **facts: Any) -> Report:
        """A copy with one more line of text and the facts it tells."""
        return dataclasses.replace(self, facts={**self.facts, **facts}, lines=(*self.lines, line))

    def on(self, mesh: Mesh) -> Report:
        """A copy with another mesh."""
        return dataclasses.replace(self, mesh=mesh)

    def to_json(self) -> str:
        """All facts, for machines."""
        return json.dumps(self.facts, indent=2)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def report_on(mesh: Mesh) -> Report:
    """An empty report; on a mesh whose coordinates repeat it says what values at such sides are.

    >>> mesh = Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), period=(2.0, 0.0))
    >>> report_on(mesh).lines[0][:36]
    'note           x repeats after 2: fo'
    """
    repeated = [text.replace(" after", " repeats after") for text in said(mesh.period)]
    if not repeated:
        return Report(mesh)
    text = "forces and flows at nodes of these sides are what one side hands to the other, not a support's"
    return Report(mesh).add(f"note           {' and '.join(repeated)}: {text}")


def report_solid(
    report: Report,
    field: str | Sequence[str],
    material: Elastic,
    *,
    reactions: Sequence[str] = (),
    error: bool = False,
    recovery: Recovery = patch_recovery,
) -> Report:
    """Stress, strain energy, reactions and, if wanted, the estimate of the error of a displacement."""
    given, prefix = report.mesh, prefix_of(field)
    mesh = with_stress(given, field, material, recovery)
    replaced = [name for name in mesh.point_fields if name in given.point_fields and _changed(given, mesh, name)]
    report = report.on(mesh)
    for name in replaced:
        report = report.add(f"note           {name} of the file is replaced by what follows from {_said(field)}")
    for name in ("von_mises", "tresca"):
        report = _add_largest(report, prefix + name)
    energy = strain_energy(mesh, field, material)
    report = report.add(f"strain energy  {energy:.6g}", **{f"{prefix}strain_energy": energy})
    for name in reactions:
        found = reaction(mesh, field, material, name)
        report = report.add(f"reaction       {name}: {_resultant(found)}", **{f"reaction {name}": _plain(found)})
    return _add_error(report, stress_error(mesh, field, material, recovery), prefix) if error else report


def report_flux(
    report: Report,
    field: str,
    conductivity: Parameter = 1.0,
    *,
    reactions: Sequence[str] = (),
    error: bool = False,
    recovery: Recovery = patch_recovery,
) -> Report:
    """Flux, flows through sets and, if wanted, the estimate of the error of a potential, such as a temperature."""
    mesh = with_flux(report.mesh, field, conductivity, recovery)
    report = _add_largest(report.on(mesh), f"{field}_flux")
    for name in reactions:
        flow = heat_flow(mesh, field, name, conductivity)
        report = report.add(f"inflow         {name}: {flow:.6g}", **{f"inflow {name}": flow})
    return _add_error(report, flux_error(mesh, field, conductivity, recovery), prefix_of(field)) if error else report


def report_gradient(report: Report, field: str, recovery: Recovery = patch_recovery) -> Report:
    """The gradient of any field on nodes."""
    return _add_largest(report.on(with_gradient(report.mesh, field, recovery)), f"{field}_gradient")


def report_fluid(
    report: Report,
    set: str,
    *,
    velocity: str | Sequence[str],
    pressure: str,
    viscosity: float,
    density: float,
    speed: float | None = None,
    length: float | None = None,
) -> Report:
    """Force of a flow on a body and, where speed and length are given, coefficients of drag and lift."""
    found = fluid_force(report.mesh, velocity, pressure, set, viscosity=viscosity, density=density)
    report = report.add(f"fluid force    {set}: {_resultant(found)}", **{f"fluid_force {set}": _plain(found)})
    if speed is None or length is None:
        return report
    drag, lift = coefficients(found.force, speed=speed, length=length, density=density)
    return report.add(f"coefficients   drag {drag:.6g}, lift {lift:.6g}", drag=drag, lift=lift)


def _changed(before: Mesh, after: Mesh, name: str) -> bool:
    return before.point_fields[name] is not after.point_fields[name]


def _said(field: str | Sequence[str]) -> str:
    return field if isinstance(field, str) else ", ".join(field)


def _add_largest(report: Report, name: str) -> Report:
    known = report.mesh.with_point_fields(**{name: np.nan_to_num(report.mesh.point_fields[name])})
    top = largest(known, name)
    place = ", ".join(f"{x:.4g}" for x in top.position)
    fact = {"value": top.value, "node": top.node, "position": top.position.tolist()}
    return report.add(f"{name:<14} largest {top.value:.6g} at node {top.node} ({place})", **{f"largest {name}": fact})


def _add_error(report: Report, estimate: ErrorEstimate, prefix: str) -> Report:
    name = f"{prefix}error_estimate"
    fact = {"estimate": estimate.total, "norm": estimate.energy, "relative": estimate.relative}
    return report.on(with_error(report.mesh, estimate, name)).add(f"{name} {estimate}", **{name: fact})


def _resultant(found: Resultant) -> str:
    force, moment, about = (", ".join(f"{x:.6g}" for x in row) for row in (found.force, found.moment, found.about))
    return f"force ({force}), moment ({moment}) about ({about}), {found.n_nodes} nodes"


def _plain(found: Resultant) -> dict[str, Any]:
    return {
        "force": found.force.tolist(),
        "moment": found.moment.tolist(),
        "about": found.about.tolist(),
        "n_nodes": found.n_nodes,
    }
