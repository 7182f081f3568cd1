"""Forces between particles, gno beside SchNet of torch_geometric: `python benchmarks/particle_forces.py`.

The fluid of `examples/forces.py`, 216 particles that repel and attract each other in pairs. Every model learns from
the same frames for the same processor time of one thread, and is asked for the forces in frames of another run. gno
gives a field of forces, SchNet the gradient of an energy, as its authors have it (Schütt et al. 2018, J. Chem. Phys.
148, 241722), with all neighbours within the cut-off of the fluid, by Adam on squared errors of forces over their
deviation, at the rates listed, which fall to zero as gno's does. gno has the loss and the rate that it ships with.

Each training is a process of its own and a line of results/particle_forces.jsonl.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobs import apart, collect, parser, spread
from scipy.spatial import cKDTree
from torch import Tensor, nn

from gno.mesh import Mesh

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import forces as fluid

RESULTS = Path(__file__).parent / "results" / "particle_forces.jsonl"
N_TEST = 24
SCHNET: dict[str, dict[str, Any]] = {
    "SchNet": {"hidden_channels": 128, "num_filters": 128, "num_interactions": 6, "num_gaussians": 50},
    "SchNet, small": {"hidden_channels": 64, "num_filters": 64, "num_interactions": 2, "num_gaussians": 50},
}
# Keys of [data] and [model].
GNO: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gno": ({}, {}),
    "gno, mirror images": ({"mirror": ("x", "y", "z")}, {}),
    "gno, two near layers": ({}, {"n_near": 2}),
    "gno without near field": ({}, {"n_near": 0}),
}


CUT_OFF, BOX = fluid.CUT_OFF, fluid.BOX
Frames = list[tuple[np.ndarray, np.ndarray]]


def frames(n_train: int) -> tuple[Frames, Frames]:
    """Positions and forces, to learn from and to ask for."""
    return list(fluid.simulate(0, n_train)), list(fluid.simulate(2, N_TEST))


def error(predicted: list[np.ndarray], test: Frames) -> list[float]:
    """Relative L2 of each frame, in percent."""
    pairs = zip(predicted, test, strict=True)
    return [100 * float(np.linalg.norm(f - known) / np.linalg.norm(known)) for f, (_, known) in pairs]


# ── gno ──


def gno(job: dict[str, Any], train_frames: Frames, test: Frames) -> dict[str, Any]:
    """As a user would: a case, and meshes in memory."""
    from gno.train import Case, Data, Model, Training, train

    data, model = GNO[job["model"]]
    case = Case(
        data=Data(inputs=["one"], targets=["f"], **data),
        model=Model(coordinates=False, **model),
        training=Training(minutes=job["minutes"], seed=job["seed"], device="cpu"),
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(case, folder, meshes=[*map(mesh, train_frames)], progress=False, clock=time.process_time)
        log = [line.split(",") for line in Path(folder, "log.csv").read_text().splitlines()]
    start = time.process_time()
    predicted = [run.predict(mesh(frame)).mesh.point_fields["predicted_f"] for frame in test]
    ms = 1e3 * (time.process_time() - start) / len(test)
    steps = max(int(row[log[0].index("step")]) for row in log[1:])
    weights = sum(p.numel() for p in run.model.parameters())
    return {"errors": error(predicted, test), "steps": steps, "weights": weights, "ms": ms}


def mesh(frame: tuple[np.ndarray, np.ndarray]) -> Mesh:
    return Mesh(frame[0], point_fields={"one": np.ones(fluid.N), "f": frame[1]}, period=(BOX,) * 3)


# ── SchNet ──


class Potential(nn.Module):
    """SchNet's energy of a batch of frames, and forces as minus its gradient, in units of their deviation."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        from torch_geometric.nn.models import SchNet

        super().__init__()
        self.pairs = torch.empty(2, 0, dtype=torch.long)
        self.net = SchNet(**sizes, cutoff=CUT_OFF, interaction_graph=self._graph)

    def _graph(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        offset = x[self.pairs[0]] - x[self.pairs[1]]
        return self.pairs, (offset - BOX * (offset / BOX).round()).norm(dim=1)

    def forward(self, x: Tensor, pairs: Tensor) -> Tensor:
        self.pairs, x = pairs, x.requires_grad_()
        kind, frame = torch.ones(len(x), dtype=torch.long), torch.arange(len(x)) // fluid.N
        energy = self.net(kind, x, frame).sum()
        return -torch.autograd.grad(energy, x, create_graph=self.training)[0]


def neighbours(x: np.ndarray) -> np.ndarray:
    """Ordered pairs nearer than the cut-off."""
    pairs = cKDTree(x % BOX, boxsize=BOX).query_pairs(CUT_OFF, output_type="ndarray")
    return np.concatenate([pairs, pairs[:, ::-1]]).T


def single(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def schnet(job: dict[str, Any], train_frames: Frames, test: Frames) -> dict[str, Any]:
    """Batches of as many frames as divide its authors' hundred molecules by the size of a frame: one."""
    model = Potential(SCHNET[job["model"]])
    optimiser = torch.optim.Adam(model.parameters(), lr=job["lr"])
    ready = [(single(x), torch.as_tensor(neighbours(x)), single(f)) for x, f in train_frames]
    scale = float(torch.cat([f for _, _, f in ready]).std())
    start, budget, steps = time.process_time(), 60 * job["minutes"], 0
    while (spent := time.process_time() - start) < budget:
        x, pairs, f = ready[int(torch.randint(len(ready), ()))]
        optimiser.param_groups[0]["lr"] = job["lr"] * 0.5 * (1 + math.cos(math.pi * spent / budget))
        optimiser.zero_grad()
        (model(x, pairs) - f / scale).square().mean().backward()
        optimiser.step()
        steps += 1
    model.eval()
    start = time.process_time()
    asked = [(single(x), torch.as_tensor(neighbours(x))) for x, _ in test]
    predicted = [scale * model(*frame).detach().numpy() for frame in asked]
    ms = 1e3 * (time.process_time() - start) / len(test)
    weights = sum(p.numel() for p in model.parameters())
    return {"errors": error(predicted, test), "steps": steps, "weights": weights, "ms": ms}


def one(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    train_frames, test = frames(job["n_train"])
    found = (gno if job["model"] in GNO else schnet)(job, train_frames, test)
    machine = f"{platform.machine()}, torch {torch.__version__}"
    return {**job, **found, "machine": machine}


def table(rows: list[dict[str, Any]]) -> str:
    """Means over frames, and over seeds with their deviation."""
    first = rows[0]
    lines = [
        f"{first['minutes']:g} processor minute(s) of training each, one thread; relative L2 error of the forces over "
        f"{N_TEST} frames of another run. {first['machine']}.",
        "",
        "| model | frames | rate | seeds | error | median frame | steps | weights | ms a frame |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["model"], row["n_train"], row["lr"]), []).append(row)
    for (model, n_train, lr), some in groups.items():
        mean = spread([statistics.fmean(row["errors"]) for row in some])
        middle = spread([statistics.median(row["errors"]) for row in some])
        steps, ms = (statistics.median(row[key] for row in some) for key in ("steps", "ms"))
        rest = f"{steps:.0f} | {some[0]['weights']:,} | {ms:.1f}"
        lines.append(f"| {model} | {n_train} | {lr or 'own'} | {len(some)} | {mean} | {middle} | {rest} |")
    return "\n".join(lines) + "\n"


def jobs(minutes: float, seeds: int) -> list[dict[str, Any]]:
    """gno at the rate it ships with; SchNet at its authors' rate and twice a higher one."""
    tried = [(name, 0.0) for name in GNO] + [(name, lr) for name in SCHNET for lr in (1e-3, 3e-3)]
    few = [("gno", 0.0), ("gno, mirror images", 0.0), ("SchNet, small", 3e-3)]
    rates: list[tuple[str, float, int]] = [*((*x, 128) for x in tried), *((*x, 16) for x in few)]
    return [
        {"model": name, "lr": lr, "n_train": n, "seed": seed, "minutes": minutes}
        for seed in range(seeds)
        for name, lr, n in rates
    ]


def main() -> None:
    options = parser(__doc__, RESULTS, minutes=1.0, seeds=2).parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    if options.smoke:
        print(table([one({"model": name, "lr": 1e-3, "n_train": 4, "seed": 0, "minutes": 0.03}) for name in ("gno",)]))
        return
    run: Callable[[dict], dict] = lambda job: apart(__file__, job)  # noqa: E731
    text = table(collect([] if options.table else jobs(options.minutes, options.seeds), options.results, run))
    options.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
