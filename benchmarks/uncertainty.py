"""What each kind of uncertainty is worth for the same training time, in range and out of it; and its use.

    python benchmarks/uncertainty.py [--parts steady spread solids rollout choice] [--minutes 0.3] [--seeds 0 1]

1. steady: heat conduction (shifted.py), 160 training meshes of about 300 nodes; 100 others are dealt into 40 to
   calibrate and 60 to test, over and over; eight sets that are out of range. Then the solver where the doubt asks.
2. spread: the same operators, their samples as they are and widened by held-out meshes; nodes, and what follows from
   the field: its mean, its energy, heat through half of the boundary, its flux.
3. solids: the same of plates with holes (gno.demo.plates), 160 to train on, about 400 nodes: displacement, and von
   Mises stress, its largest, the reaction of the support and the strain energy that follow from it.
4. rollout: turning blobs (dynamics.py), 30 steps after training on 12 frames; 24 series to calibrate intervals and the
   detector, 12 to test (for intervals dealt over and over), and two sets out of range; 8 draws of dropout and weights.
5. choice: which meshes to solve next, from 8 to 64 training meshes: at random, by the largest spread, by the largest
   expected reduction.

Budgets are processor time of one thread, on a GPU wall time:

    python benchmarks/uncertainty.py --device cuda --parts steady --output benchmarks/results/uncertainty_cuda.jsonl

Each job is a process of its own and one line of results/uncertainty.jsonl; what is there is not computed again, so an
interrupted benchmark goes on. Trained operators of the steady part stay in the cache, to be measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs import apart, collect

CACHE = Path(__file__).parent / ".cache"
RESULTS = Path(__file__).parent / "results"
N_TRAIN, N_KNOWN, N_CALIBRATION, N_SHIFTED = 160, 100, 40, 16
MODEL = {"width": 32, "n_blocks": 2, "n_heads": 2}
SETTINGS = {"device": "cpu", "validations": 1, "ema": 0.98, "lr": 5e-3}
# Options of [uncertainty] (and model.dropout), and the budget of each training: all cost one, but for those whose names
# say more.
METHODS: dict[str, tuple[dict[str, Any] | None, float]] = {
    "one operator, constant σ": (None, 1),
    "last-layer Laplace": ({"method": "laplace"}, 1),
    "MC dropout, p = 0.02": ({"method": "dropout", "samples": 16, "dropout": 0.02}, 1),
    "MC dropout, p = 0.05": ({"method": "dropout", "samples": 16, "dropout": 0.05}, 1),
    "variational heads": ({"method": "variational", "samples": 16}, 1),
    "one operator, β-NLL": ({"method": "ensemble", "members": 1, "noise": "beta_nll"}, 1),
    "one operator, CRPS": ({"method": "ensemble", "members": 1, "noise": "crps"}, 1),
    "five members": ({"method": "ensemble", "members": 5}, 1 / 5),
    "five members, 3.5 budgets": ({"method": "ensemble", "members": 5, "share": 0.7}, 1),
    "five members, 5 budgets": ({"method": "ensemble", "members": 5}, 1),
    "five members, β-NLL, 5 budgets": ({"method": "ensemble", "members": 5, "noise": "beta_nll"}, 1),
}
DETECTORS = ("last-layer Laplace", "five members, 5 budgets")
IN_TIME = ("five members, 5 budgets", "MC dropout, p = 0.02", "variational heads")
# Those whose samples differ: what follows from a field has a doubt.
WIDENED = (
    "last-layer Laplace",
    "MC dropout, p = 0.02",
    "variational heads",
    "five members",
    "five members, 3.5 budgets",
    "five members, 5 budgets",
    "five members, β-NLL, 5 budgets",
)
SOLIDS = (
    "last-layer Laplace",
    "MC dropout, p = 0.02",
    "variational heads",
    "five members, 5 budgets",
    "five members, β-NLL, 5 budgets",
)
PARTS_BY_METHOD = {"steady": METHODS, "spread": WIDENED, "solids": SOLIDS, "rollout": IN_TIME}
N_HELD_OUT, N_SAMPLES_IN_TIME = 24, 8
# Series out of range: what is other than in training, which had 0.8 to 1.6 and 2 to 4.
BEYOND = {"turns faster": {"rates": (2.4, 3.2)}, "more blobs": {"counts": (9, 12)}}
TOLERANCES, RISK = (0.06, 0.08, 0.1, 0.15), 0.1
ROUNDS = (8, 16, 24, 32, 48, 64)
STRATEGIES = ("random", "largest spread", "expected reduction")
POOLS = {"one mesh in eight is hard": (140, 20), "all alike": (0, 0)}


def case_of(minutes: float, seed: int, method: str | None = None, time_: Any = None):
    """The case of a training."""
    import shifted

    from gno.train import Case, Data, Model, Training
    from gno.train.case import Uncertainty

    options, share = METHODS[method] if method else (None, 1)
    options, knobs = dict(options or {}), dict(MODEL)
    if time_ is not None and "samples" in options:
        options["samples"] = N_SAMPLES_IN_TIME
    if "dropout" in options:
        knobs["dropout"] = options.pop("dropout")
    data = Data(inputs=shifted.INPUTS, log=shifted.LOG, targets=[shifted.TARGET])
    if time_ is not None:
        data = Data(inputs=["omega"], targets=["u"])
    return Case(
        data=data,
        model=Model(**knobs),
        training=Training(minutes=minutes * share, seed=seed, **SETTINGS),
        time=time_,
        uncertainty=Uncertainty(**options) if options else None,
    )


def trained(case, folder: Path, meshes: list, calibration: list) -> tuple[Any, float]:
    """The sampler that a case asks for, and seconds; without a method the operator with the same σ everywhere."""
    from gno.train import Run, train
    from gno.uq import load_uncertain, train_uncertain

    took = folder / "seconds"
    clock = time.process_time if case.training.device == "cpu" else time.perf_counter
    if not took.exists():
        start = clock()
        options = {"meshes": {"train": meshes}, "progress": False, "clock": clock, "overwrite": True}
        (train_uncertain if case.uncertainty else train)(case, folder, **options)
        took.write_text(str(clock() - start))
    sampler = load_uncertain(folder) if case.uncertainty else constant(Run.load(folder), calibration)
    return sampler, float(took.read_text())


def constant(run, calibration: list):
    """One operator with a standard deviation that is the same everywhere, its RMS error on the calibration meshes."""
    import torch
    from uncertainty_scores import cases

    from gno.nn import NoisyOutput, Output
    from gno.uq import Ensemble

    plain = Ensemble((run,))
    square = [float((c.mass @ (c.truth - c.quantity.mean) ** 2).sum()) for c in cases(plain, calibration)]
    variance = statistics.fmean(square) / float(run.blueprint.normalisation.targets.std[0]) ** 2

    class Constant(torch.nn.Module):
        def forward(self, batch, **options):
            output = run.model(batch, **options)
            parts = {field.name: getattr(output, field.name) for field in dataclasses.fields(Output)}
            return NoisyOutput(**parts, variance=tuple(torch.full_like(u, variance) for u in output.fields))

    noisy = Constant()
    noisy.operator = run.model
    return Ensemble((dataclasses.replace(run, model=noisy),))


def on_plates(job: dict) -> tuple[Any, list]:
    """A trained sampler of displacements of plates, and plates that it was not trained on."""
    import uncertainty_goals as goals

    from gno.train import Data

    known = goals.plates(N_KNOWN, first=10**6)
    data = Data(inputs=["traction"], targets=[goals.PLATE_FIELD], sets=["left", "right", "holes"])
    case = case_of(job["minutes"], job["seed"], job["method"]).model_copy(update={"data": data})
    folder = CACHE / "uncertainty" / f"plates-{_name(job)}"
    return trained(case, folder, goals.plates(N_TRAIN), known[:N_CALIBRATION])[0], known


def in_range(job: dict) -> tuple[Any, float, list, list]:
    """A trained sampler of a steady case and what it took, its training meshes and others like them."""
    import shifted

    train = shifted.meshes("in range", N_TRAIN)
    known = shifted.meshes("in range", N_KNOWN, first=10**6)
    case = case_of(job["minutes"], job["seed"], job["method"])
    return *trained(case, CACHE / "uncertainty" / _name(job), train, known[:N_CALIBRATION]), train, known


def _name(job: dict) -> str:
    return f"{list(METHODS).index(job['method'])}-{job['seed']}-{job['minutes']}-{SETTINGS['device']}"


def spread(job: dict) -> dict:
    """One method with one seed: its samples as they are, and widened by the errors of 40 of 100 meshes."""
    import uncertainty_goals as goals

    sampler, _, _, known = in_range(job)
    return _widened(sampler, known, goals.of_conductor)


def solids(job: dict) -> dict:
    """The same of plates."""
    import uncertainty_goals as goals

    return _widened(*on_plates(job), goals.of_plate)


def _widened(sampler, known: list, goals_of) -> dict:
    """As the samples are, and widened; of the only target, and of what follows from it."""
    import uncertainty_scores as measure

    from gno.uq.evaluate import floors_of
    from gno.uq.spread import Widened, as_trained

    bare = Widened(as_trained(sampler), {})  # noise is averaged as it is where samples are widened
    levels = [bare.levels(bare.sample(mesh)) for mesh in known]
    goals = [goals_of(m, found[0].quantity.samples, found[0].truth) for m, found in zip(known, levels, strict=True)]
    (floor,) = floors_of(sampler).values()
    errors = [measure.relative_error(x.quantity.mean, x.truth, x.mass) for x, *_ in levels]
    return {"error": statistics.fmean(errors), **measure.widening(levels, goals, N_CALIBRATION, floor)}


def steady(job: dict) -> dict:
    """Train one method with one seed and measure it."""
    import shifted
    import uncertainty_scores as measure

    from gno.uq import Detector
    from gno.uq.evaluate import floors_of

    sampler, seconds, train, known = in_range(job)
    others = {name: shifted.meshes(name, N_SHIFTED, first=2 * 10**6) for name in shifted.SHIFTS}
    calibration, test = known[:N_CALIBRATION], known[N_CALIBRATION:]
    found = measure.cases(sampler, known)
    floor = floors_of(sampler)[shifted.TARGET]
    row = {
        **measure.scores(found),
        **measure.conformal(found, N_CALIBRATION, floor),
        "correlation": measure.correlations(found),
        "ceiling": measure.ceiling(found),
        "shifts": {name: measure.scores(measure.cases(sampler, meshes)) for name, meshes in others.items()},
        "deferral": [measure.deferral(found, N_CALIBRATION, tolerance, RISK) for tolerance in TOLERANCES],
        "seconds": seconds,
        "nodes": statistics.median(mesh.n_nodes for mesh in known),
    }
    if job["method"] in DETECTORS:
        detector = Detector.fit(sampler, train, calibration, false_alarms=0.05)
        row["flags"] = measure.flags(detector, test, others)
        row["solver"] = solver(sampler, detector, calibration, test, others["material: contrast"])
    return row


def solver(sampler, detector, calibration: list, test: list, shifted_meshes: list) -> dict:
    """The solver where the doubt asks for it, in range and out of it: what is solved, and what errors are left."""
    import shifted

    from gno.mesh import node_mass
    from gno.uq import Deferral
    from gno.uq.deferral import relative_error

    deferral = Deferral.fit(
        sampler, calibration, shifted.TARGET, tolerance=TOLERANCES[-1], risk=RISK, detector=detector
    )
    found: dict[str, Any] = {"tolerance": TOLERANCES[-1], "risk": RISK}
    for name, meshes in (("in range", test), ("out of range", shifted_meshes)):
        answers = [deferral(mesh, shifted.problem) for mesh in meshes]
        errors = [
            relative_error(a.field("u"), m.point_fields["u"], node_mass(m))
            for a, m in zip(answers, meshes, strict=True)
        ]
        solved = [a for a in answers if a.correction is not None]
        found[name] = {
            "solved": len(solved) / len(meshes),
            "worse": sum(e > deferral.tolerance for e in errors) / len(meshes),
            "largest error": max(errors),
            "iterations": statistics.fmean(a.correction.attempts[0].iterations for a in solved) if solved else None,
            "from zero": statistics.fmean(a.correction.attempts[1].iterations for a in solved) if solved else None,
        }
    return found


def rollout(job: dict) -> dict:
    """Train one method in time and roll every sample out: spread and error at each step, intervals, out of range."""
    import numpy as np
    from dynamics import turning

    from gno.train.case import Time
    from gno.uq.calibrated import MOST_SERIES
    from gno.uq.in_time import detector_in_time, intervals
    from gno.uq.metrics import auroc
    from gno.uq.rollout import follow
    from gno.uq.rollout_scores import judge_rollouts

    case = case_of(job["minutes"], job["seed"], job["method"], Time(unroll=4, gradient=2, noise=0))
    training = [turning(s, 12) for s in range(48)]
    sets = {
        "held out": [turning(s, 31) for s in range(2000, 2000 + N_HELD_OUT)],
        "in range": [turning(s, 31) for s in range(1000, 1012)],
        **{name: [turning(s, 31, **shift) for s in range(3000, 3008)] for name, shift in BEYOND.items()},
    }
    found: dict[str, list[list]] = {}
    scores: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sampler, seconds = trained(case, Path(folder), training, [])
        detector = detector_in_time(sampler, training[:MOST_SERIES])
        for name, series in sets.items():
            found[name], scores[name] = [], []
            for frames in series:
                steps, largest = [], 0.0
                for step in follow(sampler, frames):
                    steps.append(step.without_look())
                    largest = max(largest, detector.judge(detector.squares(step.look)).score)
                found[name].append(steps)
                scores[name].append(largest)
    detector = detector.with_threshold(scores.pop("held out"), 0.05)
    known = found.pop("held out")
    calibration = intervals(sampler, known)
    judged = {name: judge_rollouts(sampler, some, calibration=calibration).steps["u"] for name, some in found.items()}
    scores = {name: np.array(some) / detector.threshold for name, some in scores.items()}
    usual = judged["in range"]
    return {
        "error": [s.scores.error for s in usual],
        "spread": [s.scores.sharpness for s in usual],
        "inside": [s.scores.coverage[0.9] for s in usual],
        "crps": [s.scores.crps for s in usual],
        "nodes": [s.scores.pearson for s in usual],
        "series": [s.across.pearson for s in usual],
        "ause": [s.scores.ause for s in usual],
        "seconds": seconds,
        "conformal": {name: [s.calibrated.coverage[0.9] for s in steps] for name, steps in judged.items()},
        "splits": split_again(sampler, known + found["in range"]),
        "errors": {name: statistics.fmean(s.scores.error for s in steps) for name, steps in judged.items()},
        "flagged": {name: float((some > 1).mean()) for name, some in scores.items()},
        "auroc": {
            name: auroc(
                np.append(scores["in range"], scores[name]),
                np.repeat([False, True], [len(scores["in range"]), len(scores[name])]),
            )
            for name in BEYOND
        },
    }


def split_again(sampler, known: list[list], n_splits: int = 50) -> dict[str, tuple[float, ...]]:
    """Series in range dealt anew into held-out and test ones: coverage of 90 % at some steps, mean, 5 and 95 %."""
    import numpy as np
    from uncertainty_table import STEPS

    from gno.uq.in_time import intervals
    from gno.uq.rollout_scores import judge_rollouts

    rng, rows = np.random.default_rng(0), []
    some = [[steps[k - 1] for k in STEPS] for steps in known]
    for _ in range(n_splits):
        held_out, test = np.split(rng.permutation(len(some)), [N_HELD_OUT])
        calibration = intervals(sampler, [some[k] for k in held_out])
        steps = judge_rollouts(sampler, [some[k] for k in test], calibration=calibration).steps["u"]
        rows.append([step.calibrated.coverage[0.9] for step in steps])
    columns = np.array(rows).T
    return {
        str(k): [float(c.mean()), *np.quantile(c, [0.05, 0.95]).tolist()] for k, c in zip(STEPS, columns, strict=True)
    }


def choice(job: dict) -> dict:
    """Errors as the training set grows by what a strategy chooses."""
    import numpy as np
    import shifted
    import uncertainty_scores as measure

    from gno.train import train
    from gno.uq import Ensemble, LastLayerLaplace, Uncertain, choose_runs

    plain, hard = POOLS[job["pool"]]
    test = shifted.meshes("in range", 60, first=3 * 10**6)
    pool = shifted.meshes("in range", 160, first=4 * 10**6)
    wanted = shifted.meshes("in range", 40, first=5 * 10**6)
    if hard:
        pool = shifted.meshes("plain", plain) + shifted.meshes("hard", hard)
        test = shifted.meshes("plain", 30, first=10**6) + shifted.meshes("hard", 30, first=10**6)
        wanted = shifted.meshes("plain", 20, first=2 * 10**6) + shifted.meshes("hard", 20, first=2 * 10**6)
    rng = np.random.default_rng(job["seed"])
    order = rng.permutation(len(pool)).tolist()
    chosen, errors, hard_ones = order[: ROUNDS[0]], [], []
    for n, following in zip(ROUNDS, (*ROUNDS[1:], None), strict=True):
        meshes = [pool[k] for k in chosen]
        with tempfile.TemporaryDirectory() as folder:
            case = case_of(job["minutes"], job["seed"])
            run = train(case, folder, meshes={"train": meshes}, progress=False, clock=time.process_time)
        errors.append(statistics.fmean(c.error for c in measure.cases(Ensemble((run,)), test)))
        hard_ones.append(sum(k >= plain for k in chosen) if hard else None)
        if following is None:
            break
        rest = [k for k in order if k not in chosen]
        if job["strategy"] == "random":
            chosen = order[:following]
            continue
        laplace = LastLayerLaplace.fit(run, meshes)
        if job["strategy"] == "largest spread":
            looks = measure.cases(laplace, [pool[k] for k in rest])
            doubt = [measure.doubt_of(Uncertain(c.quantity.samples), c.mass) for c in looks]  # without the noise
            picked = np.argsort(doubt)[::-1][: following - n].tolist()
        else:
            picked = choose_runs(laplace, [pool[k] for k in rest], following - n, wanted=wanted).indices
        chosen = chosen + [rest[k] for k in picked]
    return {"errors": errors, "hard": hard_ones}


PARTS = {"steady": steady, "spread": spread, "solids": solids, "rollout": rollout, "choice": choice}


def jobs(options: argparse.Namespace) -> list[dict]:
    """All jobs that were asked for, the first seed first."""
    found, minutes = [], options.minutes
    for seed in options.seeds:
        for part, methods in PARTS_BY_METHOD.items():
            chosen = [m for m in methods if part in options.parts and m in options.methods]
            found += [{"part": part, "method": m, "seed": seed, "minutes": minutes} for m in chosen]
    for pool in options.pools if "choice" in options.parts else ():
        found += [
            {"part": "choice", "pool": pool, "strategy": s, "seed": seed, "minutes": round(minutes / 2, 4)}
            for seed in options.seeds
            for s in STRATEGIES
        ]
    return found


def one(job: dict) -> dict:
    import torch

    torch.set_num_threads(1)
    SETTINGS["device"] = job.get("device", "cpu")
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    return {**job, **PARTS[job["part"]](job), "machine": machine}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--minutes", type=float, default=0.3, help="processor minutes of a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--pools", nargs="+", default=list(POOLS), choices=POOLS)
    parser.add_argument(
        "--device", default="cpu", help="of trainings; elsewhere wall time counts, for another --output"
    )
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parser.add_argument("--output", type=Path, default=RESULTS / "uncertainty.jsonl")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    from uncertainty_table import table

    device = {} if options.device == "cpu" else {"device": options.device}
    wanted = [] if options.table else jobs(options)
    results = collect([job | device for job in wanted], options.output, lambda job: apart(__file__, job))
    text = table(results)
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
