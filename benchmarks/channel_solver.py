"""Turbulence between two walls, by direct simulation of a small periodic box: `python benchmarks/channel_solver.py`.

    ∂u/∂t = u × ω − ∇p + ν ∇²u + Π(t) x̂,     ∇·u = 0,     u(y = ±1) = 0

in a box π × 2 × π/2 with the mean velocity held at one and Re = U h/ν = 2800. It is small, but wider than the smallest
one that keeps turbulence alive, some 100 viscous lengths (Jiménez & Moin 1991, J. Fluid Mech. 225, 213). In v
and η = ∂z u − ∂x w of Kim, Moin & Moser (1987, J. Fluid Mech. 177, 133), which know no pressure,

    ∂t ∇²v = h_v + ν ∇⁴v,     ∂t η = h_η + ν ∇²η,     v = ∂y v = η = 0 at the walls,

with Fourier modes along x and z, products on a grid half as fine again, and Chebyshev points across. Steps are those of
Spalart, Moser & Rogers (1991, J. Comput. Phys. 96, 297): third order for h, second and implicit for ν. Both equations
are linear in what is new, so a step is one matrix for each wave number, made once.

It runs to a state of turbulence and on, some 6 minutes of one thread, keeps snapshots in `.cache/channel`, goes on
where it was stopped, and prints statistics beside published ones (results/channel_solver.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float, Int

CACHE = Path(__file__).parent / ".cache" / "channel"
RESULTS = Path(__file__).parent / "results" / "channel_solver.md"

# Shares of viscosity before and after each third of a step, of h and of the h before.
BEFORE, AFTER = (29 / 96, -3 / 40, 1 / 6), (37 / 160, 5 / 24, 1 / 6)
NOW, LAST = (8 / 15, 5 / 12, 3 / 4), (0.0, -17 / 60, -5 / 12)

# Snapshots in units of h/U, and the step, a divisor of that; the first ones are on the way to turbulence.
EVERY, STEP, COUNT, FIRST = 1.0, 1 / 32, 200, 60

Field = Complex[np.ndarray, "n_x n_z n_y"]


@dataclasses.dataclass(frozen=True)
class Channel:
    """Box, resolution and fluid.

    Args:
        n_modes: wave numbers along x are −n … n of 2π/L; along z 0 … n, the others are their conjugates.
        n_y: Chebyshev points across, walls included.
        lengths: of the box along x and z, in half heights.
        viscosity: ν.
        bulk: mean velocity, held.
        frame: velocity of the grid along x. It changes nothing but how long a step may be.
    """

    n_modes: tuple[int, int] = (15, 15)
    n_y: int = 65
    lengths: tuple[float, float] = (np.pi, np.pi / 2)
    viscosity: float = 1 / 2800
    bulk: float = 1.0
    frame: float = 0.6


class State(NamedTuple):
    """∇²v and η by wave number; η of wave number zero is the mean U + iW."""

    laplacian: Field
    eta: Field


def chebyshev(n: int) -> tuple[Float[np.ndarray, n], Float[np.ndarray, "n n"], Float[np.ndarray, n]]:
    """Points from 1 to −1, their matrix of derivatives, and weights of integrals (Trefethen 2000, Spectral Methods)."""
    angle = np.pi * np.arange(n) / (n - 1)
    y = np.cos(angle)
    sign = np.where(np.arange(n) % (n - 1), 1.0, 2.0) * (-1.0) ** np.arange(n)
    # y_i − y_j as a product of sines: no digits are lost where points are close.
    gap = 2 * np.sin((angle[None] + angle[:, None]) / 2) * np.sin((angle[None] - angle[:, None]) / 2)
    derivative = sign[:, None] / sign / (gap + np.eye(n))
    np.fill_diagonal(derivative, 0.0)
    np.fill_diagonal(derivative, -derivative.sum(1))
    degree = np.arange(0, n, 2)
    # ∫ T_k = 2/(1 − k²) for even k.
    weights = np.linalg.solve(np.cos(np.outer(np.arange(n), angle)), _moments(n, degree))
    return y, derivative, weights


def _moments(n: int, even: np.ndarray) -> np.ndarray:
    moments = np.zeros(n)
    moments[even] = 2 / (1 - even**2.0)
    return moments


def wave_numbers(count: int) -> Int[np.ndarray, count]:
    """0, 1, …, n, −n, …, −1, which as indices find their place in a longer list, too."""
    return np.fft.fftfreq(count, 1 / count).astype(int)


def apply(matrix: np.ndarray, field: Field) -> Field:
    """A real matrix, or one for each wave number, times values across."""
    parts = np.ascontiguousarray(field).view(float).reshape(*field.shape, 2)
    return np.ascontiguousarray(matrix @ parts).view(complex)[..., 0]


class Solver:
    """Steps of one length for one channel.

    Args:
        channel: what is simulated.
        step: Δt.
    """

    def __init__(self, channel: Channel, step: float) -> None:
        self.channel, self.step = channel, step
        self.y, self.d, self.weights = chebyshev(channel.n_y)
        self.d2 = self.d @ self.d
        n_x, n_z = channel.n_modes
        self.rows = wave_numbers(2 * n_x + 1)
        self.kx = (2 * np.pi / channel.lengths[0] * self.rows)[:, None, None]
        self.kz = (2 * np.pi / channel.lengths[1] * np.arange(n_z + 1))[None, :, None]
        self.k2 = self.kx**2 + self.kz**2
        self.grid = tuple(3 * (n + 1) for n in channel.n_modes)
        every = self.k2[..., None]
        self.poisson = _dirichlet(self.d2 - every * np.eye(channel.n_y))
        self.implicit = [self._implicit(share) for share in AFTER]

    def _implicit(self, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What follows from a right side: ∇²v and η; and U of a unit force."""
        ny, diffusion = self.channel.n_y, share * self.step * self.channel.viscosity
        inverse = np.linalg.inv(_with_walls(np.eye(ny) - diffusion * (self.d2 - self.k2[..., None] * np.eye(ny))))
        eta = inverse.copy()
        eta[..., [0, -1]] = 0.0
        # ∇²v at the walls is whatever makes ∂v/∂y vanish there: two unknowns, two equations.
        slope = self.d[[0, -1]] @ self.poisson @ inverse
        walls = -np.linalg.solve(slope[..., [0, -1]], slope)
        walls[..., [0, -1]] = 0.0
        laplacian = eta + inverse[..., [0, -1]] @ walls
        return laplacian, eta, eta[0, 0].sum(1)

    # ── fields ──

    def velocity(self, state: State) -> tuple[Field, Field, Field]:
        """u, v and w by wave number."""
        v = apply(self.poisson, state.laplacian)
        v[0, 0] = 0.0
        slope, k2 = apply(self.d, v), np.where(self.k2 == 0, 1.0, self.k2)
        u = 1j * (self.kx * slope - self.kz * state.eta) / k2
        w = 1j * (self.kz * slope + self.kx * state.eta) / k2
        u[0, 0], w[0, 0] = state.eta[0, 0].real, state.eta[0, 0].imag
        return u, v, w

    def physical(self, field: Field, shape: tuple[int, int] | None = None) -> Float[np.ndarray, "n_x n_z n_y"]:
        """Values on a grid of any fineness."""
        shape = shape or self.grid
        padded = np.zeros((shape[0], shape[1] // 2 + 1, field.shape[-1]), complex)
        padded[self.rows, : field.shape[1]] = field
        return torch.fft.irfft2(torch.from_numpy(padded), shape, dim=(0, 1), norm="forward").numpy()

    def spectral(self, values: Float[np.ndarray, "n_x n_z n_y"]) -> Field:
        """The opposite of `physical`."""
        found = torch.fft.rfft2(torch.from_numpy(values), dim=(0, 1), norm="forward").numpy()
        return found[self.rows, : self.channel.n_modes[1] + 1]

    # ── steps ──

    def forces(self, velocity: tuple[Field, Field, Field], eta: Field) -> tuple[list[Field], float]:
        """u × ω, seen from the moving grid, and the greatest Σ|u_i| k_i."""
        u, v, w = velocity
        b = eta.copy()
        b[0, 0] = 0.0
        vorticity = apply(self.d, w) - 1j * self.kz * v, b, 1j * self.kx * v - apply(self.d, u)
        u, v, w, a, b, c = (self.physical(field) for field in (u, v, w, *vorticity))
        u = u - self.channel.frame
        speed = np.abs(u) * self.kx.max() + np.abs(w) * self.kz.max()
        return [self.spectral(part) for part in (v * c - w * b, w * a - u * c, u * b - v * a)], float(speed.max())

    def advection(self, state: State) -> tuple[State, float]:
        """h_v and h_η, with the force on the mean in the place of wave number zero; and the greatest Σ|u_i| k_i."""
        (x, y, z), speed = self.forces(self.velocity(state), state.eta)
        eta = 1j * (self.kz * x - self.kx * z)
        eta[0, 0] = x[0, 0].real + 1j * z[0, 0].real
        return State(-apply(self.d, 1j * (self.kx * x + self.kz * z)) - self.k2 * y, eta), speed

    def diffusion(self, field: Field) -> Field:
        """ν ∇²."""
        return self.channel.viscosity * (apply(self.d2, field) - self.k2 * field)

    def advance(self, state: State) -> tuple[State, float]:
        """One step; and Δt Σ|u_i| k_i, which has to stay below √3."""
        last, largest = State(np.zeros_like(state.eta), np.zeros_like(state.eta)), 0.0
        for stage, (laplacian, eta, unit) in enumerate(self.implicit):
            now, speed = self.advection(state)
            new = [
                old + self.step * (BEFORE[stage] * self.diffusion(old) + NOW[stage] * h + LAST[stage] * before)
                for old, h, before in zip(state, now, last, strict=True)
            ]
            state = State(apply(laplacian, new[0]), apply(eta, new[1]))
            state.laplacian[0, 0] = 0.0
            missing = self.channel.bulk - self.weights @ state.eta[0, 0].real / 2
            state.eta[0, 0] += missing / (self.weights @ unit / 2) * unit
            last, largest = now, max(largest, speed)
        return state, self.step * largest

    # ── what is measured ──

    def divergence(self, state: State) -> float:
        """Largest |∂u/∂x + ∂v/∂y + ∂w/∂z| over the largest of its terms."""
        u, v, w = self.velocity(state)
        parts = 1j * self.kx * u, apply(self.d, v), 1j * self.kz * w
        return float(np.abs(sum(parts)).max() / max(np.abs(part).max() for part in parts))

    def wall(self, state: State) -> Complex[np.ndarray, "n_x n_z 2 3"]:
        """∂u/∂n, ∂w/∂n (n into the fluid) and p at both walls, y = −1 first, by wave number.

        At a wall ∇p = ν ∂²u/∂y² along it.
        """
        u, _, w = self.velocity(state)
        first, second = np.stack([self.d[-1], -self.d[0]]), self.d2[[-1, 0]]
        slopes = [field @ first.T for field in (u, w)]
        k2 = np.where(self.k2 == 0, 1.0, self.k2)
        pressure = -1j * self.channel.viscosity * (self.kx * (u @ second.T) + self.kz * (w @ second.T)) / k2
        pressure[0, 0] = 0.0
        return np.stack([*slopes, pressure], -1)


def _with_walls(matrix: np.ndarray) -> np.ndarray:
    """The equation at the walls says what the value is."""
    matrix = matrix.copy()
    matrix[..., [0, -1], :] = 0.0
    matrix[..., 0, 0] = matrix[..., -1, -1] = 1.0
    return matrix


def _dirichlet(matrix: np.ndarray) -> np.ndarray:
    """The inverse for values that are zero at the walls."""
    inverse = np.linalg.inv(_with_walls(matrix))
    inverse[..., [0, -1]] = 0.0
    return inverse


def disturbed(solver: Solver, size: float, seed: int) -> State:
    """A flat mean profile with large waves of random phase on it."""
    rng, channel = np.random.default_rng(seed), solver.channel
    long = np.exp(-16 * ((solver.kx / solver.kx.max()) ** 2 + (solver.kz / solver.kz.max()) ** 2))
    across = np.polynomial.chebyshev.chebvander(solver.y, 3)

    def waves(order: int) -> Field:
        phases = rng.normal(size=(2, *long.shape[:2], across.shape[1])).T
        field = long * ((phases[..., 0] + 1j * phases[..., 1]).T @ across.T) * (1 - solver.y**2) ** order
        return solver.spectral(solver.physical(field))  # of which k and −k are conjugates

    v, eta = size * waves(2), 5 * size * waves(1)
    eta[0, 0] = 1 - solver.y**8
    eta[0, 0] *= channel.bulk / (solver.weights @ eta[0, 0].real / 2)
    laplacian = apply(solver.d2, v) - solver.k2 * v
    laplacian[0, 0] = 0.0
    return State(laplacian, eta)


# ── the run ──


def snapshots(folder: Path) -> list[Path]:
    """What a run has left so far, in the order of time."""
    return sorted(folder.glob("[0-9]*.npz"))


def save(state: State, path: Path) -> None:
    """A state in single precision, in another file first."""
    temporary = path.with_name("next.tmp.npz")
    np.savez(temporary, **{key: part.astype(np.complex64) for key, part in state._asdict().items()})
    temporary.replace(path)


def load(path: Path) -> State:
    """A state from its file."""
    with np.load(path) as stored:
        return State(*(stored[name].astype(complex) for name in State._fields))


def run(solver: Solver, folder: Path, count: int, every: float = EVERY) -> None:
    """Snapshots 0 … count − 1, `every` apart; goes on from the last one that is there.

    Raises:
        FloatingPointError: a step that was too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = snapshots(folder)
    state = load(known[-1]) if known else disturbed(solver, 0.02, seed=0)
    for number in range(len(known), count):
        largest = 0.0
        for _ in range(round(every / solver.step) if number else 0):
            state, courant = solver.advance(state)
            largest = max(largest, courant)
        if not np.isfinite(state.eta).all():
            raise FloatingPointError(f"step: expected one that is stable, got {solver.step:g} ({folder}, {number})")
        save(state, folder / f"{number:05d}.npz")
        re_tau = np.sqrt(solver.wall(state)[0, 0, :, 0].real.clip(0) / solver.channel.viscosity)
        line = f"{number:5d} t = {number * every:6.1f}  Re_tau {re_tau.round(1)}  courant {largest:.2f}"
        print(f"{line}  {time.process_time():.0f} s", flush=True)


# ── statistics ──


def symmetric(profile: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """The mean over both halves; sign −1 for what turns its sign at the centre."""
    return (profile + sign * profile[..., ::-1]) / 2


def statistics(solver: Solver, states: Iterable[State]) -> dict[str, np.ndarray]:
    """Mean velocity U, mean products uu, vv, ww and uv of fluctuations, and ∂U/∂n at both walls."""
    rows = []
    for state in states:
        u, v, w = solver.velocity(state)
        mean = u[0, 0].real
        conjugates = np.where(solver.kz > 0, 2.0, 1.0)  # the wave numbers that are not kept

        def product(a: Field, b: Field, weight: np.ndarray = conjugates) -> np.ndarray:
            return ((a * b.conj()).real * weight).sum((0, 1))

        values = {"U": mean, "uu": product(u, u), "vv": product(v, v), "ww": product(w, w), "uv": product(u, v)}
        values["wall"] = solver.wall(state)[0, 0, :, 0].real
        rows.append(values)
    found = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    return {**found, "uu": found["uu"] - found["U"] ** 2}


def in_wall_units(solver: Solver, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Profiles over y⁺ from wall to centre, the mean of both halves."""
    nu, half = solver.channel.viscosity, slice(len(solver.y) // 2, None)
    friction = np.sqrt(nu * found["wall"].mean())
    slope = solver.d @ found["U"]
    profiles = {
        "y": (1 + solver.y) * friction / nu,
        "U": symmetric(found["U"]) / friction,
        **{name: np.sqrt(symmetric(found[2 * name])) / friction for name in "uvw"},
        "uv": symmetric(found["uv"], -1.0) / friction**2,
        "total": symmetric(nu * slope - found["uv"], -1.0) / friction**2,
    }
    return {name: profile[half][::-1] for name, profile in profiles.items()} | {"re_tau": friction / nu}


# A box 4π × 2 × 2π at nearly the same Re: Moser, Kim & Mansour (1999, Phys. Fluids 11, 943), from their tables.
PUBLISHED = {
    "Re_tau": 178.12,
    "U at y⁺ = 15.28": 10.967,
    "U at y⁺ = 49.12": 15.264,
    "U at the centre": 18.301,
    "u at its greatest": 2.658,
    "v at its greatest": 0.836,
    "w at its greatest": 1.087,
    "−uv at its greatest": 0.723,
}


def compared(profiles: dict[str, np.ndarray]) -> dict[str, float]:
    """The same numbers of a run, in wall units."""
    y, mean = profiles["y"], profiles["U"]
    found = [profiles["re_tau"], *np.interp([15.281, 49.118], y, mean), mean[-1]]
    found += [profiles[name].max() for name in "uvw"] + [-profiles["uv"].min()]
    return dict(zip(PUBLISHED, map(float, found), strict=True))


def report(solver: Solver, folder: Path) -> str:
    """Statistics of the turbulent part of a run, beside published ones, as Markdown."""
    paths = snapshots(folder)[FIRST:]
    found = statistics(solver, map(load, paths))
    whole = in_wall_units(solver, found)
    parts = [compared(in_wall_units(solver, statistics(solver, map(load, part)))) for part in _thirds(paths)]
    y, total = whole["y"], whole["total"]
    off = np.abs(total - (1 - y / y[-1])).max()
    divergence = max(solver.divergence(load(path)) for path in paths[::50])
    lines = [
        f"{len(paths)} snapshots {EVERY:g} h/U apart; divergence at most {divergence:.0e} of its terms; total stress "
        f"is linear within {off:.3f} u_τ²; U⁺ = y⁺ within {np.abs(whole['U'] - y)[y < 3].max():.2f} where y⁺ < 3.",
        "",
        "| | here | over thirds of the time | 4π × 2 × 2π (Moser, Kim & Mansour 1999) | off by |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, value in compared(whole).items():
        spread = np.std([part[name] for part in parts], ddof=1)
        lines.append(
            f"| {name} | {value:.3f} | ± {spread:.3f} | {PUBLISHED[name]:.3f} | {value / PUBLISHED[name] - 1:+.1%} |"
        )
    log = (y > 30) & (y < 0.6 * y[-1])
    slope, intercept = np.polyfit(np.log(y[log]), whole["U"][log], 1)
    lines.append(
        f"\nU⁺ from y⁺ = 30 to 0.6 h: {slope:.2f} ln y⁺ + {intercept:.2f}; the log law is 1/0.41 = 2.44 and 5 to 5.5."
    )
    return "\n".join(lines) + "\n"


def _thirds(paths: Sequence[Path]) -> list[Sequence[Path]]:
    n = len(paths) // 3
    return [paths[k * n : (k + 1) * n] for k in range(3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="snapshots in all; %(default)s")
    parser.add_argument("--step", type=float, default=STEP, help="Δt; %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    solver = Solver(Channel(), options.step)
    run(solver, CACHE, options.count)
    if len(snapshots(CACHE)) > FIRST + 3:
        text = report(solver, CACHE)
        RESULTS.write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
