"""What a person does next: look at fields, comparisons, hierarchies and training curves."""

from gno.post.curves import draw_curves
from gno.post.grid import to_pyvista
from gno.post.show import show, show_levels

__all__ = ["draw_curves", "show", "show_levels", "to_pyvista"]
