"""Two processes (gloo) take the same steps as one."""

import subprocess
import sys
from pathlib import Path

import torch
from train_cases import case, squares

from gno.train import train
from gno.train.checkpoint import load_tensors

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from train_cases import case, squares
from gno.train import train
train(case(epochs=1, batch_size=4, devices=2), {folder!r}, meshes=squares(6), progress=False)
"""


def test_two_processes_give_the_gradients_of_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    train(case(epochs=1, batch_size=4), tmp_path / "one", meshes=squares(6), progress=False)
    one, two = (load_tensors(tmp_path / name / "last.safetensors")[0] for name in ("one", "two"))
    # after one step the first moments are multiples of the (clipped) gradient
    moments = [key for key in one if key.startswith("optimiser/") and key.endswith(("exp_avg", "momentum_buffer"))]
    assert len(moments) > 20
    size = max(one[key].abs().max() for key in moments)
    for key in moments:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-5 * float(size))
