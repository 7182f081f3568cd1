"""What waits for a GPU, one step after the other within a time limit, and a verdict on every target:

    python benchmarks/gpu.py --minutes 8.5          # on CUDA; a second call goes on where the first one stopped
    python benchmarks/gpu.py --smoke                # every step in small on a CPU, in a minute or two

What is cheap and decides most comes first: whether a step waits for the device, whether answers are those of the host,
kernels beside their twins and floors, time and memory against nodes, five members of an ensemble beside one, and an
operator for plates for as long as is left (data must be in benchmarks/.cache, `python benchmarks/data.py`, where gmsh
cannot be had). Each step is a process of its own. In the folder are log.txt (what steps print, as it comes), rows.jsonl
(what they measured, and how they ended), and verdict.md. Steps that are done are not run again unless they are named.
Exit status 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
# pyproject's own options ask for packages that such a machine may lack
PYTEST = "-m pytest -q -rfE -p no:cacheprovider -o addopts="
SCALING = f"{HERE}/scaling.py --dims 2 --precision bf16 --rows {{rows}}"
JOB = {"data": "plates", "model": "gno", "seed": 0, "threads": 1, "clock": "wall"}
# What is run on CUDA, and the most seconds it may take.
STEPS: dict[str, tuple[str, float]] = {
    "waits": (f"{PYTEST} -n 6 {TESTS}/test_cuda.py {TESTS}/test_nn_device.py -k waits", 150),
    "tests": (f"{PYTEST} -n 6 {TESTS}/test_cuda.py {TESTS}/test_kernels_triton.py -k not(waits)", 150),
    "kernels": (f"{HERE}/kernels.py --rows {{rows}}", 100),
    "scaling": (f"{SCALING} --device cuda --width 128 --spacings own --nodes 1000 10000 100000 1000000 {{table}}", 150),
    "ensemble": (f"{HERE}/ensemble_cost.py --device cuda --seconds 20 --at-once 5 --repeats 1 --rows {{rows}}", 180),
    "plates": (f"{HERE}/peer_run.py {{job}} {{folder}}/plates.json", 660),
    "largest": (f"{SCALING} --device cuda --width 128 --spacings fixed --nodes 1000000 4000000 {{table}}", 180),
}
SMOKE: dict[str, tuple[str, float]] = {
    "waits": (f"{PYTEST} {TESTS}/test_cuda.py -k waits[steady]", 300),
    "tests": (f"{PYTEST} {TESTS}/test_cuda.py -k plain", 300),
    "kernels": (f"{HERE}/kernels.py --device cpu --nodes 400 --width 8 --rows {{rows}}", 300),
    "scaling": (f"{SCALING} --device cpu --width 32 --spacings own --nodes 400 900 {{table}}", 300),
    "ensemble": (f"{HERE}/ensemble_cost.py --meshes 2 --epochs 1 --at-once 2 --repeats 1 --rows {{rows}}", 300),
    "plates": (f"{HERE}/peer_run.py {{job}} {{folder}}/plates.json", 300),
}
# Seconds of the step of plates that reading, testing and the first step take; what is left is for the training.
BESIDES = 60
H200 = 4.3e12  # bytes per second of a copy: times are wanted for it
LARGE = 900_000  # nodes of what targets call a million
Rows = Sequence[dict[str, Any]]


def run(name: str, options: argparse.Namespace, left: float) -> str:
    """Run a step; how it ended."""
    command, most = (SMOKE if options.smoke else STEPS)[name]
    limit, folder = min(most, left), options.folder
    sizes = {"device": "cpu", "minutes": 0.02, "n_train": 3, "n_test": 1} if options.smoke else {
        "device": "cuda", "minutes": max(limit - BESIDES, 10) / 60, "n_train": 400, "n_test": 50,
    }  # fmt: skip
    job = json.dumps({**JOB, **sizes, "settings": {}})
    values = {"folder": folder, "rows": folder / "rows.jsonl", "table": "--output", "job": job}
    arguments = [part.format(**values) for part in command.split()]
    arguments += [str(folder / f"{name}.md")] if "{table}" in command else []
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])  # gno need not be installed
    environment = {**os.environ, "PYTHONPATH": path, **({"GNO_DEVICE": "cpu"} if options.smoke else {})}
    started = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        print(f"\n## {name}\n", file=log, flush=True)
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            ended = "done" if process.wait(limit) == 0 else f"failed with {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes it has started
            process.wait()
            ended = f"stopped after {limit:.0f} s"
    record(options.folder, step=name, ended=ended, seconds=round(time.monotonic() - started))
    return ended


def record(folder: Path, **row: Any) -> None:
    with (folder / "rows.jsonl").open("a") as rows:
        print(json.dumps(row), file=rows)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    plates = folder / "plates.json"
    return [*rows, json.loads(plates.read_text())] if plates.exists() else rows


def device(smoke: bool) -> dict[str, Any]:
    """Name, bandwidth of a copy and rate of a large product: floors are those of the device at hand."""
    import torch
    from floor import measure

    found = measure("cpu" if smoke else "cuda", torch.bfloat16)
    torch.cuda.empty_cache()  # steps may need all of it
    name = "CPU" if smoke else torch.cuda.get_device_name()
    return {"device": name, "torch": torch.__version__, "copy": found.bandwidth, "product": found.peak}


def latest(rows: Rows, *keys: str, **known: Any) -> dict[str, Any] | None:
    """The last row that has these keys and values."""
    found = [r for r in rows if all(k in r for k in keys) and all(r.get(k) == v for k, v in known.items())]
    return found[-1] if found else None


def verdict(rows: Rows) -> str:
    """Every target of the GPU beside what was measured."""
    lines = ["| target | measured | |", "|---|--:|---|"]

    def judge(target: str, value: float | None, most: float, shown: str) -> None:
        said = ("—", "not measured") if value is None else (shown, "met" if value <= most else "**missed**")
        lines.append(f"| {target} | {said[0]} | {said[1]} |")

    for step, target in (
        ("waits", "no step waits for the device"),
        ("tests", "fields, gradients, bits and CUDA graphs as on the host"),
    ):
        ended = (latest(rows, "ended", step=step) or {}).get("ended")
        judge(target, None if ended is None else float(ended != "done"), 0.0, str(ended))
    own = {r["nodes"]: r for r in rows if r.get("spacing") == "own"}
    large: dict[str, Any] = next((r for n, r in own.items() if n > LARGE), {})
    size = f"{large['nodes']:,} nodes, {large['edges']:,} edges, {large['levels']} levels" if large else "1M nodes"
    for name, most in (("forward", 0.015), ("step", 0.055)):
        took = large.get(name)
        floor = took / large[f"{name}_floor"] if took else 0.0
        shown = f"{1e3 * (took or 0):.1f} ms, {floor:.1f} × floor"
        if took and large["machine"][0] < 0.9 * H200:
            shown += f"; {1e3 * took * large['machine'][0] / H200:.1f} ms if as far from the floor of an H200"
        judge(f"{name} ≤ {1e3 * most:.0f} ms on an H200, {size}", took, most, shown)
    memory = large["step_gb"] + large["held_gb"] if "step_gb" in large else None
    judge("step < 20 GB", memory, 20.0, f"{memory or 0:.1f} GB")
    for name in ("forward", "step"):
        slope = growth([r for n, r in sorted(own.items()) if n > 5000 and name in r], name)
        judge(f"{name} grows with N^1.05 or less, from 10,000 nodes", slope, 1.05, f"N^{slope or 0:.2f}")
    ensemble = latest(rows, "ratio")
    ratio = ensemble["ratio"] if ensemble else None
    shown = f"{ratio:.2f} times {ensemble['one_s']:.0f} s" if ensemble else ""
    judge("five members ≤ 2.5 times one", ratio, 2.5, shown)
    plates = latest(rows, "errors")
    error = plates["errors"]["same"]["displacement"] if plates else None
    shown = f"{100 * error:.2f} % after {plates['minutes']:.1f} min" if plates else ""
    judge("plates, displacement ≤ 1 % (after 10 min)", error, 0.01, shown)
    return "\n".join([told(rows), "", *lines, "", *kernels(rows)])


def growth(rows: Rows, name: str) -> float | None:
    """Exponent of the time against the nodes."""
    if len(rows) < 2:
        return None
    return float(np.polyfit(np.log([r["nodes"] for r in rows]), np.log([r[name] for r in rows]), 1)[0])


def told(rows: Rows) -> str:
    """The device, in words."""
    known = latest(rows, "device", "copy")
    if known is None:
        return "No device was measured."
    rates = f"copy {known['copy'] / 1e12:.2f} TB/s, product {known['product'] / 1e12:.0f} TFLOP/s in bfloat16"
    return f"{known['device']}, torch {known['torch']}: {rates}."


def kernels(rows: Rows) -> list[str]:
    """How far each kernel is from its floor, in bfloat16."""
    found = {(r["kernel"], r["way"]): r for r in rows if r.get("values") == "bf16"}
    if not found:
        return ["Kernels: not measured."]
    lines = ["| kernel, bfloat16 | | ms | × floor | × faster than its twin |", "|---|---|--:|--:|--:|"]
    for (kernel, way), r in found.items():
        numbers = f"{r['ms']:.3f} | {r['ms'] / r['floor_ms']:.1f} | {r['twin_ms'] / r['ms']:.1f}"
        lines.append(f"| {kernel} | {way} | {numbers} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, help="these alone, whether or not they are done")
    parser.add_argument("--minutes", type=float, default=20.0, help="of all steps together")
    parser.add_argument("--folder", type=Path, default=HERE / "results" / "gpu")
    parser.add_argument("--smoke", action="store_true", help="in small, on a CPU")
    parser.add_argument("--verdict", action="store_true", help="of what is in the folder, and stop")
    options = parser.parse_args()
    if options.verdict:
        print(verdict(rows_of(options.folder)))
        return
    end = time.monotonic() + 60 * options.minutes
    options.folder.mkdir(parents=True, exist_ok=True)
    finished = {r["step"] for r in rows_of(options.folder) if r.get("ended") == "done"}
    todo = options.steps or [name for name in (SMOKE if options.smoke else STEPS) if name not in finished]
    record(options.folder, **device(options.smoke))
    ends = {}
    for name in todo:
        left = end - time.monotonic()
        ends[name] = run(name, options, left) if left > 15 else "no time left"
        print(f"{name:10} {ends[name]}", flush=True)
        (options.folder / "verdict.md").write_text(verdict(rows_of(options.folder)) + "\n", encoding="utf-8")
    print((options.folder / "log.txt").read_text()[-5000:])
    print((options.folder / "verdict.md").read_text())
    sys.exit(not all(ended == "done" for ended in ends.values()))


if __name__ == "__main__":
    main()
