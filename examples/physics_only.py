"""No solver results at all: an operator learns diffusion from the equation, on meshes that carry a conductivity.

python examples/physics_only.py [folder] [epochs]
"""

import sys
from pathlib import Path

import numpy as np

from gno.mesh import CellBlock, Mesh
from gno.physics import Dirichlet, build_problem, diffusion, solve
from gno.train import Case, Data, Physics, Training, train

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "physics_only")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 60


def plate(seed: int) -> Mesh:
    """A rectangle of random shape whose conductivity varies by about a factor of ten; no temperature anywhere."""
    rng = np.random.default_rng(seed)
    nx, ny = rng.integers(9, 14, 2)
    axes = np.linspace(0, rng.uniform(0.8, 1.2), nx + 1), np.linspace(0, rng.uniform(0.8, 1.2), ny + 1)
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=1)
    corner = (np.arange(nx)[:, None] * (ny + 1) + np.arange(ny)).ravel()
    quads = np.stack([corner, corner + ny + 1, corner + ny + 2, corner + 1], axis=1)
    waves, phases = rng.uniform(-6, 6, (3, 2)), rng.uniform(0, 2 * np.pi, 3)
    conductivity = np.exp(0.5 * np.sin(points @ waves.T + phases).sum(1))
    return Mesh(
        points, (CellBlock("quad", quads),), point_fields={"conductivity": conductivity}, source=f"plate {seed}"
    )


case = Case(
    data=Data(inputs=["conductivity"], log=["conductivity"], targets=["temperature"]),
    training=Training(epochs=epochs, device="cpu"),
    physics=Physics(  # −∇·(k ∇T) = 1, T = 0 on the boundary
        equation="diffusion",
        parameters={"conductivity": "conductivity", "source": 1.0},
        dirichlet={"boundary": 0.0},
    ),
)
run = train(case, folder, meshes=[plate(seed) for seed in range(120)], overwrite=True)


def solved(mesh: Mesh) -> Mesh:
    """The mesh with the temperature that the solver finds, to compare with."""
    problem = build_problem(
        mesh, diffusion, {"conductivity": "conductivity", "source": 1.0}, [Dirichlet("boundary", 0.0)]
    )
    return mesh.with_point_fields(temperature=solve(problem).values[:, 0].numpy())


evaluation = run.evaluate([solved(plate(seed)) for seed in range(1000, 1012)])
print(evaluation)
print(f"error {evaluation.mean['temperature']:.4f}")
