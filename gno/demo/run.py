"""The demo: solver results and a case in a folder, then what any user would call."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gno.demo.plates import SPACING, write_plates
from gno.mesh import read

if TYPE_CHECKING:
    from gno.train import Evaluation, Run

CASE = """\
# Plates with holes, clamped on the left and pulled on the right: where do they go, and where do they yield?
[data]
train = "data/train/*.vtu"
validation = "data/validation/*.vtu"
test = "data/test/*.vtu"
inputs = ["traction"]
targets = ["displacement", "von_mises"]
sets = ["left", "right", "holes"]

[model]
size = "small"

[training]
{budget}
"""

# Number of the first plate of each split: no plate is in two.
FIRST = {"train": 0, "validation": 100_000, "test": 200_000}


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Args:
        run: the trained operator.
        evaluation: errors on plates never seen.
        solver_seconds: median time of the solver for one plate, without meshing.
        prepare_seconds: median time to build hierarchy and features of one plate.
        inference_seconds: median time of the operator for one plate.
        files: predictions and their levels.
        pictures: what was drawn.
    """

    run: Run
    evaluation: Evaluation
    solver_seconds: float
    prepare_seconds: float
    inference_seconds: float
    files: tuple[Path, ...]
    pictures: tuple[Path, ...]


def run_demo(
    directory: str | Path,
    *,
    minutes: float = 2.7,
    epochs: int | None = None,
    n_train: int = 300,
    n_validation: int = 8,
    n_test: int = 16,
    spacing: float = SPACING,
    say: Callable[[str], object] = lambda line: None,
) -> DemoResult:
    """Solve plates, train on them, and predict plates never seen.

    Args:
        directory: gets ``data``, ``case.toml``, ``run``, ``predicted`` and ``pictures``.
        minutes: training time.
        epochs: passes over the plates instead of minutes, so that the result does not depend on the machine's speed.
        n_train, n_validation, n_test: plates of each split.
        spacing: of nodes, in heights of a plate.
        say: is told what happens, line by line.
    """
    directory = Path(directory)
    counts = {"train": n_train, "validation": n_validation, "test": n_test}
    say(f"1  {sum(counts.values())} plates with holes, solved with scikit-fem (plane stress)")
    start = time.perf_counter()
    files = {key: fresh_plates(directory / "data" / key, n, spacing, FIRST[key]) for key, n in counts.items()}
    case_file = directory / "case.toml"
    budget = f"minutes = {minutes:g}" if epochs is None else f"epochs = {epochs}"
    case_file.write_text(CASE.format(budget=budget), encoding="utf-8")
    say(indented(f"{time.perf_counter() - start:.0f} s; files in {directory / 'data'}, the case in {case_file}"))

    from gno.train import load_case, train

    say(f"2  training, {budget}")
    run = train(load_case(case_file), directory / "run", overwrite=True)
    say(indented(run.summary()))
    say("3  plates never seen, against the solver")
    evaluation = run.evaluate(files["test"])
    say(indented(str(evaluation)))
    say("4  predictions and pictures")
    predictions = list(run.predict_many(files["test"]))
    names = [directory / "predicted" / file.name for file in files["test"]]
    written = [path for p, name in zip(predictions, names, strict=True) for path in p.write(name)]
    typical = sorted(zip(evaluation.rows, names, strict=True), key=lambda row: sum(row[0].errors.values()))
    pictures = draw(typical[len(typical) // 2][1], directory / "pictures")
    result = DemoResult(
        run,
        evaluation,
        solver_seconds=statistics.median(float(read(file).global_fields["solver_seconds"]) for file in files["test"]),
        prepare_seconds=statistics.median(p.prepare_seconds for p in predictions),
        inference_seconds=evaluation.seconds,
        files=tuple(written),
        pictures=tuple(pictures),
    )
    say(indented("\n".join([*map(str, pictures), f"{directory / 'predicted'}: {len(written)} meshes and levels"])))
    say("5  what was learned")
    say(indented(summary(result, files["test"][0])))
    return result


def fresh_plates(folder: Path, n: int, spacing: float, first: int) -> list[Path]:
    """Write plates into a folder that holds no other ones."""
    for old in folder.glob("plate_*.vtu"):
        old.unlink()
    return write_plates(folder, n, spacing=spacing, seed0=first)


def draw(predicted: Path, folder: Path) -> list[Path]:
    """Pictures of one prediction: stress and displacement against the truth, the levels, and which scale mattered."""
    from gno.post.show import show, show_levels

    folder.mkdir(parents=True, exist_ok=True)
    mesh = read(predicted)
    count = len(list(predicted.parent.glob(f"{predicted.stem}_level*.vtu")))
    levels = [read(predicted.with_name(f"{predicted.stem}_level{s}.vtu")) for s in range(1, count + 1)]
    paths = [folder / f"{name}.png" for name in ("von_mises", "displacement", "levels", "scale_attention")]
    show(mesh, "von_mises", compare="predicted_von_mises", warp="displacement", output=paths[0])
    show(mesh, "displacement", compare="predicted_displacement", output=paths[1])
    show_levels(mesh, levels, "predicted_displacement", output=paths[2])
    show(mesh, "scale_attention", component="each", output=paths[3])
    return paths


def summary(result: DemoResult, file: Path) -> str:
    """The figures that count: errors, levels, times."""
    from gno.graph import hierarchy_of

    errors = ", ".join(f"{name} {error:.1%}" for name, error in result.evaluation.mean.items())
    times = f"solver {1e3 * result.solver_seconds:.0f} ms, operator {1e3 * result.inference_seconds:.0f} ms"
    return (
        f"mean relative L2 on unseen meshes: {errors}\n"
        f"time for one plate: {times} (and {1e3 * result.prepare_seconds:.0f} ms to build its levels, once)\n"
        f"levels of {file.name}:\n{indented(str(hierarchy_of(read(file), result.run.blueprint.spec)))}"
    )


def indented(text: str) -> str:
    """Every line moved to the right.

    >>> indented("a")
    '   a'
    """
    return "\n".join(f"   {line}" for line in text.splitlines())
