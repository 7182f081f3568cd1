"""Flow around airfoils on graded meshes: potential flow with circulation, known in closed form.

Kármán–Trefftz airfoils of random thickness, camber and trailing edge at random angles of attack. Cells grow with the
distance from the airfoil, some hundredfold from the trailing edge to the outer boundary, as meshes of external
aerodynamics do. Milne-Thomson, Theoretical Aerodynamics, 1973, sections 7.2 to 7.3.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from jaxtyping import Complex, Float

from gno.mesh import CellBlock, Mesh

SPACING = 2 * np.pi / 64  # of the nodes on the circle that becomes the airfoil: about 2,000 nodes
OUTER = 20.0  # radius of the domain in radii of that circle, which are about a quarter of the chord
JITTER = 0.2  # of the inner nodes, in spacings


@dataclasses.dataclass(frozen=True)
class Airfoil:
    """A circle through 1 that the map of Kármán and Trefftz turns into an airfoil.

    Args:
        centre: of the circle. exponent: 2 for a cusp, less for an edge with an angle. attack: of the flow far away.
    """

    centre: complex
    exponent: float
    attack: float

    @property
    def radius(self) -> float:
        return abs(1 - self.centre)

    def place(self, zeta: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " n"]:
        """Where points outside of the circle come to lie."""
        one, two = (1 + 1 / zeta) ** self.exponent, (1 - 1 / zeta) ** self.exponent
        return self.exponent * (one + two) / (one - two)

    def velocity(self, zeta: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " n"]:
        """u + iv of the flow of unit speed that leaves the trailing edge smoothly."""
        n, z = self.exponent, zeta - self.centre
        turn = np.exp(1j * self.attack)
        circulation = 4 * np.pi * self.radius * np.sin(self.attack - np.angle(1 - self.centre))
        around = 1 / turn - self.radius**2 * turn / z**2 + 1j * circulation / (2 * np.pi * z)
        one, two = (1 + 1 / zeta) ** n, (1 - 1 / zeta) ** n
        stretch = 4 * n**2 / (zeta**2 - 1) * one * two / (one - two) ** 2
        return np.conj(around / stretch)


def airfoil(seed: int, spacing: float = SPACING) -> Mesh:
    """∇·u = 0, ∇×u = 0 around an airfoil, u = (cos α, sin α) far away, finite at the trailing edge.

    Global field `inflow` (2), the velocity far away; point fields `velocity` (n, 2) and `pressure`, its coefficient
    1 − |u|²; point sets `airfoil` and `outer`.
    """
    start = time.process_time()
    shape, zeta, triangles, inner, outer = random_grid(seed, spacing)
    place, velocity = shape.place(zeta), shape.velocity(zeta)
    seconds = time.process_time() - start
    return Mesh(
        _columns(place),
        (CellBlock("triangle", triangles),),
        point_fields={"velocity": _columns(velocity), "pressure": 1 - np.abs(velocity) ** 2},
        global_fields={
            "inflow": np.array([np.cos(shape.attack), np.sin(shape.attack)]),
            "solver_seconds": np.array(seconds),
        },
        point_sets={"airfoil": inner, "outer": outer},
        source=f"airfoil {seed}",
    )


def random_airfoil(seed: int) -> Airfoil:
    """Draws airfoil number `seed`: 6 to 20 % thick, cambered up to 8 %, between −5° and 12° to the flow."""
    rng = np.random.default_rng([seed, 0xF011])
    centre = complex(-rng.uniform(0.04, 0.16), rng.uniform(-0.02, 0.16))
    return Airfoil(centre, 2 - rng.uniform(0.02, 0.12), np.deg2rad(rng.uniform(-5, 12)))


def random_grid(seed: int, spacing: float) -> tuple[Airfoil, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The airfoil, nodes around the circle in rings whose distance grows with the radius, triangles, and both ends."""
    shape, rng = random_airfoil(seed), np.random.default_rng([seed, 0x617D])
    around, rings = round(2 * np.pi / spacing), round(np.log(OUTER) / spacing) + 1
    ring, step = np.divmod(np.arange(rings * around), around)
    angle, log_radius = (step + 0.5) * 2 * np.pi / around, ring * np.log(OUTER) / (rings - 1)
    inside = (ring > 0) & (ring < rings - 1)
    angle += inside * rng.uniform(-JITTER, JITTER, ring.size) * spacing
    log_radius += inside * rng.uniform(-JITTER, JITTER, ring.size) * spacing
    edge = np.angle(1 - shape.centre)  # no node lies on the trailing edge itself, where the map has no slope
    zeta = shape.centre + shape.radius * np.exp(log_radius + 1j * (angle + edge))
    a = np.flatnonzero(ring < rings - 1)
    b, c = ring[a] * around + (step[a] + 1) % around, a + around
    d = b + around
    flip = rng.random(a.size) < 0.5
    first = np.where(flip[:, None], np.stack([a, d, b], 1), np.stack([a, c, b], 1))
    second = np.where(flip[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    return shape, zeta, np.concatenate([first, second]), np.flatnonzero(ring == 0), np.flatnonzero(ring == rings - 1)


def _columns(values: Complex[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    return np.stack([values.real, values.imag], axis=1)
