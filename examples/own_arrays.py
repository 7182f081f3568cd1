"""Your own arrays, no files: heat in bars of random length and conductivity, on meshes of random size.

python examples/own_arrays.py [folder] [epochs]
"""

import sys
from pathlib import Path

import numpy as np

from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Training, train

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "own_arrays")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 60


def bar(seed: int) -> Mesh:
    """−(k T′)′ = q on a strip, T = 0 at both ends: exact at the nodes."""
    rng = np.random.default_rng(seed)
    n, length, k = int(rng.integers(16, 32)), rng.uniform(0.8, 1.2), rng.uniform(1.0, 3.0)
    x = np.linspace(0, length, n + 1)
    points = np.concatenate([np.stack([x, np.full(n + 1, y)], axis=1) for y in (0.0, 0.05, 0.1)])
    corner = np.concatenate([np.arange(n), np.arange(n) + n + 1])
    quads = np.stack([corner, corner + 1, corner + n + 2, corner + n + 1], axis=1)
    return Mesh(
        points,
        (CellBlock("quad", quads),),
        point_fields={"temperature": points[:, 0] * (length - points[:, 0]) / (2 * k)},
        global_fields={"conductivity": np.array([k])},
        point_sets={"ends": np.flatnonzero((points[:, 0] == 0) | (points[:, 0] == length))},
        source=f"bar {seed}",
    )


case = Case(
    data=Data(inputs=["conductivity"], targets=["temperature"]),
    training=Training(epochs=epochs, batch_size=4, device="cpu"),
)
run = train(case, folder, meshes=[bar(seed) for seed in range(40)], overwrite=True)

unseen = [bar(seed) for seed in range(1000, 1008)]
print(run.evaluate(unseen))

temperature = run.predict(unseen[0]).mesh.point_fields["predicted_temperature"]
print(f"hottest {temperature.max():.4f}, exact {unseen[0].point_fields['temperature'].max():.4f}")
print(f"error {run.evaluate(unseen).mean['temperature']:.4f}")
