"""Strain, stress and strain energy of a displacement: small strains, Hooke's law."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from gno.mesh import Mesh
from gno.post.gauss import GaussValues, Parameter, domain_of, gradient_of, integral, parameter_at, point_values


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Isotropic linear elasticity.

    Args:
        young: Young's modulus E in units of stress, a number or a field.
        poisson: Poisson's ratio ν, a number or a field.
        plane: what a planar mesh stands for: ``"stress"`` (σ_zz = 0, a thin plate) or ``"strain"`` (ε_zz = 0, a
            long body); None for solids.

    Raises:
        ValueError: a modulus that is not positive, or −1 < ν < ½ violated.
    """

    young: Parameter
    poisson: Parameter
    plane: Literal["stress", "strain"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.young, str) and not self.young > 0:
            raise ValueError(f"young: expected a positive modulus, got {self.young:g}")
        if not isinstance(self.poisson, str) and not -1 < self.poisson < 0.5:
            raise ValueError(f"poisson: expected a ratio above −1 and below ½, got {self.poisson:g}")
        if self.plane not in ("stress", "strain", None):
            raise ValueError(f"plane: expected 'stress', 'strain' or None, got {self.plane!r}")


def strain(
    mesh: Mesh, field: str | Sequence[str], material: Elastic | None = None, order: int | None = None
) -> GaussValues:
    """ε = (∇u + ∇uᵀ)/2 at the integration points, (n_cells, n_points, 3, 3).

    Args:
        mesh: a mesh whose cells fill the space that it lies in.
        field: displacement on nodes: a vector field, or the names of its components; a third component of a planar
            mesh is ignored.
        material: for plane stress, which strains the plate in z: ε_zz = −ν/(1−ν) (ε_xx + ε_yy). Otherwise ε_zz = 0
            in the plane.
        order: see `gno.post.gauss.gradient`.

    Raises:
        ValueError: a displacement with too few components, a surface in 3-D, plane stress of a solid.
    """
    u = displacement(mesh, field)
    domain = domain_of(mesh, order)
    _check_plane(mesh, domain.cells[0].gradient.shape[-1], material)
    plain = gradient_of(mesh, u, domain).map(_symmetric)
    if material is None or material.plane != "stress":
        return plain
    nu = GaussValues(mesh, domain, parameter_at(mesh, material.poisson, domain))
    return plain.join(nu, _thinned)


def stress(mesh: Mesh, field: str | Sequence[str], material: Elastic, order: int | None = None) -> GaussValues:
    """σ = λ tr(ε) 1 + 2μ ε at the integration points, (n_cells, n_points, 3, 3), in units of Young's modulus.

    λ = Eν/((1+ν)(1−2ν)), μ = E/(2(1+ν)). In plane stress ε_zz makes σ_zz vanish; in plane strain
    σ_zz = ν(σ_xx + σ_yy) counts in every invariant.

    Args:
        mesh, field, order: see `strain`.
        material: the law; its ``plane`` has to be given for planar meshes.

    Raises:
        ValueError: as `strain`, and a planar mesh without ``plane``.
    """
    if mesh.dim == 2 and material.plane is None:
        raise ValueError(f"plane: expected 'stress' or 'strain' for a planar mesh, got none ({mesh.source})")
    return hooke(strain(mesh, field, material, order), material)


def hooke(strain: GaussValues, material: Elastic) -> GaussValues:
    """Stress from strain, both (n_cells, n_points, 3, 3)."""
    young = parameter_at(strain.mesh, material.young, strain.domain)
    poisson = parameter_at(strain.mesh, material.poisson, strain.domain)
    values = []
    for e, modulus, nu in zip(strain.values, young, poisson, strict=True):
        trace = np.trace(e, axis1=-2, axis2=-1)
        pressure = modulus * nu / ((1 + nu) * (1 - 2 * nu)) * trace
        values.append(pressure[..., None, None] * np.eye(3) + (modulus / (1 + nu))[..., None, None] * e)
    return dataclasses.replace(strain, values=tuple(values))


def compliance(stress: GaussValues, material: Elastic) -> GaussValues:
    """Strain from stress, ε = ((1+ν) σ − ν tr(σ) 1)/E."""
    young = parameter_at(stress.mesh, material.young, stress.domain)
    poisson = parameter_at(stress.mesh, material.poisson, stress.domain)
    values = []
    for s, modulus, nu in zip(stress.values, young, poisson, strict=True):
        trace = np.trace(s, axis1=-2, axis2=-1)
        sphere = (nu / modulus * trace)[..., None, None] * np.eye(3)
        values.append(((1 + nu) / modulus)[..., None, None] * s - sphere)
    return dataclasses.replace(stress, values=tuple(values))


def strain_energy(mesh: Mesh, field: str | Sequence[str], material: Elastic) -> float:
    """½ ∫ σ:ε; per thickness for planar meshes."""
    return float(integral(energy_density(mesh, field, material)))


def energy_density(mesh: Mesh, field: str | Sequence[str], material: Elastic) -> GaussValues:
    """½ σ:ε at the integration points."""
    e = strain(mesh, field, material)
    return e.join(hooke(e, material), lambda a, b: np.einsum("...ij,...ij->...", a, b) / 2)


def displacement(mesh: Mesh, field: str | Sequence[str]) -> Float[np.ndarray, "n_nodes dim"]:
    """The vector field without components that leave the plane of a planar mesh.

    Raises:
        ValueError: too few components.
    """
    u = point_values(mesh, field)
    if not mesh.dim <= u.shape[1] <= 3:
        raise ValueError(f"field '{field}': expected {mesh.dim} components, got {u.shape[1]} ({mesh.source})")
    return u[:, : mesh.dim]


def _check_plane(mesh: Mesh, dim: int, material: Elastic | None) -> None:
    from gno.mesh.geometry import domain_dim

    if domain_dim(mesh) != dim or mesh.dim == 1:
        got = f"cells of dimension {domain_dim(mesh)} in {mesh.dim}-D"
        raise ValueError(f"strain: expected cells that fill the plane or the space, got {got} ({mesh.source})")
    if material is not None and material.plane is not None and mesh.dim == 3:
        raise ValueError(f"plane: expected none for a solid, got '{material.plane}' ({mesh.source})")


def _symmetric(slope: np.ndarray) -> np.ndarray:
    """ε in three dimensions from ∇u in two or three."""
    rest = 3 - slope.shape[-1]
    padded = np.pad(slope, ((0, 0), (0, 0), (0, rest), (0, rest)))
    return (padded + np.swapaxes(padded, -1, -2)) / 2


def _thinned(strain: np.ndarray, nu: np.ndarray) -> np.ndarray:
    strain = strain.copy()
    strain[..., 2, 2] = -nu / (1 - nu) * (strain[..., 0, 0] + strain[..., 1, 1])
    return strain
