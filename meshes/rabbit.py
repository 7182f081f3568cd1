"""Makes rabbit.vtu, a closed surface of area 1 with ears: balls that flow into one another, slightly rough.

Run it in this folder: ``python rabbit.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples" / "gray_scott"))

from domains import closed_surface, smooth_union  # noqa: E402

from gno.mesh import CellBlock, node_mass, write  # noqa: E402

# x, y, z and radius: x to the right, y to the back, z up; what has x ≠ 0 is there twice.
BALLS = [
    *((0, 0.10, -0.16, 0.19), (0, -0.02, -0.05, 0.15), (0, 0.30, -0.20, 0.06)),  # body, chest, tail
    *((0, -0.10, 0.13, 0.125), (0, -0.20, 0.09, 0.06), (0.06, -0.13, 0.08, 0.06)),  # head, nose, cheeks
    *((0.05 + 0.012 * n, -0.06 + 0.02 * n, 0.24 + 0.05 * n, 0.042 - 0.002 * abs(n - 2)) for n in range(6)),  # ears
    *((0.13, 0.06, -0.22, 0.12), (0.13, -0.04, -0.29, 0.065), (0.07, -0.09, -0.17, 0.075), (0.07, -0.13, -0.27, 0.055)),
]


def rabbit(x: np.ndarray) -> np.ndarray:
    """Negative inside."""
    balls = np.array(BALLS, float)
    mirrored = balls[balls[:, 0] > 0] * [-1, 1, 1, 1]
    balls = np.concatenate([balls, mirrored])
    rough = np.sin(60 * x[:, 0]) * np.sin(57 * x[:, 1] + 1) * np.sin(63 * x[:, 2] + 2)
    return smooth_union(balls[:, :3], balls[:, 3], blend=0.03)(x) + 0.0015 * rough


if __name__ == "__main__":
    mesh = closed_surface(rabbit, 0.62, 0.022).mesh
    points = (mesh.points / np.sqrt(node_mass(mesh).sum())).astype(np.float32)
    cells = (CellBlock("triangle", mesh.cells[0].nodes.astype(np.int32)),)
    write(mesh.replace(points=points, cells=cells), HERE / "rabbit.vtu")
