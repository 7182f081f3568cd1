"""What mirror images are worth in time and with an equation alone: `python benchmarks/mirror.py`.

1. Series: blobs that turn and spread (`dynamics.py`), half of them the other way round; the flow, a vector at nodes,
   is an input. From few series of 12 frames, rollouts of 30 steps on unseen ones.
2. An equation without labels: diffusion with a smooth coefficient from few meshes, error against the solver.

Of files with labels `learning_curves.py` says it. Each training is a process of its own and a line of
results/mirror.jsonl; what is there is not trained again.
"""

from __future__ import annotations

import functools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import jobs

RESULTS = Path(__file__).parent / "results" / "mirror.jsonl"
MIRROR, N_TEST = ["x", "y"], {"series": 12, "equation": 24}
FEW = {"series": (4, 16), "equation": (25,)}
SCORES = {"series": ("VRMSE 1", "6:12", "13:30"), "equation": ("error",)}


def flowing(seed: int, n_frames: int) -> list:
    """Blobs that turn, of every second seed in a mirror, with the velocity that they turn with."""
    import numpy as np
    from dynamics import turning

    from gno.graph.mirror import image_of_mesh

    frames = []
    for mesh in turning(seed, n_frames):
        flow = mesh.global_fields["omega"] * np.stack([-mesh.points[:, 1], mesh.points[:, 0]], axis=1)
        mesh = mesh.with_point_fields(flow=flow).replace(global_fields={})
        frames.append(image_of_mesh(mesh, 0) if seed % 2 else mesh)
    return frames


def one(job: dict) -> dict:
    """Train with or without images; runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scores = (_series if job["kind"] == "series" else _equation)(job, folder)
        steps = int(Path(folder, "log.csv").read_text().splitlines()[-1].split(",")[0])
    return {**job, **scores, "steps": steps, "torch": torch.__version__}


def _series(job: dict, folder: str) -> dict:
    from gno.train import Case, Data, Model, Training, train
    from gno.train.case import Time

    settings = {"batch_size": 8, "lr": 5e-3, "ema": 0.99, "validations": 1, "device": "cpu", "seed": job["seed"]}
    case = Case(
        data=Data(inputs=["flow"], targets=["u"], mirror=job["mirror"]),
        model=Model(width=32, n_blocks=2, n_heads=2),
        training=Training(minutes=job["minutes"], **settings),
        time=Time(),
    )
    meshes = {"train": [flowing(seed, 12) for seed in range(job["n_train"])]}
    run = train(case, folder, meshes=meshes, progress=False, clock=time.process_time)
    found = run.evaluate_rollouts([flowing(seed, 31) for seed in range(1000, 1000 + N_TEST["series"])])
    windows = zip(SCORES["series"], ((1, 1), (6, 12), (13, 30)), strict=True)
    return {name: found.window("vrmse", "u", *steps) for name, steps in windows}


def _equation(job: dict, folder: str) -> dict:
    from data import dataset
    from physics import PROBLEMS, solved

    from gno.train import Case, Data, Training, train
    from gno.train.case import Physics

    problem = PROBLEMS["diffusion_smooth"]
    bare = dataset("diffusion_smooth", "train", job["n_train"], problem["spacing"], workers=1)
    bare = [mesh.replace(point_fields={"conductivity": mesh.point_fields["conductivity"]}) for mesh in bare]
    test = dataset("diffusion_smooth", "test", N_TEST["equation"], problem["spacing"], workers=1)
    case = Case(
        data=Data(inputs=["conductivity"], log=["conductivity"], targets=["u"], mirror=job["mirror"]),
        training=Training(minutes=job["minutes"], device="cpu", seed=job["seed"], validations=1),
        physics=Physics(**problem["physics"]),
    )
    run = train(case, folder, meshes={"train": bare}, progress=False, clock=time.process_time)
    return {"error": run.evaluate([solved(mesh, "diffusion_smooth") for mesh in test]).mean["u"]}


def table(rows: list[dict]) -> str:
    """Means over the seeds, as Markdown."""
    lines = [
        f"Processor time of one thread, {platform.machine()}, Python {platform.python_version()}, torch "
        f"{rows[0]['torch']}; mean over the seeds, with deviation. Series: VRMSE over 1, 6 to 12 and 13 to 30 steps of "
        "rollouts; equation: relative L2 error against the solver."
    ]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        head = [kind, "images", "minutes", "seeds", *SCORES[kind], "steps"]
        lines += ["", f"| {' | '.join(head)} |", "|--:|---|" + "--:|" * (len(head) - 2)]
        groups: dict[tuple, list[dict]] = {}
        for row in rows:
            if row["kind"] == kind:
                groups.setdefault((row["n_train"], row["minutes"], " and ".join(row["mirror"]) or "none"), []).append(
                    row
                )
        for (n, minutes, mirror), some in sorted(groups.items()):
            cells = [spread([row[name] for row in some]) for name in SCORES[kind]]
            steps = f"{statistics.fmean(row['steps'] for row in some):.0f}"
            lines.append(f"| {n} | {mirror} | {minutes:g} | {len(some)} | {' | '.join(cells)} | {steps} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def main() -> None:
    options = jobs.parser(__doc__, RESULTS, minutes=1.0, seeds=2).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    if options.smoke:
        job = {"n_train": 2, "minutes": 0.02, "seed": 0, "mirror": MIRROR}
        print(table([one({"kind": kind, **job}) for kind in FEW]))
        return
    wanted = [
        {"kind": kind, "n_train": n, "minutes": options.minutes, "seed": seed, "mirror": mirror}
        for kind, numbers in FEW.items()
        for seed in range(options.seeds)
        for n in numbers
        for mirror in ([], MIRROR)
    ]
    rows = jobs.collect([] if options.table else wanted, options.results, functools.partial(jobs.apart, __file__))
    options.results.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
