"""What FEM does with a field, a solver's or a prediction's: stress, reactions, error, a real solve, and scikit-fem.

python examples/post_processing.py [folder] [spacing]
"""

import sys
from pathlib import Path

import numpy as np
from skfem import BilinearForm
from skfem.helpers import dot, grad

from gno import write
from gno.demo.plates import MODULUS, POISSON, plate
from gno.physics import Dirichlet, Neumann, build_problem, plane_stress
from gno.physics.fem import from_skfem, to_skfem
from gno.post import Elastic, largest, line, reaction, show, strain_energy, stress_error, with_error, with_stress
from gno.post.correct import correct

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "post_processing")
spacing = float(sys.argv[2]) if len(sys.argv) > 2 else 0.03
folder.mkdir(parents=True, exist_ok=True)

# A plate with holes, pulled at the right. In place of a trained operator's answer: the solution, somewhat wrong.
mesh = plate(3, spacing=spacing)
x, y = mesh.points.T / 100
wrong = 2e-3 * np.stack([x * np.cos(3 * y), x * np.sin(2 * x)], axis=1)
mesh = mesh.with_point_fields(predicted_displacement=mesh.point_fields["displacement"] + wrong)

aluminium = Elastic(MODULUS, POISSON, plane="stress")
mesh = with_stress(mesh, "predicted_displacement", aluminium)  # predicted_stress, predicted_von_mises, …
top = largest(mesh, "predicted_von_mises")
print(f"largest von Mises stress {top.value:.0f} MPa at {top.position.round(1)}")
print(f"the clamp holds with {reaction(mesh, 'predicted_displacement', aluminium, 'left').force.round(1)} N/mm")
print(f"strain energy {strain_energy(mesh, 'predicted_displacement', aluminium):.0f} N")

# The solver's answer, from the prediction: any law of gno.physics, or one of your own.
conditions = [Dirichlet("left"), Neumann("right", "traction")]
problem = build_problem(mesh, plane_stress, {"young": MODULUS, "poisson": POISSON}, conditions)
correction = correct(mesh, "predicted_displacement", problem, tolerance=1e-8)
print(correction)
mesh = correction.mesh
held, pull = reaction(mesh, "corrected_displacement", aluminium, "left"), mesh.global_fields["traction"]
print(f"now the clamp holds with {held.force.round(3)} N/mm against {(100 * pull).round(3)} that pull")

# How far that is from the exact solution, cell by cell.
estimate = stress_error(mesh, "corrected_displacement", aluminium)
print(estimate)
mesh = with_error(mesh, estimate)
write(mesh, folder / "plate.vtu")
write(line(mesh, (1, 1), (1, 99)), folder / "line.vtu")
show(mesh, "error_estimate", output=folder / "error.png")
show(mesh, "von_mises", compare="predicted_von_mises", output=folder / "von_mises.png")

# To scikit-fem and back: a basis whose degrees of freedom are the mesh's nodes, and the field as its coefficients.
basis, u = to_skfem(mesh, mesh.point_fields["von_mises"])
smoothness = u @ BilinearForm(lambda u, v, w: dot(grad(u), grad(v))).assemble(basis) @ u
back = from_skfem(basis, u, "von_mises")
print(f"smoothness of the stress {smoothness:.4g}; back on {back}")
print(f"imbalance {np.abs(held.force + 100 * pull).max() / np.abs(100 * pull).max():.1e}")
