"""The whole corridor: solver results → training → prediction on a new mesh → files and pictures.

python examples/quickstart.py [folder] [minutes] [plates]
"""

import sys
from pathlib import Path

from gno.demo.plates import write_plates
from gno.graph import hierarchy_of
from gno.mesh import read
from gno.post.show import show
from gno.train import Case, Data, Training, train

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart")
minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
n_plates = int(sys.argv[3]) if len(sys.argv) > 3 else 160

# Solver results: plates with holes, pulled at one side. Yours can be files of any format.
write_plates(folder / "data", n_plates)

case = Case(
    data=Data(files="data/*.vtu", folder=folder, inputs=["traction"], targets=["displacement", "von_mises"]),
    training=Training(minutes=minutes, batch_size=8),
)
run = train(case, folder / "run", overwrite=True)

test = case.data.paths()["test"]
evaluation = run.evaluate(test)
print(evaluation)

mesh = read(test[0])
print(hierarchy_of(mesh, run.blueprint.spec))

prediction = run.predict(mesh)  # the same mesh, with predicted_displacement and predicted_von_mises
prediction.write(folder / "predicted.vtu")  # for ParaView; its coarser levels beside it
show(prediction.mesh, "von_mises", compare="predicted_von_mises", output=folder / "von_mises.png")
print(f"error {evaluation.mean['displacement']:.4f}")
