"""Forces at nodes and their resultants on a set: reactions of supports, heat flows, drag and lift.

A resultant is the residual of the weak form, summed over the nodes of the set. It converges twice as fast as an
integral of the stress over the boundary, and the resultants of all sets are in balance to round-off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from gno.mesh import Mesh
from gno.post.gauss import (
    GaussValues,
    Parameter,
    domain_of,
    flux,
    gradient_of,
    interpolate,
    parameter_at,
    point_values,
)
from gno.post.stress import Elastic, displacement, stress


@dataclasses.dataclass(frozen=True)
class Resultant:
    """What acts on the body at a set of nodes.

    Args:
        force: in units of stress × area (per thickness for planar meshes).
        moment: about ``about``: one number in the plane, a vector in space.
        about: the point of reference.
        n_nodes: number of nodes that share it.
    """

    force: Float[np.ndarray, " dim"]
    moment: Float[np.ndarray, " turns"]
    about: Float[np.ndarray, " dim"]
    n_nodes: int


def nodal_forces(flux: GaussValues) -> Float[np.ndarray, "n_nodes ..."]:
    """∫ σ·∇N_i: for a stress (…, 3, 3) the force (n_nodes, dim) that holds each node, for a flux (…, dim) a scalar.

    >>> from gno.mesh import CellBlock
    >>> from gno.post.gauss import gradient
    >>> corners = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> mesh = Mesh(corners, (CellBlock("triangle", np.array([[0, 1, 2]])),), {"T": np.array([0.0, 2.0, 0.0])})
    >>> nodal_forces(gradient(mesh, "T")).round(12).tolist()
    [-0.5, 0.5, 0.0]
    """
    dim = flux.domain.cells[0].gradient.shape[-1]
    parts = []
    for cells, here in zip(flux.domain.cells, flux.values, strict=True):
        cut = here[..., :dim] if here.ndim == 3 else here[..., :dim, :dim]
        weighted = cells.weight.numpy()[..., None, None] * cells.gradient.numpy()
        parts.append(np.einsum("cqnj,cq...j->cn...", weighted, cut, optimize=True))
    return sum_at_nodes(flux, parts)


def nodal_load(load: GaussValues) -> Float[np.ndarray, "n_nodes ..."]:
    """∫ f N_i: what a load per volume gives to each node."""
    parts = []
    for cells, here in zip(load.domain.cells, load.values, strict=True):
        parts.append(np.einsum("cq,qn,cq...->cn...", cells.weight.numpy(), cells.shape.numpy(), here, optimize=True))
    return sum_at_nodes(load, parts)


def sum_at_nodes(values: GaussValues, parts: Sequence[np.ndarray]) -> Float[np.ndarray, "n_nodes ..."]:
    """Sum over cells of values (n_cells, n_local, …), one array per cell type, at their nodes."""
    n, tail = values.mesh.n_nodes, parts[0].shape[2:]
    total = np.zeros((n, int(np.prod(tail, dtype=int))))
    for cells, part in zip(values.domain.cells, parts, strict=True):
        columns, nodes = part.reshape(cells.nodes.numel(), -1), cells.nodes.numpy().ravel()
        total += np.stack([np.bincount(nodes, column, minlength=n) for column in columns.T], axis=1)
    return total.reshape(n, *tail)


def reaction(
    mesh: Mesh,
    field: str | Sequence[str],
    material: Elastic,
    set: str,
    *,
    body_force: Sequence[float] | None = None,
    about: Sequence[float] | None = None,
) -> Resultant:
    """Force and moment with which a support holds a body: R = Σ_{i∈S} (∫σ·∇N_i − ∫f N_i).

    Tractions that are applied at the set's own nodes are part of it.

    Args:
        mesh, field, material: see `gno.post.stress.stress`.
        set: name of a point set.
        body_force: force per volume, constant; none by default.
        about: point of reference of the moment; the origin by default.

    Raises:
        ValueError: no such set, or a field that is no displacement.
    """
    nodes = nodes_of(mesh, set)
    forces = nodal_forces(stress(mesh, field, material))
    if body_force is not None:
        if len(body_force) != mesh.dim:
            raise ValueError(f"body_force: expected {mesh.dim} components, got {len(body_force)} ({mesh.source})")
        domain = domain_of(mesh)
        constant = np.broadcast_to(np.asarray(body_force, dtype=np.float64), (mesh.n_nodes, mesh.dim))
        forces = forces - nodal_load(interpolate(mesh, constant, domain))
    return resultant(mesh, forces, nodes, about=about)


def resultant(
    mesh: Mesh,
    forces: Float[np.ndarray, "n_nodes dim"],
    nodes: Int[np.ndarray, " n"],
    *,
    about: Sequence[float] | None = None,
) -> Resultant:
    """Force and moment of forces at some nodes."""
    dim = mesh.dim
    centre = np.zeros(dim) if about is None else np.asarray(about, dtype=np.float64)
    if centre.shape != (dim,):
        raise ValueError(f"about: expected {dim} coordinates, got {list(centre.shape)} ({mesh.source})")
    arm = mesh.points[nodes, :dim].astype(np.float64) - centre
    arm, force = (np.pad(rows, ((0, 0), (0, 3 - dim))) for rows in (arm, forces[nodes]))
    moment = np.cross(arm, force).sum(0)
    return Resultant(forces[nodes].sum(0), moment if dim == 3 else moment[2:], centre, len(nodes))


def heat_flow(mesh: Mesh, field: str, set: str, conductivity: Parameter = 1.0, *, source: Parameter = 0.0) -> float:
    """Heat per time (or volume of water, …) that enters the domain at a set: Σ_{i∈S} (∫k∇T·∇N_i − ∫f N_i).

    Args:
        mesh, field, conductivity: see `gno.post.gauss.flux`.
        set: name of a point set.
        source: f, a number or a field.

    Raises:
        ValueError: no such set or field.
    """
    nodes = nodes_of(mesh, set)
    outward = flux(mesh, field, conductivity)
    made = parameter_at(mesh, source, outward.domain)
    full = (np.broadcast_to(f, cells.weight.shape) for f, cells in zip(made, outward.domain.cells, strict=True))
    made_at_nodes = nodal_load(GaussValues(mesh, outward.domain, tuple(full)))
    return float((-nodal_forces(outward) - made_at_nodes)[nodes].sum())


def fluid_force(
    mesh: Mesh, velocity: str | Sequence[str], pressure: str, set: str, *, viscosity: float, density: float
) -> Resultant:
    """Force of a steady incompressible flow on a body: F = −Σ_{i∈S} ∫ (σ·∇N_i + ρ (u·∇)u N_i).

    σ = −p 1 + μ (∇u + ∇uᵀ)

    Args:
        mesh: the fluid.
        velocity, pressure: fields on nodes.
        set: name of the point set on the body's surface.
        viscosity: dynamic, μ.
        density: ρ.

    Raises:
        ValueError: no such set or field.

    Source: Babuška and Miller, The post-processing approach in the finite element method, part 1 (1984).
    """
    nodes, u = nodes_of(mesh, set), displacement(mesh, velocity)
    domain = domain_of(mesh)
    slope, speed = gradient_of(mesh, u, domain), interpolate(mesh, u, domain)
    push = interpolate(mesh, point_values(mesh, pressure)[:, 0], domain)
    shear = slope.map(lambda g: viscosity * (g + np.swapaxes(g, -1, -2)))
    total = shear.join(push, lambda s, p: s - p[..., None, None] * np.eye(mesh.dim))
    inertia = slope.join(speed, lambda g, v: density * np.einsum("cqij,cqj->cqi", g, v))
    return resultant(mesh, -(nodal_forces(total) + nodal_load(inertia)), nodes)


def coefficients(
    force: Float[np.ndarray, " dim"],
    *,
    speed: float,
    length: float,
    density: float,
    flow: Sequence[float] | None = None,
    up: Sequence[float] | None = None,
) -> tuple[float, float]:
    """Coefficients of drag and lift, c = 2F/(ρU²L).

    Args:
        force: on the body.
        speed: U, of the free flow.
        length: L, or the area of reference in 3-D.
        density: ρ.
        flow, up: directions of drag and lift; x and y by default.

    >>> coefficients(np.array([1.0, 0.5]), speed=1.0, length=2.0, density=1.0)
    (1.0, 0.5)
    """
    scale = density * speed**2 * length / 2
    axes = np.eye(len(force))
    along = axes[0] if flow is None else np.asarray(flow) / np.linalg.norm(flow)
    across = axes[1] if up is None else np.asarray(up) / np.linalg.norm(up)
    return float(force @ along / scale), float(force @ across / scale)


def nodes_of(mesh: Mesh, set: str) -> Int[np.ndarray, " n"]:
    """The nodes of a point set.

    Raises:
        ValueError: no such set.
    """
    if set not in mesh.point_sets:
        known = ", ".join(mesh.point_sets) or "(no sets)"
        raise ValueError(f"set '{set}': expected one of {known}, got none of them ({mesh.source})")
    return mesh.point_sets[set]
