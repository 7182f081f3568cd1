"""All that waits for a GPU, one after the other within a time limit: `python benchmarks/gpu.py --minutes 9`.

What is cheap and decides most comes first: whether tests pass on CUDA, the kernels beside their twins and floors, time
and memory against nodes, five members of an ensemble beside one, then gno's row beside its peers (for as long as is
left; data must be in benchmarks/.cache, `python benchmarks/data.py`, where gmsh cannot be had). Each step is a process
of its own; its output goes to FOLDER/<step>.txt as it comes, so that an end by the clock loses nothing. Exit status 1
if a step failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TESTS = ("nn_device", "train_device", "kernels_triton", "graph_segment", "graph_padding", "nn_operator", "periodic")
SCALING = f"{HERE}/scaling.py --device cuda --precision bf16 --width 128 --dims 2"
# What is run, and the most seconds it may take.
STEPS: dict[str, tuple[str, float]] = {
    "tests": ("-m pytest -q " + " ".join(f"{HERE.parent}/tests/test_{name}.py" for name in TESTS), 120),
    "kernels": (f"{HERE}/kernels.py", 90),
    "scaling": (f"{SCALING} --spacings own --nodes 1000 10000 100000 1000000 --output {{folder}}/scaling.md", 150),
    "largest": (f"{SCALING} --spacings fixed --nodes 1000000 4000000 --output {{folder}}/largest.md", 150),
    "ensemble": (f"{HERE}/ensemble_cost.py --device cuda --epochs 4 --at-once 5 --repeats 1", 70),
    "peers": (
        f"{HERE}/peers.py --device cuda --models gno --data plates "
        "--minutes {minutes:.1f} --results {folder}/peers.jsonl",
        660,
    ),
}
# Of the time that is left, the share that a training may take; the rest is for data and evaluation.
TRAINING = 0.7


def run(name: str, folder: Path, seconds: float) -> str:
    """Run a step; how it ended."""
    command, most = STEPS[name]
    limit = min(most, seconds)
    values = {"folder": folder, "minutes": TRAINING * limit / 60}
    arguments = [sys.executable, *(part.format(**values) for part in command.split())]
    started = time.monotonic()
    with (folder / f"{name}.txt").open("w") as output:
        try:
            status = subprocess.run(arguments, stdout=output, stderr=subprocess.STDOUT, timeout=limit).returncode
            ended = "done" if status == 0 else f"failed with {status}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit:.0f} s"
    return f"{ended}, {time.monotonic() - started:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--minutes", type=float, default=20.0, help="of all steps together")
    parser.add_argument("--folder", type=Path, default=HERE / "results" / "gpu")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    end, ends = time.monotonic() + 60 * options.minutes, {}
    for name in options.steps:
        left = end - time.monotonic()
        ends[name] = run(name, options.folder, left) if left > 10 else "no time left"
        text = (options.folder / f"{name}.txt").read_text() if left > 10 else ""
        print(f"\n## {name}: {ends[name]}\n\n{text[-3000:]}", flush=True)
    print("\n".join(f"{name:10} {ended}" for name, ended in ends.items()))
    sys.exit(not all(ended.startswith("done") for ended in ends.values()))


if __name__ == "__main__":
    main()
