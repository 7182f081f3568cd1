"""Molecular dynamics: from positions to the forces between particles, of a Lennard-Jones fluid in a periodic box.

python examples/forces.py [folder] [seconds of processor time] [frames to learn from]

Nothing but positions is given: what decides is where the others are, which every particle reads from its near field
(`model.n_near`, on by default for particles). Relative L2 error of the forces on 24 frames of another run after 60 s on
one thread: 9 % (two seeds; median frame 6 %), 4 % with `mirror = ["x", "y", "z"]` in [data], 100 % without near field.
"""

import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from gno.train import load_case, train

N_SIDE, DENSITY, TEMPERATURE, CUT_OFF, STEP, MELT = 6, 0.7, 1.0, 2.5, 0.004, 500
N, BOX = N_SIDE**3, N_SIDE / DENSITY ** (1 / 3)


def forces(x: np.ndarray) -> np.ndarray:
    """−∇ of the sum of 4 (r⁻¹² − r⁻⁶) over pairs nearer than the cut-off."""
    i, j = cKDTree(x % BOX, boxsize=BOX).query_pairs(CUT_OFF, output_type="ndarray").T
    offset = x[i] - x[j]
    offset -= BOX * np.round(offset / BOX)
    square = (offset**2).sum(1)
    pull = (24 * (2 / square**6 - 1 / square**3) / square)[:, None] * offset
    total = np.zeros_like(x)
    np.add.at(total, i, pull)
    np.add.at(total, j, -pull)
    return total


def simulate(seed: int, n_frames: int):
    """Frames of a run, from a lattice that has melted: Verlet's steps with Langevin's noise."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(N_SIDE) + 0.5) * BOX / N_SIDE
    x = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    v = rng.normal(0, TEMPERATURE**0.5, x.shape)
    f, damping = forces(x), np.exp(-STEP)
    for k in range(MELT + 20 * n_frames):
        v += STEP / 2 * f
        x = x + STEP * v
        f = forces(x)
        v = damping * (v + STEP / 2 * f) + np.sqrt((1 - damping**2) * TEMPERATURE) * rng.normal(size=v.shape)
        if k >= MELT and k % 20 == 0:
            yield x % BOX, f


def dump(path: Path, frames) -> None:
    """As LAMMPS writes them."""
    box = "ITEM: BOX BOUNDS pp pp pp\n" + f"0 {BOX}\n" * 3
    with path.open("w") as file:
        for step, (x, f) in enumerate(frames):
            print(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{N}\n{box}", end="", file=file)
            print("ITEM: ATOMS id type x y z fx fy fz", file=file)
            for i, row in enumerate(np.hstack([x, f]), start=1):
                print(i, 1, *(f"{a:.6f}" for a in row), file=file)


def main(folder: Path, seconds: float, n_train: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, n_frames) in enumerate({"train": n_train, "validation": 12, "test": 24}.items()):
        dump(folder / f"{name}.lammpstrj", simulate(seed, n_frames))
    (folder / "case.toml").write_text(
        f"""
[data]
train = "train.lammpstrj@:"
validation = "validation.lammpstrj@:"
test = "test.lammpstrj@:"
inputs = ["type 1"]
targets = ["f"]
[model]
coordinates = false                # a force is the same wherever the particles are together
[training]
minutes = {seconds / 60}
validations = 4
device = "cpu"
"""
    )
    case = load_case(folder / "case.toml")
    run = train(case, folder / "run", overwrite=True, clock=time.process_time)
    evaluation = run.evaluate(case.data.paths()["test"])
    print(evaluation)
    print(f"error {evaluation.mean['f']:.4f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    folder, seconds, n_train = (given[k] if len(given) > k else x for k, x in enumerate(("forces", "60", "128")))
    main(Path(folder), float(seconds), int(n_train))
