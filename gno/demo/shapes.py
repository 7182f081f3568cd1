"""Random smooth shapes, and triangle meshes of regions that they bound."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int

# Debian's names of what gmsh links to and a slim container lacks.
GRAPHICS_LIBRARIES = "libgl1 libglu1-mesa libxcursor1 libxft2 libxinerama1 libxrender1 libgomp1"


@dataclasses.dataclass(frozen=True)
class Star:
    """A smooth closed curve around a centre, r(θ) = r₀ (1 + Σ_k a_k cos kθ + b_k sin kθ).

    Args:
        center: where θ turns around.
        radius: mean radius r₀.
        cosine: a_k for k = 2, 3, …; k = 1 would only shift the curve.
        sine: b_k for k = 2, 3, …

    >>> circle = Star(np.zeros(2), 2.0, np.zeros(3), np.zeros(3))
    >>> bool(np.allclose(np.linalg.norm(circle.polygon(0.1), axis=1), 2.0))
    True
    """

    center: Float[np.ndarray, " 2"]
    radius: float
    cosine: Float[np.ndarray, " n_modes"]
    sine: Float[np.ndarray, " n_modes"]

    def radii(self, angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """r(θ), in the unit of the mean radius."""
        phase = np.outer(angle, np.arange(2, 2 + len(self.cosine)))
        return self.radius * (1 + np.cos(phase) @ self.cosine + np.sin(phase) @ self.sine)

    @property
    def outer_radius(self) -> float:
        """Radius of the smallest circle around the centre that holds the curve."""
        return float(self.radii(np.linspace(0, 2 * np.pi, 720)).max())

    def points(self, angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """Points of the curve at the angles θ."""
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return self.center + self.radii(angle)[:, None] * direction

    def polygon(self, spacing: float, sharpest: float = 3.0) -> Float[np.ndarray, "n 2"]:
        """Points on the curve, counter-clockwise, about `spacing` apart, up to `sharpest` times closer in bends."""
        curve = self.points(np.linspace(0, 2 * np.pi, 1441))
        step = np.diff(curve, axis=0)
        heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
        curvature = np.abs(np.gradient(heading)) / np.linalg.norm(step, axis=1)
        return divide(curve, spacing / np.clip(self.radius * curvature / 2, 1, sharpest))[:-1]

    def contains(self, points: Float[np.ndarray, "n 2"]) -> np.ndarray:
        """Which points lie inside the curve."""
        offset = points - self.center
        return np.hypot(*offset.T) < self.radii(np.arctan2(offset[:, 1], offset[:, 0]))


def random_star(
    rng: np.random.Generator, center: Float[np.ndarray, " 2"], radius: float, *, roughness: float = 0.25
) -> Star:
    """A star of random shape, scaled so that the radius stays within 40 % of its mean.

    Args:
        rng: source of randomness.
        center: centre of the star.
        radius: mean radius.
        roughness: standard deviation of the relative amplitude of mode k is roughness / k.
    """
    modes = np.arange(2, 6)
    cosine, sine = rng.normal(size=(2, len(modes))) * roughness / modes
    largest = np.abs(Star(center, 1.0, cosine, sine).radii(np.linspace(0, 2 * np.pi, 720)) - 1).max()
    scale = min(1.0, 0.4 / largest)
    return Star(np.asarray(center, float), float(radius), cosine * scale, sine * scale)


def scatter_stars(
    rng: np.random.Generator,
    n: int,
    *,
    box: Float[np.ndarray, "2 2"],
    radius: tuple[float, float],
    gap: float,
    inside: Callable[[Float[np.ndarray, "m 2"]], np.ndarray],
) -> tuple[Star, ...]:
    """Stars that keep a gap between each other's outer circles, and from those to the border of a region.

    Args:
        rng: source of randomness.
        n: number of stars; there has to be room for them.
        box: lowest and highest coordinates of the centres.
        radius: smallest and largest mean radius.
        gap: smallest distance.
        inside: which points lie in the region.
    """
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    while True:
        stars: list[Star] = []
        for _ in range(50 * n):  # then anew, because the first stars may have left no room
            if len(stars) == n:
                break
            star = random_star(rng, rng.uniform(*box), rng.uniform(*radius))
            reach = star.outer_radius + gap
            apart = [np.linalg.norm(star.center - other.center) - other.outer_radius for other in stars]
            if min(apart, default=np.inf) > reach and inside(star.center + reach * circle).all():
                stars.append(star)
        if len(stars) == n:
            return tuple(stars)


def divide(curve: Float[np.ndarray, "n 2"], size: Float[np.ndarray, " n-1"]) -> Float[np.ndarray, "m 2"]:
    """Points along a curve, with its ends, spaced by the wanted size at each place.

    Args:
        curve: points that follow the curve closely.
        size: wanted distance of neighbours on each segment; scaled a little, so that the steps add up.

    >>> line = np.linspace((0, 0), (1, 0), 101)
    >>> divide(line, np.full(100, 0.4))[:, 0].round(12).tolist()
    [0.0, 0.5, 1.0]
    """
    count = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1) / size)])
    at = np.linspace(0, count[-1], max(1, round(count[-1])) + 1)
    return np.stack([np.interp(at, count, x) for x in curve.T], axis=1)


def triangulate(
    outline: Float[np.ndarray, "n 2"], holes: Sequence[Float[np.ndarray, "_ 2"]] = ()
) -> tuple[Float[np.ndarray, "n_nodes 2"], Int[np.ndarray, "n_cells 3"]]:
    """Triangles inside a polygon and outside its holes, by gmsh; sizes spread from the boundary inwards.

    Args:
        outline: corners of the polygon; every segment becomes one facet.
        holes: corners of the holes, likewise.

    Returns:
        Nodes, those of `outline` and `holes` first and in their order, and counter-clockwise triangles.

    >>> nodes, triangles = triangulate(np.array([[0, 0], [1, 0], [0, 1]]))
    >>> nodes.shape, triangles.shape
    ((3, 2), (1, 3))
    """
    loops = [np.asarray(outline, float), *(np.asarray(hole, float) for hole in holes)]
    with silent_gmsh() as gmsh:
        gmsh.model.geo.addPlaneSurface([_add_loop(gmsh, loop) for loop in loops], 1)
        gmsh.model.geo.synchronize()
        gmsh.model.mesh.generate(2)
        tags, xyz, _ = gmsh.model.mesh.getNodes()
        _, corners = gmsh.model.mesh.getElementsByType(2)
    nodes = xyz.reshape(-1, 3)[np.argsort(tags), :2]
    triangles = np.searchsorted(np.sort(tags), corners).reshape(-1, 3)
    return np.ascontiguousarray(nodes), _counter_clockwise(nodes, triangles)


def _add_loop(gmsh, loop: Float[np.ndarray, "n 2"]) -> int:
    """Adds a closed polygon whose segments stay whole; gmsh takes the sizes inside from their lengths."""
    after = np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1)
    size = (after + np.roll(after, 1)) / 2
    points = [gmsh.model.geo.addPoint(x, y, 0.0, h) for (x, y), h in zip(loop, size, strict=True)]
    lines = [gmsh.model.geo.addLine(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True)]
    for line in lines:
        gmsh.model.geo.mesh.setTransfiniteCurve(line, 2)
    return gmsh.model.geo.addCurveLoop(lines)


def _counter_clockwise(nodes: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = nodes[triangles].transpose(1, 0, 2)
    clockwise = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    return np.where(clockwise[:, None], triangles[:, ::-1], triangles).astype(np.int64)


def _gmsh() -> ModuleType:
    """gmsh, imported where it is needed: it wants graphics libraries that a compute node may lack.

    Raises:
        OSError: they are missing; the message says what to install.
    """
    try:
        import gmsh
    except (ImportError, OSError) as error:
        raise OSError(
            f"gmsh, which makes the meshes of the demo, cannot be loaded ({error}); on Debian or Ubuntu: "
            f"apt-get install {GRAPHICS_LIBRARIES}"
        ) from None
    return gmsh


def _ignore_broken_pipes() -> None:
    """Undo what gmsh does to SIGPIPE: a broken pipe is an exception in Python, and must not end the process."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.getsignal(signal.SIGPIPE))


@contextmanager
def silent_gmsh() -> Iterator:
    """gmsh with a model of its own; leaves a gmsh that was already running as it was."""
    gmsh = _gmsh()
    running = bool(gmsh.isInitialized())
    if not running:
        # Without gmsh's signal handler Ctrl-C reaches Python; without user files meshes are the same everywhere.
        gmsh.initialize(readConfigFiles=False, interruptible=False)
        _ignore_broken_pipes()
    terminal, current = gmsh.option.getNumber("General.Terminal"), gmsh.model.getCurrent()
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add("region")
    try:
        yield gmsh
    finally:
        gmsh.model.remove()
        gmsh.option.setNumber("General.Terminal", terminal)
        if not running:
            gmsh.finalize()
        elif current:
            gmsh.model.setCurrent(current)
