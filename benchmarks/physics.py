"""What physics is worth in training: `python benchmarks/physics.py` trains every variant for the same processor time.

1. Without any labelled solution: error against the solver.
2. With 16 labelled meshes: with the physics of 300 meshes, and without.
3. Discrepancy between scales, and violation of what must be conserved: of data alone, with losses for them, and where
   they are met by construction.
4. Weights that adapt, against the best of three fixed ones, on three problems.

Each training is a process of its own on one thread and one line of results/physics.jsonl; what is there is not trained
again, so an interrupted benchmark goes on; the table is of all that is there. The solver is gno.physics on the same
mesh.
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

from jobs import apart, collect, spread

RESULTS = Path(__file__).parent / "results"
N_TRAIN, N_TEST, N_LABELLED = 300, 24, 16
N_FEW = 100  # training domains of the claims that need many trainings
DIFFUSION = {
    "spacing": 0.064,
    "target": "u",
    "physics": {
        "equation": "diffusion",
        "parameters": {"conductivity": "conductivity", "source": 1.0},
        "dirichlet": {"boundary": 0.0},
    },
}
PROBLEMS: dict[str, dict] = {
    "diffusion_smooth": DIFFUSION,
    "diffusion_grains": DIFFUSION,
    "plates": {
        "spacing": 0.11,
        "target": "displacement",
        "physics": {
            "equation": "plane_stress",
            "parameters": {"young": "modulus", "poisson": 0.3},
            "dirichlet": {"left": 0.0},
            "neumann": {"right": "traction"},
        },
    },
}
FIXED = (0.1, 1.0, 10.0)
ADAPTIVE = ("gradient_norm", "inverse_dirichlet", "relobralo")
# Processor minutes of each training of a claim, in units of --minutes; plates learn more slowly.
SHARE = {"alone": 1.0, "few labels": 0.4, "scales": 0.1, "weights": 0.2}
LONGER = {"plates": 2.0}
# Changes of [physics]; what is not named is as by default.
PLAIN: dict = {"consistent": False, "conservative": False}
BALANCED: dict = {"consistent": True, "conservative": True}
DATA = {"intra": 0.0, **PLAIN}
SCALES = {
    "data": DATA,
    "losses": {**DATA, "inter": 1.0, "conserve": {"integral": 1.0, "balance": 0.3, "work": 0.3}},
    "consistent": {**DATA, "consistent": True},
    "conservative": {**DATA, **BALANCED},
}


def variants() -> list[dict]:
    """Claim, problem, name of the variant, labelled and other training meshes, and changes of [physics]."""

    def job(claim: str, data: str, variant: str, labelled: int, others: int, physics: dict) -> dict:
        names = ("claim", "data", "variant", "labelled", "others", "physics")
        return dict(zip(names, (claim, data, variant, labelled, others, physics), strict=True))

    smooth, rest = "diffusion_smooth", N_TRAIN - N_LABELLED
    found = []
    for name, physics in (("energy", PLAIN), ("energy, conservative", BALANCED)):
        found.append(job("alone", smooth, name, 0, N_TRAIN, physics))
    for name, physics in (("", PLAIN), (", conservative", BALANCED)):
        found.append(job("few labels", smooth, f"data{name}", N_LABELLED, 0, {"intra": 0.0, **physics}))
        found.append(job("few labels", smooth, f"data and physics{name}", N_LABELLED, rest, physics))
    found += [job("scales", smooth, name, N_FEW, 0, physics) for name, physics in SCALES.items()]
    for data in PROBLEMS:
        rest = N_FEW - N_LABELLED
        found += [job("weights", data, f"fixed {w:g}", N_LABELLED, rest, {**PLAIN, "intra": w}) for w in FIXED]
        found += [job("weights", data, name, N_LABELLED, rest, {**PLAIN, "weights": name}) for name in ADAPTIVE]
    return found


def solved(mesh, data: str):
    """The mesh with the solver's field as the target, and its seconds."""
    from gno.physics import build_problem, solve
    from gno.train.case import Physics
    from gno.train.physics import conditions, law_of

    physics = Physics(**PROBLEMS[data]["physics"])
    problem = build_problem(mesh, law_of(physics, Path()), physics.parameters, conditions(physics))
    values = solve(problem).values.numpy()
    return mesh.with_point_fields(**{PROBLEMS[data]["target"]: values[:, 0] if values.shape[1] == 1 else values})


