"""External aerodynamics: from graded meshes around airfoils to the lift of one never seen.

python examples/airfoil/lift.py [folder] [minutes of processor time] [training meshes] [nodes around]

Cells grow a thousandfold from the trailing edge to the outer boundary; anchors grow with them by themselves.
"""

import sys
import time
from pathlib import Path

import numpy as np
from potential_flow import airfoil

from gno.mesh import Mesh, read, write
from gno.post import coefficients, fluid_force
from gno.train import load_case, train

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "airfoils")
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
n_train, n_around = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((3, 300), (4, 64)))


def lift(mesh: Mesh, prefix: str = "") -> float:
    """Coefficient of lift from velocity and pressure; the pressure is p/(ρU²/2), so ρ is 2."""
    force = fluid_force(mesh, f"{prefix}velocity", f"{prefix}pressure", "airfoil", viscosity=0.0, density=2.0)
    flow, wall = mesh.global_fields["inflow"], mesh.points[mesh.point_sets["airfoil"]]
    chord = float(np.ptp(wall[:, 0]))
    return coefficients(force.force, speed=1.0, length=chord, density=2.0, flow=flow, up=(-flow[1], flow[0]))[1]


for name, first, count in (("train", 0, n_train), ("validation", 5_000, 10), ("test", 10_000, 20)):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        write(airfoil(seed, 2 * np.pi / n_around), folder / name / f"{seed}.vtu")
(folder / "case.toml").write_text(
    f"""
[data]
train = "train/*.vtu"
validation = "validation/*.vtu"
test = "test/*.vtu"
inputs = ["inflow"]                # the shape of the airfoil is in the mesh
targets = ["velocity", "pressure"]
[training]
minutes = {minutes}
device = "cpu"
"""
)
case = load_case(folder / "case.toml")
run = train(case, folder / "run", overwrite=True, clock=time.process_time)

files = case.data.paths()["test"]
print(run.evaluate(files))
lifts = np.array([(lift(read(file)), lift(run.predict(file).mesh, "predicted_")) for file in files])
print(f"lift coefficients {lifts[:, 0].min():.2f} to {lifts[:, 0].max():.2f}")
print(f"error {np.abs(lifts[:, 1] - lifts[:, 0]).mean():.4f}")
