"""What a person does next: stress, reactions, probes, error estimates, a real solve; and pictures of all of it."""

from gno.post.animation import animate, space_time
from gno.post.curves import draw_curves
from gno.post.fields import with_error, with_flux, with_gradient, with_stress
from gno.post.gauss import GaussValues, cell_mean, flux, gradient, integral
from gno.post.goals import boundary_goal, goal, largest
from gno.post.grid import to_pyvista
from gno.post.indicator import ErrorEstimate, flux_error, stress_error
from gno.post.probes import line, plane, probe_matrix
from gno.post.reactions import Resultant, coefficients, fluid_force, heat_flow, nodal_forces, reaction
from gno.post.recovery import l2_recovery, patch_recovery
from gno.post.residual import flux_residual, stress_residual
from gno.post.rollout import draw_rollout
from gno.post.show import show, show_levels
from gno.post.stress import Elastic, strain, strain_energy, stress
from gno.post.tensors import components, principal, tensor_of, tresca, von_mises

__all__ = [
    "Elastic",
    "ErrorEstimate",
    "GaussValues",
    "Resultant",
    "animate",
    "boundary_goal",
    "cell_mean",
    "coefficients",
    "components",
    "draw_curves",
    "draw_rollout",
    "fluid_force",
    "flux",
    "flux_error",
    "flux_residual",
    "goal",
    "gradient",
    "heat_flow",
    "integral",
    "l2_recovery",
    "largest",
    "line",
    "nodal_forces",
    "patch_recovery",
    "plane",
    "principal",
    "probe_matrix",
    "reaction",
    "show",
    "show_levels",
    "space_time",
    "strain",
    "strain_energy",
    "stress",
    "stress_error",
    "stress_residual",
    "tensor_of",
    "to_pyvista",
    "tresca",
    "von_mises",
    "with_error",
    "with_flux",
    "with_gradient",
    "with_stress",
]
