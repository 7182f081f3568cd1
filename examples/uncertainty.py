"""A prediction that says how sure it is: two operators, calibrated intervals, and a load that is out of range.

python examples/uncertainty.py [folder] [epochs]
"""

import sys
from pathlib import Path

import numpy as np

from gno.mesh import CellBlock, Mesh
from gno.train import Case, Data, Model, Training, Uncertainty
from gno.uq import Calibrated, draw_reliability, evaluate, train_uncertain

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "uncertainty")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 60


def membrane(seed: int, load: float | None = None, n: int = 10) -> Mesh:
    """A membrane on the unit square under a load f sin(kx) sin(my): it sags by f/(k² + m²) in the same shape."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() for a in np.meshgrid(*2 * [np.linspace(0, 1, n + 1)], indexing="ij"))
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([corner, corner + n + 1, corner + n + 2, corner + 1], axis=1)
    k, m = np.pi * rng.integers(1, 3, size=2)
    force = (rng.uniform(0.5, 2.0) if load is None else load) * np.sin(k * x) * np.sin(m * y)
    fields = {"load": force, "sag": 100 * force / (k**2 + m**2)}
    return Mesh(np.stack([x, y], axis=1), (CellBlock("quad", quads),), point_fields=fields, source=f"membrane {seed}")


train, held_out, test = ([membrane(s) for s in seeds] for seeds in (range(24), range(100, 119), range(200, 208)))
case = Case(
    data=Data(inputs=["load"], targets=["sag"]),
    model=Model(width=24, n_blocks=1, n_heads=1),
    training=Training(epochs=epochs, batch_size=4, device="cpu"),
    uncertainty=Uncertainty(members=2),
)
sampler = train_uncertain(case, folder, meshes={"train": train}, overwrite=True)
calibrated = Calibrated.fit(sampler, train, held_out)
calibrated.save(folder)  # `gno predict` and Calibrated.load find it there

prediction = calibrated.predict(test[0])
sag = prediction.field("sag")
middle = int(np.argmax(sag.mean))
low, high = (float(prediction.mesh.point_fields[f"{end}_sag"][middle]) for end in ("lower", "upper"))
print(f"sag {sag.mean[middle]:.2f} ± {sag.std[middle]:.2f} mm, 90 % between {low:.2f} and {high:.2f}")
volume = prediction.map(lambda mesh: mesh.point_fields["sag"].mean())  # from each sample as a whole
print(f"mean sag {float(volume.mean):.3f} ± {float(volume.std):.3f} mm")

for name, mesh in {"like those of training": test[1], "ten times the load": membrane(1, load=20.0)}.items():
    score = float(calibrated.predict(mesh).mesh.global_fields["novelty"])
    print(f"{name}: score {score:.2f}, {'out of' if score > 1 else 'in'} range")

found = evaluate(calibrated.sampler, test, calibration=calibrated.conformal)  # its samples are as wide as the errors
print(found)
print(draw_reliability(found.reliability, folder / "reliability.png"))
print(found.calibrated["sag"].coverage[0.9])
