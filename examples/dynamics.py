"""Learning to step through time: heat in squares that lose it at the edge, then 30 steps of a start never seen.

python examples/dynamics.py [folder] [epochs]
"""

import sys
from pathlib import Path

import numpy as np
import skfem
from scipy.sparse.linalg import splu
from skfem.models.poisson import laplace, mass

from gno.mesh import CellBlock, Mesh, read_series, write_series
from gno.post import space_time
from gno.train import load_case, train

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "dynamics")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
folder.mkdir(parents=True, exist_ok=True)


def heat(seed: int, n_frames: int = 8, step: float = 0.004) -> list[Mesh]:
    """u_t = a Δu on the unit square, u = 0 at its edge: linear elements, backward Euler in quarters of the step."""
    rng = np.random.default_rng(seed)
    grid = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, 13)] * 2)
    basis, a, dt = skfem.Basis(grid, skfem.ElementTriP1()), rng.uniform(0.5, 1.5), step / 4
    inside = basis.complement_dofs(basis.get_dofs())
    M, K = (matrix[inside][:, inside].tocsc() for matrix in (mass.assemble(basis), laplace.assemble(basis)))
    solver, (x, y) = splu(M + a * dt * K), grid.p
    waves = (rng.normal() * np.sin(np.pi * i * x) * np.sin(np.pi * j * y) for i in (1, 2) for j in (1, 2))
    u, frames = np.asarray(sum(waves)), []
    for k in range(n_frames):
        frames.append(
            Mesh(
                grid.p.T,
                (CellBlock("triangle", grid.t.T),),
                point_fields={"u": u},
                global_fields={"a": np.array([a])},
                time=k * step,
            )
        )
        for _ in range(4):
            u = u.copy()
            u[inside] = solver.solve(M @ u[inside])
    return frames


for seed in range(20):
    write_series(heat(seed), folder / f"heat{seed:02d}.pvd")
(folder / "case.toml").write_text(
    f"""
[data]
files = "heat*.pvd"
inputs = ["a"]
targets = ["u"]
[model]
width = 32
n_blocks = 2
n_heads = 2
[time]
[training]
epochs = {epochs}
lr = 0.01
validations = 4
device = "cpu"
"""
)
run = train(load_case(folder / "case.toml"), folder / "run", overwrite=True)

unseen = [heat(seed, n_frames=16) for seed in range(1000, 1004)]
evaluation = run.evaluate_rollouts(unseen)
print(evaluation)
rollout = run.roll_out(unseen[0], folder / "predicted.pvd", n_steps=30)

space_time(read_series(rollout.path), "u", folder / "space_time.png", compare="predicted_u")
print(f"{rollout.n_frames} frames in {rollout.path}")
print(f"error of the first step {evaluation.curve('relative_l2', 'u')[0]:.4f}")