def one(job: dict) -> dict:
    """Train one variant with one seed and measure it; runs in a process of its own."""
    import torch
    from data import FIELDS, dataset

    from gno.train import Case, Data, Model, Training, train
    from gno.train.case import Physics

    torch.set_num_threads(1)
    data, problem = job["data"], PROBLEMS[job["data"]]
    n_train = job["labelled"] + job["others"]
    meshes = dataset(data, "train", n_train, problem["spacing"], workers=1)
    target = problem["target"]
    labelled = [solved(mesh, data) for mesh in meshes[: job["labelled"]]]
    bare = [mesh.replace(point_fields=_without(mesh.point_fields, target)) for mesh in meshes[job["labelled"] :]]
    test = [solved(mesh, data) for mesh in dataset(data, "test", N_TEST, problem["spacing"], workers=1)]
    case = Case(
        data=Data(inputs=FIELDS[data]["inputs"], log=FIELDS[data]["log"], targets=[target]),
        model=Model(),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
        physics=Physics(**{**problem["physics"], **job["physics"]}),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, meshes={"train": labelled + bare}, progress=False, clock=time.process_time)
        log = [line.split(",") for line in Path(folder, "log.csv").read_text().splitlines()]
    error = run.evaluate(test).mean[target]
    finer = (
        [mesh for mesh in dataset(data, "test", N_TEST, problem["spacing"], workers=1)] if not job["labelled"] else []
    )
    return {
        **job,
        "error": error,
        "error_of_file": run.evaluate(finer).mean[target] if finer else None,
        "violations": violations(run, test),
        "corrected": corrected(run, test),
        "steps": max(int(row[0]) for row in log[1:]),
        "nodes": statistics.median(mesh.n_nodes for mesh in test),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


def _without(fields, name: str) -> dict:
    return {key: value for key, value in fields.items() if key not in (name, "von_mises")}


def corrected(run, meshes) -> dict[str, float]:
    """What the Galerkin correction does to predictions after training, to a field of zeros, and the time it takes."""
    import torch

    from gno.graph import build_sample
    from gno.physics.galerkin import coarse_space
    from gno.train.evaluate import relative_errors
    from gno.train.physics import problem_of, unknown_columns

    blueprint = run.blueprint
    physics = blueprint.case.physics.model_copy(update={"conservative": True})
    case = blueprint.case.model_copy(update={"physics": physics})
    after = dataclasses.replace(run, blueprint=dataclasses.replace(blueprint, case=case)).evaluate(meshes)
    found: dict[str, list[float]] = {"error": [], "error of zero": [], "prepare ms": [], "apply ms": [], "unknowns": []}
    found["error"] = [statistics.fmean(row.errors.values()) for row in after.rows]
    for mesh in meshes:
        sample = build_sample(mesh, blueprint.spec)
        problem = problem_of(mesh, case)
        start = time.process_time()
        space = coarse_space(problem, sample)
        found["prepare ms"].append(1e3 * (time.process_time() - start))
        zero = torch.zeros_like(problem.values)
        start = time.process_time()
        u = space.correct(zero)
        found["apply ms"].append(1e3 * (time.process_time() - start))
        found["unknowns"].append(space.factor.shape[1])
        y = zero.new_zeros(len(zero), blueprint.spec.n_targets)
        y[:, unknown_columns(case, blueprint.spec)] = u
        found["error of zero"].append(statistics.fmean(relative_errors(y, sample, blueprint.spec.targets).values()))
    return {name: statistics.fmean(values) for name, values in found.items()}


def violations(run, meshes) -> dict[str, float]:
    """Mean losses of consistency on unseen meshes: of the prediction, and of the solver's own field."""
    import torch

    from gno.graph import build_sample, collate
    from gno.physics import losses
    from gno.train.physics import CONSERVED, unknown_columns, with_physics

    blueprint = run.blueprint
    case, spec, scale = blueprint.case, blueprint.spec, blueprint.normalisation.targets
    asked = case.model_copy(
        update={"physics": case.physics.model_copy(update={"conserve": dict.fromkeys(CONSERVED, 1)})}
    )
    columns = unknown_columns(case, spec)
    units = losses.Units(scale.mean[columns], scale.std[columns], columns)
    found: dict[str, list[float]] = {}
    for mesh in meshes:
        sample = with_physics(build_sample(mesh, spec), mesh, asked, spec)
        truth = sample.y[:, columns].double()
        for name in CONSERVED:
            del sample[f"floor_{name}"]
        batch = collate([blueprint.normalisation.apply(sample)])
        with torch.inference_mode():
            output = run.model(batch)
            values = {"inter": losses.Inter()(batch, output)}
            for name, (functional, goal, scales) in CONSERVED.items():
                loss = losses.Conserved(name, functional, units, goal, scales)
                values[name] = loss(batch, output)
                values[f"{name} of the solver"] = loss.of_field(batch, truth).mean()
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    return {name: statistics.fmean(value) for name, value in found.items()}


def table(results: list[dict]) -> str:
    """Mean and deviation over seeds, as Markdown, claim by claim, and what the claims come to."""
    first = results[0]
    lines = [
        f"Domains of {first['nodes']:.0f} nodes, {N_TEST} unseen ones; one thread; {first['machine']}, torch "
        f"{first['torch']}. Mean and deviation over the seeds.",
        "",
        "| claim | data | variant | labelled and bare domains | seeds | processor minutes | error | corrected after | "
        "between scales | integral | balance | work | steps |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    kinds = [tuple(r[k] for k in ("claim", "data", "variant", "labelled", "others", "minutes")) for r in results]
    order = [(v["claim"], v["data"], v["variant"]) for v in variants()]
    for kind in sorted(dict.fromkeys(kinds), key=lambda kind: order.index(kind[:3])):
        rows = [r for r, other in zip(results, kinds, strict=True) if other == kind]
        after = [100 * r["corrected"]["error"] for r in rows if "corrected" in r]
        cells = [spread([100 * r["error"] for r in rows]), spread(after) if after else ""]
        for name in ("inter", "integral", "balance", "work"):
            cells.append(f"{100 * statistics.fmean(r['violations'][name] for r in rows):.2g} %")
        steps = statistics.median(r["steps"] for r in rows)
        claim, data, variant, labelled, others, length = kind
        lines.append(
            f"| {claim} | {data} | {variant} | {labelled}, {others} | {len(rows)} | {length:g} | {' | '.join(cells)} | "
            f"{steps:.0f} |"
        )
    return "\n".join([*lines, "", *claims(results), "", *notes(results)])


def claims(results: list[dict]) -> list[str]:
    """The four claims in a line each, as far as there are results."""

    def mean(claim: str, data: str, variant: str, of=lambda r: r["error"]) -> float | None:
        rows = [of(r) for r in results if (r["claim"], r["data"], r["variant"]) == (claim, data, variant)]
        return statistics.fmean(rows) if rows else None

    lines, smooth = [], "diffusion_smooth"
    for variant in ("energy", "energy, conservative"):
        if (error := mean("alone", smooth, variant)) is not None:
            other = mean("alone", smooth, variant, lambda r: r["error_of_file"])
            lines.append(
                f"1. No labels, {variant}: {error:.2%}; against quadratic elements on the same mesh {other:.2%}."
            )
    for name in ("", ", conservative"):
        bare, both = (mean("few labels", smooth, f"{v}{name}") for v in ("data", "data and physics"))
        if bare and both:
            told = f"{bare:.2%} with data alone, {both:.2%} with physics, {bare / both:.1f} times"
            lines.append(f"2. {N_LABELLED} labels{name}: {told}.")
    names = ("inter", "integral", "balance", "work")
    for variant in ("consistent", "conservative"):
        errors = [mean("scales", smooth, v) for v in ("data", variant)]
        if None not in errors:
            pairs = [
                [mean("scales", smooth, v, lambda r, n=n: r["violations"][n]) for v in ("data", variant)] for n in names
            ]
            drops = ", ".join(f"{n} {before / after:.2g}" for n, (before, after) in zip(names, pairs, strict=True))
            lines.append(f"3. {variant}: drops {drops} times; error {errors[0]:.2%} and {errors[1]:.2%}.")
    for data in PROBLEMS:
        fixed = {w: e for w in FIXED if (e := mean("weights", data, f"fixed {w:g}")) is not None}
        adaptive = {name: e for name in ADAPTIVE if (e := mean("weights", data, name)) is not None}
        if fixed and adaptive:
            best = min(fixed, key=fixed.__getitem__)
            told = ", ".join(f"{name} {e / fixed[best] - 1:+.0%}" for name, e in adaptive.items())
            lines.append(f"4. {data}: best fixed weight {best:g}, {fixed[best]:.2%}; against it {told}.")
    return lines


def notes(results: list[dict]) -> list[str]:
    """What the correction is and costs by itself, problem by problem."""
    lines = []
    for data in PROBLEMS:
        rows = [r["corrected"] for r in results if r["data"] == data and "corrected" in r]
        if rows:
            zero, prepare, apply, size = (
                statistics.median(r[k] for r in rows) for k in ("error of zero", "prepare ms", "apply ms", "unknowns")
            )
            lines.append(
                f"Galerkin correction, {data}: {size:.0f} unknowns; of a field of zeros, without any operator, it "
                f"makes one of {zero:.1%} error; {prepare:.0f} ms per mesh once, {apply:.1f} ms each time."
            )
    lines.append("Processor time of a machine that had other work besides.")
    return lines


def minutes(variant: dict, longest: float) -> float:
    return round(longest * SHARE[variant["claim"]] * LONGER.get(variant["data"], 1.0), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=2.0, help="processor minutes of the longest training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--claims", nargs="+", default=list(SHARE), choices=SHARE)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--variants", nargs="+", help="names in the table; all by default")
    parser.add_argument("--output", type=Path, default=RESULTS / "physics.jsonl")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    jobs = [
        {**variant, "seed": seed, "minutes": minutes(variant, options.minutes)}
        for seed in options.seeds
        for variant in variants()
        if variant["claim"] in options.claims
        and variant["data"] in options.problems
        and variant["variant"] in (options.variants or [variant["variant"]])
    ]
    text = table(collect(jobs, options.output, lambda job: apart(__file__, job)))
    options.output.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
